"""What a study predicts, and the scores that fit it: the recipe's target, numeric or of classes.

Numeric: r2, ccc, mae, rmse, sd_ratio, macro_mae. Classes: accuracy, balanced_accuracy, macro_f1. A predictor
that never looks at the image (the mean of train, its most frequent class) is the baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from affectdata.check import metrics
from affectdata.check.image_pool import Originals
from affectdata.check.metrics import LABEL_MEASURES
from affectdata.train.heads import fit_classifier, fit_regressor
from affectdata.train.rows import Rows

Scores = dict[str, float]


class StudyTarget(Protocol):
    """A target. `values` are those of rows, in the form of the losses that are listed, the default first.

    `predicted` is an array with a row per image, as `fit_head` and `decode` return it; `errors` are per
    image, and `error` is the name of their mean.
    """

    @property
    def losses(self) -> tuple[str, ...]: ...
    @property
    def error(self) -> str: ...
    @property
    def takes_head(self) -> bool: ...
    @property
    def n_outputs(self) -> int: ...
    def values(self, rows: Rows) -> np.ndarray: ...
    def fit_head(self, train: Rows, head: str | None, seed: int) -> Head: ...
    def decode(self, outputs: np.ndarray) -> np.ndarray: ...
    def baseline(self, train: Rows, n: int) -> np.ndarray: ...
    def score(self, rows: Rows, predicted: np.ndarray) -> Scores: ...
    def errors(self, rows: Rows, predicted: np.ndarray) -> np.ndarray: ...
    def confusion(self, rows: Rows, predicted: np.ndarray) -> list[dict[str, Any]]: ...


class Head(Protocol):
    """A model on frozen features."""

    def __call__(self, rows: Rows) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class NumberTarget:
    """One number, in POMP units."""

    edges: list[float]
    losses = ("squared_error", "polarity")
    error = "mae"
    n_outputs = 1
    takes_head = True

    def values(self, rows: Rows) -> np.ndarray:
        return rows.target

    def fit_head(self, train: Rows, head: str | None, seed: int) -> Head:
        return fit_regressor(train, head or "svr", seed).predict

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs[:, 0], float)

    def baseline(self, train: Rows, n: int) -> np.ndarray:
        return np.full(n, train.target.mean())

    def score(self, rows: Rows, predicted: np.ndarray) -> Scores:
        scores = {
            name: getattr(metrics, name)(rows.target, predicted)
            for name in ("r2", "ccc", "mae", "rmse", "sd_ratio")
        }
        return {**scores, "macro_mae": metrics.macro_mae(rows.target, predicted, self.edges)}

    def errors(self, rows: Rows, predicted: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(rows.target - predicted))

    def confusion(self, rows: Rows, predicted: np.ndarray) -> list[dict[str, Any]]:
        return []


@dataclass(frozen=True, eq=False)
class ClassTarget:
    """One of several classes; predictions are their codes."""

    labels: np.ndarray
    losses = ("cross_entropy",)
    error = "accuracy"
    takes_head = False

    @property
    def n_outputs(self) -> int:
        return len(self.labels)

    def values(self, rows: Rows) -> np.ndarray:
        return rows.stratum

    def fit_head(self, train: Rows, head: str | None, seed: int) -> Head:
        if len(np.unique(train.stratum)) == 1:
            return lambda rows: np.full(len(rows), train.stratum[0])
        fitted = fit_classifier(train, train.stratum, None, seed)
        return lambda rows: fitted.labels[fitted.shares(rows, None).argmax(1)]

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs.argmax(1))

    def baseline(self, train: Rows, n: int) -> np.ndarray:
        return np.full(n, np.bincount(train.stratum).argmax())

    def score(self, rows: Rows, predicted: np.ndarray) -> Scores:
        true, found = self.labels[rows.stratum], self.labels[predicted]
        return {name: compute(true, found) for name, compute in LABEL_MEASURES.items()}

    def errors(self, rows: Rows, predicted: np.ndarray) -> np.ndarray:
        return np.asarray(rows.stratum == predicted, float)

    def confusion(self, rows: Rows, predicted: np.ndarray) -> list[dict[str, Any]]:
        labels = self.labels.tolist()
        counts = metrics.confusion(self.labels[rows.stratum], self.labels[predicted], labels)
        return [
            {"true": true, "predicted": found, "n": int(counts[row, column])}
            for row, true in enumerate(labels)
            for column, found in enumerate(labels)
        ]


def find_target(originals: Originals) -> StudyTarget:
    """Return the target of a release."""
    if originals.edges is not None:
        return NumberTarget(originals.edges)
    return ClassTarget(np.array(originals.labels))
