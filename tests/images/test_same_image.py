"""images.same_image: what counts as the same image, on generated images."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from affectdata.images.decode import decode, encode
from affectdata.images.same_image import MIN_INLIERS, count_inliers, find_points


def _scene(seed: int, width: int = 400, height: int = 300) -> np.ndarray:
    """Return an image of random shapes."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(60, 200, 3), np.uint8)
    for _ in range(120):
        centre = tuple(int(value) for value in rng.integers(0, [width, height]))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        axes = tuple(int(value) for value in rng.integers(4, 40, 2))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 360)), 0, 360, colour, -1)
    return cv2.GaussianBlur(image, (3, 3), 0)


def _framed(image: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(image, 24, 24, 32, 32, cv2.BORDER_CONSTANT, value=(0, 0, 0))


def _turned(image: np.ndarray) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), 5, 1.0)
    return cv2.warpAffine(image, matrix, (image.shape[1], image.shape[0]))


def _recoded(image: np.ndarray) -> np.ndarray:
    dark = (255 * (image / 255) ** 1.6).astype(np.uint8)
    return decode(encode(dark, "jpeg", 30)).rgb


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "crop": lambda image: image[40:280, 60:380],
    "small crop": lambda image: image[60:240, 80:320],
    "frame": _framed,
    "rotation": _turned,
    "dark and recoded": _recoded,
    "grey": lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8),
    "half size": lambda image: cv2.resize(image, (200, 150), interpolation=cv2.INTER_AREA),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_changed_image_is_the_same_image(name: str, mirrored: bool) -> None:
    image = _scene(1)
    changed = CHANGES[name](image)
    if mirrored:
        changed = np.ascontiguousarray(changed[:, ::-1])
    inliers, found_mirrored = count_inliers(find_points(image), find_points(changed))
    assert inliers >= MIN_INLIERS
    assert found_mirrored == mirrored


def test_other_images_of_the_same_kind_are_not_the_same() -> None:
    points = [find_points(_scene(seed)) for seed in range(8)]
    counts = [count_inliers(a, b)[0] for n, a in enumerate(points) for b in points[:n]]
    assert max(counts) < MIN_INLIERS


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (40, 40)])
def test_an_image_without_points_is_the_same_as_none(shape: tuple[int, int]) -> None:
    flat = find_points(np.full((*shape, 3), 128, np.uint8))
    assert count_inliers(flat, find_points(_scene(1))) == (0, False)
    assert count_inliers(find_points(_scene(1)), flat) == (0, False)


def test_one_spot_counts_once() -> None:
    """Fifteen points of one spot fit any transform: they are one inlier."""
    points = find_points(_scene(1))
    near = np.full((15, 2), 100, np.float32) + np.linspace(0, 0.9, 15, dtype=np.float32)[:, None]
    spot = type(points)(near, points.descriptors[:15], points.width)
    assert count_inliers(spot, spot)[0] < MIN_INLIERS
