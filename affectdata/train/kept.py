"""Kept models: heads on a frozen backbone, saved in one safetensors file without pickle.

A model has a regressor, a classifier, or both; the classifier may take the regressor's prediction. The file
contains the tensors of the heads, named `regressor.…` and `classifier.…`, and in its header, under the key
`affectdata`, the JSON of a `Header`. It does not contain the backbone, only its name, weights name and hash.
"""

from __future__ import annotations

import hashlib
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
from torch import Tensor

from affectdata.config import StrictModel, parse_model
from affectdata.errors import DecodeError, InputError, IntegrityError, UsageError
from affectdata.hashing import canonical_json
from affectdata.images.decode import decode
from affectdata.store.atomic import replace_file
from affectdata.store.files import check_regular, read_regular
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.images import crop_square
from affectdata.train.plain_heads import PlainHead, plain_head
from affectdata.train.trunks import Note, pool, run_trunk
from affectdata.train.weights import is_class

SCHEMA: Literal["affectdata/model/1"] = "affectdata/model/1"
_KEY = "affectdata"
_SUFFIX = ".safetensors"
Stage = Literal["regressor", "classifier"]
Image = str | Path | np.ndarray
_BATCH = 32


class BackboneRef(StrictModel):
    """A backbone by name and weights; `content` is the hash of what determines its features."""

    name: str
    weights: str
    content: str


class Header(StrictModel):
    """The metadata of a model file; `heads` maps stages to kinds of head.

    `sha256` covers the other fields and the tensors; former versions wrote none.
    """

    form: Literal["affectdata/model/1"]
    targets: list[str]
    labels: list[str]
    backbone: BackboneRef
    heads: dict[Stage, str]
    sha256: str | None = None

    def with_hash(self, tensors: Mapping[str, Tensor]) -> Header:
        """Return the header with the hash over itself and the tensors."""
        digest = hashlib.sha256(canonical_json(self.model_dump(mode="json", exclude={"sha256"})).encode())
        for name, tensor in sorted(tensors.items()):
            array = tensor.numpy()
            digest.update(f"{name}:{array.dtype}:{array.shape}:".encode() + array.tobytes())
        return self.model_copy(update={"sha256": digest.hexdigest()})


@dataclass(frozen=True, eq=False)
class KeptModel:
    """Heads on a frozen backbone. `targets`: what the regressor predicts; `labels`: the classes."""

    backbone: Backbone
    heads: dict[Stage, PlainHead]
    targets: list[str]
    labels: list[str]

    def __call__(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Predict values (n, 1), POMP, and logits (n, k) for normalised images (n, 3, height, width)."""
        features = pool(torch.as_tensor(run_trunk(self.backbone.name, self.backbone.module, x)))
        values = self.heads["regressor"](features) if "regressor" in self.heads else None
        output = None if values is None else values[:, 0]
        return values, self.heads["classifier"](features, output) if "classifier" in self.heads else None


def make_model(
    backbone: Backbone, regressor: Any = None, classifier: Any = None, target: str = "valence"
) -> KeptModel:
    """Make a model from fitted heads (`plain_heads.plain_head`) on the features of a backbone.

    Raises:
        InputError: a model cannot be saved, or there is none.
    """
    models: dict[Stage, Any] = {"regressor": regressor, "classifier": classifier}
    heads = {stage: plain_head(model) for stage, model in models.items() if model is not None}
    if not heads:
        raise InputError(f"train has only one class of {target}: there is no model to save")
    labels = [] if classifier is None else [str(label) for label in classifier.classes_]
    return KeptModel(backbone, heads, [] if regressor is None else [target], labels)


def check_name(path: Path) -> None:
    """Check the file name of a model, before time is spent on training it.

    Raises:
        UsageError: the name does not end in .safetensors.
    """
    if path.suffix != _SUFFIX:
        raise UsageError(f"invalid model file name {path.name!r}", fix=f"use a name ending in {_SUFFIX}")


def keep_model(model: KeptModel, path: Path) -> None:
    """Write a model to a file atomically.

    Raises:
        UsageError: `path` does not end in .safetensors.
        InputError: the folder is not writable.
    """
    check_name(path)
    backbone = model.backbone
    header = Header(
        form=SCHEMA,
        targets=model.targets,
        labels=model.labels,
        backbone=BackboneRef(name=backbone.name, weights=backbone.weights, content=backbone.content),
        heads={stage: head.kind for stage, head in model.heads.items()},
    )
    tensors = {
        f"{stage}.{name}": value.contiguous()
        for stage, head in model.heads.items()
        for name, value in head.arrays.items()
    }
    header = header.with_hash(tensors)
    with replace_file(path) as temporary:
        save_file(tensors, temporary, {_KEY: canonical_json(header.model_dump(mode="json"))})


def load_model(
    path: str | Path,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    say: Note = lambda _: None,
) -> KeptModel:
    """Read a model. `weights`: the current path of its backbone's weights, if they were moved.

    If the backbone is a class in a Python file, the caller must name it by `backbone`: a model file alone
    never runs code.

    Raises:
        MissingError: the weights of the backbone, or the device, are not available.
        InputError: the file is not a kept model, its tensors do not match its header, or its backbone is a
            class and `backbone` is not given.
        IntegrityError: the file was changed, or the backbone differs from that of the saved model.
    """
    tensors, header = _read(Path(path))
    saved = header.backbone
    if backbone is None and is_class(saved.name):
        raise InputError(
            f"the model's backbone is a class in a file, {saved.name}, and a model file alone runs no code",
            where=str(path),
            fix=f"if you trust the file, use affectdata.train.kept.load_model(…, backbone={saved.name!r})",
        )
    network = load_backbone(backbone or saved.name, weights or saved.weights, device, say)
    if network.content != saved.content:
        raise IntegrityError(
            f"the backbone {saved.name} differs from the one that the model was saved with",
            where=str(path),
            fix="pass the original file by backbone= or weights=",
        )
    heads = {}
    for stage, kind in header.heads.items():
        prefix = f"{stage}."
        arrays = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
        heads[stage] = PlainHead(kind, arrays)
    return KeptModel(network, heads, header.targets, header.labels)


def _read(path: Path) -> tuple[dict[str, Tensor], Header]:
    fix = "pass a file written by --keep-model"
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
        tensors = load_file(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise InputError(f"{path.name} is not a kept model: {error}", where=str(path), fix=fix) from error
    if not isinstance(header, dict) or header.get("form") != SCHEMA:
        raise InputError(f"{path.name} does not have the form {SCHEMA}", where=str(path), fix=fix)
    parsed = parse_model(Header, header, str(path))
    if parsed.sha256 is not None and parsed != parsed.with_hash(tensors):
        raise IntegrityError(f"{path.name} is not the model that was kept", where=str(path), fix=fix)
    return tensors, parsed


def predict(model: str | Path | KeptModel, images: Sequence[Image]) -> pd.DataFrame:
    """Predict the labels of images with a kept model, one row per image.

    Columns: `image` (the path, or the index of an array), the targets (such as valence, POMP), `class` (the
    most likely one), and `p_<label>`, the probability of each class. `model` is a kept model or its file;
    `images` are files or uint8 RGB arrays (height, width, 3), resized and cropped to the centre square as in
    training.

    Raises:
        InputError: an image cannot be read, or the file is not a kept model.
        MissingError: the weights of the model's backbone are not available.
    """
    loaded = load_model(model, say=_to_stderr) if isinstance(model, str | Path) else model
    if isinstance(images, str | Path):
        images = [images]
    values = [np.empty((0, len(loaded.targets)))]
    shares = [np.empty((0, len(loaded.labels)))]
    with torch.inference_mode():
        for squares in iter_squares(images, loaded.backbone.normalisation.size_px):
            predictions, scores = loaded(loaded.backbone.normalise(squares))
            values += [] if predictions is None else [predictions.cpu().numpy()]
            shares += [] if scores is None else [scores.softmax(1).cpu().numpy()]
    names = [index if isinstance(image, np.ndarray) else str(image) for index, image in enumerate(images)]
    columns = {"image": names, **dict(zip(loaded.targets, np.concatenate(values).T, strict=True))}
    if loaded.labels:
        probabilities = np.concatenate(shares)
        columns["class"] = np.array(loaded.labels)[probabilities.argmax(1)]
        columns |= {
            f"p_{label}": column for label, column in zip(loaded.labels, probabilities.T, strict=True)
        }
    return pd.DataFrame(columns)


def compute_features(model: KeptModel, images: Sequence[Image]) -> np.ndarray:
    """Return the features (n, dim) of images by a model's backbone, as `predict` computes them.

    Raises:
        InputError: an image cannot be read.
    """
    backbone, parts = model.backbone, []
    with torch.inference_mode():
        for squares in iter_squares(images, backbone.normalisation.size_px):
            output = run_trunk(backbone.name, backbone.module, backbone.normalise(squares))
            parts.append(pool(torch.as_tensor(output)).cpu().numpy())
    return np.concatenate(parts)


def predict_values(model: KeptModel, features: np.ndarray) -> np.ndarray:
    """Return what the regressor of a model predicts from features (n, dim), POMP."""
    with torch.inference_mode():
        x = torch.as_tensor(features, device=model.backbone.device)
        return np.asarray(model.heads["regressor"](x)[:, 0].cpu().numpy(), float)


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def iter_squares(images: Sequence[Image], size_px: int) -> Iterator[np.ndarray]:
    """Yield batches of uint8 images (n, size_px, size_px, 3).

    Raises:
        InputError: an image cannot be read.
    """
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        yield np.stack([crop_square(read_rgb(image), size_px) for image in batch])


def read_rgb(image: Image) -> np.ndarray:
    """Return the uint8 RGB pixels (height, width, 3) of a file, or an array unchanged.

    Raises:
        InputError: the file cannot be read, or the array has another type or shape.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"an image array must be uint8 (height, width, 3); got {image.dtype} {image.shape}",
                fix="pass RGB arrays or files",
            )
        return image
    try:
        return decode(read_regular(image)).rgb
    except (OSError, DecodeError) as error:
        raise InputError(f"cannot read image {image}: {error}", where=str(image)) from error
