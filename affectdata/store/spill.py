"""Spill rows to disk while a job runs, so that memory does not grow with their number.

In: tables, or rows one by one. Out: the same rows in tables of bounded size, in insertion order or by rank.
The files are anonymous: they disappear with the process, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile, gettempdir
from typing import Any
from weakref import finalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.store.files import name_in_errors

_BUFFER = 1 << 10  # rows held as Python objects at once
_MOST_ROWS = 1 << 13  # read at once
_PART = 1 << 14  # rows of a table that is returned; more where there would be too many files
_MOST_FILES = 64
_RANK = "rank"
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Spill:
    """Rows of one schema on disk; finish reading before adding more."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._n = 0
        self._rows: list[dict[str, Any]] = []
        self._file = TemporaryFile()  # noqa: SIM115
        finalize(self, self._file.close)
        self._writer = pa.ipc.new_stream(self._file, schema, options=_OPTIONS)

    def __len__(self) -> int:
        return self._n + len(self._rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add one row; missing columns are null."""
        self._rows.append(row)
        if len(self._rows) >= _BUFFER:
            self._flush()

    def append(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        self._flush()
        self._write(table)

    def _flush(self) -> None:
        if self._rows:
            self._write(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows.clear()

    def _write(self, table: pa.Table) -> None:
        with name_in_errors(f"{gettempdir()} (temporary files; TMPDIR names another folder)"):
            self._file.seek(0, 2)
            self._writer.write_table(table.combine_chunks(), max_chunksize=_MOST_ROWS)
        self._n += len(table)

    def read(self, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows, or some of their columns, in insertion order."""
        self._flush()
        self._file.flush()
        self._file.seek(0)
        fields = None if columns is None else [self.schema.get_field_index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        for batch in pa.ipc.open_stream(self._file, options=options) if self._n else ():
            yield pa.Table.from_batches([batch])

    def close(self) -> None:
        """Free the disk space."""
        self._file.close()

    def column(self, name: str) -> pa.Array:
        """Return one column as a whole."""
        parts = [part[name].chunk(0) for part in self.read([name])]
        return pa.concat_arrays([pa.array([], self.schema.field(name).type), *parts])


def with_ranks(parts: Iterable[pa.Table], ranks: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield tables with the ranks of their rows; `ranks` are those of all rows."""
    start = 0
    for part in parts:
        yield part, ranks[start : start + len(part)]
        start += len(part)


def iter_by_rank(
    parts: Iterable[tuple[pa.Table, np.ndarray]], schema: pa.Schema, n_rows: int
) -> Iterator[pa.Table]:
    """Yield rows sorted by rank, 0 to n_rows - 1; rows with a negative rank are left out.

    `parts` are tables with the ranks of their rows. All yielded tables but the last have the same number of
    rows, a multiple of 2¹⁴ that depends on `n_rows` alone.
    """
    n_each = _PART * max(1, -(-n_rows // (_PART * _MOST_FILES)))
    ranked = schema.append(pa.field(_RANK, pa.int64()))
    spills = [Spill(ranked) for _ in range(-(-n_rows // n_each))]
    for part, ranks in parts:
        order = np.argsort(ranks, kind="stable")
        order = order[np.searchsorted(ranks[order], 0) :]
        part = part.append_column(_RANK, pa.array(ranks)).take(pa.array(order))
        ends = np.searchsorted(ranks[order], np.arange(len(spills) + 1) * n_each)
        for spill, start, end in zip(spills, ends, ends[1:], strict=False):
            if start < end:
                spill.append(part.slice(start, end - start))
    for spill in spills:
        yield _take_all(spill)  # no local variable keeps it alive


def _take_all(spill: Spill) -> pa.Table:
    whole = pa.concat_tables(spill.read())
    spill.close()
    return whole.take(pc.sort_indices(whole[_RANK])).drop_columns([_RANK])
