"""Images as arrays of equal length: the form in which every arm is trained and scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Images with their features and labels, one row each. `copy`: 0 is the original.

    `x` are features (n, dim), `at` the indices of the images in the image pool. `y` is the numeric target,
    `stratum` what folds are stratified by (the target's bin or class), `part` the subtype ("" if unknown).
    """

    x: np.ndarray
    y: np.ndarray
    image_id: np.ndarray
    group: np.ndarray
    copy: np.ndarray
    part: np.ndarray
    source: np.ndarray
    stratum: np.ndarray
    weight: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: np.ndarray) -> Rows:
        """Return the rows at `index`."""
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def weighted(self, weight: np.ndarray) -> Rows:
        """Return the rows with other weights."""
        return replace(self, weight=np.asarray(weight, float))

    @property
    def is_weighted(self) -> bool:
        """Whether any weight differs from 1."""
        return bool((self.weight != 1).any())

    @staticmethod
    def concat(parts: Sequence[Rows]) -> Rows:
        """Concatenate rows."""
        names = [field.name for field in fields(Rows)]
        return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
