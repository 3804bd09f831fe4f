"""Rules labels.* for check_power.py: clean assignments and subsets, then faults in the ratings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

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
from _power_rules import label_outcomes

from affectdata.check import influence, label_model, label_rules, metrics
from affectdata.check.blocks import LabelFigures
from affectdata.check.label_rules import (
    EXPECTED_R2,
    N_ASSIGNMENTS,
    describe_fit,
    folders_in_order,
    label_columns,
    move_ratings,
    permute_within,
    predict_by,
    predict_by_assignment,
)
from affectdata.registry import load_plugin
from affectdata.train.rows import Rows

MEASURES = (label_model, label_rules, influence, metrics)
LABEL_FAULTS = (
    *(f"{share} % shuffled" for share in (5, 10, 25, 50, 100)),
    "shuffled inside subtypes",
    *(f"every folder {offset:+d} rows off" for offset in (1, 2)),
    "one folder +1 rows off",
    *(f"a line lost at {share} %" for share in (25, 50, 75)),
    *(f"two subtypes {share} % exchanged" for share in (20, 50, 100)),
    *(f"one subtype {points:+d}" for points in (5, 10)),
    "reversed",
    *(f"{share} % single errors" for share in (2, 5)),
)
_HALF = "50 % shuffled"
WITHOUT_SHEET = ("labels.order", "labels.r2", "labels.within")  # rules that need no data sheet
_SUBSETS = (("subsets of 500, ", 500), ("subsets of 250, ", 250))


def plant_in_labels(fault: str, rows: Rows, paths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the ratings with a fault of `LABEL_FAULTS`."""
    number = abs(int(re.sub(r"[^-\d]", "", fault) or 0))
    target = rows.target.copy()
    if fault.endswith("% shuffled"):
        return shuffle(target, number / 100, rng)
    if fault == "shuffled inside subtypes":
        return permute_within(target, rows.subtype, 1, int(rng.integers(1 << 30)))[:, 0]
    if "rows off" in fault:
        folders = folders_in_order(paths)
        moved = folders if fault.startswith("every") else [folders[int(rng.integers(len(folders)))]]
        return move_ratings(target, moved, number)
    if "line lost" in fault:
        place, folders = np.zeros(len(target)), folders_in_order(paths)
        for inside in folders:
            place[inside] = np.arange(len(inside)) / len(inside)
        return np.where(place >= number / 100, move_ratings(target, folders, -1), target)
    if "exchanged" in fault:
        return _exchange(target, rows.subtype, number / 100, rng)
    if fault.startswith("one subtype"):
        subtype = rng.choice(np.unique(rows.subtype))
        return np.clip(target + np.where(rows.subtype == subtype, number, 0), 0, 100)
    if fault == "reversed":
        return 100 - target
    wrong = rng.random(len(target)) < number / 100
    return np.where(wrong, rng.permutation(target), target)


def shuffle(target: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    chosen = np.flatnonzero(rng.random(len(target)) < share)
    shuffled = target.copy()
    shuffled[chosen] = target[rng.permutation(chosen)]
    return shuffled


def _exchange(target: np.ndarray, subtypes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Exchange ratings between the subtype of the highest mean and a random other one."""
    names = np.unique(subtypes)
    first = names[np.argmax([target[subtypes == name].mean() for name in names])]
    second = rng.choice(names[names != first])
    sides = [rng.permutation(np.flatnonzero(subtypes == name)) for name in (first, second)]
    n = round(share * min(len(side) for side in sides))
    left, right = (side[:n] for side in sides)
    exchanged = target.copy()
    exchanged[left], exchanged[right] = target[right], target[left]
    return exchanged


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure the rules: clean assignments and subsets, then each fault on assignments of its own."""
    rows, counts = kept.plain, _counts(kept)
    others = [other for other in every if other is not kept]
    predictions = {other.name: predict_by(other.plain, rows) for other in others}

    def measure(name: str, part: np.ndarray, targets: dict[str, np.ndarray], seed: int) -> Iterator[Case]:
        some, paths = rows.take(part), kept.path[part]
        columns = [label_columns(target, some.subtype, paths, seed) for target in targets.values()]
        predicted = predict_by_assignment(some, np.hstack(columns), N_ASSIGNMENTS * seed)
        predicted = np.split(predicted, len(targets), axis=2)
        anchors = {key: (values[part], 0) for key, values in predictions.items()}
        for (fault, target), own, fitted in zip(targets.items(), columns, predicted, strict=True):
            faulty = replace(some, target=target)
            found = describe_fit(own, fitted, faulty, paths, anchors, counts, None)
            yield name + fault, {"labels": found.to_dict()}

    def clean(seed: int) -> Iterator[Case]:
        yield from measure("", np.arange(len(rows)), {CLEAN: rows.target}, seed)
        rng = np.random.default_rng([1, seed])
        for name, n in (("subsets of 4/5, ", round(0.8 * len(rows))), *_SUBSETS):
            part = np.sort(rng.permutation(len(rows))[:n])
            halved = plant_in_labels(_HALF, rows.take(part), kept.path[part], rng)
            yield from measure(name, part, {CLEAN: rows.target[part], _HALF: halved}, seed)

    def faults(seed: int) -> Iterator[Case]:
        rng = np.random.default_rng([2, seed])
        planted = {fault: plant_in_labels(fault, rows, kept.path, rng) for fault in LABEL_FAULTS}
        yield from measure("", np.arange(len(rows)), planted, 1000 + seed)

    tasks: Tasks = {f"clean {seed}": partial(clean, seed) for seed in range(options.seeds)}
    tasks |= {f"faults {seed}": partial(faults, seed) for seed in range(options.faults)}
    yield from _label_table(kept, run(tasks))


def _label_table(kept: KeptFeatures, by_case: dict[str, list[Record]]) -> Iterator[str]:
    figures = {case: [_figures(kept, run) for run in runs] for case, runs in by_case.items()}
    outcomes = {case: [label_outcomes(run) for run in runs] for case, runs in figures.items()}
    rules = list(outcomes[CLEAN][0])
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}:\n"
    yield "| | runs | " + " | ".join(f"`{rule}`" for rule in rules) + " | any | any without a data sheet |"
    yield "|---|---|" + "---|" * (len(rules) + 2)
    for name, runs in outcomes.items():
        shares = [outcome_share(runs, rule) for rule in rules]
        shares.append(float(np.mean(["fail" in run.values() for run in runs])))
        no_sheet = ["fail" in {run.get(rule) for rule in WITHOUT_SHEET} for run in runs]
        shares.append(float(np.mean(no_sheet)))
        yield f"| {name} | {len(runs)} | " + " | ".join(share_text(share) for share in shares) + " |"
    yield "\n| | R² | lower end | r within | z | margin | anchor's r | listed |\n|" + "---|" * 8
    for name, runs in figures.items():
        anchors = [figure.mean or 0.0 for run in runs for figure in run.anchor.values()]
        columns = [
            [run.r2.mean or 0.0 for run in runs],
            [run.r2.low or 0.0 for run in runs],
            [run.r_within or 0.0 for run in runs],
            [run.z or 0.0 for run in runs],
            [run.margin or 0.0 for run in runs],
            anchors,
            [float(len(run.suspicious)) for run in runs],
        ]
        yield f"| {name} | " + " | ".join(range_text(values) for values in columns) + " |"


def _counts(kept: KeptFeatures) -> dict[str, np.ndarray]:
    subtypes = load_plugin("sources", kept.name).INFO.subtypes
    return {name: np.array(subtype.counts["valence"]) for name, subtype in subtypes.items()}


def _expected(kept: KeptFeatures) -> float | None:
    return EXPECTED_R2.get((kept.name, "valence", kept.backbone.content[:12]))


def _figures(kept: KeptFeatures, record: Record) -> LabelFigures:
    """Return the figures of a run, with the expected R² of the whole data set."""
    found = LabelFigures.model_validate(record["labels"])
    is_whole = found.n == len(kept.plain)
    return found.model_copy(update={"expected_r2": _expected(kept) if is_whole else None})
