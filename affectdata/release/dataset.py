"""A split of a release as a torch Dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from affectdata.images.decode import decode
from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import parse_recipe
from affectdata.release.images import released_reader

_FILE = ("file_name", "file_sha256", "sample_id", "image_id", "pipeline", "seed", "source", "path")
_STRINGS = ("sample_id", "emotion", "subtype")
_NUMBERS = ("weight", "valence", "arousal", "dominance")


class ReleaseDataset(Dataset[dict[str, Any]]):
    """The images of one split with their labels; picklable, for the workers of a DataLoader.

    Created by `Release.dataset` from the rows of the split, the folder and recipe of the release, and the
    source images if the release is virtual.

    An item is a dict: `image`, a uint8 tensor (3, height, width) or the result of `transform` on it; the
    strings `sample_id`, `emotion` and `subtype`; the floats `weight`, `valence`, `arousal` and `dominance`
    (POMP, 0–100). Every item has all keys: a missing number is NaN, a missing string "". Images of one
    release may differ in size: for batches, give a `transform` that crops or resizes.

    Raises:
        IntegrityError: on reading an image that differs from the released one.
    """

    def __init__(
        self,
        rows: pa.Table,
        folder: Path,
        recipe: Mapping[str, Any],
        images: Images | None = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        self.transform = transform
        self.files: pa.Table = rows.select(list(_FILE)).combine_chunks()
        self.labels: pa.Table = rows.select([*_STRINGS, *_NUMBERS])
        self.read = released_reader(folder, parse_recipe(recipe), images)

    def __len__(self) -> int:
        return int(self.files.num_rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = index % len(self)
        (data,) = self.read(self.files.slice(position, 1))
        image = torch.from_numpy(np.ascontiguousarray(decode(data).rgb.transpose(2, 0, 1)))
        (row,) = self.labels.slice(position, 1).to_pylist()
        strings = {name: row[name] or "" for name in _STRINGS}
        numbers = {name: math.nan if row[name] is None else float(row[name]) for name in _NUMBERS}
        return {"image": self.transform(image) if self.transform else image, **strings, **numbers}
