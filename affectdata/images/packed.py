"""Images inside other files: rows of a Parquet table, members of a tar; without reading the rest."""

from __future__ import annotations

import threading
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.errors import DecodeError
from affectdata.store.files import open_regular
from affectdata.store.tar import content_end, iter_members

_MAX_GROUP_BYTES = 2 << 30  # images of a row group, which is read as a whole
_MAX_HEADERS = 256 << 20  # bytes of extended headers of a tar
_MAX_MEMBERS = 2_000_000
_NAMES = ("image", "img", "picture", "photo", "image_bytes", "jpg", "jpeg", "png", "bytes")
_CACHE_BYTES = 512 << 20  # of row groups: `balance` reads images in another order than that of the table
_CACHE: dict[tuple[Path, int, int, int], pa.ChunkedArray] = {}  # by file, size, mtime and number
_LOCK = threading.Lock()  # guards the cache; else every worker would read the same row group


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    start: int
    size: int


def image_columns(schema: pa.Schema) -> list[str]:
    """List the columns that contain image files, the one that is read first.

    They are structs with a binary field `bytes`, as the Hugging Face hub has them, and binary columns with
    the name of an image.
    """
    found = [field.name for field in schema if _leaf(field) is not None]
    return sorted(found, key=lambda name: _NAMES.index(name) if name in _NAMES else len(_NAMES))


def _leaf(field: pa.Field) -> str | None:
    """Return the path of the binary column in a column."""
    if pa.types.is_struct(field.type):
        inner = field.type.get_field_index("bytes")
        return f"{field.name}.bytes" if inner >= 0 and _is_binary(field.type.field(inner).type) else None
    return field.name if _is_binary(field.type) and field.name.lower() in _NAMES else None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def read_parquet_image(file: Path, row: int) -> bytes:
    """Read the image of one row.

    Raises:
        OSError: the file cannot be read.
        DecodeError: there is no such row, it has no image, or its row group is too large.
    """
    stamp = file.stat()
    key = (file, stamp.st_size, stamp.st_mtime_ns)
    try:
        with _LOCK:
            leaf, starts = _layout(*key)
            group = next((at for at, end in enumerate(starts[1:]) if row < end), None)
            if leaf is None or group is None:
                raise DecodeError("unreadable", f"{file.name} has no row {row} with an image")
            value = _group(*key, leaf, group)[row - starts[group]].as_py()
    except pa.ArrowException as error:
        raise DecodeError("unreadable", f"{file.name} cannot be read as Parquet: {error}") from error
    if value is None:
        raise DecodeError("missing_image", f"row {row} of {file.name} contains no image")
    return bytes(value)


@lru_cache(maxsize=16)
def _layout(file: Path, size: int, mtime_ns: int) -> tuple[str | None, list[int]]:
    """Return the path of the column of images, and the first row of each row group.

    Size and mtime are part of the cache key.
    """
    with open_regular(file) as opened:
        table = pq.ParquetFile(opened)
        columns = image_columns(table.schema_arrow)
        leaf = _leaf(table.schema_arrow.field(columns[0])) if columns else None
        groups = (table.metadata.row_group(index).num_rows for index in range(table.num_row_groups))
        return leaf, list(accumulate(groups, initial=0))


def _group(file: Path, size: int, mtime_ns: int, leaf: str, group: int) -> pa.ChunkedArray:
    """Return the images of a row group; those used last are kept, as far as they fit into the cache."""
    key = (file, size, mtime_ns, group)
    images = _CACHE.pop(key, None)
    if images is None:
        images = _read_group(file, leaf, group)
    _CACHE[key] = images
    while len(_CACHE) > 1 and sum(kept.nbytes for kept in _CACHE.values()) > _CACHE_BYTES:
        del _CACHE[next(iter(_CACHE))]
    return images


def _read_group(file: Path, leaf: str, group: int) -> pa.ChunkedArray:
    with open_regular(file) as opened:
        table = pq.ParquetFile(opened, read_dictionary=[leaf])  # repeated images are kept once
        columns = table.metadata.row_group(group)
        parts = (columns.column(index) for index in range(columns.num_columns))
        n_bytes = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == leaf)
        if n_bytes > _MAX_GROUP_BYTES:
            detail = f"row group {group} of {file.name} has {n_bytes >> 20} MiB of images: write smaller ones"
            raise DecodeError("too_large", detail)
        column = table.read_row_group(group, columns=[leaf]).column(0)
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def list_members(file: Path) -> list[Member]:
    """List the regular files of an uncompressed tar, in order.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a tar, or is damaged.
    """
    stamp = file.stat()
    return _list_members(file, stamp.st_size, stamp.st_mtime_ns)


@lru_cache(maxsize=16)
def _list_members(file: Path, size: int, mtime_ns: int) -> list[Member]:
    members: list[Member] = []
    with open_regular(file) as packed:
        try:
            for info in iter_members(packed, _MAX_HEADERS):
                start = packed.tell()
                if info.size < 0 or start + info.size > size or len(members) >= _MAX_MEMBERS:
                    raise ValueError("it is truncated, or has more than 2 million members")
                if info.isreg():
                    members.append(Member(info.name, start, info.size))
                packed.seek(content_end(start, info.size))
        except ValueError:
            raise
        except Exception as error:  # tarfile raises errors of its own on hostile bytes
            raise ValueError(str(error)) from error
    return members


def read_member(file: Path, member: Member, max_bytes: int | None = None) -> bytes:
    """Read one file of a tar.

    Raises:
        OSError: the tar cannot be read.
        DecodeError: the file is larger than `max_bytes`.
    """
    if max_bytes is not None and member.size > max_bytes:
        raise DecodeError("too_large", f"the file is larger than {max_bytes >> 20} MiB")
    with open_regular(file) as packed:
        packed.seek(member.start)
        return packed.read(member.size)


def read_tar_image(file: Path, number: int, max_bytes: int | None = None) -> bytes:
    """Read a file of a tar by its number.

    Raises:
        OSError: the tar cannot be read.
        DecodeError: there is no such file, or it is larger than `max_bytes`.
    """
    try:
        members = list_members(file)
    except ValueError as error:
        raise DecodeError("unreadable", f"{file.name} cannot be read as a tar: {error}") from error
    if number >= len(members):
        raise DecodeError("unreadable", f"{file.name} has no file {number}")
    return read_member(file, members[number], max_bytes)
