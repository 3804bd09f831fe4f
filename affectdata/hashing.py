"""Identities: of a file (SHA-256), of its pixels (xxh3-128), of its look (pHash), and seeds per row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash
from PIL import Image
from scipy import fft

VIEWS = ("identity", "flip_h", "flip_v", "turn_180", "transpose", "turn_90", "turn_270", "transverse")
_BLOCK = 8  # pHash keeps the 8 × 8 lowest frequencies …
_RESIZED = 32  # … of the picture at 32 × 32
_ODD = np.where(np.arange(_BLOCK) % 2, -1.0, 1.0)  # a mirror changes the sign of the odd frequencies


def file_hash(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, as `sha256sum` prints it."""
    return hashlib.sha256(data).hexdigest()


def pixel_hash(rgb: np.ndarray) -> str:
    """Return the xxh3-128 of uint8 RGB pixels (height, width, 3); mode and size are part of it."""
    height, width, _ = rgb.shape
    state = xxhash.xxh3_128(f"RGB:{width}x{height}:".encode())
    state.update(np.ascontiguousarray(rgb).data)
    return state.hexdigest()


def perceptual_hashes(rgb: np.ndarray) -> list[str]:
    """Return the pHash of a picture and of its other seven flips and turns, in the order of `VIEWS`.

    The first is what `str(imagehash.phash(picture))` prints (DCT-II of the 32 × 32 grey picture, its lowest
    8 × 8 coefficients against their median). The others cost next to nothing: a mirror changes the sign of
    every second coefficient, a transposition transposes them.
    """
    grey = Image.fromarray(rgb).convert("L").resize((_RESIZED, _RESIZED), Image.Resampling.LANCZOS)
    rows = fft.dct(np.asarray(grey, np.float64), axis=0)
    low = fft.dct(rows, axis=1)[:_BLOCK, :_BLOCK]
    columns_mirrored, rows_mirrored = low * _ODD, low * _ODD[:, None]
    both = columns_mirrored * _ODD[:, None]
    views = (low, columns_mirrored, rows_mirrored, both, low.T, columns_mirrored.T, rows_mirrored.T, both.T)
    return [_bits_as_hex(view) for view in views]


def _bits_as_hex(low: np.ndarray) -> str:
    return np.packbits(low > np.median(low)).tobytes().hex()


def canonical_json(value: Any) -> str:
    """Write plain data as JSON in one way only: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def stable_seed(*parts: str | int) -> int:
    """Hash parts to an integer of 0–2⁶³-1 that is the same on every machine and in every process."""
    return xxhash.xxh3_64_intdigest("\x1f".join(map(str, parts)).encode()) >> 1


def hash_ranks(seed: int, ids: Iterable[Any]) -> np.ndarray:
    """Hash every id with `seed` to uint64: a random order that does not depend on the order of rows."""
    prefix = f"{seed}\x1f"
    values = (xxhash.xxh3_64_intdigest((prefix + str(each)).encode()) for each in ids)
    return np.fromiter(values, np.uint64)
