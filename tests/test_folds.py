"""Folds for cross-validation: groups whole, strata level, every row in one, the order of rows no matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.split import deal_folds


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=80),
    st.integers(1, 5),
    st.sampled_from([1, 2, 5, 10]),
    st.integers(0, 9),
)
def test_groups_stay_whole_and_the_order_of_rows_does_not_matter(
    groups: list[int], n_strata: int, k: int, seed: int
) -> None:
    group = np.array([f"g{each}" for each in groups])
    stratum = np.array(groups) % n_strata
    fold = deal_folds(group, stratum, seed, k)
    assert all(len(set(fold[group == each])) == 1 for each in set(group))
    assert set(fold) == set(range(min(k, len(set(groups)))))
    order = np.random.default_rng(seed).permutation(len(group))
    assert (deal_folds(group[order], stratum[order], seed, k) == fold[order]).all()


@pytest.mark.parametrize("k", [2, 3, 5, 7, 10])
def test_rows_that_stand_alone_come_out_even_in_every_stratum(k: int) -> None:
    stratum = np.repeat([0, 1, 2], [50, 27, 13])
    fold = deal_folds(np.arange(90).astype(str), stratum, 1, k)
    for each in range(3):
        counts = np.bincount(fold[stratum == each], minlength=k)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 2


def test_groups_of_different_size_come_out_level() -> None:
    sizes = np.random.default_rng(0).choice([1, 1, 1, 2, 4, 8], 300)
    group = np.repeat(np.arange(300).astype(str), sizes)
    fold = deal_folds(group, np.zeros(len(group), int), 0, 5)
    assert np.bincount(fold) == pytest.approx([sizes.sum() / 5] * 5, abs=2)


def test_a_group_larger_than_a_fold_is_not_cut() -> None:
    group = np.array(["big"] * 60 + [f"g{each}" for each in range(40)])
    fold = deal_folds(group, np.zeros(100, int), 0, 5)
    assert len(set(fold[:60])) == 1
    assert np.delete(np.bincount(fold, minlength=5), fold[0]).tolist() == [10] * 4


def test_another_seed_deals_anew() -> None:
    group, stratum = np.arange(60).astype(str), np.zeros(60, int)
    one, other = (deal_folds(group, stratum, seed, 5) for seed in (0, 1))
    assert (one != other).any() and (one == deal_folds(group, stratum, 0, 5)).all()
