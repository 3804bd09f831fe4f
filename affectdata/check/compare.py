"""Is one arm better than another? Intervals that own up to how little a few hundred pictures can tell.

Over several splits: Nadeau and Bengio (2003), Inference for the generalization error, Machine Learning 52,
section 3: the splits share training pictures, so the variance of their mean is s² (1/J + n_test/n_train),
three to four times that of independent splits. On one split: the paired bootstrap of Efron and Tibshirani
(1993), An introduction to the bootstrap, ch. 8 and 13: groups are drawn, because their pictures are not
independent, and within bins, because one resample in five has an empty bin otherwise. That interval says
nothing of what other training pictures would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
N_RESAMPLES = 1000
Interval = dict[str, float]  # mean, low, high


def corrected_interval(values: Sequence[float], n_test: float, n_train: float) -> Interval:
    """Return mean and 95 % interval of a figure of several splits; undefined figures are left out.

    `n_test` and `n_train` are the originals of a split. One figure alone has no interval (NaN).
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return {"mean": np.nan, "low": np.nan, "high": np.nan}
    mean = float(known.mean())
    if len(known) < 2:
        return {"mean": mean, "low": np.nan, "high": np.nan}
    variance = known.var(ddof=1) * (1 / len(known) + n_test / n_train)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(known) - 1) * np.sqrt(variance))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def bootstrap_interval(
    figure: Callable[[np.ndarray], float], group: np.ndarray, bins: np.ndarray, seed: int
) -> Interval:
    """Return a figure of all rows and its 95 % interval; `figure` takes row numbers, which may repeat."""
    names, code = np.unique(group, return_inverse=True)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    home = _home_bins(code, bins, len(names))
    kept = [np.flatnonzero(home == each) for each in np.unique(home)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(N_RESAMPLES):
        groups = np.concatenate([rng.choice(each, len(each)) for each in kept])
        drawn.append(figure(np.concatenate([members[each] for each in groups])))
    mean = figure(np.arange(len(group)))
    finite = np.array(drawn)[np.isfinite(drawn)]
    if not len(finite):
        return {"mean": mean, "low": np.nan, "high": np.nan}
    low, high = np.quantile(finite, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return {"mean": mean, "low": float(low), "high": float(high)}


def _home_bins(code: np.ndarray, bins: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the bin that most rows of each group are in."""
    held = np.zeros((n_groups, int(bins.max()) + 1), np.int64)
    np.add.at(held, (code, bins), 1)
    return np.asarray(held.argmax(1))
