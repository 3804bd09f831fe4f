"""Hashes of images: equal to those of imagehash, one per image and view."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from affectdata.images import phash
from affectdata.images.decode import decode
from affectdata.images.phash import VIEWS, perceptual_hashes, pixel_hash
from affectdata.reading.sample import draw_image

OASIS = Path(__file__).parents[3] / "shared/data/oasis"

# The views as numpy rotates an array: `turn_90` is counter-clockwise, like `np.rot90`.
TURN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda a: a,
    "flip_h": lambda a: a[:, ::-1],
    "flip_v": lambda a: a[::-1],
    "turn_180": lambda a: np.rot90(a, 2),
    "transpose": lambda a: a.transpose(1, 0, 2),
    "turn_90": lambda a: np.rot90(a, 1),
    "turn_270": lambda a: np.rot90(a, 3),
    "transverse": lambda a: np.rot90(a, 2).transpose(1, 0, 2),
}


def bits_apart(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def test_the_size_is_part_of_a_pixel_hash() -> None:  # trap 6
    upright, lying = np.zeros((20, 10, 3), np.uint8), np.zeros((10, 20, 3), np.uint8)
    assert pixel_hash(upright) != pixel_hash(lying)
    assert pixel_hash(upright) == "70a4758f633029e27937f90c8c6ddab8"  # identities never change


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_pixel_hash_depends_on_pixels_and_not_on_memory_layout(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    assert pixel_hash(np.asfortranarray(rgb)) == pixel_hash(rgb) == pixel_hash(np.flip(np.flip(rgb).copy()))
    other = rgb.copy()
    other[rng.integers(height), rng.integers(width), rng.integers(3)] ^= 1
    assert pixel_hash(other) != pixel_hash(rgb)


def generated(kind: str, rng: np.random.Generator) -> np.ndarray:
    width, height = (int(side) for side in rng.integers(40, 400, 2))
    if kind == "photo":
        return draw_image(rng, float(rng.uniform(0, 100)), width, height)
    if kind == "flat":
        return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    ramp = np.linspace(*sorted(rng.uniform(0, 255, 2)), width if kind == "across" else height)
    plane = np.broadcast_to(ramp if kind == "across" else ramp[:, None], (height, width))
    return np.repeat(plane[:, :, None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("kind", ["photo", "flat", "noise", "across", "down"])
def test_phash_equals_imagehash(kind: str) -> None:
    for seed in range(25):
        rgb = generated(kind, np.random.default_rng(seed))
        assert perceptual_hashes(rgb)[0] == str(imagehash.phash(Image.fromarray(rgb))), (kind, seed)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_phash_of_a_decoded_image_equals_imagehash(
    mode: str, image: np.ndarray, as_bytes: Callable[..., bytes]
) -> None:
    drawn = Image.fromarray(image)
    if mode in ("RGBA", "LA"):
        drawn.putalpha(Image.linear_gradient("L").resize(drawn.size))
    data = as_bytes(drawn.quantize(64) if mode == "P" else drawn.convert(mode), "PNG")
    rgb = decode(data).rgb
    seen = Image.open(io.BytesIO(data))
    if mode in ("RGBA", "LA"):
        seen = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen.convert("RGBA"))
    assert perceptual_hashes(rgb)[0] == str(imagehash.phash(seen.convert("RGB")))


@pytest.mark.skipif(not OASIS.is_dir(), reason="shared/data/oasis is not beside this checkout")
def test_phash_of_photographs_equals_imagehash() -> None:
    paths = sorted(OASIS.rglob("*.jpg"))[::8]
    assert len(paths) > 50
    for path in paths:
        rgb = decode(path.read_bytes()).rgb
        assert perceptual_hashes(rgb)[0] == str(imagehash.phash(Image.fromarray(rgb))), path.name


@given(
    st.integers(40, 900), st.integers(40, 900), st.sampled_from(["noise", "black and white", "soft", "photo"])
)
@example(65, 97, "black and white")
@example(65, 98, "black and white")  # taller than this, some versions of Pillow filter columns first
@example(4096, 70, "noise")
@example(5000, 70, "noise")
def test_the_small_image_is_bit_identical_to_pillows(width: int, height: int, kind: str) -> None:
    rng = np.random.default_rng(width * height)
    rgb = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if kind == "black and white":  # overshoots on both sides
        rgb = (rgb // 128 * 255).astype(np.uint8)
    elif kind == "soft":
        rgb = np.asarray(Image.fromarray(rgb[:5, :7]).resize((width, height)))
    elif kind == "photo":
        rgb = draw_image(rng, 50.0, width, height)
    expected = Image.fromarray(rgb).convert("L").resize((32, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(phash.grey_thumbnail(rgb), np.asarray(expected))


@pytest.mark.parametrize("n", [*range(65, 4096, 173), 4096])
def test_sums_of_the_small_image_are_exact_in_float32(n: int) -> None:
    for weights in phash._lanczos(n).weights:
        for part, unit in ((weights[:, ::2], 2.0**-15), (weights[:, 1::2], 2.0**-22)):
            assert np.array_equal(part, np.rint(part / unit) * unit)
            assert np.abs(part / unit).sum(axis=0, dtype=np.float64).max() * 255 < 2**24


def test_the_views_are_the_hashes_of_the_turned_images() -> None:
    assert len(VIEWS) == 8 and set(VIEWS) == set(TURN)
    apart = []
    for seed in range(30):
        rgb = generated("photo", np.random.default_rng(seed))
        for name, view in zip(VIEWS, perceptual_hashes(rgb), strict=True):
            turned = np.ascontiguousarray(TURN[name](rgb))
            apart.append(bits_apart(view, perceptual_hashes(turned)[0]))
    assert max(apart) <= 2  # a coefficient beside the median, by the rounding of Pillow's two passes
    assert np.mean(np.array(apart) == 0) > 0.95


def test_an_image_has_eight_different_views(image: np.ndarray) -> None:
    assert len(set(perceptual_hashes(image))) == 8
