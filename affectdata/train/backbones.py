"""Backbones: bodies, frozen, that turn an image into a vector of features; `bodies` says which there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affectdata.errors import InputError, MissingError
from affectdata.hashing import file_hash
from affectdata.train.trunks import Normalisation, build_body, pool, run_body
from affectdata.train.weights import DEFAULT, state_hash

DEFAULT_BACKBONE = "mobilenet_v3_large"
PREPROCESSING = 1  # part of every key; raised when the same image would reach a network as other numbers


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network; `key` stands for all that decides its features: weights, preprocessing, device.

    `content` stands for the same without the device.
    """

    name: str
    weights: str
    module: nn.Module
    normalisation: Normalisation
    device: torch.device
    key: str
    content: str

    def normalise(self, images: np.ndarray) -> Tensor:
        """Return images as the network takes them, on its device."""
        return self.normalisation.apply(torch.from_numpy(images).to(self.device))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return float32 features (n, dim) of uint8 RGB images (n, size_px, size_px, 3).

        Raises:
            InputError: the network cannot take them, or gives what is no finite number.
        """
        with torch.inference_mode():
            output = torch.as_tensor(run_body(self.name, self.module, self.normalise(images)))
            features = np.asarray(pool(output).float().cpu().numpy())
        if not np.isfinite(features).all():
            raise InputError(f"{self.name} gives features that are no finite numbers", where=self.weights)
        return features


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    weights: str = DEFAULT,
    device: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Backbone:
    """Build a backbone with its weights; `say` is told before anything is fetched from the network.

    Raises:
        MissingError: its weights or the device are not there.
        InputError: the weights do not fit, or a file is not what it should be.
        UsageError: no backbone has that name.
    """
    where = choose_device(device)
    with torch.random.fork_rng(devices=[]):  # random weights are the same ones in every run
        torch.manual_seed(0)
        body = build_body(name, weights, say)
    module = body.module.requires_grad_(False).eval().to(where)
    hashed = state_hash(module)
    parts = f"{PREPROCESSING} {name} {body.normalisation} {body.code} {where.type} {hashed}"
    content = f"{PREPROCESSING} {body.normalisation} {body.code} {hashed}"
    plain = re.sub(r"\W+", "_", Path(name).name)
    return Backbone(
        name,
        weights,
        module,
        body.normalisation,
        where,
        f"{plain}-{file_hash(parts.encode())[:16]}",
        file_hash(content.encode()),
    )


def choose_device(name: str | None = None) -> torch.device:
    """Return the device asked for, else a GPU where there is one.

    Raises:
        MissingError: it is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise MissingError(f"no device {name!r}: {first}", fix="--device cpu, or leave it out") from error
    return device
