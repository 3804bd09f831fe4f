"""Find images of a manifest that are versions of one image, and write them as groups.

In: a manifest, its images, and a backbone. Out: proven pairs (`look_alikes`), and a table image -> group that
`split.groups` of a recipe reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.images.duplicates import find_first_of_group
from affectdata.manifest.manifest import Images
from affectdata.store.atomic import write_text
from affectdata.store.escape import to_csv
from affectdata.train.backbones import Backbone
from affectdata.train.features import FeatureCache, compute_features
from affectdata.train.images import Progress, Readable
from affectdata.train.look_alikes import SamePair, nearest_pairs, prove_pairs
from affectdata.workers import THREADS


@dataclass(frozen=True, slots=True)
class _ReadSource:
    """Read the files of a batch (`source`, `path`, `image_id`) as the source stores them."""

    images: Images

    def __call__(self, batch: pa.Table) -> list[bytes]:
        rows = batch.select(["source", "path", "image_id"]).to_pylist()
        return [self.images.read(row["source"], row["path"], row["image_id"]) for row in rows]


def find_same_pairs(
    table: pa.Table,
    images: Images,
    backbone: Backbone,
    cache: Path,
    workers: int,
    on_features: Progress | None = None,
    on_points: Progress | None = None,
    engine: str = THREADS,
) -> list[SamePair]:
    """Return pairs of rows of a manifest that are the same image and not in one group, the surest first.

    Each image is compared with the five most similar ones. Features are kept in the folder `cache`.
    """
    read = _ReadSource(images)
    keyed = table.select(["source", "path", "image_id"]).append_column("key", table["image_id"])
    wanted, kept = Readable(np.arange(len(table)), keyed, read), FeatureCache(cache, backbone)
    report = on_features or (lambda *_: None)
    features, _ = compute_features(wanted, backbone, kept, workers, report, engine)
    group = np.array(table["group_id"].to_pylist(), str)
    pairs = nearest_pairs(features, features, group, group)
    ids = table["image_id"].to_pylist()
    return prove_pairs(pairs, ids, lambda row: read(keyed.slice(row, 1))[0], cache, workers, on_points)


def describe_pairs(table: pa.Table, pairs: list[SamePair]) -> pa.Table:
    """Return a row per pair: both images, inliers, and whether one is mirrored."""
    columns: dict[str, pa.Array] = {}
    for side, letter in enumerate("ab"):
        rows = pa.array([pair.rows[side] for pair in pairs], pa.int64())
        for name in ("image_id", "source", "path"):
            columns[f"{name}_{letter}"] = table[name].take(rows)
    columns["inliers"] = pa.array([pair.inliers for pair in pairs], pa.int64())
    columns["mirrored"] = pa.array([pair.mirrored for pair in pairs], pa.bool_())
    return pa.table(columns)


def write_groups(table: pa.Table, pairs: list[SamePair], path: Path) -> int:
    """Write the images of the pairs, sorted by group, as CSV; return the number of groups.

    The group of an image is named after the smallest image_id that it is connected with.
    """
    links = np.array([pair.rows for pair in pairs], np.int64).reshape(-1, 2)
    first = find_first_of_group(pc.sort_indices(table["image_id"]).to_numpy(), links, [])
    rows = pa.array(np.unique(links))
    listed = table.select(["image_id", "source", "path"]).take(rows)
    listed = listed.add_column(1, "group", table["image_id"].take(pa.array(first[np.unique(links)])))
    listed = listed.sort_by([("group", "ascending"), ("image_id", "ascending")])
    write_text(path, to_csv(listed.column_names, zip(*listed.to_pydict().values(), strict=True)))
    return pc.count_distinct(listed["group"]).as_py() or 0
