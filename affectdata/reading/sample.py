"""Draw images for generated samples: no photographs, but with content and colours that depend on valence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

_BLOBS = 7


def draw_image(rng: np.random.Generator, valence: float, width: int = 160, height: int = 120) -> np.ndarray:
    """Draw an RGB image of random blobs, lighter and warmer for higher valence (0–100).

    The blobs are large and random, so that no two images are near-duplicates; noise keeps colour from
    determining the valence.
    """
    mood = np.clip(valence / 100 + rng.normal(0, 0.25), 0, 1)
    cold, warm = np.array([40.0, 60.0, 90.0]), np.array([235.0, 200.0, 120.0])
    ground = cold + (warm - cold) * mood
    coarse = rng.normal(0, 1, (6, 8, 3)).astype(np.float32)
    import cv2

    image = ground + 38 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(_BLOBS):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(8, width // 4)), int(rng.integers(8, height // 4)))
        colour = np.clip(ground + rng.normal(0, 70, 3), 0, 255).tolist()
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    image += rng.normal(0, 4, image.shape)
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def save_image(path: Path, rgb: np.ndarray, container: str, palette: bool = False) -> None:
    """Write an image in the format `container`, whatever the suffix of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(rgb)
    buffer = io.BytesIO()
    (image.quantize(256, Image.Quantize.FASTOCTREE) if palette else image).save(buffer, container)
    path.write_bytes(buffer.getvalue())
