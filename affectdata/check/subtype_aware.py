"""The subtype-aware head as an arm of a split, with its controls; all are trained on the originals.

subtype_aware        the head (`train.subtype_aware`)
subtype_shuffled     the same with shuffled subtypes: what the additional step alone gives
subtype_clusters     the same with as many k-means clusters of the features
subtype_alone        the same on the probabilities of the subtypes alone, without the prediction
subtype_oracle       the same with the true subtype of every image: a bound, not a model
"""

from __future__ import annotations

from typing import Any

import numpy as np

from affectdata.check.arms import (
    SUBTYPE_ALONE,
    SUBTYPE_AWARE,
    SUBTYPE_CLUSTERS,
    SUBTYPE_ORACLE,
    SUBTYPE_SHUFFLED,
)
from affectdata.train.rows import Rows
from affectdata.train.subtype_aware import SubtypeAwareFits, can_fit, cluster_features, one_hot

Predicted = dict[str, tuple[np.ndarray, dict[str, Any]]]  # values and chosen settings by arm
_SHUFFLE, _CLUSTER = 4, 5  # added to the seed


def predict_subtype_arms(train: Rows, test: Rows, seed: int) -> Predicted:
    """Return the predictions of the head and its controls for `test`; none without subtypes in `train`."""
    if not can_fit(train):
        return {}
    labels = {
        SUBTYPE_AWARE: train.subtype,
        SUBTYPE_SHUFFLED: np.random.default_rng(seed + _SHUFFLE).permutation(train.subtype),
        SUBTYPE_CLUSTERS: cluster_features(train, len(np.unique(train.subtype)), seed + _CLUSTER),
    }
    fits = SubtypeAwareFits(train, labels, seed)
    heads = {name: fits.fit(name) for name in labels}
    heads[SUBTYPE_ALONE] = fits.fit(SUBTYPE_AWARE, alone=True)
    predicted = {name: (head.predict(test), head.report()) for name, head in heads.items()}
    oracle = fits.fit_oracle(SUBTYPE_AWARE)
    true = one_hot(test.subtype, oracle.labels)
    return {**predicted, SUBTYPE_ORACLE: (oracle.predict(test, true), {})}
