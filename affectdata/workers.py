"""`map_ordered`: run a function over batches on an engine, results in order, memory bounded.

An engine is a module of `engines/`, or of another package (`affectdata.engines`), with `map_ordered` and
`default_workers`. The workers of every engine are set up by the functions here.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, cast

from affectdata.registry import load_plugin

In = TypeVar("In")
Out = TypeVar("Out")
THREADS = "threads"
# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, bytes.
_MALLOC = {-3: 32 << 20, -1: 256 << 20, -2: 16 << 20}


class Engine(Protocol):
    """What runs batches."""

    def map_ordered(self, fn: Callable[[In], Out], batches: Iterable[In], workers: int) -> Iterator[Out]:
        """Yield `fn(batch)` for every batch, as `workers.map_ordered` describes it."""
        ...

    def default_workers(self) -> int:
        """Return the number of workers if none is given."""
        ...


def default_workers(engine: str = THREADS) -> int:
    """Return the number of workers if none is given: the cores that the engine may use."""
    return cast(Engine, load_plugin("engines", engine)).default_workers()


def map_ordered(
    fn: Callable[[In], Out], batches: Iterable[In], workers: int, engine: str = THREADS
) -> Iterator[Out]:
    """Yield `fn(batch)` for every batch, in the order of the batches.

    At most `2 * workers` batches are under way or waiting to be taken, so memory does not grow with the
    input. `fn` should be a picklable frozen dataclass of plain values, so that every engine can run it.
    An exception in `fn` is raised here, at the place of its batch; batches after it are dropped.
    """
    return cast(Engine, load_plugin("engines", engine)).map_ordered(fn, batches, workers)


def keep_freed_memory() -> None:
    """Stop glibc from giving each image's buffers back to the kernel: page faults cost more than the work.

    Arrow shares its heap, where a pool of its own would hold on to as much again. Only for a process of our
    own, the command line or a worker; a library must not change its host's allocator.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt:
        for parameter, value in _MALLOC.items():
            mallopt(parameter, value)


def use_one_thread() -> None:
    """Keep OpenCV from starting threads: it would fight the workers for the cores."""
    import cv2

    cv2.setNumThreads(0)
