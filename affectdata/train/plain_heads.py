"""Heads as plain arrays: what scikit-learn fitted, computed here, so that a kept model is no pickle.

Differentiable, in float64 on the CPU: the same numbers as scikit-learn's, and maps of saliency can be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectdata.errors import InputError
from affectdata.train.heads import with_output

_SCALE = {"mean", "scale", "told", "intercept"}
_ARRAYS = {
    "svr": _SCALE | {"vectors", "dual", "gamma"},
    "linear": _SCALE | {"coef"},
    "logistic": _SCALE | {"coef"},
}


class PlainHead:
    """A fitted head; `kind` is svr (RBF), linear or logistic, `arrays` hold its numbers.

    mean, scale: of every column; told: (shift, slope) of the column that holds the regressor's output;
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
            shift, slope = arrays["told"]
            x = torch.cat([x, (shift + slope * output.double().cpu())[:, None]], 1)
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
    """Take the numbers out of a fitted pipeline of `heads`: scaling, then SVR, ridge or logistic regression.

    Raises:
        InputError: it is another one.
    """
    scale, head = pipeline[0], pipeline[-1]
    kind = {"SVR": "svr", "Ridge": "linear", "LogisticRegression": "logistic"}.get(type(head).__name__, "")
    if len(pipeline) != 2 or not kind or (kind == "svr" and head.kernel != "rbf"):
        raise InputError(
            f"{type(head).__name__} cannot be kept", fix="SVR (rbf), Ridge or LogisticRegression"
        )
    if kind == "svr":
        own = {"vectors": head.support_vectors_, "dual": head.dual_coef_[0], "gamma": head._gamma}
        intercept = head.intercept_
    else:
        coef, intercept = np.atleast_2d(head.coef_), np.atleast_1d(head.intercept_)
        if kind == "logistic" and len(coef) == 1:  # of two classes only the second has coefficients
            coef = np.vstack([np.zeros_like(coef), coef])
            intercept = np.concatenate([[0.0], intercept])
        own = {"coef": coef}
    arrays = {**own, "intercept": intercept, "told": _told(), **_scaling(scale, head.n_features_in_)}
    return PlainHead(kind, {name: torch.tensor(np.asarray(value)) for name, value in arrays.items()})


def _scaling(scale: Any, width: int) -> dict[str, np.ndarray]:
    """Return mean and scale of all columns; those that are left as they are have 0 and 1."""
    fitted = getattr(scale, "scaler_", scale)
    rest = width - len(fitted.mean_)
    return {
        "mean": np.concatenate([fitted.mean_, np.zeros(rest)]),
        "scale": np.concatenate([fitted.scale_, np.ones(rest)]),
    }


def _told() -> np.ndarray:
    """Return shift and slope with which `with_output` puts an output into its column, as it is today."""
    at_0, at_1 = with_output(np.empty((2, 0)), np.array([0.0, 1.0]))[:, 0]
    return np.array([at_0, at_1 - at_0])
