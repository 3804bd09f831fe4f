"""Published indexes: what a source is known to contain, to compare copies with.

An index is `manifests/index/<source>.csv`: a line with its origin, one with the hash of the rest, then the
columns `COLUMNS`, a row per image. Beside it, `<source>.ratings.csv` has digests of the ratings. There are
neither ratings nor images in them. `manifests/make_index.py` writes both from the manifest of a source.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from affectdata.hashing import file_hash
from affectdata.reading.rating_digests import FIX, RatingDigest, digest_ratings, read_digests, write_digests
from affectdata.reading.tree import Tree
from affectdata.registry import find_data, find_plugins
from affectdata.store.sealed import read_sealed_csv, write_sealed_csv

# The columns of an index, and the manifest columns that they come from.
COLUMNS = {
    "file": "path",
    "sha256": "image_id",
    **{name: name for name in ("bytes", "width_px", "height_px", "subtype", "pixel_id", "phash")},
}
_N_COMPARED = 20  # images of a tree that no source recognises


def find_index(source: str) -> Path | None:
    """Return the path of the packaged index of a source, or None."""
    path = find_data("manifests/index") / f"{source}.csv"
    return path if path.is_file() else None


def ratings_path(index: Path) -> Path:
    """Return the path of the rating digests beside an index."""
    return index.with_suffix(".ratings.csv")


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """An image in an index: path, hashes and subtype in the source ("" where the index has none)."""

    file: str
    sha256: str
    pixel_id: str = ""
    phash: str = ""
    subtype: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """The images of a source and the digests of its ratings."""

    source: str
    images: tuple[IndexedImage, ...]
    ratings: tuple[RatingDigest, ...]


def load_index(source: str) -> Index | None:
    """Return the packaged index of a source, or None."""
    path = find_index(source)
    return Index(source, read_index(path), tuple(read_digests(ratings_path(path)))) if path else None


def read_index(path: Path) -> tuple[IndexedImage, ...]:
    """Return the images of an index, in its order; older indexes have no `pixel_id` and no `phash`."""
    return tuple(
        IndexedImage(
            row["file"],
            row["sha256"],
            *(row.get(name, "") for name in ("pixel_id", "phash", "subtype")),
        )
        for row in read_sealed_csv(path, ("file", "sha256"), FIX)
    )


def write_index(rows: pa.Table, origin: str, path: Path) -> None:
    """Write the index of a source from the rows of its manifest; `origin` is one line on where it comes from.

    The `pixel_id` of a lossy format (JPEG) depends on the decoder that made the manifest.
    """
    table = rows.select(list(COLUMNS.values())).sort_by("path")
    write_sealed_csv(path, origin, list(COLUMNS), (list(row.values()) for row in table.to_pylist()))
    write_digests(digest_ratings(rows), origin, ratings_path(path))


def name_by_index(tree: Tree) -> str | None:
    """Compare a few images of a tree with every index, whatever their names, and describe the first match."""
    hashes = {file_hash(tree.read_bytes(path)) for path in islice(tree.images(), _N_COMPARED)}
    for source in find_plugins("sources"):
        path = find_index(source)
        n_same = len(hashes & {image.sha256 for image in read_index(path)}) if path else 0
        if n_same:
            return f"{n_same} of the first {len(hashes)} images are identical to images of {source}"
    return None
