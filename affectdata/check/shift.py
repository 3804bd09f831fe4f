"""What a model makes of the look of copies: how far a prediction moves when an untouched image is drawn.

Blurred copies on one side of the scale move the prediction for blurred test images by nine points, while
R² on untouched ones stays as it is (measured on GAPED): the ordinary test cannot see a shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.metrics import pearson_r
from affectdata.check.probes import DRAW, EFFECT, FLIP
from affectdata.check.scores import Scoring, corrected_interval

MIDDLE = 50.0  # POMP units: the neutral point between the two sides
SIDES = {"all": (-np.inf, np.inf), "low": (-np.inf, MIDDLE), "high": (MIDDLE, np.inf)}
_Y_WEIGHT, _S_WEIGHT = (
    0.69,
    0.22,
)  # pleasure = .69 Y + .22 S: Valdez and Mehrabian (1994), J. Exp. Psych. Gen. 123


def describe_shift(scoring: Scoring) -> dict[str, Any]:
    """Return by pipeline how far a draw moves the release's prediction beyond that of the originals' model.

    In POMP units, mean over the test images: all, those below and above the middle of the scale, and per
    bin. `n_test / n_train` corrects the interval as for scores.
    """
    names = sorted({name for split in scoring.splits for name in split.probes if name.startswith(DRAW)})
    return {name.removeprefix(DRAW): _excess(scoring, name) for name in names}


def _excess(scoring: Scoring, name: str) -> dict[str, Any]:
    moved = [_excess_shifts(scoring, at, name) for at in range(len(scoring.splits))]
    n_test = float(np.mean([len(split.test) for split in scoring.splits]))
    n_train = float(np.mean([len(split.arms[ORIGINALS]) for split in scoring.splits]))
    sides = {
        side: corrected_interval(
            [_mean(excess[(y >= a) & (y < b)]) for y, _, excess in moved], n_test, n_train
        )
        for side, (a, b) in SIDES.items()
    }
    bins, excess = (np.concatenate([each[at] for each in moved]) for at in (1, 2))
    per_bin = [_mean(excess[bins == each]) for each in range(len(scoring.edges) - 1)]
    return {**sides, "per_bin": per_bin, "mean_abs": float(np.mean(np.abs(excess)))}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _excess_shifts(scoring: Scoring, at: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return target, bin and excess move of each image that one split was asked about."""
    by_arm = {arm: move(scoring, at, name, arm) for arm in (RELEASE, ORIGINALS)}
    rows = scoring.splits[at].probes.get(name)
    if rows is None:
        return np.empty(0), np.empty(0, np.int64), np.empty(0)
    return rows.target, rows.stratum, by_arm[RELEASE] - by_arm[ORIGINALS]


def move(scoring: Scoring, at: int, name: str, arm: str) -> np.ndarray:
    """Return how far the prediction of an arm moves for each image asked about, in POMP units."""
    split, result = scoring.splits[at], scoring.evaluations[at].arms[arm]
    if name not in split.probes:
        return np.empty(0)
    place = {each: row for row, each in enumerate(split.test.image_id.tolist())}
    plain = np.array([place[each] for each in split.probes[name].image_id.tolist()], np.int64)
    return np.asarray(result.probes[name] - result.values["regressor"][plain])


def describe_effects(scoring: Scoring) -> dict[str, Any]:
    """Return by transform how far it moves the prediction of the originals' model, beside a mirror image.

    `of_flip` is its mean absolute move as a multiple of a flip's on the same images: {mean, low, high}. Its
    interval is over groups of images; it says nothing of what other training images would do.
    `low` and `high` are signed, of images below and above the middle of the scale.
    """
    first = range(scoring.n_first)
    flips: dict[str, float] = {}
    for at in first:
        rows = scoring.splits[at].probes.get(FLIP)
        if rows is not None:
            moves = move(scoring, at, FLIP, ORIGINALS)
            flips |= dict(zip(rows.image_id.tolist(), moves.tolist(), strict=True))
    names = sorted({name for at in first for name in scoring.splits[at].probes if name.startswith(EFFECT)})
    return {name.removeprefix(EFFECT): _effect(scoring, name, flips) for name in names if name != FLIP}


def _effect(scoring: Scoring, name: str, flips: Mapping[str, float]) -> dict[str, Any]:
    ids, groups, y, moved = [], [], [], []
    for at in range(scoring.n_first):
        rows = scoring.splits[at].probes.get(name)
        if rows is not None:
            ids += rows.image_id.tolist()
            groups += rows.group.tolist()
            y.append(rows.target)
            moved.append(move(scoring, at, name, ORIGINALS))
    change, truth = np.concatenate(moved), np.concatenate(y)
    flipped = np.array([flips[each] for each in ids])
    code = np.unique(groups, return_inverse=True)[1]
    by_group = [np.bincount(code, np.abs(each)) for each in (change, flipped)]
    return {
        "n": len(change),
        "mean_abs": float(np.abs(change).mean()),
        "of_flip": _ratio(*by_group),
        "low": _mean(change[truth < MIDDLE]),
        "high": _mean(change[truth >= MIDDLE]),
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> dict[str, float | None]:
    """Return the ratio of two sums over the same independent parts, and its 95 % interval.

    By the delta method on the logarithm: var(log a/b) = var(a)/a² + var(b)/b² - 2 cov(a, b)/ab.
    """
    a, b, n = above.mean(), below.mean(), len(above)
    if not a > 0 or not b > 0 or n < 2:
        return {"mean": None, "low": None, "high": None}
    (va, c), (_, vb) = np.cov(above, below) / n
    reach = stats.norm.ppf(0.975) * np.sqrt(max(0.0, va / a**2 + vb / b**2 - 2 * c / (a * b)))
    return {"mean": float(a / b), "low": float(a / b * np.exp(-reach)), "high": float(a / b * np.exp(reach))}


def affect_of_look(drift: Mapping[str, Any]) -> dict[str, float]:
    """Return by pipeline how far its draws move pleasure by luminance and saturation alone, in POMP units.

    `drift` is that of release.json, in percent. A network that was trained to ignore brightness and colour
    cannot certify these; people cannot ignore them.
    """
    return {
        name: _Y_WEIGHT * each["luminance"]["mean_abs"] + _S_WEIGHT * each["saturation"]["mean_abs"]
        for name, each in drift.get("by_pipeline", {}).items()
    }


def copies_and_target(is_copy: np.ndarray, y: np.ndarray) -> float:
    """Return the correlation of "is a copy" with the target: what a shortcut could be worth."""
    return pearson_r(is_copy.astype(float), y)
