"""Read a check's document and format its figures as text: shared by gate, verdict and study."""

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
LEAST_ORIGINALS = 200  # scored originals; with fewer, a check is inconclusive
_LOWER_IS_BETTER = ("mae", "macro_mae", "tail_mae")


def clear_change(measure: str, difference: Document) -> int:
    """Return 1 if the whole interval of a difference is a gain, -1 if it is a loss, else 0."""
    if difference["low"] is None:
        return 0
    sign = int(difference["low"] > 0) - int(difference["high"] < 0)
    return -sign if measure in _LOWER_IS_BETTER else sign


def scored_on(document: Document) -> str:
    """Return the scoring that the rules use: cross-fitted if there is one, else held-out."""
    return "heldout" if document["crossfit_missing"] else "crossfit"


def n_scored(document: Document) -> int:
    """Return the number of scored originals."""
    return int(sum(document["bins"]["n"][scored_on(document)]))


def too_few_text(document: Document) -> str | None:
    """Return why a check is inconclusive; None if there are enough images."""
    n = n_scored(document)
    if n >= LEAST_ORIGINALS:
        return None
    return f"inconclusive: too few images ({n} originals scored, at least {LEAST_ORIGINALS} needed)"


def small_groups_text(too_few: Document) -> str | None:
    """Name the subgroups that are too small to report, with their sizes; None if there are none."""
    names = ", ".join(f"{name} (n = {n})" for name, n in too_few.items())
    return f"too few to report: {names}" if names else None


def scores(document: Document, arm: str, head: str = "regressor") -> Document | None:
    """Return the scores of an arm; None if it has none."""
    scored: Document | None = document["arms"].get(arm, {}).get(head, {}).get(scored_on(document))
    return scored


def number_text(value: float | None, digits: int = 3) -> str:
    """Format a figure; "undefined" for None."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval_text(figure: Document, digits: int = 3, sign: str = "") -> str:
    """Format a figure with its interval."""
    if figure["low"] is None:
        return "undefined" if figure["mean"] is None else f"{figure['mean']:{sign}.{digits}f}"
    mean, low, high = (f"{figure[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def change_text(measure: str, difference: Document) -> str:
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
