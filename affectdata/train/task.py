"""Settings and examples of a training run; validates examples and moves them to the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from affectdata.errors import InputError, UsageError
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network

MIN_PART = 2  # images in one pass: batch norm needs two


@dataclass(frozen=True)
class Settings:
    """Settings of a training run. `steps` counts both phases; `epochs`, if given, replaces it.

    Set `head_steps` to 0 for networks with random weights. `patience`: stop after this many points of the
    curve without a lower validation loss, and restore the best weights; points of the first phase do not
    count.

    Raises:
        UsageError: a value is out of range.
    """

    loss: str = "squared_error"
    steps: int = 600
    head_steps: int = 100  # the first steps, which train the output layer only
    epochs: float | None = None
    lr_head: float = 1e-3
    lr_trunk: float = 1e-4  # of the trunk
    weight_decay: float = 0.01
    dropout: float = 0.0  # before the output layer
    batch: int = 32
    class_signs: tuple[float, ...] | None = None  # of a loss with a polarity of classes
    class_weights: tuple[float, ...] | None = None  # with a mean of 1, learning rates keep their effect
    patience: int | None = None
    every: int = 50  # steps between points of the curve
    seed: int = 0

    def __post_init__(self) -> None:
        loss = find_loss(self.loss)
        has_classes = loss.has_classes
        rules = {
            "steps and epochs must be > 0": self.steps > 0 and (self.epochs is None or self.epochs > 0),
            "head_steps must be >= 0": self.head_steps >= 0,
            "learning rates and weight_decay must be >= 0": min(
                self.lr_head, self.lr_trunk, self.weight_decay
            )
            >= 0,
            "dropout must be >= 0 and < 1": 0 <= self.dropout < 1,
            f"batch must be >= {MIN_PART}": self.batch >= MIN_PART,
            "every and patience must be >= 1": self.every > 0
            and (self.patience is None or self.patience > 0),
            f"{self.loss} {'needs' if loss.takes_signs else 'takes no'} class_signs": loss.takes_signs
            == (self.class_signs is not None),
            f"{self.loss} takes no class_weights": has_classes or self.class_weights is None,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise UsageError(f"invalid training settings: {'; '.join(broken)}", where=repr(self))

    def count_steps(self, n_rows: int) -> int:
        """Return the number of steps for `n_rows` training rows."""
        return self.steps if self.epochs is None else math.ceil(self.epochs * n_rows / self.batch)


@dataclass(frozen=True, eq=False)
class Examples:
    """Row numbers of images, with targets as described in `losses` and weights [default: 1 each].

    `outputs`: the regressor's prediction per row (POMP), for a network that takes it; out-of-fold predictions
    for the rows that it was trained on.
    """

    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray | None = None
    outputs: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ExampleTensors:
    """Examples as tensors on the device; the weights have a mean of 1. `rows` stay on the CPU."""

    rows: np.ndarray
    targets: Tensor
    weights: Tensor
    outputs: Tensor | None


def prepare_examples(network: Network, images: np.ndarray, examples: Examples, loss: str) -> ExampleTensors:
    """Validate examples and move them to the device.

    Raises:
        InputError: rows, targets, weights and outputs do not match each other, the images or the network.
    """
    rows = np.asarray(examples.rows)
    check_images(network, images, rows)
    weights = np.ones(len(rows)) if examples.weights is None else np.asarray(examples.weights, np.float64)
    lengths = {"rows": len(rows), "targets": len(examples.targets), "weights": len(weights)}
    if len(set(lengths.values())) > 1 or not len(rows):
        raise InputError(f"examples need equally many rows, targets and weights, at least one: got {lengths}")
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise InputError("weights must be finite, >= 0, and not all 0")
    targets = find_loss(loss).encode(examples.targets, network.n_outputs)
    return ExampleTensors(
        rows.astype(np.int64),
        targets.to(network.device),
        torch.from_numpy(weights / weights.mean()).float().to(network.device),
        prepare_outputs(network, examples.outputs, len(rows)),
    )


def prepare_outputs(network: Network, outputs: np.ndarray | None, n_rows: int) -> Tensor | None:
    """Move the regressor's outputs to the device; None for a network that takes none.

    Raises:
        InputError: the network takes none or requires them, or they are not one finite number per row.
    """
    if (outputs is not None) != network.module.takes_output:
        verb = "requires the" if outputs is None else "does not take the"
        raise InputError(
            f"{network.name} {verb} outputs of a regressor",
            fix="build the network with the matching takes_output",
        )
    if outputs is None:
        return None
    if np.shape(outputs) != (n_rows,) or not np.isfinite(outputs).all():
        raise InputError(f"outputs must be {n_rows} finite numbers, one per row; got {np.shape(outputs)}")
    return torch.as_tensor(outputs, dtype=torch.float32).to(network.device)


def check_images(network: Network, images: np.ndarray, rows: np.ndarray) -> None:
    """Check that the images match the network, and that every row number is an image.

    Raises:
        InputError: a check fails.
    """
    size = network.normalisation.size_px
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
        raise InputError(
            f"{network.name} takes uint8 images (n, {size}, {size}, 3); got {images.dtype} {images.shape}",
            fix="build the network with the size_px of the images",
        )
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"rows must be a 1-D array of integers; got {rows.dtype} {rows.shape}")
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(images):
        raise InputError(f"rows {rows.min()}–{rows.max()} are out of range for {len(images)} images")
