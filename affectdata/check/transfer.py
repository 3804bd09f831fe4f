"""Transfer: both heads, trained on all originals, scored on the images of other manifests.

A head that gains by knowing the subtypes of one collection need not gain on another one, which has others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from affectdata.check import metrics
from affectdata.check.arms import SUBTYPE_AWARE
from affectdata.check.blocks import HeadTransfer, Interval, Transfer
from affectdata.check.scores import bootstrap_interval
from affectdata.train.heads import fit_regressor
from affectdata.train.rows import Rows
from affectdata.train.subtype_aware import can_fit, fit_subtype_aware


def score_transfer(originals: Rows, others: Mapping[str, Rows], seed: int) -> dict[str, Transfer]:
    """Return the scores of both heads by source."""
    if not others:
        return {}
    models: dict[str, Any] = {"plain": fit_regressor(originals, "svr", seed)}
    if can_fit(originals):
        models[SUBTYPE_AWARE] = fit_subtype_aware(originals, seed)
    scored = {}
    for name, rows in others.items():
        heads = {head: _score(rows, model.predict(rows), seed) for head, model in models.items()}
        scored[name] = Transfer(n=len(rows), **heads)
    return scored


def _score(rows: Rows, predicted: np.ndarray, seed: int) -> HeadTransfer:
    def interval(measure: Callable[[np.ndarray, np.ndarray], float]) -> Interval:
        def figure(index: np.ndarray) -> float:
            return measure(rows.target[index], predicted[index])

        return bootstrap_interval(figure, rows.group, rows.stratum, seed)

    return HeadTransfer(r2=interval(metrics.r2), pearson_r=interval(metrics.pearson_r))
