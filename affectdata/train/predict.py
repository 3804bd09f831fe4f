"""Predict the labels of images with a kept model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from affectdata.errors import DecodeError, InputError
from affectdata.images.decode import decode
from affectdata.store.files import read_regular
from affectdata.train.images import crop_square
from affectdata.train.kept import FrozenModel, KeptModel
from affectdata.train.losses import least_cost_scores
from affectdata.train.model_file import load_model
from affectdata.train.trunks import pool, run_trunk

Image = str | Path | np.ndarray
LEAST_SHARE = 0.5  # probability from which a label belongs to the predicted set
_NAMED_SHARES = 3  # in words
_BATCH = 32


def predict(model: str | Path | KeptModel, images: Sequence[Image]) -> pd.DataFrame:
    """Predict the labels of images with a kept model, one row per image.

    Columns: `image` (the path, or the index of an array), the targets (such as valence, POMP), `class` (the
    most likely one, the set of those from 0.5 on, joined by "+", or of classes with a polarity the one of
    least expected cost), and `p_<label>`, the probability of each class, or the share of raters who choose
    it. `model` is a kept model or its file; `images` are files or uint8 RGB arrays (height, width, 3),
    resized and cropped to the centre square as in training.

    Raises:
        InputError: an image cannot be read, or the file is not a kept model.
        MissingError: the weights of the model's backbone are not available.
    """
    loaded = load_model(model, note=_to_stderr) if isinstance(model, str | Path) else model
    if isinstance(images, str | Path):
        images = [images]
    values = [np.empty((0, len(loaded.targets)))]
    shares = [np.empty((0, len(loaded.labels)))]
    with torch.inference_mode():
        for squares in iter_squares(images, loaded.normalisation.size_px):
            predictions, logits = loaded(loaded.normalise(squares))
            values += [] if predictions is None else [predictions.cpu().numpy()]
            shares += [] if logits is None else [loaded.probabilities(logits).cpu().numpy()]
    names = [index if isinstance(image, np.ndarray) else str(image) for index, image in enumerate(images)]
    columns = {"image": names, **dict(zip(loaded.targets, np.concatenate(values).T, strict=True))}
    if loaded.labels:
        probabilities = np.concatenate(shares)
        columns["class"] = predicted_classes(loaded, probabilities)
        columns |= {
            f"p_{label}": column for label, column in zip(loaded.labels, probabilities.T, strict=True)
        }
    return pd.DataFrame(columns)


def predicted_classes(model: KeptModel, probabilities: np.ndarray) -> np.ndarray:
    """Return the predicted class of each image; of a model with several labels the set, joined by "+"."""
    labels = np.array(model.labels)
    if model.class_signs:
        probabilities = least_cost_scores(probabilities, np.array(model.class_signs))
    if not model.several_labels:
        return np.asarray(labels[probabilities.argmax(1)])
    return np.array(["+".join(labels[row >= LEAST_SHARE]) for row in probabilities], object)


def labels_text(model: KeptModel, row: pd.Series) -> str:
    """Return a prediction, a row of `predict`, in words: its class, its set of labels, or its shares."""
    if model.are_shares or model.several_labels:
        ranked = sorted(model.labels, key=lambda label: -row[f"p_{label}"])
        named = {*str(row["class"]).split("+")} if model.several_labels else {*ranked[:_NAMED_SHARES]}
        listed = [f"{label} {row[f'p_{label}']:.0%}" for label in ranked if label in named]
        return ", ".join(listed) or f"no label from 50 % on; {ranked[0]} {row[f'p_{ranked[0]}']:.0%}"
    return f"{row['class']} ({row['p_' + row['class']]:.0%})"


def compute_features(model: FrozenModel, images: Sequence[Image]) -> np.ndarray:
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


def predict_values(model: FrozenModel, features: np.ndarray) -> np.ndarray:
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
