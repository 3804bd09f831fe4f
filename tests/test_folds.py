"""Folds for cross-validation: groups whole, cells level, every row in one, the order of rows no matter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.split import assign_folds
from tests.made import make_rows


def rows_in_groups(sizes: list[int]) -> pa.Table:
    return make_rows(
        [
            {"key": f"{group}-{at}", "group": f"{group}-0"}
            for group, size in enumerate(sizes)
            for at in range(size)
        ]
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    """Sizes of groups, and a cell per row."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 9]), min_size=1, max_size=25))
    cells = draw(st.lists(st.integers(0, 4), min_size=sum(sizes), max_size=sum(sizes)))
    return sizes, np.array(cells)


@given(cases(), st.sampled_from([2, 3, 5, 10]), st.integers(0, 3))
def test_every_row_is_in_one_fold_with_its_whole_group(case: Any, k: int, seed: int) -> None:
    sizes, cells = case
    fold = assign_folds(rows_in_groups(sizes), [cells // 2, cells], k, seed)
    assert fold.shape == (sum(sizes),)
    assert fold.dtype.kind == "i"
    assert set(fold) <= set(range(k))
    for members in np.split(fold, np.cumsum(sizes)[:-1]):
        assert len(set(members)) == 1


@given(cases(), st.sampled_from([2, 5]), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case: Any, k: int, random: Any) -> None:
    sizes, cells = case
    order = list(range(sum(sizes)))
    random.shuffle(order)
    table = rows_in_groups(sizes)
    straight = assign_folds(table, [cells], k, 7)
    shuffled = assign_folds(table.take(order), [cells[order]], k, 7)
    assert (shuffled == straight[order]).all()


@pytest.mark.parametrize("k", [2, 3, 5, 7, 10])
@pytest.mark.parametrize("n", [100, 101, 137])
def test_rows_that_stand_alone_come_out_even_in_every_cell(n: int, k: int) -> None:
    cells = np.arange(n) * 6 // n
    fold = assign_folds(make_rows([{}] * n), [cells // 3, cells], k, 0)
    for level in (np.zeros(n, int), cells // 3, cells):
        for code in np.unique(level):
            counts = np.bincount(fold[level == code], minlength=k)
            assert counts.max() - counts.min() <= 2
    counts = np.bincount(fold, minlength=k)
    assert counts.max() - counts.min() <= 2


def test_groups_of_different_size_come_out_level() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 1, 1, 2, 4, 8], 300).tolist()
    fold = assign_folds(rows_in_groups(sizes), [], 5, 0)
    assert np.bincount(fold) == pytest.approx([sum(sizes) / 5] * 5, abs=2)


def test_cells_of_grouped_rows_come_out_level() -> None:
    """Forty themes of five pictures each, half of them mostly high: no fold gets only the one kind."""
    sizes = [5] * 40
    cells = np.array([int((group % 2 == 0) != (at == 4)) for group in range(40) for at in range(5)])
    fold = assign_folds(rows_in_groups(sizes), [cells], 5, 1)
    for code in (0, 1):
        counts = np.bincount(fold[cells == code], minlength=5)
        assert counts == pytest.approx([20] * 5, abs=3)


def test_fewer_groups_than_folds_leave_folds_empty() -> None:
    fold = assign_folds(rows_in_groups([4, 4, 4]), [], 5, 0)
    assert len(set(fold)) == 3
    assert np.bincount(fold).max() == 4


def test_a_group_larger_than_a_fold_is_not_cut() -> None:
    fold = assign_folds(rows_in_groups([60, *([1] * 40)]), [], 5, 0)
    assert len(set(fold[:60])) == 1
    alone = np.bincount(fold[60:], minlength=5)
    assert alone[fold[0]] == 0
    assert np.delete(alone, fold[0]).tolist() == [10] * 4


def test_another_seed_deals_anew_and_adding_a_fold_still_deals_all() -> None:
    table = make_rows([{}] * 60)
    one, other = (assign_folds(table, [], 5, seed) for seed in (0, 1))
    assert (one != other).any()
    assert (one == assign_folds(table, [], 5, 0)).all()


def test_one_fold_holds_everything() -> None:
    assert assign_folds(make_rows([{}] * 7), [], 1, 0).tolist() == [0] * 7


def test_no_rows_are_no_folds() -> None:
    assert assign_folds(make_rows([]), [np.empty(0, np.int64)], 5, 0).shape == (0,)
