"""What augmentation did to the look of copies: drift against the parent, and a probe that tells them apart.

In: low-level features of every released picture, taken while it was rendered. Out: plain numbers for
release.json. A probe that finds copies is no harm yet; it shows what a model could learn in place of affect.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from affectdata.hashing import hash_ranks, perceptual_hashes

FEATURES = ("luminance", "contrast", "saturation", "hue", "edges", "sharpness", "entropy")
_SIDE_PX = 96  # features but sharpness are taken at this short side
_HUE = FEATURES.index("hue")
_LEAST_CHROMA = 2.0  # percent; a mean colour with less is grey, and has no hue
_EDGE = 60.0  # gradient magnitude that counts as an edge
_FOLDS = 5
_RIDGE = 1.0
_RESAMPLES = 200
_NEAR_BITS = 2  # pHash distance up to which a copy is nearly its parent or sibling

LOOKS = pa.schema(
    [pa.field(f"look_{name}", pa.float64(), nullable=False) for name in FEATURES]
    + [pa.field("look_phash", pa.string(), nullable=False)]
)


def look_of(rgb: np.ndarray) -> tuple[float | str, ...]:
    """Return the `FEATURES` of a picture, and its pHash.

    Luminance, contrast (its standard deviation) and saturation in percent; hue in degrees (`_hue`); edges,
    the share of pixels with a strong gradient, in percent; sharpness, log10 of the variance of the Laplacian;
    entropy of the grey histogram in bits.
    """
    scale = _SIDE_PX / min(rgb.shape[:2])
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    detail = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    saturation = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[..., 1]
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # Squared: whole numbers, which every CPU and any number of threads round alike.
    gradient = across * across + down * down
    histogram = np.bincount(grey.ravel(), minlength=256) / grey.size
    used = histogram[histogram > 0]
    return (
        float(grey.mean() / 2.55),
        float(grey.std() / 2.55),
        float(saturation.mean() / 2.55),
        _hue(small),
        float((gradient > _EDGE**2).mean() * 100),
        float(np.log10(float(cv2.meanStdDev(detail)[1][0, 0]) ** 2 + 1)),
        float(-(used * np.log2(used)).sum()),
        perceptual_hashes(small)[0],
    )


def _hue(rgb: np.ndarray) -> float:
    """Return the HSV hue of the mean colour, 0–360 degrees (0 red, 120 green); NaN if that is all but grey.

    As red, green and blue are added up, hues count as vectors as long as their chroma (Hanbury 2008): it is
    the circular mean of the pixels' hues in which grey and dark pixels have no weight.
    """
    red, green, blue = (float(each) / 2.55 for each in rgb.mean(axis=(0, 1)))
    chroma = max(red, green, blue) - min(red, green, blue)
    return colorsys.rgb_to_hsv(red, green, blue)[0] * 360 if chroma >= _LEAST_CHROMA else math.nan


def changes(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the change of each feature, (n, features): of hue the shorter way round, -180 to 180 degrees.

    Where one of the two has no hue, hue did not change: what colour it gained or lost is in saturation.
    """
    change = after - before
    change[:, _HUE] = (change[:, _HUE] + 180) % 360 - 180
    return np.where(np.isnan(change), 0.0, change)


def measure_drift(table: pa.Table, looks: pa.Table) -> dict[str, Any]:
    """Return drift per feature, near-copies and the probe's AUC of a release's train rows.

    `table` has the plan's columns and `subtype`; `looks` the columns of `LOOKS`, row by row the same.
    """
    train = np.array(table["split"].to_pylist()) == "train"
    copy = table["copy"].to_numpy()[train]
    ids = np.array(table["image_id"].to_pylist())[train]
    values = np.column_stack([looks[f"look_{name}"].to_numpy()[train] for name in FEATURES])
    parents, group = np.unique(ids, return_inverse=True)
    original = np.zeros(len(parents), np.int64)
    original[group[copy == 0]] = np.flatnonzero(copy == 0)
    change = changes(values, values[original[group]])
    is_copy = copy > 0
    if not is_copy.any():
        return {"copies": 0}
    pipelines = np.array(table["pipeline"].to_pylist())[train]
    subtypes = np.array([each or "–" for each in table["subtype"].to_pylist()])[train]
    return {
        "copies": int(is_copy.sum()),
        "near_copies": _near_copies(np.array(looks["look_phash"].to_pylist())[train], group),
        "all": _summary(change[is_copy]),
        "by_pipeline": _by(pipelines[is_copy], change[is_copy]),
        "by_subtype": _by(subtypes[is_copy], change[is_copy]),
        "probe": probe_auc(_on_a_line(values), is_copy, group),
    }


@dataclass(frozen=True, slots=True)
class OverBound:
    """A pipeline that moves a feature by more than its bound."""

    pipeline: str
    feature: str
    text: str

    @property
    def feature_index(self) -> int:
        """Its place in what `look_of` returns."""
        return FEATURES.index(self.feature)


def over_bound(drift: dict[str, Any], bounds: Mapping[str, float]) -> list[OverBound]:
    """Return every pipeline and feature of which the mean absolute change is over its bound."""
    found = []
    for pipeline, summary in drift.get("by_pipeline", {}).items():
        for name, bound in bounds.items():
            moved = summary[name]["mean_abs"]
            if moved > bound:
                text = f"{pipeline} moves {name} by {moved:g} on average (bound {bound:g})"
                found.append(OverBound(pipeline, name, text))
    return found


def _summary(change: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {"mean": round(float(column.mean()), 4), "mean_abs": round(float(np.abs(column).mean()), 4)}
        for name, column in zip(FEATURES, change.T, strict=True)
    }


def _by(labels: np.ndarray, change: np.ndarray) -> dict[str, Any]:
    return {str(label): _summary(change[labels == label]) for label in np.unique(labels)}


def _on_a_line(values: np.ndarray) -> np.ndarray:
    """Return the features with hue as cosine and sine, 0 where there is none, for a linear model."""
    hue = np.radians(values[:, _HUE])
    return np.column_stack(
        [np.delete(values, _HUE, axis=1), np.nan_to_num(np.cos(hue)), np.nan_to_num(np.sin(hue))]
    )


def _near_copies(phashes: np.ndarray, group: np.ndarray) -> int:
    """Count the rows that are within a few pHash bits of an earlier row of the same picture."""
    bits = np.array([int(each, 16) for each in phashes], np.uint64)
    n_near = 0
    for rows in np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1):
        near = np.bitwise_count(bits[rows][:, None] ^ bits[rows][None, :]) <= _NEAR_BITS
        n_near += int(np.tril(near, -1).any(axis=1).sum())
    return n_near


def probe_auc(values: np.ndarray, is_copy: np.ndarray, group: np.ndarray) -> dict[str, float] | None:
    """Return how well a linear probe tells copies from originals: AUC over group-wise folds, 95 % interval.

    0.5 is chance, 1 is plain to see. A ridge classifier on `values` and their squares, standardised; the
    interval resamples parents. None if there are too few rows of one kind.
    """
    if min(is_copy.sum(), (~is_copy).sum()) < 2 * _FOLDS:
        return None
    x = np.column_stack([values, values**2])
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    fold = (hash_ranks(0, range(group.max() + 1)) % _FOLDS).astype(int)[group]
    score = np.zeros(len(x))
    for k in range(_FOLDS):
        rest = fold != k
        y = np.where(is_copy[rest], 1 / max(1, is_copy[rest].sum()), -1 / max(1, (~is_copy[rest]).sum()))
        y *= rest.sum() / 2  # both kinds weigh the same
        weights = np.linalg.solve(x[rest].T @ x[rest] + _RIDGE * np.eye(x.shape[1]), x[rest].T @ y)
        score[~rest] = x[~rest] @ weights
    rng = np.random.default_rng(0)
    members = np.split(np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1)
    draws = [
        _auc(score[rows], is_copy[rows])
        for rows in (
            np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
            for _ in range(_RESAMPLES)
        )
        if 0 < is_copy[rows].sum() < len(rows)  # where few parents have copies, a resample may have none
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "auc": round(_auc(score, is_copy), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative, ties counting half (Mann–Whitney)."""
    _, code, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[code]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))
