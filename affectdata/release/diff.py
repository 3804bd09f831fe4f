"""What changed from one release to the next, and the version step that follows.

Croissant's rule for dataset versions: patch for what changes no image and no label (terms, names, weights),
minor for data added, major for data removed or changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from affectdata.release.release import Release

_LABELS = ("valence", "arousal", "dominance", "emotion", "label", "subtype")
_MADE = {"sample_id", "image_id", "split", "copy", "pipeline", "seed", "group_id"}
_MADE |= {"out_width_px", "out_height_px", "file_sha256", "file_name", "file_bytes"}


@dataclass(frozen=True, slots=True)
class ReleaseDiff:
    """Sample ids by what happened to them between two releases; `cells` counts rows before and after."""

    added: list[str]
    removed: list[str]
    moved: list[str]  # in another split or fold
    relabelled: list[str]
    redrawn: list[str]  # another file from the same image
    described: list[str]  # other columns only: terms, names, cells, sampling weights
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
    """Compare two releases row by row, on `sample_id`."""
    a = old.table.to_pandas().set_index("sample_id", drop=False)
    b = new.table.to_pandas().set_index("sample_id", drop=False)
    both = a.index.intersection(b.index).sort_values()
    before, after = a.loc[both], b.loc[both]
    labels = [name for name in _labels(a, b) if name in a or name in b]
    others = sorted((set(a) | set(b)) - set(labels) - _MADE)
    relabelled = _changed(before, after, labels)
    return ReleaseDiff(
        added=sorted(b.index.difference(a.index)),
        removed=sorted(a.index.difference(b.index)),
        moved=both[
            _changed(before, after, [name for name in ("split", "fold") if name in a and name in b])
        ].tolist(),
        relabelled=both[relabelled].tolist(),
        redrawn=both[(before["file_sha256"] != after["file_sha256"]).to_numpy()].tolist(),
        described=both[_changed(before, after, others) & ~relabelled].tolist(),
        cells=_cells(a, b),
    )


def _labels(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    shares = {name for name in (*a, *b) if str(name).startswith("emotion_")}
    return [*_LABELS, *sorted(map(str, shares))]


def _changed(before: pd.DataFrame, after: pd.DataFrame, columns: list[str]) -> Any:
    changed = pd.Series(False, index=before.index)
    for name in columns:
        old = before[name] if name in before else pd.Series(None, index=before.index, dtype=object)
        new = after[name] if name in after else pd.Series(None, index=after.index, dtype=object)
        changed |= (old != new) & ~(old.isna() & new.isna())
    return changed.to_numpy(dtype=bool)


def _cells(a: pd.DataFrame, b: pd.DataFrame) -> dict[str, tuple[int, int]]:
    before, after = (frame[frame["split"] == "train"]["cell"].value_counts() for frame in (a, b))
    names = sorted({*before.index, *after.index})
    counts = {name: (int(before.get(name, 0)), int(after.get(name, 0))) for name in names}
    return {name: pair for name, pair in counts.items() if pair[0] != pair[1]}
