"""What augmentation did to the look of copies: drift against the parent, and a probe that tells them apart.

In: low-level features of every released image, taken while it was rendered. Out: plain numbers for
release.json. A probe that finds copies is no harm yet; it shows what a model could learn in place of affect.
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
from affectdata.store.by_image import first_rows, whole_images

_SIDE_PX = 96  # features but sharpness are taken at about this short side
_HUE = FEATURES.index("hue")
_LEAST_CHROMA = 2.0  # percent; a mean colour with less is grey, and has no hue
_EDGE = 60.0  # gradient magnitude that counts as an edge
_FOLDS = 5
_RIDGE = 1.0
_RESAMPLES = 200
_PROBED_ROWS = 20_000
_NEAR_BITS = 2  # distance of two difference hashes up to which a copy is nearly its parent or sibling

LOOKS = pa.schema(
    [pa.field(f"look_{name}", pa.float64(), nullable=False) for name in FEATURES]
    + [pa.field("look_bits", pa.uint64(), nullable=False)]
)


def look_of(rgb: np.ndarray) -> tuple[float, ...]:
    """Return the `FEATURES` of an image, and its difference hash (`_slopes`).

    Luminance, contrast (its standard deviation) and saturation in percent; hue in degrees (`_hue`); edges,
    the share of pixels with a strong gradient, in percent; sharpness, log10 of the variance of the Laplacian;
    entropy of the grey histogram in bits.
    """
    small = _shrunk(rgb)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    detail = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    saturation = cv2.mean(cv2.cvtColor(small, cv2.COLOR_RGB2HSV))[1]
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    # Squared: whole numbers, which every CPU and any number of threads round alike.
    gradient = across * across + down * down
    histogram = np.bincount(grey.ravel(), minlength=256) / grey.size
    used = histogram[histogram > 0]
    return (
        float(mean[0, 0] / 2.55),
        float(deviation[0, 0] / 2.55),
        saturation / 2.55,
        _hue(*cv2.mean(small)[:3]),
        float(np.count_nonzero(gradient > _EDGE**2) / grey.size * 100),
        float(np.log10(float(cv2.meanStdDev(detail)[1][0, 0]) ** 2 + 1)),
        float(-(used * np.log2(used)).sum()),
        _slopes(grey),
    )


def _shrunk(rgb: np.ndarray) -> np.ndarray:
    """Return the image smaller by a whole number, which is quick: its short side 96–191 px, or as it is."""
    times = min(rgb.shape[:2]) // _SIDE_PX
    if times < 2:
        return rgb
    height, width = (side // times for side in rgb.shape[:2])
    even = rgb[: height * times, : width * times]
    return cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)


def _hue(red: float, green: float, blue: float) -> float:
    """Return the HSV hue of the mean colour, 0–360 degrees (0 red, 120 green); NaN if that is all but grey.

    As red, green and blue are added up, hues count as vectors as long as their chroma (Hanbury 2008): it is
    the circular mean of the pixels' hues in which grey and dark pixels have no weight.
    """
    chroma = (max(red, green, blue) - min(red, green, blue)) / 2.55
    return colorsys.rgb_to_hsv(red, green, blue)[0] * 360 if chroma >= _LEAST_CHROMA else math.nan


def _slopes(grey: np.ndarray) -> int:
    """Return the difference hash: of 8 rows of 9 mean levels each, where the next one is lighter; 64 bits."""
    levels = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes())


def changes(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the change of each feature, (n, features): of hue the shorter way round, -180 to 180 degrees.

    Where one of the two has no hue, hue did not change: what colour it gained or lost is in saturation.
    """
    change = after - before
    change[:, _HUE] = (change[:, _HUE] + 180) % 360 - 180
    return np.where(np.isnan(change), 0.0, change)


def measure_drift(table: pa.Table, looks: Iterable[pa.Table]) -> dict[str, Any]:
    """Return drift per feature, near-copies and the probe's AUC of a release's train rows.

    `table` has the plan's columns and `subtype`, the copies of each image behind its original; `looks` the
    columns of `LOOKS` in parts, row by row the same. The probe looks at the images of some 20,000 rows.
    """
    train = pc.equal(table["split"], "train").to_numpy()
    n_copies = int(((table["copy"].to_numpy() > 0) & train).sum())
    if not n_copies:
        return {"copies": 0}
    sums = {name: _Sums() for name in ("all", "pipeline", "subtype")}
    probed, n_near, n_images = _Probed(int(train.sum())), 0, 0
    for part in whole_images(_with_looks(table, looks)):
        first = first_rows(part)
        group = n_images + np.unique(first, return_inverse=True)[1]
        n_images = int(group[-1]) + 1
        values = np.column_stack([part[f"look_{name}"].to_numpy() for name in FEATURES])
        train, is_copy = (pc.equal(part["split"], "train").to_numpy(), part["copy"].to_numpy() > 0)
        change, made = changes(values, values[first]), np.flatnonzero(train & is_copy)
        sums["all"].add(["all"] * len(made), change[made])
        for name in ("pipeline", "subtype"):
            sums[name].add(part[name].take(pa.array(made)).to_pylist(), change[made])
        n_near += _near_copies(part["look_bits"].to_numpy()[train], first[train])
        probed.add(values[train], is_copy[train], group[train])
    return {
        "copies": n_copies,
        "near_copies": n_near,
        "all": sums["all"].means()["all"],
        "by_pipeline": sums["pipeline"].means(),
        "by_subtype": sums["subtype"].means(),
        "probe": probed.auc(),
    }


def _with_looks(table: pa.Table, looks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    start = 0
    for part in looks:
        rows = table.slice(start, len(part))
        start += len(part)
        words = {name: rows[name].cast(pa.string()) for name in ("image_id", "split", "pipeline", "subtype")}
        yield pa.table({**words, "copy": rows["copy"], **{name: part[name] for name in LOOKS.names}})


class _Sums:
    """Of the rows of each label: how many, the sums of their changes, and those of the size of these."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, np.ndarray]] = {}

    def add(self, labels: list[str | None], change: np.ndarray) -> None:
        """Take in some rows; "–" is the label of those that have none."""
        names, codes = np.unique([label or "–" for label in labels], return_inverse=True)
        for code, name in enumerate(names.tolist()):
            rows = change[codes == code]
            n, sums = self._found.get(name, (0, np.zeros((2, len(FEATURES)))))
            more = np.stack([rows.sum(axis=0), np.abs(rows).sum(axis=0)])
            self._found[name] = (n + len(rows), sums + more)

    def means(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return by label and feature the mean change, and the mean of its size."""
        return {
            label: {
                name: {"mean": round(mean, 4), "mean_abs": round(mean_abs, 4)}
                for name, mean, mean_abs in zip(FEATURES, *(sums / n).tolist(), strict=True)
            }
            for label, (n, sums) in sorted(self._found.items())
        }


class _Probed:
    """Gathers the rows that the probe looks at: all of an image's, or none."""

    def __init__(self, n_rows: int) -> None:
        self._below = _PROBED_ROWS * 2**64 // n_rows if n_rows > _PROBED_ROWS else 2**64 - 1
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, values: np.ndarray, is_copy: np.ndarray, group: np.ndarray) -> None:
        """Take in the rows of some images; `group` is the number of each row's image."""
        images, of = np.unique(group, return_inverse=True)
        rows = (hash_ranks(1, images.tolist()) <= np.uint64(self._below))[of]
        self._parts.append((values[rows], is_copy[rows], group[rows]))

    def auc(self) -> dict[str, float] | None:
        """Return what `probe_auc` says of them."""
        values, is_copy, group = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return probe_auc(_on_a_line(values), is_copy, group)


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


def _on_a_line(values: np.ndarray) -> np.ndarray:
    """Return the features with hue as cosine and sine, 0 where there is none, for a linear model."""
    hue = np.radians(values[:, _HUE])
    return np.column_stack(
        [np.delete(values, _HUE, axis=1), np.nan_to_num(np.cos(hue)), np.nan_to_num(np.sin(hue))]
    )


def _near_copies(bits: np.ndarray, group: np.ndarray) -> int:
    """Count the rows that are within a few bits of an earlier row of the same image."""
    order = np.argsort(group, kind="stable")
    bits, group = bits[order], group[order]
    near = np.zeros(len(bits), bool)
    for apart in range(1, int(np.bincount(group, minlength=1).max())):
        same = group[apart:] == group[:-apart]
        near[apart:] |= same & (np.bitwise_count(bits[apart:] ^ bits[:-apart]) <= _NEAR_BITS)
    return int(near.sum())


def probe_auc(values: np.ndarray, is_copy: np.ndarray, group: np.ndarray) -> dict[str, float] | None:
    """Return how well a linear probe tells copies from originals: AUC over group-wise folds, 95 % interval.

    0.5 is chance, 1 is plain to see. A ridge classifier on `values` and their squares, standardised; the
    interval resamples parents. None if there are too few rows of one kind.
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
        )  # both kinds weigh the same
    rng, n_parents = np.random.default_rng(0), int(group.max()) + 1
    order = np.argsort(score, kind="stable")
    group, is_copy, score = group[order], is_copy[order], score[order]
    draws = [
        _auc(score, is_copy, drawn[group])
        for drawn in (
            np.bincount(rng.integers(0, n_parents, n_parents), minlength=n_parents) for _ in range(_RESAMPLES)
        )
        if 0
        < drawn[group[is_copy]].sum()
        < drawn[group].sum()  # few parents with copies: some draws have none
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "auc": round(_auc(score, is_copy, np.ones(len(score))), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _auc(score: np.ndarray, positive: np.ndarray, times: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative, ties counting half (Mann–Whitney).

    `score` ascends; each row is there so many `times`.
    """
    level = np.cumsum(np.diff(score, prepend=score[0]) > 0)
    won, lost = (np.bincount(level, times * kind) for kind in (positive, ~positive))
    return float(won @ (np.cumsum(lost) - lost / 2) / (won.sum() * lost.sum()))
