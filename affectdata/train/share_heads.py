"""Heads for targets of several values per image, on frozen features: label sets and shares of raters.

Label sets: one logistic regression per label. Shares: multinomial logistic regression on soft targets; a row
stands once for each class, with the share as its weight, which minimises the cross-entropy of the shares and
so their Kullback-Leibler divergence (Gao et al. (2017), Deep label distribution learning, arXiv:1611.01731).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from affectdata.train.heads import (
    GRIDS,
    MAX_ITER,
    Fold,
    NetworkScaler,
    Setting,
    choose,
    fit_classifier,
    inner_folds,
    scaled,
)
from affectdata.train.rows import Rows

_TOLERANCE = 1e-3  # of the search, ten times that of the final fit
Predict = Callable[[Rows], np.ndarray]


def fit_label_sets(rows: Rows, flags: np.ndarray, seed: int) -> Predict:
    """Fit a head per column of `flags` (n, labels), 0 or 1; the result predicts probabilities (n, labels).

    A label that all training rows have, or none, gets its share there.
    """
    heads = [_fit_label(rows, flags[:, column].astype(int), seed) for column in range(flags.shape[1])]
    return lambda new: np.column_stack([head(new) for head in heads])


def _fit_label(rows: Rows, flag: np.ndarray, seed: int) -> Predict:
    if flag.min() == flag.max():
        return lambda new: np.full(len(new), float(flag[0]))
    fitted = fit_classifier(rows, flag, None, seed)
    return lambda new: fitted.shares(new, None)[:, 1]


def fit_shares(rows: Rows, shares: np.ndarray, seed: int) -> Predict:
    """Fit a head of `shares` (n, classes), which sum to 1; the result predicts shares of the same classes.

    The penalty is chosen by the cross-entropy on originals. A class without any share in train gets 0.
    """
    used = np.flatnonzero(shares.sum(0) > 0)
    if len(used) == 1:
        return lambda new: np.tile(np.eye(shares.shape[1])[used[0]], (len(new), 1))
    folds = [
        fold for fold in inner_folds(rows, rows.stratum, seed) if (shares[fold[0]][:, used].sum(0) > 0).all()
    ]
    chosen, _ = choose(GRIDS["logistic"], folds, partial(_errors, rows, shares[:, used]))
    scale = NetworkScaler(rows.widths)
    scale.fit(rows.features, sample_weight=rows.weight if rows.is_weighted else None)
    model = _fit(scale.transform(rows.features), shares[:, used], rows.weight, chosen["C"])
    pipeline = Pipeline([("scale", scale), ("head", model)])

    def predict(new: Rows) -> np.ndarray:
        found = np.zeros((len(new), shares.shape[1]))
        found[:, used] = pipeline.predict_proba(new.features)
        return found

    return predict


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
