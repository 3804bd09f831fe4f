"""What would help here: each option compared with the plain originals, with intervals for all rows at once.

A second backbone is compared with the first one alone. Every row has one measure, fixed in advance, and a
control that has whatever the option has but its point. It helps if its interval excludes zero on the good
side, and so does that of its difference to the control; either kind of interval holds for all rows together.
The intervals are those of `paired`, like the ones in `comparison`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
from affectdata.check.paired import simultaneous_differences
from affectdata.check.scores import LEVEL, Scoring
from affectdata.check.words import clear_change

Outcome = Literal["helps", "harms", "undecided", "not clearly better than its control", "not run"]
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
        "it needs 2 to 50 subtypes, and four groups of train images",
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
    changes, quantile = simultaneous_differences(
        scoring, [(option.measure, option.arm, option.base) for option in run]
    )
    over_controls, _ = simultaneous_differences(
        scoring, [(option.measure, option.arm, option.control) for option in run]
    )
    measured = {
        option.name: _row(option, *pair) for option, *pair in zip(run, changes, over_controls, strict=True)
    }
    rows = [measured.get(option.name) or _missing(option) for option in options]
    return Advice(level=LEVEL, quantile=quantile, rows=rows)


def _row(option: Option, change: Interval, over_control: Interval) -> AdviceRow:
    gain, more = (clear_change(option.measure, interval) for interval in (change, over_control))
    outcome: Outcome = "undecided"
    if gain > 0:
        outcome = HELPS if more > 0 else "not clearly better than its control"
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
