"""Train every arm of a split for a target of several values, or of classes with a polarity.

Arms have one head, and `mean` is the baseline. As in `evaluate`, the target of the most similar training
image and a model of shuffled targets show leaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from affectdata.check.arms import MEAN, ORIGINALS
from affectdata.check.evaluate import (
    REGRESSOR,
    ArmResult,
    Curve,
    Learner,
    SplitEvaluation,
    most_similar,
    shuffle_targets,
)
from affectdata.check.prepare import Split
from affectdata.check.study_targets import Predict, StudyTarget
from affectdata.train.rows import Rows


@dataclass(frozen=True, eq=False)
class FittedTarget:
    """A fitted model of a target; `curve` is empty before the first prediction, and of heads."""

    predict: Predict
    curve: Curve


FitTarget = Callable[[Rows, StudyTarget], FittedTarget]


@dataclass(frozen=True, eq=False)
class EvaluateTarget:
    """Train every arm of a split and predict its test side; networks are trained by `fit`, if given."""

    target: StudyTarget
    learner: Learner
    fit: FitTarget | None = None

    @property
    def settings(self) -> list[Any]:
        """What determines the predictions, beside the rows."""
        values = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(self.target.values, float).tobytes())
        return [self.target.kind, self.target.outputs, values, self.learner.seed, self.learner.describe()]

    def __call__(self, split: Split) -> SplitEvaluation:
        fits: dict[tuple[bytes, bytes], FittedTarget] = {}
        arms = {name: self._arm(train, split.test, fits) for name, train in split.arms.items()}
        originals, test = split.arms[ORIGINALS], split.test
        mean = self.target.baseline(originals, len(test))
        arms[MEAN] = ArmResult(len(originals), {REGRESSOR: mean})
        true = self.target.true(originals)
        nearest = true[most_similar(test.features, originals.features)[0]]
        return SplitEvaluation(arms, nearest, self._shuffled(originals, test))

    def _arm(self, train: Rows, test: Rows, fits: dict[tuple[bytes, bytes], FittedTarget]) -> ArmResult:
        key = train.pool_index.tobytes(), train.weight.tobytes()
        if key not in fits:
            fits[key] = self.fit(train, self.target) if self.fit else self._fit_head(train)
        out = ArmResult(len(train), {REGRESSOR: fits[key].predict(test)})
        out.curves[REGRESSOR] = fits[key].curve
        return out

    def _fit_head(self, train: Rows) -> FittedTarget:
        return FittedTarget(self.target.fit(train, self.target.true(train), None, self.learner.seed), [])

    def _shuffled(self, train: Rows, test: Rows) -> tuple[np.ndarray, np.ndarray]:
        targets = self.target.true(train), self.target.true(test)
        of_train, of_test = shuffle_targets(train, test, targets, self.learner.seed)
        return of_test, self.target.fit(train, of_train, None, self.learner.seed)(test)
