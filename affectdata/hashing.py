"""Hashes of bytes (SHA-256), canonical JSON, and stable seeds and ranks (xxh3-64)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_hash(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> str:
    """Write plain data as JSON in one way only: sorted keys, no spaces, no NaN."""
    return _CANONICAL.encode(value)


def stable_seed(*parts: str | int) -> int:
    """Hash parts to an integer of 0–2⁶³-1 that is the same on every machine and in every process."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode()) >> 1


def hash_ranks(seed: int, ids: Iterable[Any]) -> np.ndarray:
    """Hash every id with `seed` to uint64: a random order that does not depend on the order of rows."""
    prefix = f"{seed}\x1f"
    values = (xxhash.xxh3_64_intdigest((prefix + str(each)).encode()) for each in ids)
    return np.fromiter(values, np.uint64)
