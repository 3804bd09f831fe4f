"""Images as network input: uint8 squares, read batch by batch or from one file.

The file is named after the keys of its images and their size. It is written atomically and reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import decoded, resize
from affectdata.release.images import Read
from affectdata.store.atomic import replace_file
from affectdata.workers import map_ordered

IMAGES = ".images"  # folder below the folder of checks
_BATCH = 32  # images decoded at a time
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Readable:
    """Some images of an image pool: `at`, their indices in it; their rows, with a column `key`; their reader.

    Equal keys mean equal images.
    """

    at: np.ndarray
    table: pa.Table
    read: Read


@dataclass(frozen=True, slots=True)
class LoadImages:
    """Turn a batch into uint8 images (n, size_px, size_px, 3)."""

    read: Read
    size_px: int

    def __call__(self, batch: pa.Table) -> np.ndarray:
        squares = []
        for data in self.read(batch):
            with decoded(data) as image:
                squares.append(crop_square(image.rgb, self.size_px))
        return np.stack(squares)


def crop_square(rgb: np.ndarray, size_px: int) -> np.ndarray:
    """Resize the short side to `size_px`, keeping the aspect ratio, and crop the centre."""
    scale = size_px / min(rgb.shape[:2])
    rgb = resize(rgb, max(size_px, round(rgb.shape[1] * scale)), max(size_px, round(rgb.shape[0] * scale)))
    top, left = (rgb.shape[0] - size_px) // 2, (rgb.shape[1] - size_px) // 2
    return rgb[top : top + size_px, left : left + size_px]


def store_images(
    parts: Sequence[Readable], size_px: int, folder: Path, workers: int, progress: Progress | None = None
) -> np.ndarray:
    """Return the images of all parts, uint8 (n, size_px, size_px, 3), as a memmap of a file in `folder`."""
    order = np.argsort(np.concatenate([part.at for part in parts]))
    keys = pa.concat_arrays([part.table["key"].combine_chunks() for part in parts]).take(pa.array(order))
    path = folder / f"{file_hash(canonical_json([keys.to_pylist(), size_px]).encode())[:16]}.npy"
    shape = (len(keys), size_px, size_px, 3)
    if not _is_complete(path, shape):
        with replace_file(path) as temporary:
            store = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            n_done = 0
            for index, squares in _iter_squares(parts, size_px, workers):
                store[index] = squares
                n_done += len(index)
                if progress:
                    progress(n_done, len(keys))
            store.flush()
    images: np.ndarray = np.load(path, mmap_mode="r")
    return images


def _is_complete(path: Path, shape: tuple[int, ...]) -> bool:
    """Return whether the file exists and is complete; a disk failure may have truncated it."""
    try:
        return bool(np.load(path, mmap_mode="r").shape == shape)
    except (OSError, ValueError):
        return False


def _iter_squares(
    parts: Sequence[Readable], size_px: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices and images, batch by batch."""
    for part in parts:
        starts = range(0, len(part.at), _BATCH)
        batches = (part.table.slice(start, _BATCH) for start in starts)
        squares = map_ordered(LoadImages(part.read, size_px), batches, workers)
        for start, loaded in zip(starts, squares, strict=True):
            yield part.at[start : start + _BATCH], loaded
