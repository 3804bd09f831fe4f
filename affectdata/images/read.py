"""Read the bytes of an image: a file under a root, or a row of a table that contains its pixels.

A path `FILE#N` is an image inside a file, N its number from 0:

    TABLE.csv#N      row N (one line each) of a table with a column `pixels`: the grey values of a square
                     image, separated by spaces, as FER2013 ships its faces. Its bytes are those pixels as a
                     binary PGM, so that they have one SHA-256 and every decoder can read them.
    TABLE.parquet#N  row N of a table with a column of image files
    SHARD.tar#N      regular file N of a tar
"""

from __future__ import annotations

import csv
import math
import os
import re
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from affectdata.errors import DecodeError
from affectdata.images.packed import read_parquet_image, read_tar_image
from affectdata.store.files import open_regular

_INSIDE = re.compile(r"(?P<file>.+\.(?P<kind>csv|parquet|tar))#(?P<number>\d{1,9})", re.IGNORECASE)
_COLUMN = "pixels"


def file_of(path: str) -> str:
    """Return the file that contains an image.

    >>> file_of("a/1.jpg"), file_of("fer2013.csv#7")
    ('a/1.jpg', 'fer2013.csv')
    """
    match = _INSIDE.fullmatch(path)
    return match["file"] if match else path


def read_image(root: Path, path: str, max_bytes: int | None = None) -> bytes:
    """Read an image.

    Raises:
        OSError: the file cannot be read.
        DecodeError: the file is larger than `max_bytes`, or the row contains no image.
    """
    match = _INSIDE.fullmatch(path)
    if match:
        return _read_inside(root / match["file"], match["kind"].lower(), int(match["number"]), max_bytes)
    with open_regular(f"{root}/{path}") as file:
        if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
            raise DecodeError("too_large", f"the file is larger than {max_bytes >> 20} MiB")
        return file.read()


def _read_inside(file: Path, kind: str, number: int, max_bytes: int | None) -> bytes:
    if kind == "tar":
        return read_tar_image(file, number, max_bytes)
    return read_parquet_image(file, number) if kind == "parquet" else _read_row(file, number)


def _read_row(table: Path, row: int) -> bytes:
    stamp = table.stat()
    starts = _line_starts(table, stamp.st_size, stamp.st_mtime_ns)
    if row + 2 >= len(starts):
        raise DecodeError("unreadable", f"{table.name} has no row {row}")
    with open_regular(table) as file:
        header = _cells(file.readline())
        file.seek(starts[row + 1])
        cells = _cells(file.readline())
    try:
        pixels = bytes(map(int, cells[header.index(_COLUMN)].split()))
    except (ValueError, IndexError) as error:
        raise DecodeError(
            "unreadable", f"column {_COLUMN!r} is not a list of grey values of 0–255: {error}"
        ) from error
    side = math.isqrt(len(pixels))
    if not pixels or side**2 != len(pixels):
        raise DecodeError("unreadable", f"{len(pixels)} grey values do not make a square image")
    return f"P5\n{side} {side}\n255\n".encode() + pixels


def _cells(line: bytes) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line.decode("utf-8-sig", "replace").rstrip()]), [])]
    except csv.Error:  # a field longer than any cell of pixels
        return []


@lru_cache(maxsize=4)
def _line_starts(table: Path, size: int, mtime_ns: int) -> list[int]:
    """Return the offset of each line and the end of the file; size and mtime are part of the cache key."""
    with open_regular(table) as file:
        return list(accumulate(map(len, file), initial=0))
