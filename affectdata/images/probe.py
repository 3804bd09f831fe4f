"""Probe images: read, decode and hash every file once; a damaged file is a row, not an exception."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from affectdata.errors import DecodeError
from affectdata.hashing import file_hash
from affectdata.images.decode import MAX_PIXELS, decode
from affectdata.images.phash import perceptual_hashes, pixel_hash
from affectdata.images.read import read_image
from affectdata.records import Reason
from affectdata.schema import manifest_schema

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
        return pa.Table.from_pylist([self._probe(path) for path in batch["path"].to_pylist()], schema=PROBED)

    def _probe(self, path: str) -> dict[str, Any]:
        empty = {"path": path, **_ABSENT, "width_px": 0, "height_px": 0}
        try:
            data = read_image(Path(self.root), path, _MAX_FILE_BYTES)
            if not data:
                raise DecodeError(Reason.UNREADABLE, "the file is empty")
            image = decode(data, self.max_pixels)
            if self.strict and image.warning:
                raise DecodeError(Reason.DECODE_WARNING, image.warning)
        except DecodeError as error:
            return {**empty, "reason": str(error.reason), "detail": error.what}
        except OSError as error:
            return {**empty, "reason": str(Reason.UNREADABLE), "detail": error.strerror or str(error)}
        upright, *turned = perceptual_hashes(image.rgb)
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
        }
