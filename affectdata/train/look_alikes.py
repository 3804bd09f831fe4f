"""Pairs of versions of one image: candidates by features, proof by `images.same_image`.

In: features, a group per image, and a reader. Out: pairs of rows with their number of inliers. What was
compared is kept by the ids of the two images, so that a second run reads no image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectdata.hashing import canonical_json, file_hash
from affectdata.images import same_image
from affectdata.images.decode import decode, pixel_versions
from affectdata.images.same_image import ImagePoints, count_inliers, find_points
from affectdata.train.features import FeatureCache
from affectdata.train.images import Progress
from affectdata.workers import map_ordered

N_NEAREST = 5
_METHOD = 1  # increment when the same two images would have other inliers
_CELLS = 1 << 22  # cosines held at once
_BATCH = 16  # images or pairs per task
ReadRow = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class SamePair:
    """Two rows that are the same image, the smaller first, and how sure that is."""

    rows: tuple[int, int]
    inliers: int
    mirrored: bool


def nearest_pairs(
    left: np.ndarray, right: np.ndarray, left_group: np.ndarray, right_group: np.ndarray
) -> np.ndarray:
    """Return the five rows of `right` most similar to each of `left` by cosine: (pairs, 2).

    Rows of equal groups are not compared.
    """
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (left, right))
    n = min(N_NEAREST, len(b))
    pairs = [np.empty((0, 2), np.int64)]
    step = max(1, _CELLS // max(1, len(b)))
    for start in range(0, len(a) if n else 0, step):
        cosine = a[start : start + step] @ b.T
        cosine[left_group[start : start + step, None] == right_group] = -np.inf
        nearest = np.argpartition(-cosine, n - 1, axis=1)[:, :n]
        row, place = np.nonzero(np.take_along_axis(cosine, nearest, axis=1) > -np.inf)
        pairs.append(np.column_stack([row + start, nearest[row, place]]))
    return np.concatenate(pairs)


def prove_pairs(
    pairs: np.ndarray,
    image_ids: Sequence[str],
    read: ReadRow,
    cache: Path | None,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[SamePair]:
    """Return those of `pairs` (rows, in any order) that are the same image, the surest first.

    `read` returns the file of a row; `cache` is a folder for what was compared.
    """
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    keys = ["|".join(sorted(image_ids[row] for row in pair)) for pair in pairs.tolist()]
    kept = FeatureCache(cache, _Method()) if cache else None
    known = kept.read(keys) if kept and keys else {}
    new = [row for row, key in enumerate(keys) if key not in known]
    if new:
        counted = _compare(pairs[new], read, workers, progress)
        if kept:
            kept.write([keys[row] for row in new], counted)
        known |= zip((keys[row] for row in new), counted, strict=True)
    found = [
        SamePair((int(pair[0]), int(pair[1])), int(known[key][0]), bool(known[key][1]))
        for pair, key in zip(pairs, keys, strict=True)
        if known[key][0] >= same_image.MIN_INLIERS
    ]
    return sorted(found, key=lambda pair: (-pair.inliers, pair.rows))


@dataclass(frozen=True)
class _Method:
    """What the kept numbers depend on, beside the images."""

    @property
    def key(self) -> str:
        return f"same_image-{file_hash(canonical_json([_METHOD, pixel_versions()]).encode())[:16]}"


def _compare(pairs: np.ndarray, read: ReadRow, workers: int, progress: Progress | None) -> np.ndarray:
    """Return the inliers of each pair, and whether one image is mirrored: float32 (pairs, 2)."""
    rows = np.unique(pairs).tolist()
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    points: dict[int, ImagePoints] = {}

    def describe(batch: list[int]) -> list[ImagePoints]:
        return [find_points(decode(read(row)).rgb) for row in batch]

    for batch, found in zip(batches, map_ordered(describe, batches, workers), strict=True):
        points.update(zip(batch, found, strict=True))
        if progress:
            progress(len(points), len(rows))
    return np.array([count_inliers(points[a], points[b]) for a, b in pairs.tolist()], np.float32)
