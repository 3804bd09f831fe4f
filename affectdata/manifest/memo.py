"""The memo: what was seen of each file, so that a second or an interrupted `ingest` opens only what is new.

A file counts as the same while its size, its time of modification and its inode are. The memo lies beside the
manifest, is part of no hash, and may be removed at any time; `ingest --rehash` does not believe it. It is a
file of blocks that is added to as images are seen: length and xxh3-128 of an Arrow stream, and the stream.
The first block is the settings. What follows a block that is not whole is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from affectdata.errors import InputError
from affectdata.images.probe import PROBED
from affectdata.images.read import file_of
from affectdata.store.files import check_regular

STAMP = ("size", "mtime_ns", "inode")
_MEMO = pa.schema([*PROBED, *((name, pa.int64()) for name in STAMP)])
_HEAD = struct.Struct("<Q16s")
_BLOCK_ROWS = 512  # what a run that is killed loses at most
_STAT_ROWS = 1 << 13  # files asked for at once
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


class Memo:
    """What was seen of the files under `root` at `paths`, row by row on disk; `stamps` are as they are now.

    One process at a time: another waits until the first is done.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, path: Path, root: Path, paths: pa.Array, settings: dict[str, Any]) -> None:
        self.paths = paths
        self.stamps = stamp_files(root, paths)
        self._new: list[pa.Table] = []
        self._at: list[np.ndarray] = []  # of every row on disk, its place in `paths`
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            check_regular(path)
            self._file: IO[bytes] = path.open("r+b")
        except OSError as error:
            fix = "choose a folder that can be written with --out"
            raise InputError(f"cannot write {path}: {error.strerror}", fix=fix) from error
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._settings = json.dumps(settings, sort_keys=True).encode()

    def __enter__(self) -> Memo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._file.close()

    def recall(self, believe: bool = True) -> np.ndarray:
        """Return the places in `paths` of the files that were not seen as they are; the others are noted.

        Rows of files that are gone or changed are dropped, all of them if not to `believe`.
        """
        keys = [_read(block, ["path", *STAMP]) for block in self._blocks()] if believe else []
        noted = pa.concat_tables([_MEMO.empty_table().select(["path", *STAMP]), *keys])
        at = pc.fill_null(pc.index_in(noted["path"], self.paths), -1).to_numpy().astype(np.int64)
        stamps = np.column_stack([noted[name].to_numpy() for name in STAMP])
        kept = (at >= 0) & (stamps[:, 0] >= 0)
        kept[kept] = (stamps[kept] == self.stamps[at[kept]]).all(axis=1)
        if not kept.all() or not len(kept):
            self._rewrite(kept)
        self._at = [at[kept]]
        left = np.ones(len(self.paths), bool)
        left[at[kept]] = False
        return np.flatnonzero(left)

    def _rewrite(self, kept: np.ndarray) -> None:
        with TemporaryFile() as copy:
            _write(copy, self._settings)
            start = 0
            for block in self._blocks() if kept.any() else ():
                table = _read(block)
                _write(copy, _packed(table.filter(pa.array(kept[start : start + len(table)]))))
                start += len(table)
            copy.seek(0)
            self._file.seek(0)
            self._file.truncate()
            shutil.copyfileobj(copy, self._file)

    def add(self, probed: pa.Table, at: np.ndarray) -> None:
        """Note what was seen of the files at these places."""
        for name, values in zip(STAMP, self.stamps[at].T, strict=True):
            probed = probed.append_column(name, pa.array(values))
        self._new.append(probed)
        self._at.append(at)
        if sum(map(len, self._new)) >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._new:
            self._file.seek(0, 2)
            _write(self._file, _packed(pa.concat_tables(self._new).combine_chunks()))
            self._file.flush()
            self._new.clear()

    def read(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield what was seen of every file, in any order, and its place in `paths`."""
        self.flush()
        places, start = np.concatenate(self._at), 0
        for block in self._blocks():
            table = _read(block, PROBED.names)
            yield table, places[start : start + len(table)]
            start += len(table)

    def _blocks(self) -> Iterator[bytes]:
        """Yield the blocks of rows that are whole, if they were noted with these settings."""
        self._file.seek(0)
        is_first = True
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            size, digest = _HEAD.unpack(head)
            start = self._file.tell()
            block = self._file.read(min(size, _left(self._file)))
            if len(block) < size or xxhash.xxh3_128_digest(block) != digest:
                self._file.truncate(start - _HEAD.size)
                return
            if is_first and block != self._settings:
                return
            if not is_first:
                yield block
                self._file.seek(start + size)
            is_first = False


def _left(file: IO[bytes]) -> int:
    at = file.tell()
    left = file.seek(0, 2) - at
    file.seek(at)
    return left


def _write(file: IO[bytes], block: bytes) -> None:
    file.write(_HEAD.pack(len(block), xxhash.xxh3_128_digest(block)) + block)


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _MEMO, options=_COMPRESSED) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _read(block: bytes, columns: list[str] | None = None) -> pa.Table:
    fields = None if columns is None else [_MEMO.get_field_index(name) for name in columns]
    return pa.ipc.open_stream(block, options=pa.ipc.IpcReadOptions(included_fields=fields)).read_all()


def stamp_files(root: Path, paths: pa.Array) -> np.ndarray:
    """Return size, mtime_ns and inode of files under `root`; -1 where one is not to be had."""
    stamps = np.empty((len(paths), len(STAMP)), np.int64)
    for start in range(0, len(paths), _STAT_ROWS):
        names = paths[start : start + _STAT_ROWS].to_pylist()
        stamps[start : start + _STAT_ROWS] = [stamp_file(f"{root}/{file_of(name)}") for name in names]
    return stamps


def stamp_file(path: str | Path) -> tuple[int, int, int]:
    """Return size, mtime_ns and inode of a file; -1 if it is not to be had."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return -1, -1, -1
    return found.st_size, found.st_mtime_ns, found.st_ino
