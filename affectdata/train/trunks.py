"""Network trunks (feature extractors) by name, with strictly matching weights.

A trunk is a network without its last layer. Names: `efficientnet_lite0` and `efficientnet_lite2` (see
`packaged`), any classification model of torchvision, `timm:NAME`, `mobilenet_v1` (`mobilenet_v1:8` for its
first eight blocks), `small_cnn`, or `path.py:Class`. Weights: DEFAULT (the published ones), `none` (random,
always the same) or a file. Backbones freeze a trunk, networks train it.

MobileNetV1 is built here as in Keras and TensorFlow, because torchvision does not have it: Howard et
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
from affectdata.train.packaged import PACKAGED, read_packaged, timm_names
from affectdata.train.weights import (
    DEFAULT,
    NONE,
    OTHER_WAYS,
    State,
    decode_state,
    fetch_state,
    is_class,
    load_class,
    load_strict,
    read_state,
)

_SIZE_PX = 224
_OTHERS = f"{', '.join(PACKAGED)}, timm:NAME, mobilenet_v1, small_cnn, or path.py:Class"
Note = Callable[[str], None]
_WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)  # input channels of block i, then the output
_STRIDE_2 = (1, 3, 5, 11)  # blocks, from 0, that halve the map
MAX_BLOCKS = len(_WIDTHS) - 1
_BN_EPSILON = 1e-3  # Keras' default for this network; torch's differs


def same_padding(size_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding before and after along one axis: the odd pixel goes after.

    >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(14, 3, 1)
    ((0, 1), (1, 1), (1, 1))
    """
    total = max((-(-size_px // stride) - 1) * stride + kernel - size_px, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads like TensorFlow, depending on the input size."""

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
    """Input size of a network, and the mean and std by which pixels in 0–1 are normalised."""

    size_px: int = _SIZE_PX
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # of ImageNet, as in torchvision's models
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def apply(self, images: Tensor) -> Tensor:
        """Convert uint8 RGB (n, height, width, 3) to float32 (n, 3, height, width), on the same device."""
        n, height, width, _ = images.shape
        mean, std = _constants(self, width, images.device)
        rows = images.reshape(n, height, width * 3).float().div_(255).sub_(mean).div_(std)
        return rows.view(images.shape).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)  # copying them to a GPU for every batch would stall it
def _constants(normalisation: Normalisation, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and std for every value in a row of pixels: three times as fast as per channel."""
    with torch.inference_mode(False):  # cached tensors must be usable in training too
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).repeat(width)
            for values in (normalisation.mean, normalisation.std)
        )
    return mean, std


_SIGNED = Normalisation(_SIZE_PX, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # x / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Trunk:
    """A network without its last layer. `name` builds the same layers again; `code` hashes a user's file."""

    name: str
    module: nn.Module
    normalisation: Normalisation
    code: str = ""


class SmallCnn(nn.Module):
    """Four convolutions, averaged at every depth: captures colour and texture, for quick trials."""

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


def run_trunk(name: str, module: nn.Module, x: Tensor, *more: Any) -> Any:
    """Run a network on images and what else it takes; errors name it.

    Raises:
        InputError: the network cannot process the images.
        MissingError: the device has too little memory.
    """
    try:
        return module(x, *more)
    except torch.cuda.OutOfMemoryError as error:
        raise MissingError(
            f"a batch of {len(x)} images does not fit in the memory of {x.device}",
            where=name,
            fix="use smaller batches, smaller images or a smaller network",
        ) from error
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise InputError(
            f"{name} cannot process images of shape {tuple(x.shape)}: {error}",
            fix="use images at least as large as the network requires; a class may define `size_px`, and its "
            "forward must return (n, features) or (n, channels, h, w)",
        ) from error


def pool(output: Tensor) -> Tensor:
    """Average a feature map (n, channels, h, w) over its positions; flatten any other output."""
    return output.mean((2, 3)) if output.ndim == 4 else output.flatten(1)


def build_trunk(name: str, weights: str, note: Note) -> Trunk:
    """Build a trunk with its weights; `note` is called before anything is downloaded.

    Raises:
        MissingError: the weights or a required extra are not available.
        InputError: the weights do not match the network, or a file is invalid.
        UsageError: no network has this name.
    """
    kind, _, rest = name.partition(":")
    if kind in ("small_cnn", "mobilenet_v1") and weights == DEFAULT:
        raise MissingError(f"{kind} has no published weights", fix=OTHER_WAYS)
    state = None if weights in (DEFAULT, NONE) else read_state(weights)
    removed: tuple[str, ...] = ()  # layers that the weights contain and the trunk lacks
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
    elif name in PACKAGED:
        packaged = PACKAGED[name]
        state = decode_state(read_packaged(packaged)) if weights == DEFAULT else state
        module, normalisation, removed = _build_timm(packaged.model, NONE, note)
        state = state and _rename(state, module)
    elif kind == "timm":
        module, normalisation, removed = _build_timm(rest, weights, note)
    else:
        module, normalisation, removed, published = _build_torchvision(name)
        state = fetch_state(name, published, note) if weights == DEFAULT else state
    if state is not None:
        prefixes = tuple(f"{layer}." for layer in removed)
        kept = {key: value for key, value in state.items() if not key.startswith(prefixes)}
        load_strict(module, kept, weights)
    return Trunk(name, module, normalisation, code)


def _normalisation(size_px: Any = None, mean: Any = None, std: Any = None) -> Normalisation:
    default = Normalisation()
    return Normalisation(
        int(size_px or default.size_px), tuple(mean or default.mean), tuple(std or default.std)
    )


def _count_blocks(requested: str, state: State) -> int:
    """Return the requested number of blocks; if there is none, the number in the weights file."""
    if requested and (not requested.isdecimal() or not 1 <= int(requested) <= MAX_BLOCKS):
        raise UsageError(
            f"mobilenet_v1 has no {requested!r} blocks",
            fix=f"use mobilenet_v1:1 to mobilenet_v1:{MAX_BLOCKS}",
        )
    if requested or not state:
        return int(requested or MAX_BLOCKS)
    indices = [int(match[1]) for key in state if (match := re.match(r"blocks\.(\d+)\.", key))]
    return min(max(indices, default=0) + 1, MAX_BLOCKS)


def _build_torchvision(name: str) -> tuple[nn.Module, Normalisation, tuple[str, ...], Any]:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise _unknown_name(
            name, [*PACKAGED, "mobilenet_v1", "small_cnn", *known], f"a torchvision model, {_OTHERS}"
        )
    published = torchvision.models.get_model_weights(name).DEFAULT
    # As in the training of their weights; without these two old models warn.
    old = {"init_weights": True, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
    module = torchvision.models.get_model(name, weights=None, **old)
    preset = published.transforms()
    normalisation = _normalisation(preset.crop_size[0], preset.mean, preset.std)
    return module, normalisation, (_remove_last_layer(module),), published


def _unknown_name(name: str, known: list[str], choices: str) -> UsageError:
    return UsageError(f"unknown backbone {name!r}", fix=f"{suggest(name, known)}use {choices}")


def _remove_last_layer(module: nn.Module) -> str:
    """Replace the classification layer (the last one with weights) by an identity; return its name."""
    layers = [
        name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d) and name
    ]
    last: str = layers[-1]
    parent, _, leaf = last.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
    return last


def _build_timm(name: str, weights: str, note: Note) -> tuple[nn.Module, Normalisation, tuple[str, ...]]:
    timm = load_extra("timm", "train")
    if not timm.is_model(name):
        known = [f"timm:{model}" for model in timm.list_models()]
        raise _unknown_name(f"timm:{name}", known, "a name of timm.list_models()")
    config = timm.get_pretrained_cfg(name)
    pretrained = weights == DEFAULT
    if pretrained:
        note(f"fetching the weights of {name} unless they are cached; licence: {config.license}")
    try:
        with redirect_stdout(sys.stderr):  # stdout is reserved for results
            module = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except Exception as error:  # whatever its HTTP client raises
        step = "download the weights of" if pretrained else "build"
        raise MissingError(f"could not {step} timm:{name}: {error}", fix=OTHER_WAYS) from error
    data = timm.data.resolve_model_data_config(module)
    removed = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier)
    return module, _normalisation(data["input_size"][1], data["mean"], data["std"]), removed


def _rename(state: State, module: nn.Module) -> State:
    """Return tensors by timm's names, whether they have these or those of a package."""
    stages = module.get_submodule("blocks").children()
    names = timm_names(state, [len(list(stage.children())) for stage in stages])
    return {names[key]: value for key, value in state.items()}


def load_extra(module: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        MissingError: it is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingError(f"{module} is not installed", fix=f"pip install 'affectdata[{extra}]'") from error
