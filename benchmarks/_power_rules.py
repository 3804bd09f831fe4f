"""The outcomes of the gate's rules for the figures of a run, by the default bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import (
    Arm,
    Bins,
    ByScoring,
    Cascade,
    CheckFigures,
    Head,
    HeadScores,
    Interval,
    LabelFigures,
    Leak,
    TargetBlock,
    TargetScores,
)
from affectdata.check.evaluate import REGRESSOR
from affectdata.check.gate import RULES
from affectdata.check.label_gate import LEAST_IMAGES
from affectdata.check.words import SKILL
from affectdata.recipe.bounds import Check

_ENOUGH = 1000  # scored originals: no rule is undecided for want of images
_ORDER = ("pass", "notice", "undecided", "fail")


def outcomes(rules: tuple[str, ...], **figures: Any) -> dict[str, str]:
    """Return the outcome of each result of some rules; without those that had no figure.

    `figures` are fields of a check's document.
    """
    bins = Bins.model_construct(n=ByScoring.model_construct(crossfit=[_ENOUGH], heldout=None))
    fields: dict[str, Any] = {"numeric": True, "target": None, "copies": 1, "bins": bins, "arms": {}}
    fields |= {"crossfit_missing": None, "on_edge": [], "cascade": None}
    document = CheckFigures.model_construct(**(fields | figures))
    return {
        f"{rule.name}.{name}" if name else rule.name: str(result.outcome)
        for rule in RULES
        if rule.name in rules
        for name, result in rule.results(document, Check())
        if result.figure is not None
    }


def worst_by_rule(found: Mapping[str, str], rules: tuple[str, ...]) -> dict[str, str]:
    """Return the worst outcome of each rule over what it checks."""
    worst: dict[str, str] = {}
    for name, outcome in found.items():
        rule = next(rule for rule in rules if name == rule or name.startswith(f"{rule}."))
        worst[rule] = max(worst.get(rule, "pass"), outcome, key=_ORDER.index)
    return worst


LABEL_RULES = tuple(rule.name for rule in RULES if rule.name.startswith("labels."))
_SCORE_RULES = ("leak.nearest", "leak.too_good", "leak.shuffled", "learns.above_shuffled", "training.score")
_EXPECTED = "labels.r2.expected"


def label_outcomes(labels: LabelFigures) -> dict[str, str]:
    """Return the worst outcome of each rule labels.*, as if there were enough images."""
    labels = labels.model_copy(update={"n": max(labels.n, LEAST_IMAGES)})
    found = outcomes(LABEL_RULES, labels={"": labels})
    expected = found.pop(_EXPECTED, None)
    worst = worst_by_rule(found, LABEL_RULES) | ({_EXPECTED: expected} if expected else {})
    return {rule: worst[rule] for rule in sorted(worst) if rule != "labels.suspicious"}


def score_outcomes(figures: Mapping[str, Any], kind: str = "", skill_name: str = "R²") -> dict[str, str]:
    """Return the outcomes of the rules over scores; `kind` is that of a target of several values.

    An open interval is decided by the estimate where one number is predicted.
    """
    found = {name: Interval.model_validate(figure) for name, figure in figures.items()}
    if "cascade.not_worse" in found:
        excess = found["cascade.out_of_fold"].mean
        cascade = Cascade.model_construct(
            second_stage=excess,
            on_new=0.0,
            second_stage_excess=excess,
            balanced_accuracy=found["cascade.not_worse"],
        )
        return outcomes(("cascade",), cascade=cascade)
    leak = Leak.model_construct(nearest=found["leak.nearest"], shuffled=found["leak.shuffled"])
    originals = found.get("learns.above_shuffled", found.get("leak.too_good"))
    arms = {ORIGINALS: _arm({"r2": originals}, kind)}
    rules = ["leak.nearest", "leak.shuffled"]
    rules += ["leak.too_good"] if "leak.too_good" in found else []
    if "learns.above_shuffled" in found:
        rules.append("learns.above_shuffled")
        ratio = found.get("training.score.collapse")
        arms[RELEASE] = _arm({"r2": found.get("training.score.r2", originals), "sd_ratio": ratio}, kind)
    rules += ["training.score"] if "training.score.r2" in found else []
    target = TargetBlock.model_construct(kind=kind, name=kind, skill=skill_name) if kind else None
    every = outcomes(
        tuple(rules), leak=leak, arms=arms, target=target, numeric=not kind, pooled_differences=not kind
    )
    return {name: outcome for name, outcome in every.items() if name in found}


def _arm(measures: Mapping[str, Interval | None], kind: str) -> Arm:
    figures: Any = {name: figure for name, figure in measures.items() if figure}
    if kind:
        scored = TargetScores.model_construct(**{SKILL: figures["r2"]})
        return Arm.model_construct(target=ByScoring.model_construct(crossfit=scored, heldout=None))
    scores = HeadScores.model_construct(**figures)
    return Arm.model_construct(
        target=None, **{REGRESSOR: Head.model_construct(crossfit=scores, heldout=None)}
    )


def pair_outcomes(differences: Mapping[str, Any]) -> dict[str, str]:
    """Return the outcomes of training.not_worse; keys are "baseline measure"."""
    comparison: dict[str, dict[str, Interval]] = {}
    for key, figure in differences.items():
        baseline, measure = key.split()
        comparison.setdefault(f"{RELEASE} - {baseline}", {})[measure] = Interval.model_validate(figure)
    return outcomes(("training.not_worse",), comparison=comparison, pooled_differences=True)
