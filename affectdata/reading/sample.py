"""Draw images for generated samples: no photographs, but with shapes and colours that depend on valence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

_SHAPES = 7
_POINTS = 7  # of a star


def draw_image(rng: np.random.Generator, valence: float, width: int = 160, height: int = 120) -> np.ndarray:
    """Draw an RGB image of random shapes: rounder, lighter and warmer for higher valence (0–100).

    The shapes depend on the valence more than the colours do: a network has content to learn, and no subtype
    can be recognised by a colour alone. No two images are near-duplicates.
    """
    rng = np.random.default_rng(rng.integers(2**63))  # one draw: tables do not depend on how images look
    mood, roundness = np.clip(valence / 100 + rng.normal(0, (0.3, 0.2)), 0, 1)
    cold, warm = np.array([40.0, 60.0, 90.0]), np.array([235.0, 200.0, 120.0])
    ground = cold + (warm - cold) * mood
    coarse = rng.normal(0, 1, (6, 8, 3)).astype(np.float32)
    import cv2

    image = ground + 38 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(_SHAPES):
        outline = _outline(rng, roundness, min(width, height))
        centre = rng.uniform((0, 0), (width, height))
        colour = np.clip(ground + rng.normal(0, 70, 3), 0, 255).tolist()
        points = np.round((centre + outline) * 16).astype(np.int32)  # sixteenths of a pixel
        cv2.fillPoly(image, [points], colour, cv2.LINE_AA, shift=4)
    image += rng.normal(0, 8, image.shape)
    image = cv2.GaussianBlur(image, (0, 0), width / 230)  # rotations of soft images hardly show
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _outline(rng: np.random.Generator, roundness: float, size: int) -> np.ndarray:
    """Return the outline of a shape around (0, 0), N × 2 pixels: from a thin star (0) to an ellipse (1)."""
    angles = np.linspace(0, 2 * np.pi, 16 * _POINTS, endpoint=False)
    to_point = np.abs(((angles * _POINTS / (2 * np.pi)) % 1) - 0.5) * 2  # 1 at each point, 0 between two
    radius = roundness + (1 - roundness) * (0.25 + 1.25 * to_point**3)
    axes = rng.uniform(size / 12, size / 3, 2)
    x, y = (radius * np.cos(angles) * axes[0], radius * np.sin(angles) * axes[1])
    turn = rng.uniform(0, np.pi)
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)


def save_image(path: Path, rgb: np.ndarray, container: str, palette: bool = False) -> None:
    """Write an image in the format `container`, whatever the suffix of `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(rgb)
    buffer = io.BytesIO()
    (image.quantize(256, Image.Quantize.FASTOCTREE) if palette else image).save(buffer, container)
    path.write_bytes(buffer.getvalue())
