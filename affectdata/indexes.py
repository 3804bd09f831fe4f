"""Published indexes: which files a source is known to have, by SHA-256, so that a copy can be told from it.

An index is `manifests/index/<source>.csv`: a first line with its origin, then file, sha256, bytes, width_px,
height_px, subtype. It holds neither ratings nor pictures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.hashing import file_hash
from affectdata.records import Finding
from affectdata.registry import find_data, find_plugins
from affectdata.tree import Tree

_LOOKED_AT = 20  # pictures of a tree that no source recognises


def find_index(source: str) -> Path | None:
    """Return the index of a source that comes with the package, installed or in a checkout."""
    path = find_data("manifests/index") / f"{source}.csv"
    return path if path.is_file() else None


def read_index(path: Path) -> dict[str, str]:
    """Return the files of an index: SHA-256 to name."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["sha256"]: row["file"] for row in rows}


def name_by_index(tree: Tree) -> str | None:
    """Say of which indexed source a few pictures of a tree are, whatever they are called."""
    some = {file_hash(tree.read_bytes(path)) for path in islice(tree.pictures(), _LOOKED_AT)}
    for source in find_plugins("sources"):
        index = find_index(source)
        same = len(some & read_index(index).keys()) if index else 0
        if same:
            return f"{same} of {len(some)} pictures that were looked at are those of {source}"
    return None


def compare_index(source: str, image_ids: Iterable[pa.ChunkedArray]) -> list[Finding]:
    """Say how many of a source's pictures are those of the indexed copy; nothing for a source without one."""
    path = find_index(source)
    if path is None:
        return []
    known = read_index(path)
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
