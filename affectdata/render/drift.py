"""Measure how augmentation changes copies: feature drift from the parent image, and a copy/original probe.

In: low-level features of every released image, measured during rendering. Out: plain numbers for
release.json. A probe that detects copies is not an error: it shows what a model could learn instead of
affect.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.hashing import hash_ranks
from affectdata.recipe.recipe import FEATURES
from affectdata.store.by_image import first_rows, iter_complete_images

_SIDE_PX = 96  # short side at which all features but sharpness are measured, approximately
_HUE = FEATURES.index("hue")
_MIN_CHROMA = 2.0  # percent; a mean colour below this is grey and has no hue
_EDGE = 60.0  # gradient magnitude that counts as an edge
_FOLDS = 5
_RIDGE = 1.0
_RESAMPLES = 200
_PROBED_ROWS = 20_000
_NEAR_BITS = 2  # max distance of the difference hashes of a copy and a nearly identical parent or sibling

LOOKS = pa.schema(
    [pa.field(f"look_{name}", pa.float64(), nullable=False) for name in FEATURES]
    + [pa.field("look_bits", pa.uint64(), nullable=False)]
)


def measure_look(rgb: np.ndarray) -> tuple[float, ...]:
    """Return the `FEATURES` of an image, and its difference hash.

    Luminance, contrast (its standard deviation) and saturation in percent; hue in degrees (`_hue`); edges,
    the percentage of pixels with a strong gradient; sharpness, log10 of the variance of the Laplacian;
    entropy of the grey histogram in bits.
    """
    small = _shrink(rgb)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    laplacian = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    saturation = cv2.mean(cv2.cvtColor(small, cv2.COLOR_RGB2HSV))[1]
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # Squares are whole numbers, hence identical on every CPU and with any number of threads.
    squared_gradient = dx * dx + dy * dy
    histogram = np.bincount(grey.ravel(), minlength=256) / grey.size
    probabilities = histogram[histogram > 0]
    return (
        float(mean[0, 0] / 2.55),
        float(deviation[0, 0] / 2.55),
        saturation / 2.55,
        _hue(*cv2.mean(small)[:3]),
        float(np.count_nonzero(squared_gradient > _EDGE**2) / grey.size * 100),
        float(np.log10(float(cv2.meanStdDev(laplacian)[1][0, 0]) ** 2 + 1)),
        float(-(probabilities * np.log2(probabilities)).sum()),
        _difference_hash(grey),
    )


def _shrink(rgb: np.ndarray) -> np.ndarray:
    """Shrink by an integer factor, which is fast, to a short side of 96–191 px; keep smaller images."""
    factor = min(rgb.shape[:2]) // _SIDE_PX
    if factor < 2:
        return rgb
    height, width = (side // factor for side in rgb.shape[:2])
    cropped = rgb[: height * factor, : width * factor]
    return cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA)


def _hue(red: float, green: float, blue: float) -> float:
    """Return the HSV hue of the mean colour, 0–360 degrees (0 red, 120 green); NaN if it is nearly grey.

    The mean of RGB values weights each pixel's hue vector by its chroma (Hanbury 2008): this is the circular
    mean of the hues in which grey and dark pixels have no weight.
    """
    chroma = (max(red, green, blue) - min(red, green, blue)) / 2.55
    return colorsys.rgb_to_hsv(red, green, blue)[0] * 360 if chroma >= _MIN_CHROMA else math.nan


def _difference_hash(grey: np.ndarray) -> int:
    """Return the 64-bit dHash: 9 × 8 mean levels; a bit is set where the level to the right is higher."""
    levels = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes())


def feature_changes(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the change of each feature, (n, features); hue along the shorter arc, -180 to 180 degrees.

    If either image has no hue, its change is 0: saturation shows the colour that was gained or lost.
    """
    change = after - before
    change[:, _HUE] = (change[:, _HUE] + 180) % 360 - 180
    return np.where(np.isnan(change), 0.0, change)


def measure_drift(table: pa.Table, looks: Iterable[pa.Table]) -> dict[str, Any]:
    """Return drift per feature, the number of near-copies and the probe's AUC, over the train rows.

    `table` has the plan's columns and `subtype`, with the copies of an image after its original. `looks` has
    the columns of `LOOKS` for the same rows, in parts. The probe uses the images of about 20,000 rows.
    """
    train = pc.equal(table["split"], "train").to_numpy()
    n_copies = int(((table["copy"].to_numpy() > 0) & train).sum())
    if not n_copies:
        return {"copies": 0}
    sums = {name: _ChangeSums() for name in ("all", "pipeline", "subtype")}
    sample, n_near, n_images = _ProbeSample(int(train.sum())), 0, 0
    for part in iter_complete_images(_with_looks(table, looks)):
        first = first_rows(part)
        group = n_images + np.unique(first, return_inverse=True)[1]
        n_images = int(group[-1]) + 1
        values = np.column_stack([part[f"look_{name}"].to_numpy() for name in FEATURES])
        train, is_copy = (pc.equal(part["split"], "train").to_numpy(), part["copy"].to_numpy() > 0)
        change, copies = feature_changes(values, values[first]), np.flatnonzero(train & is_copy)
        sums["all"].add(["all"] * len(copies), change[copies])
        for name in ("pipeline", "subtype"):
            sums[name].add(part[name].take(pa.array(copies)).to_pylist(), change[copies])
        n_near += _count_near_copies(part["look_bits"].to_numpy()[train], first[train])
        sample.add(values[train], is_copy[train], group[train])
    return {
        "copies": n_copies,
        "near_copies": n_near,
        "all": sums["all"].means()["all"],
        "by_pipeline": sums["pipeline"].means(),
        "by_subtype": sums["subtype"].means(),
        "probe": sample.auc(),
    }


def _with_looks(table: pa.Table, looks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    start = 0
    for part in looks:
        rows = table.slice(start, len(part))
        start += len(part)
        keys = {name: rows[name].cast(pa.string()) for name in ("image_id", "split", "pipeline", "subtype")}
        yield pa.table({**keys, "copy": rows["copy"], **{name: part[name] for name in LOOKS.names}})


class _ChangeSums:
    """Per label: the number of rows, and the sums of their changes and absolute changes."""

    def __init__(self) -> None:
        self._by_label: dict[str, tuple[int, np.ndarray]] = {}

    def add(self, labels: list[str | None], change: np.ndarray) -> None:
        """Add rows; "–" is the label of rows without one."""
        names, codes = np.unique([label or "–" for label in labels], return_inverse=True)
        for code, name in enumerate(names.tolist()):
            rows = change[codes == code]
            n, sums = self._by_label.get(name, (0, np.zeros((2, len(FEATURES)))))
            more = np.stack([rows.sum(axis=0), np.abs(rows).sum(axis=0)])
            self._by_label[name] = (n + len(rows), sums + more)

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the mean change and mean absolute change, by label and feature."""
        return {
            label: {
                name: {"mean": round(mean, 4), "mean_abs": round(mean_abs, 4)}
                for name, mean, mean_abs in zip(FEATURES, *(sums / n).tolist(), strict=True)
            }
            for label, (n, sums) in sorted(self._by_label.items())
        }


class _ProbeSample:
    """Collects the rows for the probe: all rows of an image, or none."""

    def __init__(self, n_rows: int) -> None:
        self._max_rank = _PROBED_ROWS * 2**64 // n_rows if n_rows > _PROBED_ROWS else 2**64 - 1
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, is_copy: np.ndarray, group: np.ndarray) -> None:
        """Add the rows of some images; `group` is the number of each row's image."""
        images, inverse = np.unique(group, return_inverse=True)
        rows = (hash_ranks(1, images.tolist()) <= np.uint64(self._max_rank))[inverse]
        self._parts.append((values[rows], is_copy[rows], group[rows]))

    def auc(self) -> dict[str, float] | None:
        """Return the result of `probe_auc` for the collected rows."""
        values, is_copy, group = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return probe_auc(_linearize_hue(values), is_copy, group)


@dataclass(frozen=True, slots=True)
class ExcessDrift:
    """A pipeline that changes a feature by more than its bound."""

    pipeline: str
    feature: str
    text: str

    @property
    def feature_index(self) -> int:
        """The index of the feature in the result of `measure_look`."""
        return FEATURES.index(self.feature)


def find_excess_drift(drift: dict[str, Any], bounds: Mapping[str, float]) -> list[ExcessDrift]:
    """Return every pipeline and feature whose mean absolute change is over its bound."""
    excesses = []
    for pipeline, summary in drift.get("by_pipeline", {}).items():
        for name, bound in bounds.items():
            change = summary[name]["mean_abs"]
            if change > bound:
                text = f"{pipeline} changes {name} by {change:g} on average (bound {bound:g})"
                excesses.append(ExcessDrift(pipeline, name, text))
    return excesses


def _linearize_hue(values: np.ndarray) -> np.ndarray:
    """Replace hue by its cosine and sine (0 where undefined), for a linear model."""
    hue = np.radians(values[:, _HUE])
    return np.column_stack(
        [np.delete(values, _HUE, axis=1), np.nan_to_num(np.cos(hue)), np.nan_to_num(np.sin(hue))]
    )


def _count_near_copies(bits: np.ndarray, group: np.ndarray) -> int:
    """Count the rows within `_NEAR_BITS` of an earlier row of the same image."""
    order = np.argsort(group, kind="stable")
    bits, group = bits[order], group[order]
    near = np.zeros(len(bits), bool)
    for lag in range(1, int(np.bincount(group, minlength=1).max())):
        same = group[lag:] == group[:-lag]
        near[lag:] |= same & (np.bitwise_count(bits[lag:] ^ bits[:-lag]) <= _NEAR_BITS)
    return int(near.sum())


def probe_auc(values: np.ndarray, is_copy: np.ndarray, group: np.ndarray) -> dict[str, float] | None:
    """Return how well a linear probe separates copies from originals: AUC over grouped folds, 95 % interval.

    0.5 is chance, 1 is perfect separation. A ridge classifier on `values` and their squares, standardised;
    the interval is a bootstrap over parent images. None if there are too few copies or originals.
    """
    if min(is_copy.sum(), (~is_copy).sum()) < 2 * _FOLDS:
        return None
    x = np.column_stack([values, values**2])
    x -= x.mean(axis=0)
    x /= x.std(axis=0) + 1e-9
    fold = (hash_ranks(0, range(group.max() + 1)) % _FOLDS).astype(int)[group]
    parts = [np.flatnonzero(fold == k) for k in range(_FOLDS)]
    products = [x[rows].T @ x[rows] for rows in parts]
    sums = np.array(
        [[x[rows[is_copy[rows] == kind]].sum(axis=0) for kind in (True, False)] for rows in parts]
    )
    counts = np.array([[np.sum(is_copy[rows] == kind) for kind in (True, False)] for rows in parts])
    score = np.zeros(len(x))
    for k, rows in enumerate(parts):
        n = counts.sum(axis=0) - counts[k]
        means = (sums.sum(axis=0) - sums[k]) / np.maximum(1, n)[:, None]
        rest = sum(products) - products[k] + _RIDGE * np.eye(x.shape[1])
        score[rows] = x[rows] @ np.linalg.solve(
            rest, (means[0] - means[1]) * n.sum() / 2
        )  # both classes have the same weight
    rng, n_parents = np.random.default_rng(0), int(group.max()) + 1
    order = np.argsort(score, kind="stable")
    group, is_copy, score = group[order], is_copy[order], score[order]
    aucs = [
        _auc(score, is_copy, weight[group])
        for weight in (
            np.bincount(rng.integers(0, n_parents, n_parents), minlength=n_parents) for _ in range(_RESAMPLES)
        )
        if 0
        < weight[group[is_copy]].sum()
        < weight[group].sum()  # if few parents have copies, some resamples have none
    ]
    low, high = np.quantile(aucs, [0.025, 0.975])
    return {
        "auc": round(_auc(score, is_copy, np.ones(len(score))), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _auc(score: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> float:
    """Return the probability that a positive scores above a negative, ties counting half (Mann–Whitney).

    `score` is ascending; `weight` is the number of times that a row counts.
    """
    level = np.cumsum(np.diff(score, prepend=score[0]) > 0)
    positives, negatives = (np.bincount(level, weight * mask) for mask in (positive, ~positive))
    return float(positives @ (np.cumsum(negatives) - negatives / 2) / (positives.sum() * negatives.sum()))
