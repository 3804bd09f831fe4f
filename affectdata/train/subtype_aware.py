"""The subtype-aware head: a regressor that also estimates the subtype of an image, and uses it.

1. Kernel ridge (RBF) on standardised features predicts the target and, one against the rest, the subtypes.
2. A softmax with a temperature turns the scores of the subtypes into probabilities.
3. Ridge on the prediction, the probabilities and their products predicts the target. It is trained on
   predictions and probabilities out of fold: those of step 1 for its own training rows are too good.

Every setting is chosen inside the training rows, on folds that keep groups whole. Any other labels in place
of the subtypes give a control. The fitted steps equal scikit-learn's KernelRidge and Ridge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import solve
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from affectdata.train.heads import (
    OUTPUT_MIDDLE,
    Fold,
    NetworkScaler,
    Setting,
    choose,
    inner_folds,
    ridge_errors,
    scaled,
)
from affectdata.train.rows import Rows
from affectdata.train.svr import squared_distances

# The optimum on GAPED and OASIS is inside each grid. gamma is in units of 1 / number of features.
KERNEL_GRID = {"alpha": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "gamma": (0.05, 0.1, 0.2, 0.5, 1.0)}
TEMPERATURES = (0.05, 0.07, 0.1, 0.14, 0.2, 0.3)
STACK_ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_MOST_SUBTYPES, _LEAST_GROUPS = 50, 4
_MANY = 2000  # rows; with more, the settings of step 1 are chosen on two folds of five, for time
_STACK_SEED = 3  # added to the seed, so that the folds of step 3 differ from those of step 1


@dataclass(frozen=True, eq=False)
class KernelPart:
    """Fitted kernel ridge of some targets: its settings, dual coefficients (n, k) and intercepts (k,).

    `gamma` is that of the kernel, `setting` the point of the grid that it comes from.
    """

    setting: Setting
    gamma: float
    dual: np.ndarray
    intercept: np.ndarray
    on_edge: list[str]

    def __call__(self, squares: np.ndarray) -> np.ndarray:
        """Return predictions (m, k) from squared distances (m, n) to the training rows."""
        return np.asarray(np.exp(-self.gamma * squares) @ self.dual + self.intercept)


@dataclass(frozen=True, eq=False)
class SubtypeAware:
    """A fitted head. `vectors` are the standardised training rows, `labels` the subtypes.

    Predictions are limited to the range of the training targets (`low`, `high`): the probability of a class
    with few images hardly varies in training, and step 3 may extrapolate far for an image that has it.
    """

    scaler: StandardScaler
    vectors: np.ndarray
    value: KernelPart
    classes: KernelPart
    labels: np.ndarray
    low: float
    high: float
    temperature: float
    stack: Pipeline
    stack_edge: list[str]
    alone: bool = False  # whether the stack takes the probabilities alone

    def predict(self, rows: Rows, shares: np.ndarray | None = None) -> np.ndarray:
        """Return the prediction for each row; `shares` replaces the estimated probabilities (n, labels)."""
        squares = squared_distances(self.scaler.transform(rows.features), self.vectors)
        values = self.value(squares)[:, 0]
        if shares is None:
            shares = softmax(self.classes(squares) / self.temperature, axis=1)
        stacked = self.stack.predict(stack_columns(values, shares, self.alone))
        return np.asarray(np.clip(stacked, self.low, self.high))

    def report(self) -> dict[str, Any]:
        """Return the chosen settings as plain data."""
        chosen = {
            "alpha": self.value.setting[0],
            "gamma": self.value.gamma,
            "subtype_alpha": self.classes.setting[0],
            "subtype_gamma": self.classes.gamma,
            "temperature": self.temperature,
            "stack_alpha": self.stack[-1].alpha,
        }
        subtype_edge = [f"subtype_{name}" for name in self.classes.on_edge]
        return {**chosen, "on_edge": [*self.value.on_edge, *subtype_edge, *self.stack_edge]}


def stack_columns(values: np.ndarray, shares: np.ndarray, alone: bool = False) -> np.ndarray:
    """Return the inputs of step 3: the prediction, the probabilities, and their products."""
    if alone:
        return shares
    centred = (values - OUTPUT_MIDDLE)[:, None]
    return np.asarray(np.hstack([centred, shares, centred * shares]))


def one_hot(labels: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return a column per name: 1 for rows with that label, else 0."""
    return np.asarray(labels[:, None] == names[None, :], float)


def cluster_features(rows: Rows, n_clusters: int, seed: int) -> np.ndarray:
    """Return the k-means cluster of each row by its standardised features, as text."""
    x = NetworkScaler(rows.widths).fit_transform(rows.features)
    n_clusters = min(n_clusters, len(np.unique(x, axis=0)))
    return np.asarray(KMeans(n_clusters, n_init=1, random_state=seed % 2**32).fit(x).labels_.astype(str))


class SubtypeAwareFits:
    """Fits heads on the same rows with different labels; the kernel ridge of all of them is solved at once.

    `labelings` maps a name to a label per row. Rows weigh the same.
    """

    def __init__(self, rows: Rows, labelings: Mapping[str, np.ndarray], seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.names = {name: np.unique(labels) for name, labels in labelings.items()}
        hot = {name: one_hot(labels, self.names[name]) for name, labels in labelings.items()}
        self.targets = np.column_stack([rows.target, *hot.values()])
        ends = np.cumsum([1, *(part.shape[1] for part in hot.values())])
        self._columns = {name: slice(*ends[i : i + 2]) for i, name in enumerate(hot)}
        self.folds = inner_folds(rows, rows.stratum, seed)
        self.covered = np.concatenate([test for _, test in self.folds])
        self._solved: dict[tuple[int, Setting], np.ndarray] = {}
        self._squares: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.scaler = NetworkScaler(rows.widths).fit(rows.features)
        self.vectors = self.scaler.transform(rows.features)
        self.value = self._fit(slice(0, 1))

    def fit(self, name: str, *, alone: bool = False) -> SubtypeAware:
        """Fit a head with one of the labelings; `alone`: on the probabilities alone, a control."""
        classes = self._fit(self._columns[name])
        scores = self._out_of_fold(classes, self._columns[name])
        shares = {t: softmax(scores / t, axis=1) for t in TEMPERATURES}
        return self._head(name, classes, self._stack(shares, alone), alone)

    def fit_oracle(self, name: str) -> SubtypeAware:
        """Fit a head that is given the true labels: a bound, not a model. Predict with `shares`."""
        true = self.targets[self.covered, self._columns[name]]
        return self._head(name, self._fit(self._columns[name]), self._stack({1.0: true}, False))

    def _head(
        self, name: str, classes: KernelPart, stack: tuple[float, Pipeline, list[str]], alone: bool = False
    ) -> SubtypeAware:
        low, high = float(self.rows.target.min()), float(self.rows.target.max())
        parts = self.scaler, self.vectors, self.value, classes, self.names[name], low, high
        return SubtypeAware(*parts, *stack, alone)

    def _fit(self, columns: slice) -> KernelPart:
        """Choose the settings of kernel ridge by the squared error out of fold, and fit it on all rows."""
        few = self.folds[:2] if len(self.rows) > _MANY else self.folds
        chosen, on_edge = choose(KERNEL_GRID, few, partial(self._errors, columns))
        setting = chosen["alpha"], chosen["gamma"]
        gamma = setting[1] / self.vectors.shape[1]
        kernel = np.exp(-gamma * squared_distances(self.vectors, self.vectors))
        return KernelPart(setting, gamma, *_solve(kernel, setting[0], self.targets[:, columns]), on_edge)

    def _errors(self, columns: slice, fold: Fold, settings: list[Setting]) -> list[float]:
        true = self.targets[fold[1], columns]
        return [
            float(np.mean((self._predict(fold, setting)[:, columns] - true) ** 2)) for setting in settings
        ]

    def _predict(self, fold: Fold, setting: Setting) -> np.ndarray:
        """Return predictions of all targets for the test side of a fold."""
        number = int(fold[1][0])
        if (number, setting) not in self._solved:
            if number not in self._squares:
                a, b, _ = scaled(self.rows, fold)
                self._squares[number] = squared_distances(a, a), squared_distances(b, a)
            alpha, gamma = setting[0], setting[1] / self.vectors.shape[1]
            inside, outside = (np.exp(-gamma * squares) for squares in self._squares[number])
            dual, intercept = _solve(inside, alpha, self.targets[fold[0]])
            self._solved[number, setting] = outside @ dual + intercept
        return self._solved[number, setting]

    def _out_of_fold(self, part: KernelPart, columns: slice) -> np.ndarray:
        """Return predictions for the rows `covered`, each by the model that was not trained on it."""
        return np.concatenate([self._predict(fold, part.setting)[:, columns] for fold in self.folds])

    def _stack(self, shares: Mapping[float, np.ndarray], alone: bool) -> tuple[float, Pipeline, list[str]]:
        """Choose temperature and penalty of step 3 by squared error, and fit it on the rows `covered`.

        `shares` has the probabilities of these rows by temperature.
        """
        rows = self.rows.take(self.covered)
        values = self._out_of_fold(self.value, slice(0, 1))[:, 0]
        inputs = {
            t: replace(rows, features=stack_columns(values, part, alone), widths=())
            for t, part in shares.items()
        }

        def errors(fold: Fold, settings: list[Setting]) -> list[float]:
            found: dict[Setting, float] = {}
            for temperature in {setting[0] for setting in settings}:
                alphas: list[Setting] = [(alpha,) for t, alpha in settings if t == temperature]
                values = ridge_errors(inputs[temperature], fold, alphas)
                found |= {(temperature, *alpha): value for alpha, value in zip(alphas, values, strict=True)}
            return [found[setting] for setting in settings]

        grid = {"temperature": tuple(shares), "alpha": STACK_ALPHAS}
        chosen, on_edge = choose(grid, inner_folds(rows, rows.stratum, self.seed + _STACK_SEED), errors)
        stack = Pipeline([("scale", StandardScaler()), ("head", Ridge(alpha=chosen["alpha"]))])
        stack.fit(inputs[chosen["temperature"]].features, rows.target)
        return chosen["temperature"], stack, ["stack_alpha" if name == "alpha" else name for name in on_edge]


def _solve(kernel: np.ndarray, alpha: float, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return dual coefficients and intercepts of kernel ridge; the targets are centred."""
    intercept = targets.mean(0)
    penalised = kernel + alpha * np.eye(len(kernel))
    return np.asarray(solve(penalised, targets - intercept, assume_a="pos")), intercept


def can_fit(rows: Rows) -> bool:
    """Return whether there are 2 to 50 subtypes, and groups enough for folds within folds."""
    n_subtypes = len(np.unique(rows.subtype))
    return 1 < n_subtypes <= _MOST_SUBTYPES and len(np.unique(rows.group)) >= _LEAST_GROUPS


def fit_subtype_aware(rows: Rows, seed: int) -> SubtypeAware:
    """Fit the head on rows for which `can_fit` is true."""
    return SubtypeAwareFits(rows, {"subtype": rows.subtype}, seed).fit("subtype")
