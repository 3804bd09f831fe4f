"""Heads on frozen features: plain scikit-learn, hyperparameters chosen inside the training rows.

The inner folds keep groups whole and are scored on originals only: chosen row by row, with copies on both
sides, ridge loses a third of its R² (measured on GAPED). Regression: standardised features, SVR (RBF) or
ridge. Classes: standardised features, multinomial logistic regression.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import joblib
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from threadpoolctl import threadpool_limits

from affectdata.folds import deal_folds

N_FOLDS = 5
_INNER, _SECOND_STAGE = 1, 2  # added to the seed, so that folds inside folds are dealt anew
Folds = list[tuple[np.ndarray, np.ndarray]]

# The optimum on GAPED lies inside each of these. An SVR that has reached its tube no longer changes with C.
# gamma is in units of 1 / number of features.
GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "svr": {"C": (1.0, 10.0, 100.0, 1000.0, 10000.0), "gamma": (0.05, 0.2, 0.5, 1.0, 2.0)},
    "ridge": {"alpha": (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0)},
    "logistic": {"C": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
}
_SVR_EPSILON = 3.0  # POMP units: less than what raters differ by is not worth fitting
_OUTPUT_MIDDLE, _OUTPUT_UNIT = 50.0, 2.0  # POMP units
_LEAST_PROBABILITY = 1e-6  # of a class that the training rows of an inner fold do not have


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of pictures as arrays of equal length. `x`: features (n, dim); `copy`: 0 is the original.

    `y` is the numeric target, `stratum` what folds are level over, `part` the subtype ("" where unknown).
    """

    x: np.ndarray
    y: np.ndarray
    image_id: np.ndarray
    group: np.ndarray
    copy: np.ndarray
    part: np.ndarray
    stratum: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray) -> Rows:
        """Return some of the rows."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def unweighted(self) -> Rows:
        """Return the rows with a weight of 1 each."""
        return replace(self, weight=np.ones(len(self)))

    @staticmethod
    def concat(parts: Sequence[Rows]) -> Rows:
        """Put rows behind each other."""
        names = [field.name for field in fields(Rows)]
        return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fitted pipeline, the settings that were chosen, and which of them lie on the edge of the grid."""

    model: Any
    chosen: dict[str, float]
    on_edge: list[str]

    def report(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        return {**self.chosen, "on_edge": self.on_edge}


@contextmanager
def cores(workers: int) -> Iterator[None]:
    """Run searches on `workers` threads, with one BLAS thread each: more of them only fight for the cores."""
    with threadpool_limits(1), joblib.parallel_config(backend="threading", n_jobs=workers):
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
    model, grid = _regressor(head, rows.x.shape[1])
    folds = inner_folds(rows, rows.stratum, seed)
    return _search(model, grid, rows.x, rows.y, rows.weight, folds, "neg_mean_squared_error", rows.x.shape[1])


def _regressor(head: str, dim: int) -> tuple[Any, dict[str, tuple[float, ...]]]:
    grid = GRIDS[head]
    if head == "ridge":
        return Ridge(), grid
    return SVR(epsilon=_SVR_EPSILON), {**grid, "gamma": tuple(each / dim for each in grid["gamma"])}


def fit_classifier(rows: Rows, labels: np.ndarray, output: np.ndarray | None, seed: int) -> Fitted:
    """Fit a multinomial logistic regression of `labels`, chosen by log-likelihood on originals.

    It sees the features and, where `output` is given, the regressor's output for each row (`with_output`).
    There must be two labels at least.
    """
    folds = [
        (train, test) for train, test in inner_folds(rows, labels, seed) if len(np.unique(labels[train])) > 1
    ]
    model = LogisticRegression(max_iter=5000)
    x = with_output(rows.x, output)
    return _search(model, GRIDS["logistic"], x, labels, rows.weight, folds, _log_likelihood, rows.x.shape[1])


class ScaleFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Standardise the first `n_features` columns and leave the others as they are.

    scikit-learn's ColumnTransformer does this too, but starts a parallel job of its own inside every fit, and
    such jobs disturb each other's warning filters.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features

    def fit(self, x: np.ndarray, y: object = None) -> ScaleFeatures:
        self.scaler_ = StandardScaler().fit(x[:, : self.n_features])
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


def _search(
    model: Any,
    grid: dict[str, Any],
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    folds: Folds,
    scoring: Any,
    n_features: int,
) -> Fitted:
    """Choose settings over the folds and fit all rows; with no two folds the middle of the grid is taken.

    Columns of `x` behind the first `n_features` are left as they are.
    """
    scale = StandardScaler() if x.shape[1] == n_features else ScaleFeatures(n_features)
    pipeline = Pipeline([("scale", scale), ("head", model)])
    extra = {} if (weight == 1).all() else {"head__sample_weight": weight}
    if len(folds) < 2:
        middle = {name: values[len(values) // 2] for name, values in grid.items()}
        pipeline.set_params(**{f"head__{name}": value for name, value in middle.items()})
        return Fitted(pipeline.fit(x, y, **extra), middle, [])
    search = GridSearchCV(
        pipeline, {f"head__{name}": list(values) for name, values in grid.items()}, scoring=scoring, cv=folds
    )
    # scikit-learn sets the warning filters around every fit. They belong to the process, and two threads may
    # leave each other's behind.
    with warnings.catch_warnings():
        search.fit(x, y, **extra)
    chosen = {name: float(search.best_params_[f"head__{name}"]) for name in grid}
    on_edge = [name for name, values in grid.items() if chosen[name] in (values[0], values[-1])]
    return Fitted(search.best_estimator_, chosen, on_edge)


def out_of_fold(fitted: Fitted, rows: Rows, seed: int) -> np.ndarray:
    """Predict every row by the same pipeline fitted on the other folds; copies are in their picture's fold.

    What a regressor says of its own training pictures has seen their labels: a second stage that is trained
    on that learns to believe it, and is wrong on new pictures.
    """
    fold = deal_folds(rows.group, [rows.stratum], seed + _SECOND_STAGE, N_FOLDS)
    predicted = np.full(len(rows), float(np.average(rows.y, weights=rows.weight)))
    for each in np.unique(fold):
        inside = fold == each
        if inside.all():
            break
        extra = {} if (rows.weight == 1).all() else {"head__sample_weight": rows.weight[~inside]}
        model = clone(fitted.model).fit(rows.x[~inside], rows.y[~inside], **extra)
        predicted[inside] = model.predict(rows.x[inside])
    return predicted
