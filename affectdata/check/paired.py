"""The difference of two arms on the same images, with an interval pooled over each assignment to folds.

The predictions of the five folds of an assignment are put together, and both arms are scored on all of them.
The influence value of an image on the difference is the difference of the arms' influence values. The
interval is that of these trained models, over new images of the kind of this data set: it does not cover the
luck of the data set's own bin counts. docs/check.md has its cover.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from affectdata.check.blocks import Interval
from affectdata.check.evaluate import REGRESSOR
from affectdata.check.influence import (
    Estimate,
    grouped_variance,
    influence_binned_mae,
    influence_ccc,
    influence_mae,
    influence_r2,
    pooled_interval,
)
from affectdata.check.metrics import bin_codes
from affectdata.check.scores import Scoring
from affectdata.train.rows import Rows

InfluenceOf = Callable[[Rows, np.ndarray, Scoring], np.ndarray]
INFLUENCE: dict[str, InfluenceOf] = {  # of the measures in which arms are compared
    "r2": lambda test, p, _: influence_r2(test.target, p),
    "ccc": lambda test, p, _: influence_ccc(test.target, p),
    "mae": lambda test, p, _: influence_mae(test.target, p),
    "macro_mae": lambda test, p, scoring: influence_binned_mae(
        test.target, p, bin_codes(test.target, scoring.edges)
    ),
    "tail_mae": lambda test, p, scoring: influence_binned_mae(test.target, p, _tail_codes(test, scoring)),
}


def pooled_difference(scoring: Scoring, measure: str, left: str, right: str) -> Interval:
    """Return the difference of two arms in a measure, and its 95 % interval."""
    starts = range(0, len(scoring.splits), scoring.n_first)
    return pooled_interval([_estimate(scoring, start, measure, left, right) for start in starts])


def _estimate(scoring: Scoring, start: int, measure: str, left: str, right: str) -> Estimate:
    """Return the difference over one assignment to folds, averaged over the sources, and its variance."""
    numbers = range(start, start + scoring.n_first)
    test = Rows.concat([scoring.splits[number].test for number in numbers])
    predicted = [
        np.concatenate([scoring.evaluations[number].arms[arm].values[REGRESSOR] for number in numbers])
        for arm in (left, right)
    ]
    scores = [scoring.measure(measure, test, values) for values in predicted]
    influence, sources = np.zeros(len(test)), np.unique(test.source)
    for source in sources:
        rows = test.source == source
        of_left, of_right = (
            INFLUENCE[measure](test.take(rows), values[rows], scoring) for values in predicted
        )
        influence[rows] = (of_left - of_right) * len(test) / rows.sum() / len(sources)
    return scores[0] - scores[1], grouped_variance(influence, test.group)


def _tail_codes(test: Rows, scoring: Scoring) -> np.ndarray:
    """Return the bin of each target, -1 for bins that are not thin."""
    codes = bin_codes(test.target, scoring.edges)
    return np.where(scoring.tail[codes], codes, -1)
