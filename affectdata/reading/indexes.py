"""Published indexes: the files that a source is known to contain, by SHA-256, to compare copies with.

An index is `manifests/index/<source>.csv`: a first line with its origin, then the columns `COLUMNS`. It has
neither ratings nor images. `write_index` makes one from the manifest of a source.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.hashing import file_hash
from affectdata.reading.tree import Tree
from affectdata.records import Finding
from affectdata.registry import find_data, find_plugins

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


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """An image in an index: its path in the source, and its hashes ("" where the index has none)."""

    file: str
    sha256: str
    pixel_id: str = ""
    phash: str = ""


def read_index(path: Path) -> tuple[IndexedImage, ...]:
    """Return the images of an index, in its order; older indexes have no `pixel_id` and no `phash`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(
            IndexedImage(row["file"], row["sha256"], row.get("pixel_id") or "", row.get("phash") or "")
            for row in rows
        )


def write_index(rows: pa.Table, origin: str, path: Path) -> None:
    """Write the index of a source from the rows of its manifest; `origin` is one line on where it comes from.

    The `pixel_id` of a lossy format (JPEG) depends on the decoder that made the manifest.
    """
    table = rows.select(list(COLUMNS.values())).sort_by("path")
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {origin}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row.values() for row in table.to_pylist())


def images_of(source: str) -> tuple[IndexedImage, ...]:
    """Return the indexed images of a source; empty for a source without an index."""
    path = find_index(source)
    return read_index(path) if path else ()


def name_by_index(tree: Tree) -> str | None:
    """Compare a few images of a tree with every index, whatever their names, and describe the first match."""
    hashes = {file_hash(tree.read_bytes(path)) for path in islice(tree.images(), _N_COMPARED)}
    for source in find_plugins("sources"):
        n_same = len(hashes & {image.sha256 for image in images_of(source)})
        if n_same:
            return f"{n_same} of the first {len(hashes)} images are identical to images of {source}"
    return None


def compare_index(source: str, image_ids: Iterable[pa.ChunkedArray]) -> list[Finding]:
    """Count how many of a source's images are identical to the index; no finding without an index."""
    known = {image.sha256: image.file for image in images_of(source)}
    if not known:
        return []
    indexed, present, n_images = pa.array(known, pa.string()), set(), 0
    for part in image_ids:
        present.update(part.filter(pc.is_in(part, indexed)).to_pylist())
        n_images += len(part)
    missing = sorted(known[sha] for sha in known.keys() - present)
    if not present:
        return [Finding("index", f"none of the {len(known)} indexed files: another copy, or not {source}")]
    text = f"{len(present)} of {len(known)} files identical to the indexed copy"
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        text += f"; missing: {', '.join(missing[:3])}{more}"
    if n_images > len(present):
        text += f"; {n_images - len(present)} images are not in the index"
    return [Finding("index", text)]
