"""Rules over scores for check_power.py: leaks by training, and what a model must reach.

Heads have fixed settings, near those that the inner search chooses. A leak is planted by images that are
there twice: a kept copy of an image, turned or cropped by the recipe, that passes for another image.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from _power import KeptFeatures
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from affectdata.check import metrics
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import Interval
from affectdata.check.evaluate import REGRESSOR, Classes, EvaluateSplit, find_classes
from affectdata.check.gate import LIKELY_NEAREST
from affectdata.check.image_pool import replan
from affectdata.check.leak import _nearest_figure, _shuffled_figure
from affectdata.check.prepare import Split
from affectdata.check.rule_result import Outcome, check_bounds
from affectdata.check.scores import Scoring
from affectdata.recipe.bounds import Check
from affectdata.splits.folds import deal_folds
from affectdata.train.heads import (
    N_FOLDS,
    FittedHead,
    NetworkScaler,
    ScaleFeatures,
    out_of_fold,
    with_output,
)
from affectdata.train.rows import Rows
from affectdata.train.svr import RbfSVR

OUT_OF_FOLD, IN_FOLD = "out of fold", "in fold"
LEAKS = (0, 5, 10, 20)  # per cent of the images
_C, _GAMMA, _EPSILON, _C_OF_CLASSES = 100.0, 0.5, 3.0, 0.03


@dataclass(frozen=True)
class _FixedHeads:
    """A learner without a search. `cascade`: whether the second stage gets predictions out of fold."""

    seed: int
    cascade: str
    heads: ClassVar = {REGRESSOR: "svr"}
    is_costly: ClassVar = True  # no further heads

    def fit_regressor(self, train: Rows, head: str) -> FittedHead:
        svr = RbfSVR(C=_C, gamma=_GAMMA / train.features.shape[1], epsilon=_EPSILON)
        model = Pipeline([("scale", NetworkScaler(train.widths)), ("head", svr)])
        return FittedHead(model.fit(train.features, train.target), {}, [])

    def out_of_fold(self, regressor: FittedHead, train: Rows) -> np.ndarray:
        in_fold = self.cascade != OUT_OF_FOLD
        return regressor.predict(train) if in_fold else out_of_fold(regressor, train, self.seed)

    def fit_classifier(self, train: Rows, labels: np.ndarray, outputs: np.ndarray | None) -> FittedHead:
        scale = ScaleFeatures(train.features.shape[1], train.widths)
        head = LogisticRegression(C=_C_OF_CLASSES, max_iter=1000)
        model = Pipeline([("scale", scale), ("head", head)])
        return FittedHead(model.fit(with_output(train.features, outputs), labels), {}, [])

    def on_features(self, fitted: FittedHead, train: Rows, labels: np.ndarray | None) -> FittedHead:
        return fitted

    def describe(self) -> dict[str, Any]:
        return {}


def score_clean(kept: KeptFeatures, seed: int, cascade: str = "") -> dict[str, Any]:
    """Return the figures of one recipe seed, which decides folds and copies; `cascade`: of that alone."""
    own, rng = kept.plain, np.random.default_rng([8, seed])
    recipe, splits = kept.recipe.model_copy(update={"seed": seed}), []
    for fold in folds_of(own, seed):
        for number in range(N_FOLDS):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            copies = Counter(replan(kept.originals, fold != number, recipe)["image_id"].to_pylist())
            released = np.array([copies[image_id] - 1 for image_id in own.image_id[train].tolist()])
            light = kept.with_copies(train, released, rng)
            rows = replace(light, features=kept.pool_features[light.pool_index])
            splits.append(Split({RELEASE: rows, ORIGINALS: own.take(train)}, own.take(test)))
    return _figures(kept, splits, seed, cascade)


def score_leak(kept: KeptFeatures, seed: int, share: int) -> dict[str, Any]:
    """Return the figures with a share of the images there twice, the second time as a copy."""
    rows, splits = twice(kept, np.random.default_rng([9, seed]), share), []
    for fold in folds_of(rows, seed):
        for number in range(N_FOLDS):
            train, test = (rows.take(np.flatnonzero(side)) for side in (fold != number, fold == number))
            splits.append(Split({ORIGINALS: train}, test))
    return _figures(kept, splits, seed, "")


def twice(kept: KeptFeatures, rng: np.random.Generator, share: int) -> Rows:
    """Return the originals and, of so many per cent of them, a copy that passes for another image."""
    plain = kept.plain
    chosen = rng.permutation(len(plain))[: round(share / 100 * len(plain))]
    if not share:
        return plain
    light = kept.with_copies(chosen, np.ones(len(chosen), int), rng)
    light = light.take(np.flatnonzero(light.copy > 0))
    names = np.array([f"{name}-again" for name in light.image_id.tolist()])
    again = replace(
        light,
        features=kept.pool_features[light.pool_index],
        image_id=names,
        group=names,
        copy=np.zeros(len(light), light.copy.dtype),
    )
    return Rows.concat([plain, again])


def folds_of(rows: Rows, seed: int) -> list[np.ndarray]:
    return [deal_folds(rows.group, [rows.stratum], 2 * seed + number, N_FOLDS) for number in range(2)]


def _figures(kept: KeptFeatures, splits: list[Split], seed: int, cascade: str) -> dict[str, Any]:
    classes = find_classes(kept.recipe, None, [])
    evaluate = EvaluateSplit(classes if cascade else [], True, _FixedHeads(seed, cascade))
    edges = kept.originals.edges or []
    scoring = Scoring(
        splits, [evaluate(split) for split in splits], N_FOLDS, edges, np.zeros(len(edges) - 1, bool)
    )
    if cascade:
        return {name: figure.to_dict() for name, figure in _cascade(scoring, classes[0]).items()}
    r2 = scoring.interval(scoring.figure("r2", ORIGINALS))
    shuffled = scoring.interval(_shuffled_figure(scoring, None))
    figures = {
        "leak.nearest": scoring.interval(_nearest_figure(scoring, None)),
        "leak.too_good": r2,
        "leak.shuffled": shuffled,
    }
    if RELEASE in splits[0].arms:
        figures["training.score.r2"] = scoring.interval(scoring.figure("r2", RELEASE))
        figures["training.score.collapse"] = scoring.interval(scoring.figure("sd_ratio", RELEASE))
        figures["learns.above_shuffled"] = r2
    return {name: figure.to_dict() for name, figure in figures.items()}


def _cascade(scoring: Scoring, classes: Classes) -> dict[str, Interval]:
    both, image = (
        scoring.label_figure("balanced_accuracy", RELEASE, classes, name) for name in ("both", "image")
    )
    excess = []
    for split, evaluation in zip(scoring.splits, scoring.evaluations, strict=True):
        train, outputs = split.arms[RELEASE], evaluation.arms[RELEASE].second_stage
        own = train.copy == 0
        new = evaluation.arms[RELEASE].values[REGRESSOR]
        excess.append(metrics.r2(train.target[own], outputs[own]) - metrics.r2(split.test.target, new))
    return {
        "cascade.not_worse": scoring.interval(lambda number, rows: both(number, rows) - image(number, rows)),
        "cascade.out_of_fold": Interval(mean=float(np.mean(excess)), low=None, high=None),
    }


def outcomes(figures: dict[str, Any], least: float | None = None, *, decides: bool = True) -> dict[str, str]:
    """Return the outcome of each rule by its default bounds; `least`: what a score must exceed at least.

    `decides`: whether the estimate decides an open interval of a leak, as where one number is predicted.
    """
    check, found = Check(), {name: Interval.model_validate(figure) for name, figure in figures.items()}
    bounds: dict[str, dict[str, float]] = {
        "leak.nearest": {"at_most": check.max_nearest},
        "leak.too_good": {"at_most": check.max_r2},
        "leak.shuffled": {"at_most": check.max_shuffled},
        "training.score.r2": {"at_least": check.min_r2},
        "training.score.collapse": {"at_least": check.min_sd_ratio},
        "cascade.not_worse": {"at_least": -check.not_worse.balanced_accuracy},
        "cascade.out_of_fold": {"at_most": check.max_second_stage},
    }
    if "learns.above_shuffled" in found:  # an open interval fails
        floor = check.min_r2_low if least is None else least
        least = max(floor, found["leak.shuffled"].high or 0.0)
        passes = (found.pop("learns.above_shuffled").low or 0.0) > least
        decided = {"learns.above_shuffled": "pass" if passes else "fail"}
    else:
        decided = {}
    compared = {name: check_bounds(figure, "", **bounds[name]) for name, figure in found.items()}
    for name, share in (("leak.nearest", LIKELY_NEAREST), ("leak.too_good", 1.0)):
        if decides and name in compared and compared[name].outcome is Outcome.UNDECIDED:
            fails = (compared[name].figure or 0.0) > share * bounds[name]["at_most"]
            compared[name] = replace(compared[name], outcome=Outcome.FAIL if fails else Outcome.PASS)
    return {name: str(result.outcome) for name, result in compared.items()} | decided
