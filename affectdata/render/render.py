"""Render the rows of a plan: decode → augment at source size → one area resize → encode.

Originals take the same path without the augmentation. The output depends only on (source image, pipeline,
seed, image spec) and library versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from affectdata.errors import InputError
from affectdata.hashing import file_hash
from affectdata.images.decode import decoded, encode, resize
from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import ImageSpec
from affectdata.recipe.transforms import Pipeline, Step
from affectdata.schema import RENDERED

RENDER_VERSION = 2  # part of every release id; increase it if the same plan would give different pixels
CANARY_DRAWS = 8  # seeds of the canary; releases that state no `canary_draws` have 1
_HALVE_ABOVE = 4  # images larger than this many times the output are halved first
_MAX_SIDE_PX = 65_500  # of a JPEG

SAMPLES = pa.schema(
    [
        RENDERED.field("sample_id"),
        pa.field("data", pa.binary(), nullable=False),
        RENDERED.field("out_width_px"),
        RENDERED.field("out_height_px"),
    ]
)


@dataclass(frozen=True, slots=True)
class RenderSamples:
    """Render the rows of a batch in memory: plan columns with `source` and `path` in, `SAMPLES` out.

    An image is decoded once for adjacent rows of it.
    """

    images: Images
    image: ImageSpec
    pipelines: dict[str, list[Step]]

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [
            (row["sample_id"], self.encode(rgb), rgb.shape[1], rgb.shape[0])
            for row, rgb in self.iter_pixels(batch)
        ]
        return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * 4, schema=SAMPLES)

    def iter_pixels(self, batch: pa.Table) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yield each row with its pixels, uint8 RGB, before encoding."""
        pipelines = {name: Pipeline(steps) for name, steps in self.pipelines.items()}
        last, source = "", np.empty((0, 0, 3), np.uint8)
        for row in batch.to_pylist():
            if row["image_id"] != last:
                last = row["image_id"]
                data = self.images.read(row["source"], row["path"], last)
                with decoded(data) as image:
                    source = _pre_shrink(image.rgb, self.image)
            pixels = pipelines[row["pipeline"]].apply(source, row["seed"]) if row["pipeline"] else source
            try:
                out = resize_to_spec(pixels, self.image)
            except InputError as error:
                error.where = f"{row['source']}: {row['path']}"
                raise
            yield row, out

    def encode(self, rgb: np.ndarray) -> bytes:
        """Encode pixels in the format and quality of the recipe."""
        return encode(rgb, self.image.format, self.image.quality)


def _pre_shrink(rgb: np.ndarray, image: ImageSpec) -> np.ndarray:
    """Halve an image until it is at most `_HALVE_ABOVE` times the output: augmentation is faster."""
    short = image.short_side_px or min(image.size_px or [1])
    while min(rgb.shape[:2]) > _HALVE_ABOVE * short:
        rgb = resize(rgb, rgb.shape[1] // 2, rgb.shape[0] // 2)
    return rgb


def resize_to_spec(rgb: np.ndarray, image: ImageSpec) -> np.ndarray:
    """Bring an image to the size of the recipe, with one resize.

    Raises:
        InputError: the image is so elongated that the result would exceed the limits of the file format.
    """
    height, width = rgb.shape[:2]
    if image.short_side_px is not None:
        return _scaled(rgb, image.short_side_px / min(width, height))
    out_width, out_height = image.size_px or [width, height]
    if image.fit == "stretch":
        return resize(rgb, out_width, out_height)
    by_width, by_height = out_width / width, out_height / height
    scale = max(by_width, by_height) if image.fit == "crop" else min(by_width, by_height)
    rgb = _scaled(rgb, scale)
    across, down = out_width - rgb.shape[1], out_height - rgb.shape[0]
    if image.fit == "crop":
        top, left = -down // 2, -across // 2
        return np.ascontiguousarray(rgb[top : top + out_height, left : left + out_width])
    # Black borders shift predictions and give copies away, so the margin is filled by reflection.
    sides = (down // 2, down - down // 2, across // 2, across - across // 2)
    return cv2.copyMakeBorder(rgb, *sides, cv2.BORDER_REFLECT_101)


def _scaled(rgb: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in rgb.shape[:2])
    if max(height, width) > _MAX_SIDE_PX:
        raise InputError(
            f"an image of {rgb.shape[1]} × {rgb.shape[0]} px would become {width} × {height}",
            fix="exclude such images, e.g. `where: width_px < 20 * height_px`",
        )
    return resize(rgb, width, height)


def canaries(pipelines: Mapping[str, list[Step]], n_draws: int = CANARY_DRAWS) -> dict[str, str]:
    """Return the SHA-256 of a small generated image through every pipeline, drawn with `n_draws` seeds.

    They differ where the random streams of numpy, or the pixels on this CPU, do.
    """
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (96, 72), interpolation=cv2.INTER_LINEAR)
    hashes = {"": file_hash(encode(image, "jpeg", 95))}
    for name, steps in pipelines.items():
        pipeline = Pipeline(steps)
        drawn = (pipeline.apply(image, seed) for seed in range(1, n_draws + 1))
        hashes[name] = file_hash(b"".join(encode(rgb, "png", 0) for rgb in drawn))
    return hashes
