"""Backbones: networks without their head, frozen, that turn a picture into a vector of features.

By name: any classification model of torchvision, `mobilenet_v1`, `small_cnn`, or `path.py:Class`. Weights:
DEFAULT (the network's own), `none` (random, always the same ones) or a file. Never another than asked for.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.hashing import file_hash
from affectdata.train.mobilenet_v1 import MAX_BLOCKS, MobileNetV1
from affectdata.train.weights import (
    DEFAULT,
    NONE,
    OTHER_WAYS,
    State,
    fetch_state,
    fit_state,
    load_class,
    read_state,
    state_hash,
)

DEFAULT_BACKBONE = "mobilenet_v3_large"
PREPROCESSING = 1  # part of every key; raised when the same picture would reach a network as other numbers
_SIZE_PX = 224


@dataclass(frozen=True)
class Normalisation:
    """Size of the square that a network takes, and what its pixels, as 0–1, are shifted and divided by."""

    size_px: int = _SIZE_PX
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet, as torchvision's models expect it
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


_SIGNED = Normalisation(_SIZE_PX, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # x / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network; `key` stands for all that decides its features: weights, preprocessing, device."""

    name: str
    weights: str
    module: nn.Module
    normalisation: Normalisation
    device: torch.device
    key: str

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 features (n, dim) of uint8 RGB pictures (n, size_px, size_px, 3).

        Raises:
            InputError: the network cannot take them, or gives what is no finite number.
        """
        like = {"dtype": torch.float32, "device": self.device}
        mean, std = (
            torch.tensor(values, **like)[:, None, None]  # type: ignore[arg-type]
            for values in (self.normalisation.mean, self.normalisation.std)
        )
        with torch.inference_mode():
            x = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float() / 255
            features = np.asarray(_pooled(self._run((x - mean) / std)).float().cpu().numpy())
        if not np.isfinite(features).all():
            raise InputError(f"{self.name} gives features that are no finite numbers", where=self.weights)
        return features

    def _run(self, x: Tensor) -> Tensor:
        try:
            return torch.as_tensor(self.module(x))
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.name} cannot take pictures of {tuple(x.shape)}: {error}",
                fix="a class may say its `size_px`; its forward returns (n, features) or (n, channels, h, w)",
            ) from error


def _pooled(output: Tensor) -> Tensor:
    """Average a map over its places; flatten what is no map."""
    return output.mean((2, 3)) if output.ndim == 4 else output.flatten(1)


class SmallCnn(nn.Module):
    """Four random convolutions, averaged at every depth: enough for colour and texture, to try things out."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        means = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            means.append(x.mean((2, 3)))
        return torch.cat(means, 1)


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
        module, normalisation, code = _build(name, weights, say)
    module.requires_grad_(False).eval().to(where)
    parts = f"{PREPROCESSING} {name} {normalisation} {code} {where.type} {state_hash(module)}"
    plain = re.sub(r"\W+", "_", Path(name).name)
    return Backbone(name, weights, module, normalisation, where, f"{plain}-{file_hash(parts.encode())[:16]}")


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


def _build(name: str, weights: str, say: Callable[[str], None]) -> tuple[nn.Module, Normalisation, str]:
    """Return the network without its head, what it takes, and the hash of its code where that is a user's."""
    if ".py:" in name:
        return _build_users(name, weights)
    if name == "mobilenet_v1":
        return _build_mobilenet_v1(weights), _SIGNED, ""
    if name == "small_cnn":
        return _build_small_cnn(weights), Normalisation(128), ""
    return *_build_torchvision(name, weights, say), ""


def _build_small_cnn(weights: str) -> nn.Module:
    if weights == DEFAULT:
        raise MissingError("small_cnn has no weights of its own", fix="--weights none takes random ones")
    module = SmallCnn()
    if weights != NONE:
        fit_state(module, read_state(weights), weights)
    return module


def _build_mobilenet_v1(weights: str) -> nn.Module:
    if weights == DEFAULT:
        raise MissingError("mobilenet_v1 comes without weights", fix=OTHER_WAYS)
    if weights == NONE:
        return MobileNetV1()
    state = read_state(weights)
    module = MobileNetV1(_count_blocks(state))
    fit_state(module, state, weights)
    return module


def _count_blocks(state: State) -> int:
    found = [int(match[1]) for key in state if (match := re.match(r"blocks\.(\d+)\.", key))]
    return min(max(found, default=0) + 1, MAX_BLOCKS)


def _build_users(name: str, weights: str) -> tuple[nn.Module, Normalisation, str]:
    """Build the class of a user's file, without arguments; it may say `size_px`, `mean` and `std`."""
    module, code = load_class(name)
    if weights not in (DEFAULT, NONE):
        fit_state(module, read_state(weights), weights)
    plain = Normalisation()
    normalisation = Normalisation(
        int(getattr(module, "size_px", plain.size_px)),
        tuple(getattr(module, "mean", plain.mean)),
        tuple(getattr(module, "std", plain.std)),
    )
    return module, normalisation, code


def _build_torchvision(
    name: str, weights: str, say: Callable[[str], None]
) -> tuple[nn.Module, Normalisation]:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        own = ["mobilenet_v1", "small_cnn", *known]
        close = difflib.get_close_matches(name, own, n=3)
        raise UsageError(
            f"no backbone is called {name!r}",
            fix=f"{f'did you mean {close}? ' if close else ''}"
            "torchvision's classification models, mobilenet_v1, small_cnn, or path.py:Class",
        )
    published = torchvision.models.get_model_weights(name).DEFAULT
    module = torchvision.models.get_model(name, weights=None, **_quiet(name))
    removed = _remove_last_layer(module)
    if weights != NONE:
        state = fetch_state(name, published, say) if weights == DEFAULT else read_state(weights)
        state = {key: value for key, value in state.items() if not key.startswith(f"{removed}.")}
        fit_state(module, state, weights)
    taken = published.transforms()
    return module, Normalisation(int(taken.crop_size[0]), tuple(taken.mean), tuple(taken.std))


def _quiet(name: str) -> dict[str, bool]:
    """Return the options that keep two old models from warning, and with which their weights were trained."""
    if name not in ("googlenet", "inception_v3"):
        return {}
    return {"init_weights": True, "transform_input": True}


def _remove_last_layer(module: nn.Module) -> str:
    """Replace the last layer that has weights, the one that tells classes apart; return its name."""
    layers = [
        name for name, each in module.named_modules() if isinstance(each, nn.Linear | nn.Conv2d) and name
    ]
    last: str = layers[-1]
    parent, _, leaf = last.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
    return last
