"""Leaks between training and test images: exact checks of the splits, near duplicates, two tests by training.

The tests: a nearest neighbour scores R² .11–.17 on GAPED, and .72–.97 if copies were made before the split.
Shuffled labels cannot be learnt, unless an image is on both sides of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectdata.check import blocks, metrics
from affectdata.check.evaluate import Classes, cosines, most_similar
from affectdata.check.image_pool import Originals
from affectdata.check.prepare import Split
from affectdata.check.scores import Figure, Scoring, by_source
from affectdata.images.duplicates import hash_views

_LISTED = 10
_TYPICAL = 50  # training images for the cosine of a typical pair
_CELLS = 1 << 22  # distances held at once
_GUARANTEES = {  # a release that breaks the first two is refused earlier (`lineage.validate_release`)
    "lineage": "originals only in val and test; every copy has its image's split, group and labels",
    "encoding": "originals and copies were written by one encoder with one setting",
    "folds": "no arm of any split is trained on a group that it is scored on, or scored on a copy",
}


def check_structure(splits: Sequence[Split]) -> dict[str, blocks.StructureCheck]:
    """Return the problems of each part of the rule, and the text for a part without problems."""
    problems = []
    for number, split in enumerate(splits):
        if (split.test.copy > 0).any():
            problems.append(f"split {number} is scored on copies")
        for arm, train in split.arms.items():
            shared = np.intersect1d(train.group, split.test.group)
            if len(shared):
                problems.append(
                    f"split {number}: {arm} is trained on group {shared[0][:16]}, which is scored"
                )
    return {
        name: blocks.StructureCheck(problems=problems if name == "folds" else [], text=text)
        for name, text in _GUARANTEES.items()
    }


def describe_leak(
    scoring: Scoring,
    originals: Originals,
    classes: Classes | None,
    max_cosine: float,
    same_images: blocks.SameImages | None = None,
) -> blocks.Leak:
    """Return the most similar pairs, the nearest neighbour's score, and the score on shuffled labels.

    `classes` are those of a categorical target. In place of R², the nearest neighbour's score is then
    `above_chance`, and the score on shuffled labels is balanced accuracy.
    """
    return blocks.Leak(
        looks=_similar_by_hash(scoring, originals),
        features=_similar_by_features(scoring, originals, max_cosine),
        same_images=same_images,
        nearest=scoring.interval(_nearest_figure(scoring, classes)),
        shuffled=scoring.interval(_shuffled_figure(scoring, classes)),
    )


def _nearest_figure(scoring: Scoring, classes: Classes | None) -> Figure:
    def figure(number: int, rows: np.ndarray) -> float:
        test, predicted = scoring.splits[number].test.take(rows), scoring.evaluations[number].nearest[rows]
        if classes is None:
            return scoring.measure("skill" if scoring.target else "r2", test, predicted)
        true = classes.of(test)
        return by_source(test.source, lambda part: above_chance(true[part], predicted[part]))

    return figure


def above_chance(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the balanced accuracy above chance."""
    return metrics.above_chance(metrics.balanced_accuracy(true, predicted), true)


def _shuffled_figure(scoring: Scoring, classes: Classes | None) -> Figure:
    of_one = metrics.r2 if classes is None else metrics.balanced_accuracy
    measure = scoring.target.skill if scoring.target else of_one

    def figure(number: int, rows: np.ndarray) -> float:
        shuffled, source = scoring.evaluations[number].shuffled, scoring.splits[number].test.source[rows]
        if shuffled is None:
            return float("nan")
        true, predicted = (values[rows] for values in shuffled)
        return by_source(source, lambda part: measure(true[part], predicted[part]))

    return figure


def _similar_by_hash(scoring: Scoring, originals: Originals) -> blocks.Looks:
    """Return the pHash distance of each scored original to its nearest training one, over eight views."""
    views = hash_views(originals.table)
    pairs = []
    for split in scoring.splits[: scoring.n_first]:
        test, train = (originals.find(rows.image_id) for rows in (split.test, split.arms["originals"]))
        step = max(1, _CELLS // len(train))
        for start in range(0, len(test), step):
            block = test[start : start + step]
            distance = np.full((len(block), len(train)), 255, np.uint8)
            for view in range(views.shape[1]):
                of_view = np.bitwise_count(views[block, 0][:, None] ^ views[train, view][None])
                np.minimum(distance, of_view, out=distance)
            nearest = distance.argmin(1)
            pairs += [
                (int(bits), int(scored), int(train[index]))
                for scored, index, bits in zip(block, nearest, distance.min(1), strict=True)
            ]
    all_bits = np.array([bits for bits, _, _ in pairs])
    return blocks.Looks(
        least_bits=int(all_bits.min()),
        median_bits=float(np.median(all_bits)),
        counts={str(bound): int((all_bits <= bound).sum()) for bound in (0, 2, 4, 6, 8, 10)},
        pairs=[
            _pair(originals, scored, trained_on, bits=bits)
            for bits, scored, trained_on in sorted(pairs)[:_LISTED]
        ],
    )


def _similar_by_features(scoring: Scoring, originals: Originals, max_cosine: float) -> blocks.FeaturePairs:
    """Return the cosine of each scored original and its most similar training one, by features."""
    pairs = []
    for split in scoring.splits[: scoring.n_first]:
        train = split.arms["originals"]
        index, cosine = most_similar(split.test.features, train.features)
        scored, trained_on = originals.find(split.test.image_id), originals.find(train.image_id)[index]
        pairs += list(zip(cosine.tolist(), scored.tolist(), trained_on.tolist(), strict=True))
    once = {tuple(sorted(pair[1:])): pair for pair in pairs}  # two images may be most similar to each other
    pairs = sorted(once.values(), reverse=True)
    split = scoring.splits[0]
    typical = float(np.median(cosines(split.test.features, split.arms["originals"].features[:_TYPICAL])))
    # Features in which every pair is similar (random weights) are not informative.
    over = [pair for pair in pairs if pair[0] > max_cosine > typical]
    return blocks.FeaturePairs(
        bound=max_cosine,
        n_over=len(over),
        largest=pairs[0][0],
        typical=typical,
        pairs=[
            _pair(originals, scored, trained_on, cosine=round(value, 4))
            for value, scored, trained_on in over[:_LISTED]
        ],
    )


def _pair(originals: Originals, scored: int, trained_on: int, **similarity: Any) -> blocks.Pair:
    return blocks.Pair(scored=originals.name(scored), trained_on=originals.name(trained_on), **similarity)
