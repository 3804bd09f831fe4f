"""Chance that follows from ids alone: the order in which images are taken, and the seed of every copy.

An `image_id` is a SHA-256 and so as good as random: its leading 64 bits, moved by the recipe's seed, are the
state of a SplitMix64 generator (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
Copy k takes its output k + 1. Whole columns at once; no other row counts.
"""

from __future__ import annotations

from binascii import unhexlify

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ over the golden ratio
HEAD = 16  # hex digits of an id that stand for it


def id_heads(ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the first 16 hex digits of SHA-256 ids, as numpy's S16."""
    if not len(ids):
        return np.empty(0, f"S{HEAD}")
    heads = pc.binary_slice(ids.cast(pa.binary()), 0, HEAD).cast(pa.binary(HEAD))
    chunks = [each for each in heads.chunks if len(each)] if isinstance(heads, pa.ChunkedArray) else [heads]
    parts = [np.frombuffer(each.buffers()[1], f"S{HEAD}", len(each), each.offset * HEAD) for each in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def id_keys(heads: np.ndarray) -> np.ndarray:
    """Return the 64 bits that the first digits of ids (`id_heads`) stand for, uint64."""
    return np.frombuffer(unhexlify(heads.data), ">u8").astype(np.uint64)


def id_ranks(seed: int, keys: np.ndarray) -> np.ndarray:
    """Return a uint64 per id (`id_keys`): a random order by `seed` (0–2⁶³-1) that no other row changes."""
    return _mixed(_states(seed, keys))


def copy_seeds(seed: int, keys: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return the seed of each copy, int64 of 0–2⁶³-1; `keys` are the `id_keys` of their images."""
    states = _states(seed, keys)
    states += (copies.astype(np.uint64) + np.uint64(1)) * _STEP
    return (_mixed(states) >> np.uint64(1)).astype(np.int64)


def _states(seed: int, keys: np.ndarray) -> np.ndarray:
    return np.asarray(keys + _mixed(np.array([seed], np.uint64)))


def _mixed(states: np.ndarray) -> np.ndarray:
    """Return the outputs of SplitMix64 for its states: variant 13 of Stafford's mixers, one to one."""
    mixed = states ^ (states >> np.uint64(30))
    for factor, shift in ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
        mixed *= np.uint64(factor)
        mixed ^= mixed >> np.uint64(shift)
    return np.asarray(mixed)
