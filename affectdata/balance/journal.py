"""Render the rows of a plan into a folder, and go on where an interrupted run stopped.

Beside the pictures lies a journal, tables of what was written; it goes when the release gets its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.balance.drift import LOOKS, look_of
from affectdata.balance.render import RenderSamples
from affectdata.duplicates import codes_of
from affectdata.errors import IntegrityError, ManifestError
from affectdata.hashing import file_hash, hash_file
from affectdata.schema import RENDERED
from affectdata.split import SPLITS
from affectdata.tables import read_table, write_table
from affectdata.workers import map_ordered

JOURNAL = ".journal"
_BATCH = 24  # rows rendered per call, and the rest of its last picture
_NOTE_S = 1.0  # seconds; what was rendered since the last note is lost if the process is killed
_WRITTEN = pa.schema([*RENDERED, *LOOKS])
_READ = ["sample_id", "image_id", "source", "path", "split", "pipeline", "seed"]


@dataclass(frozen=True, slots=True)
class WriteSamples:
    """Render a batch and write its files under `folder`; returns `schema.RENDERED` and the look of each.

    Without a folder nothing is written: a virtual release only notes what its pictures are.
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
) -> pa.Table:
    """Render what an earlier run has not; returns what was written, row by row the same as `table`."""
    if write.folder is not None:
        for split in SPLITS:
            (partial / split).mkdir(exist_ok=True)
    journal = _Journal(partial / JOURNAL)
    done = _intact(journal.read(), write.folder)
    todo = table.select(_READ).filter(pc.invert(pc.is_in(table["sample_id"], done["sample_id"])))
    n_done = len(done)
    with journal:
        for part in map_ordered(write, _batches(todo), workers):
            journal.note(part)
            n_done += len(part)
            if progress:
                progress(n_done, len(table))
    if not len(done):
        return journal.noted()
    rendered = pa.concat_tables([done, journal.noted()])
    return rendered.take(pc.index_in(table["sample_id"], rendered["sample_id"]))


def _batches(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a table into batches, but never between two rows of one picture: it is decoded once."""
    codes = codes_of(table["image_id"])
    ends = np.append(np.flatnonzero(np.diff(codes)) + 1, len(codes))
    start = 0
    while start < len(codes):
        end = int(ends[np.searchsorted(ends, min(start + _BATCH, len(codes)))])
        yield table.slice(start, end - start)
        start = end


class _Journal:
    """Notes what was rendered: in memory, and every second in a file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._parts, self._fresh = folder, [_WRITTEN.empty_table()], list[pa.Table]()
        self._noted_at, self._n_before = -_NOTE_S, 0

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._write()  # also when the run is interrupted

    def note(self, part: pa.Table) -> None:
        """Note a batch of which the files are written."""
        self._fresh.append(part)
        if time.monotonic() - self._noted_at >= _NOTE_S:
            self._write()

    def _write(self) -> None:
        if not self._fresh:
            return
        part = pa.concat_tables(self._fresh).combine_chunks()
        write_table(part, self._folder / f"{self._n_before}-{len(self._parts)}.parquet", "journal")
        self._parts.append(part)
        self._fresh.clear()
        self._noted_at = time.monotonic()

    def noted(self) -> pa.Table:
        """Return what was noted, in its order."""
        return pa.concat_tables(self._parts)

    def read(self) -> pa.Table:
        """Return what an interrupted run noted; pictures of a damaged part are rendered again."""
        found = [_WRITTEN.empty_table()]
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                part, _ = read_table(path, "journal")
            except (ManifestError, IntegrityError):
                continue
            if part.schema.equals(_WRITTEN):
                found.append(part)
        table = pa.concat_tables(found)
        self._n_before = len(table)
        return table


def _intact(noted: pa.Table, folder: str | None) -> pa.Table:
    """Return the rows of which the files are still as they were written; without a folder there are none."""
    if folder is None:
        return noted
    rows = (
        row
        for part in noted.select(["file_name", "file_sha256"]).to_batches(_BATCH)
        for row in part.to_pylist()
    )
    files = ((Path(folder, row["file_name"]), row["file_sha256"]) for row in rows)
    intact = [path.is_file() and hash_file(path) == expected for path, expected in files]
    return noted.filter(pa.array(intact, pa.bool_()))
