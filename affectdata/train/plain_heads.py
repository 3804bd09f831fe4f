"""Heads as plain arrays: fitted models evaluated in torch, in float64 on the CPU.

So results equal scikit-learn's, they are differentiable for saliency maps, and a file needs no pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.linalg import block_diag
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from torch import Tensor

from affectdata.errors import InputError
from affectdata.train.heads import OUTPUT_MIDDLE, OUTPUT_UNIT
from affectdata.train.outputs import SHARE, Calibrated, Stacked
from affectdata.train.share_heads import LabelSetHeads, PointHeads, ShareHead
from affectdata.train.subtype_aware import SubtypeAware
from affectdata.train.svr import RbfSVR

Arrays = Mapping[str, Tensor]

# The arrays of each kind, and their shapes: a letter per axis; equal letters are equal sizes. mean, scale: of
# each column of features, and of the regressor's output if the head takes it.
_SVR = {"mean": "w", "scale": "w", "vectors": "nw", "dual": "n", "gamma": "", "intercept": "1"}
SHAPES = {
    "svr": _SVR,
    "points": {**_SVR, "dual": "nk", "gamma": "n", "intercept": "k"},  # a gamma for each vector
    "logistic": {"mean": "w", "scale": "w", "coef": "kw", "intercept": "k"},
    "calibrated": {**_SVR, "predicted": "q", "true": "q"},
    "stacked": {
        **_SVR,
        **{f"source_{name}": axes.replace("n", "m") for name, axes in _SVR.items()},
        "coef": "2",
        "offset": "",
    },
    "subtype_aware": {
        **_SVR,
        "subtype_gamma": "",
        "subtype_dual": "nk",
        "subtype_intercept": "k",
        "temperature": "",
        "low": "",
        "high": "",
        "coef": "s",
        "offset": "",
    },
}


class PlainHead:
    """A fitted head: its `kind`, one of `SHAPES`, and its `arrays`.

    Raises:
        InputError: the arrays do not match the kind.
    """

    def __init__(self, kind: str, arrays: Arrays) -> None:
        expected = SHAPES.get(kind, {})
        if set(arrays) != set(expected):
            raise InputError(
                f"arrays {', '.join(sorted(arrays))} do not belong to a head of kind {kind!r}",
                fix="expected " + (", ".join(sorted(expected)) or f"the kind {' or '.join(SHAPES)}"),
            )
        self.kind = kind
        self.arrays = {name: value.double() for name, value in arrays.items()}
        if not self._has_shapes(expected):
            raise InputError("the arrays of a head have inconsistent shapes")

    def _has_shapes(self, expected: Mapping[str, str]) -> bool:
        sizes = {"1": 1, "2": 2}
        for name, axes in expected.items():
            shape = self.arrays[name].shape
            if len(shape) != len(axes):
                return False
            if any(sizes.setdefault(axis, size) != size for axis, size in zip(axes, shape, strict=True)):
                return False
        return self.kind != "subtype_aware" or sizes["s"] == 1 + 2 * sizes["k"]

    @property
    def width(self) -> int:
        """Number of input columns."""
        return len(self.arrays["mean"])

    def __call__(self, features: Tensor, output: Tensor | None = None) -> Tensor:
        """Return values (n, columns), or logits (n, k), for features (n, dim).

        `output` (n,), the regressor's prediction, is used if the head has a column for it.

        Raises:
            InputError: the number of columns does not match.
        """
        x = features.double().cpu()
        if self.width == x.shape[1] + 1 and output is not None:
            x = torch.cat([x, output.double().cpu()[:, None]], 1)
        if x.shape[1] != self.width:
            raise InputError(f"the head takes {self.width} columns, got {x.shape[1]}")
        return _EVALUATE[self.kind](self.arrays, x)


def _squared_distances(arrays: Arrays, x: Tensor) -> Tensor:
    x, vectors = (x - arrays["mean"]) / arrays["scale"], arrays["vectors"]
    distances = x.square().sum(1)[:, None] - 2 * x @ vectors.T + vectors.square().sum(1)
    return distances.clamp(min=0)


def _svr(arrays: Arrays, x: Tensor) -> Tensor:
    kernel = (-arrays["gamma"] * _squared_distances(arrays, x)).exp()
    return (kernel @ arrays["dual"])[:, None] + arrays["intercept"]


def _points(arrays: Arrays, x: Tensor) -> Tensor:
    return (-arrays["gamma"] * _squared_distances(arrays, x)).exp() @ arrays["dual"] + arrays["intercept"]


def _logistic(arrays: Arrays, x: Tensor) -> Tensor:
    return (x - arrays["mean"]) / arrays["scale"] @ arrays["coef"].T + arrays["intercept"]


def _calibrated(arrays: Arrays, x: Tensor) -> Tensor:
    plain, knots, true = _svr(arrays, x), arrays["predicted"], arrays["true"]
    right = torch.searchsorted(knots, plain.detach(), right=True).clamp(1, len(knots) - 1)
    step = knots[right] - knots[right - 1]
    part = ((plain - knots[right - 1]) / torch.where(step > 0, step, 1.0)).clamp(0, 1)
    mapped = true[right - 1] + part * (true[right] - true[right - 1])
    return plain + SHARE * (mapped - plain)


def _stacked(arrays: Arrays, x: Tensor) -> Tensor:
    source = {name: arrays[f"source_{name}"] for name in _SVR}
    outputs = torch.cat([_svr(arrays, x), _svr(source, x)], 1)
    return (outputs @ arrays["coef"] + arrays["offset"])[:, None]


def _subtype_aware(arrays: Arrays, x: Tensor) -> Tensor:
    squares = _squared_distances(arrays, x)
    scores = (-arrays["subtype_gamma"] * squares).exp() @ arrays["subtype_dual"] + arrays["subtype_intercept"]
    shares = (scores / arrays["temperature"]).softmax(1)
    centred = _svr(arrays, x) - OUTPUT_MIDDLE
    columns = torch.cat([centred, shares, centred * shares], 1)
    stacked = columns @ arrays["coef"] + arrays["offset"]
    return stacked.clamp(arrays["low"], arrays["high"])[:, None]


_EVALUATE = {
    "svr": _svr,
    "points": _points,
    "logistic": _logistic,
    "calibrated": _calibrated,
    "stacked": _stacked,
    "subtype_aware": _subtype_aware,
}


def plain_head(model: Any) -> PlainHead:
    """Extract the parameters of a fitted pipeline of `heads`, or of another head of this package.

    Raises:
        InputError: it is another model.
    """
    if isinstance(model, Calibrated):
        kind, arrays = "calibrated", _svr_arrays(model.regressor.model)
        arrays |= {"predicted": model.predicted, "true": model.true}
    elif isinstance(model, Stacked):
        kind, arrays = "stacked", _svr_arrays(model.regressor.model)
        source = _svr_arrays(model.source.model)
        arrays |= {f"source_{name}": value for name, value in source.items()} | _linear(model.stack.model)
    elif isinstance(model, SubtypeAware):
        kind, arrays = "subtype_aware", _subtype_aware_arrays(model)
    elif isinstance(model, PointHeads):
        kind, arrays = "points", _points_arrays(model)
    elif isinstance(model, LabelSetHeads):
        kind, arrays = "logistic", _label_set_arrays(model)
    elif isinstance(model, ShareHead):
        kind, arrays = "logistic", _share_arrays(model)
    elif isinstance(model[-1], LogisticRegression):
        kind, arrays = "logistic", _logistic_arrays(model)
    else:
        kind, arrays = "svr", _svr_arrays(model)
    return PlainHead(kind, {name: torch.tensor(np.asarray(value)) for name, value in arrays.items()})


def _scaling(pipeline: Pipeline) -> dict[str, Any]:
    fitted = getattr(pipeline[0], "scaler_", pipeline[0])
    n_outputs = pipeline[-1].n_features_in_ - len(fitted.mean_)  # 1 if the last column is an output
    mean = np.append(fitted.mean_, [OUTPUT_MIDDLE] * n_outputs)
    return {"mean": mean, "scale": np.append(fitted.scale_, [OUTPUT_UNIT] * n_outputs)}


def _svr_arrays(pipeline: Pipeline) -> dict[str, Any]:
    svr = pipeline[-1]
    if not isinstance(svr, RbfSVR):
        raise InputError(
            f"a model with {type(svr).__name__} cannot be saved", fix="use RbfSVR or LogisticRegression"
        )
    fitted = {"vectors": svr.support_vectors_, "dual": svr.dual_coef_[0], "gamma": svr.gamma}
    return {**_scaling(pipeline), **fitted, "intercept": svr.intercept_}


def _logistic_arrays(pipeline: Pipeline) -> dict[str, Any]:
    coef, intercept = pipeline[-1].coef_, pipeline[-1].intercept_
    if len(coef) == 1:  # for two classes scikit-learn has the second one's only
        coef, intercept = np.vstack([np.zeros_like(coef), coef]), np.append(0.0, intercept)
    return {**_scaling(pipeline), "coef": coef, "intercept": intercept}


def _points_arrays(model: PointHeads) -> dict[str, Any]:
    """Return the regressors as one kernel over the vectors of all; those of another column have no weight."""
    parts = [_svr_arrays(head.model) for head in model.heads]
    n_vectors = [len(part["dual"]) for part in parts]
    return {
        **parts[0],  # the columns are those of the same rows, and scaled alike
        "vectors": np.concatenate([part["vectors"] for part in parts]),
        "dual": block_diag(*(part["dual"][:, None] for part in parts)),
        "gamma": np.repeat([float(part["gamma"]) for part in parts], n_vectors),
        "intercept": np.concatenate([part["intercept"] for part in parts]),
    }


def _label_set_arrays(model: LabelSetHeads) -> dict[str, Any]:
    """Return the classifiers as rows of one; a label of a fixed probability has an infinite intercept."""
    fitted = {at: head.model for at, head in enumerate(model.heads) if not isinstance(head, float)}
    if not fitted:
        raise _constant()
    first = _logistic_arrays(next(iter(fitted.values())))
    coef = np.zeros((len(model.heads), first["coef"].shape[1]))
    intercept = np.array([np.inf if head == 1.0 else -np.inf for head in model.heads])
    for at, pipeline in fitted.items():
        coef[at], intercept[at] = pipeline[-1].coef_[0], pipeline[-1].intercept_[0]
    return {**first, "coef": coef, "intercept": intercept}


def _share_arrays(model: ShareHead) -> dict[str, Any]:
    """Return the classifier with all classes; one without any share has an intercept of minus infinity."""
    if not model.pipeline:
        raise _constant()
    arrays = _logistic_arrays(model.pipeline)
    coef = np.zeros((model.n_classes, arrays["coef"].shape[1]))
    intercept = np.full(model.n_classes, -np.inf)
    coef[model.used], intercept[model.used] = arrays["coef"], arrays["intercept"]
    return {**arrays, "coef": coef, "intercept": intercept}


def _constant() -> InputError:
    return InputError("all training rows have the same labels: there is no model to save")


def _subtype_aware_arrays(model: SubtypeAware) -> dict[str, Any]:
    value, classes = model.value, model.classes
    return {
        "mean": model.scaler.mean_,
        "scale": model.scaler.scale_,
        "vectors": model.vectors,
        "dual": value.dual[:, 0],
        "gamma": value.gamma,
        "intercept": value.intercept,
        "subtype_dual": classes.dual,
        "subtype_gamma": classes.gamma,
        "subtype_intercept": classes.intercept,
        "temperature": model.temperature,
        "low": model.low,
        "high": model.high,
        **_linear(model.stack),
    }


def _linear(pipeline: Pipeline) -> dict[str, Any]:
    """Return ridge on standardised columns as coefficients of the columns themselves, and an offset."""
    scaler, ridge = pipeline
    coef = ridge.coef_ / scaler.scale_
    return {"coef": coef, "offset": ridge.intercept_ - coef @ scaler.mean_}
