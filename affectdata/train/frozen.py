"""Heads on frozen features as the learner of a check (`evaluate.Learner`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from affectdata.train.heads import GRIDS, Fitted, fit_classifier, fit_regressor, out_of_fold
from affectdata.train.rows import Rows


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

    def on_features(self, regressor: Fitted, train: Rows) -> Fitted:
        return regressor

    def describe(self) -> dict[str, Any]:
        return {"mode": "frozen", "grids": GRIDS}
