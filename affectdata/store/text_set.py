"""Sets of names, and of anything else that is text, in eight bytes each however long they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from affectdata.hashing import hash_ranks


class Names:
    """A set of texts as hashes of 64 bits: of a hundred million, two are one by a chance of 1 in 3,700."""

    def __init__(self, parts: Iterable[Sequence[str]]) -> None:
        hashes = [np.empty(0, np.uint64), *(hash_ranks(0, part) for part in parts)]
        self._hashes = np.sort(np.concatenate(hashes))

    def __len__(self) -> int:
        return len(self._hashes)

    def has(self, names: Sequence[str]) -> np.ndarray:
        """Say of each name whether it is in the set."""
        wanted = hash_ranks(0, names)
        if not len(self._hashes):
            return np.zeros(len(wanted), bool)
        at = np.searchsorted(self._hashes, wanted)
        return np.asarray(self._hashes[np.minimum(at, len(self._hashes) - 1)] == wanted)
