"""check.advice: simultaneous intervals cover, and an option helps only if its control does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from affectdata.check.advice import (
    Option,
    list_options,
    make_advice,
    simultaneous_intervals,
)
from affectdata.check.arms import ORIGINALS
from affectdata.check.evaluate import ArmResult, SplitEvaluation
from affectdata.check.prepare import Split
from affectdata.check.scores import Scoring, corrected_interval
from affectdata.train.rows import Rows


def test_one_row_has_the_plain_corrected_interval() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.05, 10)
    (interval,), _ = simultaneous_intervals(differences[:, None], 0.25, 0)
    expected = corrected_interval(differences.tolist(), 1, 4)
    reach, expected_reach = (each.high - each.mean for each in (interval, expected))
    assert interval.mean == pytest.approx(expected.mean)
    assert reach == pytest.approx(expected_reach, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_intervals_cover_for_all_rows_together(correlation: float) -> None:
    rng = np.random.default_rng(1)
    n_simulations, n_rows, n_splits = 200, 12, 10
    wrong = alone = 0
    for number in range(n_simulations):
        shared = rng.normal(size=(n_splits, 1))
        own = rng.normal(size=(n_splits, n_rows))
        intervals, _ = simultaneous_intervals(
            np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own, 0.0, number
        )
        wrong += any(each.low > 0 or each.high < 0 for each in intervals)
        unadjusted = (corrected_interval(column, 0, 1) for column in own.T.tolist())
        alone += any(each.low > 0 or each.high < 0 for each in unadjusted)
    assert wrong / n_simulations < 0.1
    assert alone / n_simulations > 0.3  # intervals of each row alone would not do


def test_undefined_and_constant_differences() -> None:
    differences = np.column_stack([np.zeros(5), [np.nan, 1, 2, 3, 4], np.arange(5.0)])
    (constant, undefined, varying), quantile = simultaneous_intervals(differences, 0.25, 0)
    assert (constant.mean, constant.low, constant.high) == (0, 0, 0)
    assert undefined.mean is undefined.low is None
    assert varying.low < 2 < varying.high and quantile > 2.5
    (single,), _ = simultaneous_intervals(np.ones((1, 1)), 0.25, 0)
    assert single.mean == 1 and single.low is None


@pytest.fixture
def scoring(planted: Callable[..., Rows]) -> Scoring:
    """Ten splits; the arm `good` has half of the originals' error, `bad` twice."""
    splits, evaluations = [], []
    for seed in range(10):
        train, test = planted(n=160, seed=seed), planted(n=40, seed=100 + seed)
        rng = np.random.default_rng(seed)
        error = rng.normal(0, 10, len(test))
        values = {ORIGINALS: error, "good": error / 2, "also": error / 2, "bad": error * 2}
        values["same"] = error + rng.normal(0, 0.1, len(test))
        arms = {name: ArmResult(len(train), {"regressor": test.target + e}) for name, e in values.items()}
        splits.append(Split({ORIGINALS: train}, test))
        evaluations.append(SplitEvaluation(arms, np.empty(0), None))
    return Scoring(splits, evaluations, 5, [0.0, 50.0, 100.0], np.array([True, False]))


def option(name: str, arm: str, control: str, measure: str = "r2") -> Option:
    return Option(name, arm, control, measure, "--how", "why")


def test_an_option_helps_only_beyond_its_control(scoring: Scoring) -> None:
    options = [
        option("one", "good", "same"),
        option("two", "good", "also"),
        option("three", "bad", "same", "mae"),
        option("four", "same", "good"),
        option("five", "good", "same", "mae"),
        option("six", "absent", "same"),
    ]
    table = make_advice(scoring, options)
    outcomes = [row.outcome for row in table.rows]
    assert outcomes == ["helps", "no more than its control", "harms", "undecided", "helps", "not run"]
    assert table.rows[4].change.high < 0  # a lower error is a gain
    assert table.rows[5].reason == "why" and table.rows[5].change is None
    assert [row.option for row in table.rows] == ["one", "two", "three", "four", "five", "six"]
    (left_out,) = make_advice(scoring, options[:1], absent=["good"]).rows
    assert left_out.outcome == "not run"


def test_more_rows_widen_the_intervals(scoring: Scoring) -> None:
    few = make_advice(scoring, [option("one", "same", "good")])
    many = make_advice(scoring, [option("one", "same", "good"), option("two", "bad", "good", "mae")])
    assert many.quantile > few.quantile >= 2.26  # the t of one row


def test_the_order_is_fixed_and_every_row_says_what_enables_it() -> None:
    names = [each.name for each in list_options(["oasis"])]
    assert names[:3] == ["subtype-aware head", "second backbone", "weights"]
    assert names[3].startswith("oasis: output") and names[4].startswith("oasis: images")
    assert names[5].startswith("calibration") and names[6] == "levelled copies"
    assert all(each.enable for each in list_options([]))
    assert any(each.name.startswith("another source") for each in list_options([]))
