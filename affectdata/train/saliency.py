"""Saliency: where in an image a model saw what it says of valence and of its likeliest class.

Grad-CAM of the last layer that still has places: Selvaraju et al. (2017), arXiv:1610.02391; computed by
captum (extra `saliency`). Both signs are shown: red where a place raises valence or the class's score, blue
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
from affectdata.train.kept import Image, KeptModel, Stages, iter_squares
from affectdata.train.trunks import load_extra

_RED, _BLUE = np.array([255.0, 0.0, 0.0]), np.array([0.0, 0.0, 255.0])
_OPACITY = 0.6  # of the strongest place
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601


def save_maps(model: KeptModel, images: Sequence[Image], folder: Path) -> list[Path]:
    """Write a PNG per image and stage: its grey middle square with the map over it; return the paths.

    Names are the number of the image, its file's name if it has one, and `valence` (the first target) or
    the likeliest class.

    Raises:
        MissingError: captum is not installed.
        InputError: an image cannot be read, or the network has no layer with places.
    """
    captum, layer = load_extra("captum.attr", "saliency"), find_layer(model.backbone)
    squares = itertools.chain.from_iterable(iter_squares(images, model.backbone.normalisation.size_px))
    written = []
    for number, (image, square) in enumerate(zip(images, squares, strict=True)):
        x = model.backbone.normalise(square[None])
        stem = f"{number:04d}" + ("" if isinstance(image, np.ndarray) else f"_{Path(image).stem}")
        for stage, column, what in _questions(model, x):
            heat = captum.LayerGradCam(_Asked(model, stage), layer).attribute(
                x.requires_grad_(), target=column, relu_attributions=False
            )
            path = folder / f"{stem}_{what}.png"
            with replace_file(path) as temporary:
                temporary.write_bytes(encode(draw_map(square, heat[0, 0].detach().cpu().numpy()), "png", 0))
            written.append(path)
    return written


def _questions(model: KeptModel, x: Tensor) -> list[tuple[Stages, int, str]]:
    """Return stage, column and name of what is asked: the first target and the likeliest class."""
    with torch.no_grad():
        _, scores = model(x)
    asked: list[tuple[Stages, int, str]] = [("regressor", 0, name) for name in model.targets]
    if scores is not None:
        column = int(scores[0].argmax())
        asked.append(("classifier", column, model.labels[column]))
    return asked


class _Asked(nn.Module):
    """A model as captum takes it: the values or the scores of one stage."""

    def __init__(self, model: KeptModel, stage: Stages) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.model(x)[self.stage == "classifier"])


def find_layer(backbone: Backbone) -> nn.Module:
    """Return the module that gives the last map (n, channels, h, w) of more than one place.

    Raises:
        InputError: there is none, or attention comes after it, as in a ViT: its map is that of raw patches.
    """
    body, size_px = backbone.module, backbone.normalisation.size_px
    ran: list[tuple[nn.Module, bool]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        is_map = isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1
        ran.append((module, is_map))

    hooks = [module.register_forward_hook(note) for module in body.modules()]
    try:
        with torch.no_grad():
            body(backbone.normalise(np.zeros((1, size_px, size_px, 3), np.uint8)))
    finally:
        for hook in hooks:
            hook.remove()
    last = max((at for at, (_, is_map) in enumerate(ran) if is_map), default=-1)
    if last < 0 or any(type(module).__name__.endswith("Attention") for module, _ in ran[last:]):
        raise InputError(f"{type(body).__name__} has no map to draw", fix="take a convolutional network")
    return ran[last][0]


def draw_map(square: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return the image in grey with a map (h, w) over it, uint8 RGB; the map's own range is the scale."""
    places = resize(heat.astype(np.float32), square.shape[1], square.shape[0])
    strength = (places / max(float(np.abs(places).max()), 1e-12))[..., None]
    grey = np.repeat((square @ np.array(_GREY))[..., None], 3, 2)
    opacity = _OPACITY * np.abs(strength)
    return np.rint(grey * (1 - opacity) + np.where(strength > 0, _RED, _BLUE) * opacity).astype(np.uint8)
