"""Three outcomes: a figure passes or fails only where its whole interval lies on one side of the bound."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any

Figure = dict[str, Any]  # mean, low, high; low and high are None where there is no interval


class Outcome(StrEnum):
    """What a rule says."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judged:
    """A rule's outcome with its figure, 95 % interval and bound, and one sentence."""

    outcome: Outcome
    text: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None


def judge(found: Figure, text: str, at_least: float = -inf, at_most: float = inf) -> Judged:
    """Judge a figure that should lie between two bounds, or on the right side of one."""
    low, high = (found["mean"] if found[end] is None else found[end] for end in ("low", "high"))
    outcome = Outcome.UNDECIDED
    if low is not None and at_least <= low and high <= at_most:
        outcome = Outcome.PASS
    elif low is not None and (high < at_least or low > at_most):
        outcome = Outcome.FAIL
    bound = at_least if at_most == inf else at_most
    return Judged(outcome, text, found["mean"], found["low"], found["high"], bound)
