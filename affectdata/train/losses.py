"""Losses: per image what its outputs cost, given its target; how targets go in and outputs come out.

squared_error  numbers (POMP): one linear output each: valence, or valence and arousal
polarity       the same, and a first output (valence) on the wrong side of 50 costs more
cross_entropy  one class per image, as its number
binary         several classes per image, 0 or 1 each
distribution   shares of raters per class, which sum to 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from affectdata.errors import InputError, UsageError

POLARITY_PENALTY = 1.0  # λ: a wrong sign costs 1 + λ times as much
_MIDDLE, _HALF = 50.0, 50.0  # of a POMP score: networks are trained on -1 to 1
_SUM_TOLERANCE = 1e-3  # shares are rounded where they are published


def squared_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the squared error, averaged over the outputs of an image: (n, k), (n, k) → (n,)."""
    return (outputs - targets).square().mean(1)


def polarity(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the squared error times 1 + λ where the sign of the first output is wrong.

    The factor of the polarity-consistent cross-entropy of Zhao et al. (2020), arXiv:2003.00832, put before a
    regression's loss. A target of 0 has no sign that could be missed.
    """
    wrong = (outputs[:, 0] * targets[:, 0] < 0).to(outputs.dtype)
    return squared_error(outputs, targets) * (1 + POLARITY_PENALTY * wrong)


def cross_entropy(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return -w[y] log softmax(outputs)[y]: (n, k), int64 (n,) → (n,)."""
    return functional.cross_entropy(outputs, targets, weight=class_weights, reduction="none")


def binary(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of sigmoid(outputs), weighted by class, averaged over the classes."""
    each = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return (each if class_weights is None else each * class_weights).mean(1)


def distribution(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return KL(targets ‖ softmax(outputs)); its gradient is that of the cross-entropy with shares.

    Gao et al. (2017), Deep label distribution learning, arXiv:1611.01731. The class weights weigh the
    terms Σ p (log p - log q).
    """
    each = functional.kl_div(functional.log_softmax(outputs, 1), targets, reduction="none")
    return (each if class_weights is None else each * class_weights).sum(1)


def _encode_numbers(targets: np.ndarray, n_outputs: int) -> Tensor:
    return torch.from_numpy((_columns(targets, n_outputs) - _MIDDLE) / _HALF).float()


def _decode_numbers(outputs: Tensor) -> Tensor:
    return _MIDDLE + _HALF * outputs


def _encode_class(targets: np.ndarray, n_outputs: int) -> Tensor:
    numbers = np.asarray(targets)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(
            f"classes are whole numbers, one per image; got {numbers.dtype} {numbers.shape}",
            fix="give the number of each image's class",
        )
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < n_outputs:
        raise InputError(f"classes {numbers.min()}–{numbers.max()} for a network of {n_outputs} outputs")
    return torch.from_numpy(numbers.astype(np.int64))


def _encode_flags(targets: np.ndarray, n_outputs: int) -> Tensor:
    columns = _columns(targets, n_outputs)
    if not np.isin(columns, (0, 1)).all():
        raise InputError("targets of `binary` are 0 or 1", fix="`distribution` takes shares")
    return torch.from_numpy(columns).float()


def _encode_shares(targets: np.ndarray, n_outputs: int) -> Tensor:
    columns = _columns(targets, n_outputs)
    off = (columns < 0).any(1) | (np.abs(columns.sum(1) - 1) > _SUM_TOLERANCE)
    if off.any():
        row = int(off.argmax())
        raise InputError(
            f"{off.sum()} of {len(columns)} targets are no distribution; the first, row {row}, "
            f"sums to {columns[row].sum():.4f}",
            fix="shares are not negative and sum to 1",
        )
    return torch.from_numpy(columns / columns.sum(1, keepdims=True)).float()


def _columns(targets: np.ndarray, n_outputs: int) -> np.ndarray:
    columns = np.asarray(targets, np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[1] != n_outputs:
        raise InputError(f"targets of shape {np.shape(targets)} for a network of {n_outputs} outputs")
    if not np.isfinite(columns).all():
        raise InputError(f"{(~np.isfinite(columns)).any(1).sum()} targets are no finite numbers")
    return columns


@dataclass(frozen=True)
class Loss:
    """`cost` per row; `encode` brings targets to what it takes, `decode` outputs to what people read."""

    cost: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    encode: Callable[[np.ndarray, int], Tensor]
    decode: Callable[[Tensor], Tensor]
    has_classes: bool = True


LOSSES = {
    "squared_error": Loss(squared_error, _encode_numbers, _decode_numbers, has_classes=False),
    "polarity": Loss(polarity, _encode_numbers, _decode_numbers, has_classes=False),
    "cross_entropy": Loss(cross_entropy, _encode_class, partial(torch.softmax, dim=1)),
    "binary": Loss(binary, _encode_flags, torch.sigmoid),
    "distribution": Loss(distribution, _encode_shares, partial(torch.softmax, dim=1)),
}


def find_loss(name: str) -> Loss:
    """Return a loss by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in LOSSES:
        raise UsageError(f"no loss is called {name!r}", fix=f"there are {', '.join(LOSSES)}")
    return LOSSES[name]
