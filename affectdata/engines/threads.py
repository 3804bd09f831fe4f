"""Threads of this process: the work (hashing, decoding, warping, encoding) is in C and releases the GIL."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from affectdata.workers import use_one_thread

In = TypeVar("In")
Out = TypeVar("Out")


def default_workers() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ordered(fn: Callable[[In], Out], batches: Iterable[In], workers: int) -> Iterator[Out]:
    """Yield `fn(batch)` for every batch (`workers.map_ordered`); one worker is this thread."""
    if workers <= 1:
        yield from map(fn, batches)
        return
    use_one_thread()
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
