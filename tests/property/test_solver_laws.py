"""What holds for every allocation of the solver."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from affectdata.plan.solver import solve_bin

supplies = st.lists(st.integers(0, 200), min_size=1, max_size=8)
targets = st.integers(1, 3000)
caps = st.integers(1, 20)


def bounds(supply: list[int], cap: int, undersample: bool) -> tuple[list[int], list[int]]:
    return [0 if undersample else count for count in supply], [cap * count for count in supply]


@pytest.mark.slow
@given(supplies, targets, caps, st.booleans())
@settings(max_examples=300)
def test_the_sum_is_the_target_or_the_nearest_in_bounds(
    supply: list[int], target: int, cap: int, undersample: bool
) -> None:
    rows = solve_bin(supply, target, cap, undersample)
    low, high = bounds(supply, cap, undersample)
    assert all(least <= count <= most for least, count, most in zip(low, rows, high, strict=True))
    assert sum(rows) == min(max(target, sum(low)), sum(high))


@pytest.mark.slow
@given(supplies.flatmap(lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))), targets, caps)
@settings(max_examples=200)
def test_the_order_of_strata_only_moves_the_leftover_row(
    case: tuple[list[int], list[int]], target: int, cap: int
) -> None:
    supply, order = case
    rows = solve_bin(supply, target, cap)
    moved = solve_bin([supply[at] for at in order], target, cap)
    assert sorted(moved) == sorted(rows)
    differing = {
        (min(rows[at], count), max(rows[at], count))
        for at, count in zip(order, moved, strict=True)
        if count != rows[at]
    }
    if not differing:
        return
    ((level, above),) = differing  # only strata on the common level trade a row …
    assert above == level + 1
    free = [supply[at] <= level < cap * supply[at] for at in order]
    got_one = [count == above for count, may in zip(moved, free, strict=True) if may]
    assert got_one == sorted(got_one, reverse=True)  # … and the first of them have it


@given(supplies, st.data(), targets, caps)
@settings(max_examples=200)
def test_more_images_never_lower_the_smallest_stratum_when_rows_may_be_cut(
    supply: list[int], data: st.DataObject, target: int, cap: int
) -> None:
    at = data.draw(st.integers(0, len(supply) - 1))
    more = [count + (index == at) for index, count in enumerate(supply)]
    before, after = (solve_bin(counts, target, cap, undersample=True) for counts in (supply, more))
    assert min(after) >= min(before)


@given(supplies, st.integers(1, 50), targets, caps)
@example(supply=[1, 4], extra=1, target=6, cap=8)
@settings(max_examples=200)
def test_more_images_in_the_smallest_stratum_never_lower_it(
    supply: list[int], extra: int, target: int, cap: int
) -> None:
    """Elsewhere they may: no image is dropped, so a new one of a large stratum takes a copy's place."""
    at = supply.index(min(supply))
    more = [count + (extra if index == at else 0) for index, count in enumerate(supply)]
    before, after = (solve_bin(counts, target, cap) for counts in (supply, more))
    assert after[at] >= before[at]
    one_more = [count + (index == at) for index, count in enumerate(supply)]
    assert min(solve_bin(one_more, target, cap)) >= min(before)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 14), st.integers(1, 3), st.booleans()
)
@settings(max_examples=200)
def test_no_other_allocation_is_fairer(supply: list[int], target: int, cap: int, undersample: bool) -> None:
    """Max–min fairness against every allocation there is: the sorted one is lexicographically largest."""
    rows = solve_bin(supply, target, cap, undersample)
    low, high = bounds(supply, cap, undersample)
    total = min(max(target, sum(low)), sum(high))
    every = itertools.product(*(range(least, most + 1) for least, most in zip(low, high, strict=True)))
    assert sorted(rows) == max(sorted(counts) for counts in every if sum(counts) == total)
