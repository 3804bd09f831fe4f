"""Compare two releases and derive the version step.

Croissant's rule for dataset versions: patch if no image and no label changed (only terms, names, weights),
minor if data was added, major if data was removed or changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.release.release import Release
from affectdata.schema import QUALITY

_LABELS = ("valence", "arousal", "dominance", "emotion", "label", "subtype")
_NOT_DESCRIPTIVE = {"sample_id", "image_id", "split", "copy", "pipeline", "seed", "group_id"}
_NOT_DESCRIPTIVE |= {column.name for column in QUALITY}  # follow from the pixels; former releases lack them
_NOT_DESCRIPTIVE |= {"out_width_px", "out_height_px", "file_sha256", "file_name", "file_bytes"}


@dataclass(frozen=True, slots=True)
class ReleaseDiff:
    """Sample ids by kind of change; `cells` maps each changed train cell to its rows before and after."""

    added: list[str]
    removed: list[str]
    moved: list[str]  # to another split or fold
    relabelled: list[str]
    redrawn: list[str]  # a different file from the same image
    described: list[str]  # changes in other columns only: terms, names, cells, sampling weights
    cells: dict[str, tuple[int, int]]

    @property
    def step(self) -> str:
        """The version step: none, patch, minor or major."""
        if self.removed or self.moved or self.relabelled or self.redrawn:
            return "major"
        if self.added:
            return "minor"
        return "patch" if self.described else "none"

    def document(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        return {**asdict(self), "step": self.step}


def diff_releases(old: Release, new: Release) -> ReleaseDiff:
    """Compare two releases row by row, matched on `sample_id`; one column at a time is in memory twice."""
    left, right = (pd.Index(release.table["sample_id"].to_pandas()) for release in (old, new))
    common = left.intersection(right).sort_values()
    pair = _Pair(old.table, new.table, left.get_indexer(common), right.get_indexer(common))
    names = {*old.table.column_names, *new.table.column_names}
    labels = [name for name in names if name in _LABELS or name.startswith("emotion_")]
    descriptive = names.difference(labels, _NOT_DESCRIPTIVE)
    both = {*old.table.column_names} & {*new.table.column_names}
    relabelled = pair.changed(labels)
    return ReleaseDiff(
        added=sorted(right.difference(left)),
        removed=sorted(left.difference(right)),
        moved=common[pair.changed({"split", "fold"} & both)].tolist(),
        relabelled=common[relabelled].tolist(),
        redrawn=common[pair.changed(["file_sha256"])].tolist(),
        described=common[pair.changed(descriptive) & ~relabelled].tolist(),
        cells=_changed_cells(old, new),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two tables, and the places of their common rows in either."""

    before: pa.Table
    after: pa.Table
    rows_before: np.ndarray
    rows_after: np.ndarray

    def changed(self, columns: Iterable[str]) -> np.ndarray:
        """Return which common rows differ in any of the columns; a column that a table lacks is null."""
        changed = np.zeros(len(self.rows_before), bool)
        for name in columns:
            old, new = (
                _column(self.before, name, self.rows_before),
                _column(self.after, name, self.rows_after),
            )
            changed |= ((old != new) & ~(old.isna() & new.isna())).to_numpy(dtype=bool)
        return changed


def _column(table: pa.Table, name: str, rows: np.ndarray) -> pd.Series:
    if name not in table.column_names:
        return pd.Series([None] * len(rows), dtype=object)
    column: pd.Series = table[name].to_pandas().take(rows).reset_index(drop=True)
    return column


def _changed_cells(old: Release, new: Release) -> dict[str, tuple[int, int]]:
    before, after = (
        release.table.filter(pc.field("split") == "train")["cell"].to_pandas().value_counts()
        for release in (old, new)
    )
    names = sorted({*before.index, *after.index})
    counts = {name: (int(before.get(name, 0)), int(after.get(name, 0))) for name in names}
    return {name: pair for name, pair in counts.items() if pair[0] != pair[1]}
