"""One bin levelled over its strata: cases a person can check by hand. The laws are in tests/property."""

from __future__ import annotations

import pytest

from affectdata.plan.solver import solve_bin


@pytest.mark.parametrize(
    ("supply", "target", "cap", "rows"),
    [
        ([18, 20, 1], 132, 8, [62, 62, 8]),  # GAPED, bin 0–10: A, H, Sp
        ([16, 15, 33, 68], 132, 8, [16, 15, 33, 68]),  # bin 30–40 is the largest already
        ([13], 132, 8, [104]),  # bin 70–80: the cap leaves it 28 short
        ([1, 1, 1], 7, 8, [3, 2, 2]),  # the odd row goes to the first
        ([5, 1], 4, 8, [5, 1]),  # over its target: left alone
        ([0, 3], 6, 8, [0, 6]),  # an empty stratum stays empty
        ([0, 0], 6, 8, [0, 0]),
        ([4, 4], 8, 1, [4, 4]),  # a cap of 1 makes no copies
        ([], 5, 8, []),
    ],
)
def test_solve_bin_examples(supply: list[int], target: int, cap: int, rows: list[int]) -> None:
    assert solve_bin(supply, target, cap) == rows


@pytest.mark.parametrize(
    ("supply", "target", "rows"),
    [
        ([10, 2, 2], 6, [2, 2, 2]),  # the largest is cut first
        ([10, 1], 6, [3, 3]),  # and the smallest grows as well
        ([3, 3, 3], 2, [1, 1, 0]),  # fewer rows than strata
    ],
)
def test_undersampling_cuts_the_bin_to_its_target(supply: list[int], target: int, rows: list[int]) -> None:
    assert solve_bin(supply, target, 8, undersample=True) == rows


def test_a_target_of_a_billion_is_met_as_far_as_the_cap_goes() -> None:
    assert solve_bin([1, 10**7], 10**9, 1000) == [1000, 10**9 - 1000]
    assert solve_bin([2, 3], 10**9, 1000) == [2000, 3000]
