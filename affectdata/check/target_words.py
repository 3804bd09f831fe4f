"""Sentences on targets of several values, or of classes with a polarity."""

from __future__ import annotations

from collections.abc import Iterator

from affectdata.check.arms import MEAN, RELEASE
from affectdata.check.blocks import CheckFigures
from affectdata.check.words import (
    SKILL,
    interval_text,
    measure_name,
    n_scored,
    number_text,
    splits_text,
    target_scores,
)


def score_sentence(document: CheckFigures) -> Iterator[str]:
    """Yield every measure of the release beside that of the baseline."""
    scored, mean, settings = (
        target_scores(document, RELEASE),
        target_scores(document, MEAN),
        document.settings,
    )
    if not (document.target and scored and mean):
        return
    model = f"Frozen {settings.backbone} features"
    if settings.mode != "frozen":
        model = f"{settings.backbone} fine-tuned for {settings.steps} steps at {settings.size_px} px"
    where = splits_text(document)
    figures = "; ".join(
        f"{measure_name(name)} {number_text(figure.mean)} ({number_text(mean[name].mean)})"
        for name, figure in scored.measures.items()
        if name != SKILL
    )
    yield (
        f"{model}, {document.target.name}, over {where} {n_scored(document)} originals: "
        f"{document.target.skill} {interval_text(scored[SKILL])}. Measures, in brackets those of the mean of "
        f"train: {figures}."
    )
    yield ("There is no table of what would help: its heads (calibrated, stacked, …) predict one number.")
    rare = [row.label for row in scored.labels or () if not row.n_predicted]
    if rare:
        yield f"The model never predicts {', '.join(rare)} with a probability of .5 or more."


def summary_line(document: CheckFigures) -> Iterator[str]:
    """Yield what the release's model reaches: its skill, and the measure that follows it."""
    scored, mean = target_scores(document, RELEASE), target_scores(document, MEAN)
    if not (document.target and scored and mean):
        return
    measure = next(name for name in scored.measures if name != SKILL)
    yield (
        f"On {n_scored(document)} images it was not trained on, the model of {document.target.name} reaches "
        f"{document.target.skill} {interval_text(scored[SKILL], 2)}, where predicting the mean gives 0; its "
        f"{measure_name(measure)} is {number_text(scored[measure].mean, 2)}, that of the mean "
        f"{number_text(mean[measure].mean, 2)}."
    )
