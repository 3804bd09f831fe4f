"""Ranks and seeds: those of the published generator, independent of other rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from affectdata.plan.plan import sample_ids
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys, id_ranks
from tests.made import copy_seed, image_id, sample_id

_ALL = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15


def splitmix64(state: int) -> int:
    """One output of Vigna's splitmix64.c, in Python's own integers."""
    z = (state + _STEP) & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    return z ^ (z >> 31)


def ids(n: int) -> pa.Array:
    return pa.array([image_id(str(index)) for index in range(n)])


def test_the_key_of_an_id_is_its_first_64_bits_however_the_column_is_chunked() -> None:
    column = ids(20)
    expected = [int(image[:16], 16) for image in column.to_pylist()]
    cut = pa.chunked_array([column.slice(0, 7), column.slice(7, 0), column.slice(7)])
    assert id_keys(id_heads(column)).tolist() == id_keys(id_heads(cut)).tolist() == expected
    assert id_keys(id_heads(column.slice(3, 5))).tolist() == expected[3:8]
    assert id_keys(id_heads(pa.array([], pa.string()))).tolist() == []


def test_state_0_gives_the_published_first_output() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert copy_seeds(0, np.zeros(1, np.uint64), np.zeros(1, np.int64))[0] == 0xE220A8397B1DCDAF >> 1


@given(st.integers(0, 2**63 - 1), st.integers(0, 10**6), st.integers(0, 999))
def test_copies_take_successive_outputs(seed: int, image: int, copy: int) -> None:
    start = int(image_id(str(image))[:16], 16) + splitmix64(seed - _STEP & _ALL)
    assert copy_seed(seed, image_id(str(image)), copy) == splitmix64(start + copy * _STEP) >> 1


def test_ranks_are_an_even_order_that_the_seed_changes_and_other_rows_do_not() -> None:
    keys = id_keys(id_heads(ids(20_000)))
    ranks, reseeded = id_ranks(1, keys), id_ranks(2, keys)
    assert id_ranks(1, keys[5:9]).tolist() == ranks[5:9].tolist()
    assert len(np.unique(ranks)) == len(keys)
    counts = np.bincount((ranks >> np.uint64(60)).astype(int), minlength=16)
    assert abs(counts - 1250).max() < 150  # four standard deviations
    for first, second in ((ranks, reseeded), (ranks, keys)):
        order = np.argsort(np.argsort(first)), np.argsort(np.argsort(second))
        assert abs(np.corrcoef(*order)[0, 1]) < 0.03


def test_seeds_of_successive_copies_are_unrelated() -> None:
    keys = id_keys(id_heads(ids(20_000)))
    seeds = [copy_seeds(7, keys, np.full(len(keys), copy)) for copy in range(4)]
    assert len(np.unique(np.concatenate(seeds))) == 4 * len(keys)
    assert np.abs(np.corrcoef(np.array(seeds, float)) - np.eye(4)).max() < 0.03


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 1, 9, 10, 11, 99, 100, 1000])), max_size=20)
)
def test_keys_of_samples_in_columns_are_those_of_one(rows: list[tuple[int, int]]) -> None:
    heads = id_heads(ids(31))[np.array([row for row, _ in rows], int)]
    keys = sample_ids(heads, np.array([copy for _, copy in rows], np.int32))
    assert keys.type == pa.string()
    keys.validate(full=True)
    assert keys.to_pylist() == [sample_id(image_id(str(row)), copy) for row, copy in rows]
