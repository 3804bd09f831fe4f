"""Approximate string set (64-bit hashes)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from affectdata.hashing import hash_ranks


class StringHashSet:
    """A set of strings as 64-bit hashes; among 10⁸ strings, two collide with probability 1 in 3,700."""

    def __init__(self, parts: Iterable[Sequence[str]]) -> None:
        hashes = [np.empty(0, np.uint64), *(hash_ranks(0, part) for part in parts)]
        self._hashes = np.sort(np.concatenate(hashes))

    def __len__(self) -> int:
        return len(self._hashes)

    def has(self, strings: Sequence[str]) -> np.ndarray:
        """Return for each string whether it is in the set."""
        wanted = hash_ranks(0, strings)
        if not len(self._hashes):
            return np.zeros(len(wanted), bool)
        index = np.searchsorted(self._hashes, wanted)
        return np.asarray(self._hashes[np.minimum(index, len(self._hashes) - 1)] == wanted)
