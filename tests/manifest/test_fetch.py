"""Fetching one image from servers that are slow, cut, loop, lie and send pages for images."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from affectdata.manifest.fetch import Fetched, Fetcher, Limits, Status, _asked_pause
from tests.served import Site

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
QUICK = Limits(max_bytes=1 << 20, answer_s=0.4, silence_s=0.3, pause_s=0.01, tries=2)


def fetch(*urls: str, limits: Limits = QUICK) -> list[Fetched]:
    async def all_of_them() -> list[Fetched]:
        fetcher = Fetcher(limits)
        try:
            return await asyncio.gather(*map(fetcher.fetch, urls))
        finally:
            await fetcher.close()

    return asyncio.run(all_of_them())


def test_a_image_comes_whole(site: Site) -> None:
    direct, hopped = fetch(site.url("image/1.jpg"), site.url("hop/2.jpg"))
    assert direct == hopped == Fetched(Status.FETCHED, site.image, "", 1)


def test_names_beyond_ascii_are_escaped_and_escapes_kept(site: Site) -> None:
    fetch(site.url("image/café 1.jpg"), site.url("image/caf%C3%A9%202.jpg"))
    assert set(site.asked) == {"/image/caf%C3%A9%201.jpg", "/image/caf%C3%A9%202.jpg"}


@pytest.mark.parametrize(
    ("path", "status", "said", "n_tries"),
    [
        ("html/1.jpg", Status.NO_IMAGE, "a page of HTML in place of an image (image/jpeg)", 1),
        ("empty/1.jpg", Status.NO_IMAGE, "the answer is empty", 1),
        ("gone/1.jpg", Status.GONE, "HTTP 404 Not Found", 1),
        ("loop/1.jpg", Status.REFUSED, "more than 5 redirects", 1),
        ("leave/1.jpg", Status.REFUSED, "'file:/etc/hostname' is no address of http or https", 1),
        ("endless/1.jpg", Status.TOO_LARGE, "more than 1048576 bytes", 1),
        ("declared/1.jpg", Status.TOO_LARGE, "1099511627776 bytes, and 1048576 are the most", 1),
        ("cut/1.jpg", Status.BROKEN, "the answer breaks off", 2),
        ("broken/1.jpg", Status.BROKEN, "", 2),
        ("short/1.jpg", Status.BROKEN, "", 2),
        ("silent/1.jpg", Status.UNREACHABLE, "ReadTimeout", 2),
        ("drip/1.jpg", Status.UNREACHABLE, "not there within 0.4 seconds", 2),
        ("drip-header/1.jpg", Status.UNREACHABLE, "not there within 0.4 seconds", 2),
    ],
)
def test_what_is_no_image_is_named(site: Site, path: str, status: Status, said: str, n_tries: int) -> None:
    started = time.monotonic()
    (found,) = fetch(site.url(path))
    assert (found.status, found.data, found.n_tries) == (status, b"", n_tries)
    assert said in found.error and found.error
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://h/a.jpg", "a.jpg", "", "http://", "http://h:x/a.jpg"]
)
def test_only_http_is_followed(url: str) -> None:
    (found,) = fetch(url)
    assert (found.status, found.n_tries) == (Status.REFUSED, 1)


def test_nobody_there_may_pass() -> None:
    (found,) = fetch("http://127.0.0.1:9/a.jpg")
    assert (found.status, found.n_tries) == (Status.UNREACHABLE, 2)
    assert found.error.startswith("ConnectError")


def test_a_busy_server_is_left_alone_as_long_as_it_asks(site: Site) -> None:
    started = time.monotonic()
    busy, other = fetch(site.url("busy/1.jpg"), site.url("image/2.jpg"))
    assert (busy.status, busy.n_tries, other.status) == (Status.FETCHED, 2, Status.FETCHED)
    assert time.monotonic() - started > 0.9


def test_a_server_that_asks_for_too_long_is_not_asked_again(site: Site) -> None:
    fetched = fetch(*(site.url(f"away/{number}.jpg") for number in range(6)))
    assert {each.status for each in fetched} == {Status.UNREACHABLE}
    assert sum("asks to be left alone for 3600 seconds" in each.error for each in fetched) >= 4
    assert site.asked.total() <= QUICK.per_host


def test_no_more_than_the_host_s_share_at_once(site: Site) -> None:
    fetched = fetch(*(site.url(f"lingering/{number}.jpg") for number in range(8)))
    assert [each.status for each in fetched] == [Status.FETCHED] * 8
    assert site.n_most == QUICK.per_host


def test_retry_after_is_a_number_or_a_date() -> None:
    assert _asked_pause("120") == 120
    soon = _asked_pause(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None and 50 < soon <= 60
    for nonsense in ("", "soon", "-5", "²"):
        assert _asked_pause(nonsense) is None
