"""check.influence and check.paired: influence values when an image is left out, and cover of the interval."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from affectdata.check import metrics
from affectdata.check.blocks import Interval
from affectdata.check.evaluate import ArmResult, SplitEvaluation
from affectdata.check.influence import (
    grouped_variance,
    influence_binned_mae,
    influence_ccc,
    influence_mae,
    influence_r,
    influence_r2,
    largest_z,
    pooled_interval,
)
from affectdata.check.paired import pooled_difference
from affectdata.check.prepare import Split
from affectdata.check.scores import Scoring
from affectdata.train.rows import Rows

EDGES = [0.0, 30.0, 60.0, 100.0]
Score = Callable[[np.ndarray, np.ndarray], float]
Influence = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.uniform(0, 100, n)
    return y, 20 + 0.6 * y + rng.normal(0, 12, n)


def _binned(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return influence_binned_mae(y, predicted, metrics.bin_codes(y, EDGES))


@pytest.mark.parametrize(
    ("score", "influence"),
    [
        (metrics.r2, influence_r2),
        (metrics.ccc, influence_ccc),
        (metrics.mae, influence_mae),
        (metrics.pearson_r, influence_r),
        (lambda y, p: metrics.macro_mae(y, p, EDGES), _binned),
    ],
)
def test_an_influence_value_is_the_change_when_an_image_is_left_out(
    score: Score, influence: Influence
) -> None:
    n = 2000
    y, predicted = _drawn(n, 0)
    values, every = influence(y, predicted), score(y, predicted)
    assert abs(values.mean()) < 1e-9
    rows = np.arange(0, n, 50)
    without = np.array([score(np.delete(y, row), np.delete(predicted, row)) for row in rows])
    assert np.allclose((n - 1) * (every - without), values[rows], rtol=0.02, atol=0.02 * np.abs(values).max())


def test_images_of_a_group_are_added_before_they_are_squared() -> None:
    values = np.array([1.0, 1.0, -1.0, -1.0])
    assert grouped_variance(values, np.array(["a", "b", "c", "d"])) == 4 / 16
    assert grouped_variance(values, np.array(["a", "a", "b", "b"])) == 8 / 16


def test_a_second_assignment_does_not_narrow_the_interval() -> None:
    one, two = pooled_interval([(0.1, 0.01)]), pooled_interval([(0.1, 0.01), (0.3, 0.01)])
    assert (one.mean, two.mean) == pytest.approx((0.1, 0.2))
    assert _width(one) == pytest.approx(_width(two)) == pytest.approx(2 * 1.1 * 1.96 * 0.1, rel=1e-3)


def _width(interval: Interval) -> float:
    assert interval.high is not None and interval.low is not None
    return interval.high - interval.low


@pytest.mark.parametrize("constant", [np.zeros(5), np.full(5, 50.0)])
def test_a_constant_target_has_no_influence_values(constant: np.ndarray) -> None:
    assert np.isnan(influence_r2(constant, np.arange(5.0))).all()
    assert np.isnan(influence_r(constant, np.arange(5.0))).all()
    assert np.isnan(influence_ccc(constant, constant)).all()


def _scoring(rows: Rows, left: np.ndarray, right: np.ndarray) -> Scoring:
    """Return a scoring of one assignment to five folds with two arms."""
    order = np.argsort(np.arange(len(rows)) % 5, kind="stable")
    parts = np.array_split(order, 5)
    splits = [Split({"originals": rows}, rows.take(part)) for part in parts]
    evaluations = [
        SplitEvaluation(
            {
                "release": ArmResult(values={"regressor": left[part]}),
                "originals": ArmResult(values={"regressor": right[part]}),
            },
            np.zeros(len(part)),
            None,
        )
        for part in parts
    ]
    return Scoring(splits, evaluations, 5, EDGES, np.array([True, False, False]))


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["r2", "ccc", "mae", "macro_mae", "tail_mae"])
def test_the_interval_covers_the_true_difference(planted: Callable[..., Rows], measure: str) -> None:
    """The true difference is that of the same two models on very many images."""

    def draw(n: int, seed: int) -> Interval:
        rows = planted(n=n, seed=seed)
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 6, (2, n))
        return pooled_difference(
            _scoring(rows, rows.target + noise[0], 0.9 * rows.target + 5 + noise[1]),
            measure,
            "release",
            "originals",
        )

    truth = draw(200_000, 1).mean
    assert truth is not None
    found = [draw(300, seed) for seed in range(100)]
    covered = [(interval.low or 0) <= truth <= (interval.high or 0) for interval in found]
    assert 0.9 <= np.mean(covered) <= 1.0
    spread = np.std([interval.mean for interval in found])
    assert 0.7 < np.mean([_width(interval) for interval in found]) / (2 * 1.1 * 1.96 * spread) < 1.4


def test_differences_are_averaged_over_sources(planted: Callable[..., Rows]) -> None:
    rows = planted(n=200)
    two = Rows.concat([rows, rows])
    source = np.repeat(["a", "b"], 200)
    two = Rows(**{name: getattr(two, name) for name in two.__slots__} | {"source": source})
    rng = np.random.default_rng(0)
    left, right = two.target + rng.normal(0, 5, 400), two.target + rng.normal(0, 9, 400)
    found = pooled_difference(_scoring(two, left, right), "r2", "release", "originals")
    parts = [
        metrics.r2(two.target[source == name], left[source == name])
        - metrics.r2(two.target[source == name], right[source == name])
        for name in ("a", "b")
    ]
    assert found.mean == pytest.approx(np.mean(parts))


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_quantile_of_the_largest_z_holds_for_all_figures_together(correlation: float) -> None:
    rng = np.random.default_rng(1)
    n_simulations, n_groups, n_figures = 200, 150, 12
    wrong = alone = 0
    for number in range(n_simulations):
        shared, own = rng.normal(size=(n_groups, 1)), rng.normal(size=(n_groups, n_figures))
        sums = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
        largest = float(np.max(np.abs(sums.sum(0)) / np.sqrt((sums**2).sum(0))))
        wrong += largest > largest_z(sums, number)
        alone += largest > 1.96
    assert wrong / n_simulations < 0.1
    assert alone > 2 * wrong


def test_figures_that_do_not_vary_have_no_part_in_the_quantile() -> None:
    sums = np.random.default_rng(0).normal(size=(100, 1))
    one = largest_z(sums, 0)
    assert one == pytest.approx(1.96, abs=0.06)
    assert largest_z(np.hstack([sums, np.zeros((100, 1)), np.full((100, 1), np.nan)]), 0) == one
    assert largest_z(np.zeros((100, 2)), 0) == pytest.approx(1.96, abs=0.001)
    assert largest_z(np.hstack([sums, sums]), 0) == one  # the same figure twice
