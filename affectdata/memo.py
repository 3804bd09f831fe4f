"""The memo: what was seen of each file, so that a second or an interrupted `ingest` opens only what is new.

A file counts as the same while its size, its time of modification and its inode are. The memo lies beside the
manifest, is part of no hash, and may be removed at any time; `ingest --rehash` does not believe it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import AffectdataError
from affectdata.picture_bytes import file_of
from affectdata.probe import PROBED
from affectdata.tables import read_table, write_table

KIND = "memo"
_STAMP = pa.schema([("size", pa.int64()), ("mtime_ns", pa.int64()), ("inode", pa.int64())])
MEMO = pa.schema([*PROBED, *_STAMP])
_GONE = (-1, -1, -1)


def stamp_files(root: Path, paths: list[str]) -> pa.Table:
    """Return path, size, mtime_ns and inode of files under `root`; -1 where one is not to be had."""
    stamps = list(_stamps(root, paths))
    columns = [paths, *([stamp[at] for stamp in stamps] for at in range(3))]
    return pa.table(columns, schema=pa.schema([PROBED.field("path"), *_STAMP]))


def _stamps(root: Path, paths: list[str]) -> Iterator[tuple[int, int, int]]:
    for path in paths:
        try:
            found = (root / file_of(path)).stat()
        except OSError:
            yield _GONE
        else:
            yield found.st_size, found.st_mtime_ns, found.st_ino


def read_memo(path: Path, settings: dict[str, Any]) -> pa.Table:
    """Return what is noted; nothing if there is no memo, a damaged one, or one of other settings."""
    try:
        table, metadata = read_table(path, KIND)
    except AffectdataError:
        return MEMO.empty_table()
    fits = metadata.get("settings") == settings and table.schema.equals(MEMO)
    return table if fits else MEMO.empty_table()


def write_memo(path: Path, probed: pa.Table, stamps: pa.Table, settings: dict[str, Any]) -> None:
    """Note what was seen (`probed`) of files as they were before (`stamps`); rows may be in any order."""
    at = pc.index_in(probed["path"], stamps["path"].combine_chunks())
    for field in _STAMP:
        probed = probed.append_column(field, stamps[field.name].take(at))
    there = pc.greater_equal(probed["size"], 0)
    write_table(probed.filter(there), path, KIND, {"settings": settings})


def recall(memo: pa.Table, stamps: pa.Table) -> pa.Table:
    """Return the noted rows of those files that are as they were."""
    at = pc.index_in(_keys(memo), _keys(stamps))
    return memo.filter(pc.is_valid(at)).select(PROBED.names)


def _keys(table: pa.Table) -> pa.Array:
    columns = (table[name].cast(pa.string()) for name in ("path", *_STAMP.names))
    return pc.binary_join_element_wise(*columns, "\x1f").combine_chunks()
