"""Small JPEGs of images for the page; those that are sensitive also as a blur of a few pixels."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import DecodeError, ImagesNotFound, IntegrityError
from affectdata.images.decode import decode, encode, resize
from affectdata.recipe.recipe import parse_recipe
from affectdata.release.images import Read, released_reader
from affectdata.release.release import Release
from affectdata.reporting.subject import SENSITIVE, Subject
from affectdata.store.parquet import read_parts

SIZE, QUALITY = 160, 72  # pixels of the longer side; of the JPEG
_BLUR = 10  # pixels of the longer side of the blurred one: a CSS filter would bloat the PDF of the page
_COLUMNS = ("file_name", "file_sha256", "sample_id", "image_id", "pipeline", "seed", "source", "path")


@dataclass(frozen=True)
class Thumbnail:
    """`image` is a data URI, empty if the image cannot be read; `blurred` is set if it is sensitive."""

    image: str
    blurred: str = ""
    problem: str = ""


def make_thumbnails(
    subject: Subject, keys: set[str], manifests: Path, roots: Mapping[str, Path]
) -> dict[str, Thumbnail]:
    """Return a thumbnail for each key; an image that cannot be read has the reason in its place."""
    rows = _find(subject, keys)
    try:
        read = _reader(subject, manifests, roots)
    except ImagesNotFound as error:
        return {key: Thumbnail("", problem=error.what) for key in keys}
    sensitive = set(subject.rows.loc[subject.rows[SENSITIVE], subject.key]) & keys
    return {
        row[subject.key].as_py(): _thumbnail(read, part, row[subject.key].as_py() in sensitive)
        for part in _one_by_one(rows)
        for row in [{subject.key: part[subject.key][0]}]
    }


def _find(subject: Subject, keys: set[str]) -> pa.Table:
    """Return the rows of the keys, with the columns that their images are read by."""
    rows = subject.source.rows
    names = _COLUMNS if subject.release else ("image_id", "source", "path")
    wanted = pa.array(sorted(keys), pa.string())
    parts = [part.filter(pc.is_in(part[subject.key], wanted)) for part in read_parts(rows, names)]
    return pa.concat_tables(parts)


def _one_by_one(rows: pa.Table) -> Iterator[pa.Table]:
    return (rows.slice(row, 1) for row in range(len(rows)))


def _reader(subject: Subject, manifests: Path, roots: Mapping[str, Path]) -> Read:
    release = subject.source
    if isinstance(release, Release):
        source_images = release.images(manifests) if release.is_virtual else None
        return released_reader(release.path, parse_recipe(release.recipe_document), source_images)
    images = replace(release, roots={**release.roots, **roots}).images()

    def read(batch: pa.Table) -> list[bytes]:
        return [images.read(row["source"], row["path"], row["image_id"]) for row in batch.to_pylist()]

    return read


def _thumbnail(read: Read, row: pa.Table, is_sensitive: bool) -> Thumbnail:
    try:
        (data,) = read(row)
        return make_thumbnail(decode(data).rgb, is_sensitive)
    except (ImagesNotFound, IntegrityError, DecodeError) as error:
        return Thumbnail("", problem=error.what)


def make_thumbnail(rgb: np.ndarray, is_sensitive: bool = False) -> Thumbnail:
    """Return a thumbnail of an image, uint8 RGB (height, width, 3)."""
    small = _fit(rgb, SIZE)
    blurred = jpeg_uri(_fit(small, _BLUR), QUALITY) if is_sensitive else ""
    return Thumbnail(jpeg_uri(small, QUALITY), blurred)


def _fit(rgb: np.ndarray, size: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = min(1.0, size / max(height, width))
    return resize(rgb, max(1, round(width * scale)), max(1, round(height * scale)))


def jpeg_uri(rgb: np.ndarray, quality: int) -> str:
    """Return an image as a data URI."""
    return "data:image/jpeg;base64," + base64.b64encode(encode(rgb, "jpeg", quality)).decode()


def map_uri(file: Path) -> str:
    """Return a drawn saliency map as a data URI; empty if it cannot be read."""
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    return "" if image is None else jpeg_uri(_fit(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 2 * SIZE), QUALITY)
