"""Feed: which images each step of training takes, and how they come to the device.

Images stay uint8, (n, height, width, 3), until they are there: a quarter of what floats would move.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

_RESIDENT_FRAC = 0.5  # of the free memory of a GPU: the rest is for the network
_UPLOAD_BYTES = 1 << 28  # a memmap is not to be read into memory as a whole
_AHEAD = 3  # batches that are made ready while the device works


def deal_batches(n_rows: int, batch: int, seed: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the row numbers of step `start` and of every one after it, `batch` each, without end.

    Shuffles of all rows lie behind each other and batches run over their ends, so every step is of one size.
    What a step gets follows from its number: a resumed run goes on with the same batches.
    """
    number, order = -1, np.empty(0, np.int64)
    for step in itertools.count(start):
        at = np.arange(step * batch, (step + 1) * batch)
        parts = []
        for epoch in np.unique(at // n_rows).tolist():
            if epoch != number:
                number, order = epoch, np.random.default_rng((seed, epoch)).permutation(n_rows)
            parts.append(order[at[at // n_rows == epoch] % n_rows])
        yield np.concatenate(parts)


class Feed:
    """Brings images to a device: kept there where they fit, else gathered ahead into pinned memory."""

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
        kept = torch.empty(self.images.shape, dtype=torch.uint8, device=self.device)
        n_rows = max(1, _UPLOAD_BYTES // max(1, self.images[:1].nbytes))
        for start in range(0, len(self.images), n_rows):
            kept[start : start + n_rows] = torch.from_numpy(np.array(self.images[start : start + n_rows]))
        return kept

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """Yield the images of every batch of row numbers, uint8, on the device."""
        if self.resident is not None:
            for rows in batches:
                yield self.resident[torch.from_numpy(rows).to(self.device)]
        else:
            yield from self._gather_ahead(iter(batches))

    def _gather(self, rows: np.ndarray) -> Tensor:
        shape = (len(rows), *self.images.shape[1:])
        held = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        # `clip`: by default numpy copies through a buffer of its own. Rows were checked beforehand.
        np.take(self.images, rows, axis=0, out=held.numpy(), mode="clip")
        return held

    def _gather_ahead(self, batches: Iterator[np.ndarray]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1) as pool:
            waiting = deque(pool.submit(self._gather, rows) for rows in itertools.islice(batches, _AHEAD))
            while waiting:
                held = waiting.popleft().result()
                waiting.extend(pool.submit(self._gather, rows) for rows in itertools.islice(batches, 1))
                yield held.to(self.device, non_blocking=True)
