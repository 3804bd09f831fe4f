"""Scores of a target of several values, or of classes with a polarity, for each arm."""

from __future__ import annotations

from typing import Any

import numpy as np

from affectdata.check import blocks
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import Interval
from affectdata.check.scores import Scoring, score_per_source
from affectdata.check.study_targets import StudyTarget
from affectdata.check.words import SKILL


def describe_target(target: StudyTarget | None) -> dict[str, Any]:
    """Return the block of a target as a field of the document; nothing for the recipe's."""
    if target is None or target.kind == "recipe":  # of studies
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
