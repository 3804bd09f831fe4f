"""Read a check's document and format its figures as text: shared by gate, verdict and study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from affectdata.check.blocks import CheckFigures, ClassScores, HeadScores, Interval, ScoringName

NAMES = {
    "r2": "R²",
    "ccc": "CCC",
    "mae": "MAE",
    "macro_mae": "macro-MAE",
    "tail_mae": "tail MAE",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
ARM_NAMES = {
    "originals": "the unbalanced originals",
    "even": "as many copies spread evenly",
    "stretched": "the originals' predictions stretched",
}
LEAST_ORIGINALS = 200  # scored originals; with fewer, a check is inconclusive
_LOWER_IS_BETTER = ("mae", "macro_mae", "tail_mae")


def clear_change(measure: str, difference: Interval) -> int:
    """Return 1 if the whole interval of a difference is a gain, -1 if it is a loss, else 0."""
    if difference.low is None or difference.high is None:
        return 0
    sign = int(difference.low > 0) - int(difference.high < 0)
    return -sign if measure in _LOWER_IS_BETTER else sign


def scored_on(document: CheckFigures) -> ScoringName:
    """Return the scoring that the rules use: cross-fitted if there is one, else held-out."""
    return "heldout" if document.crossfit_missing else "crossfit"


def n_scored(document: CheckFigures) -> int:
    """Return the number of scored originals."""
    return sum(document.bins.n.on(scored_on(document)) or [])


def too_few_text(document: CheckFigures) -> str | None:
    """Return why a check is inconclusive; None if there are enough images."""
    n = n_scored(document)
    if n >= LEAST_ORIGINALS:
        return None
    return f"inconclusive: too few images ({n} originals scored, at least {LEAST_ORIGINALS} needed)"


def small_groups_text(too_few: Mapping[str, int]) -> str | None:
    """Name the subgroups that are too small to report, with their sizes; None if there are none."""
    names = ", ".join(f"{name} (n = {n})" for name, n in too_few.items())
    return f"too few to report: {names}" if names else None


def scores(document: CheckFigures, arm: str, head: str = "regressor") -> HeadScores | None:
    """Return the scores of an arm; None if it has none."""
    found = document.arms[arm].heads.get(head) if arm in document.arms else None
    return found.on(scored_on(document)) if found else None


def class_scores(document: CheckFigures, arm: str, classes: str) -> ClassScores:
    """Return the scores of an arm's classifier.

    Raises:
        KeyError: it has none.
    """
    found = document.arms[arm].classifier[classes].on(scored_on(document))
    if found is None:
        raise KeyError(classes)
    return found


def number_text(value: float | None, digits: int = 3) -> str:
    """Format a figure; "undefined" for None."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval_text(figure: Interval, digits: int = 3, sign: str = "") -> str:
    """Format a figure with its interval."""
    known = [value for value in (figure.mean, figure.low, figure.high) if value is not None]
    mean, *interval = (f"{value:{sign}.{digits}f}" for value in known) if known else ("undefined",)
    return f"{mean} ({' to '.join(interval)})" if interval else mean


def change_text(measure: str, difference: Interval) -> str:
    """Format a difference in a measure with its interval."""
    return f"{NAMES[measure]} {interval_text(difference, 2 if measure in _LOWER_IS_BETTER else 3, '+')}"


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity by None, which JSON can represent."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
