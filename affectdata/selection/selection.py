"""Select a stimulus set from a manifest, and write it: lists, manifest, figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.hashing import canonical_json, file_hash
from affectdata.manifest.manifest import Manifest, write_manifest
from affectdata.manifest.roots import read_local, record_root
from affectdata.selection.candidates import Candidates, find_candidates
from affectdata.selection.equivalence import compare, describe, summarise
from affectdata.selection.feasible import find_selection
from affectdata.selection.program import Moment, Problem
from affectdata.selection.request import SetRequest
from affectdata.store.atomic import write_json, write_text
from affectdata.store.escape import frame_to_csv

SCHEMA = "affectdata/select/1"
_ALWAYS = ("image_id", "source", "source_id", "path", "valence", "arousal")


@dataclass(frozen=True, eq=False)
class Selection:
    """Images in lists, and how well they are matched.

    `images` has a row per selected image: list (from 1), cell, image, values of its columns. `means` and
    `comparisons` as in `equivalence`; `summary` has a row per matched column. `is_optimal`: no selection is
    better matched, ranges under 0.05 SD counted as equal.
    """

    request: SetRequest = field(repr=False)
    rows: pa.Table = field(repr=False)
    images: pd.DataFrame = field(repr=False)
    means: pd.DataFrame = field(repr=False)
    comparisons: pd.DataFrame = field(repr=False)
    candidates: dict[str, int] = field(repr=False)
    left_out: dict[str, int]
    is_optimal: bool
    folder: Path

    @property
    def summary(self) -> pd.DataFrame:
        """Per matched column: the largest difference before and after, in SD, and the tests after."""
        return summarise(self.comparisons)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per selected image."""
        return self.images

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the images as plain data."""
        tables = {"summary": self.summary, "means": self.means, "comparisons": self.comparisons}
        return {
            "request": self.request.model_dump(mode="json"),
            "folder": str(self.folder),
            "images": len(self.images),
            "candidates": self.candidates,
            "left_out": self.left_out,
            "optimal": self.is_optimal,
            **{name: _records(table) for name, table in tables.items()},
        }


def select_images(manifest: Manifest, request: SetRequest, out: Path, where: str) -> Selection:
    """Select the images of a request; nothing is written.

    Raises:
        RecipeError: the request does not fit the manifest, or cannot be met.
    """
    candidates = find_candidates(manifest, request)
    lists, is_optimal = find_selection(_problem(candidates, request), candidates.cells, where)
    separating = [name for name, levels in request.cells.items() if isinstance(levels, Mapping)]
    columns = [*request.match, *separating]
    identity = f"{canonical_json(request.model_dump(mode='json'))}{manifest.digest}"
    counts = np.bincount(candidates.cell, minlength=len(candidates.cells))
    images = _images(candidates, lists, columns)
    return Selection(
        request=request,
        rows=manifest.table.filter(pc.is_in(manifest.table["image_id"], pa.array(images["image_id"]))),
        images=images,
        means=describe(candidates, lists, columns),
        comparisons=compare(candidates, lists, request.match, separating, request.equivalence),
        candidates=dict(zip(candidates.cells, counts.tolist(), strict=True)),
        left_out=candidates.left_out,
        is_optimal=is_optimal,
        folder=out / f"{request.name}-{file_hash(identity.encode())[:8]}",
    )


def _problem(candidates: Candidates, request: SetRequest) -> Problem:
    """Return the integer program: match columns over all cells; what separates the cells, over the lists."""
    moments, cells = [], list(range(len(candidates.cells)))
    for column in request.match:
        z = (candidates.values(column) - candidates.values(column).mean()) / candidates.scale(column)
        moments += [Moment(column, z, cells, request.max_difference), Moment(column, z**2 / 2, cells)]
    for column, levels in request.cells.items():
        if isinstance(levels, Mapping) and request.lists > 1:
            z = candidates.values(column) / candidates.scale(column)
            moments += [Moment(column, z, [cell], request.max_difference) for cell in cells]
    return Problem(candidates.cell, candidates.group, moments, request.n, request.lists)


def _images(candidates: Candidates, lists: np.ndarray, columns: list[str]) -> pd.DataFrame:
    chosen = np.flatnonzero(lists >= 0)
    chosen = chosen[np.lexsort((candidates.cell[chosen], lists[chosen]))]  # the rest is in seeded order
    rows = candidates.rows.select(list(dict.fromkeys([*_ALWAYS, *columns]))).take(pa.array(chosen))
    frame: pd.DataFrame = rows.to_pandas()
    frame.insert(0, "list", lists[chosen] + 1)
    frame.insert(1, "cell", [candidates.cells[code] for code in candidates.cell[chosen]])
    return frame


def write_selection(selection: Selection, manifest: Manifest) -> None:
    """Write `list.csv`, the manifest of the images and `select.json` to the selection's folder."""
    folder, name = selection.folder, selection.request.name
    images = selection.images
    write_text(folder / "list.csv", frame_to_csv(images))
    metadata = {key: value for key, value in manifest.metadata.items() if key != "digest"}
    write_manifest(selection.rows, metadata, folder / f"{name}.parquet")
    roots = read_local(manifest.path.parent) | {key: str(path) for key, path in manifest.roots.items()}
    for source in manifest.sources:
        if source in roots:
            record_root(folder, source, Path(roots[source]))
    write_json(folder / "select.json", {"schema": SCHEMA, **selection.to_dict()})


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain data; NaN is None."""
    return [
        {str(key): None if value != value else value for key, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]
