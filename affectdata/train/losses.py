"""Losses per image, and how they encode targets and decode outputs.

squared_error  numbers (POMP), one linear output each: valence, or valence and arousal
polarity       the same, with a penalty if the first output (valence) is on the wrong side of 50
cross_entropy  one class per image, as its index
polarity_cross_entropy  the same, with a penalty if the predicted class has the opposite sign
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

POLARITY_OF_CLASSES = "polarity_cross_entropy"
POLARITY_PENALTY = 1.0  # λ: a wrong sign multiplies the loss by 1 + λ
_MIDDLE, _HALF_RANGE = 50.0, 50.0  # of POMP scores; networks are trained on -1 to 1
_SUM_TOLERANCE = 1e-3  # published shares are rounded


def squared_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the squared error, averaged over the outputs of an image: (n, k), (n, k) → (n,)."""
    return (outputs - targets).square().mean(1)


def polarity(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the squared error, times 1 + λ if the sign of the first output is wrong.

    The factor is that of the polarity-consistent cross-entropy of Zhao et al. (2020), arXiv:2003.00832,
    applied to a regression loss. A target of 0 has no sign, so it is never wrong.
    """
    wrong = (outputs[:, 0] * targets[:, 0] < 0).to(outputs.dtype)
    return squared_error(outputs, targets) * (1 + POLARITY_PENALTY * wrong)


def cross_entropy(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return -w[y] log softmax(outputs)[y]: (n, k), int64 (n,) → (n,)."""
    return functional.cross_entropy(outputs, targets, weight=class_weights, reduction="none")


def polarity_cross_entropy(
    outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None, *, signs: Tensor
) -> Tensor:
    """Return the cross-entropy, times 1 + λ if the most probable class has the opposite sign.

    The polarity-consistent cross-entropy of Zhao et al. (2020), arXiv:2003.00832. `signs` are 1 of a positive
    class, -1 of a negative one, and 0 of one without polarity, which is never wrong.
    """
    wrong = (signs[outputs.argmax(1)] * signs[targets] < 0).to(outputs.dtype)
    return cross_entropy(outputs, targets, class_weights) * (1 + POLARITY_PENALTY * wrong)


def least_cost_scores(shares: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return 1 - half of the expected cost of each class: another class costs 1, one of the opposite sign 2.

    `shares` (n, classes) are probabilities, and the class of the highest score has the least expected cost.
    """
    cost = 1 - np.eye(len(signs)) + POLARITY_PENALTY * (np.outer(signs, signs) < 0)
    return np.asarray(1 - shares @ cost / (1 + POLARITY_PENALTY))


def binary(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of sigmoid(outputs), weighted by class, averaged over the classes."""
    losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return (losses if class_weights is None else losses * class_weights).mean(1)


def distribution(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return KL(targets ‖ softmax(outputs)); its gradient equals that of the cross-entropy with soft targets.

    Gao et al. (2017), Deep label distribution learning, arXiv:1611.01731. Class weights apply to
    the terms of the sum Σ p (log p - log q).
    """
    terms = functional.kl_div(functional.log_softmax(outputs, 1), targets, reduction="none")
    return (terms if class_weights is None else terms * class_weights).sum(1)


def _encode_numbers(targets: np.ndarray, n_outputs: int) -> Tensor:
    return torch.from_numpy((_columns(targets, n_outputs) - _MIDDLE) / _HALF_RANGE).float()


def decode_numbers(outputs: Tensor) -> Tensor:
    """Return outputs of a network, -1 to 1, as POMP scores."""
    return _MIDDLE + _HALF_RANGE * outputs


def _encode_class(targets: np.ndarray, n_outputs: int) -> Tensor:
    indices = np.asarray(targets)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise InputError(
            f"classes must be integers, one per image; got {indices.dtype} {indices.shape}",
            fix="pass the class index of each image",
        )
    if len(indices) and not 0 <= indices.min() <= indices.max() < n_outputs:
        raise InputError(
            f"classes {indices.min()}–{indices.max()} are out of range for a network with {n_outputs} outputs"
        )
    return torch.from_numpy(indices.astype(np.int64))


def _encode_flags(targets: np.ndarray, n_outputs: int) -> Tensor:
    columns = _columns(targets, n_outputs)
    if not np.isin(columns, (0, 1)).all():
        raise InputError("targets of `binary` must be 0 or 1", fix="use the loss `distribution` for shares")
    return torch.from_numpy(columns).float()


def _encode_shares(targets: np.ndarray, n_outputs: int) -> Tensor:
    columns = _columns(targets, n_outputs)
    invalid = (columns < 0).any(1) | (np.abs(columns.sum(1) - 1) > _SUM_TOLERANCE)
    if invalid.any():
        row = int(invalid.argmax())
        raise InputError(
            f"{invalid.sum()} of {len(columns)} targets are not distributions; the first, row {row}, "
            f"sums to {columns[row].sum():.4f}",
            fix="shares must be >= 0 and sum to 1",
        )
    return torch.from_numpy(columns / columns.sum(1, keepdims=True)).float()


def _columns(targets: np.ndarray, n_outputs: int) -> np.ndarray:
    columns = np.asarray(targets, np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or columns.shape[1] != n_outputs:
        raise InputError(
            f"targets of shape {np.shape(targets)} do not match a network with {n_outputs} outputs"
        )
    if not np.isfinite(columns).all():
        raise InputError(f"{(~np.isfinite(columns)).any(1).sum()} targets are not finite")
    return columns


@dataclass(frozen=True)
class Loss:
    """`cost` is the loss per row; `encode` converts targets to its scale, `decode` outputs to the user's."""

    cost: Callable[..., Tensor]
    encode: Callable[[np.ndarray, int], Tensor]
    decode: Callable[[Tensor], Tensor]
    has_classes: bool = True
    takes_signs: bool = False


LOSSES = {
    "squared_error": Loss(squared_error, _encode_numbers, decode_numbers, has_classes=False),
    "polarity": Loss(polarity, _encode_numbers, decode_numbers, has_classes=False),
    "cross_entropy": Loss(cross_entropy, _encode_class, partial(torch.softmax, dim=1)),
    POLARITY_OF_CLASSES: Loss(
        polarity_cross_entropy, _encode_class, partial(torch.softmax, dim=1), takes_signs=True
    ),
    "binary": Loss(binary, _encode_flags, torch.sigmoid),
    "distribution": Loss(distribution, _encode_shares, partial(torch.softmax, dim=1)),
}


def find_loss(name: str) -> Loss:
    """Return a loss by name.

    Raises:
        UsageError: no loss has this name.
    """
    if name not in LOSSES:
        raise UsageError(f"unknown loss {name!r}", fix=f"use one of {', '.join(LOSSES)}")
    return LOSSES[name]
