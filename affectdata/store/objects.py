"""Whole objects of a bucket (s3://, gs://, az://), through obstore (extra `remote`).

Credentials come from the store's own configuration (environment, profile, role of the machine), never from an
address, and messages have none: they name the object and the kind of error, not what the server answered.
Requests are repeated with growing pauses by obstore; an object is seen whole or not at all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, BinaryIO, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from affectdata.errors import InputError, IntegrityError
from affectdata.store.addresses import check_address

Out = TypeVar("Out")
_RETRIES = 8
_PART = 1 << 20  # bytes in memory at a time
CONNECTIONS = 16  # objects that are read or written at a time
_RETRY_FOR = timedelta(minutes=3)
_PAUSES_S = (0.1, 0.5, 2.0, 8.0)
_CONFIGURATION = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION (AWS_SKIP_SIGNATURE=true if it is public)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (GOOGLE_SKIP_SIGNATURE=true if it is public)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY",
}
_STATUS = re.compile(r"\b[45]\d\d [A-Z][A-Za-z ]+")  # in the text of an error


@dataclass(frozen=True, slots=True)
class Stat:
    """An object: its name below the address, its bytes, and its ETag, which changes with it."""

    name: str
    size: int
    tag: str


@dataclass(frozen=True)
class Bucket:
    """The objects below an address; picklable, as it connects where it is used."""

    address: str

    @cached_property
    def _store(self) -> Any:
        retry: Any = {"max_retries": _RETRIES, "retry_timeout": _RETRY_FOR}
        with self._explained(""):
            return from_url(check_address(self.address), retry_config=retry)

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}

    def get(self, name: str) -> tuple[bytes, Stat]:
        """Read an object.

        Raises:
            FileNotFoundError: there is none.
        """

        def read() -> tuple[bytes, Stat]:
            result = obstore.get(self._store, name)
            return bytes(result.bytes()), _stat(dict(result.meta))

        with self._explained(name):
            return _repeat(read)

    def read(self, name: str, file: BinaryIO) -> Stat:
        """Read an object into a file, part by part: memory does not grow with it.

        Where a connection ends early, obstore goes on from there with a range.

        Raises:
            FileNotFoundError: there is none.
        """

        def read() -> Stat:
            file.seek(0)
            file.truncate()
            result = obstore.get(self._store, name)
            for part in result.stream(min_chunk_size=_PART):
                file.write(part)
            return _stat(dict(result.meta))

        with self._explained(name):
            return _repeat(read)

    def put(self, name: str, data: bytes) -> None:
        """Write an object, in place of one that is there."""
        with self._explained(name):
            _repeat(lambda: obstore.put(self._store, name, data, use_multipart=False))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object if there is none; return whether it has these bytes now.

        A write whose response was lost is found by its bytes.
        """
        with self._explained(name):
            try:
                _repeat(lambda: obstore.put(self._store, name, data, mode="create", use_multipart=False))
            except (AlreadyExistsError, PreconditionError):
                return self.get(name)[0] == data
        return True

    def list(self, prefix: str = "") -> list[Stat]:
        """Return the objects below a prefix, a request per thousand."""
        with self._explained(prefix):
            parts = _repeat(lambda: [*obstore.list(self._store, prefix or None, chunk_size=1000)])
            return [_stat(dict(meta)) for part in parts for meta in part]

    def stat(self, name: str) -> Stat | None:
        """Return what is known of an object without reading it, or None if there is none."""
        try:
            with self._explained(name):
                return _stat(dict(_repeat(lambda: obstore.head(self._store, name))))
        except FileNotFoundError:
            return None

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn what obstore raises into errors without what the server answered."""
        where = f"{self.address.rstrip('/')}/{name}"
        configuration = _CONFIGURATION[self.address.partition(":")[0]]
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(2, "no such object or bucket", where) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise InputError("access was denied", where=where, fix=f"check {configuration}") from error
        except InvalidPathError as error:
            found = re.search(r'Path "(.*?)"', str(error))
            raise IntegrityError(
                f"{found[1] if found else 'an object'} cannot be the name of a file",
                where=where,
                fix="rename the object",
            ) from error
        except (BaseError, OSError) as error:
            status = _STATUS.search(str(error))
            reason = status[0] if status else type(error).__name__
            raise InputError(
                f"the store cannot be reached or refuses ({reason})",
                where=where,
                fix=f"check the address and {configuration}; the same command goes on from here",
            ) from error


def _repeat(request: Callable[[], Out]) -> Out:
    """Repeat a request whose connection ended where obstore does not: in writes, and in answers of errors."""
    end = time.monotonic() + _RETRY_FOR.total_seconds()
    for pause in _PAUSES_S:
        try:
            return request()
        except GenericError as error:
            status = _STATUS.search(str(error))
            if (status and _is_final(status[0])) or time.monotonic() + pause > end:
                raise
            time.sleep(pause)
    return request()


def _is_final(status: str) -> bool:
    """Return whether a request fails again: an error of the client, other than a time-out or too many."""
    return status.startswith("4") and not status.startswith(("408", "429"))


def _stat(meta: dict[str, Any]) -> Stat:
    # Lists have no version, and those of Azure ETags without quotes.
    tag = (meta["e_tag"] or "").strip('"') or meta["version"] or str(meta["last_modified"])
    return Stat(meta["path"], meta["size"], tag)
