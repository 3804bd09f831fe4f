"""Sampling weights from the balance cells: the alternative to copies."""

from __future__ import annotations

import numpy as np

from affectdata.recipe.recipe import Weights

_REACH = 4  # sigmas on each side of the smoothing kernel


def row_weights(bins: np.ndarray, cells: np.ndarray, n_bins: int, spec: Weights) -> np.ndarray:
    """Return a weight per row, clipped to `spec.max` and then scaled to mean 1.

    `bins` and `cells` are integer codes per row; every cell lies in one bin. `smoothed` uses the counts of
    the `n_bins` ordered bins. The other two methods use those of cells, and share the weight of a bin among
    its cells: `inverse` gives every bin the same total, and every cell of a bin the same part of it.
    """
    if spec.by == "smoothed":
        raw = 1 / _smooth(np.bincount(bins, minlength=n_bins), spec.sigma)[bins]
    else:
        n = np.bincount(cells)[cells].astype(float)
        # expm1 and log1p keep 1 - βⁿ exact for β near 1
        raw = 1 / n if spec.by == "inverse" else (1 - spec.beta) / -np.expm1(n * np.log(spec.beta))
        _, first = np.unique(cells, return_index=True)
        raw = raw / np.bincount(bins[first], minlength=n_bins)[bins]  # cells in the bin
    weights = np.minimum(raw / raw.mean(), spec.max)
    return np.asarray(weights / weights.mean())


def _smooth(counts: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve counts with a Gaussian of `sigma` bins, reflected at the ends so that no mass is lost."""

    reach = max(1, int(np.ceil(_REACH * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(counts.astype(float), reach, mode="symmetric")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")
