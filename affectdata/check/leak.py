"""Has the test been seen? What can be proved of the splits, look-alikes across their sides, two canaries.

A nearest neighbour that knows no more than "I have seen this" scores R² .11–.17 on GAPED, and .72–.97 where
copies were made before the split. Shuffled labels cannot be learnt, unless an image is on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectdata.check import metrics
from affectdata.check.evaluate import Classes, cosines, most_similar
from affectdata.check.image_pool import Originals
from affectdata.check.prepare import Split
from affectdata.check.scores import Scoring, by_source
from affectdata.images.duplicates import hash_views

_LISTED = 10
_ANY = 50  # training images that stand for any
_CELLS = 1 << 22  # distances held at once
_HOLDS = {  # a release of which the first two do not hold was refused before (`lineage.require_sound`)
    "lineage": "originals only in val and test; every copy has its image's split, group and labels",
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


def describe_leak(
    scoring: Scoring, originals: Originals, classes: Classes | None, max_cosine: float
) -> dict[str, Any]:
    """Return the pairs that look alike, the nearest neighbour's score, and that of shuffled labels.

    `classes` are those of a target that is no number. In place of R², the nearest neighbour's score is then
    how far balanced accuracy is above chance, 0–1, and that of shuffled labels is balanced accuracy.
    """
    return {
        "looks": _similar_by_hash(scoring, originals),
        "features": _similar_by_features(scoring, originals, max_cosine),
        "nearest": scoring.interval(_nearest_figure(scoring, classes)),
        "shuffled": scoring.interval(_shuffled_figure(scoring, classes)),
    }


def _nearest_figure(scoring: Scoring, classes: Classes | None) -> Any:
    def of(at: int, rows: np.ndarray) -> float:
        test, said = scoring.splits[at].test.take(rows), scoring.evaluations[at].nearest[rows]
        if classes is None:
            return scoring.measure("r2", test, said)
        true = classes.of(test)
        return by_source(test.source, lambda part: above_chance(true[part], said[part]))

    return of


def above_chance(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return balanced accuracy as a share of the way from chance to 1."""
    chance = metrics.chance(true)
    return (
        (metrics.balanced_accuracy(true, predicted) - chance) / (1 - chance) if chance < 1 else float("nan")
    )


def _shuffled_figure(scoring: Scoring, classes: Classes | None) -> Any:
    measure = metrics.r2 if classes is None else metrics.balanced_accuracy

    def of(at: int, rows: np.ndarray) -> float:
        found, source = scoring.evaluations[at].shuffled, scoring.splits[at].test.source[rows]
        if found is None:
            return float("nan")
        true, predicted = (each[rows] for each in found)
        return by_source(source, lambda part: measure(true[part], predicted[part]))

    return of


def _similar_by_hash(scoring: Scoring, originals: Originals) -> dict[str, Any]:
    """Return pHash distances, over eight views, of scored originals to the most alike one trained on."""
    views = hash_views(originals.table)
    pairs = []
    for split in scoring.splits[: scoring.n_first]:
        test, train = (originals.find(rows.image_id) for rows in (split.test, split.arms["originals"]))
        step = max(1, _CELLS // len(train))
        for start in range(0, len(test), step):
            block = test[start : start + step]
            distance = np.full((len(block), len(train)), 255, np.uint8)
            for view in range(views.shape[1]):
                each = np.bitwise_count(views[block, 0][:, None] ^ views[train, view][None])
                np.minimum(distance, each, out=distance)
            nearest = distance.argmin(1)
            pairs += [
                (int(bits), int(one), int(train[at]))
                for one, at, bits in zip(block, nearest, distance.min(1), strict=True)
            ]
    bits = np.array([each[0] for each in pairs])
    return {
        "least_bits": int(bits.min()),
        "median_bits": float(np.median(bits)),
        "counts": {str(bound): int((bits <= bound).sum()) for bound in (0, 2, 4, 6, 8, 10)},
        "pairs": [_pair(originals, one, other, bits=bits) for bits, one, other in sorted(pairs)[:_LISTED]],
    }


def _similar_by_features(scoring: Scoring, originals: Originals, max_cosine: float) -> dict[str, Any]:
    """Return for the scored originals the cosine of the features of the most alike training one."""
    pairs = []
    for split in scoring.splits[: scoring.n_first]:
        train = split.arms["originals"]
        at, cosine = most_similar(split.test.features, train.features)
        scored, trained_on = originals.find(split.test.image_id), originals.find(train.image_id)[at]
        pairs += list(zip(cosine.tolist(), scored.tolist(), trained_on.tolist(), strict=True))
    once = {tuple(sorted(each[1:])): each for each in pairs}  # a pair may be each other's most alike
    pairs = sorted(once.values(), reverse=True)
    split = scoring.splits[0]
    typical = float(np.median(cosines(split.test.features, split.arms["originals"].features[:_ANY])))
    # Features that find everything alike (random weights) tell nothing.
    over = [each for each in pairs if each[0] > max_cosine > typical]
    return {
        "bound": max_cosine,
        "n_over": len(over),
        "largest": pairs[0][0],
        "typical": typical,
        "pairs": [
            _pair(originals, one, other, cosine=round(value, 4)) for value, one, other in over[:_LISTED]
        ],
    }


def _pair(originals: Originals, one: int, other: int, **how: Any) -> dict[str, Any]:
    names = [f"{each['source']}: {each['path']}" for each in originals.table.take([one, other]).to_pylist()]
    return {"scored": names[0], "trained_on": names[1], **how}
