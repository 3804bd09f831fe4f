"""Spilled rows are read in insertion order or by rank, in tables of bounded size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.store import parquet, spill
from affectdata.store.spill import Spill, iter_by_rank

SCHEMA = pa.schema([("name", pa.string()), ("shares", pa.map_(pa.string(), pa.float64()))])


def test_rows_and_tables_are_read_in_insertion_order() -> None:
    rows = Spill(SCHEMA)
    assert list(rows.read()) == [] and len(rows) == 0 and rows.column("name").to_pylist() == []
    rows.add({"name": "a", "shares": [("joy", 0.5)]})
    rows.append(pa.table([["b"], [[]]], schema=SCHEMA))
    rows.add({"name": "c", "unknown": 1})
    for _ in range(2):  # as often as needed
        assert [part["name"].to_pylist() for part in rows.read()] == [["a"], ["b"], ["c"]]
    assert next(rows.read())["shares"].to_pylist() == [[("joy", 0.5)]]  # left in the middle
    rows.add({"name": "d"})
    assert rows.column("name").to_pylist() == ["a", "b", "c", "d"] and len(rows) == 4
    assert [part.column_names for part in rows.read(["name"])] == [["name"]] * 4


def test_parts_fill_the_row_groups_of_a_manifest() -> None:
    assert spill._PART % parquet._ROW_GROUP == 0


def test_few_rows_are_held_as_objects() -> None:
    rows = Spill(SCHEMA)
    for number in range(3 * spill._BUFFER + 1):
        rows.add({"name": str(number)})
        assert len(rows._rows) < spill._BUFFER
    assert [len(part) for part in rows.read()] == [spill._BUFFER] * 3 + [1]


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(0, 2**32))
def test_rows_are_sorted_by_rank_whatever_the_parts(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ranks = rng.permutation(sum(sizes))
    left_out = rng.random(len(ranks)) < 0.2
    ranks[left_out] = -1
    ranks[~left_out] = np.argsort(np.argsort(ranks[~left_out]))
    n = int((~left_out).sum())
    ends = np.cumsum([0, *sizes])
    schema = pa.schema([("rank_was", pa.int64())])
    parts = [(pa.table([ranks[start:end]], schema=schema), ranks[start:end]) for start, end in pairwise(ends)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_PART", 8)
        patch.setattr(spill, "_MOST_FILES", 3)
        tables = list(iter_by_rank(parts, schema, n))
    assert [value for part in tables for value in part["rank_was"].to_pylist()] == list(range(n))
    assert len(tables) <= 3 and all(len(part) % 8 == 0 for part in tables[:-1])
