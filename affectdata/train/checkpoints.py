"""Checkpoints: the state of a run on disk, named after all that decides the run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from affectdata.errors import InputError
from affectdata.hashing import canonical_json, file_hash
from affectdata.store.files import check_regular
from affectdata.store.parquet import replace_file
from affectdata.train.networks import Network
from affectdata.train.task import Examples, Settings
from affectdata.train.weights import state_hash

_EVERY_S = 60.0  # what an interrupted run may lose
_CHUNK = 256  # pictures read at a time


def run_key(network: Network, pictures: np.ndarray, examples: Iterable[Examples], settings: Settings) -> str:
    """Hash what decides a run: the initial weights, the pictures of its rows, targets, settings, device."""
    state = xxhash.xxh3_128()
    for each in examples:
        for start in range(0, len(each.rows), _CHUNK):
            state.update(np.ascontiguousarray(pictures[each.rows[start : start + _CHUNK]]).data)
        for values in (each.targets, each.weights, each.outputs):
            state.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    layers = [network.name, network.n_outputs, network.normalisation.size_px, network.module.takes_output]
    parts = [*layers, network.code, network.device.type, state_hash(network.module), state.hexdigest()]
    return file_hash(canonical_json([*parts, asdict(settings)]).encode())[:16]


class Checkpoint:
    """The file of one run: tensors and plain data, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Return the state that was kept, if there is one.

        Raises:
            InputError: the file is none of a run.
        """
        if not self.path.exists():
            return None
        try:
            check_regular(self.path)
            return {**torch.load(self.path, map_location="cpu", weights_only=True)}
        except Exception as error:  # a reader on hostile bytes may raise anything
            raise InputError(
                f"{self.path.name} is no checkpoint: {type(error).__name__}",
                where=str(self.path),
                fix="remove it, and the run begins anew",
            ) from error

    def write(self, state: dict[str, Any], at_once: bool) -> None:
        """Keep a state, if the last one is old enough or it must be `at_once`."""
        if not at_once and time.monotonic() - self._written < _EVERY_S:
            return
        with replace_file(self.path) as temporary:
            torch.save(state, temporary)
        self._written = time.monotonic()
