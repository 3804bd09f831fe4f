"""Regressors that change the output of another one: calibrated, or stacked with a model of another source.

Both are fitted on predictions out of fold of the training rows. A regressor trained by squared error predicts
a narrower range than its targets have: calibration maps its predictions to the quantiles of the targets
(quantile mapping), and averages them with themselves. A stack is ridge on the prediction and the output of a
model that was trained on other images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from affectdata.train.heads import FittedHead, fit_regressor
from affectdata.train.rows import Rows

_N_KNOTS = 101
SHARE = 0.5  # of the way to the quantiles


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A regressor and the knots of its mapping: quantiles of its predictions, and those of the targets."""

    regressor: FittedHead
    predicted: np.ndarray
    true: np.ndarray

    def predict(self, rows: Rows) -> np.ndarray:
        """Return the calibrated prediction for each row; outside the knots the mapping is constant."""
        plain = self.regressor.predict(rows)
        return np.asarray(plain + SHARE * (np.interp(plain, self.predicted, self.true) - plain))


def fit_calibrated(regressor: FittedHead, out_of_fold: np.ndarray, rows: Rows) -> Calibrated:
    """Fit the mapping of a regressor on its predictions out of fold for its training rows."""
    levels = np.linspace(0, 1, _N_KNOTS)
    return Calibrated(regressor, np.quantile(out_of_fold, levels), np.quantile(rows.target, levels))


@dataclass(frozen=True, eq=False)
class Stacked:
    """A regressor, the model of another source, and ridge on their two outputs."""

    regressor: FittedHead
    source: FittedHead
    stack: FittedHead

    def predict(self, rows: Rows) -> np.ndarray:
        """Return the prediction for each row."""
        return self.combine(rows, self.regressor.predict(rows), self.source.predict(rows))

    def combine(self, rows: Rows, plain: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return the prediction from the regressor's and the other model's outputs for each row."""
        return self.stack.predict(replace(rows, features=np.column_stack([plain, outputs]), widths=()))


def fit_stacked(
    regressor: FittedHead,
    source: FittedHead,
    out_of_fold: np.ndarray,
    rows: Rows,
    seed: int,
    outputs: np.ndarray | None = None,
) -> Stacked:
    """Fit the stack on predictions out of fold; `outputs` replaces the other model's for the rows."""
    outputs = source.predict(rows) if outputs is None else outputs
    inputs = replace(rows, features=np.column_stack([out_of_fold, outputs]), widths=())
    return Stacked(regressor, source, fit_regressor(inputs, "ridge", seed))
