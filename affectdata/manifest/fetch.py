"""Fetch one image by URL, with limits on bytes, time, redirects and requests per host.

In: a URL. Out: the bytes of an image that decodes, or the error. The only module that uses the HTTP client.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from importlib.metadata import version

import httpx2

from affectdata.errors import DecodeError
from affectdata.images.decode import decode

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_HEAD_BYTES = 8  # at least the longest of them
_BUSY = {408, 425, 429}  # 4xx codes that ask to retry


class Status(StrEnum):
    """The outcome of a request for an image."""

    FETCHED = "fetched"
    UNREACHABLE = "unreachable"  # no response, a server error, or too slow; temporary
    BROKEN = "broken"  # it ends early, or does not decode; temporary
    GONE = "gone"  # the server has no such image, or denies access
    NO_IMAGE = "no_picture"  # another kind of content, such as an HTML page
    TOO_LARGE = "too_large"  # more bytes or pixels than the limit
    REFUSED = "refused"  # a URL or file name that is not allowed
    PENDING = "pending"  # the run that requests it has not ended


TEMPORARY = frozenset({Status.UNREACHABLE, Status.BROKEN})


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of requests and responses; times in seconds."""

    connections: int = 8
    per_host: int = 2
    max_bytes: int = 64 << 20
    answer_s: float = 120.0  # from the first byte sent to the last byte received
    silence_s: float = 20.0  # without receiving a byte
    redirects: int = 5
    tries: int = 3
    pause_s: float = 1.0  # before the second try; doubles with every try
    max_pause_s: float = 120.0  # for a longer Retry-After, wait for the next run


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The outcome of a URL: `data` if `status` is fetched, else `error`."""

    status: Status
    data: bytes = b""
    error: str = ""
    n_tries: int = 0


class _Failure(Exception):
    def __init__(self, status: Status, detail: str, retry: bool | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry = status in TEMPORARY if retry is None else retry


class _Host:
    """The connection slots of one host, and the event loop time before which it must not be contacted."""

    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.not_before = 0.0


class Fetcher:
    """Fetches images over few connections; one per event loop, shared by its tasks, closed at the end."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._hosts: defaultdict[str, _Host] = defaultdict(lambda: _Host(limits.per_host))
        self._decoding = asyncio.Lock()  # one at a time: a small file may have very many pixels
        self._client = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=limits.connections),
            timeout=limits.silence_s,
            headers={"User-Agent": f"affectdata/{version('affectdata')}", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, url: str) -> FetchResult:
        """Return the image at `url` or the error; temporary errors are retried after a pause."""
        n_tries = 0
        while True:
            n_tries += 1
            try:
                return FetchResult(Status.FETCHED, await self._follow(url), n_tries=n_tries)
            except _Failure as failure:
                if not failure.retry or n_tries >= self._limits.tries:
                    return FetchResult(failure.status, error=str(failure), n_tries=n_tries)
            await asyncio.sleep(self._limits.pause_s * 2 ** (n_tries - 1))

    async def _follow(self, url: str) -> bytes:
        for _ in range(self._limits.redirects + 1):
            response = await self._request(url)
            if isinstance(response, bytes):
                await self._check_decodes(response)
                return response
            url = response
        raise _Failure(Status.REFUSED, f"more than {self._limits.redirects} redirects, the last to {url}")

    async def _request(self, url: str) -> bytes | str:
        """Send one request; return the body, or the URL of a redirect."""
        try:
            target = httpx2.URL(url)
            if target.scheme not in ("http", "https") or not target.host:
                raise _Failure(Status.REFUSED, f"{url!r} is not an http or https URL")
            slot = self._slot(target.netloc.decode())
            async with slot as host, self._client.stream("GET", target) as response:
                if response.has_redirect_location:
                    return str(target.join(response.headers["location"]))
                _check_status(response, host)
                return await self._read(response)
        except httpx2.InvalidURL as error:
            raise _Failure(Status.REFUSED, f"invalid URL {url!r}: {error}") from error
        except httpx2.RemoteProtocolError as error:
            raise _Failure(Status.BROKEN, f"incomplete response: {error}") from error
        except TimeoutError as error:
            raise _Failure(
                Status.UNREACHABLE, f"no complete response within {self._limits.answer_s:g} seconds"
            ) from error
        except (httpx2.HTTPError, OSError) as error:
            detail = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise _Failure(Status.UNREACHABLE, detail) from error

    @asynccontextmanager
    async def _slot(self, name: str) -> AsyncIterator[_Host]:
        """Wait for a slot of a host, then limit the time of the block."""
        host = self._hosts[name]
        async with host.slots:
            pause = host.not_before - asyncio.get_running_loop().time()
            if pause > self._limits.max_pause_s:
                raise _Failure(
                    Status.UNREACHABLE, f"{name} asks to retry after {pause:.0f} seconds", retry=False
                )
            await asyncio.sleep(max(0.0, pause))
            async with asyncio.timeout(self._limits.answer_s):
                yield host

    async def _read(self, response: httpx2.Response) -> bytes:
        max_bytes, declared = self._limits.max_bytes, response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise _Failure(Status.TOO_LARGE, f"{declared} bytes; the limit is {max_bytes}")
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > max_bytes:
                raise _Failure(Status.TOO_LARGE, f"more than {max_bytes} bytes")
            if len(data) >= _HEAD_BYTES:
                _check_magic(data, response)
        _check_magic(data, response)
        return bytes(data)

    async def _check_decodes(self, data: bytes) -> None:
        """Check that the image decodes: a server may declare too few bytes and so send a truncated image."""
        async with self._decoding:
            try:
                await asyncio.to_thread(decode, data)
            except DecodeError as error:
                status = Status.TOO_LARGE if error.reason == "too_large" else Status.BROKEN
                raise _Failure(status, error.what) from error


def _check_status(response: httpx2.Response, host: _Host) -> None:
    code = response.status_code
    if code == HTTPStatus.OK:
        return
    pause = _retry_after_s(response.headers.get("retry-after", ""))
    if pause is not None:
        host.not_before = max(host.not_before, asyncio.get_running_loop().time() + pause)
    is_temporary = code in _BUSY or code >= HTTPStatus.INTERNAL_SERVER_ERROR
    raise _Failure(
        Status.UNREACHABLE if is_temporary else Status.GONE, f"HTTP {code} {response.reason_phrase}".strip()
    )


def _retry_after_s(retry_after: str) -> float | None:
    """Return the delay of a Retry-After header in seconds; it is a number or a date (RFC 9110, 10.2.3)."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # not a date, or without a time zone
        return None


def _check_magic(data: bytearray, response: httpx2.Response) -> None:
    if data.startswith(_MAGIC):
        return
    kind = response.headers.get("content-type", "no type")
    if not data:
        raise _Failure(Status.NO_IMAGE, "the response is empty")
    what = "an HTML page" if data.lstrip().startswith(b"<") else f"bytes {bytes(data[:_HEAD_BYTES])!r}"
    raise _Failure(Status.NO_IMAGE, f"{what} instead of an image ({kind})")
