"""Read a check's document and format its figures as text: shared by gate, verdict and study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from affectdata.check.blocks import (
    Advice,
    CheckFigures,
    ClassScores,
    HeadScores,
    Interval,
    ScoringName,
    TargetScores,
)
from affectdata.check.metrics import lower_is_better
from affectdata.records import count_text

NAMES = {
    "r2": "R²",
    "ccc": "CCC",
    "mae": "MAE",
    "macro_mae": "macro-MAE",
    "tail_mae": "tail MAE",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "map": "mAP",
    "kl": "KL",
    "js": "JS",
    "emd": "EMD",
    "rmse": "RMSE",
    "pearson_r": "r",
    "sd_ratio": "SD ratio",
    "r_within": "r within",
}
ARM_NAMES = {
    "originals": "the unbalanced originals",
    "even": "as many copies spread evenly",
    "stretched": "the originals' predictions stretched",
}
SKILL, NUMBERS = "skill", "numbers"  # the measure of targets of several values, and their numeric kind
ADVICE_TITLE = "What would help here, compared with the originals"
ADVICE_NOTE = "95 % intervals that hold for all rows together"
ADVICE_COLUMNS = ["option", "measure", "change", "over its control", "outcome", "by"]
LEAST_ORIGINALS = 200  # scored originals; with fewer, a check is inconclusive
_IN_POINTS = ("mae", "macro_mae", "tail_mae", "distance", "rmse")  # of 100: two digits will do


def clear_change(measure: str, difference: Interval) -> int:
    """Return 1 if the whole interval of a difference is a gain, -1 if it is a loss, else 0."""
    if difference.low is None or difference.high is None:
        return 0
    sign = int(difference.low > 0) - int(difference.high < 0)
    return -sign if lower_is_better(measure) else sign


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


def target_scores(document: CheckFigures, arm: str) -> TargetScores | None:
    """Return the scores of an arm for a target of several values; None if it has none."""
    found = document.arms[arm].target if arm in document.arms else None
    return found.on(scored_on(document)) if found else None


def skill_of(document: CheckFigures, arm: str) -> Interval | None:
    """Return R² of an arm, or its skill for a target of several values; None if it has neither."""
    one, several = scores(document, arm), target_scores(document, arm)
    return one["r2"] if one else several[SKILL] if several else None


def skill_name(document: CheckFigures) -> str | None:
    """Return how sentences call R² or the skill; None for the recipe's classes, which have neither."""
    if document.target:
        return document.target.skill
    return NAMES["r2"] if document.numeric else None


def target_table(document: CheckFigures, scoring: ScoringName) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the arms of a target of several values."""
    header, rows = ["arm", "rows"], []
    for name, arm in document.arms.items():
        found = arm.target.on(scoring) if arm.target else None
        if found:
            measures = sorted(found.measures, key=lambda measure: measure != SKILL)  # files sort their keys
            header[2:] = [measure_name(measure) for measure in measures]
            n = round(arm.n_train.on(scoring) or 0)
            rows.append([name, n, *(found[measure].mean for measure in measures)])
    return header, rows


def class_scores(document: CheckFigures, arm: str, classes: str) -> ClassScores:
    """Return the scores of an arm's classifier.

    Raises:
        KeyError: it has none.
    """
    found = document.arms[arm].classifier[classes].on(scored_on(document))
    if found is None:
        raise KeyError(classes)
    return found


def splits_text(document: CheckFigures) -> str:
    """Return what the scored images are: "10 splits of", "the held-out"."""
    if scored_on(document) == "heldout":
        return "the held-out"
    return f"{count_text(document.settings.n_splits, 'split')} of"


def number_text(value: float | None, digits: int = 3) -> str:
    """Format a figure; "undefined" for None."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval_text(figure: Interval, digits: int = 3, sign: str = "") -> str:
    """Format a figure with its interval."""
    known = [value for value in (figure.mean, figure.low, figure.high) if value is not None]
    mean, *interval = (f"{value:{sign}.{digits}f}" for value in known) if known else ("undefined",)
    return f"{mean} ({' to '.join(interval)})" if interval else mean


def measure_name(measure: str, document: CheckFigures | None = None) -> str:
    """Return how sentences call a measure; the skill of a document has the name of what it is."""
    if measure == SKILL and document:
        return skill_name(document) or measure
    return NAMES.get(measure, measure.replace("_", " "))


def change_text(measure: str, difference: Interval, document: CheckFigures | None = None) -> str:
    """Format a difference in a measure with its interval."""
    digits = 2 if measure in _IN_POINTS else 3
    return f"{measure_name(measure, document)} {interval_text(difference, digits, '+')}"


def advice_rows(advice: Advice) -> list[list[str]]:
    """Return the advice as a table, `ADVICE_COLUMNS`."""
    rows = []
    for row in advice.rows:
        figures = ["", "", f"{row.outcome}: {row.reason}"]
        if row.change and row.over_control:
            changes = (interval_text(each, 3, "+") for each in (row.change, row.over_control))
            figures = [*changes, row.outcome]
        rows.append([row.option, measure_name(row.measure), *figures, row.enable])
    return rows


def varied_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings that differ, the backbone first, without weights that follow from the backbone."""
    names = dict.fromkeys(name for each in settings for name in each)
    values = {name: {str(each.get(name)) for each in settings} for name in names}
    pairs = {(str(each.get("backbone")), str(each.get("weights"))) for each in settings}
    if len(pairs) == len(values.get("backbone", ())):
        values.pop("weights", None)
    return sorted(
        (name for name, found in values.items() if len(found) > 1), key=lambda name: name != "backbone"
    )


def without_nan(value: Any) -> Any:
    """Replace NaN and infinity by None, which JSON can represent."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
