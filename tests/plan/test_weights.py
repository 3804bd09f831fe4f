"""Sampling weights: what each way makes level, against the formulas and an independent implementation."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy.ndimage import gaussian_filter1d

from affectdata.plan.plan import Plan
from affectdata.plan.planner import plan_release
from affectdata.plan.weights import row_weights
from affectdata.recipe.recipe import Weights
from tests.made import make_manifest, make_recipe, make_rows

COUNTS = [120, 40, 9, 1, 30]
BINS = np.repeat(np.arange(len(COUNTS)), COUNTS)
NO_MAX = 1e9


def weights(bins: np.ndarray = BINS, cells: np.ndarray | None = None, **spec: Any) -> np.ndarray:
    made = Weights(**{"max": NO_MAX, **spec})
    return row_weights(bins, bins if cells is None else cells, int(bins.max()) + 1, made)


def per_bin(values: np.ndarray, bins: np.ndarray = BINS) -> np.ndarray:
    """The one weight of each bin's rows."""
    for code in np.unique(bins):
        assert len(set(values[bins == code])) == 1
    return np.array([values[bins == code][0] for code in np.unique(bins)])


@pytest.mark.parametrize(
    "spec",
    [
        {"by": "inverse"},
        {"by": "effective_number", "beta": 0.99},
        {"by": "smoothed", "sigma": 1.0},
        {"by": "inverse", "max": 2.0},
    ],
    ids=str,
)
def test_weights_are_positive_with_mean_one(spec: dict[str, Any]) -> None:
    found = weights(**spec)
    assert found.dtype == np.float64
    assert found.mean() == pytest.approx(1, abs=1e-12)
    assert (found > 0).all()
    assert per_bin(found)[3] == found.max()  # the rarest


def test_inverse_makes_every_bin_weigh_the_same_and_every_cell_of_a_bin() -> None:
    found = weights(by="inverse")
    totals = np.bincount(BINS, found)
    assert totals == pytest.approx(np.full(5, len(BINS) / 5))
    cells = BINS * 7 + np.arange(len(BINS)) % 7
    found = weights(cells=cells, by="inverse")
    assert np.bincount(BINS, found) == pytest.approx(np.full(5, len(BINS) / 5))
    for code in range(5):
        of_cells = np.bincount(cells[code == BINS], found[code == BINS])
        of_cells = of_cells[of_cells > 0]
        assert of_cells == pytest.approx(np.full(len(of_cells), len(BINS) / 5 / len(of_cells)))


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999, 0.9999, 0.999999, 1 - 1e-12])
def test_effective_number_is_that_of_the_paper(beta: float) -> None:
    """Cui et al. 2019, eq. 2: 1 / E_n with E_n = (1 - βⁿ) / (1 - β), summed as 1 + β + … + βⁿ⁻¹."""
    expected = np.array([1 / (beta ** np.arange(n)).sum() for n in COUNTS])[BINS]
    assert weights(by="effective_number", beta=beta) == pytest.approx(expected / expected.mean(), rel=1e-9)


def test_effective_number_lies_between_no_weights_and_inverse() -> None:
    inverse = weights(by="inverse")
    assert weights(by="effective_number", beta=1 - 1e-12) == pytest.approx(inverse, rel=1e-6)
    assert weights(by="effective_number", beta=1e-9) == pytest.approx(np.ones(len(BINS)), rel=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 1.3, 2.0, 5.0])
@pytest.mark.parametrize("counts", [COUNTS, [1, 0, 0, 0, 50, 3, 0, 8], [7], [3, 9]], ids=str)
def test_smoothing_is_that_of_scipy_mirrored_at_the_ends(sigma: float, counts: list[int]) -> None:
    bins = np.repeat(np.arange(len(counts)), counts)
    density = gaussian_filter1d(np.array(counts, float), sigma, mode="reflect", truncate=4)
    raw = 1 / density[bins]
    found = row_weights(bins, bins, len(counts), Weights(by="smoothed", sigma=sigma, max=NO_MAX))
    assert found == pytest.approx(raw / raw.mean(), rel=2e-3)


def test_smoothing_goes_over_empty_bins_and_keeps_all_mass() -> None:
    """A bin between full ones is less rare than its count; a constant density gives equal weights."""
    counts = [50, 2, 50, 0, 0, 0, 2]
    bins = np.repeat(np.arange(7), counts)
    found = per_bin(row_weights(bins, bins, 7, Weights(by="smoothed", sigma=1.0, max=NO_MAX)), bins)
    assert found[1] < found[3]
    level = np.repeat(np.arange(6), 9)
    assert weights(level, by="smoothed", sigma=1.5) == pytest.approx(np.ones(54))


def test_smoothing_goes_over_bins_and_not_over_cells() -> None:
    cells = np.arange(len(BINS))
    assert (weights(cells=cells, by="smoothed") == weights(by="smoothed")).all()
    assert weights(cells=cells, by="inverse") == pytest.approx(weights(by="inverse"))


@pytest.mark.parametrize("most", [1.0, 1.5, 3.0, 10.0])
def test_no_row_weighs_more_than_max_before_the_scaling(most: float) -> None:
    free, bound = per_bin(weights(by="inverse")), per_bin(weights(by="inverse", max=most))
    cut = np.minimum(free, most)
    assert bound == pytest.approx(cut / np.average(cut, weights=COUNTS))
    assert bound.max() / bound.min() <= most / free.min() + 1e-9


def planned(rows: list[dict[str, Any]], **recipe: Any) -> Plan:
    return plan_release([make_manifest(make_rows(rows))], [], make_recipe(**recipe))[1]


def ratings(n: int = 300) -> list[dict[str, Any]]:
    """Decimal ratings, few of them high, two subtypes; a val and a test image in every bin."""
    rows: list[dict[str, Any]] = [
        {"key": at, "valence": round((at / n) ** 2 * 99.9, 3), "subtype": "AP"[at % 3 == 0]}
        for at in range(n)
    ]
    for split in ("val", "test"):
        rows += [
            {"key": f"{split}{at}", "valence": at * 10 + 0.1, "subtype": "A", "split": split}
            for at in range(10)
        ]
    return rows


@pytest.mark.parametrize("by", ["inverse", "effective_number", "smoothed"])
def test_weights_of_a_plan_are_of_train_alone(by: str) -> None:
    plan = planned(ratings(), balance={"max_copies": 1}, weights={"by": by}, split={"test": 0.1})
    assert set(plan.table["copy"].to_pylist()) == {0}
    train = plan.table.filter(pc.equal(plan.table["split"], "train"))
    others = plan.table.filter(pc.not_equal(plan.table["split"], "train"))
    assert len(others) > 20
    assert set(others["weight"].to_pylist()) == {1.0}
    assert np.mean(train["weight"].to_numpy()) == pytest.approx(1)
    assert len(set(train["weight"].to_pylist())) > 5
    more = planned(  # other images in test change no weight of train
        [row for row in ratings() if row.get("split") != "test"],
        balance={"max_copies": 1},
        weights={"by": by},
        split={"test": 0.0},
    )
    assert set(more.table.filter(pc.equal(more.table["split"], "val"))["weight"].to_pylist()) == {1.0}


def test_inverse_weights_level_the_cells_of_a_plan() -> None:
    plan = planned(ratings(), balance={"max_copies": 1}, weights={"by": "inverse", "max": 1000.0})
    totals: dict[str, float] = defaultdict(float)
    for row in plan.table.to_pylist():
        if row["split"] == "train":
            totals[row["cell"]] += row["weight"]
    assert len(totals) == 20
    assert list(totals.values()) == pytest.approx([sum(totals.values()) / 20] * 20)


def test_weights_count_copies_as_rows() -> None:
    """After levelling there is nothing left to weigh where the cap was not reached."""
    rows = [{"key": at, "valence": 5.0 if at < 4 else 15.0, "subtype": "A"} for at in range(16)]
    bins = {"edges": [0, 10, 20]}
    plan = planned(rows, bins=bins, weights={"by": "inverse"})
    assert plan.table["weight"].to_pylist() == [1.0] * 24
    plan = planned(rows, bins=bins, weights={"by": "inverse"}, balance={"max_copies": 2})
    assert sorted(set(plan.table["weight"].to_pylist())) == pytest.approx([20 / 24, 20 / 16])


def test_without_weights_every_row_weighs_one() -> None:
    plan = planned(ratings())
    assert set(plan.table["weight"].to_pylist()) == {1.0}
