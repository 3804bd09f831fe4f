"""Heads for targets of several values per image, on frozen features: points, label sets, shares of raters.

Points: one regressor per column. Label sets: one logistic regression per label. Shares: multinomial logistic
regression on soft targets; a row occurs once for each class, with the share as its weight, which minimises
the cross-entropy of the shares and so their Kullback-Leibler divergence (Gao et al. (2017), Deep label
distribution learning, arXiv:1611.01731).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from affectdata.train.heads import (
    GRIDS,
    MAX_ITER,
    FittedHead,
    Fold,
    NetworkScaler,
    Setting,
    choose,
    fit_classifier,
    fit_regressor,
    inner_folds,
    scaled,
)
from affectdata.train.rows import Rows

_TOLERANCE = 1e-3  # of the search, ten times that of the final fit


@dataclass(frozen=True, eq=False)
class PointHeads:
    """A regressor per column; a call predicts the points (n, columns) of rows."""

    heads: list[FittedHead]

    def __call__(self, rows: Rows) -> np.ndarray:
        return np.column_stack([head.predict(rows) for head in self.heads])


@dataclass(frozen=True, eq=False)
class LabelSetHeads:
    """A classifier per label, or the share of a label that all training rows have, or none.

    A call predicts the probabilities (n, labels) of rows.
    """

    heads: list[FittedHead | float]

    @property
    def classes_(self) -> np.ndarray:
        """The codes of the labels."""
        return np.arange(len(self.heads))

    def __call__(self, rows: Rows) -> np.ndarray:
        return np.column_stack(
            [
                np.full(len(rows), head) if isinstance(head, float) else head.shares(rows, None)[:, 1]
                for head in self.heads
            ]
        )


@dataclass(frozen=True, eq=False)
class ShareHead:
    """A classifier of the classes `used`, of `n_classes`; the others have a share of 0.

    A call predicts the shares (n, n_classes) of rows. There is no pipeline if one class has all shares.
    """

    pipeline: Any
    used: np.ndarray
    n_classes: int

    @property
    def classes_(self) -> np.ndarray:
        """The codes of the classes."""
        return np.arange(self.n_classes)

    def __call__(self, rows: Rows) -> np.ndarray:
        found = np.zeros((len(rows), self.n_classes))
        found[:, self.used] = self.pipeline.predict_proba(rows.features) if self.pipeline else 1.0
        return found


def fit_points(rows: Rows, points: np.ndarray, head: str, seed: int) -> PointHeads:
    """Fit `svr` or `ridge` for each column of `points` (n, columns)."""
    return PointHeads([fit_regressor(rows.with_target(column), head, seed) for column in points.T])


def fit_label_sets(rows: Rows, flags: np.ndarray, seed: int) -> LabelSetHeads:
    """Fit a head per column of `flags` (n, labels), 0 or 1."""
    columns = [flags[:, column].astype(int) for column in range(flags.shape[1])]
    return LabelSetHeads(
        [
            float(flag[0]) if flag.min() == flag.max() else fit_classifier(rows, flag, None, seed)
            for flag in columns
        ]
    )


def fit_shares(rows: Rows, shares: np.ndarray, seed: int) -> ShareHead:
    """Fit a head of `shares` (n, classes), which sum to 1.

    The penalty is chosen by the cross-entropy on originals. A class without any share in train gets 0.
    """
    used = np.flatnonzero(shares.sum(0) > 0)
    if len(used) == 1:
        return ShareHead(None, used, shares.shape[1])
    folds = [
        fold for fold in inner_folds(rows, rows.stratum, seed) if (shares[fold[0]][:, used].sum(0) > 0).all()
    ]
    chosen, _ = choose(GRIDS["logistic"], folds, partial(_errors, rows, shares[:, used]))
    scale = NetworkScaler(rows.widths)
    scale.fit(rows.features, sample_weight=rows.weight if rows.is_weighted else None)
    model = _fit(scale.transform(rows.features), shares[:, used], rows.weight, chosen["C"])
    return ShareHead(Pipeline([("scale", scale), ("head", model)]), used, shares.shape[1])


def _fit(
    x: np.ndarray, shares: np.ndarray, weight: np.ndarray, c: float, **options: float
) -> LogisticRegression:
    row, label = np.nonzero(shares)
    model = LogisticRegression(C=c, max_iter=MAX_ITER, **options)
    return model.fit(x[row], label, sample_weight=shares[row, label] * weight[row])


def _errors(rows: Rows, shares: np.ndarray, fold: Fold, settings: list[Setting]) -> list[float]:
    """Return the mean cross-entropy on the test side for each C, fitted on the train side."""
    train, test = fold
    a, b, weight = scaled(rows, fold)
    errors = []
    for (c,) in settings:
        found = _fit(a, shares[train], weight, c, tol=_TOLERANCE).predict_log_proba(b)
        errors.append(float(-(shares[test] * found).sum(1).mean()))
    return errors
