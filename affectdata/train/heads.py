"""Heads on frozen features: plain scikit-learn, hyperparameters chosen inside the training rows.

The inner folds keep groups whole and are scored on originals only: chosen row by row, with copies on both
sides, ridge loses a third of its R² (measured on GAPED). Regression: standardised features, SVR (RBF) or
ridge. Classes: standardised features, multinomial logistic regression.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from affectdata.folds import deal_folds
from affectdata.train.rows import Rows

N_FOLDS = 5
_INNER, _SECOND_STAGE = 1, 2  # added to the seed, so that folds inside folds are dealt anew
Folds = list[tuple[np.ndarray, np.ndarray]]

# The optimum on GAPED lies inside each of these. gamma is in units of 1 / number of features.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "svr": {"C": (1.0, 10.0, 100.0, 1000.0, 10000.0), "gamma": (0.05, 0.2, 0.5, 1.0, 2.0)},
    "ridge": {"alpha": (10.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)},
    "logistic": {"C": (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)},
}
_SVR_EPSILON = 3.0  # POMP units: less than what raters differ by is not worth fitting
_OUTPUT_MIDDLE, _OUTPUT_UNIT = 50.0, 2.0  # POMP units
_LEAST_PROBABILITY = 1e-6  # of a class that the training rows of an inner fold do not have


class Predicts(Protocol):
    """Whatever gives a number for each row."""

    def predict(self, rows: Rows) -> np.ndarray: ...


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
        return np.asarray(self.model.predict(rows.x))

    def shares(self, rows: Rows, outputs: np.ndarray | None) -> np.ndarray:
        """Return a classifier's probabilities (n, labels) of each row and what a regressor says of it."""
        return np.asarray(self.model.predict_proba(with_output(rows.x, outputs)))


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
    return _search_ridge(rows, folds) if head == "ridge" else _search_svr(rows, folds)


def refit(fitted: Fitted, rows: Rows) -> Any:
    """Fit the same pipeline with the same settings on other rows, and return it."""
    return clone(fitted.model).fit(rows.x, rows.y, **_weights(rows.weight))


def _search_svr(rows: Rows, folds: Folds) -> Fitted:
    """Choose C and gamma over the folds and fit all rows.

    It is GridSearchCV over Pipeline(StandardScaler, SVR): each fold's kernel is made once for all C, not
    inside every fit, which is five times faster and chooses the same.
    """
    penalties, gammas = GRIDS["svr"]["C"], tuple(each / rows.x.shape[1] for each in GRIDS["svr"]["gamma"])
    at = len(penalties) // 2, len(gammas) // 2
    if len(folds) > 1:
        errors = np.mean([_svr_errors(rows, penalties, gammas, *fold) for fold in folds], axis=0)
        at = divmod(int(np.argmin(errors)), len(gammas))
    chosen = {"C": penalties[at[0]], "gamma": gammas[at[1]]}
    ends = {"C": (penalties[0], penalties[-1]), "gamma": (gammas[0], gammas[-1])}
    on_edge = [name for name, value in chosen.items() if len(folds) > 1 and value in ends[name]]
    pipeline = Pipeline([("scale", StandardScaler()), ("head", SVR(epsilon=_SVR_EPSILON, **chosen))])
    return Fitted(pipeline.fit(rows.x, rows.y, **_weights(rows.weight)), chosen, on_edge)


def _svr_errors(
    rows: Rows, penalties: Sequence[float], gammas: Sequence[float], train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Return the mean squared error on `test`, fitted on `train`: (C, gamma)."""
    weight = rows.weight[train]
    scale = StandardScaler().fit(rows.x[train], sample_weight=weight if rows.is_weighted else None)
    a, b = scale.transform(rows.x[train]), scale.transform(rows.x[test])
    within, across = _squared_distances(a, a), _squared_distances(b, a)
    errors = np.empty((len(penalties), len(gammas)))
    for column, gamma in enumerate(gammas):
        inside, outside = np.exp(-gamma * within), np.exp(-gamma * across)
        for row, c in enumerate(penalties):
            model = SVR(kernel="precomputed", C=c, epsilon=_SVR_EPSILON)
            model.fit(inside, rows.y[train], sample_weight=weight if rows.is_weighted else None)
            errors[row:, column] = np.mean((model.predict(outside) - rows.y[test]) ** 2)
            if (np.abs(model.dual_coef_[0]) < c * weight[model.support_]).all():
                break  # no coefficient is held back by C: a larger one gives the same model
    return errors


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0))


def fit_classifier(rows: Rows, labels: np.ndarray, output: np.ndarray | None, seed: int) -> Fitted:
    """Fit a multinomial logistic regression of `labels`, chosen by log-likelihood on originals.

    It sees the features and, where `output` is given, the regressor's output for each row (`with_output`).
    There must be two labels at least. Each fold goes through the penalties in order and starts each where the
    one before ended, which saves a third of the time.
    """
    folds = [
        (train, test) for train, test in inner_folds(rows, labels, seed) if len(np.unique(labels[train])) > 1
    ]
    x, grid = with_output(rows.x, output), GRIDS["logistic"]["C"]
    scale = ScaleFeatures(rows.x.shape[1])
    chosen = grid[len(grid) // 2]
    if len(folds) > 1:
        likelihood = np.mean([_logistic_path(x, labels, rows.weight, scale, *fold) for fold in folds], axis=0)
        chosen = grid[int(np.argmax(likelihood))]
    model = Pipeline([("scale", scale), ("head", LogisticRegression(max_iter=5000, C=chosen))])
    on_edge = ["C"] if len(folds) > 1 and chosen in (grid[0], grid[-1]) else []
    return Fitted(model.fit(x, labels, **_weights(rows.weight)), {"C": chosen}, on_edge)


def _logistic_path(
    x: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    scale: ScaleFeatures,
    train: np.ndarray,
    test: np.ndarray,
) -> list[float]:
    """Return the mean log-likelihood on `test` for each C of the grid, fitted on `train`."""
    scale = clone(scale).fit(x[train], sample_weight=None if (weight == 1).all() else weight[train])
    inside, outside = scale.transform(x[train]), scale.transform(x[test])
    model = LogisticRegression(max_iter=5000, warm_start=True)
    found = []
    for c in GRIDS["logistic"]["C"]:
        model.set_params(C=c).fit(inside, labels[train], sample_weight=weight[train])
        found.append(_log_likelihood(model, outside, labels[test]))
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
    return x if output is None else np.column_stack([x, (output - _OUTPUT_MIDDLE) / _OUTPUT_UNIT])


def _log_likelihood(model: Any, x: np.ndarray, labels: np.ndarray) -> float:
    place = {label: at for at, label in enumerate(model.classes_)}
    probabilities = model.predict_proba(x)
    own = [probabilities[row, place[label]] if label in place else 0.0 for row, label in enumerate(labels)]
    return float(np.mean(np.log(np.maximum(own, _LEAST_PROBABILITY))))


def _weights(weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return the weights as a pipeline takes them; a row of weight 2 is the same as the row twice."""
    return {} if (weight == 1).all() else {"scale__sample_weight": weight, "head__sample_weight": weight}


def _search_ridge(rows: Rows, folds: Folds) -> Fitted:
    """Choose the penalty over the folds and fit all rows; with no two folds the middle of the grid."""
    pipeline, grid = Pipeline([("scale", StandardScaler()), ("head", Ridge())]), GRIDS["ridge"]["alpha"]
    extra = _weights(rows.weight)
    if len(folds) < 2:
        middle = grid[len(grid) // 2]
        return Fitted(
            pipeline.set_params(head__alpha=middle).fit(rows.x, rows.y, **extra), {"alpha": middle}, []
        )
    search = GridSearchCV(pipeline, {"head__alpha": list(grid)}, scoring="neg_mean_squared_error", cv=folds)
    search.fit(rows.x, rows.y, **extra)
    chosen = float(search.best_params_["head__alpha"])
    on_edge = ["alpha"] if chosen in (grid[0], grid[-1]) else []
    return Fitted(search.best_estimator_, {"alpha": chosen}, on_edge)


def out_of_fold(fitted: Fitted, rows: Rows, seed: int) -> np.ndarray:
    """Predict every row by the same pipeline fitted on the other folds."""
    return predict_out_of_fold(lambda some: Fitted(refit(fitted, some), {}, []), rows, seed, N_FOLDS)


def predict_out_of_fold(fit: Callable[[Rows], Predicts], rows: Rows, seed: int, n_folds: int) -> np.ndarray:
    """Predict every row by what was fitted on the other folds; copies are in their picture's fold.

    What a regressor says of its own training pictures has seen their labels: a second stage that is trained
    on that learns to believe it, and is wrong on new pictures.
    """
    fold = deal_folds(rows.group, [rows.stratum], seed + _SECOND_STAGE, n_folds)
    predicted = np.full(len(rows), float(np.average(rows.y, weights=rows.weight)))
    for each in np.unique(fold):
        inside = fold == each
        if inside.all():
            break
        predicted[inside] = fit(rows.take(~inside)).predict(rows.take(inside))
    return predicted
