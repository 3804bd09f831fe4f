"""Predict: what a kept model says of new pictures."""

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
from affectdata.train.kept import KeptModel, load_model
from affectdata.train.pictures import fit_square

Picture = str | Path | np.ndarray
_BATCH = 32


def predict(model: str | Path | KeptModel, images: Sequence[Picture]) -> pd.DataFrame:
    """Return one row per picture: `image`, the targets (valence, POMP), `class`, and `p_<label>` per class.

    `model` is a kept model or its file; `images` are files or uint8 RGB arrays (height, width, 3), cut to the
    middle square as in training. `image` is the path, or the number of an array; `class` the likeliest.

    Raises:
        InputError: a picture cannot be read, or the file is no kept model.
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


def iter_squares(images: Sequence[Picture], size_px: int) -> Iterator[np.ndarray]:
    """Yield uint8 pictures (n, size_px, size_px, 3), a batch at a time.

    Raises:
        InputError: one cannot be read.
    """
    for start in range(0, len(images), _BATCH):
        yield np.stack([fit_square(read_rgb(each), size_px) for each in images[start : start + _BATCH]])


def read_rgb(image: Picture) -> np.ndarray:
    """Return uint8 RGB pixels (height, width, 3) of a file, or an array as it is.

    Raises:
        InputError: it cannot be read, or the array is of another form.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"a picture is uint8 (height, width, 3); got {image.dtype} {image.shape}",
                fix="give RGB arrays, or files",
            )
        return image
    try:
        return decode(read_regular(image)).rgb
    except (OSError, DecodeError) as error:
        raise InputError(f"cannot read the picture {image}: {error}", where=str(image)) from error
