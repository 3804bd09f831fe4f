"""What holds for every split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.splits.assign import SPLITS, assign_splits
from tests.made import make_rows


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], np.ndarray, dict[str, float]]:
    """Rows in groups of one or more, some with a split; a cell per row; shares of val and test."""
    n = draw(st.integers(1, 60))
    heads = draw(st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    groups = [min(head, at) for at, head in enumerate(heads)]
    groups = [
        groups[group] if groups[group] == groups[groups[group]] else at for at, group in enumerate(groups)
    ]
    given_to = draw(st.dictionaries(st.sampled_from(groups), st.sampled_from(SPLITS), max_size=8))
    rows = [
        {"key": at, "group": group, "split": given_to.get(group) if draw(st.booleans()) else None}
        for at, group in enumerate(groups)
    ]
    cells = np.array(draw(st.lists(st.integers(0, 5), min_size=n, max_size=n)))
    val, test = draw(st.tuples(st.sampled_from([0, 0.1, 0.15, 0.3]), st.sampled_from([0, 0.1, 0.2, 0.4])))
    return rows, cells, {"val": val, "test": test}


@given(cases(), st.integers(0, 5))
def test_every_group_is_in_one_split_and_kept_splits_stay(case: Any, seed: int) -> None:
    rows, cells, fractions = case
    table = assign_splits(make_rows(rows), [cells // 2, cells], fractions, seed)
    sides: dict[str, set[str]] = {}
    for group, side in zip(table["group_id"].to_pylist(), table["split"].to_pylist(), strict=True):
        assert side in SPLITS
        sides.setdefault(group, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    for row, side in zip(rows, table["split"].to_pylist(), strict=True):
        assert row["split"] in (None, side)
        if fractions.get(side) == 0:
            assert any(other["split"] == side for other in rows if other["group"] == row["group"])


@pytest.mark.slow
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case: Any, random: Any) -> None:
    rows, cells, fractions = case
    order = list(range(len(rows)))
    random.shuffle(order)
    straight = assign_splits(make_rows(rows), [cells], fractions, 7)
    table = assign_splits(make_rows(rows).take(order), [cells[order]], fractions, 7)
    expected = dict(zip(straight["image_id"].to_pylist(), straight["split"].to_pylist(), strict=True))
    assert dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True)) == expected


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=200),
    st.sampled_from([0, 0.1, 0.15, 0.2, 0.33]),
    st.sampled_from([0, 0.1, 0.15, 0.2, 0.5]),
)
def test_rows_that_stand_alone_are_shared_within_rounding(codes: list[int], val: float, test: float) -> None:
    cells = np.sort(codes)
    table = assign_splits(make_rows([{}] * len(cells)), [cells // 2, cells], {"val": val, "test": test}, 0)
    side = np.array(table["split"].to_pylist())
    for level in (np.zeros(len(cells), int), cells // 2, cells):
        for code in np.unique(level):
            members = side[level == code]
            for name, share in (("val", val), ("test", test)):
                # Half a row from the cell before, half a row on to the next, and one more where both splits
                # want the only row that is left.
                assert abs((members == name).sum() - share * len(members)) < 2
    for name, share in (("val", val), ("test", test)):
        assert abs((side == name).sum() - share * len(cells)) < 1.5


@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([None, None, *SPLITS])), min_size=1, max_size=200),
    st.sampled_from([0, 0.1, 0.15, 0.33]),
    st.sampled_from([0, 0.1, 0.2, 0.5]),
)
def test_a_split_that_was_declared_grows_to_its_share_and_no_further(
    drawn: list[tuple[int, str | None]], val: float, test: float
) -> None:
    drawn.sort(key=lambda row: row[0])
    cells = np.array([cell for cell, _ in drawn])
    rows = [{"split": split} for _, split in drawn]
    table = assign_splits(make_rows(rows), [cells // 2, cells], {"val": val, "test": test}, 0)
    side = table["split"].to_pylist()
    for name, share in (("val", val), ("test", test)):
        declared = sum(split == name for _, split in drawn)
        most = max(declared, share * len(drawn) + (1.5 if share * len(drawn) - declared >= 0.5 else 0))
        assert declared <= side.count(name) <= most
