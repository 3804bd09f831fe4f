"""Bodies: networks without their last layer, built by name, with the weights asked for and never another's.

By name: any classification model of torchvision, `timm:` and a model of timm (extra `timm`), `mobilenet_v1`
(`mobilenet_v1:8` for its first eight blocks), `small_cnn`, or `path.py:Class`. Weights: DEFAULT (its own),
`none` (random, always the same ones) or a file. Backbones freeze a body, networks train it.

MobileNetV1 is built here as Keras and TensorFlow build it, because torchvision does not have it: Howard et
al. (2017), MobileNets, arXiv:1704.04861, table 1; padding as TensorFlow's "SAME".
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.registry import suggest
from affectdata.train.weights import (
    DEFAULT,
    NONE,
    OTHER_WAYS,
    State,
    fetch_state,
    fit_state,
    is_class,
    load_class,
    read_state,
)

_SIZE_PX = 224
_OTHERS = "timm:NAME, mobilenet_v1, small_cnn, or path.py:Class"
Say = Callable[[str], None]
_WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)  # channels into block i; the last one out
_STRIDE_2 = (1, 3, 5, 11)  # blocks, from 0, that halve the map
MAX_BLOCKS = len(_WIDTHS) - 1
_BN_EPSILON = 1e-3  # Keras' default for this network, not torch's


def same_padding(size_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding before and after along one axis: the odd pixel goes after.

    >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(14, 3, 1)
    ((0, 1), (1, 1), (1, 1))
    """
    total = max((-(-size_px // stride) - 1) * stride + kernel - size_px, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does, by the size of what comes in."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (
            same_padding(size, self.kernel_size[axis], self.stride[axis])
            for axis, size in enumerate(x.shape[2:])
        )
        return super().forward(functional.pad(x, (*across, *down)))


class Unit(nn.Module):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = SameConv2d(n_in, n_out, kernel, stride, groups)
        self.bn = nn.BatchNorm2d(n_out, eps=_BN_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu6(self.bn(self.conv(x)))


class Block(nn.Module):
    """A depthwise 3 × 3 unit, then a pointwise 1 × 1 unit."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = Unit(n_in, n_in, 3, stride, groups=n_in)
        self.pointwise = Unit(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.pointwise(self.depthwise(x)))


class MobileNetV1(nn.Module):
    """The stem and the first `n_blocks` blocks: RGB in [-1, 1], (n, 3, h, w) → (n, channels, h', w')."""

    def __init__(self, n_blocks: int = MAX_BLOCKS) -> None:
        super().__init__()
        self.stem = Unit(3, _WIDTHS[0], 3, 2)
        self.blocks = nn.Sequential(
            *(Block(_WIDTHS[i], _WIDTHS[i + 1], 2 if i in _STRIDE_2 else 1) for i in range(n_blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.blocks(self.stem(x)))


@dataclass(frozen=True)
class Normalisation:
    """Size of the square that a network takes, and what its pixels, as 0–1, are shifted and divided by."""

    size_px: int = _SIZE_PX
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet, as torchvision's models expect it
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def apply(self, images: Tensor) -> Tensor:
        """Turn uint8 RGB (n, height, width, 3) into float32 (n, 3, height, width), on its device."""
        n, height, width, _ = images.shape
        mean, std = _constants(self, width, images.device)
        rows = images.reshape(n, height, width * 3).float().div_(255).sub_(mean).div_(std)
        return rows.view(images.shape).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)  # copying them to a GPU for every batch would make it wait
def _constants(normalisation: Normalisation, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and std of every number in a row of pixels: three times as fast as of three colours."""
    with torch.inference_mode(False):  # what is kept must be usable in training too
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).repeat(width)
            for values in (normalisation.mean, normalisation.std)
        )
    return mean, std


_SIGNED = Normalisation(_SIZE_PX, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # x / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Body:
    """A network without its last layer. `name` builds the same layers again; `code` hashes a user's file."""

    name: str
    module: nn.Module
    normalisation: Normalisation
    code: str = ""


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


def run_body(name: str, module: nn.Module, x: Tensor) -> Any:
    """Run a network, and say which one cannot take the images.

    Raises:
        InputError: it cannot.
        MissingError: the device has not the memory.
    """
    try:
        return module(x)
    except torch.cuda.OutOfMemoryError as error:
        raise MissingError(
            f"{len(x)} images at once do not fit into the memory of {x.device}",
            where=name,
            fix="take smaller batches, smaller images or a smaller network",
        ) from error
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InputError(
            f"{name} cannot take images of {tuple(x.shape)}: {error}",
            fix="a network wants images of its size or larger; a class may say its `size_px`, and its "
            "forward returns (n, features) or (n, channels, h, w)",
        ) from error


def pool(output: Tensor) -> Tensor:
    """Average a map over its places; flatten what is no map."""
    return output.mean((2, 3)) if output.ndim == 4 else output.flatten(1)


def build_body(name: str, weights: str, say: Say) -> Body:
    """Build a body with its weights; `say` is told before anything is fetched.

    Raises:
        MissingError: its weights or the extra that it needs are not there.
        InputError: the weights do not fit, or a file is not what it should be.
        UsageError: no network has that name.
    """
    kind, _, rest = name.partition(":")
    if kind in ("small_cnn", "mobilenet_v1") and weights == DEFAULT:
        raise MissingError(f"{kind} comes without weights", fix=OTHER_WAYS)
    state = None if weights in (DEFAULT, NONE) else read_state(weights)
    last: tuple[str, ...] = ()  # layers that weights are of, and a body lacks
    code = ""
    if is_class(name):
        module, code = load_class(name)
        normalisation = _normalisation(
            **{key: getattr(module, key, None) for key in ("size_px", "mean", "std")}
        )
    elif name == "small_cnn":
        module, normalisation = SmallCnn(), Normalisation(128)
    elif kind == "mobilenet_v1":
        n_blocks = _count_blocks(rest, state or {})
        name, module, normalisation = f"{kind}:{n_blocks}", MobileNetV1(n_blocks), _SIGNED
    elif kind == "timm":
        module, normalisation, last = _build_timm(rest, weights, say)
    else:
        module, normalisation, last, published = _build_torchvision(name)
        state = fetch_state(name, published, say) if weights == DEFAULT else state
    if state is not None:
        without = tuple(f"{layer}." for layer in last)
        fit_state(module, {key: each for key, each in state.items() if not key.startswith(without)}, weights)
    return Body(name, module, normalisation, code)


def _normalisation(size_px: Any = None, mean: Any = None, std: Any = None) -> Normalisation:
    usual = Normalisation()
    return Normalisation(int(size_px or usual.size_px), tuple(mean or usual.mean), tuple(std or usual.std))


def _count_blocks(asked: str, state: State) -> int:
    """Return how many blocks are asked for, else as many as the file has."""
    if asked and (not asked.isdecimal() or not 1 <= int(asked) <= MAX_BLOCKS):
        raise UsageError(f"mobilenet_v1 has no {asked!r} blocks", fix=f"mobilenet_v1:1 to :{MAX_BLOCKS}")
    if asked or not state:
        return int(asked or MAX_BLOCKS)
    found = [int(match[1]) for key in state if (match := re.match(r"blocks\.(\d+)\.", key))]
    return min(max(found, default=0) + 1, MAX_BLOCKS)


def _build_torchvision(name: str) -> tuple[nn.Module, Normalisation, tuple[str, ...], Any]:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown(name, ["mobilenet_v1", "small_cnn", *known], f"torchvision's models, {_OTHERS}")
    published = torchvision.models.get_model_weights(name).DEFAULT
    # What keeps two old models from warning, and with which their weights were trained.
    old = {"init_weights": True, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, **old)
    taken = published.transforms()
    normalisation = _normalisation(taken.crop_size[0], taken.mean, taken.std)
    return module, normalisation, (_remove_last_layer(module),), published


def _unknown(name: str, known: list[str], fix: str) -> UsageError:
    return UsageError(f"no backbone is called {name!r}", fix=f"{suggest(name, known)}{fix}")


def _remove_last_layer(module: nn.Module) -> str:
    """Replace the last layer that has weights, the one that tells classes apart; return its name."""
    layers = [
        name for name, each in module.named_modules() if isinstance(each, nn.Linear | nn.Conv2d) and name
    ]
    last: str = layers[-1]
    parent, _, leaf = last.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
    return last


def _build_timm(name: str, weights: str, say: Say) -> tuple[nn.Module, Normalisation, tuple[str, ...]]:
    timm = load_extra("timm", "timm")
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", [f"timm:{each}" for each in timm.list_models()], "timm.list_models()")
    config = timm.get_pretrained_cfg(name)
    fetched = weights == DEFAULT
    if fetched:
        say(f"fetching the weights of {name} where they are not kept yet; their licence: {config.license}")
    try:
        with redirect_stdout(sys.stderr):  # stdout is for results
            module = timm.create_model(name, pretrained=fetched, num_classes=0)
    except Exception as error:  # whatever its HTTP client raises
        what = "its weights could not be fetched" if fetched else "it could not be built"
        raise MissingError(f"timm:{name}: {what}: {error}", fix=OTHER_WAYS) from error
    taken = timm.data.resolve_model_data_config(module)
    last = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier)
    return module, _normalisation(taken["input_size"][1], taken["mean"], taken["std"]), last


def load_extra(module: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        MissingError: it is not installed; naming the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingError(f"{module} is not installed", fix=f"pip install 'affectdata[{extra}]'") from error
