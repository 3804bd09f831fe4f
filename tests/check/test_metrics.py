"""check.metrics: against scikit-learn, against values computed by hand, and invariances."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from affectdata.check import metrics

RATINGS = hnp.arrays(np.float64, st.integers(3, 40), elements=st.floats(0, 100, width=32))


def _pair(y: np.ndarray, seed: int = 0) -> np.ndarray:
    return y * 0.5 + np.random.default_rng(seed).normal(20, 10, len(y))


def test_doctests() -> None:
    assert doctest.testmod(metrics).failed == 0


@pytest.mark.slow
@given(RATINGS)
def test_regression_measures_equal_scikit_learn(y: np.ndarray) -> None:
    predicted = _pair(y)
    assert metrics.mse(y, predicted) == pytest.approx(reference.mean_squared_error(y, predicted))
    assert metrics.rmse(y, predicted) == pytest.approx(reference.root_mean_squared_error(y, predicted))
    assert metrics.mae(y, predicted) == pytest.approx(reference.mean_absolute_error(y, predicted))
    if y.std() > 1e-3:
        assert metrics.r2(y, predicted) == pytest.approx(reference.r2_score(y, predicted))
        assert metrics.pearson_r(y, predicted) == pytest.approx(np.corrcoef(y, predicted)[0, 1], abs=1e-9)


@pytest.mark.slow
@given(hnp.arrays(np.int64, st.integers(2, 60), elements=st.integers(0, 3)), st.integers(0, 9))
def test_class_measures_equal_scikit_learn(codes: np.ndarray, seed: int) -> None:
    names = np.array(["a", "b", "c", "d"])
    true = names[codes]
    predicted = np.random.default_rng(seed).choice(np.unique(true), len(true))
    assert metrics.accuracy(true, predicted) == pytest.approx(reference.accuracy_score(true, predicted))
    assert metrics.balanced_accuracy(true, predicted) == pytest.approx(
        reference.recall_score(true, predicted, average="macro", labels=np.unique(true), zero_division=0)
    )
    assert metrics.macro_f1(true, predicted) == pytest.approx(
        reference.f1_score(true, predicted, average="macro", zero_division=0)
    )
    expected = reference.confusion_matrix(true, predicted, labels=names)
    assert (metrics.confusion(true, predicted, list(names)) == expected).all()


def test_ccc_by_hand() -> None:
    y, predicted = np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    # covariance 4/3, variances 8/3 and 2/3, equal means
    assert metrics.ccc(y, predicted) == pytest.approx(2 * (4 / 3) / (8 / 3 + 2 / 3))
    assert metrics.ccc(y, predicted + 2) == pytest.approx(2 * (4 / 3) / (8 / 3 + 2 / 3 + 4))


@pytest.mark.slow
@given(RATINGS)
def test_ccc_is_symmetric_and_never_above_r(y: np.ndarray) -> None:
    predicted = _pair(y)
    if y.std() > 1e-3:
        assert metrics.ccc(y, predicted) == pytest.approx(metrics.ccc(predicted, y))
        assert abs(metrics.ccc(y, predicted)) <= abs(metrics.pearson_r(y, predicted)) + 1e-9


def test_macro_mae_counts_every_non_empty_bin_once() -> None:
    y = np.array([5.0, 5.0, 5.0, 95.0])
    predicted = np.array([6.0, 6.0, 6.0, 75.0])
    edges = [0, 50, 60, 100]
    assert metrics.macro_mae(y, predicted, edges) == pytest.approx((1 + 20) / 2)
    per_bin = metrics.mae_by(metrics.bin_codes(y, edges), 3, y, predicted)
    assert per_bin[0] == 1 and np.isnan(per_bin[1]) and per_bin[2] == 20


@pytest.mark.slow
@given(RATINGS)
def test_macro_mae_is_mae_with_one_bin(y: np.ndarray) -> None:
    assert metrics.macro_mae(y, _pair(y), [0, 100]) == pytest.approx(metrics.mae(y, _pair(y)))


def test_bins_are_closed_below_and_the_last_one_on_both_sides() -> None:
    assert metrics.bin_codes(np.array([0, 9.9, 10, 20, -3, 30]), [0, 10, 20]).tolist() == [0, 0, 1, 1, 0, 1]


def test_a_model_that_knows_only_the_subtype_has_no_r_within() -> None:
    subtypes = np.array(["a"] * 3 + ["b"] * 3)
    y = np.array([10.0, 20.0, 30.0, 70.0, 80.0, 90.0])
    baseline = metrics.subtype_means(y, subtypes, subtypes)
    assert baseline.tolist() == [20.0] * 3 + [80.0] * 3
    assert metrics.r2(y, baseline) > 0.9
    assert metrics.r2_within(y, baseline, subtypes) == 0
    assert np.isnan(metrics.r_within(y, baseline, subtypes))


def test_within_ignores_differences_between_subtypes() -> None:
    subtypes = np.array(["a"] * 3 + ["b"] * 3)
    y = np.array([10.0, 20.0, 30.0, 70.0, 80.0, 90.0])
    shifted = np.where(subtypes == "a", y + 500, y)
    assert metrics.r2_within(y, shifted, subtypes) == pytest.approx(1)
    assert metrics.r_within(y, shifted, subtypes) == pytest.approx(1)


def test_an_unseen_subtype_gets_the_mean_of_all() -> None:
    subtypes = np.array(["a", "b"])
    assert metrics.subtype_means(np.array([10.0, 30.0]), subtypes, np.array(["b", "c"])).tolist() == [
        30.0,
        20.0,
    ]


def test_a_measure_of_a_constant_is_nan_without_a_warning() -> None:
    constant, varying = np.full(4, 50.0), np.arange(4.0)
    assert np.isnan(metrics.r2(constant, varying))
    assert np.isnan(metrics.pearson_r(constant, varying))
    assert np.isnan(metrics.sd_ratio(constant, varying))
    assert metrics.sd_ratio(varying, constant) == 0
