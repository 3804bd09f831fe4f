"""Influence values: how much each image contributes to the error of a score.

Summed within groups, their squares give the variance of the score. The interval is conditional: it is that of
these predictions, over new images of the kind of this data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from affectdata.check import metrics
from affectdata.check.blocks import Interval

WIDEN = 1.1  # factor on the half-width: brings the mean cover of two assignments from .95 to .97
_QUANTILE = float(stats.norm.ppf(0.975))
_N_DRAWS = 4096
Influence = Callable[[np.ndarray, np.ndarray], np.ndarray]  # targets, predictions -> a value per image
Estimate = tuple[float, float]  # a figure and its variance


def influence_r2(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the influence values of R²: -(q - mean q) / v + mean q / v² · ((y - ȳ)² - v), q = (y - p)²."""
    squares, variance, centred = (y - predicted) ** 2, y.var(), y - y.mean()
    if not variance > 0:
        return np.full(len(y), np.nan)
    of_error, of_variance = -(squares - squares.mean()), squares.mean() / variance * (centred**2 - variance)
    return np.asarray((of_error + of_variance) / variance)


def influence_ccc(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the influence values of Lin's concordance correlation, 2 c / d."""
    dy, dp, gap = y - y.mean(), predicted - predicted.mean(), y.mean() - predicted.mean()
    c, d = float(np.mean(dy * dp)), float(y.var() + predicted.var() + gap**2)
    if not d > 0:
        return np.full(len(y), np.nan)
    of_d = dy**2 - y.var() + dp**2 - predicted.var() + 2 * gap * (dy - dp)
    return np.asarray(2 * (dy * dp - c) / d - 2 * c / d**2 * of_d)


def influence_mae(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the influence values of the mean absolute error."""
    error = np.abs(y - predicted)
    return np.asarray(error - error.mean())


def influence_binned_mae(y: np.ndarray, predicted: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the influence values of the mean over bins of the mean absolute error within each.

    `codes` are the bins; images with a code below 0 are in none and have no influence.
    """
    error, inside = np.abs(y - predicted), codes >= 0
    size = np.bincount(codes[inside])
    n_bins = max(1, int((size > 0).sum()))
    out = np.zeros(len(y))
    means = np.bincount(codes[inside], error[inside]) / np.maximum(size, 1)
    code = codes[inside]
    out[inside] = len(y) / (n_bins * size[code]) * (error[inside] - means[code])
    return out


def influence_r(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the influence values of Pearson's r: a b - r (a² + b²) / 2, a and b standardised."""
    if not (y.std() > 0 and predicted.std() > 0):
        return np.full(len(y), np.nan)
    a, b = ((x - x.mean()) / x.std() for x in (y, predicted))
    return np.asarray(a * b - metrics.pearson_r(y, predicted) * (a**2 + b**2) / 2)


def group_sums(influence: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the sum of the influence values of each group."""
    return np.bincount(np.unique(group, return_inverse=True)[1], influence)


def grouped_variance(influence: np.ndarray, group: np.ndarray) -> float:
    """Return the variance of a score from its influence values; images of a group are not independent."""
    return float(np.sum(group_sums(influence, group) ** 2)) / len(influence) ** 2


def pooled_interval(assignments: Sequence[Estimate], quantile: float = _QUANTILE) -> Interval:
    """Return mean and 95 % interval of a figure over assignments to folds, from the estimate on each.

    The variance is the mean of the assignments' own: they score the same images, so that a second one adds
    no image. `quantile` is the number of standard errors, of several figures that of `largest_z`.
    """
    values, variances = np.array(assignments, float).T
    mean, reach = float(values.mean()), quantile * WIDEN * float(np.sqrt(variances.mean()))
    return Interval(mean=mean, low=mean - reach, high=mean + reach)


def largest_z(sums: np.ndarray, seed: int) -> float:
    """Return the 95 % quantile of the largest |z| of several figures, at least that of one (1.96).

    `sums` are influence values, (groups, figures). A bootstrap that multiplies the groups by standard normal
    draws, the same for all figures, keeps the correlations between them: Chernozhukov, Chetverikov and Kato
    (2013), Gaussian approximations and multiplier bootstrap for maxima of sums, Annals of Statistics 41.
    """
    norms = np.sqrt(np.sum(sums**2, axis=0))
    varying = sums[:, norms > 0] / norms[norms > 0]
    if not varying.size:
        return _QUANTILE
    z = np.random.default_rng(seed).standard_normal((_N_DRAWS, len(sums))) @ varying
    return max(float(np.quantile(np.abs(z).max(axis=1), 0.95)), _QUANTILE)
