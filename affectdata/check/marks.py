"""Marks of a source in the pixels of an image: what could reveal the subtype apart from the content.

A pattern is the grey image, reduced to a short side of 224 pixels, less the mean of each cell of 14 × 14
pixels. The content of images cancels out over many images; a watermark, a text or a frame stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from affectdata.images.decode import resize

SIDE_PX, CELL_PX = 224, 14
N_CELLS = SIDE_PX // CELL_PX
PLACES: tuple[Literal["centre", "corners"], ...] = ("centre", "corners")
SCALARS = ("block_edges", "fine_detail", "flat_sides", "dark_cast", "light_cast", "colour")
_BLOCK_PX = 8  # of JPEG
_BORDER_PX = 4
_FLAT = 2.0  # standard deviation of grey values
_END = 0.002  # share of pixels beyond the dark and the light end of a channel


@dataclass(frozen=True, eq=False)
class Marks:
    """What is measured on one image.

    `patterns` (2, 224, 224): of the central square, which networks see, and of the four corners of the whole
    image, 112 pixels each. `scalars`, in the order of `SCALARS`: differences of neighbouring pixels across
    the borders of 8 × 8 blocks relative to others, on the pixels as stored (a logarithm); Laplacian relative
    to gradient at 224 pixels (a logarithm); number of sides of the whole image that are uniform; red less
    blue at the dark and at the light end of the channels, which depend less on the content than the means do;
    the largest less the smallest channel, mean over the pixels, which is 0 for grey images.
    """

    patterns: np.ndarray
    scalars: np.ndarray


def measure_marks(rgb: np.ndarray) -> Marks:
    """Measure one image, uint8 RGB, as it is stored."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = SIDE_PX / min(rgb.shape[:2])
    width, height = (max(SIDE_PX, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
    whole = cv2.cvtColor(resize(rgb, width, height), cv2.COLOR_RGB2GRAY).astype(np.float32)
    top, left, half = (height - SIDE_PX) // 2, (width - SIDE_PX) // 2, SIDE_PX // 2
    centre = whole[top : top + SIDE_PX, left : left + SIDE_PX]
    upper, lower = (np.hstack([rows[:, :half], rows[:, -half:]]) for rows in (whole[:half], whole[-half:]))
    patterns = np.stack([_less_cell_means(centre), _less_cell_means(np.vstack([upper, lower]))])
    some = rgb[::2, ::2]
    red, blue = (np.quantile(some[..., channel], [_END, 1 - _END]) for channel in (0, 2))
    colour = float((some.max(2) - some.min(2)).mean())
    scalars = [_block_edges(grey), _fine_detail(centre), _flat_sides(whole), *(red - blue), colour]
    return Marks(patterns, np.array(scalars))


def _less_cell_means(grey: np.ndarray) -> np.ndarray:
    cells = grey.reshape(N_CELLS, CELL_PX, N_CELLS, CELL_PX)
    return np.asarray((cells - cells.mean(axis=(1, 3), keepdims=True)).reshape(grey.shape))


def _block_edges(grey: np.ndarray) -> float:
    at, others = [0.0], [0.0]
    for image in (grey, grey.T):
        steps = cv2.absdiff(image[:, 1:], image[:, :-1]).mean(axis=0)
        is_border = np.arange(1, len(steps) + 1) % _BLOCK_PX == 0
        at.append(float(steps[is_border].sum()) / max(1, is_border.sum()))
        others.append(float(steps[~is_border].sum()) / max(1, (~is_border).sum()))
    return float(np.log((sum(at) + 0.01) / (sum(others) + 0.01)))


def _fine_detail(grey: np.ndarray) -> float:
    gradient = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    return float(np.log((np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean() + 0.01) / (gradient + 0.01)))


def _flat_sides(grey: np.ndarray) -> float:
    n = _BORDER_PX
    return float(sum(side.std() < _FLAT for side in (grey[:n], grey[-n:], grey[:, :n], grey[:, -n:])))


class PatternSums:
    """Sums of the patterns of a group of images, for the mean and the variance of every pixel."""

    def __init__(self) -> None:
        self.n = 0
        self.total = np.zeros((len(PLACES), SIDE_PX, SIDE_PX))
        self.squares = np.zeros_like(self.total)

    def add(self, patterns: np.ndarray) -> None:
        """Add one image."""
        self.n += 1
        self.total += patterns
        self.squares += patterns**2

    def without(self, part: PatternSums) -> PatternSums:
        """Return the sums of the images that are not in `part`."""
        rest = PatternSums()
        rest.n, rest.total, rest.squares = (
            self.n - part.n,
            self.total - part.total,
            self.squares - part.squares,
        )
        return rest


def pattern_ratios(group: PatternSums, rest: PatternSums) -> np.ndarray:
    """Return how much the mean patterns of two groups differ: (2, 16, 16), a ratio per place and cell.

    It is the mean over a cell's pixels of the squared difference of the two means, divided by the variance
    that this difference has if there is no common pattern: then the ratio is about 1.
    """
    means = [sums.total / sums.n for sums in (group, rest)]
    expected = [
        (_over_cells(sums.squares / sums.n - mean**2) + 1) / sums.n
        for sums, mean in zip((group, rest), means, strict=True)
    ]
    return np.asarray(_over_cells((means[0] - means[1]) ** 2) / sum(expected))


def _over_cells(values: np.ndarray) -> np.ndarray:
    shape = (len(values), N_CELLS, CELL_PX, N_CELLS, CELL_PX)
    return np.asarray(values.reshape(shape).mean(axis=(2, 4)))
