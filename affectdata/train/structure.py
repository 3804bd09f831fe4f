"""What can be proved without training: parents, splits, labels, files, and that no fold sees its test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectdata.train.prepare import Split

_HOLDS = {  # a release of which the first two do not hold was refused before (`release.require_sound`)
    "lineage": "originals only in val and test; every copy has its picture's split, group and labels",
    "encoding": "originals and copies came out of one encoder with one setting",
    "folds": "no arm of any split was trained on a group that it is scored on, or scored on a copy",
}


def check_structure(splits: Sequence[Split]) -> dict[str, Any]:
    """Return per part of the rule its problems, and what holds where there are none."""
    problems = []
    for number, split in enumerate(splits):
        if (split.test.copy > 0).any():
            problems.append(f"split {number} is scored on copies")
        for arm, train in split.arms.items():
            both = np.intersect1d(train.group, split.test.group)
            if len(both):
                problems.append(f"split {number}: {arm} was trained on group {both[0][:16]}, which is scored")
    return {
        name: {"problems": problems if name == "folds" else [], "text": text} for name, text in _HOLDS.items()
    }
