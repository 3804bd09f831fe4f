"""Print the rules of `affectdata train-check`, or the result: verdict first, then the figures behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from affectdata.cli._output import document, settings, show, show_table

if TYPE_CHECKING:
    from affectdata.check.blocks import Advice, CheckDocument, ScoringName

_MEASURES = ("r2", "ccc", "pearson_r", "mae", "macro_mae", "tail_mae", "sd_ratio", "r_within")
_OUTCOMES = {"pass": "pass", "fail": "FAIL", "undecided": "could not be decided"}
_VERDICTS = {"passed": "passed", "failed": "FAILED", "inconclusive": "is inconclusive: too few images"}
_LEGEND = (
    "tail_mae: MAE over the thin bins; sd_ratio: SD of predictions / SD of targets; r_within: r within "
    "subtypes; even, duplicates, weights, stretched: controls without balanced copies; subtype_aware and "
    "below: other heads on the originals, with their controls"
)
_LABEL_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")
_SCORINGS: dict[ScoringName, str] = {
    "crossfit": "splits of the originals (mean)",
    "heldout": "held-out test of the release",
}


def print_rules(rules: list[tuple[str, str]], defaults: dict[str, Any], least_originals: int) -> int:
    """Print every rule with its condition, and the default bounds; return the exit code."""
    show_table(["rule", "passes if"], rules)
    show(
        "\nA rule is undecided if its interval contains its bound: a pass, or a fail with `undecided: fail`."
    )
    show(
        f"With fewer than {least_originals} originals, a check without a fail is inconclusive (exit code 0)."
    )
    show("check: " + json.dumps(defaults).replace('"', ""))
    listed = [{"name": name, "what": what} for name, what in rules]
    document("affectdata/rules/1", {"rules": listed, "defaults": defaults})
    return 0


def print_check(result: CheckDocument) -> None:
    """Print the document of a check; with -v, the tables of the classifiers too."""
    verdict, options = result.verdict, result.settings
    show(f"{result.release.name}: {result.release.target}, {options.backbone}\n")
    for sentence in verdict.sentences:
        show(f"  {sentence}")
    if result.advice:
        _print_advice(result.advice)
    if verdict.advice:
        show("\nadvice")
    for sentence in verdict.advice:
        show(f"  {sentence}")
    show("\nrules")
    for rule in verdict.gate:
        show(f"  {rule.outcome:<9}  {rule.rule}: {rule.text}")
    outcomes = [rule.outcome for rule in verdict.gate]
    counts = [f"{outcomes.count(name)} {text}" for name, text in _OUTCOMES.items() if name in outcomes]
    show(f"  the check {_VERDICTS[verdict.outcome]}: of {len(outcomes)} rules {', '.join(counts)}")
    for scored_on, text in _SCORINGS.items():
        n = result.bins.n.on(scored_on)
        if n is not None:
            splits = f"{options.n_splits} " if scored_on == "crossfit" else ""
            show(f"\n{splits}{text}, {sum(n)} images")
            _print_scores(result, scored_on)


def _print_advice(advice: Advice) -> None:
    from affectdata.check.words import NAMES, interval_text

    show(
        "\nwhat would help here, compared with the originals (95 % intervals that hold for all rows together)"
    )
    rows = []
    for row in advice.rows:
        figures = ["", "", f"{row.outcome}: {row.reason}"]
        if row.change and row.over_control:
            changes = (interval_text(each, 3, "+") for each in (row.change, row.over_control))
            figures = [*changes, row.outcome]
        rows.append([row.option, NAMES[row.measure], *figures, row.enable])
    show_table(["option", "measure", "change", "over its control", "outcome", "by"], rows)


def _print_scores(result: CheckDocument, scored_on: ScoringName) -> None:
    rows = list(_head_rows(result, scored_on))
    if rows:
        show_table(["arm", "head", "trained on", *_MEASURES], rows)
        show(f"  {_LEGEND}")
    for name in result.arms["release"].classifier if settings().verbose else ():
        show_table(["arm", name, *_LABEL_MEASURES], list(_class_rows(result, name, scored_on)))


def _head_rows(result: CheckDocument, scored_on: ScoringName) -> Iterator[list[Any]]:
    for name, arm in result.arms.items():
        for head in arm.heads.values():
            scores = head.on(scored_on)
            if scores:
                means = [scores[measure].mean for measure in _MEASURES]
                yield [name, head.head, round(arm.n_train.on(scored_on) or 0), *means]


def _class_rows(result: CheckDocument, classes: str, scored_on: ScoringName) -> Iterator[list[Any]]:
    for name, arm in result.arms.items():
        scores = arm.classifier[classes].on(scored_on) if classes in arm.classifier else None
        for given, labels in scores.inputs.items() if scores else ():
            yield [name, given, *(labels[measure] for measure in _LABEL_MEASURES)]
