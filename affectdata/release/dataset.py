"""A split of a release as a torch Dataset, or as a stream over workers and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import (
    Dataset,
    IterableDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)

from affectdata.errors import InputError
from affectdata.hashing import stable_seed
from affectdata.images.decode import decode
from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import parse_recipe
from affectdata.release.images import released_reader

_FILE = ("file_name", "file_sha256", "sample_id", "image_id", "pipeline", "seed", "source", "path")
_STRINGS = ("sample_id", "emotion", "subtype")
_NUMBERS = ("weight", "valence", "arousal", "dominance")
_SHAPES = 3  # that a message names


class ReleaseDataset(Dataset[dict[str, Any]]):
    """The images of one split with their labels; picklable, for the workers of a DataLoader.

    Created by `Release.dataset` from the rows of the split, the folder and recipe of the release, and the
    source images if the release is virtual.

    An item is a dict: `image`, a uint8 tensor (3, height, width) or the result of `transform` on it; the
    strings `sample_id`, `emotion` and `subtype`; `class_index`, the position in `classes`; and the float32
    numbers `weight`, `valence`, `arousal` and `dominance` (POMP, 0–100). Every item has all keys: a missing
    number is NaN, a missing string "", a missing class -1. `classes` are the names of the classes of the
    recipe's target in the whole release, sorted; empty if it is a number that the recipe does not cut.

    Images of one release may differ in size: for batches, give a `transform` that crops or resizes. `collate`
    makes batches as the DataLoader does, and says so where sizes differ.

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
        classes: Sequence[str] = (),
        codes: pa.Array | None = None,
    ) -> None:
        self.transform = transform
        self.classes = list(classes)
        codes = pa.nulls(len(rows), pa.int64()) if codes is None else codes
        self.codes: list[int] = codes.fill_null(-1).to_pylist()
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
        numbers = {name: _number(row[name]) for name in _NUMBERS}
        return {
            "image": self.transform(image) if self.transform else image,
            **strings,
            "class_index": self.codes[position],
            **numbers,
        }

    def stream(self, seed: int | None = 0, even: bool = False) -> ReleaseStream:
        """Return the items as an IterableDataset, in an order drawn from `seed`; None: as the rows."""
        return ReleaseStream(self, seed, even)

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch of items, for `DataLoader(collate_fn=)`.

        Raises:
            InputError: the images differ in size.
        """
        shapes = {tuple(item["image"].shape) for item in items if isinstance(item["image"], torch.Tensor)}
        if len(shapes) > 1:
            shown = ", ".join(" × ".join(map(str, shape)) for shape in sorted(shapes)[:_SHAPES])
            raise InputError(
                f"the images of a batch differ in size: {shown}",
                fix="give `dataset(split, transform=…)` a crop or resize to one size, "
                "or `image: {size_px: [224, 224]}` in the recipe",
            )
        batch: dict[str, Any] = default_collate(list(items))
        return batch


class ReleaseStream(IterableDataset[dict[str, Any]]):
    """The items of a `ReleaseDataset`, every one once, shared among the workers of a DataLoader and ranks.

    Ranks are those of `torch.distributed`, if it is initialized when the stream is made. The order is one for
    all of them, and another in every epoch (`set_epoch`). Ranks may differ by one item. With `even`, the
    first items are repeated until all ranks have as many, as DistributedDataParallel needs for training.
    """

    def __init__(self, dataset: ReleaseDataset, seed: int | None = 0, even: bool = False) -> None:
        self.dataset, self.seed = dataset, seed
        self.rank, self.n_ranks = _find_rank()
        n = len(dataset)
        self.length = n + (-n % self.n_ranks if even else 0)
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # persistent workers see it too

    def __len__(self) -> int:
        return len(range(self.rank, self.length, self.n_ranks))

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch, by which the order differs; call it before every epoch."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order: Sequence[int] = range(len(self.dataset))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(stable_seed(self.seed, int(self._epoch)))
            order = torch.randperm(len(self.dataset), generator=generator).tolist()
        positions = range(self.rank, self.length, self.n_ranks)
        worker = get_worker_info()
        if worker:
            positions = positions[worker.id :: worker.num_workers]
        for position in positions:
            yield self.dataset[order[position % len(order)]]


def _find_rank() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _number(value: float | None) -> torch.Tensor:
    return torch.tensor(math.nan if value is None else value, dtype=torch.float32)


def draw_by_weight(weights: Sequence[float], generator: torch.Generator | None) -> WeightedRandomSampler:
    """Return a sampler of as many rows as there are, each drawn in proportion to its weight."""
    return WeightedRandomSampler(weights, len(weights), generator=generator)
