"""Heads on frozen features: scikit-learn models with hyperparameters chosen inside the training rows.

The inner folds keep groups whole and are scored on originals only: with folds by row, and copies on both
sides, ridge loses a third of its R² (measured on GAPED). Regression: standardised features, SVR (RBF) or
ridge. Classes: standardised features, multinomial logistic regression. `FrozenHeads` is their learner, and
`NetworkScaler` weights the features of several networks.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, ClassVar, TypeVar

import numpy as np
from scipy.linalg import solve
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from affectdata.splits.folds import deal_folds
from affectdata.train.rows import Rows
from affectdata.train.svr import RbfSVR, evaluate, squared_distances

N_FOLDS = 5
_INNER, _SECOND_STAGE = 1, 2  # added to the seed, so that nested folds differ from the outer ones
Fold = tuple[np.ndarray, np.ndarray]  # row numbers of the train and of the test side
Folds = list[Fold]
Setting = tuple[float, ...]  # one value of each axis of a grid
Kept = TypeVar("Kept")

# The optimum on GAPED is inside each grid. gamma is in units of 1 / number of features.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "svr": {"C": (1.0, 10.0, 100.0, 1000.0, 10000.0), "gamma": (0.05, 0.2, 0.5, 1.0, 2.0)},
    "ridge": {"alpha": (10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)},
    "logistic": {"C": (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)},
}
_SVR_EPSILON = 3.0  # POMP units: errors below the disagreement of raters are ignored
OUTPUT_MIDDLE, OUTPUT_UNIT = 50.0, 2.0  # POMP units
_SEARCH_SVR, _SEARCH_LOGISTIC = 1e-2, 1e-3  # tolerances, ten times those of the final fits
MAX_ITER = 5000
_MANY = 4000  # rows: the distances of five folds would take more than 200 MiB
_MIN_PROBABILITY = 1e-6  # of a class that is absent from the training rows of an inner fold


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A fitted pipeline, its chosen settings, and the names of those on the edge of the grid."""

    model: Any
    chosen: dict[str, float]
    on_edge: list[str]

    def report(self) -> dict[str, Any]:
        """Return the chosen settings as plain data."""
        return {**self.chosen, "on_edge": self.on_edge}

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The training curve, which is empty."""
        return []

    @property
    def labels(self) -> np.ndarray:
        """The classes of a classifier."""
        return np.asarray(self.model.classes_)

    def predict(self, rows: Rows) -> np.ndarray:
        """Return a regressor's prediction for each row."""
        return np.asarray(self.model.predict(rows.features))

    def shares(self, rows: Rows, outputs: np.ndarray | None) -> np.ndarray:
        """Return a classifier's probabilities (n, labels); `outputs`: the regressor's, if it takes them."""
        return np.asarray(self.model.predict_proba(with_output(rows.features, outputs)))


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Prepare for fits in several threads: one BLAS thread each (more would compete for the cores).

    Also restores the warning filters. They are global, scikit-learn sets them around every fit, and
    concurrent fits may restore them in the wrong order.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        yield


def inner_folds(rows: Rows, stratum: np.ndarray, seed: int) -> Folds:
    """Return row numbers (train, test) per fold: a group is on one side only, test has originals only."""
    fold = deal_folds(rows.group, [stratum], seed + _INNER, N_FOLDS)
    pairs = [
        (np.flatnonzero(fold != number), np.flatnonzero((fold == number) & (rows.copy == 0)))
        for number in np.unique(fold)
    ]
    return [(train, test) for train, test in pairs if len(train) and len(test)]


def fit_regressor(rows: Rows, head: str, seed: int) -> FittedHead:
    """Fit `svr` or `ridge` on the target; choose the settings by mean squared error on originals."""
    folds = inner_folds(rows, rows.stratum, seed)
    if head == "ridge":
        chosen, on_edge = choose(GRIDS["ridge"], folds, partial(ridge_errors, rows))
        model: Any = Ridge(**chosen)
    else:
        chosen, on_edge = choose(GRIDS["svr"], folds, _SvrErrors(rows))
        chosen["gamma"] /= rows.features.shape[1]
        model = RbfSVR(epsilon=_SVR_EPSILON, **chosen)
    pipeline = Pipeline([("scale", NetworkScaler(rows.widths)), ("head", model)])
    return FittedHead(pipeline.fit(rows.features, rows.target, **_weights(rows.weight)), chosen, on_edge)


def refit(fitted: FittedHead, rows: Rows, targets: np.ndarray | None = None) -> Any:
    """Fit the same pipeline with the same settings on other rows or targets [default: theirs]."""
    y = rows.target if targets is None else targets
    return clone(fitted.model).fit(rows.features, y, **_weights(rows.weight))


def choose(
    grid: Mapping[str, Sequence[float]], folds: Folds, errors: Callable[[Fold, list[Setting]], list[float]]
) -> tuple[dict[str, float], list[str]]:
    """Choose the settings of lowest mean error over the folds; return them and those on the grid's edge.

    A local search: start in the middle of the grid and move to the best neighbour until none is better. If
    the error has a single minimum, as in every search on GAPED and OASIS, the result is that of a full grid
    search, at a half to a third of the cost. With fewer than two folds the middle is chosen.
    """
    axes = list(grid.values())
    best = tuple(len(axis) // 2 for axis in axes)
    known: dict[tuple[int, ...], float] = {}
    while len(folds) > 1:
        near = (range(len(axis))[max(0, i - 1) : i + 2] for i, axis in zip(best, axes, strict=True))
        new = [cell for cell in itertools.product(*near) if cell not in known]
        if not new:
            break
        settings = [tuple(axis[i] for i, axis in zip(cell, axes, strict=True)) for cell in new]
        known |= zip(new, np.mean([errors(fold, settings) for fold in folds], axis=0).tolist(), strict=True)
        best = min(known, key=lambda cell: (known[cell], cell))
    chosen = list(zip(grid, axes, best, strict=True))
    on_edge = [name for name, axis, i in chosen if known and i in (0, len(axis) - 1)]
    return {name: axis[i] for name, axis, i in chosen}, on_edge


def scaled(rows: Rows, fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the features of both sides of a fold, standardised by the train side, and the train weights."""
    train, test = fold
    weight = rows.weight[train]
    scale = NetworkScaler(rows.widths)
    scale.fit(rows.features[train], sample_weight=weight if rows.is_weighted else None)
    return scale.transform(rows.features[train]), scale.transform(rows.features[test]), weight


def ridge_errors(rows: Rows, fold: Fold, settings: list[Setting]) -> list[float]:
    """Return the mean squared error on the test side for each penalty, fitted on the train side.

    The normal equations, of the rows or of the columns, whichever are fewer, are computed once for all
    penalties.
    """
    train, test = fold
    a, b, weight = scaled(rows, fold)
    mean = np.average(rows.target[train], weights=weight)
    a, z = a * np.sqrt(weight)[:, None], (rows.target[train] - mean) * np.sqrt(weight)
    by_rows = len(a) < a.shape[1]
    gram, right_side = (a @ a.T, z) if by_rows else (a.T @ a, a.T @ z)
    errors = []
    for (alpha,) in settings:
        solution = solve(gram + alpha * np.eye(len(gram)), right_side, assume_a="pos")
        predictions = mean + b @ (a.T @ solution if by_rows else solution)
        errors.append(float(np.mean((predictions - rows.target[test]) ** 2)))
    return errors


class _SvrErrors:
    """Mean squared errors on the test side of a fold for each C and gamma, fitted on the train side.

    Distances are computed once for all settings, in float32: in every fit they would take most of the time.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._distances = _keep_by_fold(rows, self._squared_distances)
        # by fold and gamma, the C at which no coefficient is bounded any more, and its error: a larger C has
        # the same model
        self._converged: dict[tuple[int, float], tuple[float, float]] = {}

    def __call__(self, fold: Fold, settings: list[Setting]) -> list[float]:
        within, across, weight = self._distances(fold)
        errors: dict[Setting, float] = {}
        for gamma in sorted({gamma for _, gamma in settings}):
            factor = np.float32(-gamma / self._rows.features.shape[1])
            inside, outside = np.exp(factor * within).astype(float), np.exp(factor * across)
            for c in sorted(setting[0] for setting in settings if setting[1] == gamma):
                errors[c, gamma] = self._error(fold, (inside, outside), weight, c, gamma)
        return [errors[setting] for setting in settings]

    def _squared_distances(self, fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b, weight = scaled(self._rows, fold)
        a, b = a.astype(np.float32), b.astype(np.float32)
        return squared_distances(a, a), squared_distances(b, a), weight

    def _error(
        self, fold: Fold, kernels: tuple[np.ndarray, np.ndarray], weight: np.ndarray, c: float, gamma: float
    ) -> float:
        train, test = fold
        sufficient, error = self._converged.get((int(test[0]), gamma), (inf, 0.0))
        if c < sufficient:
            model = SVR(kernel="precomputed", C=c, epsilon=_SVR_EPSILON, tol=_SEARCH_SVR)
            sample_weight = weight if self._rows.is_weighted else None
            model.fit(kernels[0], self._rows.target[train], sample_weight=sample_weight)
            error = float(np.mean((evaluate(model, kernels[1]) - self._rows.target[test]) ** 2))
            if (np.abs(model.dual_coef_[0]) < c * weight[model.support_]).all():
                self._converged[int(test[0]), gamma] = c, error
        return error


def _keep_by_fold(rows: Rows, compute: Callable[[Fold], Kept]) -> Callable[[Fold], Kept]:
    """Return `compute` with its results kept by fold, unless the rows are so many that memory matters."""
    kept: dict[int, Kept] = {}

    def get(fold: Fold) -> Kept:
        if len(rows) > _MANY:
            return compute(fold)
        number = int(fold[1][0])  # no row is in the test side of two folds
        if number not in kept:
            kept[number] = compute(fold)
        return kept[number]

    return get


def fit_classifier(rows: Rows, labels: np.ndarray, output: np.ndarray | None, seed: int) -> FittedHead:
    """Fit a multinomial logistic regression of `labels`; choose C by log-likelihood on originals.

    Its inputs are the features and, if given, the regressor's `output` for each row (`with_output`). `labels`
    must have at least two values.
    """
    folds = [fold for fold in inner_folds(rows, labels, seed) if len(np.unique(labels[fold[0]])) > 1]
    x, scale = with_output(rows.features, output), ScaleFeatures(rows.features.shape[1], rows.widths)
    sides = _keep_by_fold(rows, partial(_scaled_sides, x, rows.weight, scale))
    chosen, on_edge = choose(GRIDS["logistic"], folds, partial(_logistic_errors, sides, labels, rows.weight))
    model = Pipeline([("scale", scale), ("head", LogisticRegression(max_iter=MAX_ITER, **chosen))])
    return FittedHead(model.fit(x, labels, **_weights(rows.weight)), chosen, on_edge)


def _scaled_sides(
    x: np.ndarray, weight: np.ndarray, scale: ScaleFeatures, fold: Fold
) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides of a fold in float32, scaled by the train side."""
    train = fold[0]
    scale = clone(scale).fit(x[train], sample_weight=None if (weight == 1).all() else weight[train])
    inside, outside = (scale.transform(x[side]).astype(np.float32) for side in fold)
    return inside, outside


def _logistic_errors(
    sides: Callable[[Fold], tuple[np.ndarray, np.ndarray]],
    labels: np.ndarray,
    weight: np.ndarray,
    fold: Fold,
    settings: list[Setting],
) -> list[float]:
    """Return the mean negative log-likelihood on the test side for each C, fitted on the train side.

    In float32, with a coarse tolerance, and each C from the solution of the one before: a quarter of the
    time, and precise enough to choose.
    """
    train, test = fold
    inside, outside = sides(fold)
    model = LogisticRegression(max_iter=MAX_ITER, tol=_SEARCH_LOGISTIC, warm_start=True)
    losses = []
    for (c,) in settings:
        model.set_params(C=c).fit(inside, labels[train], sample_weight=weight[train])
        losses.append(-_log_likelihood(model, outside, labels[test]))
    return losses


class NetworkScaler(StandardScaler):  # type: ignore[misc]
    """Standardise features; those of several networks (`widths`) get an equal share of every distance.

    Squared distances are then the number of features × the mean over the networks of (squared distance by the
    network's features / how many of these vary): the kernel of this mean is a kernel of these features. With
    one network this is scikit-learn's StandardScaler.
    """

    def __init__(self, widths: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.widths = widths

    def fit(self, x: np.ndarray, y: object = None, sample_weight: np.ndarray | None = None) -> NetworkScaler:
        super().fit(x, y, sample_weight)
        ends = np.cumsum(self.widths)
        for end, width in zip(ends, self.widths, strict=True) if len(ends) > 1 else ():
            n_live = max(1, int(np.count_nonzero(self.var_[end - width : end])))
            self.scale_[end - width : end] *= np.sqrt(len(ends) * n_live / x.shape[1])
        return self


class ScaleFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardise the first `n_features` columns and leave the others unchanged.

    scikit-learn's ColumnTransformer does this too, but starts a parallel job inside every fit, and concurrent
    jobs overwrite each other's warning filters.
    """

    def __init__(self, n_features: int, widths: tuple[int, ...] = ()) -> None:
        self.n_features, self.widths = n_features, widths

    def fit(self, x: np.ndarray, y: object = None, sample_weight: np.ndarray | None = None) -> ScaleFeatures:
        self.scaler_ = NetworkScaler(self.widths).fit(x[:, : self.n_features], sample_weight=sample_weight)
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        return np.hstack([self.scaler_.transform(x[:, : self.n_features]), x[:, self.n_features :]])


def with_output(x: np.ndarray, output: np.ndarray | None) -> np.ndarray:
    """Append the regressor's output (POMP) to the features, as a column that is not standardised.

    As one of a thousand standardised columns the penalty would suppress it; at about ten times their spread
    it has an effect (measured on GAPED: accuracy .69 without it, .69 standardised, .71 scaled like this). An
    output that hardly varies has none.
    """
    return x if output is None else np.column_stack([x, (output - OUTPUT_MIDDLE) / OUTPUT_UNIT])


def _log_likelihood(model: Any, x: np.ndarray, labels: np.ndarray) -> float:
    column = {label: i for i, label in enumerate(model.classes_)}
    probabilities = model.predict_proba(x)
    true = [probabilities[row, column[label]] if label in column else 0.0 for row, label in enumerate(labels)]
    return float(np.mean(np.log(np.maximum(true, _MIN_PROBABILITY))))


def _weights(weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights as fit parameters of a pipeline; a row of weight 2 counts as two rows."""
    return {} if (weight == 1).all() else {"scale__sample_weight": weight, "head__sample_weight": weight}


def out_of_fold(fitted: FittedHead, rows: Rows, seed: int) -> np.ndarray:
    """Predict each row with the same pipeline, fitted on the other folds."""
    return predict_out_of_fold(lambda train: FittedHead(refit(fitted, train), {}, []), rows, seed, N_FOLDS)


def predict_out_of_fold(fit: Callable[[Rows], Any], rows: Rows, seed: int, n_folds: int) -> np.ndarray:
    """Predict each row with a model fitted on the other folds; copies are in the fold of their image.

    A regressor has seen the labels of its training images: a second stage trained on its predictions for them
    relies on these too much and fails on new images.
    """
    fold = deal_folds(rows.group, [rows.stratum], seed + _SECOND_STAGE, n_folds)
    predictions = np.full(len(rows), float(np.average(rows.target, weights=rows.weight)))
    for number in np.unique(fold):
        inside = fold == number
        if inside.all():
            break
        predictions[inside] = fit(rows.take(~inside)).predict(rows.take(inside))
    return predictions


@dataclass(frozen=True)
class FrozenHeads:
    """A learner of SVR, ridge and logistic regression, with settings chosen inside the training rows."""

    seed: int
    heads: ClassVar = {"regressor": "svr", "ridge": "ridge"}
    is_costly: ClassVar = False

    def fit_regressor(self, train: Rows, head: str) -> FittedHead:
        return fit_regressor(train, head, self.seed)

    def out_of_fold(self, regressor: FittedHead, train: Rows) -> np.ndarray:
        return out_of_fold(regressor, train, self.seed)

    def fit_classifier(self, train: Rows, labels: np.ndarray, outputs: np.ndarray | None) -> FittedHead:
        return fit_classifier(train, labels, outputs, self.seed)

    def on_features(self, fitted: FittedHead, train: Rows, labels: np.ndarray | None) -> FittedHead:
        return fitted

    def describe(self) -> dict[str, Any]:
        return {"mode": "frozen", "grids": GRIDS}
