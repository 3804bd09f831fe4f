"""Arms that change the output of the originals' regressor, and not its training set (`train.outputs`).

calibrated       half-way to the quantiles of the training targets
widened          stretched by 1.1 around the mean: the control of what gains by a wider output
stacked:NAME     ridge on the prediction and the output of a model of the manifest NAME
unstacked:NAME   the same with that output shuffled: what the additional step alone gives
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from affectdata.check.arms import CALIBRATED, STACKED, UNSTACKED, WIDENED
from affectdata.check.subtype_aware import Predicted
from affectdata.train.heads import FittedHead, fit_regressor
from affectdata.train.outputs import fit_calibrated, fit_stacked
from affectdata.train.rows import Rows

_STRETCH = 1.1
_SHUFFLE = 6  # added to the seed
_LEAST = 50  # images of another manifest that a model is trained on


def fit_sources(others: Mapping[str, Rows], seed: int) -> dict[str, FittedHead]:
    """Fit a regressor on the images of each other manifest that has enough of them."""
    return {name: fit_regressor(rows, "svr", seed) for name, rows in others.items() if len(rows) >= _LEAST}


def predict_output_arms(
    regressor: FittedHead,
    out_of_fold: np.ndarray,
    train: Rows,
    test: Rows,
    sources: Mapping[str, FittedHead],
    seed: int,
) -> Predicted:
    """Return the values and chosen settings of each arm for `test`.

    `regressor` is that of `train`, `out_of_fold` its predictions for these rows; `sources` are regressors of
    other manifests by name.
    """
    plain = regressor.predict(test)
    arms: Predicted = {
        CALIBRATED: (fit_calibrated(regressor, out_of_fold, train).predict(test), {}),
        WIDENED: (plain.mean() + _STRETCH * (plain - plain.mean()), {}),
    }
    rng = np.random.default_rng(seed + _SHUFFLE)
    for name, source in sources.items():
        stacked = fit_stacked(regressor, source, out_of_fold, train, seed)
        arms[STACKED + name] = stacked.predict(test), stacked.stack.report()
        inside, outside = (rng.permutation(source.predict(rows)) for rows in (train, test))
        control = fit_stacked(regressor, source, out_of_fold, train, seed, inside)
        arms[UNSTACKED + name] = control.combine(test, plain, outside), control.stack.report()
    return arms
