"""train.svr: the same solutions as scikit-learn's SVR."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.svm import SVR

from affectdata.train.svr import RbfSVR, squared_distances


@pytest.mark.parametrize("weighted", [False, True])
def test_it_equals_scikit_learns_svr(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(80, 12)), rng.normal(size=(30, 12))
    y = 50 + 10 * x[:, 0] + rng.normal(0, 3, 80)
    weight = rng.uniform(0.5, 3, 80) if weighted else None
    expected = SVR(C=20.0, gamma=0.04, epsilon=3.0).fit(x, y, sample_weight=weight)
    fitted = clone(RbfSVR(C=20.0, gamma=0.04, epsilon=3.0)).fit(x, y, sample_weight=weight)
    assert np.abs(fitted.predict(new) - expected.predict(new)).max() < 1e-6
    assert len(fitted.support_vectors_) == len(expected.support_vectors_) < 80


def test_targets_within_epsilon_need_no_support_vector() -> None:
    x = np.random.default_rng(0).normal(size=(9, 2))
    fitted = RbfSVR(C=1.0, gamma=1.0, epsilon=3.0).fit(x, np.full(9, 40.0))
    assert fitted.predict(x).tolist() == [40.0] * 9


def test_distances_are_those_of_each_pair() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 7, 5))
    assert squared_distances(a, b) == pytest.approx(((a[:, None] - b) ** 2).sum(2))
    assert squared_distances(a, a) == pytest.approx(((a[:, None] - a) ** 2).sum(2), abs=1e-12)
