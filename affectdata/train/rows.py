"""Rows: images as arrays of equal length, the form in which every arm is trained and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Images with their features and labels. `copy`: 0 is the original.

    `features` are (n, dim), those of several networks side by side; `widths` has the number of features of
    each, and may be empty for one network. `pool_index` is the position of each image in the pool that they
    were computed for. `target` is numeric, `stratum` is what folds are stratified by (the target's bin or
    label), `subtype` is "" where unknown.
    """

    features: np.ndarray
    target: np.ndarray
    image_id: np.ndarray
    group: np.ndarray
    copy: np.ndarray
    subtype: np.ndarray
    source: np.ndarray
    stratum: np.ndarray
    weight: np.ndarray
    pool_index: np.ndarray
    widths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.target)

    def take(self, index: np.ndarray) -> Rows:
        """Return some of the rows."""
        columns: dict[str, Any] = {name: getattr(self, name)[index] for name in _per_row()}
        return replace(self, **columns)

    def without_features(self) -> Rows:
        """Return the labels of the rows: what is scored or resampled often."""
        return replace(self, features=np.empty((len(self), 0), np.float32), widths=())

    def weighted(self, weight: np.ndarray) -> Rows:
        """Return the rows with other weights."""
        return replace(self, weight=np.asarray(weight, float))

    def with_target(self, target: np.ndarray) -> Rows:
        """Return the rows with other targets."""
        return replace(self, target=np.asarray(target, float))

    @property
    def is_weighted(self) -> bool:
        """Whether rows weigh differently."""
        return bool((self.weight != 1).any())

    @staticmethod
    def concat(parts: Sequence[Rows]) -> Rows:
        """Put rows behind each other."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _per_row()
        }
        return replace(parts[0], **columns)


def _per_row() -> list[str]:
    return [field.name for field in fields(Rows) if field.name != "widths"]
