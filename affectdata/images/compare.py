"""Distances between two images by several perceptual hashes: pHash in eight views, others by `imagehash`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
from PIL import Image

from affectdata.errors import UsageError
from affectdata.images.decode import decode
from affectdata.images.hamming import MAX_BITS
from affectdata.images.phash import VIEWS, perceptual_hashes, pixel_hash

_HASHES = {
    "average": imagehash.average_hash,
    "difference": imagehash.dhash,
    "wavelet": imagehash.whash,
    "colour": imagehash.colorhash,
}
CROP_RESISTANT = "crop_resistant"
KINDS = (*_HASHES, CROP_RESISTANT)


@dataclass(frozen=True)
class Distance:
    """How far two images are apart by one hash: `apart` of `of` bits (crop_resistant: segments)."""

    kind: str
    apart: int
    of: int
    meaning: str


def compare_images(first: bytes, second: bytes, kinds: Sequence[str] = KINDS) -> list[Distance]:
    """Return the distances of two image files: of their pHash, then of `kinds`.

    Raises:
        DecodeError: one of them cannot be decoded.
        UsageError: no such kind.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise UsageError(f"no hash is called {unknown[0]!r}", fix=f"known: {', '.join(KINDS)}")
    pixels = [decode(data).rgb for data in (first, second)]
    images = [Image.fromarray(rgb) for rgb in pixels]
    same = pixel_hash(pixels[0]) == pixel_hash(pixels[1])
    own, views = perceptual_hashes(pixels[0])[0], perceptual_hashes(pixels[1])
    bits = [(int(own, 16) ^ int(view, 16)).bit_count() for view in views]
    nearest = bits.index(min(bits))
    meaning = "equal pixels" if same else "look-alikes" if min(bits) <= MAX_BITS else "not look-alikes"
    found = [Distance("phash", min(bits), 64, f"{meaning}; nearest view: {VIEWS[nearest]}")]
    return found + [_distance(kind, *images) for kind in kinds]


def _distance(kind: str, first: Image.Image, second: Image.Image) -> Distance:
    if kind == CROP_RESISTANT:
        segments, others = (imagehash.crop_resistant_hash(image) for image in (first, second))
        n, (matched, _) = len(segments.segment_hashes), segments.hash_diff(others)
        return Distance(kind, n - matched, n, f"{matched} segments of the first are in the second")
    one, other = (_HASHES[kind](image) for image in (first, second))
    return Distance(kind, int(one - other), int(one.hash.size), "")
