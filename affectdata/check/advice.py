"""What would help here: each option compared with the plain originals, with intervals for all rows at once.

A second backbone is compared with the first one alone. Every row has one measure, fixed in advance, and a
control that has whatever the option has but its point. It helps if its interval excludes zero on the good
side, and so does that of its difference to the control.

The intervals hold for all rows together: means over the paired differences of the splits, with the variance
corrected for overlapping training sets as in `scores`, and the quantile of the largest |t| of all rows
(max-t) when the signs of the splits' deviations are flipped, for all rows alike, which keeps the correlations
between rows. Westfall and Young (1993), Resampling-based multiple testing; Romano and Wolf (2005), Stepwise
multiple testing as formalized data snooping, Econometrica 73. With ten splits and 12 rows, independent or
correlated, they cover all rows in 95 % of simulations; a multivariate t with estimated correlations in 93 %.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from affectdata.check.arms import (
    CALIBRATED,
    EVEN,
    FIRST_NETWORK,
    ORIGINALS,
    RELEASE,
    SHUFFLED_NETWORK,
    STACKED,
    SUBTYPE_AWARE,
    SUBTYPE_SHUFFLED,
    UNSTACKED,
    WEIGHTS,
    WIDENED,
    WITH,
)
from affectdata.check.blocks import Advice, AdviceRow, Interval
from affectdata.check.scores import LEVEL, Scoring
from affectdata.check.words import clear_change

_ALL_FLIPS, _N_FLIPS = 12, 4096  # up to so many splits every flip is counted; of more, a sample
Outcome = Literal["helps", "harms", "undecided", "no more than its control", "not run"]
HELPS: Outcome = "helps"


@dataclass(frozen=True)
class Option:
    """An option: its arm and control, the measure that it is judged by, and what enables it.

    `missing` is the reason if the arm was not run; `base` is what it is compared with.
    """

    name: str
    arm: str
    control: str
    measure: str
    enable: str
    missing: str
    base: str = ORIGINALS


def list_options(sources: Sequence[str]) -> Iterator[Option]:
    """Yield the options in their order; `sources` are the other manifests that have usable images."""
    keep = "--keep-model FILE --head"
    yield Option(
        "subtype-aware head",
        SUBTYPE_AWARE,
        SUBTYPE_SHUFFLED,
        "r2",
        f"{keep} subtype_aware",
        "the images have no subtypes, or too few groups",
    )
    yield Option(
        "second backbone",
        ORIGINALS,
        SHUFFLED_NETWORK,
        "r2",
        "--backbone NAME --backbone NAME",
        "the check has one backbone",
        FIRST_NETWORK,
    )
    yield Option(
        "weights",
        WEIGHTS,
        WIDENED,
        "macro_mae",
        "recipe: weights: {by: inverse}, balance: {max_copies: 1}",
        "",
    )
    for name in sources or ["another source"]:
        none = "no other manifest has enough usable images"
        yield Option(
            f"{name}: output of its model as an input",
            STACKED + name,
            UNSTACKED + name,
            "ccc",
            f"{keep} stacked:{name}",
            none,
        )
        yield Option(
            f"{name}: images for the thin bins",
            WITH + name,
            WIDENED,
            "tail_mae",
            f"recipe: balance: {{fill_from: [{name}]}}",
            "no other manifest has images for the thin bins",
        )
    yield Option(
        "calibration half-way to the quantiles of train",
        CALIBRATED,
        WIDENED,
        "tail_mae",
        f"{keep} calibrated",
        "",
    )
    yield Option(
        "levelled copies",
        RELEASE,
        EVEN,
        "macro_mae",
        "recipe: balance: {level: max}",
        "the release has no copies",
    )


def make_advice(scoring: Scoring, options: Sequence[Option], absent: Sequence[str] = ()) -> Advice:
    """Return the table, a row per option.

    `absent` are arms that are not run for what they stand for, though they have predictions.
    """
    run = [
        option
        for option in options
        if option.arm not in absent and all(map(scoring.has, (option.arm, option.control, option.base)))
    ]
    differences = []
    for option in run:
        plain, own, control = (
            _by_split(scoring, option.measure, arm) for arm in (option.base, option.arm, option.control)
        )
        differences += [own - plain, own - control]
    intervals, quantile = simultaneous_intervals(
        np.column_stack(differences) if differences else np.empty((len(scoring.splits), 0)),
        float(np.mean([len(split.test) / len(split.arms[ORIGINALS]) for split in scoring.splits])),
        scoring.seed,
    )
    measured = {
        option.name: _row(option, *pair)
        for option, *pair in zip(run, intervals[::2], intervals[1::2], strict=True)
    }
    rows = [measured.get(option.name) or _missing(option) for option in options]
    return Advice(level=LEVEL, quantile=quantile, rows=rows)


def _by_split(scoring: Scoring, measure: str, arm: str) -> np.ndarray:
    figure = scoring.figure(measure, arm)
    return np.array(
        [figure(number, np.arange(len(split.test))) for number, split in enumerate(scoring.splits)]
    )


def simultaneous_intervals(
    differences: np.ndarray, n_test_over_train: float, seed: int
) -> tuple[list[Interval], float]:
    """Return mean, low and high of each column of `differences` (splits, columns), and the quantile.

    A column with an undefined difference has an undefined interval; with one split all are undefined.
    """
    n = len(differences)
    mean = differences.mean(0)
    sd = differences.std(0, ddof=1) if n > 1 else np.full(differences.shape[1], np.nan)
    varies = sd > 0
    quantile = float("nan")
    if varies.any():
        quantile = _largest_t((differences[:, varies] - mean[varies]) / sd[varies], seed)
    reach = np.where(varies, quantile * sd * np.sqrt(1 / n + n_test_over_train), sd)
    bounds = zip(mean.tolist(), (mean - reach).tolist(), (mean + reach).tolist(), strict=True)
    return [Interval(mean=middle, low=low, high=high) for middle, low, high in bounds], quantile


def _largest_t(standardised: np.ndarray, seed: int) -> float:
    """Return the quantile of the largest |t| of the columns under sign flips, at least that of one column."""
    n = len(standardised)
    flips = np.random.default_rng(seed).choice([-1.0, 1.0], (_N_FLIPS, n))
    if n <= _ALL_FLIPS:
        flips = np.array(list(itertools.product([1.0], *([[-1.0, 1.0]] * (n - 1)))))
    mean = flips @ standardised / n
    variance = (n - 1 - n * mean**2) / (n - 1)  # the flipped values have the sum of squares n - 1
    largest = np.max(np.abs(mean) / np.sqrt(np.maximum(variance, 1e-12) / n), axis=1)
    return float(max(np.quantile(largest, LEVEL), stats.t.ppf(0.5 + LEVEL / 2, n - 1)))


def _row(option: Option, change: Interval, over_control: Interval) -> AdviceRow:
    gain, more = (clear_change(option.measure, interval) for interval in (change, over_control))
    outcome: Outcome = "undecided"
    if gain > 0:
        outcome = HELPS if more > 0 else "no more than its control"
    elif gain < 0:
        outcome = "harms"
    return _describe(option, change=change, over_control=over_control, outcome=outcome)


def _missing(option: Option) -> AdviceRow:
    return _describe(option, change=None, over_control=None, outcome="not run", reason=option.missing)


def _describe(option: Option, **found: Any) -> AdviceRow:
    return AdviceRow(
        option=option.name,
        arm=option.arm,
        measure=option.measure,
        control=option.control,
        enable=option.enable,
        **found,
    )
