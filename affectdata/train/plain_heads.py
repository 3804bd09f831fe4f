"""Heads as plain arrays: what scikit-learn fitted, computed here, so that a kept model is no pickle.

Differentiable, in float64 on the CPU: the same numbers as scikit-learn's, and maps of saliency can be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVR
from torch import Tensor

from affectdata.errors import InputError
from affectdata.train.heads import OUTPUT_MIDDLE, OUTPUT_UNIT

_ARRAYS = {
    "svr": {"mean", "scale", "intercept", "vectors", "dual", "gamma"},
    "logistic": {"mean", "scale", "intercept", "coef"},
}


class PlainHead:
    """A fitted head; `kind` is svr (RBF) or logistic, `arrays` hold its numbers.

    mean, scale: of every column, in the last place of the regressor's output, if it takes that;
    coef (k, width) or vectors (m, width), dual (m,) and gamma; intercept (k,).

    Raises:
        InputError: the arrays are not those of its kind.
    """

    def __init__(self, kind: str, arrays: Mapping[str, Tensor]) -> None:
        expected = _ARRAYS.get(kind, set())
        if set(arrays) != expected:
            raise InputError(f"a head of the kind {kind!r} has no such arrays: {', '.join(sorted(arrays))}")
        width = arrays["mean"].shape
        matrix = arrays["vectors" if kind == "svr" else "coef"]
        if arrays["scale"].shape != width or matrix.ndim != 2 or matrix.shape[1:] != width:
            raise InputError("the arrays of a head do not fit each other")
        self.kind = kind
        self.arrays = {name: value.double() for name, value in arrays.items()}

    @property
    def width(self) -> int:
        """How many columns it takes."""
        return len(self.arrays["mean"])

    def __call__(self, features: Tensor, output: Tensor | None = None) -> Tensor:
        """Return values (n, 1), or a logit per class (n, k), of features (n, dim).

        `output`, (n,), is what the regressor says; it is used where there is a column for it.
        """
        arrays, x = self.arrays, features.double().cpu()
        if self.width == x.shape[1] + 1 and output is not None:
            x = torch.cat([x, output.double().cpu()[:, None]], 1)
        if x.shape[1] != self.width:
            raise InputError(f"{x.shape[1]} columns for a head of {self.width}", fix="see takes_output")
        x = (x - arrays["mean"]) / arrays["scale"]
        if self.kind == "svr":
            vectors = arrays["vectors"]
            distance = x.square().sum(1)[:, None] - 2 * x @ vectors.T + vectors.square().sum(1)
            kernel = (-arrays["gamma"] * distance.clamp(min=0)).exp()
            return (kernel @ arrays["dual"])[:, None] + arrays["intercept"]
        return x @ arrays["coef"].T + arrays["intercept"]


def plain_head(pipeline: Any) -> PlainHead:
    """Take the numbers out of a fitted pipeline of `heads`: scaling, then SVR or logistic regression.

    Raises:
        InputError: it is another one.
    """
    scale, head = pipeline[0], pipeline[-1]
    fitted = getattr(scale, "scaler_", scale)
    told = head.n_features_in_ - len(fitted.mean_)  # 1 where the last column is the regressor's output
    arrays = {
        "mean": np.append(fitted.mean_, [OUTPUT_MIDDLE] * told),
        "scale": np.append(fitted.scale_, [OUTPUT_UNIT] * told),
        "intercept": head.intercept_,
    }
    if isinstance(head, SVR) and head.kernel == "rbf":
        kind = "svr"
        arrays |= {"vectors": head.support_vectors_, "dual": head.dual_coef_[0], "gamma": head._gamma}
    elif isinstance(head, LogisticRegression):
        kind, arrays["coef"] = "logistic", head.coef_
        if len(head.coef_) == 1:  # of two classes only the second has coefficients
            arrays["coef"] = np.vstack([np.zeros_like(head.coef_), head.coef_])
            arrays["intercept"] = np.append(0.0, head.intercept_)
    else:
        raise InputError(f"{type(head).__name__} cannot be kept", fix="SVR (rbf), or LogisticRegression")
    return PlainHead(kind, {name: torch.tensor(np.asarray(value)) for name, value in arrays.items()})
