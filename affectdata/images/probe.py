"""Probe images: read, decode and hash every file once; a damaged file is a row, not an exception."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.errors import DecodeError
from affectdata.hashing import file_hash
from affectdata.images.decode import MAX_PIXELS, DecodedImage, decoded
from affectdata.images.phash import grey_thumbnail, hash_thumbnail, pixel_hash
from affectdata.images.quality import measure_grey, measure_sharpness
from affectdata.images.read import read_image
from affectdata.records import Reason
from affectdata.schema import QUALITY, manifest_schema

_MAX_FILE_BYTES = 1 << 30
_COLUMNS = (
    "path",
    "image_id",
    "pixel_id",
    "phash",
    "phash_views",
    "format",
    "bytes",
    "width_px",
    "height_px",
    *(field.name for field in QUALITY),
)

# Columns of the manifest that are read from a file, and why it is rejected (null if it is not).
PROBED = pa.schema(
    [manifest_schema().field(name) for name in (*_COLUMNS, "decode_warning")]
    + [("reason", pa.string()), ("detail", pa.string())]
)
_ABSENT = {"image_id": "", "pixel_id": "", "phash": "", "phash_views": "", "format": "", "bytes": 0}


@dataclass(frozen=True, slots=True)
class Probe:
    """Read, hash and decode the images of a batch; a bad image is a row with `reason` and `detail`."""

    root: str
    strict: bool = False
    max_pixels: int = MAX_PIXELS

    def __call__(self, batch: pa.Table) -> pa.Table:
        thumbnails: list[np.ndarray] = []
        rows = [self._probe(path, thumbnails) for path in batch["path"].to_pylist()]
        good = (row for row in rows if "reason" not in row)
        for row, quality in zip(good, measure_grey(thumbnails), strict=True):
            row.update(quality)
        return pa.Table.from_pylist(rows, schema=PROBED)

    def _probe(self, path: str, thumbnails: list[np.ndarray]) -> dict[str, Any]:
        """Return the row of an image; the grey thumbnail of a good one is added to `thumbnails`."""
        empty = {"path": path, **_ABSENT, "width_px": 0, "height_px": 0}
        try:
            data = read_image(Path(self.root), path, _MAX_FILE_BYTES)
            if not data:
                raise DecodeError(Reason.UNREADABLE, "the file is empty")
            with decoded(data, self.max_pixels) as image:
                if self.strict and image.warning:
                    raise DecodeError(Reason.DECODE_WARNING, image.warning)
                return self._measure(path, data, image, thumbnails)
        except DecodeError as error:
            return {**empty, "reason": str(error.reason), "detail": error.what}
        except OSError as error:
            return {**empty, "reason": str(Reason.UNREADABLE), "detail": error.strerror or str(error)}

    def _measure(
        self, path: str, data: bytes, image: DecodedImage, thumbnails: list[np.ndarray]
    ) -> dict[str, Any]:
        thumbnail = grey_thumbnail(image.rgb)
        thumbnails.append(thumbnail)
        upright, *turned = hash_thumbnail(thumbnail)
        return {
            "path": path,
            "image_id": file_hash(data),
            "pixel_id": pixel_hash(image.rgb),
            "phash": upright,
            "phash_views": "".join(turned),
            "format": image.format,
            "bytes": len(data),
            "width_px": image.rgb.shape[1],
            "height_px": image.rgb.shape[0],
            "decode_warning": image.warning,
            "sharpness": measure_sharpness(image.rgb),
        }
