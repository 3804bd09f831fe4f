"""Fetching one image from servers that are slow, truncate, redirect in a loop, or send HTML pages."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from affectdata.manifest.fetch import Fetcher, FetchResult, Limits, Status, _retry_after_s
from tests.served import Site

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
QUICK = Limits(max_bytes=1 << 20, answer_s=0.4, silence_s=0.3, pause_s=0.01, tries=2)


def fetch(*urls: str, limits: Limits = QUICK) -> list[FetchResult]:
    async def fetch_all() -> list[FetchResult]:
        fetcher = Fetcher(limits)
        try:
            return await asyncio.gather(*map(fetcher.fetch, urls))
        finally:
            await fetcher.close()

    return asyncio.run(fetch_all())


def test_an_image_is_fetched_directly_and_by_redirect(site: Site) -> None:
    direct, redirected = fetch(site.url("image/1.jpg"), site.url("hop/2.jpg"))
    assert direct == redirected == FetchResult(Status.FETCHED, site.image, "", 1)


def test_names_beyond_ascii_are_escaped_and_escapes_kept(site: Site) -> None:
    fetch(site.url("image/café 1.jpg"), site.url("image/caf%C3%A9%202.jpg"))
    assert set(site.asked) == {"/image/caf%C3%A9%201.jpg", "/image/caf%C3%A9%202.jpg"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status", "message", "n_tries"),
    [
        ("html/1.jpg", Status.NO_IMAGE, "an HTML page instead of an image (image/jpeg)", 1),
        ("empty/1.jpg", Status.NO_IMAGE, "the response is empty", 1),
        ("gone/1.jpg", Status.GONE, "HTTP 404 Not Found", 1),
        ("loop/1.jpg", Status.REFUSED, "more than 5 redirects", 1),
        ("leave/1.jpg", Status.REFUSED, "'file:/etc/hostname' is not an http or https URL", 1),
        ("endless/1.jpg", Status.TOO_LARGE, "more than 1048576 bytes", 1),
        ("declared/1.jpg", Status.TOO_LARGE, "1099511627776 bytes; the limit is 1048576", 1),
        ("cut/1.jpg", Status.BROKEN, "incomplete response", 2),
        ("broken/1.jpg", Status.BROKEN, "", 2),
        ("short/1.jpg", Status.BROKEN, "", 2),
        ("silent/1.jpg", Status.UNREACHABLE, "ReadTimeout", 2),
        ("drip/1.jpg", Status.UNREACHABLE, "no complete response within 0.4 seconds", 2),
        ("drip-header/1.jpg", Status.UNREACHABLE, "no complete response within 0.4 seconds", 2),
    ],
)
def test_failures_have_a_status_and_a_message(
    site: Site, path: str, status: Status, message: str, n_tries: int
) -> None:
    started = time.monotonic()
    (result,) = fetch(site.url(path))
    assert (result.status, result.data, result.n_tries) == (status, b"", n_tries)
    assert message in result.error and result.error
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://h/a.jpg", "a.jpg", "", "http://", "http://h:x/a.jpg"]
)
def test_only_http_is_followed(url: str) -> None:
    (result,) = fetch(url)
    assert (result.status, result.n_tries) == (Status.REFUSED, 1)


def test_a_refused_connection_is_temporary() -> None:
    (result,) = fetch("http://127.0.0.1:9/a.jpg")
    assert (result.status, result.n_tries) == (Status.UNREACHABLE, 2)
    assert result.error.startswith("ConnectError")


def test_a_busy_server_is_retried_after_the_delay_that_it_requests(site: Site) -> None:
    started = time.monotonic()
    busy, idle = fetch(site.url("busy/1.jpg"), site.url("image/2.jpg"))
    assert (busy.status, busy.n_tries, idle.status) == (Status.FETCHED, 2, Status.FETCHED)
    assert time.monotonic() - started > 0.9


def test_a_server_that_requests_too_long_a_delay_is_not_retried(site: Site) -> None:
    fetched = fetch(*(site.url(f"away/{number}.jpg") for number in range(6)))
    assert {result.status for result in fetched} == {Status.UNREACHABLE}
    assert sum("asks to retry after 3600 seconds" in result.error for result in fetched) >= 4
    assert site.asked.total() <= QUICK.per_host


def test_requests_per_host_are_limited(site: Site) -> None:
    fetched = fetch(*(site.url(f"lingering/{number}.jpg") for number in range(8)))
    assert [result.status for result in fetched] == [Status.FETCHED] * 8
    assert site.n_most == QUICK.per_host


def test_retry_after_is_a_number_or_a_date() -> None:
    assert _retry_after_s("120") == 120
    soon = _retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None and 50 < soon <= 60
    for nonsense in ("", "soon", "-5", "²"):
        assert _retry_after_s(nonsense) is None
