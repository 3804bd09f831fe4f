"""Image quality from what a probe has at hand: the grey 32 × 32 image of the pHash, and some rows of pixels.

The measures of cleanvision (brightness, entropy, blur, aspect ratio), at a few microseconds per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

_LEVELS = 256
_DECIMALS = 4
_ROWS = 32  # of pixels that sharpness is measured in
_FAR = 8  # times the distance of near pixels
_COLUMNS = 512  # up to twice as many, near pixels are neighbours


def measure_grey(images: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """Return brightness and entropy of grey thumbnails of one size, uint8; all at once, which costs less.

    `brightness` is the mean, `_p05` and `_p99` are percentiles, black is 0 and white 1; `entropy` is that of
    the histogram in bits: 0 for a uniform image, 8 at most.
    """
    if not images:
        return []
    pixels = np.stack(images).reshape(len(images), -1)
    size = pixels.shape[1]
    levels = (pixels + _LEVELS * np.arange(len(images))[:, None]).ravel()
    counts = np.bincount(levels, minlength=_LEVELS * len(images)).reshape(len(images), _LEVELS)
    below = counts.cumsum(axis=1)
    columns = {
        "brightness": counts @ np.arange(_LEVELS) / size / (_LEVELS - 1),
        "brightness_p05": (below >= 0.05 * size).argmax(axis=1) / (_LEVELS - 1),
        "brightness_p99": (below >= 0.99 * size).argmax(axis=1) / (_LEVELS - 1),
        "entropy": _entropy_terms(size)[counts].sum(axis=1),
    }
    rows = np.column_stack(list(columns.values())).round(_DECIMALS).tolist()
    return [dict(zip(columns, row, strict=True)) for row in rows]


@cache
def _entropy_terms(size: int) -> np.ndarray:
    """Return -p log2 p for the shares 0, 1 / size, … of a level."""
    shares = np.arange(size + 1) / size
    return -shares * np.log2(np.where(shares > 0, shares, 1))


def measure_sharpness(rgb: np.ndarray) -> float | None:
    """Return how much near pixels of a row differ, relative to pixels eight times as far apart.

    It depends on neither contrast nor brightness: a sharp image has .05 to 1, a smooth gradient 1/64. None
    for an image without any difference, or too narrow.
    """
    height, width, channels = rgb.shape
    near = channels * max(1, width // _COLUMNS)
    rows = rgb[height // (2 * _ROWS) :: max(1, height // _ROWS)].reshape(-1, channels * width)
    if rows.shape[1] <= _FAR * near:
        return None
    differences = []
    for distance in (near, _FAR * near):
        pixels, others = rows[:, distance:], rows[:, :-distance]
        differences.append(cv2.norm(pixels, others, cv2.NORM_L2SQR) / pixels.size)
    return round(differences[0] / differences[1], _DECIMALS) if differences[1] else None
