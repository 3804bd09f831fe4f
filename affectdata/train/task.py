"""What to train: the settings of a run, and examples, checked and brought to the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from affectdata.errors import InputError, UsageError
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network

LEAST_PART = 2  # images in one pass: batch norm needs two


@dataclass(frozen=True)
class Settings:
    """How to train. `steps` counts both phases; `epochs`, where given, replaces it.

    Networks of random weights want `head_steps` 0. `patience`: stop after so many points of the curve without
    a better validation loss, and take the best weights; points of the first phase do not count.

    Raises:
        UsageError: a value that makes no sense.
    """

    loss: str = "squared_error"
    steps: int = 600
    head_steps: int = 100  # the first of the steps: the last layer alone
    epochs: float | None = None
    lr_head: float = 1e-3
    lr_body: float = 1e-4
    weight_decay: float = 0.01
    dropout: float = 0.0  # in front of the last layer
    batch: int = 32
    class_weights: tuple[float, ...] | None = None  # a mean of 1 keeps what the learning rates mean
    patience: int | None = None
    every: int = 50  # steps between points of the curve
    seed: int = 0

    def __post_init__(self) -> None:
        has_classes = find_loss(self.loss).has_classes
        rules = {
            "steps and epochs are positive": self.steps > 0 and (self.epochs is None or self.epochs > 0),
            "head_steps is not negative": self.head_steps >= 0,
            "rates and weight decay are not negative": min(self.lr_head, self.lr_body, self.weight_decay)
            >= 0,
            "dropout is from 0 to below 1": 0 <= self.dropout < 1,
            f"batch is {LEAST_PART} at least": self.batch >= LEAST_PART,
            "every and patience are 1 at least": self.every > 0
            and (self.patience is None or self.patience > 0),
            f"{self.loss} has no classes to weigh": has_classes or self.class_weights is None,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UsageError(f"settings of training: {'; '.join(broken)}", where=repr(self))

    def count_steps(self, n_rows: int) -> int:
        """Return the number of steps for so many rows."""
        return self.steps if self.epochs is None else math.ceil(self.epochs * n_rows / self.batch)


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of the images with their targets, as `losses` describes them, and weights [default: 1 each].

    `outputs`: what the regressor says of each row (POMP), for a network that takes it; of rows that it was
    trained on, said out of fold.
    """

    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None
    outputs: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Held:
    """Examples as tensors on the device; the weights have a mean of 1. `rows` stay where the images are."""

    rows: np.ndarray
    targets: Tensor
    weights: Tensor
    outputs: Tensor | None


def hold_examples(network: Network, images: np.ndarray, examples: Examples, loss: str) -> Held:
    """Check examples and bring them to the device.

    Raises:
        InputError: rows, targets, weights and outputs do not fit each other, the images or the network.
    """
    rows = np.asarray(examples.rows)
    check_images(network, images, rows)
    weights = np.ones(len(rows)) if examples.weights is None else np.asarray(examples.weights, np.float64)
    lengths = {"rows": len(rows), "targets": len(examples.targets), "weights": len(weights)}
    if len(set(lengths.values())) > 1 or not len(rows):
        raise InputError(f"examples of different numbers, or none: {lengths}")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise InputError("weights are finite, not negative, and not all 0")
    targets = find_loss(loss).encode(examples.targets, network.n_outputs)
    return Held(
        rows.astype(np.int64),
        targets.to(network.device),
        torch.from_numpy(weights / weights.mean()).float().to(network.device),
        hold_outputs(network, examples.outputs, len(rows)),
    )


def hold_outputs(network: Network, outputs: np.ndarray | None, n_rows: int) -> Tensor | None:
    """Bring the regressor's outputs to the device, where the network takes them.

    Raises:
        InputError: it takes none, or wants some, or they are not one finite number per row.
    """
    if (outputs is not None) != network.module.takes_output:
        wants = "wants" if outputs is None else "takes no"
        raise InputError(f"{network.name} {wants} output of a regressor", fix="see takes_output")
    if outputs is None:
        return None
    if np.shape(outputs) != (n_rows,) or not np.isfinite(outputs).all():
        raise InputError(f"outputs are {n_rows} finite numbers, one per row; got {np.shape(outputs)}")
    return torch.as_tensor(outputs, dtype=torch.float32).to(network.device)


def check_images(network: Network, images: np.ndarray, rows: np.ndarray) -> None:
    """Check that a network takes the images, and that there is one for every row.

    Raises:
        InputError: it does not, or there is not.
    """
    size = network.normalisation.size_px
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise InputError(
            f"{network.name} takes uint8 images (n, {size}, {size}, 3); got {images.dtype} {images.shape}",
            fix="build the network with the size_px of the images",
        )
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"rows are whole numbers, one per image; got {rows.dtype} {rows.shape}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(images):
        raise InputError(f"rows {rows.min()}–{rows.max()} of {len(images)} images")
