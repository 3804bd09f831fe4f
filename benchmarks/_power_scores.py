"""Rules over scores for check_power.py: leaks by training, and what a model must reach.

Heads have fixed settings, near those that the inner search chooses. A leak is planted by images that are
there twice: a kept copy of an image, turned or cropped by the recipe, that passes for another image.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
from _power import (
    CLEAN,
    Case,
    KeptFeatures,
    Record,
    Run,
    Tasks,
    outcome_share,
    range_text,
    share_text,
)
from _power_rules import score_outcomes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from affectdata.check import evaluate, leak, metrics, scores
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import Interval
from affectdata.check.evaluate import REGRESSOR, Classes, EvaluateSplit, find_classes
from affectdata.check.image_pool import replan
from affectdata.check.leak import _nearest_figure, _shuffled_figure
from affectdata.check.prepare import Split
from affectdata.check.scores import Scoring
from affectdata.splits.folds import deal_folds
from affectdata.train import heads, svr
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

MEASURES = (evaluate, leak, metrics, scores, heads, svr)
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


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure the rules: images that are there twice, clean recipe seeds, and the cascade."""

    def one(case: str, measure: Callable[[], Record]) -> Iterator[Case]:
        yield case, {"figures": measure()}

    tasks: Tasks = {}
    for seed, share in itertools.product(range(options.faults), LEAKS):  # the cheaper ones first
        case = f"{share} % of the images twice"
        tasks[f"{case} {seed}"] = partial(one, case, partial(score_leak, kept, seed, share))
    for seed in range(options.seeds):
        tasks[f"{CLEAN} {seed}"] = partial(one, CLEAN, partial(score_clean, kept, seed))
    for seed, kind in itertools.product(range(options.cascades), (OUT_OF_FOLD, IN_FOLD)):
        case = f"cascade, outputs {kind}"
        tasks[f"{case} {seed}"] = partial(one, case, partial(score_clean, kept, seed, kind))
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, SVR with C 100 and gamma .5:\n"
    yield "| | runs | rule | figure | lower end | upper end | undecided | fails |\n|" + "---|" * 8
    for case, runs in sorted(run(tasks).items()):
        found = [score_outcomes(each["figures"]) for each in runs]
        for rule in found[0]:
            ends = [[each["figures"][rule][key] for each in runs] for key in ("mean", "low", "high")]
            cells = [range_text([value for value in end if value is not None]) for end in ends]
            cells += [share_text(outcome_share(found, rule, name)) for name in ("undecided", "fail")]
            yield f"| {case} | {len(runs)} | `{rule}` | " + " | ".join(cells) + " |"
