"""How many images each cell of a recipe lacks, and which unrated images would fill them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import norm

from affectdata.plan.solver import solve_bin, target_count


def count_missing(counts: np.ndarray, level: Literal["max", "median"] | int) -> np.ndarray:
    """Return the images missing per bin and stratum (bins, strata) to level the bins without copies.

    Each bin is raised to the level, and within it the strata evenly, as `balance` does; here a stratum
    without any image of a bin may get some.
    """
    target = target_count(counts.sum(1).tolist(), level)
    missing = np.zeros(counts.shape, int)
    for row, supply in enumerate(counts.tolist()):
        shifted = [count + 1 for count in supply]  # the solver gives nothing to an empty stratum
        total = target + len(supply)
        missing[row] = np.array(solve_bin(shifted, total, cap=total)) - shifted
    return missing


def bin_probabilities(predicted: np.ndarray, error: float, edges: Sequence[float]) -> np.ndarray:
    """Return the probability of each bin (n, bins) for normal errors; the outer bins reach to infinity."""
    inner = norm.cdf((np.asarray(edges[1:-1])[None] - predicted[:, None]) / error)
    ones = np.ones((len(predicted), 1))
    return np.diff(np.concatenate([0 * ones, inner, ones], 1), axis=1)


def rank_images(cells: np.ndarray, missing: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return up to n images in the order in which they help, and the gain of each.

    `cells` (images, cells) are probabilities, `missing` (cells) the images that each lacks. The next image
    has the largest expected shortage; its probabilities are then subtracted from what is missing, so that
    images for other cells follow. The gain is from 0 (certainly in a full cell) to 1 (in the shortest one).
    """
    left = missing.astype(float)
    scale = max(1.0, left.max(initial=0.0))
    free = np.ones(len(cells), bool)
    order, gains = [], []
    for _ in range(min(n, len(cells))):
        gain = np.where(free, cells @ (left / scale), -1.0)
        best = int(gain.argmax())
        order.append(best)
        gains.append(float(gain[best]))
        free[best] = False
        left = np.maximum(left - cells[best], 0.0)
    return np.array(order, int), np.array(gains)
