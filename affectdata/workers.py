"""`map_ordered`: run a function over batches on a few threads, results in order, memory bounded.

Threads, because the work (hashing, decoding, warping, encoding) happens in C code that releases the GIL.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def default_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(fn: Callable[[In], Out], batches: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield `fn(batch)` for every batch, in the order of the batches.

    At most `2 * workers` batches are under way or waiting to be taken, so memory does not grow with the
    input. `fn` should be a picklable frozen dataclass of plain values, so that another engine can run it.
    An exception in `fn` is raised here, at the place of its batch; batches after it are dropped.
    """
    if workers <= 1:
        yield from map(fn, batches)
        return
    import cv2

    cv2.setNumThreads(0)  # the pool is the parallelism; OpenCV's own threads would fight it for the cores
    window: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="affectdata") as pool:
        try:
            for batch in batches:
                window.append(pool.submit(fn, batch))
                if len(window) >= 2 * workers:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            for future in window:
                future.cancel()
