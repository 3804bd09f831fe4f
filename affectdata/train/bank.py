"""The bank: every picture that any arm or fold needs, once, with its features and labels.

Copy k of a picture is the same picture in every fold, so its features are computed once. What the release
holds is read from it; what it does not hold (copies of test pictures, say) is rendered from the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.balance.cells import assign_cells, own_rows
from affectdata.balance.planner import plan_rows
from affectdata.balance.recipe import RATED, Recipe
from affectdata.balance.render import RenderSamples
from affectdata.balance.replay import ReadRendered, released_reader
from affectdata.folds import deal_folds
from affectdata.manifest import Pictures
from affectdata.release import Release
from affectdata.schema import PLAN
from affectdata.train.backbones import Backbone
from affectdata.train.features import (
    FeatureCache,
    Progress,
    compute_features,
    render_keys,
)
from affectdata.train.heads import N_FOLDS, Rows


@dataclass(frozen=True, eq=False)
class Originals:
    """One row per picture of a release, sorted by image_id, as the recipe sees it.

    `own` is False for pictures that fill thin bins from another source: trained on, never scored. `edges`
    are those of the target's bins, None where it is no number; `code` is the bin of each row, else its word.
    """

    table: pa.Table
    own: np.ndarray
    edges: list[float] | None
    code: np.ndarray
    labels: list[str]

    def plain(self) -> pa.Table:
        """Return plan rows of the pictures as they are, resized and nothing else."""
        plain = self.table.select(PLAN.names)
        at = plain.column_names.index("pipeline")
        return plain.set_column(at, PLAN.field("pipeline"), pa.array([""] * len(plain), pa.string()))


def find_originals(release: Release, recipe: Recipe) -> Originals:
    """Return the pictures that a release was made from, one row each."""
    table = release.table.filter(pc.equal(release.table["copy"], 0)).sort_by("image_id")
    cells = assign_cells(table, recipe)
    edges = cells.edges if recipe.target in RATED else None
    return Originals(table, own_rows(table, recipe), edges, cells.bin, cells.bin_labels)


def fold_originals(originals: Originals, seed: int) -> np.ndarray:
    """Return the fold of each picture, level over bins and subtypes; -1 for those that are never scored."""
    fold = np.full(len(originals.table), -1)
    own = originals.own
    group = np.array(originals.table["group_id"].to_pylist())[own]
    fold[own] = deal_folds(group, [originals.code[own]], seed, N_FOLDS)
    return fold


def plan_fold(originals: Originals, train: np.ndarray, recipe: Recipe) -> pa.Table:
    """Plan the recipe anew on some of the pictures and return its train rows."""
    table = originals.table
    split = pa.array(np.where(train, "train", "test").tolist(), pa.string())
    table = table.set_column(table.column_names.index("split"), "split", split)
    # A floor on what a cell is worth was met by the whole; four fifths of it may miss it.
    lenient = recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"min_n_eff": None})})
    plan = plan_rows(table, lenient).table
    return plan.filter(pc.equal(plan["split"], "train"))


class Bank:
    """Features and labels of planned pictures; `n_new` were computed by this run."""

    def __init__(self, originals: Originals, wanted: pa.Table, x: np.ndarray, n_new: int) -> None:
        self.originals = originals
        self.n_new = n_new
        self._place = {name: row for row, name in enumerate(_names(wanted))}
        self._x = x.astype(np.float64)  # as scikit-learn computes; float32 costs digits in the scaler
        table = originals.table
        self._of = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
        self._group = np.array(table["group_id"].to_pylist())
        self._part = np.array(table["subtype"].fill_null("").to_pylist())

    def __len__(self) -> int:
        return len(self._place)

    def rows(self, plan: pa.Table, y: np.ndarray) -> Rows:
        """Return the rows of a plan; `y` is the target of each original."""
        image_id = plan["image_id"].to_pylist()
        of = np.array([self._of[each] for each in image_id], np.int64)
        return Rows(
            x=self._x[[self._place[name] for name in _names(plan)]],
            y=y[of],
            image_id=np.array(image_id),
            group=self._group[of],
            copy=plan["copy"].to_numpy(),
            part=self._part[of],
            stratum=self.originals.code[of],
            weight=plan["weight"].to_numpy(),
        )


def fill_bank(
    release: Release,
    originals: Originals,
    plans: Sequence[pa.Table],
    recipe: Recipe,
    backbone: Backbone,
    cache: FeatureCache,
    pictures: Pictures | None,
    workers: int,
    progress: Progress,
) -> Bank:
    """Compute, or find in the cache, the features of all rows of `plans`, each picture once.

    Without `pictures` the plans may only name what the release holds.
    """
    wanted = _distinct([release.table.select(PLAN.names), *plans])
    place = {name: row for row, name in enumerate(_names(release.table))}
    found = np.array([place.get(name, -1) for name in _names(wanted)])
    held = release.table.take(pa.array(found[found >= 0]))
    held = held.append_column("key", held["file_sha256"])
    x, n_new = compute_features(
        held, released_reader(release, pictures, recipe), backbone, cache, workers, progress
    )
    missing = wanted.filter(pa.array(found < 0))
    if not len(missing):
        return Bank(originals, wanted, x, n_new)
    if pictures is None:
        raise ValueError("pictures that the release does not hold are wanted, and no source to render them")
    missing = _with_paths(missing, originals.table)
    missing = missing.append_column("key", pa.array(render_keys(missing, recipe), pa.string()))
    read = ReadRendered(RenderSamples(pictures, recipe.image, recipe.pipelines))
    more, n_more = compute_features(missing, read, backbone, cache, workers, progress)
    both = np.empty((len(wanted), x.shape[1]), x.dtype)
    both[found >= 0], both[found < 0] = x, more
    return Bank(originals, wanted, both, n_new + n_more)


def _distinct(plans: Sequence[pa.Table]) -> pa.Table:
    """Return every picture of some plans once; copies of one picture follow each other."""
    table = pa.concat_tables([plan.select(PLAN.names) for plan in plans])
    first = {name: row for row, name in reversed(list(enumerate(_names(table))))}
    distinct = table.take(pa.array(sorted(first.values()), pa.int64()))
    return distinct.sort_by([("image_id", "ascending"), ("copy", "ascending"), ("pipeline", "ascending")])


def _with_paths(plan: pa.Table, table: pa.Table) -> pa.Table:
    source = table.select(["source", "path"]).take(pc.index_in(plan["image_id"], table["image_id"]))
    for name in source.column_names:
        plan = plan.append_column(name, source[name])
    return plan


def _names(plan: pa.Table) -> list[str]:
    """Name pictures: an original that took a draw of its pipeline is another picture than the plain one."""
    return [
        f"{each}|{pipeline}"
        for each, pipeline in zip(plan["sample_id"].to_pylist(), plan["pipeline"].to_pylist(), strict=True)
    ]
