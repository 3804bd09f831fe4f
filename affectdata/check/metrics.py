"""Measures of a prediction against the ratings. numpy only.

Arrays are one-dimensional and of equal length, in POMP units (0–100) where a unit matters. A measure that is
undefined for its arguments (R² of a constant, a correlation of one point) is NaN; writers replace it by null.

To add one, write a function with the decorator `@measure` or `@label_measure`: every arm is scored by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., float])
MEASURES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {}  # function, and what else it needs
LABEL_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {}  # of labels; higher is better


def measure(function: F) -> F:
    """Register a measure of targets and predictions; it may also take `edges`, `tail` or `subtypes`."""
    MEASURES[function.__name__] = function, tuple(signature(function).parameters)[2:]
    return function


def label_measure(function: F) -> F:
    """Register a measure of true and predicted labels."""
    LABEL_MEASURES[function.__name__] = function
    return function


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")


@measure
def mse(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean squared error."""
    return float(np.mean((y - predicted) ** 2))


@measure
def rmse(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the root of the mean squared error."""
    return float(np.sqrt(mse(y, predicted)))


@measure
def mae(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean absolute error."""
    return float(np.mean(np.abs(y - predicted)))


@measure
def r2(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the coefficient of determination, 1 - Σ(y - p)² / Σ(y - ȳ)²; 0 is the mean of `y` itself.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 2.0]))
    0.5
    """
    return 1 - _ratio(float(np.sum((y - predicted) ** 2)), float(np.sum((y - y.mean()) ** 2)))


@measure
def ccc(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return the concordance correlation, 2 s_yp / (s_y² + s_p² + (ȳ - p̄)²), moments over n.

    Lin (1989), A concordance correlation coefficient to evaluate reproducibility, Biometrics 45, eq. 2.
    """
    covariance = float(np.mean((y - y.mean()) * (predicted - predicted.mean())))
    return _ratio(2 * covariance, float(y.var() + predicted.var() + (y.mean() - predicted.mean()) ** 2))


@measure
def pearson_r(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return Pearson's correlation."""
    covariance = float(np.mean((y - y.mean()) * (predicted - predicted.mean())))
    return _ratio(covariance, float(y.std() * predicted.std()))


@measure
def sd_ratio(y: np.ndarray, predicted: np.ndarray) -> float:
    """Return SD of predictions / SD of targets: near 0, all predictions are nearly the same."""
    return _ratio(float(predicted.std()), float(y.std()))


def bin_codes(y: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return the bin of each value: [a, b), the last one closed; values outside get the nearest bin.

    >>> bin_codes(np.array([0.0, 10.0, 20.0]), [0, 10, 20]).tolist()
    [0, 1, 1]
    """
    codes = np.searchsorted(np.asarray(edges), y, side="right") - 1
    return np.clip(codes, 0, len(edges) - 2)


def mae_by(codes: np.ndarray, n_codes: int, y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the mean absolute error within each of `n_codes` groups; NaN for an empty group."""
    count = np.bincount(codes, minlength=n_codes)
    total = np.bincount(codes, np.abs(y - predicted), minlength=n_codes)
    return np.asarray(np.divide(total, count, out=np.full(n_codes, np.nan), where=count > 0))


@measure
def macro_mae(y: np.ndarray, predicted: np.ndarray, edges: Sequence[float]) -> float:
    """Return the mean over non-empty bins of the mean absolute error within each.

    Baccianella, Esuli and Sebastiani (2009), Evaluation measures for ordinal regression, ISDA, eq. 3.
    """
    return float(np.nanmean(mae_by(bin_codes(y, edges), len(edges) - 1, y, predicted)))


def tail_bins(counts: np.ndarray) -> np.ndarray:
    """Return which bins are thin: not empty, and below half of the mean count of the non-empty bins.

    >>> tail_bins(np.array([40, 100, 0, 10])).tolist()
    [False, False, False, True]
    """
    filled = counts > 0
    return np.asarray(filled & (counts < counts[filled].mean() / 2 if filled.any() else False))


@measure
def tail_mae(y: np.ndarray, predicted: np.ndarray, edges: Sequence[float], tail: np.ndarray) -> float:
    """Return the mean over the bins of `tail` (booleans) of the mean absolute error within each."""
    per_bin = mae_by(bin_codes(y, edges), len(edges) - 1, y, predicted)[tail]
    return float(np.nanmean(per_bin)) if np.isfinite(per_bin).any() else float("nan")


def _center_within(values: np.ndarray, subtypes: np.ndarray) -> np.ndarray:
    """Subtract the mean of each subtype."""
    codes = np.unique(subtypes, return_inverse=True)[1]
    means = np.bincount(codes, values) / np.bincount(codes)
    return np.asarray(values - means[codes])


@measure
def r_within(y: np.ndarray, predicted: np.ndarray, subtypes: np.ndarray) -> float:
    """Return Pearson's correlation pooled over subtypes, with the subtype means removed on both sides."""
    return pearson_r(_center_within(y, subtypes), _center_within(predicted, subtypes))


@measure
def r2_within(y: np.ndarray, predicted: np.ndarray, subtypes: np.ndarray) -> float:
    """Return R² pooled over subtypes, with the subtype means removed on both sides.

    0: no better than a constant per subtype; negative: worse than that.
    """
    return r2(_center_within(y, subtypes), _center_within(predicted, subtypes))


def subtype_means(y: np.ndarray, subtypes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Predict the mean of `y` in the training subtype (`y`, `subtypes`) for each of the subtypes `wanted`.

    This baseline gets the true subtype of every image, which a model has to recognise: it is the score of
    knowing the subtype and nothing else. A subtype without training rows gets the mean of all.
    """
    means = {name: float(y[subtypes == name].mean()) for name in np.unique(subtypes)}
    return np.array([means.get(name, float(y.mean())) for name in wanted], float)


def confusion(true: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Count pairs: rows are the true labels, columns the predicted ones, in the order of `labels`."""
    position = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, ([position[label] for label in true], [position[label] for label in predicted]), 1)
    return counts


@label_measure
def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the share of correct labels."""
    return float(np.mean(true == predicted))


@label_measure
def balanced_accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean recall over the labels that occur in `true`."""
    return float(np.mean([np.mean(predicted[true == label] == label) for label in np.unique(true)]))


def chance(true: np.ndarray) -> float:
    """Return the score of guessing: 1 / number of labels that occur in `true`.

    It is the expected balanced accuracy of any prediction that does not depend on the row.

    >>> chance(np.array(["a", "a", "b"]))
    0.5
    """
    return 1 / len(np.unique(true))


def above_chance(balanced: float, true: np.ndarray) -> float:
    """Return (balanced accuracy - chance) / (1 - chance): 0 is chance, 1 is perfect; NaN with one label."""
    guess = chance(true)
    return (balanced - guess) / (1 - guess) if guess < 1 else float("nan")


def most_frequent(labels: np.ndarray) -> str:
    """Return the most frequent label; of several, the first by name.

    >>> most_frequent(np.array(["b", "a", "b", "a", "c"]))
    'a'
    """
    names, counts = np.unique(labels, return_counts=True)
    return str(names[np.argmax(counts)])


def calibration_error(
    true: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], n_bins: int = 10
) -> float:
    """Return the expected calibration error: |accuracy - mean certainty| over bins of certainty, weighted.

    `probabilities` (n, labels) are of `labels`. Guo et al. (2017), On calibration of modern neural networks,
    ICML, eq. 3.
    """
    certainty = probabilities.max(1)
    correct = np.asarray(labels)[probabilities.argmax(1)] == true
    codes = np.minimum((certainty * n_bins).astype(int), n_bins - 1)
    gaps = [
        abs(correct[codes == code].mean() - certainty[codes == code].mean()) * np.mean(codes == code)
        for code in np.unique(codes)
    ]
    return float(np.sum(gaps))


def noise_ceiling(y: np.ndarray, sd: np.ndarray, n: np.ndarray) -> float:
    """Return the R² of a model that knows the true means: 1 - mean(SD² / N) / var(y).

    The mean of N raters has itself a variance of SD² / N, which no model can predict. Spearman (1910): it is
    the reliability of the means, with the raters' noise as error.
    """
    return 1 - _ratio(float(np.mean(sd**2 / n)), float(y.var()))


@label_measure
def macro_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean over labels of F1 = 2 TP / (2 TP + FP + FN), for the labels that occur in either."""
    scores = []
    for label in np.unique(np.concatenate([true, predicted])):
        hits = int(np.sum((true == label) & (predicted == label)))
        scores.append(2 * hits / (np.sum(true == label) + np.sum(predicted == label)))
    return float(np.mean(scores))


_LOWER_IS_BETTER = ("mae", "macro_mae", "tail_mae", "rmse", "distance", "kl", "js", "emd", "wrong_sign")


def lower_is_better(measure: str) -> bool:
    """Return whether a measure is an error or a gap.

    >>> lower_is_better("rmse_arousal"), lower_is_better("r2")
    (True, False)
    """
    return measure in _LOWER_IS_BETTER or measure.startswith("rmse_") or measure.endswith("_gap")
