"""Published indexes: which files a source is known to have, by SHA-256, so that a copy can be told from it.

An index is `manifests/index/<source>.csv`: a first line with its origin, then the columns `COLUMNS`. It holds
neither ratings nor images. `write_index` makes one of the manifest of a source.
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

# The columns of an index, and those of a manifest that they are taken from.
COLUMNS = {
    "file": "path",
    "sha256": "image_id",
    **{name: name for name in ("bytes", "width_px", "height_px", "subtype", "pixel_id", "phash")},
}
_LOOKED_AT = 20  # images of a tree that no source recognises


def find_index(source: str) -> Path | None:
    """Return the index of a source that comes with the package, installed or in a checkout."""
    path = find_data("manifests/index") / f"{source}.csv"
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """An image that an index lists: its path in the source, and its identities ("" where it lists none)."""

    file: str
    sha256: str
    pixel_id: str = ""
    phash: str = ""


def read_index(path: Path) -> tuple[IndexedImage, ...]:
    """Return the images of an index, in its order; older ones have no `pixel_id` and no `phash`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(
            IndexedImage(row["file"], row["sha256"], row.get("pixel_id") or "", row.get("phash") or "")
            for row in rows
        )


def write_index(rows: pa.Table, origin: str, path: Path) -> None:
    """Write the index of a source from the rows of its manifest; `origin` says in a line where it is from.

    A `pixel_id` of a lossy format (JPEG) holds for the decoder that made the manifest.
    """
    table = rows.select(list(COLUMNS.values())).sort_by("path")
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {origin}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row.values() for row in table.to_pylist())


def images_of(source: str) -> tuple[IndexedImage, ...]:
    """Return the indexed images of a source; none for a source without an index."""
    path = find_index(source)
    return read_index(path) if path else ()


def name_by_index(tree: Tree) -> str | None:
    """Say of which indexed source a few images of a tree are, whatever they are called."""
    some = {file_hash(tree.read_bytes(path)) for path in islice(tree.images(), _LOOKED_AT)}
    for source in find_plugins("sources"):
        same = len(some & {image.sha256 for image in images_of(source)})
        if same:
            return f"{same} of {len(some)} images that were looked at are those of {source}"
    return None


def compare_index(source: str, image_ids: Iterable[pa.ChunkedArray]) -> list[Finding]:
    """Say how many of a source's images are those of the indexed copy; nothing for a source without one."""
    known = {image.sha256: image.file for image in images_of(source)}
    if not known:
        return []
    wanted, here, n_here = pa.array(known, pa.string()), set(), 0
    for part in image_ids:
        here.update(part.filter(pc.is_in(part, wanted)).to_pylist())
        n_here += len(part)
    gone = sorted(known[sha] for sha in known.keys() - here)
    if not here:
        return [Finding("index", f"none of the {len(known)} indexed files: another copy, or not {source}")]
    text = f"{len(here)} of {len(known)} files identical to the indexed copy"
    if gone:
        text += f"; not here: {', '.join(gone[:3])}" + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
    if n_here > len(here):
        text += f"; {n_here - len(here)} here are not in the index"
    return [Finding("index", text)]
