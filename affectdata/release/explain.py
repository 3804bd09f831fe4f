"""Why an image is where it is in a release: its group with edges, its split, its cell and its copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import UsageError
from affectdata.release.release import Release
from affectdata.store.parquet import read_table

_KEYS = ("image_id", "source", "source_id", "path", "split", "cell", "group_id")  # of an image
_ROW_KEYS = ("sample_id", "copy", "pipeline", "file_name")  # of each of its rows


def explain_image(release: Release, image_id: str, manifests: Path) -> dict[str, Any]:
    """Return an image's group with its edges, its split, cell and copies; `image_id` may be a prefix.

    Edges are read from the edge tables in the folder `manifests`, if any.

    Raises:
        UsageError: no image of the release, or several, match the prefix.
    """
    table = release.rows.select([*_KEYS, *_ROW_KEYS])
    rows = table.filter(pc.starts_with(table["image_id"], image_id)).to_pylist()
    ids = {row["image_id"] for row in rows}
    if len(ids) != 1:
        subject = f"{len(ids)} images begin" if ids else "no image begins"
        raise UsageError(
            f"{subject} with {image_id!r}", where=str(release.path), fix="give more digits of the image_id"
        )
    first = rows[0]
    members = table.filter(
        pc.and_(pc.equal(table["group_id"], first["group_id"]), pc.equal(table["copy"], 0))
    )
    group = members.select(["image_id", "split", "path"]).to_pylist()
    return {
        **{key: first[key] for key in _KEYS},
        "group": group,
        "edges": _read_edges({row["image_id"] for row in group}, manifests),
        "rows": [{key: row[key] for key in _ROW_KEYS} for row in rows],
    }


def _read_edges(ids: set[str], manifests: Path) -> list[dict[str, Any]]:
    """Return the edges between images of `ids`, from every edge table of a folder."""
    rows = []
    for path in sorted(manifests.glob("*.edges.parquet")):
        edges, _ = read_table(path, "edges")
        nodes = pa.array(sorted(ids), pa.string())
        inside = pc.and_(pc.is_in(edges["image_id_a"], nodes), pc.is_in(edges["image_id_b"], nodes))
        rows += edges.filter(inside).to_pylist()
    return rows
