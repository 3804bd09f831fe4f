"""Saliency maps: the image regions behind a model's valence prediction and its most likely class.

Integrated gradients, Sundararajan et al. (2017), arXiv:1703.01365, computed by captum (extra `saliency`),
from an image of the mean colour of the network's normalisation. The attributions of all pixels add up to the
difference between the predictions for the image and for that baseline. They are summed over a grid of 28 × 28
cells. Both signs are shown: red where a region raises valence or the class score, blue where it lowers it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from affectdata.images.decode import encode, resize
from affectdata.store.atomic import write_bytes
from affectdata.train.kept import KeptModel, Stage
from affectdata.train.predict import Image, iter_squares
from affectdata.train.trunks import load_extra

GRID = 28  # cells of a map on each side
_STEPS, _BATCH = 32, 8  # points of the integral; points that go through the network at once
_RED, _BLUE = np.array([255.0, 0.0, 0.0]), np.array([0.0, 0.0, 255.0])
_OPACITY = 0.6  # at the strongest position
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


def save_maps(
    model: KeptModel, images: Sequence[Image], folder: Path, captions: Sequence[str] = ()
) -> list[Path]:
    """Write a PNG per image and stage, the centre square beside the map over it in grey; return the paths.

    A file name is the index of the image, the name of its file if it has one, the target or the most
    likely class, and the caption of the image if there are `captions`.

    Raises:
        MissingError: captum is not installed.
        InputError: an image cannot be read.
    """
    load_extra("captum.attr", "saliency")
    squares = itertools.chain.from_iterable(iter_squares(images, model.normalisation.size_px))
    paths = []
    for number, (image, square) in enumerate(zip(images, squares, strict=True)):
        stem = f"{number:04d}" + ("" if isinstance(image, np.ndarray) else f"_{Path(image).stem}")
        caption = f"_{captions[number]}" if captions else ""
        for stage, column, name in _find_targets(model, square):
            drawn = np.hstack([square, draw_map(square, attribute(model, square, stage, column))])
            path = folder / f"{stem}_{name}{caption}.png"
            write_bytes(path, encode(drawn, "png", 0))
            paths.append(path)
    return paths


def attribute(model: KeptModel, square: np.ndarray, stage: Stage, column: int) -> np.ndarray:
    """Return what each cell adds to an output of the model, (GRID, GRID) or fewer cells for a small image.

    `square` is a uint8 image (size_px, size_px, 3); the sum of the cells is the output for it minus that
    for the baseline, up to the error of the integral.

    Raises:
        MissingError: captum is not installed.
    """
    captum = load_extra("captum.attr", "saliency")
    x = model.normalise(square[None])
    pixels: Tensor = captum.IntegratedGradients(_Stage(model, stage)).attribute(
        x, baselines=torch.zeros_like(x), target=column, n_steps=_STEPS, internal_batch_size=_BATCH
    )
    cells = functional.adaptive_avg_pool2d(pixels.sum(1), min(GRID, square.shape[0]))[0]
    values = cells.detach().cpu().double().numpy()
    return np.asarray(values * (square.shape[0] * square.shape[1] / values.size))


def _find_targets(model: KeptModel, square: np.ndarray) -> list[tuple[Stage, int, str]]:
    """Return stage, output column and name of each map: the targets and the most likely class."""
    with torch.no_grad():
        _, scores = model(model.normalise(square[None]))
    targets: list[tuple[Stage, int, str]] = [
        ("regressor", column, name) for column, name in enumerate(model.targets)
    ]
    if scores is not None:
        column = int(scores[0].argmax())
        targets.append(("classifier", column, model.labels[column]))
    return targets


class _Stage(nn.Module):
    """One stage of a model as a module for captum: returns its values or scores."""

    def __init__(self, model: KeptModel, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.model(x)[self.stage == "classifier"])


def draw_map(square: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return the image in grey under a map (h, w), uint8 RGB; opacity scales with the map's largest value."""
    resized = resize(heat.astype(np.float32), square.shape[1], square.shape[0])
    strength = (resized / max(float(np.abs(resized).max()), 1e-12))[..., None]
    grey = np.repeat((square @ np.array(_GREY))[..., None], 3, 2)
    opacity = _OPACITY * np.abs(strength)
    return np.rint(grey * (1 - opacity) + np.where(strength > 0, _RED, _BLUE) * opacity).astype(np.uint8)
