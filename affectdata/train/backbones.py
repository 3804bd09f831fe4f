"""Backbones: frozen trunks that turn an image into a feature vector. `trunks` lists the available names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.hashing import file_hash
from affectdata.train.packaged import DEFAULT_BACKBONE
from affectdata.train.trunks import Normalisation, Note, build_trunk, pool, run_trunk
from affectdata.train.weights import DEFAULT, state_hash

_CPU_BATCH = 4  # images per pass; the feature maps of 32 leave the CPU's cache: twice the time
PREPROCESSING = 1  # part of every key; increment when the same image would reach a network as other numbers


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network. `key` hashes everything that determines its features: weights, preprocessing, device.

    `content` is the same hash without the device, `weights_sha256` the hash of the weights alone.
    """

    name: str
    weights: str
    module: nn.Module
    normalisation: Normalisation
    device: torch.device
    key: str
    content: str
    weights_sha256: str

    def normalise(self, images: np.ndarray) -> Tensor:
        """Return images as the input tensor of the network, on its device."""
        return self.normalisation.apply(torch.from_numpy(images).to(self.device))

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return float32 features (n, dim) of uint8 RGB images (n, size_px, size_px, 3).

        Raises:
            InputError: the network cannot process the images, or its features are not finite.
        """
        size = _CPU_BATCH if self.device.type == "cpu" else max(1, len(images))
        parts = [images[start : start + size] for start in range(0, len(images), size)] or [images]
        with torch.inference_mode():
            outputs = [run_trunk(self.name, self.module, self.normalise(part)) for part in parts]
            features = torch.cat([pool(torch.as_tensor(output)).float().cpu() for output in outputs]).numpy()
        if not np.isfinite(features).all():
            raise InputError(f"{self.name} returns features that are not finite", where=self.weights)
        return np.asarray(features)


def load_backbone(
    name: str = DEFAULT_BACKBONE,
    weights: str = DEFAULT,
    device: str | None = None,
    note: Note = lambda _: None,
) -> Backbone:
    """Build a backbone with its weights; `note` is called before anything is downloaded.

    Raises:
        MissingError: the weights or the device are not available.
        InputError: the weights do not match the network, or a file is invalid.
        UsageError: no backbone has this name.
    """
    torch_device = choose_device(device)
    with torch.random.fork_rng(devices=[]):  # random weights are the same in every run
        torch.manual_seed(0)
        trunk = build_trunk(name, weights, note)
    module = trunk.module.requires_grad_(False).eval()
    module = module.to(torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights_hash = state_hash(module)
    parts = f"{PREPROCESSING} {name} {trunk.normalisation} {trunk.code} {torch_device.type} {weights_hash}"
    stem = re.sub(r"\W+", "_", Path(name).name)
    return Backbone(
        name,
        weights,
        module,
        trunk.normalisation,
        torch_device,
        f"{stem}-{file_hash(parts.encode())[:16]}",
        content_hash(trunk.normalisation, trunk.code, weights_hash),
        weights_hash,
    )


def content_hash(normalisation: Normalisation, code: str, weights_sha256: str) -> str:
    """Return the hash of what determines the features of a network, on any device."""
    return file_hash(f"{PREPROCESSING} {normalisation} {code} {weights_sha256}".encode())


def load_backbones(
    names: str | Sequence[str],
    weights: str | Sequence[str] = DEFAULT,
    device: str | None = None,
    note: Note = lambda _: None,
) -> list[Backbone]:
    """Build several backbones; `weights` are given for each of them in order, or DEFAULT for all.

    Raises:
        UsageError: a name occurs twice, or there are not as many weights as names; else as `load_backbone`.
    """
    names = [names] if isinstance(names, str) else list(names)
    given = [weights] if isinstance(weights, str) else list(weights)
    if given == [DEFAULT]:
        given *= len(names)
    if not names or len(set(names)) < len(names):
        raise UsageError(f"--backbone must name different networks: {', '.join(names)}")
    if len(given) != len(names):
        raise UsageError(
            f"{len(names)} of --backbone, but {len(given)} of --weights",
            fix="give --weights once for every --backbone, in the same order; DEFAULT for published weights",
        )
    return [load_backbone(name, each, device, note) for name, each in zip(names, given, strict=True)]


def choose_device(name: str | None = None) -> torch.device:
    """Return the named device; without a name a GPU if there is one, else the CPU.

    Raises:
        MissingError: the device is not available.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise MissingError(
            f"device {name!r} is not available: {reason}", fix="use --device cpu, or omit --device"
        ) from error
    return device
