"""Measures of quality tell bad images from good ones, and do not depend on what is measured beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from affectdata.images.phash import grey_thumbnail
from affectdata.images.quality import measure_grey, measure_sharpness


def noise(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """Noise of all scales, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((height // n, width // n, 3)), (width, height)) * n**0.8
        for n in (1, 2, 4, 8, 16, 40)
    ]
    whole = sum(layers)
    return np.asarray((whole - whole.min()) / np.ptp(whole) * 255, np.uint8)


def test_grey_measures_equal_those_of_the_definition() -> None:
    greys = [grey_thumbnail(noise(seed=seed)) for seed in range(3)]
    for grey, row in zip(greys, measure_grey(greys), strict=True):
        shares = np.unique(grey, return_counts=True)[1] / grey.size
        assert row["brightness"] == pytest.approx(grey.mean() / 255, abs=1e-4)
        assert row["brightness_p05"] == pytest.approx(np.sort(grey.ravel())[51] / 255, abs=1e-4)
        assert row["brightness_p99"] == pytest.approx(np.sort(grey.ravel())[1013] / 255, abs=1e-4)
        assert row["entropy"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-4)
    assert measure_grey(greys)[1] == measure_grey(greys[1:2])[0]
    assert measure_grey([]) == []


def test_images_of_one_level() -> None:
    black, white = (np.full((32, 32), level, np.uint8) for level in (0, 255))
    assert [list(row.values()) for row in measure_grey([black, white])] == [[0, 0, 0, 0], [1, 1, 1, 0]]
    assert measure_sharpness(np.zeros((90, 90, 3), np.uint8)) is None


@pytest.mark.parametrize("width", [320, 1400])
def test_blur_lowers_sharpness(width: int) -> None:
    image = noise(width * 3 // 4, width)
    values = [measure_sharpness(image)]
    values += [measure_sharpness(cv2.GaussianBlur(image, (0, 0), sigma * width / 320)) for sigma in (1, 2, 4)]
    assert all(value is not None for value in values)
    assert values == sorted(values, reverse=True, key=float)  # type: ignore[arg-type]
    assert values[0] > 0.06 and values[-1] < 0.033  # type: ignore[operator]


def test_sharpness_depends_on_neither_brightness_nor_contrast() -> None:
    image = noise()
    paler = (image // 4 * 2 + 60).astype(np.uint8)
    assert measure_sharpness(paler) == pytest.approx(measure_sharpness(image), rel=0.1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (3, 8), (40, 9), (9, 40)])
def test_small_images(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    assert (measure_sharpness(image) is None) == (width <= 8)
    (row,) = measure_grey([grey_thumbnail(image)])
    assert 0 <= row["brightness_p05"] <= row["brightness_p99"] <= 1


def test_probed_images_have_their_own_measures(as_bytes: Callable[..., bytes], tmp_path: Any) -> None:
    """Damaged images in a batch do not shift the measures of the others."""
    import pyarrow as pa

    from affectdata.images.probe import Probe

    images = {"a.png": noise(seed=1), "c.png": noise(seed=2) // 4}
    for name, rgb in images.items():
        (tmp_path / name).write_bytes(as_bytes(Image.fromarray(rgb), "PNG"))
    (tmp_path / "b.png").write_bytes(b"no image")
    rows = {
        row["path"]: row
        for row in Probe(str(tmp_path))(pa.table({"path": ["a.png", "b.png", "c.png"]})).to_pylist()
    }
    for name, rgb in images.items():
        (expected,) = measure_grey([grey_thumbnail(rgb)])
        assert {key: rows[name][key] for key in expected} == expected
        assert rows[name]["sharpness"] == measure_sharpness(rgb)
    assert rows["b.png"]["reason"] == "unreadable" and rows["b.png"]["brightness"] is None
