"""Differences of two arms on the same images, with intervals pooled over each assignment to folds.

The predictions of the five folds of an assignment are put together, and both arms are scored on all of them.
The influence value of an image on the difference is the difference of the arms' influence values. The
interval is that of these trained models, over new images of the kind of this data set: it does not cover the
luck of the data set's own bin counts. docs/check.md has its cover.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from affectdata.check.blocks import Interval
from affectdata.check.evaluate import REGRESSOR
from affectdata.check.influence import (
    Estimate,
    group_sums,
    grouped_variance,
    influence_binned_mae,
    influence_ccc,
    influence_mae,
    influence_r2,
    largest_z,
    pooled_interval,
)
from affectdata.check.metrics import bin_codes
from affectdata.check.scores import Scoring
from affectdata.train.rows import Rows

Comparison = tuple[str, str, str]  # measure, arm, the arm that it is compared with
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
    return pooled_interval([_compare(scoring, start, measure, left, right)[0] for start in _starts(scoring)])


def simultaneous_differences(
    scoring: Scoring, comparisons: Sequence[Comparison]
) -> tuple[list[Interval], float | None]:
    """Return the difference of each comparison, and the quantile of the largest |z| of them all.

    The intervals hold for all of them together.
    """
    if not comparisons:
        return [], None
    estimates: list[list[Estimate]] = [[] for _ in comparisons]
    sums = []
    for start in _starts(scoring):
        compared = [_compare(scoring, start, *each) for each in comparisons]
        sums.append(np.column_stack([of_groups for _, of_groups in compared]))
        for known, (estimate, _) in zip(estimates, compared, strict=True):
            known.append(estimate)
    quantile = largest_z(np.concatenate(sums), scoring.seed)
    return [pooled_interval(each, quantile) for each in estimates], quantile


def _starts(scoring: Scoring) -> range:
    """Return the number of the first split of each assignment to folds."""
    return range(0, len(scoring.splits), scoring.n_first)


def _compare(
    scoring: Scoring, start: int, measure: str, left: str, right: str
) -> tuple[Estimate, np.ndarray]:
    """Return the difference over one assignment to folds, averaged over the sources, and its variance.

    Beside them are the influence values on it, summed within groups.
    """
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
    estimate = scores[0] - scores[1], grouped_variance(influence, test.group)
    return estimate, group_sums(influence, test.group)


def _tail_codes(test: Rows, scoring: Scoring) -> np.ndarray:
    """Return the bin of each target, -1 for bins that are not thin."""
    codes = bin_codes(test.target, scoring.edges)
    return np.where(scoring.tail[codes], codes, -1)
