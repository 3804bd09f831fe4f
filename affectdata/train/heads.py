"""Heads on frozen features: plain scikit-learn, hyperparameters chosen inside the training rows.

The inner folds keep groups whole and are scored on originals only: chosen row by row, with copies on both
sides, ridge loses a third of its R² (measured on GAPED). Regression: standardised features, SVR (RBF) or
ridge. Classes: standardised features, multinomial logistic regression. `FrozenHeads` makes them a learner.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, ClassVar

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

N_FOLDS = 5
_INNER, _SECOND_STAGE = 1, 2  # added to the seed, so that folds inside folds are dealt anew
Fold = tuple[np.ndarray, np.ndarray]  # row numbers of the train and of the test side
Folds = list[Fold]
Setting = tuple[float, ...]  # one value of each axis of a grid

# The optimum on GAPED lies inside each of these. gamma is in units of 1 / number of features.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "svr": {"C": (1.0, 10.0, 100.0, 1000.0, 10000.0), "gamma": (0.05, 0.2, 0.5, 1.0, 2.0)},
    "ridge": {"alpha": (10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)},
    "logistic": {"C": (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)},
}
_SVR_EPSILON = 3.0  # POMP units: less than what raters differ by is not worth fitting
OUTPUT_MIDDLE, OUTPUT_UNIT = 50.0, 2.0  # POMP units
_SEARCH_SVR, _SEARCH_LOGISTIC = 1e-2, 1e-3  # tolerances, ten times those of the final fits
_MAX_ITER = 5000
_LEAST_PROBABILITY = 1e-6  # of a class that the training rows of an inner fold do not have


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fitted pipeline, the settings that were chosen, and which of them lie on the edge of the grid."""

    model: Any
    chosen: dict[str, float]
    on_edge: list[str]

    def report(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        return {**self.chosen, "on_edge": self.on_edge}

    @property
    def curve(self) -> list[dict[str, Any]]:
        """The curve of its training: none."""
        return []

    @property
    def labels(self) -> np.ndarray:
        """What a classifier tells apart."""
        return np.asarray(self.model.classes_)

    def predict(self, rows: Rows) -> np.ndarray:
        """Return a regressor's value for each row."""
        return np.asarray(self.model.predict(rows.features))

    def shares(self, rows: Rows, outputs: np.ndarray | None) -> np.ndarray:
        """Return a classifier's probabilities (n, labels) of each row and what a regressor says of it."""
        return np.asarray(self.model.predict_proba(with_output(rows.features, outputs)))


@contextmanager
def quiet_threads() -> Iterator[None]:
    """Let several threads fit at once, one BLAS thread each: more of them only fight for the cores.

    scikit-learn sets the warning filters around every fit. They belong to the process, and two threads may
    leave each other's behind; here they are put back.
    """
    with threadpool_limits(1), warnings.catch_warnings():
        yield


def inner_folds(rows: Rows, stratum: np.ndarray, seed: int) -> Folds:
    """Return pairs of row numbers (train, test): a group is on one side only, test holds originals only."""
    fold = deal_folds(rows.group, [stratum], seed + _INNER, N_FOLDS)
    pairs = [
        (np.flatnonzero(fold != each), np.flatnonzero((fold == each) & (rows.copy == 0)))
        for each in np.unique(fold)
    ]
    return [(train, test) for train, test in pairs if len(train) and len(test)]


def fit_regressor(rows: Rows, head: str, seed: int) -> Fitted:
    """Fit `svr` or `ridge` on the target, its settings chosen by mean squared error on originals."""
    folds = inner_folds(rows, rows.stratum, seed)
    if head == "ridge":
        chosen, on_edge = _choose(GRIDS["ridge"], folds, partial(_ridge_errors, rows))
        model: Any = Ridge(**chosen)
    else:
        chosen, on_edge = _choose(GRIDS["svr"], folds, partial(_svr_errors, rows, {}))
        chosen["gamma"] /= rows.features.shape[1]
        model = SVR(epsilon=_SVR_EPSILON, **chosen)
    pipeline = Pipeline([("scale", StandardScaler()), ("head", model)])
    return Fitted(pipeline.fit(rows.features, rows.target, **_weights(rows.weight)), chosen, on_edge)


def refit(fitted: Fitted, rows: Rows, targets: np.ndarray | None = None) -> Any:
    """Fit the same pipeline with the same settings on other rows or targets [default: `y`], and return it."""
    wanted = rows.target if targets is None else targets
    return clone(fitted.model).fit(rows.features, wanted, **_weights(rows.weight))


def _choose(
    grid: Mapping[str, Sequence[float]], folds: Folds, errors: Callable[[Fold, list[Setting]], list[float]]
) -> tuple[dict[str, float], list[str]]:
    """Choose settings by their mean error over the folds; return them, and which are on the edge of the grid.

    From the middle of the grid to the best of the settings around it, until none around is better. Where the
    error has one valley, as in every search on GAPED and OASIS, this is what the whole grid gives, at a half
    or a third of the cost. With no two folds it stays in the middle.
    """
    axes = list(grid.values())
    best = tuple(len(axis) // 2 for axis in axes)
    known: dict[tuple[int, ...], float] = {}
    while len(folds) > 1:
        around = (range(len(axis))[max(0, at - 1) : at + 2] for at, axis in zip(best, axes, strict=True))
        new = [cell for cell in itertools.product(*around) if cell not in known]
        if not new:
            break
        settings = [tuple(axis[at] for at, axis in zip(cell, axes, strict=True)) for cell in new]
        known |= zip(new, np.mean([errors(fold, settings) for fold in folds], axis=0).tolist(), strict=True)
        best = min(known, key=lambda cell: (known[cell], cell))
    chosen = list(zip(grid, axes, best, strict=True))
    on_edge = [name for name, axis, at in chosen if known and at in (0, len(axis) - 1)]
    return {name: axis[at] for name, axis, at in chosen}, on_edge


def _scaled(rows: Rows, fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both sides of a fold, standardised by its train side, and the weights of that."""
    train, test = fold
    weight = rows.weight[train]
    scale = StandardScaler().fit(rows.features[train], sample_weight=weight if rows.is_weighted else None)
    return scale.transform(rows.features[train]), scale.transform(rows.features[test]), weight


def _ridge_errors(rows: Rows, fold: Fold, settings: list[Setting]) -> list[float]:
    """Return the mean squared error on the test side for each penalty, fitted on the train side.

    The normal equations of either the rows or the columns, whichever are fewer, are made once for all.
    """
    train, test = fold
    a, b, weight = _scaled(rows, fold)
    middle = np.average(rows.target[train], weights=weight)
    a, z = a * np.sqrt(weight)[:, None], (rows.target[train] - middle) * np.sqrt(weight)
    by_rows = len(a) < a.shape[1]
    gram, right = (a @ a.T, z) if by_rows else (a.T @ a, a.T @ z)
    found = []
    for (alpha,) in settings:
        solved = solve(gram + alpha * np.eye(len(gram)), right, assume_a="pos")
        said = middle + b @ (a.T @ solved if by_rows else solved)
        found.append(float(np.mean((said - rows.target[test]) ** 2)))
    return found


def _svr_errors(
    rows: Rows, settled: dict[tuple[int, float], tuple[float, float]], fold: Fold, settings: list[Setting]
) -> list[float]:
    """Return the mean squared error on the test side for each C and gamma, fitted on the train side.

    The distances are made once for all; what a plain search makes anew inside every fit is most of its time.
    `settled` keeps, by fold and gamma, the C from which on no coefficient is held back, and the error: a
    larger one gives the same model.
    """
    train, test = fold
    a, b, weight = _scaled(rows, fold)
    within, across = _squared_distances(a, a), _squared_distances(b, a)
    found: dict[Setting, float] = {}
    for gamma in sorted({gamma for _, gamma in settings}):
        inside, outside = (np.exp(-gamma / rows.features.shape[1] * each) for each in (within, across))
        key = int(test[0]), gamma
        for c in sorted(c for c, each in settings if each == gamma):
            enough, error = settled.get(key, (inf, 0.0))
            if c < enough:
                model = SVR(kernel="precomputed", C=c, epsilon=_SVR_EPSILON, tol=_SEARCH_SVR)
                model.fit(inside, rows.target[train], sample_weight=weight if rows.is_weighted else None)
                error = float(np.mean((model.predict(outside) - rows.target[test]) ** 2))
                if (np.abs(model.dual_coef_[0]) < c * weight[model.support_]).all():
                    settled[key] = c, error
            found[c, gamma] = error
    return [found[each] for each in settings]


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0))


def fit_classifier(rows: Rows, labels: np.ndarray, output: np.ndarray | None, seed: int) -> Fitted:
    """Fit a multinomial logistic regression of `labels`, chosen by log-likelihood on originals.

    It sees the features and, where `output` is given, the regressor's output for each row (`with_output`).
    There must be two labels at least.
    """
    folds = [each for each in inner_folds(rows, labels, seed) if len(np.unique(labels[each[0]])) > 1]
    x, scale = with_output(rows.features, output), ScaleFeatures(rows.features.shape[1])
    chosen, on_edge = _choose(
        GRIDS["logistic"], folds, partial(_logistic_errors, x, labels, rows.weight, scale)
    )
    model = Pipeline([("scale", scale), ("head", LogisticRegression(max_iter=_MAX_ITER, **chosen))])
    return Fitted(model.fit(x, labels, **_weights(rows.weight)), chosen, on_edge)


def _logistic_errors(
    x: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    scale: ScaleFeatures,
    fold: Fold,
    settings: list[Setting],
) -> list[float]:
    """Return the mean negative log-likelihood on the test side for each C, fitted on the train side.

    In float32 and not to the last digit, each C from where the one before ended: a quarter of the time, and
    enough to choose.
    """
    train, test = fold
    scale = clone(scale).fit(x[train], sample_weight=None if (weight == 1).all() else weight[train])
    inside, outside = (scale.transform(x[side]).astype(np.float32) for side in fold)
    model = LogisticRegression(max_iter=_MAX_ITER, tol=_SEARCH_LOGISTIC, warm_start=True)
    found = []
    for (c,) in settings:
        model.set_params(C=c).fit(inside, labels[train], sample_weight=weight[train])
        found.append(-_log_likelihood(model, outside, labels[test]))
    return found


class ScaleFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardise the first `n_features` columns and leave the others as they are.

    scikit-learn's ColumnTransformer does this too, but starts a parallel job of its own inside every fit, and
    such jobs disturb each other's warning filters.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features

    def fit(self, x: np.ndarray, y: object = None, sample_weight: np.ndarray | None = None) -> ScaleFeatures:
        self.scaler_ = StandardScaler().fit(x[:, : self.n_features], sample_weight=sample_weight)
        return self

    def transform(self, x: np.ndarray) -> np.ndarray:
        return np.hstack([self.scaler_.transform(x[:, : self.n_features]), x[:, self.n_features :]])


def with_output(x: np.ndarray, output: np.ndarray | None) -> np.ndarray:
    """Return features with the regressor's output (POMP) as one more column, which is not standardised.

    As one of a thousand standardised columns it would be drowned by the penalty; at about ten times their
    spread it is heard (measured on GAPED: accuracy .69 without, .69 with it standardised, .71 so). An output
    that hardly varies stays unheard.
    """
    return x if output is None else np.column_stack([x, (output - OUTPUT_MIDDLE) / OUTPUT_UNIT])


def _log_likelihood(model: Any, x: np.ndarray, labels: np.ndarray) -> float:
    place = {label: at for at, label in enumerate(model.classes_)}
    probabilities = model.predict_proba(x)
    own = [probabilities[row, place[label]] if label in place else 0.0 for row, label in enumerate(labels)]
    return float(np.mean(np.log(np.maximum(own, _LEAST_PROBABILITY))))


def _weights(weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights as a pipeline takes them; a row of weight 2 is the same as the row twice."""
    return {} if (weight == 1).all() else {"scale__sample_weight": weight, "head__sample_weight": weight}


def out_of_fold(fitted: Fitted, rows: Rows, seed: int) -> np.ndarray:
    """Predict every row by the same pipeline fitted on the other folds."""
    return predict_out_of_fold(lambda some: Fitted(refit(fitted, some), {}, []), rows, seed, N_FOLDS)


def predict_out_of_fold(fit: Callable[[Rows], Any], rows: Rows, seed: int, n_folds: int) -> np.ndarray:
    """Predict every row by what was fitted on the other folds; copies are in their image's fold.

    What a regressor says of its own training images has seen their labels: a second stage that is trained
    on that learns to believe it, and is wrong on new images.
    """
    fold = deal_folds(rows.group, [rows.stratum], seed + _SECOND_STAGE, n_folds)
    predicted = np.full(len(rows), float(np.average(rows.target, weights=rows.weight)))
    for each in np.unique(fold):
        inside = fold == each
        if inside.all():
            break
        predicted[inside] = fit(rows.take(~inside)).predict(rows.take(inside))
    return predicted


@dataclass(frozen=True)
class FrozenHeads:
    """SVR, ridge and logistic regression, their settings chosen inside the training rows."""

    seed: int
    heads: ClassVar = {"regressor": "svr", "ridge": "ridge"}
    is_costly: ClassVar = False

    def fit_regressor(self, train: Rows, head: str) -> Fitted:
        return fit_regressor(train, head, self.seed)

    def out_of_fold(self, regressor: Fitted, train: Rows) -> np.ndarray:
        return out_of_fold(regressor, train, self.seed)

    def fit_classifier(self, train: Rows, labels: np.ndarray, outputs: np.ndarray | None) -> Fitted:
        return fit_classifier(train, labels, outputs, self.seed)

    def on_features(self, fitted: Fitted, train: Rows, labels: np.ndarray | None) -> Fitted:
        return fitted

    def describe(self) -> dict[str, Any]:
        return {"mode": "frozen", "grids": GRIDS}
