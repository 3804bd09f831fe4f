"""Choose the images of each training step and move them to the device.

Images are moved as uint8, (n, height, width, 3): a quarter of the bytes of float32.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_RESIDENT_FRAC = 0.5  # of free GPU memory that images may use; the rest is for the network
_UPLOAD_BYTES = 1 << 28  # so that a memmap is not read into memory as a whole
_PREFETCH = 3  # batches prepared while the device works


def iter_batches(n_rows: int, batch: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the row numbers of step `start` and of every later step, `batch` each, without end.

    The epochs, each a shuffle of all rows, are concatenated and batches cross their boundaries, so all steps
    have the same size. A batch depends only on its step number: a resumed run gets the same batches.
    """
    current, order = -1, np.empty(0, np.int64)
    for step in itertools.count(start):
        position = np.arange(step * batch, (step + 1) * batch)
        parts = []
        for epoch in np.unique(position // n_rows).tolist():
            if epoch != current:
                current, order = epoch, np.random.default_rng((seed, epoch)).permutation(n_rows)
            parts.append(order[position[position // n_rows == epoch] % n_rows])
        yield np.concatenate(parts)


class Feed:
    """Moves images to a device: all at once if they fit there, else batch by batch through pinned memory."""

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.images = images
        self.device = device
        self.resident = self._upload() if self._fits() else None

    def _fits(self) -> bool:
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        return bool(self.images.nbytes <= free * _RESIDENT_FRAC)

    def _upload(self) -> Tensor:
        resident = torch.empty(self.images.shape, dtype=torch.uint8, device=self.device)
        n_rows = max(1, _UPLOAD_BYTES // max(1, self.images[:1].nbytes))
        for start in range(0, len(self.images), n_rows):
            part = np.array(self.images[start : start + n_rows])
            resident[start : start + n_rows] = torch.from_numpy(part)
        return resident

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yield the images of each batch of row numbers, uint8, on the device."""
        if self.resident is not None:
            for rows in batches:
                yield self.resident[torch.from_numpy(rows).to(self.device)]
        else:
            yield from self._prefetch(iter(batches))

    def _gather(self, rows: np.ndarray) -> Tensor:
        shape = (len(rows), *self.images.shape[1:])
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        # mode="clip" avoids the extra buffer that numpy needs to check bounds; rows were checked before.
        np.take(self.images, rows, axis=0, out=batch.numpy(), mode="clip")
        return batch

    def _prefetch(self, batches: Iterator[np.ndarray]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as pool:
            pending = deque(pool.submit(self._gather, rows) for rows in itertools.islice(batches, _PREFETCH))
            while pending:
                batch = pending.popleft().result()
                pending.extend(pool.submit(self._gather, rows) for rows in itertools.islice(batches, 1))
                yield batch.to(self.device, non_blocking=True)
