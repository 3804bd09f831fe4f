"""Repeatable training: torch's settings for it, and what is random seeded per step."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from affectdata.hashing import stable_seed


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Run with deterministic algorithms where they exist, and leave torch as it was.

    Only CUDA needs it: on a CPU the same number of threads gives the same numbers.
    """
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    flags: Any = torch.utils.deterministic  # mypy does not see what the module turns itself into
    filling = flags.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        torch.set_deterministic_debug_mode("warn")
        torch.backends.cudnn.benchmark = False  # what it measures differs from run to run
        flags.fill_uninitialized_memory = False  # costs a write of every new tensor
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before[0])
            torch.backends.cudnn.benchmark = before[1]
            flags.fill_uninitialized_memory = filling


def seed_step(seed: int, step: int) -> None:
    """Seed what a step draws (dropout) by its number, so that a resumed run draws the same."""
    torch.manual_seed(stable_seed(seed, step))
