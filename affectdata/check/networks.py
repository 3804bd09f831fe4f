"""Arms that show what further networks add to the features of the first one; of originals, by an SVR.

first_network    the features of the first network alone
shuffled_network the first network's features, and those of the others in the order of other images
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from affectdata.check.arms import FIRST_NETWORK, SHUFFLED_NETWORK
from affectdata.check.subtype_aware import Predicted
from affectdata.train.heads import fit_regressor
from affectdata.train.rows import Rows

_SHUFFLE = 8  # added to the seed


def predict_network_arms(train: Rows, test: Rows, seed: int) -> Predicted:
    """Return the values and chosen settings of each arm for `test`; none with one network."""
    if len(train.widths) < 2:
        return {}
    n_first, rng = train.widths[0], np.random.default_rng(seed + _SHUFFLE)
    sides: dict[str, list[Rows]] = {FIRST_NETWORK: [], SHUFFLED_NETWORK: []}
    for rows in (train, test):
        first, others = np.split(rows.features, [n_first], axis=1)
        sides[FIRST_NETWORK].append(replace(rows, features=first, widths=()))
        shuffled = others[rng.permutation(len(rows))]
        sides[SHUFFLED_NETWORK].append(replace(rows, features=np.hstack([first, shuffled])))
    fitted = {name: fit_regressor(rows, "svr", seed) for name, (rows, _) in sides.items()}
    return {name: (fitted[name].predict(rows), fitted[name].report()) for name, (_, rows) in sides.items()}
