"""List the members of a tar without trusting it: names and sizes from plain, pax and GNU headers."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import IO

BLOCK = 512
_MAX_EXTENDED = 1 << 20  # bytes of an extended header, for names and sizes that the plain header cannot hold
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENDED = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_LENGTH = re.compile(rb"(\d{1,9}) ")


def iter_members(packed: IO[bytes], max_headers: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members with full names and sizes; `packed` is then at the start of the content.

    The caller moves `packed` behind the content, to `content_end`. Extended headers are those of pax
    (POSIX.1-2001) and of GNU tar, at most `max_headers` bytes of them. `tarfile` would read one of any size
    at once, and before Python 3.11.10 and 3.12.6 parse it in quadratic time (CVE-2024-6232).

    Raises:
        ValueError: it is truncated, or a header is damaged or too large.
    """
    extended: dict[str, str] = {}
    while (block := packed.read(BLOCK)) != bytes(BLOCK):
        if len(block) < BLOCK:
            raise ValueError("it is truncated")
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type not in _EXTENDED:
            info.name, info.size = extended.get("path", info.name), int(extended.get("size", info.size))
            yield info
            extended = {}
            continue
        max_headers -= BLOCK + info.size
        if max_headers < 0 or not 0 <= info.size <= _MAX_EXTENDED:
            raise ValueError(f"it has extended headers that are too large: {info.size} bytes")
        data = packed.read(info.size + -info.size % BLOCK)[: info.size]
        if info.type == tarfile.GNUTYPE_LONGNAME:
            extended["path"] = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif info.type in _PAX:
            extended |= _parse_pax(data.rstrip(b"\0"))


def content_end(start: int, size: int) -> int:
    """Return where the header after a content begins."""
    return start + size + -(start + size) % BLOCK


def _parse_pax(data: bytes) -> dict[str, str]:
    """Return the records of an extended header, each of the form `<bytes of it> <key>=<value>` + line end."""
    records, start = {}, 0
    while start < len(data):
        length = _LENGTH.match(data, start)
        end = start + int(length[1]) if length else start
        record = data[start:end].decode("utf-8", "surrogateescape").partition(" ")[2]
        key, _, value = record.partition("=")
        if end > len(data) or not value.endswith("\n") or key.startswith("GNU.sparse"):
            raise ValueError("an extended header is damaged, or describes a sparse file")
        records[key], start = value[:-1], end
    return records
