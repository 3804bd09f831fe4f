"""Kept models: heads on a frozen backbone, in one safetensors file and no pickle.

A model has a regressor, a classifier, or both; the classifier may take what the regressor says. The file has
the heads' tensors, named `regressor.…` and `classifier.…`, and in its header, under the key `affectdata`, the
JSON of a `Header`. The backbone is not in it, only its name, the name of its weights and their hash.

Heads are plain arrays: what scikit-learn fitted is computed here, differentiable, in float64 on the CPU, so
that the numbers are scikit-learn's and saliency maps can be drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVR
from torch import Tensor

from affectdata.config import StrictModel, parse_model
from affectdata.errors import DecodeError, InputError, IntegrityError, UsageError
from affectdata.hashing import canonical_json
from affectdata.images.decode import decode
from affectdata.store.files import check_regular, read_regular
from affectdata.store.parquet import replace_file
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.heads import OUTPUT_MIDDLE, OUTPUT_UNIT
from affectdata.train.images import fit_square
from affectdata.train.trunks import Say, pool, run_body
from affectdata.train.weights import is_class

SCHEMA: Literal["affectdata/model/1"] = "affectdata/model/1"
_KEY = "affectdata"
_SUFFIX = ".safetensors"
Stages = Literal["regressor", "classifier"]
_ARRAYS = {
    "svr": {"mean", "scale", "intercept", "vectors", "dual", "gamma"},
    "logistic": {"mean", "scale", "intercept", "coef"},
}
Image = str | Path | np.ndarray
_BATCH = 32


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


class Frozen(StrictModel):
    """A backbone by name and weights; `content` is the hash of what decides its features."""

    name: str
    weights: str
    content: str


class Header(StrictModel):
    """What a file says beside its tensors; `heads` are the kinds of the heads."""

    form: Literal["affectdata/model/1"]
    targets: list[str]
    labels: list[str]
    backbone: Frozen
    heads: dict[Stages, str]


@dataclass(frozen=True, eq=False)
class KeptModel:
    """Heads on a frozen backbone. `targets`: what the regressor predicts; `labels`: of the classifier."""

    backbone: Backbone
    heads: dict[Stages, PlainHead]
    targets: list[str]
    labels: list[str]

    def __call__(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Say what is in normalised images (n, 3, height, width): values (n, 1), POMP, and class scores."""
        features = pool(torch.as_tensor(run_body(self.backbone.name, self.backbone.module, x)))
        values = self.heads["regressor"](features) if "regressor" in self.heads else None
        told = None if values is None else values[:, 0]
        return values, self.heads["classifier"](features, told) if "classifier" in self.heads else None


def make_model(
    backbone: Backbone, regressor: Any = None, classifier: Any = None, target: str = "valence"
) -> KeptModel:
    """Make a model of fitted pipelines of `heads` on the features of a backbone.

    Raises:
        InputError: a pipeline is another one than `heads` fits, or there is none.
    """
    found: dict[Stages, Any] = {"regressor": regressor, "classifier": classifier}
    heads = {stage: plain_head(pipeline) for stage, pipeline in found.items() if pipeline is not None}
    if not heads:
        raise InputError(f"one class of {target} in train: there is no model to keep")
    labels = [] if classifier is None else [str(label) for label in classifier.classes_]
    return KeptModel(backbone, heads, [] if regressor is None else [target], labels)


def check_name(path: Path) -> None:
    """Check that a model may be written to this path, before any time is spent on it.

    Raises:
        UsageError: it does not end in .safetensors.
    """
    if path.suffix != _SUFFIX:
        raise UsageError(f"{path.name} is no name of a model", fix=f"let it end in {_SUFFIX}")


def keep_model(model: KeptModel, path: Path) -> None:
    """Write a model, whole or not at all.

    Raises:
        UsageError: `path` does not end in .safetensors.
        InputError: the folder cannot be written.
    """
    check_name(path)
    backbone = model.backbone
    header = Header(
        form=SCHEMA,
        targets=model.targets,
        labels=model.labels,
        backbone=Frozen(name=backbone.name, weights=backbone.weights, content=backbone.content),
        heads={stage: head.kind for stage, head in model.heads.items()},
    )
    tensors = {
        f"{stage}.{name}": value.contiguous()
        for stage, head in model.heads.items()
        for name, value in head.arrays.items()
    }
    with replace_file(path) as temporary:
        save_file(tensors, temporary, {_KEY: canonical_json(header.model_dump(mode="json"))})


def load_model(
    path: str | Path,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    say: Say = lambda _: None,
) -> KeptModel:
    """Read a model. `weights` says where those of its backbone lie now, if not there.

    A backbone that is a class of a Python file is named by `backbone`: a model's word alone runs no code.

    Raises:
        MissingError: the weights of its backbone, or the device, are not there.
        InputError: the file is no kept model, its tensors are not what its header says, or its backbone is a
            class and no `backbone` is given.
        IntegrityError: the backbone is not the one that it was kept with.
    """
    tensors, header = _read(Path(path))
    kept = header.backbone
    if backbone is None and is_class(kept.name):
        raise InputError(
            f"the model's backbone is a class, {kept.name}, and a model runs no code on its own",
            where=str(path),
            fix=f"if you trust it: predict of affectdata.train.kept.load_model(…, backbone={kept.name!r})",
        )
    found = load_backbone(backbone or kept.name, weights or kept.weights, device, say)
    if found.content != kept.content:
        raise IntegrityError(
            f"the backbone {kept.name} is not the one that the model was kept with",
            where=str(path),
            fix="give the file that it was kept with, by backbone= or weights=",
        )
    heads = {}
    for stage, kind in header.heads.items():
        own = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{stage}.")}
        heads[stage] = PlainHead(kind, own)
    return KeptModel(found, heads, header.targets, header.labels)


def _read(path: Path) -> tuple[dict[str, Tensor], Header]:
    fix = "give a file that `keep_model` wrote"
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get(_KEY, "null"))
        tensors = load_file(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise InputError(f"{path.name} is no kept model: {error}", where=str(path), fix=fix) from error
    if not isinstance(said, dict) or said.get("form") != SCHEMA:
        raise InputError(f"{path.name} is not of the form {SCHEMA}", where=str(path), fix=fix)
    return tensors, parse_model(Header, said, str(path))


def predict(model: str | Path | KeptModel, images: Sequence[Image]) -> pd.DataFrame:
    """Return one row per image: `image`, the targets (valence, POMP), `class`, and `p_<label>` per class.

    `model` is a kept model or its file; `images` are files or uint8 RGB arrays (height, width, 3), cut to the
    middle square as in training. `image` is the path, or the number of an array; `class` the likeliest.

    Raises:
        InputError: an image cannot be read, or the file is no kept model.
        MissingError: the weights of the model's backbone are not there.
    """
    kept = load_model(model, say=_to_stderr) if isinstance(model, str | Path) else model
    if isinstance(images, str | Path):
        images = [images]
    values = [np.empty((0, len(kept.targets)))]
    shares = [np.empty((0, len(kept.labels)))]
    with torch.inference_mode():
        for squares in iter_squares(images, kept.backbone.normalisation.size_px):
            said, scores = kept(kept.backbone.normalise(squares))
            values += [] if said is None else [said.cpu().numpy()]
            shares += [] if scores is None else [scores.softmax(1).cpu().numpy()]
    names = [number if isinstance(each, np.ndarray) else str(each) for number, each in enumerate(images)]
    columns = {"image": names, **dict(zip(kept.targets, np.concatenate(values).T, strict=True))}
    if kept.labels:
        each = np.concatenate(shares)
        columns["class"] = np.array(kept.labels)[each.argmax(1)]
        columns |= {f"p_{label}": share for label, share in zip(kept.labels, each.T, strict=True)}
    return pd.DataFrame(columns)


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def iter_squares(images: Sequence[Image], size_px: int) -> Iterator[np.ndarray]:
    """Yield uint8 images (n, size_px, size_px, 3), a batch at a time.

    Raises:
        InputError: one cannot be read.
    """
    for start in range(0, len(images), _BATCH):
        yield np.stack([fit_square(read_rgb(each), size_px) for each in images[start : start + _BATCH]])


def read_rgb(image: Image) -> np.ndarray:
    """Return uint8 RGB pixels (height, width, 3) of a file, or an array as it is.

    Raises:
        InputError: it cannot be read, or the array is of another form.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"an image is uint8 (height, width, 3); got {image.dtype} {image.shape}",
                fix="give RGB arrays, or files",
            )
        return image
    try:
        return decode(read_regular(image)).rgb
    except (OSError, DecodeError) as error:
        raise InputError(f"cannot read the image {image}: {error}", where=str(image)) from error
