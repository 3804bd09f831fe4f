"""Support vector regression with an RBF kernel that is computed by matrix products.

scikit-learn's own takes the distance of one pair of rows at a time, in every fit and every prediction: with a
thousand features that is most of its time. The solution is that of libsvm on the same kernel.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.svm import SVR


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared distance of each row of `a` and each of `b`: (len(a), len(b))."""
    squares = np.asarray(a @ b.T)  # with itself, NumPy computes one half only
    squares *= -2
    squares += (a**2).sum(1)[:, None]
    squares += (b**2).sum(1)
    return np.asarray(np.maximum(squares, 0.0, out=squares))


def evaluate(fitted: SVR, kernel: np.ndarray) -> np.ndarray:
    """Return the predictions of an SVR on a precomputed kernel, (rows, training rows)."""
    return np.asarray(kernel[:, fitted.support_] @ fitted.dual_coef_[0] + fitted.intercept_)


class RbfSVR(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """scikit-learn's SVR(kernel="rbf"); `gamma` is a number."""

    def __init__(self, C: float = 1.0, gamma: float = 1.0, epsilon: float = 0.1) -> None:
        self.C, self.gamma, self.epsilon = C, gamma, epsilon

    def fit(self, x: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None = None) -> RbfSVR:
        """Fit the model; rows of weight 2 count as two rows."""
        svr = SVR(kernel="precomputed", C=self.C, epsilon=self.epsilon)
        svr.fit(np.exp(-self.gamma * squared_distances(x, x)), y, sample_weight=sample_weight)
        self.n_features_in_, self.support_vectors_ = x.shape[1], x[svr.support_]
        self.dual_coef_, self.intercept_ = svr.dual_coef_, svr.intercept_
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the prediction for each row."""
        kernel = np.exp(-self.gamma * squared_distances(x, self.support_vectors_))
        return np.asarray(kernel @ self.dual_coef_[0] + self.intercept_)
