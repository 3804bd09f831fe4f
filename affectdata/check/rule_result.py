"""The result of a rule: outcome, text and figure, and how an interval is compared with bounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from affectdata.check.blocks import Interval


class Outcome(StrEnum):
    """The outcome of a rule."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"
    NOTICE = "notice"  # something to look at, whatever it is: it neither passes nor fails


@dataclass(frozen=True)
class RuleResult:
    """A rule's outcome, with its figure, 95 % interval and bound, and one sentence."""

    outcome: Outcome
    text: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None


def check_bounds(figure: Interval, text: str, at_least: float = -inf, at_most: float = inf) -> RuleResult:
    """Compare the interval of a figure with a lower bound, an upper bound, or both."""
    low, high = (figure.mean if end is None else end for end in (figure.low, figure.high))
    outcome = Outcome.UNDECIDED
    if low is None or high is None:
        pass
    elif at_least <= low and high <= at_most:
        outcome = Outcome.PASS
    elif high < at_least or low > at_most:
        outcome = Outcome.FAIL
    bound = at_least if at_most == inf else at_most
    return RuleResult(outcome, text, figure.mean, figure.low, figure.high, bound)
