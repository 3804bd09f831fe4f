"""Rows in chunks of a given size, and columns as one array."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STREAM_ROWS = 1 << 11  # rows in memory when a table is read in parts
_IS_DIGIT = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdef", np.uint8))


def rechunk(batches: Iterable[pa.Table], schema: pa.Schema, n_rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `n_rows`, the last one shorter; without rows, one empty table."""
    held, n_parts = schema.empty_table(), 0
    for batch in batches:
        held = pa.concat_tables([held, batch.cast(schema)])
        while len(held) >= n_rows:
            yield held.slice(0, n_rows).combine_chunks()
            held, n_parts = held.slice(n_rows), n_parts + 1
    if len(held) or not n_parts:
        yield held.combine_chunks()


def as_one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; a single chunk is not copied, unlike with `combine_chunks`."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def are_digits(column: pa.Array | pa.ChunkedArray, n: int) -> np.ndarray:
    """Return for every value of a string column whether it is `n` lowercase hexadecimal digits."""
    array = column if isinstance(column, pa.Array) else as_one_array(column)
    lengths = pc.fill_null(pc.binary_length(array), -1).to_numpy(zero_copy_only=False)
    if (lengths == n).all():  # the values are contiguous
        start = np.frombuffer(array.buffers()[1], np.int32)[array.offset] if len(array) else 0
        data = np.frombuffer(array.buffers()[2], np.uint8, len(array) * n, start) if len(array) else lengths
        if _IS_DIGIT.take(data).all():
            return np.ones(len(array), bool)
    fits = pc.fill_null(pc.match_substring_regex(array, rf"^[0-9a-f]{{{n}}}$"), False)
    return np.asarray(fits.to_numpy(zero_copy_only=False))
