"""Deterministic seeds and ranks derived from image ids (SplitMix64).

An `image_id` is a SHA-256, so its leading 64 bits are uniform: offset by the recipe's seed, they are the
state of a SplitMix64 generator (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
Copy k uses output k + 1. Functions take whole columns; a value depends on no other row.
"""

from __future__ import annotations

from binascii import unhexlify

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio
HEAD = 16  # leading hex digits of an id that are used


def id_heads(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the first 16 hex digits of SHA-256 ids, as numpy's S16."""
    if not len(ids):
        return np.empty(0, f"S{HEAD}")
    heads = pc.binary_slice(ids.cast(pa.binary()), 0, HEAD).cast(pa.binary(HEAD))
    chunks = (
        [chunk for chunk in heads.chunks if len(chunk)] if isinstance(heads, pa.ChunkedArray) else [heads]
    )
    parts = [
        np.frombuffer(chunk.buffers()[1], f"S{HEAD}", len(chunk), chunk.offset * HEAD) for chunk in chunks
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def id_keys(heads: np.ndarray) -> np.ndarray:
    """Return the leading digits of ids (`id_heads`) as uint64."""
    return np.frombuffer(unhexlify(heads.data), ">u8").astype(np.uint64)


def id_ranks(seed: int, keys: np.ndarray) -> np.ndarray:
    """Return a rank (uint64) per id (`id_keys`), random by `seed` (0–2⁶³-1) and independent of other rows."""
    return _mixed(_states(seed, keys))


def copy_seeds(seed: int, keys: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return the seed of each copy, int64 in 0–2⁶³-1; `keys` are the `id_keys` of their images."""
    states = _states(seed, keys)
    states += (copies.astype(np.uint64) + np.uint64(1)) * _STEP
    return (_mixed(states) >> np.uint64(1)).astype(np.int64)


def _states(seed: int, keys: np.ndarray) -> np.ndarray:
    return np.asarray(keys + _mixed(np.array([seed], np.uint64)))


def _mixed(states: np.ndarray) -> np.ndarray:
    """Return the outputs of SplitMix64 for its states: variant 13 of Stafford's mixers, a bijection."""
    mixed = states ^ (states >> np.uint64(30))
    for factor, shift in ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        mixed *= np.uint64(factor)
        mixed ^= mixed >> np.uint64(shift)
    return np.asarray(mixed)
