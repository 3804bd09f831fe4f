"""check.advice: an option helps only if its control does not; the intervals hold for all rows together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from affectdata.check.advice import Option, list_options, make_advice
from affectdata.check.arms import ORIGINALS
from affectdata.check.evaluate import ArmResult, SplitEvaluation
from affectdata.check.paired import pooled_difference, simultaneous_differences
from affectdata.check.prepare import Split
from affectdata.check.scores import Scoring
from affectdata.check.words import ADVICE_COLUMNS, advice_rows, interval_text
from affectdata.train.rows import Rows


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


def test_one_comparison_has_the_plain_interval(scoring: Scoring) -> None:
    (found,), _ = simultaneous_differences(scoring, [("r2", "good", "same")])
    plain = pooled_difference(scoring, "r2", "good", "same")
    assert found.mean == plain.mean
    assert found.high - found.mean == pytest.approx(plain.high - plain.mean, rel=0.03)
    assert simultaneous_differences(scoring, []) == ([], None)


def test_arms_that_do_not_differ_have_an_interval_of_zero_width(scoring: Scoring) -> None:
    (found, _), _ = simultaneous_differences(scoring, [("mae", "good", "also"), ("mae", "good", "same")])
    assert (found.mean, found.low, found.high) == (0, 0, 0)


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
    assert outcomes == [
        "helps",
        "not clearly better than its control",
        "harms",
        "undecided",
        "helps",
        "not run",
    ]
    assert table.rows[4].change.high < 0  # a lower error is a gain
    assert table.rows[5].reason == "why" and table.rows[5].change is None
    assert [row.option for row in table.rows] == ["one", "two", "three", "four", "five", "six"]
    (left_out,) = make_advice(scoring, options[:1], absent=["good"]).rows
    assert left_out.outcome == "not run"


def test_the_table_shows_intervals_or_the_reason(scoring: Scoring) -> None:
    table = make_advice(scoring, [option("one", "good", "same"), option("two", "absent", "same")])
    run, missing = advice_rows(table)
    change = table.rows[0].change
    assert change is not None
    assert run == ["one", "R²", interval_text(change, 3, "+"), run[3], "helps", "--how"]
    assert missing == ["two", "R²", "", "", "not run: why", "--how"]
    assert len(run) == len(missing) == len(ADVICE_COLUMNS)


def test_more_rows_widen_the_intervals(scoring: Scoring) -> None:
    few = make_advice(scoring, [option("one", "same", "good")])
    many = make_advice(scoring, [option("one", "same", "good"), option("two", "bad", "good", "mae")])
    assert many.quantile > few.quantile == pytest.approx(1.96, abs=0.05)


def test_the_order_is_fixed_and_every_row_says_what_enables_it() -> None:
    names = [each.name for each in list_options(["oasis"])]
    assert names[:3] == ["subtype-aware head", "second backbone", "weights"]
    assert names[3].startswith("oasis: output") and names[4].startswith("oasis: images")
    assert names[5].startswith("calibration") and names[6] == "levelled copies"
    assert all(each.enable for each in list_options([]))
    assert any(each.name.startswith("another source") for each in list_options([]))
