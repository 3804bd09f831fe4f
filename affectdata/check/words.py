"""A check's document read and put into words: what gate, verdict and advice share."""

from __future__ import annotations

import math
from typing import Any

Document = dict[str, Any]
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
LEAST_ORIGINALS = 200  # scored originals, below which a check is inconclusive
_LOWER_IS_BETTER = ("mae", "macro_mae", "tail_mae")


def clear_change(measure: str, found: Document) -> int:
    """Return whether a difference in a measure is for sure a gain (1), a loss (-1), or neither (0)."""
    if found["low"] is None:
        return 0
    sign = int(found["low"] > 0) - int(found["high"] < 0)
    return -sign if measure in _LOWER_IS_BETTER else sign


def scored_on(document: Document) -> str:
    """Return the scoring that the rules look at: cross-fitted where there is that."""
    return "heldout" if document["crossfit_missing"] else "crossfit"


def n_scored(document: Document) -> int:
    """Return how many originals are scored."""
    return int(sum(document["bins"]["n"][scored_on(document)]))


def too_few_text(document: Document) -> str | None:
    """Say why a check is inconclusive; None where there are images enough."""
    n = n_scored(document)
    if n >= LEAST_ORIGINALS:
        return None
    return f"inconclusive: too few images ({n} originals scored, at least {LEAST_ORIGINALS} needed)"


def small_groups_text(too_few: Document) -> str | None:
    """Name the subgroups that are too small for a figure, with their sizes; None without any."""
    named = ", ".join(f"{name} (n = {n})" for name, n in too_few.items())
    return f"too few to report: {named}" if named else None


def scores(document: Document, arm: str, head: str = "regressor") -> Document | None:
    """Return the scores of an arm, where it has any."""
    found: Document | None = document["arms"].get(arm, {}).get(head, {}).get(scored_on(document))
    return found


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, or that it is not defined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval_text(found: Document, digits: int = 3, sign: str = "") -> str:
    """Write a figure and its interval."""
    if found["low"] is None:
        return "undefined" if found["mean"] is None else f"{found['mean']:{sign}.{digits}f}"
    mean, low, high = (f"{found[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def change_text(measure: str, found: Document) -> str:
    """Write a difference in a measure, and its interval."""
    return f"{NAMES[measure]} {interval_text(found, 2 if measure in _LOWER_IS_BETTER else 3, '+')}"


def without_nan(value: Any) -> Any:
    """Replace what is no finite number by null: JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
