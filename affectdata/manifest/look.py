"""Compare images with an index by pHash: re-encoded and resized images have other pixels, but look alike.

In: the pHashes of an image's eight views (flips and turns). Out: the indexed images that it may be, and
whether it can be the one of its name. A distance is that of the nearest view, in bits of 64.

Measured on all images of GAPED and OASIS (730 and 900). Distance of an image to its own original, at most:
JPEG of quality 95, 80 or 50, and half the size: 2; quality 30, and 128 px wide: 4; quality 10: 6; 2 % cut off
at each side: 14; 5 %: 26. Two images of one set are at least 10 bits apart, except one pair in each (GAPED's
Sn046 and Sn080: 0; two of OASIS: 6), an image of one set and one of the other at least 8. Of all pairs of
different images, 0.15 % are within 16 bits and 0.9 % within 18. So every re-encoded image is decided within 6
bits, none wrongly, but for these two pairs, and 15 of 10,000 images under the name of another one are within
16 bits of it and keep its labels, with a finding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from affectdata.images.hamming import MAX_BITS
from affectdata.reading.indexes import IndexedImage

_MARGIN = 4  # an image that is so many bits farther than the nearest is clearly another
_FAR = 16  # an image that is farther is clearly another


class Look(NamedTuple):
    """The indexed images that an image may be; none if none is near.

    `apart` is its distance to the indexed image of its name, if that is clearly another image.
    """

    alike: tuple[str, ...]
    apart: int | None


class IndexedLooks:
    """The pHashes of an index."""

    def __init__(self, images: Sequence[IndexedImage]) -> None:
        known = [image for image in images if image.phash]
        self._names = [image.file for image in known]
        self._hashes = np.array([int(image.phash, 16) for image in known], np.uint64)

    def compare(self, views: np.ndarray, name: str | None) -> Look:
        """Compare an image (its eight hashes) with all indexed images; `name` is that of its file, if any."""
        if not self._names:
            return Look((), None)
        bits = np.bitwise_count(views[:, None] ^ self._hashes).min(axis=0)
        nearest = int(bits.min())
        near = bits <= max(MAX_BITS, nearest + _MARGIN - 1) if nearest <= MAX_BITS else bits < 0
        own = int(bits[self._names.index(name)]) if name in self._names else 0
        alike = tuple(self._names[row] for row in np.flatnonzero(near))
        return Look(alike, own if own > _FAR else None)
