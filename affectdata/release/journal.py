"""Render the rows of a plan into a folder, and go on where an interrupted run stopped.

Beside the images lies a journal, tables of what was written; it goes when the release gets its name.
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
from affectdata.render.drift import LOOKS, look_of
from affectdata.render.render import RenderSamples
from affectdata.schema import RENDERED
from affectdata.splits.assign import SPLITS
from affectdata.store.files import hash_file
from affectdata.store.parquet import STREAM_ROWS, read_table, rechunk, write_table
from affectdata.store.spill import Spill, in_order
from affectdata.workers import map_ordered

JOURNAL = ".journal"
_BATCH = 24  # rows rendered per call, and the rest of its last image
_NOTE_S = 1.0  # seconds; what was rendered since the last note is lost if the process is killed
_WRITTEN = pa.schema([*RENDERED, *LOOKS])
_READ = ["sample_id", "image_id", "source", "path", "split", "pipeline", "seed"]


@dataclass(frozen=True, slots=True)
class WriteSamples:
    """Render a batch and write its files under `folder`; returns `schema.RENDERED` and the look of each.

    Without a folder nothing is written: a virtual release only notes what its images are.
    """

    render: RenderSamples
    folder: str | None

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row, rgb in self.render.draw(batch):
            data = self.render.encode(rgb)
            name = f"{row['split']}/{row['sample_id']}{self.render.image.suffix}"
            if self.folder is not None:
                Path(self.folder, name).write_bytes(data)
            file = (name, file_hash(data), len(data), rgb.shape[1], rgb.shape[0])
            rows.append((row["sample_id"], *file, *look_of(rgb)))
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=_WRITTEN)


def render_all(
    table: pa.Table,
    write: WriteSamples,
    partial: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> Spill:
    """Render what an earlier run has not; returns what was written, row by row the same as `table`."""
    if write.folder is not None:
        for split in SPLITS:
            (partial / split).mkdir(exist_ok=True)
    journal, done = _Journal(partial / JOURNAL), np.zeros(len(table), bool)

    def written() -> Iterator[tuple[pa.Table, np.ndarray]]:
        for part in journal.read():
            found = pc.index_in(part["sample_id"], table["sample_id"])
            at = pc.fill_null(found, -1).to_numpy().astype(np.int64)
            fresh = np.flatnonzero((at >= 0) & ~done[at])  # an image may have been rendered twice
            part, at = _intact(part.take(pa.array(fresh)), at[fresh], write.folder)
            done[at] = True
            yield part, at
        todo = np.flatnonzero(~done)
        rest = table.select(_READ).filter(pa.array(~done)) if done.any() else table.select(_READ)
        n_before = n_done = len(table) - len(todo)
        for part in journal.keep(map_ordered(write, _batches(rest), workers)):
            yield part, todo[n_done - n_before :][: len(part)]
            n_done += len(part)
            if progress:
                progress(n_done, len(table))

    rendered = Spill(_WRITTEN)
    for part in in_order(written(), _WRITTEN, len(table)):
        rendered.append(part)
    return rendered


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into batches, but never between two rows of one image: it is decoded once."""
    codes = codes_of(table["image_id"])
    ends = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes))
    start = 0
    while start < len(codes):
        end = int(ends[np.searchsorted(ends, min(start + _BATCH, len(codes)))])
        yield table.slice(start, end - start)
        start = end


class _Journal:
    """Notes what was rendered, in a file for every second."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._number = folder, 0

    def keep(self, parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Note the rows of which the files are written, and yield them; also when the run is interrupted."""
        fresh: list[pa.Table] = []
        noted_at = -_NOTE_S
        try:
            for part in parts:
                fresh.append(part)
                if time.monotonic() - noted_at >= _NOTE_S:
                    yield self._note(fresh)
                    noted_at = time.monotonic()
        except BaseException:
            if fresh:
                self._note(fresh)
            raise
        if fresh:
            yield self._note(fresh)

    def _note(self, fresh: list[pa.Table]) -> pa.Table:
        part = pa.concat_tables(fresh).combine_chunks()
        while (path := self._folder / f"{self._number}.parquet").exists():
            self._number += 1
        write_table(part, path, "journal")
        fresh.clear()
        return part

    def read(self) -> Iterator[pa.Table]:
        """Yield what an interrupted run noted; images of a damaged part are rendered again."""
        return (part for part in rechunk(self._intact_parts(), _WRITTEN, STREAM_ROWS) if len(part))

    def _intact_parts(self) -> Iterator[pa.Table]:
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                part, _ = read_table(path, "journal")
            except (ManifestError, IntegrityError):
                continue
            if part.schema.equals(_WRITTEN):
                yield part


def _intact(noted: pa.Table, at: np.ndarray, folder: str | None) -> tuple[pa.Table, np.ndarray]:
    """Return the rows, and their `at`, whose files are still as they were written; without a folder all."""
    if folder is None:
        return noted, at
    rows = noted.select(["file_name", "file_sha256"]).to_pylist()
    files = ((Path(folder, row["file_name"]), row["file_sha256"]) for row in rows)
    intact = np.array([path.is_file() and hash_file(path) == expected for path, expected in files], bool)
    return noted.filter(pa.array(intact)), at[intact]
