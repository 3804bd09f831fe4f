"""Versions of one image on both sides of a split (`train.look_alikes`).

Candidates are the five most similar training originals of each scored original, by features.
"""

from __future__ import annotations

import numpy as np

from affectdata.check import blocks
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.prepare import CheckInput, Split
from affectdata.train.images import Progress
from affectdata.train.look_alikes import nearest_pairs, prove_pairs
from affectdata.train.rows import Rows

_LISTED = 10


def find_same_images(
    prepared: CheckInput, workers: int = 1, progress: Progress | None = None
) -> blocks.SameImages:
    """Return the pairs across a split that are one image: the release's own, and the first folds."""
    originals = prepared.originals
    splits = [*prepared.crossfit[: prepared.n_first], *([prepared.heldout] if prepared.heldout else [])]
    pairs = np.concatenate([_candidates(prepared, split) for split in splits])
    scored = {(min(pair), max(pair)): pair[0] for pair in pairs.tolist()}
    found = prove_pairs(
        pairs,
        originals.table["image_id"].to_pylist(),
        prepared.read_original,
        prepared.cache,
        workers,
        progress,
    )
    name = originals.name
    listed = []
    for pair in found[:_LISTED]:
        first = scored[pair.rows]
        second = pair.rows[1] if pair.rows[0] == first else pair.rows[0]
        listed.append(
            blocks.SameImage(
                scored=name(first), trained_on=name(second), inliers=pair.inliers, mirrored=pair.mirrored
            )
        )
    return blocks.SameImages(n_compared=len(scored), n_same=len(found), pairs=listed)


def _candidates(prepared: CheckInput, split: Split) -> np.ndarray:
    """Return pairs of rows of `prepared.originals`: a scored one, and a similar one that is trained on."""
    arms = [split.arms[name] for name in (ORIGINALS, RELEASE) if name in split.arms]
    train = Rows.concat([rows.take(rows.copy == 0) for rows in arms])
    train = train.take(np.unique(train.image_id, return_index=True)[1])
    test, find = split.test, prepared.originals.find
    pairs = nearest_pairs(test.features, train.features, test.group, train.group)
    return np.column_stack([find(test.image_id[pairs[:, 0]]), find(train.image_id[pairs[:, 1]])])
