"""Prediction shift: how far a prediction moves when a pipeline or transform is applied to an untouched image.

The ordinary test cannot see a shortcut: blurred copies on one side of the scale shift the prediction for
blurred test images by nine points, while R² on untouched ones stays the same (measured on GAPED).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from affectdata.check import blocks
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import Interval
from affectdata.check.metrics import pearson_r
from affectdata.check.probes import DRAW, EFFECT, FLIP
from affectdata.check.scores import Scoring, corrected_interval

MIDDLE = 50.0  # POMP units: the neutral point between the two sides
SIDES = {"all": (-np.inf, np.inf), "low": (-np.inf, MIDDLE), "high": (MIDDLE, np.inf)}
# pleasure = .69 Y + .22 S: Valdez and Mehrabian (1994), J. Exp. Psych. Gen. 123
_Y_WEIGHT, _S_WEIGHT = 0.69, 0.22


def describe_shift(scoring: Scoring) -> dict[str, blocks.Shift]:
    """Return by pipeline how far it shifts the release's prediction relative to that of the originals' model.

    In POMP units, mean over the test images: all, those below and above the middle of the scale, and per
    bin. `n_test / n_train` corrects the interval as for scores.
    """
    names = sorted({name for split in scoring.splits for name in split.probes if name.startswith(DRAW)})
    return {name.removeprefix(DRAW): _describe_pipeline(scoring, name) for name in names}


def _describe_pipeline(scoring: Scoring, name: str) -> blocks.Shift:
    by_split = [_excess_shifts(scoring, number, name) for number in range(len(scoring.splits))]
    n_test = float(np.mean([len(split.test) for split in scoring.splits]))
    n_train = float(np.mean([len(split.arms[ORIGINALS]) for split in scoring.splits]))
    sides = {
        side: corrected_interval(
            [_mean(excess[(target >= low) & (target < high)]) for target, _, excess in by_split],
            n_test,
            n_train,
        )
        for side, (low, high) in SIDES.items()
    }
    bins, excess = (np.concatenate([arrays[column] for arrays in by_split]) for column in (1, 2))
    per_bin = [_mean(excess[bins == number]) for number in range(len(scoring.edges) - 1)]
    return blocks.Shift(**sides, per_bin=per_bin, mean_abs=float(np.mean(np.abs(excess))))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _excess_shifts(scoring: Scoring, number: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return target, bin and excess shift of each probe image of one split."""
    by_arm = {arm: prediction_shifts(scoring, number, name, arm) for arm in (RELEASE, ORIGINALS)}
    rows = scoring.splits[number].probes.get(name)
    if rows is None:
        return np.empty(0), np.empty(0, np.int64), np.empty(0)
    return rows.target, rows.stratum, by_arm[RELEASE] - by_arm[ORIGINALS]


def prediction_shifts(scoring: Scoring, number: int, name: str, arm: str) -> np.ndarray:
    """Return how far an arm's prediction shifts for each probe image of a split, in POMP units."""
    split, result = scoring.splits[number], scoring.evaluations[number].arms[arm]
    if name not in split.probes:
        return np.empty(0)
    row_of = {image_id: row for row, image_id in enumerate(split.test.image_id.tolist())}
    rows = np.array([row_of[image_id] for image_id in split.probes[name].image_id.tolist()], np.int64)
    return np.asarray(result.probes[name] - result.values["regressor"][rows])


def describe_effects(scoring: Scoring) -> dict[str, blocks.Effect]:
    """Return by transform how far it shifts the prediction of the originals' model, relative to a flip.

    `of_flip` is its mean absolute shift divided by that of a flip on the same images. The interval is over
    groups of images; it does not cover the variation between training sets.
    """
    first = range(scoring.n_first)
    flips: dict[str, float] = {}
    for number in first:
        rows = scoring.splits[number].probes.get(FLIP)
        if rows is not None:
            shifts = prediction_shifts(scoring, number, FLIP, ORIGINALS)
            flips |= dict(zip(rows.image_id.tolist(), shifts.tolist(), strict=True))
    names = {name for number in first for name in scoring.splits[number].probes if name.startswith(EFFECT)}
    return {name.removeprefix(EFFECT): _effect(scoring, name, flips) for name in sorted(names - {FLIP})}


def _effect(scoring: Scoring, name: str, flips: Mapping[str, float]) -> blocks.Effect:
    image_ids, groups, targets, shifts = [], [], [], []
    for number in range(scoring.n_first):
        rows = scoring.splits[number].probes.get(name)
        if rows is not None:
            image_ids += rows.image_id.tolist()
            groups += rows.group.tolist()
            targets.append(rows.target)
            shifts.append(prediction_shifts(scoring, number, name, ORIGINALS))
    shift, target = np.concatenate(shifts), np.concatenate(targets)
    flip_shift = np.array([flips[image_id] for image_id in image_ids])
    code = np.unique(groups, return_inverse=True)[1]
    by_group = [np.bincount(code, np.abs(values)) for values in (shift, flip_shift)]
    return blocks.Effect(
        n=len(shift),
        mean_abs=float(np.abs(shift).mean()),
        of_flip=_ratio(*by_group),
        low=_mean(shift[target < MIDDLE]),
        high=_mean(shift[target >= MIDDLE]),
    )


def _ratio(above: np.ndarray, below: np.ndarray) -> Interval:
    """Return the ratio of two sums over the same independent groups, and its 95 % interval.

    By the delta method on the logarithm: var(log a/b) = var(a)/a² + var(b)/b² - 2 cov(a, b)/ab.
    """
    a, b, n = above.mean(), below.mean(), len(above)
    if not a > 0 or not b > 0 or n < 2:
        return Interval(mean=None, low=None, high=None)
    (va, c), (_, vb) = np.cov(above, below) / n
    reach = stats.norm.ppf(0.975) * np.sqrt(max(0.0, va / a**2 + vb / b**2 - 2 * c / (a * b)))
    ratio = a / b
    return Interval(mean=float(ratio), low=float(ratio * np.exp(-reach)), high=float(ratio * np.exp(reach)))


def affect_of_look(drift: Mapping[str, Any]) -> dict[str, float]:
    """Return by pipeline how far its copies shift pleasure through luminance and saturation, in POMP units.

    `drift` is that of release.json, in percent. A network that was trained to ignore brightness and colour
    cannot measure this effect, and people cannot ignore them.
    """
    return {
        name: _Y_WEIGHT * change["luminance"]["mean_abs"] + _S_WEIGHT * change["saturation"]["mean_abs"]
        for name, change in drift.get("by_pipeline", {}).items()
    }


def copies_and_target(is_copy: np.ndarray, target: np.ndarray) -> float:
    """Return the correlation of "is a copy" with the target: how useful a shortcut could be."""
    return pearson_r(is_copy.astype(float), target)
