"""check.scores: intervals, against formulas and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from affectdata.check import metrics
from affectdata.check.scores import bootstrap_interval, corrected_interval


def test_the_corrected_interval_is_the_formula_of_nadeau_and_bengio() -> None:
    values = [0.5, 0.6, 0.4, 0.55]
    found = corrected_interval(values, n_test=20, n_train=80)
    spread = np.std(values, ddof=1)
    reach = stats.t.ppf(0.975, 3) * spread * np.sqrt(1 / 4 + 20 / 80)
    assert found.to_dict() == pytest.approx({"mean": 0.5125, "low": 0.5125 - reach, "high": 0.5125 + reach})
    naive = stats.t.ppf(0.975, 3) * spread / 2
    assert reach == pytest.approx(naive * np.sqrt(2))


def test_it_covers_the_truth_where_training_sets_overlap() -> None:
    """Score the mean of a normal on ten splits of 50 numbers; the truth is known."""
    rng = np.random.default_rng(0)
    covered = {"corrected": 0, "naive": 0}
    for _ in range(300):
        data = rng.normal(0, 1, 50)
        values = []
        for _ in range(10):
            order = rng.permutation(50)
            train, test = data[order[:40]], data[order[40:]]
            values.append(float(np.mean((test - train.mean()) ** 2)))
        truth = 1 + 1 / 40
        for name, share in (("corrected", 10 / 40), ("naive", 0.0)):
            found = corrected_interval(values, share, 1)
            covered[name] += found.low <= truth <= found.high
    assert covered["corrected"] / 300 > 0.88
    assert covered["naive"] / 300 < 0.80


def test_undefined_figures_are_left_out_and_a_single_figure_has_no_interval() -> None:
    found = corrected_interval([0.5, float("nan"), 0.7], 1, 4)
    assert found.mean == pytest.approx(0.6) and found.low < 0.5
    alone = corrected_interval([0.5, float("nan")], 1, 4)
    assert alone.mean == 0.5 and alone.low is None
    assert corrected_interval([], 1, 4).mean is None


def test_resamples_draw_groups_and_keep_the_size_of_bins() -> None:
    group = np.array(["a", "a", "b", "c", "d", "e"])
    bins = np.array([0, 0, 0, 1, 1, 1])
    drawn: list[np.ndarray] = []

    def figure(rows: np.ndarray) -> float:
        drawn.append(rows)
        return float(len(rows))

    bootstrap_interval(figure, group, bins, 0)
    for rows in drawn[:-1]:
        assert (bins[rows] == 1).sum() == 3
        assert (rows == 0).sum() == (rows == 1).sum()  # both of group a or neither
    assert drawn[-1].tolist() == list(range(6))


def test_the_bootstrap_is_around_the_plain_figure_and_repeats() -> None:
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 100, 200)
    good, bad = y + rng.normal(0, 10, 200), y + rng.normal(0, 20, 200)
    group, bins = np.arange(200).astype(str), metrics.bin_codes(y, [0, 25, 50, 75, 100])

    def difference(rows: np.ndarray) -> float:
        return metrics.r2(y[rows], good[rows]) - metrics.r2(y[rows], bad[rows])

    found = bootstrap_interval(difference, group, bins, 0)
    assert found.mean == pytest.approx(metrics.r2(y, good) - metrics.r2(y, bad))
    assert 0 < found.low < found.mean < found.high
    assert bootstrap_interval(difference, group, bins, 0) == found
