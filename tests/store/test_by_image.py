"""Rows by image, however the table is cut."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from affectdata.store.by_image import first_rows, iter_complete_images

sizes_of = st.lists(st.integers(1, 4), max_size=8)


def table_of(sizes: list[int]) -> pa.Table:
    """Build images with these numbers of rows."""
    ids = [f"{index:04d}" for index, size in enumerate(sizes) for _ in range(size)]
    return pa.table({"image_id": pa.array(ids, pa.string()), "row": pa.array(range(len(ids)), pa.int64())})


@given(sizes_of, st.integers(1, 6))
def test_no_image_is_cut_and_no_row_lost(sizes: list[int], n_rows: int) -> None:
    table = table_of(sizes)
    chunks = (table.slice(start, n_rows) for start in range(0, len(table) + n_rows, n_rows))
    parts = list(iter_complete_images(chunks))
    assert all(len(part) for part in parts)
    assert [row for part in parts for row in part["row"].to_pylist()] == list(range(len(table)))
    seen = [set(part["image_id"].to_pylist()) for part in parts]
    assert sum(map(len, seen)) == len(sizes)
    assert all(len(part) < n_rows + max(sizes) for part in parts)


@given(sizes_of)
def test_every_row_knows_the_first_of_its_image(sizes: list[int]) -> None:
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    expected = [start for start, size in zip(starts, sizes, strict=True) for _ in range(size)]
    assert first_rows(table_of(sizes)).tolist() == expected
