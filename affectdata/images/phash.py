"""Hashes of an image: exact (xxh3-128 of the pixels) and perceptual (pHash, in eight views)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import xxhash
from PIL import Image

VIEWS = ("identity", "flip_h", "flip_v", "turn_180", "transpose", "turn_90", "turn_270", "transverse")
_BLOCK = 8  # pHash keeps the 8 × 8 lowest frequencies …
_RESIZED = 32  # … of the image at 32 × 32
_PRECISION = 22  # bits of a weight of Pillow's filters
_GROUP = 4  # columns filtered at once
_BLOCK_CELLS = 1 << 15  # multiplied at once: for more, BLAS starts threads
_STRIP_CELLS = 1 << 19  # float32: 2 MiB
_LOW = 1 << 7  # a weight is high × _LOW + low: sums of either over 255s are exact in float32
_LARGE_PIXELS = 1 << 24  # made grey at once
_SIDES = range(65, 4097)  # smaller images are cheap; for larger ones the weights would fill the memory
_DIGITS = _BLOCK * _BLOCK // 4  # of a pHash
_EVEN, _ODD = np.ones(_BLOCK), np.where(np.arange(_BLOCK) % 2, -1.0, 1.0)
# The signs of the first four views: mirroring negates the odd frequencies.
_MIRRORS = np.stack([np.outer(down, across) for down in (_EVEN, _ODD) for across in (_EVEN, _ODD)])


def pixel_hash(rgb: np.ndarray) -> str:
    """Return the xxh3-128 of uint8 RGB pixels (height, width, 3); mode and size are part of the hash."""
    height, width, _ = rgb.shape
    state = xxhash.xxh3_128(f"RGB:{width}x{height}:".encode())
    state.update(np.ascontiguousarray(rgb).data)
    return state.hexdigest()


def perceptual_hashes(rgb: np.ndarray) -> list[str]:
    """Return the pHash of an image and of its other seven flips and turns, in the order of `VIEWS`.

    The first equals `str(imagehash.phash(image))` (DCT-II of the 32 × 32 grey image, its lowest 8 × 8
    coefficients against their median). The others are almost free: mirroring negates every second
    coefficient, transposing the image transposes them.
    """
    return hash_thumbnail(grey_thumbnail(rgb))


def hash_thumbnail(grey: np.ndarray) -> list[str]:
    """Return `perceptual_hashes` of an image from its `grey_thumbnail`."""
    from scipy import fft

    low = fft.dct(fft.dct(grey, axis=0), axis=1)[:_BLOCK, :_BLOCK]
    upright = low * _MIRRORS
    views = np.concatenate([upright, upright.transpose(0, 2, 1)]).reshape(len(VIEWS), -1)
    ordered, half = np.sort(views, axis=1), views.shape[1] // 2
    median = (ordered[:, half - 1] + ordered[:, half]) / 2  # ten times as fast as `np.median`
    digits = np.packbits(views > median[:, None]).tobytes().hex()
    return [digits[start : start + _DIGITS] for start in range(0, len(digits), _DIGITS)]


def grey_thumbnail(rgb: np.ndarray) -> np.ndarray:
    """Return the image in grey at 32 × 32, uint8, bit-identical to Pillow's LANCZOS.

    Where every version of Pillow filters rows first, two matrix products give the same, three times as fast.
    """
    height, width, _ = rgb.shape
    if height in _SIDES and width in _SIDES and height <= 1.5 * width:
        return _narrow(_narrow(rgb, _grey).T).T
    n_rows = max(1, _LARGE_PIXELS // width)
    grey = np.concatenate([_grey(rgb[top : top + n_rows]) for top in range(0, height, n_rows)])
    return np.asarray(Image.fromarray(grey).resize((_RESIZED, _RESIZED), Image.Resampling.LANCZOS))


def _grey(rgb: np.ndarray) -> np.ndarray:
    padded = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA)  # Pillow's memory layout of RGB: no copy
    size = (rgb.shape[1], rgb.shape[0])
    return np.asarray(Image.frombuffer("RGBX", size, padded, "raw", "RGBX", 0, 1).convert("L"))


def _narrow(pixels: np.ndarray, read: Callable[[np.ndarray], np.ndarray] = np.asarray) -> np.ndarray:
    """Filter rows of `read(pixels)`, (rows, n), to 32 columns, uint8."""
    filters = _lanczos(pixels.shape[1])
    n = filters.n_rows * max(1, _STRIP_CELLS // (filters.n_rows * filters.width))
    return np.concatenate(
        [_narrow_strip(read(pixels[start : start + n]), filters) for start in range(0, len(pixels), n)]
    )


def _narrow_strip(pixels: np.ndarray, filters: _Filters) -> np.ndarray:
    """Filter rows in one call: with many small calls, threads would wait for each other."""
    n_rows, n = pixels.shape
    weights, n_blocks = filters.weights, -(-n_rows // filters.n_rows)
    block_rows = -(-n_rows // n_blocks)
    rows = np.zeros((n_blocks * block_rows, filters.width), np.float32)
    rows[:n_rows, filters.margin : filters.margin + n] = pixels
    down, right = rows.strides
    shape = (n_blocks, len(weights), block_rows, weights.shape[1])
    windows = np.ndarray(shape, rows.dtype, rows, 0, (block_rows * down, filters.step * right, down, right))
    sums = np.matmul(windows, weights)
    whole = np.add(sums[..., ::2], sums[..., 1::2], dtype=np.float64)
    whole += 0.5  # the cast truncates
    narrow = np.clip(whole, 0, 255, out=whole).astype(np.uint8)
    as_one = narrow.view(f"u{_GROUP}")  # move the columns of a group together
    ordered: np.ndarray = as_one.transpose(0, 2, 1, 3).copy().view(np.uint8)
    return ordered.reshape(-1, _RESIZED)[:n_rows]


class _Filters(NamedTuple):
    """Filters by group of columns: group g reads `weights.shape[1]` pixels from g × `step` on."""

    weights: np.ndarray  # (groups, pixels, 2 × _GROUP): of each column the high parts and the low ones
    step: int
    margin: int  # of zeros before the first pixel
    width: int  # of a row with its margins
    n_rows: int  # multiplied at once


@lru_cache(maxsize=128)
def _lanczos(n: int) -> _Filters:
    """Return the weights that resample n pixels to 32, rounded as in Pillow.

    The 32 columns are computed in groups, because each reads a fifth of the pixels or less; float32 is twice
    as fast as float64 and, with every weight in two parts, as exact. The filter is sinc(x) sinc(x / 3),
    stretched to the scale; Pillow's `Resample.c` rounds its weights to 22 bits.
    """
    scale = n / _RESIZED
    centres = (np.arange(_RESIZED) + 0.5) * scale
    low, high = (np.clip(centres + side * 3 * scale + 0.5, 0, n).astype(int) for side in (-1, 1))
    rows = low + np.arange((high - low).max())[:, None]
    x = (rows - centres + 0.5) / scale
    values = np.where((rows < high) & (np.abs(x) < 3), np.sinc(x) * np.sinc(x / 3), 0)
    values = np.rint(values / values.sum(axis=0) * (1 << _PRECISION))
    first, last = low[::_GROUP], high[_GROUP - 1 :: _GROUP]
    step = n // len(first)
    starts = np.arange(len(first)) * step
    margin = max(0, int((starts - first).max()))
    n_read = int((last - starts).max()) + margin
    weights = np.zeros((len(first), n_read, 2 * _GROUP), np.float32)
    inside, column = np.nonzero(rows < high)
    group, place = np.divmod(column, _GROUP)
    pixel, parts = rows[inside, column] + margin - starts[group], values[inside, column]
    upper = np.rint(parts / _LOW) * _LOW
    weights[group, pixel, 2 * place], weights[group, pixel, 2 * place + 1] = upper, parts - upper
    weights *= 0.5**_PRECISION
    width = max(margin + n, int(starts[-1]) + n_read)
    return _Filters(weights, step, margin, width, max(1, _BLOCK_CELLS // n_read))
