"""Compare two releases and derive the version step.

Croissant's rule for dataset versions: patch if no image and no label changed (only terms, names, weights),
minor if data was added, major if data was removed or changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

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
    """Compare two releases row by row, matched on `sample_id`."""
    left = old.table.to_pandas().set_index("sample_id", drop=False)
    right = new.table.to_pandas().set_index("sample_id", drop=False)
    common = left.index.intersection(right.index).sort_values()
    before, after = left.loc[common], right.loc[common]
    labels = [name for name in _labels(left, right) if name in left or name in right]
    descriptive = sorted((set(left) | set(right)) - set(labels) - _NOT_DESCRIPTIVE)
    placement = [name for name in ("split", "fold") if name in left and name in right]
    relabelled = _changed(before, after, labels)
    return ReleaseDiff(
        added=sorted(right.index.difference(left.index)),
        removed=sorted(left.index.difference(right.index)),
        moved=common[_changed(before, after, placement)].tolist(),
        relabelled=common[relabelled].tolist(),
        redrawn=common[(before["file_sha256"] != after["file_sha256"]).to_numpy()].tolist(),
        described=common[_changed(before, after, descriptive) & ~relabelled].tolist(),
        cells=_changed_cells(left, right),
    )


def _labels(left: pd.DataFrame, right: pd.DataFrame) -> list[str]:
    shares = {name for name in (*left, *right) if str(name).startswith("emotion_")}
    return [*_LABELS, *sorted(map(str, shares))]


def _changed(before: pd.DataFrame, after: pd.DataFrame, columns: list[str]) -> Any:
    changed = pd.Series(False, index=before.index)
    for name in columns:
        old = before[name] if name in before else pd.Series(None, index=before.index, dtype=object)
        new = after[name] if name in after else pd.Series(None, index=after.index, dtype=object)
        changed |= (old != new) & ~(old.isna() & new.isna())
    return changed.to_numpy(dtype=bool)


def _changed_cells(left: pd.DataFrame, right: pd.DataFrame) -> dict[str, tuple[int, int]]:
    before, after = (frame[frame["split"] == "train"]["cell"].value_counts() for frame in (left, right))

    names = sorted({*before.index, *after.index})
    counts = {name: (int(before.get(name, 0)), int(after.get(name, 0))) for name in names}
    return {name: pair for name, pair in counts.items() if pair[0] != pair[1]}
