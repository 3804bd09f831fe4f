"""Print the rules of `affectdata train-check`, or the result: a summary first, then what did not pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from affectdata.check.words import (
    ADVICE_COLUMNS,
    ADVICE_NOTE,
    ADVICE_TITLE,
    NAMES,
    advice_rows,
    target_table,
)
from affectdata.cli._output import alarm, document, echo, settings, show, show_table, wrap
from affectdata.store.escape import markdown_table, to_markdown

if TYPE_CHECKING:
    from affectdata.check.blocks import Advice, CheckDocument, RuleOutcome, ScoringName

_SHORT = ("r2", "ccc", "mae", "macro_mae", "tail_mae", "r_within")  # fits 80 columns
_MEASURES = (*_SHORT[:2], "pearson_r", *_SHORT[2:5], "sd_ratio", "r_within")
_HEADLINES = ("release", "originals", "even", "weights", "subtype_aware", "subtype_mean", "mean")
_OUTCOMES = {"pass": "passed", "fail": "FAILED", "undecided": "could not be decided", "notice": "to look at"}
_VERDICTS = {"passed": "passed", "failed": "FAILED", "inconclusive": "is inconclusive: too few images"}
_LEGEND = (
    "tail MAE: over the thin bins; r within: over images of one subtype; SD ratio: of predictions and "
    "targets; even, duplicates, weights, stretched: controls without balanced copies"
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
    """Print the document of a check; with -v, all sentences, rules, advice, arms and classifiers."""
    show(f"{result.release.name}: {result.release.target}, {result.settings.backbone}\n")
    for line in result.verdict.summary:
        show(wrap(line, "  "))
    if settings().verbose:
        _print_details(result)
    show("\nrules")
    for rule in result.verdict.gate:
        if rule.outcome != "pass" or settings().verbose:
            line = wrap(f"{rule.outcome:<9}  {rule.rule}: {rule.text}", "  ", 11)
            show(line.replace(rule.outcome, alarm(rule.outcome), 1) if rule.outcome == "fail" else line)
    show(f"  {_count_rules(result)}")
    if settings().verbose:
        for scored_on in _SCORINGS:
            _print_scores(result, scored_on, _MEASURES)
    else:
        _print_scores(result, "heldout" if result.crossfit_missing else "crossfit", _SHORT)


def _count_rules(result: CheckDocument) -> str:
    outcomes = [rule.outcome for rule in result.verdict.gate]
    counts = [f"{outcomes.count(name)} {text}" for name, text in _OUTCOMES.items() if name in outcomes]
    verdict = f"the check {_VERDICTS[result.verdict.outcome]}: of {len(outcomes)} rules {', '.join(counts)}"
    return verdict if settings().verbose else f"{verdict} (-v lists them)"


def print_markdown(result: CheckDocument) -> None:
    """Print summary, rules that did not pass, and scores as Markdown, for the summary of a CI job."""
    echo(f"### {to_markdown(result.release.name)}: the check {_VERDICTS[result.verdict.outcome]}\n")
    for line in result.verdict.summary:
        echo(f"- {to_markdown(line)}")
    rules = [rule for rule in result.verdict.gate if rule.outcome != "pass"]
    if rules:
        _print_lines(markdown_table(["rule", "outcome", "finding"], map(_rule_cells, rules)))
    scored_on: ScoringName = "heldout" if result.crossfit_missing else "crossfit"
    _print_lines(markdown_table(*_headline_table(result, scored_on)))


def _rule_cells(rule: RuleOutcome) -> list[str]:
    return [rule.rule, rule.outcome, rule.text]


def _print_lines(lines: list[str]) -> None:
    echo("\n" + "\n".join(lines))


def _print_details(result: CheckDocument) -> None:
    show()
    for sentence in result.verdict.sentences:
        show(wrap(sentence, "  "))
    if result.advice:
        _print_advice(result.advice)
    for sentence in result.verdict.advice:
        show(wrap(sentence, "  "))


def _print_advice(advice: Advice) -> None:
    show(f"\n{ADVICE_TITLE} ({ADVICE_NOTE})")
    show_table(ADVICE_COLUMNS, advice_rows(advice))
    show()


def _print_scores(result: CheckDocument, scored_on: ScoringName, measures: tuple[str, ...]) -> None:
    n = result.bins.n.on(scored_on)
    if n is None:
        return
    splits = f"{result.settings.n_splits} " if scored_on == "crossfit" else ""
    show(f"\n{splits}{_SCORINGS[scored_on]}, {sum(n)} images")
    if result.target or not settings().verbose:
        show_table(*_headline_table(result, scored_on))
        return
    rows = list(_head_rows(result, scored_on, measures))
    if rows:
        show_table(["arm", "head", "trained on", *(NAMES[name] for name in measures)], rows)
    show(wrap(_LEGEND, "  "))
    for name in result.arms["release"].classifier:
        show_table(["arm", name, *_LABEL_MEASURES], list(_class_rows(result, name, scored_on)))


def _headline_table(result: CheckDocument, scored_on: ScoringName) -> tuple[list[str], list[list[Any]]]:
    """Return header and rows of the arms that the summary compares: their regressor, or their classifier."""
    if result.target:
        return target_table(result, scored_on)
    if result.numeric:
        rows = [
            [arm, n, *figures]
            for arm, head, n, *figures in _head_rows(result, scored_on, _SHORT)
            if arm in _HEADLINES and head != "ridge"
        ]
        rows.sort(key=lambda row: _HEADLINES.index(row[0]))
        return ["arm", "rows", *(NAMES[name] for name in _SHORT)], rows
    return ["arm", "given", *_LABEL_MEASURES], list(_class_rows(result, result.release.target, scored_on))


def _head_rows(
    result: CheckDocument, scored_on: ScoringName, measures: tuple[str, ...]
) -> Iterator[list[Any]]:
    for name, arm in result.arms.items():
        for head in arm.heads.values():
            scores = head.on(scored_on)
            if scores:
                means = [scores[measure].mean for measure in measures]
                yield [name, head.head, round(arm.n_train.on(scored_on) or 0), *means]


def _class_rows(result: CheckDocument, classes: str, scored_on: ScoringName) -> Iterator[list[Any]]:
    for name, arm in result.arms.items():
        scores = arm.classifier[classes].on(scored_on) if classes in arm.classifier else None
        for given, labels in scores.inputs.items() if scores else ():
            yield [name, given, *(labels[measure] for measure in _LABEL_MEASURES)]
