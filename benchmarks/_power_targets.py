"""Rules over other targets for check_power.py: points, label sets, shares, classes with a polarity.

Sets, shares and classes are made from the ratings of valence and arousal, so that the features are those of
real images. Heads have fixed settings, near those that the inner search chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
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
from _power_labels import WITHOUT_SHEET
from _power_rules import label_outcomes, score_outcomes
from _power_scores import LEAKS, folds_of, twice
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from affectdata.check import label_model, label_rules, leak, scores, study_targets, target_arms
from affectdata.check.arms import ORIGINALS
from affectdata.check.blocks import LabelFigures
from affectdata.check.label_rules import describe_values, folders_in_order
from affectdata.check.leak import _nearest_figure, _shuffled_figure
from affectdata.check.prepare import Split
from affectdata.check.scores import Scoring
from affectdata.check.study_targets import Predict, StudyTarget, find_target
from affectdata.check.target_arms import EvaluateTarget
from affectdata.recipe.target import TargetSpec
from affectdata.train import heads, svr
from affectdata.train.heads import N_FOLDS, FrozenHeads
from affectdata.train.losses import least_cost_scores
from affectdata.train.rows import Rows
from affectdata.train.svr import RbfSVR

MEASURES = (label_model, label_rules, leak, scores, study_targets, target_arms, heads, svr)
KINDS = ("numbers", "multi", "shares", "polarity")


AROUSAL = "arousal "  # beginning of the faults that only points have, in the second column


FAULTS = (
    *("every folder +1 rows off", "50 % exchanged", "100 % exchanged"),
    *(AROUSAL + fault for fault in ("every folder +1 rows off", "50 % exchanged")),
)


_LOW, _HIGH = 40.0, 60.0  # valence of unpleasant and of pleasant images


_CUTS = (100 / 3, 200 / 3)  # between raters who find an image unpleasant, neutral and pleasant


_C, _GAMMA, _EPSILON, _C_OF_CLASSES = 100.0, 0.5, 3.0, 0.01


_AGAIN = "-again"


def make_target(kept: KeptFeatures, kind: str) -> StudyTarget:
    """Return a target of all originals, with heads of fixed settings."""
    table = kept.originals.table
    valence, arousal, sd = (
        np.array(table[name].to_pylist(), float) for name in ("valence", "arousal", "valence_sd")
    )
    below = [norm.cdf(cut, valence, np.maximum(sd, 1.0)) for cut in _CUTS]
    shares = {"unpleasant": below[0], "neutral": below[1] - below[0], "pleasant": 1 - below[1]}
    code = np.digitize(valence, [_LOW, _HIGH])
    classes = ["negative", "neutral", "positive"]
    flags = {"unpleasant": code == 0, "pleasant": code == 2, "arousing": arousal > np.median(arousal)}
    sets = ["+".join(name for name, flag in flags.items() if flag[row]) for row in range(len(table))]
    for name, values in {"label": sets, **{f"emotion_{name}": each for name, each in shares.items()}}.items():
        table = table.drop_columns(name) if name in table.column_names else table
        table = table.append_column(name, pa.array(values))
    table = table.select(
        [name for name in table.column_names if name[:8] != "emotion_" or name[8:] in shares]
    )
    originals = replace(kept.originals, table=table)
    if kind == "polarity":
        originals = replace(originals, edges=None, labels=classes, bin=code)
    spec = {"numbers": ["valence", "arousal"], "multi": "label", "shares": True, "polarity": True}[kind]
    target = find_target(originals, "valence", TargetSpec.model_validate({kind: spec}))
    return replace(target, fit=partial(_fit, target), originals=_Twice(originals))


@dataclass(frozen=True)
class _Twice:
    """Finds the originals, also by the names of those that are there twice."""

    originals: Any

    def find(self, image_ids: Any) -> np.ndarray:
        return np.asarray(self.originals.find(name.removesuffix(_AGAIN) for name in image_ids))


def _fit(target: StudyTarget, train: Rows, true: np.ndarray, _: str | None, seed: int) -> Predict:
    scaler = StandardScaler().fit(train.features)
    x = scaler.transform(train.features).astype(np.float32)
    if target.kind == "numbers":
        heads = [
            RbfSVR(C=_C, gamma=_GAMMA / x.shape[1], epsilon=_EPSILON).fit(x, column) for column in true.T
        ]
        return lambda rows: np.column_stack([head.predict(scaler.transform(rows.features)) for head in heads])
    if target.kind == "multi":
        fitted = [_logistic(x, column) for column in true.T]
        return lambda rows: np.column_stack(
            [head.predict_proba(scaler.transform(rows.features))[:, 1] for head in fitted]
        )
    row, label = np.nonzero(true)
    head = _logistic(x[row], label, true[row, label])

    def predict(rows: Rows) -> np.ndarray:
        shares = np.asarray(head.predict_proba(scaler.transform(rows.features)))
        return least_cost_scores(shares, np.array(target.signs)) if target.signs else shares

    return predict


def _logistic(x: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> LogisticRegression:
    return LogisticRegression(C=_C_OF_CLASSES, max_iter=300, tol=1e-2).fit(x, labels, sample_weight=weight)


def plant(fault: str, target: StudyTarget, kept: KeptFeatures, rng: np.random.Generator) -> StudyTarget:
    """Return the target with a fault in its values: all of an image move together, or arousal alone."""
    order, name = np.arange(len(target.values)), fault.removeprefix(AROUSAL)
    if name.endswith("rows off"):
        offset = int(name.split()[2])
        for inside in folders_in_order(kept.path):
            order[inside] = np.roll(order[inside], offset)
    elif name.endswith("exchanged"):
        chosen = rng.permutation(len(order))[: round(int(name.split()[0]) / 100 * len(order))]
        order[chosen] = order[rng.permutation(chosen)]
    values = target.values[order]
    if fault.startswith(AROUSAL):
        values = np.column_stack([target.values[:, 0], values[:, 1]])
    return replace(target, values=values)


def measure_target(kept: KeptFeatures, kind: str, fault: str, seed: int) -> dict[str, Any]:
    """Return the figures of one run: those of the scores, and those of the labels by name."""
    target, rng, rows = make_target(kept, kind), np.random.default_rng([11, seed]), kept.plain
    if fault.endswith("twice"):
        rows = twice(kept, rng, int(fault.split()[0]))
    else:
        target = plant(fault, target, kept, rng)
    splits = [
        Split(
            {ORIGINALS: rows.take(np.flatnonzero(fold != number))}, rows.take(np.flatnonzero(fold == number))
        )
        for fold in folds_of(rows, seed)
        for number in range(N_FOLDS)
    ]
    evaluate = EvaluateTarget(target, FrozenHeads(seed))
    evaluations = [evaluate(split) for split in splits]
    scoring = Scoring(splits, evaluations, N_FOLDS, [0, 100], np.zeros(1, bool), target=target)
    skill = scoring.interval(scoring.figure("skill", ORIGINALS))
    figures = {
        "leak.nearest": scoring.interval(_nearest_figure(scoring, None)),
        "leak.shuffled": scoring.interval(_shuffled_figure(scoring, None)),
        "learns.above_shuffled": skill,
    }
    if kind == "numbers":
        figures["leak.too_good"] = skill
    labels = {} if fault.endswith("twice") else dict(_labels(kept, target, seed))
    return {"figures": {name: each.to_dict() for name, each in figures.items()}, "labels": labels}


def _labels(kept: KeptFeatures, target: StudyTarget, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    by_name: Mapping[str, np.ndarray] = {
        "numbers": {"valence": target.values[:, :1], "arousal": target.values[:, 1:]},
        "multi": {"sets": target.values},
        "shares": {"shares": target.values},
    }.get(target.kind, {})
    for name, values in by_name.items():
        found = describe_values(kept.plain, np.asarray(values, float), kept.path, 3 * seed)
        yield name, found.to_dict()


def faults_of(kind: str) -> list[str]:
    """Return the names of the faults that are planted in a kind of target."""
    known = [*FAULTS, *(f"{share} % of the images twice" for share in LEAKS)]
    return [fault for fault in known if kind == "numbers" or not fault.startswith(AROUSAL)]


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure the rules on OASIS."""
    if kept.name != "oasis":
        return

    def one(kind: str, fault: str, seed: int) -> Iterator[Case]:
        yield f"{kind}, {fault}", measure_target(kept, kind, fault, seed)

    planned = [(kind, CLEAN, seed) for seed in range(options.seeds) for kind in KINDS]
    planned += [
        (kind, fault, seed) for seed in range(options.faults) for kind in KINDS for fault in faults_of(kind)
    ]
    tasks: Tasks = {" ".join(map(str, each)): partial(one, *each) for each in planned}
    runs = run(tasks)
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, heads with fixed settings:\n"
    names = ("learns.above_shuffled", "leak.nearest", "leak.too_good", "leak.shuffled")
    rules = (*names, "labels.order", "labels.within", "labels.r2")
    yield "| | runs | skill | " + " | ".join(f"`{rule}`" for rule in rules) + " | any |"
    yield "|---|" + "---|" * (len(rules) + 3)
    for case in (f"{kind}, {fault}" for kind in KINDS for fault in (CLEAN, *faults_of(kind))):
        found = [_target_outcomes(case, run) for run in runs.get(case, [])]
        if not found:
            continue
        skills = [run["figures"]["learns.above_shuffled"]["mean"] for run in runs[case]]
        cells = [share_text(outcome_share(found, rule)) for rule in rules]
        failed = share_text(float(np.mean(["fail" in each.values() for each in found])))
        yield f"| {case} | {len(found)} | {range_text(skills)} | " + " | ".join(cells) + f" | {failed} |"


def _target_outcomes(case: str, run: Record) -> dict[str, str]:
    """Return the outcome of each rule: the worst over the columns of points."""
    found = score_outcomes(run["figures"], case.split(",")[0], "skill")
    for figures in run["labels"].values():
        of_labels = label_outcomes(LabelFigures.model_validate(figures))
        found |= {
            rule: "fail" if "fail" in (found.get(rule), of_labels[rule]) else of_labels[rule]
            for rule in WITHOUT_SHEET
            if rule in of_labels
        }
    return found
