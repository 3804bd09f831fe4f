"""A kernel ridge on frozen features that predicts many columns of labels out of fold at the cost of one.

The kernel and its factorisation depend on the images alone; another column of labels (moved, permuted) is one
more right side. Settings are fixed, so that columns can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from affectdata.splits.folds import deal_folds
from affectdata.train.heads import N_FOLDS, NetworkScaler
from affectdata.train.rows import Rows

GAMMA, ALPHA = 0.5, 0.1  # kernel exp(-gamma d² / number of features), ridge penalty: about the best on GAPED
_BLOCK = 2048  # rows predicted at once


def predict_out_of_fold(rows: Rows, columns: np.ndarray, seed: int) -> np.ndarray:
    """Predict every column of `columns` (n, k) for every row, by a model of the other folds; groups whole."""
    fold = deal_folds(rows.group, [rows.stratum], seed, N_FOLDS)
    predicted = np.tile(columns.mean(0), (len(rows), 1))
    for number in np.unique(fold):
        test = fold == number
        if not test.all():
            predicted[test] = fit_predict(rows.take(~test), columns[~test], rows.features[test])
    return predicted


def fit_predict(train: Rows, columns: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fit all columns on the rows `train`, and predict them for the features `test`."""
    scaler = NetworkScaler(train.widths).fit(train.features)
    scaled = scaler.transform(train.features)
    kernel = _kernel(scaled, scaled)
    kernel[np.diag_indices_from(kernel)] += ALPHA
    middle = columns.mean(0)
    solution = cho_solve(cho_factor(kernel, overwrite_a=True), columns - middle)
    blocks = (_kernel(scaler.transform(part), scaled) for part in _blocks(test))
    return np.asarray(np.concatenate([block @ solution for block in blocks]) + middle)


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), _BLOCK):
        yield features[start : start + _BLOCK]


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.exp(-GAMMA / max(1, a.shape[1]) * np.maximum(squares, 0)))
