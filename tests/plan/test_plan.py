"""The nouns of a plan: keys, seeds, and what a cell is worth."""

from __future__ import annotations

import pytest

from affectdata.plan.plan import Plan, effective_size, evenness, imbalance_ratio
from affectdata.schema import PLAN
from tests.made import copy_seed, image_id, sample_id


@pytest.mark.parametrize(
    ("copies", "n_eff"),
    [([1, 1, 1], 3.0), ([8], 1.0), ([4, 4], 2.0), ([7, 1], 1.28), ([], 0.0), ([0, 0], 0.0), ([2, 0], 1.0)],
)
def test_rows_are_worth_no_more_than_their_images(copies: list[int], n_eff: float) -> None:
    assert effective_size(copies) == n_eff


@pytest.mark.parametrize(
    ("counts", "ratio", "even"),
    [
        ([132, 13], 10.153846, 0.435318),
        ([132, 0, 13], 10.153846, 0.274655),  # an empty bin has no ratio, but it is uneven
        ([5, 5, 5], 1.0, 1.0),
        ([7], 1.0, 1.0),
        ([7, 0], 1.0, 0.0),
        ([0, 0], None, 1.0),
    ],
)
def test_evenness_and_imbalance_ratio(counts: list[int], ratio: float | None, even: float) -> None:
    assert imbalance_ratio(counts) == ratio
    assert evenness(counts) == pytest.approx(even, abs=1e-6)


def test_keys_and_seeds_are_those_of_every_release_so_far() -> None:
    """Releases carry them: another value here breaks every release that exists."""
    image = image_id("a")
    assert sample_id(image, 3) == "ca978112ca1bbdca-3"
    assert copy_seed(7, image, 0) == 5958720550172078022
    assert copy_seed(7, image, 3) == 2865075646194417753


def test_seeds_differ_by_recipe_image_and_copy() -> None:
    seeds = {
        copy_seed(seed, image_id(str(image)), copy)
        for seed in range(5)
        for image in range(50)
        for copy in range(8)
    }
    assert len(seeds) == 5 * 50 * 8
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_empty_plan_has_empty_counts() -> None:
    summary = Plan(PLAN.empty_table(), [], []).summary()
    assert summary["rows"] == 0
    assert summary["imbalance_ratio"] == {"before": None, "after": None}
