"""Fetch one image by its address: bounded in bytes, time and redirects, polite to its host, whole or not.

In: a URL. Out: the bytes of an image that decodes, or why there are none. The one door to the HTTP client.
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
_HEAD_BYTES = 8  # enough for each of them
_BUSY = {408, 425, 429}  # of the 4xx, those that ask to come again


class Status(StrEnum):
    """What became of an image that was asked for."""

    FETCHED = "fetched"
    UNREACHABLE = "unreachable"  # no answer, an error of the server, or too slow; may pass
    BROKEN = "broken"  # it ends early, or no decoder takes it; may pass
    GONE = "gone"  # the server says that there is no such image, or not for us
    NO_IMAGE = "no_picture"  # something else came, such as an HTML page
    TOO_LARGE = "too_large"  # more bytes or pixels than the bound
    REFUSED = "refused"  # an address or a file name that is not followed


MAY_PASS = frozenset({Status.UNREACHABLE, Status.BROKEN})


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is asked of servers and taken from them; times in seconds."""

    connections: int = 8
    per_host: int = 2
    max_bytes: int = 64 << 20
    answer_s: float = 120.0  # from the first byte sent to the last one received
    silence_s: float = 20.0  # without a byte
    redirects: int = 5
    tries: int = 3
    pause_s: float = 1.0  # before the second try; doubles
    max_pause_s: float = 120.0  # a server that asks for a longer one is left alone until the next run


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of an address; `data` is empty unless `status` is fetched, else `error` says why."""

    status: Status
    data: bytes = b""
    error: str = ""
    n_tries: int = 0


class _Failure(Exception):
    def __init__(self, status: Status, detail: str, again: bool | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.again = status in MAY_PASS if again is None else again


class _Host:
    """The turns at one host, and the time (of the event loop) before which it wants to be left alone."""

    def __init__(self, turns: int) -> None:
        self.turns = asyncio.Semaphore(turns)
        self.not_before = 0.0


class Fetcher:
    """Fetch images over few connections; one per event loop, used by several tasks, closed at the end."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._hosts: defaultdict[str, _Host] = defaultdict(lambda: _Host(limits.per_host))
        self._decoding = asyncio.Lock()  # one at a time: a small file may hold very many pixels
        self._client = httpx2.AsyncClient(
            limits=httpx2.Limits(max_connections=limits.connections),
            timeout=limits.silence_s,
            headers={"User-Agent": f"affectdata/{version('affectdata')}", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, url: str) -> Fetched:
        """Return the image at `url`, or why there is none; what may pass is tried again after a pause."""
        n_tries = 0
        while True:
            n_tries += 1
            try:
                return Fetched(Status.FETCHED, await self._follow(url), n_tries=n_tries)
            except _Failure as failure:
                if not failure.again or n_tries >= self._limits.tries:
                    return Fetched(failure.status, error=str(failure), n_tries=n_tries)
            await asyncio.sleep(self._limits.pause_s * 2 ** (n_tries - 1))

    async def _follow(self, url: str) -> bytes:
        for _ in range(self._limits.redirects + 1):
            found = await self._ask(url)
            if isinstance(found, bytes):
                await self._check_decodes(found)
                return found
            url = found
        raise _Failure(Status.REFUSED, f"more than {self._limits.redirects} redirects, the last to {url}")

    async def _ask(self, url: str) -> bytes | str:
        """Ask once; return the body, or the address that the server points to."""
        try:
            target = httpx2.URL(url)
            if target.scheme not in ("http", "https") or not target.host:
                raise _Failure(Status.REFUSED, f"{url!r} is no address of http or https")
            turn = self._turn(target.netloc.decode())
            async with turn as host, self._client.stream("GET", target) as response:
                if response.has_redirect_location:
                    return str(target.join(response.headers["location"]))
                _check_status(response, host)
                return await self._read(response)
        except httpx2.InvalidURL as error:
            raise _Failure(Status.REFUSED, f"{url!r} is no address: {error}") from error
        except httpx2.RemoteProtocolError as error:
            raise _Failure(Status.BROKEN, f"the answer breaks off: {error}") from error
        except TimeoutError as error:
            raise _Failure(
                Status.UNREACHABLE, f"not there within {self._limits.answer_s:g} seconds"
            ) from error
        except (httpx2.HTTPError, OSError) as error:
            detail = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise _Failure(Status.UNREACHABLE, detail) from error

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[_Host]:
        """Wait for a turn at a host, then bound the time of what is done with it."""
        host = self._hosts[name]
        async with host.turns:
            pause = host.not_before - asyncio.get_running_loop().time()
            if pause > self._limits.max_pause_s:
                raise _Failure(
                    Status.UNREACHABLE, f"{name} asks to be left alone for {pause:.0f} seconds", again=False
                )
            await asyncio.sleep(max(0.0, pause))
            async with asyncio.timeout(self._limits.answer_s):
                yield host

    async def _read(self, response: httpx2.Response) -> bytes:
        most, declared = self._limits.max_bytes, response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise _Failure(Status.TOO_LARGE, f"{declared} bytes, and {most} are the most")
        data = bytearray()
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > most:
                raise _Failure(Status.TOO_LARGE, f"more than {most} bytes")
            if len(data) >= _HEAD_BYTES:
                _check_magic(data, response)
        _check_magic(data, response)
        return bytes(data)

    async def _check_decodes(self, data: bytes) -> None:
        """Decode: a server that declares too few bytes sends a cut image without breaking any rule."""
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
    pause = _asked_pause(response.headers.get("retry-after", ""))
    if pause is not None:
        host.not_before = max(host.not_before, asyncio.get_running_loop().time() + pause)
    passes = code in _BUSY or code >= HTTPStatus.INTERNAL_SERVER_ERROR
    raise _Failure(
        Status.UNREACHABLE if passes else Status.GONE, f"HTTP {code} {response.reason_phrase}".strip()
    )


def _asked_pause(retry_after: str) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # no date, or one without a time zone
        return None


def _check_magic(data: bytearray, response: httpx2.Response) -> None:
    if data.startswith(_MAGIC):
        return
    kind = response.headers.get("content-type", "no type")
    if not data:
        raise _Failure(Status.NO_IMAGE, "the answer is empty")
    what = "a page of HTML" if data.lstrip().startswith(b"<") else f"bytes {bytes(data[:_HEAD_BYTES])!r}"
    raise _Failure(Status.NO_IMAGE, f"{what} in place of an image ({kind})")
