"""The document of a check: the training, the scores and the comparisons, as plain data.

    schema           affectdata/train-check/3
    release          id, name, recipe, target
    settings         backbone, weights, backbone_key, device, seed, n_splits; mode: frozen (with the grids of
                     the heads) or finetune (with steps, head_steps, size_px and the rest of `task.Settings`)
    versions         of the libraries that decide the numbers
    numeric, copies  whether the target is numeric; the number of copies in train
    bins             edges (POMP units; null if the target is not numeric), labels, tail (thin bins),
                     n per bin: crossfit, heldout
    crossfit_missing null, or the reason why there is only the held-out score
    structure.<part> problems (exact checks; a release with a broken lineage is refused before training), text
    arms.<arm>       see `arms`; mean and subtype_mean predict the mean of train, of all or of the subtype
      n_train        rows trained on, by scoring (mean over splits)
      regressor      SVR (RBF) on frozen features, a network, or the arm's constant
      ridge          ridge on the same (release and originals; frozen)
        <scoring>    crossfit: ten splits, two assignments of all originals to five folds, groups kept
                     together, every arm planned on four of five (networks: one assignment, five splits
                     or fewer); heldout: the release's test split. null if not scored.
          r2 mse rmse mae macro_mae tail_mae ccc pearson_r sd_ratio r_within r2_within
                     each {mean: over splits, low, high: 95 % interval corrected for shared training
                     images, splits: [per split], pooled: over every original once}
          mae_per_bin, mae_per_subtype: over every original once
          per_source, mean_collapse: of means over the splits
        chosen       hyperparameters per split, with `on_edge`: those on the edge of the grid; networks: none
      classifier.<classes>.<scoring>   (release; every arm if the target is not numeric)
                     <classes>: `<target>_class` (check.classes of the recipe) and (frozen) `subtype`
        labels, n    the classes, and the number of originals of each
        interval     mean, low, high of the first three measures below, image and regressor's output
                     together (or image alone)
        both, image, regressor, majority
                     accuracy, balanced_accuracy, macro_f1, accuracy_per_source (means over the splits),
                     calibration_error, confusion (rows: true; also normalised; over every original once) of
                     the classifier on features and the regressor's output; on features alone; of the
                     regressor's output, cut at the thresholds; of the most frequent class of each split
                     (every measure over every scored original once).
        chance       of guessing: 1 / number of classes that occur among the scored originals
    comparison       "<arm> - <arm>": per measure mean, low, high of the difference
    on_edge          arms whose setting is on the edge of its grid in more than a quarter of the splits
    cascade          gain of the classifier from the regressor's output, R² of that output
    leak, shift, effects, affect_of_look, probe, copies_and_target   see `leak` and `shift`; `leak.shuffled`:
                     R² (classes: balanced accuracy) of the originals' arm after training on shuffled labels
    ceiling          the highest R² that the raters' noise allows, if SD and N are known
    subgroups        errors of the release's model per age group, gender, ethnicity, with the gap (over
                     every original once); `estimated`: the sources in which a machine filled in that
                     column; `too_few`: groups that are too small to report, with their sizes
    regrouped        R² of the originals with undeclared groups kept together, by column
    not_offered      manifests that could not be tried for the thin bins, and the reason
    curves           of networks: [{scoring, split, arm, model, points: [{step, phase, loss}]}]; model: a
                     head, or `<classes>.<input>`
    verdict          outcome: passed, failed (exit code 1) or inconclusive (exit code 0; fewer than 200 scored
                     originals, and no rule fails); passed: whether the outcome is passed;
                     gate: [{rule, outcome, text, figure, low, high, bound}], sentences, advice

A measure that is not defined (a bin without images, R² of one image) is null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.check import metrics
from affectdata.check.arms import DUPLICATES, EVEN, ORIGINALS, RELEASE, STRETCHED, WEIGHTS, WITH
from affectdata.check.evaluate import Classes, Learner
from affectdata.check.leak import check_structure, describe_leak
from affectdata.check.prepare import CheckInput
from affectdata.check.scores import (
    COMPARED,
    LABEL_MEASURES,
    SUBGROUPS,
    Figure,
    Scoring,
    by_source,
    estimated_in,
    score_classes,
    score_head,
    score_subgroups,
)
from affectdata.check.shift import affect_of_look, copies_and_target, describe_effects, describe_shift

SCHEMA = "affectdata/train-check/3"
_VERSIONS = ("affectdata", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "torch", "torchvision")
_PAIRS = (
    *((RELEASE, other) for other in (ORIGINALS, EVEN, STRETCHED, DUPLICATES, WEIGHTS)),
    (WEIGHTS, ORIGINALS),
    (EVEN, ORIGINALS),
)
_ON_EDGE = 0.25  # share of the splits


@dataclass(frozen=True, eq=False)
class Results:
    """Inputs and predictions: by scoring (None if not scored), and with undeclared groups kept together."""

    prepared: CheckInput
    learner: Learner
    classes: list[Classes]
    scorings: dict[str, Scoring | None]  # crossfit, heldout
    regrouped: dict[str, Scoring]

    @property
    def best(self) -> Scoring:
        """The scoring that the rules use: cross-fitted if there is one, else held-out."""
        scoring = self.scorings["crossfit"] or self.scorings["heldout"]
        if scoring is None:
            raise ValueError("nothing was scored")
        return scoring

    def by_scoring(self, arm: str, compute: Callable[[Scoring], Any]) -> dict[str, Any]:
        """Compute something for each scoring; None if the arm was not scored in it."""
        return {
            name: compute(scoring) if scoring and scoring.has(arm) else None
            for name, scoring in self.scorings.items()
        }


def describe(results: Results) -> dict[str, Any]:
    """Return the document without its verdict."""
    prepared, best, numeric = results.prepared, results.best, results.prepared.numeric
    release, recipe, train = prepared.release, prepared.recipe, prepared.train
    probed = results.scorings["crossfit"] if numeric else None
    drift = release.info.get("drift") or {}
    splits = [split for scoring in results.scorings.values() if scoring for split in scoring.splits]
    leak = describe_leak(
        best, prepared.originals, None if numeric else results.classes[0], recipe.check.max_cosine
    )
    return {
        "schema": SCHEMA,
        "release": {"id": release.id, "name": release.name, "recipe": recipe.name, "target": recipe.target},
        "settings": _settings(results),
        "versions": {name: version(name) for name in _VERSIONS},
        "numeric": numeric,
        "copies": int((train.copy > 0).sum()),
        "bins": _bins(results),
        "crossfit_missing": prepared.crossfit_missing,
        "structure": check_structure(splits),
        "arms": {arm: _arm(results, arm) for arm in best.evaluations[0].arms},
        "comparison": _compare(results),
        "on_edge": _on_edge(results),
        "cascade": _cascade(results) if numeric else None,
        "leak": leak,
        "shift": probed and describe_shift(probed),
        "effects": probed and describe_effects(probed),
        "affect_of_look": affect_of_look(drift),
        "probe": drift.get("probe"),
        "copies_and_target": copies_and_target(train.copy > 0, train.target) if numeric else None,
        "ceiling": _ceiling(prepared) if numeric else None,
        "subgroups": _subgroups(results),
        "regrouped": {
            name: scoring.interval(scoring.figure("r2", ORIGINALS))
            for name, scoring in results.regrouped.items()
            if numeric
        },
        "not_offered": prepared.not_offered,
        "curves": list(_curves(results)),
    }


def _settings(results: Results) -> dict[str, Any]:
    prepared, backbone = results.prepared, results.prepared.backbone
    return {
        "backbone": backbone.name,
        "weights": Path(backbone.weights).name,
        "backbone_key": backbone.key,
        "device": backbone.device.type,
        "seed": prepared.recipe.seed,
        "n_splits": len(prepared.crossfit),
        "n_deals": len(prepared.fold_assignments),
        "n_pictures": int((prepared.originals.kind != "offered").sum()),
        "n_pictures_of": len({*prepared.release.table["image_id"].to_pylist()}),
        "check": prepared.recipe.check.model_dump(mode="json"),
        **results.learner.describe(),
    }


def _bins(results: Results) -> dict[str, Any]:
    originals = results.prepared.originals
    counts = {
        name: np.bincount(scoring.tests().stratum, minlength=len(originals.labels)).tolist()
        if scoring
        else None
        for name, scoring in results.scorings.items()
    }
    tail = results.best.tail.tolist() if originals.edges else []
    return {"edges": originals.edges, "labels": originals.labels, "tail": tail, "n": counts}


def _arm(results: Results, arm: str) -> dict[str, Any]:
    """Return `arms.<arm>`, as documented above."""
    result, learner = results.best.evaluations[0].arms[arm], results.learner
    part: dict[str, Any] = {"n_train": results.by_scoring(arm, partial(_mean_n_train, arm=arm))}
    for head in result.values:
        part[head] = {
            "head": learner.heads[head] if arm in results.best.splits[0].arms else arm,
            "chosen": results.by_scoring(arm, partial(_chosen, arm=arm, head=head)),
            **results.by_scoring(arm, partial(score_head, arm=arm, head=head)),
        }
    if result.labels:
        part["classifier"] = {
            classes.name: results.by_scoring(arm, partial(score_classes, arm=arm, classes=classes))
            for classes in results.classes
        }
    return part


def _mean_n_train(scoring: Scoring, arm: str) -> float:
    return float(np.mean([result.arms[arm].n_train for result in scoring.evaluations]))


def _chosen(scoring: Scoring, arm: str, head: str) -> list[dict[str, Any] | None]:
    return [result.arms[arm].chosen.get(head) for result in scoring.evaluations]


def _curves(results: Results) -> Iterator[dict[str, Any]]:
    for scored_on, scoring in results.scorings.items():
        for number, evaluation in enumerate(scoring.evaluations if scoring else []):
            for arm, result in evaluation.arms.items():
                for model, points in result.curves.items():
                    if points:
                        where = {"scoring": scored_on, "split": number, "arm": arm, "model": model}
                        yield {**where, "points": points}


def _compare(results: Results) -> dict[str, Any]:
    """Return the differences between arms on the same images, measure by measure."""
    best, numeric = results.best, results.prepared.numeric

    def figure(measure: str, arm: str) -> Figure:
        if numeric:
            return best.figure(measure, arm)
        return best.label_figure(measure, arm, results.classes[0], "image")

    pairs = [*_PAIRS, *((arm, ORIGINALS) for arm in best.evaluations[0].arms if arm.startswith(WITH))]
    return {
        f"{left} - {right}": {
            name: best.interval(_difference(figure(name, left), figure(name, right)))
            for name in (COMPARED if numeric else LABEL_MEASURES)
        }
        for left, right in pairs
        if best.has(left) and best.has(right)
    }


def _difference(first: Figure, second: Figure) -> Figure:
    return lambda number, rows: first(number, rows) - second(number, rows)


def _on_edge(results: Results) -> list[str]:
    head = "regressor" if results.prepared.numeric else f"{results.classes[0].name}.image"
    arms = []
    for arm in (RELEASE, ORIGINALS, EVEN):
        chosen = _chosen(results.best, arm, head) if results.best.has(arm) else []
        if sum(bool((settings or {}).get("on_edge")) for settings in chosen) > _ON_EDGE * len(chosen):
            arms.append(arm)
    return arms


def _cascade(results: Results) -> dict[str, Any] | None:
    """Return the gain from the regressor's output for the target's classes, and whether it is out of fold."""
    best = results.best
    if not results.classes or results.classes[0].thresholds is None:
        return None
    gain = {}
    for measure in LABEL_MEASURES:
        both, image = (
            best.label_figure(measure, RELEASE, results.classes[0], name) for name in ("both", "image")
        )
        gain[measure] = best.interval(_difference(both, image))
    r2 = best.figure("r2", RELEASE)
    new = [r2(number, np.arange(len(split.test))) for number, split in enumerate(best.splits)]
    train = [_second_stage(results.prepared, best, number) for number in range(len(best.splits))]
    second, on_new = float(np.nanmean(train)), float(np.nanmean(new))
    return {**gain, "second_stage": second, "on_new": on_new, "second_stage_excess": second - on_new}


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


def _subgroups(results: Results) -> dict[str, Any]:
    best, originals = results.best, results.prepared.originals
    test = best.tests()
    rows = originals.find(test.image_id)
    if results.prepared.numeric:
        true, predicted = test.target, best.values(RELEASE)
    else:
        classes = results.classes[0]
        true, predicted = classes.of(test), best.labels(RELEASE, classes.name, "image")
    info = results.prepared.release.info
    scored = {
        column: score_subgroups(originals.column(column)[rows], true, predicted) for column in SUBGROUPS
    }
    return {
        column: {**part, "estimated": estimated_in(info, column)}
        for column, part in scored.items()
        if part["groups"] or part["too_few"]
    }
