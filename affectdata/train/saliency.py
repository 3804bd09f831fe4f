"""Saliency maps: the image regions behind a model's valence prediction and its most likely class.

Grad-CAM of the last layer with spatial positions: Selvaraju et al. (2017), arXiv:1610.02391; computed by
captum (extra `saliency`). Both signs are shown: red where a region raises valence or the class score, blue
where it lowers it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from affectdata.errors import InputError
from affectdata.images.decode import encode, resize
from affectdata.store.parquet import replace_file
from affectdata.train.backbones import Backbone
from affectdata.train.kept import Image, KeptModel, Stage, iter_squares
from affectdata.train.trunks import load_extra

_RED, _BLUE = np.array([255.0, 0.0, 0.0]), np.array([0.0, 0.0, 255.0])
_OPACITY = 0.6  # at the strongest position
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


def save_maps(model: KeptModel, images: Sequence[Image], folder: Path) -> list[Path]:
    """Write a PNG per image and stage, the map over the grey centre square; return the paths.

    A file name is the index of the image, the name of its file if it has one, and `valence` (the first
    target) or the most likely class.

    Raises:
        MissingError: captum is not installed.
        InputError: an image cannot be read, or the network has no layer with spatial positions.
    """
    captum, layer = load_extra("captum.attr", "saliency"), find_layer(model.backbone)
    squares = itertools.chain.from_iterable(iter_squares(images, model.backbone.normalisation.size_px))
    paths = []
    for number, (image, square) in enumerate(zip(images, squares, strict=True)):
        x = model.backbone.normalise(square[None])
        stem = f"{number:04d}" + ("" if isinstance(image, np.ndarray) else f"_{Path(image).stem}")
        for stage, column, name in _find_targets(model, x):
            heat = captum.LayerGradCam(_Stage(model, stage), layer).attribute(
                x.requires_grad_(), target=column, relu_attributions=False
            )
            path = folder / f"{stem}_{name}.png"
            with replace_file(path) as temporary:
                temporary.write_bytes(encode(draw_map(square, heat[0, 0].detach().cpu().numpy()), "png", 0))
            paths.append(path)
    return paths


def _find_targets(model: KeptModel, x: Tensor) -> list[tuple[Stage, int, str]]:
    """Return stage, output column and name of each map: the targets and the most likely class."""
    with torch.no_grad():
        _, scores = model(x)
    targets: list[tuple[Stage, int, str]] = [("regressor", 0, name) for name in model.targets]
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


def find_layer(backbone: Backbone) -> nn.Module:
    """Return the module with the last output (n, channels, h, w) of more than one position.

    Raises:
        InputError: there is none, or attention follows it, as in a ViT, where the map shows raw patches only.
    """
    trunk, size_px = backbone.module, backbone.normalisation.size_px
    outputs: list[tuple[nn.Module, bool]] = []  # in the order of execution

    def record(module: nn.Module, _: Any, output: Any) -> None:
        is_map = isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1
        outputs.append((module, is_map))

    hooks = [module.register_forward_hook(record) for module in trunk.modules()]
    try:
        with torch.no_grad():
            trunk(backbone.normalise(np.zeros((1, size_px, size_px, 3), np.uint8)))
    finally:
        for hook in hooks:
            hook.remove()
    last = max((index for index, (_, is_map) in enumerate(outputs) if is_map), default=-1)
    if last < 0 or any(type(module).__name__.endswith("Attention") for module, _ in outputs[last:]):
        raise InputError(
            f"{type(trunk).__name__} has no layer to draw a map of", fix="use a convolutional network"
        )
    return outputs[last][0]


def draw_map(square: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return the image in grey under a map (h, w), uint8 RGB; opacity scales with the map's largest value."""
    resized = resize(heat.astype(np.float32), square.shape[1], square.shape[0])
    strength = (resized / max(float(np.abs(resized).max()), 1e-12))[..., None]
    grey = np.repeat((square @ np.array(_GREY))[..., None], 3, 2)
    opacity = _OPACITY * np.abs(strength)
    return np.rint(grey * (1 - opacity) + np.where(strength > 0, _RED, _BLUE) * opacity).astype(np.uint8)
