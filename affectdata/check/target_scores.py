"""Scores of a target of several values, or of classes with a polarity, for each arm."""

from __future__ import annotations

from typing import Any

import numpy as np

from affectdata.check import blocks
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import Interval
from affectdata.check.scores import (
    LEAST_SUBGROUP,
    Scoring,
    groups_of,
    mean_interval,
    score_per_source,
)
from affectdata.check.study_targets import StudyTarget
from affectdata.check.words import SKILL
from affectdata.train.rows import Rows


def describe_target(target: StudyTarget | None) -> dict[str, Any]:
    """Return the block of a target as a field of the document; nothing for the recipe's."""
    if target is None or target.kind == "recipe":
        return {}
    block = blocks.TargetBlock(
        kind=target.kind, name=target.name, outputs=list(target.outputs), skill=target.skill_name
    )
    return {"target": block}


def score_target(scoring: Scoring, target: StudyTarget, arm: str) -> blocks.TargetScores:
    """Return every measure of one arm, figures per source, and the table of labels or the confusion."""
    test, predicted = scoring.tests(), scoring.values(arm)
    measures: dict[str, Any] = {}
    for name in scoring.measures:
        figure = scoring.figure(name, arm)
        splits = [figure(number, np.arange(len(split.test))) for number, split in enumerate(scoring.splits)]
        # Rules need the interval of the skill; nobody reads a bootstrap of every measure of every arm.
        known = len(splits) > 1 or (name == SKILL and arm in (RELEASE, ORIGINALS))
        over = scoring.interval(figure) if known else Interval(mean=splits[0], low=None, high=None)
        pooled = scoring.measure(name, test, predicted)
        measures[name] = blocks.Figure(**over.to_dict(), splits=splits, pooled=pooled)
    true, details = target.true(test), dict[str, Any]()
    if "labels" in target.details:
        rows = target.details["labels"](true, predicted)
        details["labels"] = [blocks.LabelOfSets(**row) for row in rows]
    if "confusion" in target.details:
        n = [row["n"] for row in target.details["confusion"](true, predicted)]
        details["confusion"] = np.reshape(n, (len(target.outputs), -1)).tolist()
    per_source = score_per_source(scoring, {name: scoring.figure(name, arm) for name in scoring.measures})
    return blocks.TargetScores(per_source=per_source, **details, **measures)


def score_target_subgroups(
    values: np.ndarray, test: Rows, errors: np.ndarray, measure: Any, seed: int, estimated: list[str]
) -> blocks.Subgroups:
    """Return the mean of `errors`, which are per image, by value of a column; as `scores.score_subgroups`."""
    sizes = {name: int(rows.sum()) for name, rows in groups_of(values) if name}
    found = {
        name: mean_interval(errors[values == name], test.take(values == name), seed)
        for name, n in sizes.items()
        if n >= LEAST_SUBGROUP
    }
    means = [float(errors[values == name].mean()) for name in found]
    return blocks.Subgroups(
        measure=measure,
        groups={
            name: blocks.Subgroup.model_validate({"n": sizes[name], measure: mean, "interval": interval})
            for (name, interval), mean in zip(found.items(), means, strict=True)
        },
        gap=max(means) - min(means) if means else None,
        too_few={name: n for name, n in sizes.items() if n < LEAST_SUBGROUP},
        estimated=estimated,
    )
