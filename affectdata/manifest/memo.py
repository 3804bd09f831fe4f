"""The memo: a cache of probed files, so that a second or an interrupted `ingest` opens only new files.

A file is unchanged if its size, modification time and inode are. The memo is stored beside the manifest, is
part of no hash, and may be removed at any time; `ingest --rehash` ignores it. It is a file of blocks that are
appended as images are probed: length and xxh3-128 of an Arrow stream, and the stream. The first block
contains the settings. Everything from the first damaged block on is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
from affectdata.store.files import check_regular, name_in_errors
from affectdata.workers import THREADS, map_ordered

STAMP = ("size", "mtime_ns", "inode")
_MEMO = pa.schema([*PROBED, *((name, pa.int64()) for name in STAMP)])
_HEAD = struct.Struct("<Q16s")
_BLOCK_ROWS = 512
_FLUSH_S = 2.0  # seconds; what was probed since the last flush is lost if the process is killed
_STAT_ROWS = 1 << 13  # paths as Python objects in memory
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


class Memo:
    """Cached probe results of the files `paths`, on disk; `stamps` are their current stamps (`stamp_files`).

    One process at a time: a second one waits until the first is done.

    Raises:
        InputError: the folder is not writable.
    """

    def __init__(self, path: Path, paths: pa.Array, stamps: np.ndarray, settings: dict[str, Any]) -> None:
        self.paths, self.stamps, self._path = paths, stamps, path
        self._new: list[pa.Table] = []
        self._flushed_at = time.monotonic()
        self._indices: list[np.ndarray] = []  # index in `paths` of every row on disk
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            check_regular(path)
            self._file: IO[bytes] = path.open("r+b")
        except OSError as error:
            fix = "choose a writable folder with --out"
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

    def stale_files(self, force: bool = False) -> np.ndarray:
        """Return the indices in `paths` of new and changed files, or of all with `force`.

        Rows of removed or changed files, or all with `force`, are dropped from the memo.
        """
        keys = [_read(block, ["path", *STAMP]) for block in self._blocks()] if not force else []
        known = pa.concat_tables([_MEMO.empty_table().select(["path", *STAMP]), *keys])
        index = pc.fill_null(pc.index_in(known["path"], self.paths), -1).to_numpy().astype(np.int64)
        stamps = np.column_stack([known[name].to_numpy() for name in STAMP])
        kept = (index >= 0) & (stamps[:, 0] >= 0)
        kept[kept] = (stamps[kept] == self.stamps[index[kept]]).all(axis=1)
        if not kept.all() or not len(kept):
            self._rewrite(kept)
        self._indices = [index[kept]]
        is_stale = np.ones(len(self.paths), bool)
        is_stale[index[kept]] = False
        return np.flatnonzero(is_stale)

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

    def add(self, probed: pa.Table, index: np.ndarray) -> None:
        """Add the probe results of the files with these indices."""
        for name, values in zip(STAMP, self.stamps[index].T, strict=True):
            probed = probed.append_column(name, pa.array(values))
        self._new.append(probed)
        self._indices.append(index)
        is_due = time.monotonic() - self._flushed_at >= _FLUSH_S
        if is_due or sum(map(len, self._new)) >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write added rows to disk."""
        if self._new:
            with name_in_errors(self._path):
                self._file.seek(0, 2)
                _write(self._file, _packed(pa.concat_tables(self._new).combine_chunks()))
                self._file.flush()
            self._new.clear()
            self._flushed_at = time.monotonic()

    def read(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the probe results of all files, in any order, and their indices in `paths`."""
        self.flush()
        indices, start = np.concatenate(self._indices), 0
        for block in self._blocks():
            table = _read(block, PROBED.names)
            yield table, indices[start : start + len(table)]
            start += len(table)

    def _blocks(self) -> Iterator[bytes]:
        """Yield the undamaged blocks of rows, if they were written with these settings."""
        self._file.seek(0)
        is_first = True
        while len(head := self._file.read(_HEAD.size)) == _HEAD.size:
            size, digest = _HEAD.unpack(head)
            start = self._file.tell()
            block = self._file.read(min(size, _bytes_left(self._file)))
            if len(block) < size or xxhash.xxh3_128_digest(block) != digest:
                self._file.truncate(start - _HEAD.size)
                return
            if is_first and block != self._settings:
                return
            if not is_first:
                yield block
                self._file.seek(start + size)
            is_first = False


def _bytes_left(file: IO[bytes]) -> int:
    position = file.tell()
    n_bytes = file.seek(0, 2) - position
    file.seek(position)
    return n_bytes


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


@dataclass(frozen=True, slots=True)
class _Stamps:
    """Return the stamps of files under `root`."""

    root: str

    def __call__(self, paths: pa.Array) -> np.ndarray:
        return np.array([stamp_file(f"{self.root}/{file_of(name)}") for name in paths.to_pylist()], np.int64)


def stamp_files(root: Path, paths: pa.Array, workers: int = 1, engine: str = THREADS) -> np.ndarray:
    """Return size, mtime_ns and inode of files under `root`; -1 for a missing file."""
    stamps = np.empty((len(paths), len(STAMP)), np.int64)
    starts = range(0, len(paths), _STAT_ROWS)
    batches = (paths[start : start + _STAT_ROWS] for start in starts)
    for start, part in zip(starts, map_ordered(_Stamps(str(root)), batches, workers, engine), strict=True):
        stamps[start : start + _STAT_ROWS] = part
    return stamps


def stamp_file(path: str | Path) -> tuple[int, int, int]:
    """Return size, mtime_ns and inode of a file; -1 if it is missing."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ino
