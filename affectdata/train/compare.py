"""Is one arm better than another on the same pictures? Paired bootstrap over groups, within bins.

Efron and Tibshirani (1993), An introduction to the bootstrap, ch. 8 and 13: groups are drawn, because their
pictures are not independent; within bins, because one resample in five has an empty bin otherwise. The
interval is that of these test pictures; what another draw of training pictures would do is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from affectdata.metrics import bin_codes

N_RESAMPLES = 2000
_LEVEL = 0.95


def compare_arms(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    group: np.ndarray,
    edges: Sequence[float],
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> dict[str, Any]:
    """Return `first` minus `second` for r2, ccc, mae, macro_mae: the difference and its 95 % interval."""
    bins = bin_codes(y, edges)
    measures = _measures(y, bins, len(edges) - 1)
    once = np.ones((1, len(y)))
    drawn = draw_weights(group, bins, n_resamples, np.random.default_rng(seed))
    tails = [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)]
    found = {}
    for name, measure in measures.items():
        spread = measure(drawn, first) - measure(drawn, second)
        low, high = np.nanpercentile(spread, tails) if np.isfinite(spread).any() else (np.nan, np.nan)
        difference = float((measure(once, first) - measure(once, second))[0])
        found[name] = {"difference": difference, "low": float(low), "high": float(high)}
    return found


def draw_weights(
    group: np.ndarray, bins: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Return how often each row is in each resample (n_resamples, n): groups drawn with replacement.

    A group is drawn among those of the bin that most of its rows are in.
    """
    names, code = np.unique(group, return_inverse=True)
    n_bins = int(bins.max()) + 1
    held = np.zeros((len(names), n_bins), np.int64)
    np.add.at(held, (code, bins), 1)
    home = held.argmax(1)
    times = np.zeros((n_resamples, len(names)))
    for each in np.unique(home):
        members = np.flatnonzero(home == each)
        times[:, members] = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), n_resamples
        )
    return np.asarray(times[:, code])


Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _measures(y: np.ndarray, bins: np.ndarray, n_bins: int) -> dict[str, Measure]:
    """Return the measures over weighted rows: weights (resamples, n) and predictions (n) to (resamples)."""
    inside = (bins[:, None] == np.arange(n_bins)).astype(float)

    def macro_mae(weights: np.ndarray, p: np.ndarray) -> np.ndarray:
        count, total = weights @ inside, weights @ (inside * np.abs(y - p)[:, None])
        each = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
        return np.asarray(np.nanmean(each, axis=1))

    return {
        "r2": lambda weights, p: 1 - _divide(_mean(weights, (y - p) ** 2), _moment(weights, y, y)),
        "ccc": lambda weights, p: _divide(
            2 * _moment(weights, y, p),
            _moment(weights, y, y) + _moment(weights, p, p) + (_mean(weights, y) - _mean(weights, p)) ** 2,
        ),
        "mae": lambda weights, p: _mean(weights, np.abs(y - p)),
        "macro_mae": macro_mae,
    }


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(weights @ values / weights.sum(1))


def _moment(weights: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the covariance over weighted rows."""
    # About the plain means, so that large values with a small spread lose no digits.
    a, b = a - a.mean(), b - b.mean()
    return np.asarray(_mean(weights, a * b) - _mean(weights, a) * _mean(weights, b))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
