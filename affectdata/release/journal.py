"""Render the rows of a plan into a folder; resume an interrupted run from its journal.

The journal is a folder of Parquet tables, one row per written image, beside the hidden folder of the images.
It is removed after the release is published, so that a run killed at any step loses no rendered image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.hashing import file_hash
from affectdata.images.duplicates import codes_of
from affectdata.render.drift import LOOKS, measure_look
from affectdata.render.render import RenderSamples
from affectdata.schema import RENDERED
from affectdata.splits.assign import SPLITS
from affectdata.store.chunks import STREAM_ROWS, rechunk
from affectdata.store.files import hash_file, name_in_errors
from affectdata.store.parquet import read_table, write_table
from affectdata.store.spill import Spill, iter_by_rank
from affectdata.workers import THREADS, map_ordered

_BATCH = 24  # rows rendered per call, plus the remaining rows of the last image
_HASHED = 256  # files of an earlier run hashed per call
_FLUSH_S = 1.0  # seconds; images rendered since the last flush are lost if the process is killed
_WRITTEN = pa.schema([*RENDERED, *LOOKS])
_COLUMNS = ["sample_id", "image_id", "source", "path", "split", "pipeline", "seed"]


@dataclass(frozen=True, slots=True)
class WriteSamples:
    """Render a batch, write its files under `folder` and return `schema.RENDERED` and `LOOKS` per row.

    Without a folder no file is written: a virtual release only records hashes and sizes.
    """

    render: RenderSamples
    folder: str | None

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row, rgb in self.render.iter_pixels(batch):
            data = self.render.encode(rgb)
            name = f"{row['split']}/{row['sample_id']}{self.render.image.suffix}"
            if self.folder is not None:
                with name_in_errors(path := Path(self.folder, name)):
                    path.write_bytes(data)
            file = (name, file_hash(data), len(data), rgb.shape[1], rgb.shape[0])
            rows.append((row["sample_id"], *file, *measure_look(rgb)))
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=_WRITTEN)


def render_all(
    table: pa.Table,
    write: WriteSamples,
    partial: Path,
    journal_folder: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
    engine: str = THREADS,
) -> Spill:
    """Render the rows that an earlier run did not; return one record per row of `table`, in its order."""
    if write.folder is not None:
        for split in SPLITS:
            (partial / split).mkdir(exist_ok=True)
    journal, done = _Journal(journal_folder), np.zeros(len(table), bool)

    def written() -> Iterator[tuple[pa.Table, np.ndarray]]:
        for part in journal.read():
            matches = pc.index_in(part["sample_id"], table["sample_id"])
            index = pc.fill_null(matches, -1).to_numpy().astype(np.int64)
            new = np.flatnonzero((index >= 0) & ~done[index])  # an image may have been rendered twice
            part, index = part.take(pa.array(new)), index[new]
            if write.folder is not None:
                intact = _find_intact(part, write.folder, workers, engine)
                part, index = part.filter(pa.array(intact)), index[intact]
            done[index] = True
            yield part, index
        todo = np.flatnonzero(~done)
        rest = table.select(_COLUMNS).filter(pa.array(~done)) if done.any() else table.select(_COLUMNS)
        n_before = n_done = len(table) - len(todo)
        for part in journal.record(map_ordered(write, _batches(rest), workers, engine)):
            yield part, todo[n_done - n_before :][: len(part)]
            n_done += len(part)
            if progress:
                progress(n_done, len(table))

    rendered = Spill(_WRITTEN)
    for part in iter_by_rank(written(), _WRITTEN, len(table)):
        rendered.append(part)
    return rendered


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    """Yield batches that never split the rows of one image, so that each image is decoded once."""
    codes = codes_of(table["image_id"])
    ends = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes))
    start = 0
    while start < len(codes):
        end = int(ends[np.searchsorted(ends, min(start + _BATCH, len(codes)))])
        yield table.slice(start, end - start)
        start = end


class _Journal:
    """Records the written images, in one file per second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0

    def record(self, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Record rows whose files are written, and yield them; flush also if the run is interrupted."""
        pending: list[pa.Table] = []
        flushed_at = -_FLUSH_S
        try:
            for part in parts:
                pending.append(part)
                if time.monotonic() - flushed_at >= _FLUSH_S:
                    yield self._flush(pending)
                    flushed_at = time.monotonic()
        except BaseException:
            if pending:
                self._flush(pending)
            raise
        if pending:
            yield self._flush(pending)

    def _flush(self, pending: list[pa.Table]) -> pa.Table:
        part = pa.concat_tables(pending).combine_chunks()
        while (path := self._folder / f"{self._number}.parquet").exists():
            self._number += 1
        write_table(part, path, "journal")
        pending.clear()
        return part

    def read(self) -> Iterator[pa.Table]:
        """Yield the records of an interrupted run; a damaged file is skipped, its images rendered again."""
        return (part for part in rechunk(self._intact_parts(), _WRITTEN, STREAM_ROWS) if len(part))

    def _intact_parts(self) -> Iterator[pa.Table]:
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                part, _ = read_table(path, "journal")
            except (ManifestError, IntegrityError):
                continue
            if part.schema.equals(_WRITTEN):
                yield part


@dataclass(frozen=True, slots=True)
class _IsIntact:
    """Return for each file whether it has the hash that was recorded."""

    folder: str

    def __call__(self, records: pa.Table) -> list[bool]:
        rows = records.select(["file_name", "file_sha256"]).to_pylist()
        files = ((Path(self.folder, row["file_name"]), row["file_sha256"]) for row in rows)
        return [path.is_file() and hash_file(path) == expected for path, expected in files]


def _find_intact(records: pa.Table, folder: str, workers: int, engine: str) -> np.ndarray:
    """Return for each record whether its file is unchanged."""
    batches = (records.slice(start, _HASHED) for start in range(0, len(records), _HASHED))
    found = map_ordered(_IsIntact(folder), batches, workers, engine)
    return np.array([intact for part in found for intact in part], bool)
