"""Put the training, the scores and the comparisons together as the document of a check; see `blocks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.check import blocks, metrics
from affectdata.check.advice import list_options, make_advice
from affectdata.check.arms import (
    CALIBRATED,
    DUPLICATES,
    EVEN,
    ORIGINALS,
    RELEASE,
    STACKED,
    STRETCHED,
    SUBTYPE_AWARE,
    WEIGHTS,
    WITH,
)
from affectdata.check.blocks import ByScoring, CheckFigures, ScoringName, Value
from affectdata.check.evaluate import Classes, Learner
from affectdata.check.leak import check_structure, describe_leak
from affectdata.check.metrics import LABEL_MEASURES
from affectdata.check.paired import pooled_difference
from affectdata.check.prepare import CheckInput
from affectdata.check.scores import (
    COMPARED,
    SUBGROUPS,
    Figure,
    Scoring,
    by_source,
    estimated_in,
    score_classes,
    score_head,
    score_subgroups,
    subgroup_values,
)
from affectdata.check.shift import affect_of_look, copies_and_target, describe_effects, describe_shift
from affectdata.check.target_scores import describe_target, score_target
from affectdata.check.words import SKILL

_VERSIONS = (
    *("affectdata", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "timm", "torch"),
    "torchvision",
)
_PAIRS = (
    *((RELEASE, other) for other in (ORIGINALS, EVEN, STRETCHED, DUPLICATES, WEIGHTS)),
    (WEIGHTS, ORIGINALS),
    (EVEN, ORIGINALS),
    (SUBTYPE_AWARE, ORIGINALS),
    (CALIBRATED, ORIGINALS),
)
_ON_EDGE = 0.25  # share of the splits


@dataclass(frozen=True, eq=False)
class Results:
    """Inputs and predictions: by scoring (None if not scored), and with undeclared groups kept together."""

    prepared: CheckInput
    learner: Learner
    classes: list[Classes]
    scorings: dict[ScoringName, Scoring | None]
    regrouped: dict[str, Scoring]
    transfer: dict[str, blocks.Transfer]
    labels: dict[str, blocks.LabelFigures]  # by source
    same_images: blocks.SameImages
    shortcuts: blocks.Shortcuts

    @property
    def best(self) -> Scoring:
        """The scoring that the rules use: cross-fitted if there is one, else held-out."""
        scoring = self.scorings["crossfit"] or self.scorings["heldout"]
        if scoring is None:
            raise ValueError("nothing was scored")
        return scoring

    @property
    def pools_differences(self) -> bool:
        """Whether differences have pooled intervals: calibrated for heads on two assignments to folds."""
        is_crossfit = self.scorings["crossfit"] is not None
        return self.prepared.numeric and is_crossfit and not self.learner.is_costly

    def by_scoring(self, arm: str, compute: Callable[[Scoring], Value]) -> ByScoring[Value]:
        """Compute something for each scoring; None if the arm was not scored in it."""
        crossfit, heldout = (
            compute(scoring) if scoring and scoring.has(arm) else None
            for scoring in (self.scorings["crossfit"], self.scorings["heldout"])
        )
        return ByScoring(crossfit=crossfit, heldout=heldout)


def describe(results: Results) -> CheckFigures:
    """Return the document without its verdict."""
    prepared, best, numeric = results.prepared, results.best, results.prepared.numeric
    release, recipe, train = prepared.release, prepared.recipe, prepared.train
    probed = results.scorings["crossfit"] if numeric else None
    drift = release.info.get("drift") or {}
    splits = [split for scoring in results.scorings.values() if scoring for split in scoring.splits]
    classes = None if numeric or prepared.target else results.classes[0]
    return CheckFigures(
        schema=blocks.SCHEMA,
        release=blocks.ReleaseBlock(
            id=release.id, name=release.name, recipe=recipe.name, target=recipe.target
        ),
        settings=_settings(results),
        versions={name: version(name) for name in _VERSIONS},
        numeric=numeric,
        **describe_target(prepared.target),
        copies=int((train.copy > 0).sum()),
        bins=_bins(results),
        crossfit_missing=prepared.crossfit_missing,
        structure=check_structure(splits),
        arms={arm: _arm(results, arm) for arm in best.evaluations[0].arms},
        labels=results.labels,
        comparison=_compare(results),
        pooled_differences=results.pools_differences,
        on_edge=_on_edge(results),
        cascade=_cascade(results) if numeric else None,
        leak=describe_leak(best, prepared.originals, classes, recipe.check.max_cosine, results.same_images),
        shortcuts=results.shortcuts,
        shift=describe_shift(probed) if probed else None,
        effects=describe_effects(probed) if probed else None,
        affect_of_look=affect_of_look(drift),
        probe=drift.get("probe"),
        copies_and_target=copies_and_target(train.copy > 0, train.target) if numeric else None,
        ceiling=_ceiling(prepared) if numeric else None,
        subgroups=_subgroups(results),
        regrouped={
            name: scoring.interval(scoring.figure("r2" if numeric else SKILL, ORIGINALS))
            for name, scoring in results.regrouped.items()
            if numeric or prepared.target
        },
        not_offered=prepared.not_offered,
        transfer=results.transfer,
        advice=_advice(results) if numeric and not results.learner.is_costly else None,
        curves=list(_curves(results)),
    )


def _advice(results: Results) -> blocks.Advice:
    prepared = results.prepared
    absent = [] if (prepared.train.copy > 0).any() else [RELEASE]
    return make_advice(results.best, list(list_options(list(prepared.others))), absent)


def _settings(results: Results) -> blocks.CheckSettings:
    prepared = results.prepared
    networks = [prepared.backbone, *prepared.more_backbones]
    return blocks.CheckSettings(
        backbone=" + ".join(network.name for network in networks),
        weights=" + ".join(Path(network.weights).name for network in networks),
        backbone_key=" + ".join(network.key for network in networks),
        weights_sha256=[network.weights_sha256 for network in networks],
        device=prepared.backbone.device.type,
        seed=prepared.recipe.seed,
        n_splits=len(prepared.crossfit),
        n_deals=len(prepared.fold_assignments),
        n_images=int(prepared.originals.released.sum()),
        n_images_of=len({*prepared.release.table["image_id"].to_pylist()}),
        check=prepared.recipe.check,
        **results.learner.describe(),
    )


def _bins(results: Results) -> blocks.Bins:
    originals = results.prepared.originals
    crossfit, heldout = (
        np.bincount(scoring.tests().stratum, minlength=len(originals.labels)).tolist() if scoring else None
        for scoring in (results.scorings["crossfit"], results.scorings["heldout"])
    )
    return blocks.Bins(
        edges=originals.edges,
        labels=originals.labels,
        tail=results.best.tail.tolist() if originals.edges else [],
        n=ByScoring(crossfit=crossfit, heldout=heldout),
    )


def _arm(results: Results, arm: str) -> blocks.Arm:
    result, target = results.best.evaluations[0].arms[arm], results.prepared.target
    n_train = results.by_scoring(arm, partial(_mean_n_train, arm=arm))
    if target:
        scored = results.by_scoring(arm, partial(score_target, target=target, arm=arm))
        return blocks.Arm(n_train=n_train, target=scored)
    parts: dict[str, Any] = {head: _head(results, arm, head) for head in result.values}
    if result.labels:
        parts["classifier"] = {
            classes.name: results.by_scoring(arm, partial(score_classes, arm=arm, classes=classes))
            for classes in results.classes
        }
    return blocks.Arm(n_train=n_train, **parts)


def _head(results: Results, arm: str, head: str) -> blocks.Head:
    scores = results.by_scoring(arm, partial(score_head, arm=arm, head=head))
    return blocks.Head(
        head=results.learner.heads[head] if arm in results.best.splits[0].arms else arm,
        chosen=results.by_scoring(arm, partial(_chosen, arm=arm, head=head)),
        crossfit=scores.crossfit,
        heldout=scores.heldout,
    )


def _mean_n_train(scoring: Scoring, arm: str) -> float:
    return float(np.mean([result.arms[arm].n_train for result in scoring.evaluations]))


def _chosen(scoring: Scoring, arm: str, head: str) -> list[blocks.Chosen | None]:
    reports = [result.arms[arm].chosen.get(head) for result in scoring.evaluations]
    return [None if report is None else blocks.Chosen(**report) for report in reports]


def _curves(results: Results) -> Iterator[blocks.Curve]:
    for scored_on, scoring in results.scorings.items():
        for number, evaluation in enumerate(scoring.evaluations if scoring else []):
            for arm, result in evaluation.arms.items():
                for model, points in result.curves.items():
                    if points:
                        yield blocks.Curve(
                            scoring=scored_on,
                            split=number,
                            arm=arm,
                            model=model,
                            points=[blocks.CurvePoint(**point) for point in points],
                        )


def _compare(results: Results) -> dict[str, dict[str, blocks.Interval]]:
    """Return the differences between arms on the same images, measure by measure."""
    best, numeric = results.best, results.prepared.numeric
    measures = best.measures or (COMPARED if numeric else LABEL_MEASURES)
    compare = partial(pooled_difference, best) if results.pools_differences else _compare_splits(results)

    pairs = [
        *_PAIRS,
        *((arm, ORIGINALS) for arm in best.evaluations[0].arms if arm.startswith((WITH, STACKED))),
    ]
    return {
        f"{left} - {right}": {name: compare(name, left, right) for name in measures}
        for left, right in pairs
        if best.has(left) and best.has(right)
    }


def _compare_splits(results: Results) -> Callable[[str, str, str], blocks.Interval]:
    """Return the difference of two arms in a measure with an interval over the splits."""
    best, numeric = results.best, results.prepared.numeric

    def figure(measure: str, arm: str) -> Figure:
        if numeric or best.target:
            return best.figure(measure, arm)
        return best.label_figure(measure, arm, results.classes[0], "image")

    def compare(measure: str, left: str, right: str) -> blocks.Interval:
        difference = _difference(figure(measure, left), figure(measure, right))
        if (
            best.target and measure != SKILL and len(best.splits) == 1
        ):  # a bootstrap of each would take minutes
            return blocks.Interval(mean=best.mean(difference), low=None, high=None)
        return best.interval(difference)

    return compare


def _difference(first: Figure, second: Figure) -> Figure:
    return lambda number, rows: first(number, rows) - second(number, rows)


def _on_edge(results: Results) -> list[str]:
    if results.prepared.target:  # its heads do not report their settings
        return []
    head = "regressor" if results.prepared.numeric else f"{results.classes[0].name}.image"
    arms = []
    for arm in (RELEASE, ORIGINALS, EVEN):
        chosen = _chosen(results.best, arm, head) if results.best.has(arm) else []
        if sum(bool(settings and settings.on_edge) for settings in chosen) > _ON_EDGE * len(chosen):
            arms.append(arm)
    return arms


def _cascade(results: Results) -> blocks.Cascade | None:
    """Return the gain from the regressor's output for the target's classes, and whether it is out of fold."""
    best = results.best
    if not results.classes or results.classes[0].thresholds is None:
        return None
    gain: dict[str, Any] = {}
    for measure in LABEL_MEASURES:
        both, image = (
            best.label_figure(measure, RELEASE, results.classes[0], name) for name in ("both", "image")
        )
        gain[measure] = best.interval(_difference(both, image))
    r2 = best.figure("r2", RELEASE)
    new = [r2(number, np.arange(len(split.test))) for number, split in enumerate(best.splits)]
    train = [_second_stage(results.prepared, best, number) for number in range(len(best.splits))]
    second, on_new = float(np.nanmean(train)), float(np.nanmean(new))
    return blocks.Cascade(second_stage=second, on_new=on_new, second_stage_excess=second - on_new, **gain)


def _second_stage(prepared: CheckInput, scoring: Scoring, number: int) -> float:
    """Return R² of the outputs that a split's classifier was trained with, over scorable originals."""
    train = scoring.splits[number].arms[RELEASE]
    outputs = scoring.evaluations[number].arms[RELEASE].second_stage
    rows = np.flatnonzero((train.copy == 0) & prepared.originals.own[prepared.originals.find(train.image_id)])
    return float("nan") if outputs is None else scoring.measure("r2", train.take(rows), outputs[rows])


def _ceiling(prepared: CheckInput) -> float | None:
    names = [f"{prepared.recipe.target}{ending}" for ending in ("", "_sd", "_n")]
    table = prepared.originals.table.filter(pa.array(prepared.originals.own))
    if not set(names) <= set(table.column_names) or any(table[name].null_count for name in names):
        return None
    source = prepared.originals.column("source")[prepared.originals.own]
    known = [table[name].to_numpy().astype(float) for name in names]
    return by_source(source, lambda part: metrics.noise_ceiling(*(values[part] for values in known)))


def _subgroups(results: Results) -> dict[str, blocks.Subgroups]:
    best, originals = results.best, results.prepared.originals
    test = best.tests()
    rows = originals.find(test.image_id)
    info, recipe = results.prepared.release.info, results.prepared.recipe
    values = subgroup_values(originals, recipe)
    measure, deviation = "mae", None
    if target := results.prepared.target:
        measure = target.error
        per_image = np.asarray(target.errors(target.true(test), best.values(RELEASE)), float)
    elif results.prepared.numeric:
        deviation = best.values(RELEASE) - test.target
        per_image = np.abs(deviation)
    else:
        measure, classes = "accuracy", results.classes[0]
        right = best.labels(RELEASE, classes.name, "image") == classes.of(test)
        per_image = right.astype(float)
    scored = {
        column: score_subgroups(
            values[column][rows],
            test,
            measure,
            per_image,
            recipe.seed,
            estimated_in(info, column),
            deviation,
        )
        for column in SUBGROUPS
    }
    return {column: block for column, block in scored.items() if block.groups or block.too_few}
