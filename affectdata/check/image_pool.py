"""The image pool: every image that any arm or split needs, once, with its labels and features.

Copy k of an image is the same image in every split, so its features are computed once. Images of the release
are read from it; others (copies of test images, for instance) are rendered from the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.check.arms import plan_copies
from affectdata.check.metrics import bin_codes
from affectdata.hashing import hash_ranks
from affectdata.manifest.manifest import Images
from affectdata.plan.cells import assign_cells, own_rows
from affectdata.plan.planner import plan_rows
from affectdata.recipe.recipe import NUMERIC, Recipe
from affectdata.release.images import ReadRendered, released_reader
from affectdata.release.release import Release
from affectdata.render.render import RenderSamples
from affectdata.schema import PLAN
from affectdata.train.backbones import Backbone
from affectdata.train.features import FeatureCache, compute_features, render_keys
from affectdata.train.images import Progress, Readable
from affectdata.train.rows import Rows
from affectdata.workers import THREADS


@dataclass(frozen=True, eq=False)
class Originals:
    """One row per image, sorted by image_id, with bins and cells of the recipe.

    `kind` is own (in every split either scored or trained on), filled (fills thin bins of the release:
    trained on, never scored), or of another manifest and not in the release: offered (for the thin bins) or
    other (any further image). `edges` are those of the target's bins, None if it is not numeric; `bin` is the
    code of each row's bin or label in `labels`, `cell` that of its cell.
    """

    table: pa.Table
    kind: np.ndarray
    edges: list[float] | None
    bin: np.ndarray
    cell: np.ndarray
    labels: list[str]
    target: np.ndarray
    seed: int

    @property
    def own(self) -> np.ndarray:
        """Which rows may be scored, as booleans."""
        return np.asarray(self.kind == "own")

    @property
    def released(self) -> np.ndarray:
        """Which rows are in the release, as booleans."""
        return np.isin(self.kind, ["own", "filled"])

    def plain(self, rows: np.ndarray) -> pa.Table:
        """Return plan rows of some of the images, resized but otherwise unchanged."""
        return plan_copies(self.table["image_id"].filter(pa.array(rows)), "", 0, self.seed)

    @cached_property
    def _row_by_id(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.table["image_id"].to_pylist())}

    def find(self, image_ids: Iterable[str]) -> np.ndarray:
        """Return the row of each image."""
        return np.array([self._row_by_id[image_id] for image_id in image_ids], np.int64)

    def name(self, row: int) -> str:
        """Return the name of a row in messages and documents."""
        return f"{self.table['source'][row].as_py()}: {self.table['path'][row].as_py()}"

    def column(self, name: str) -> np.ndarray:
        """Return a column as text, "" for null."""
        return np.array(self.table[name].cast(pa.string()).fill_null("").to_pylist(), str)


def find_originals(release: Release, recipe: Recipe) -> Originals:
    """Return the images that a release was made from, one row each.

    If there are more than `check.max_pictures`, whole groups are left out (see `_sample_groups`).
    """
    table = release.table.filter(pc.equal(release.table["copy"], 0)).sort_by("image_id")
    cells = assign_cells(table, recipe)
    edges = cells.edges if recipe.target in NUMERIC else None
    target = np.zeros(len(table)) if edges is None else np.asarray(table[recipe.target].to_numpy(), float)
    own = own_rows(table, recipe)
    kind = np.where(own, "own", "filled")
    rows = _sample_groups(table, own, recipe)
    bins, codes, table = cells.bin[rows], cells.code[rows], table.filter(pa.array(rows))
    return Originals(table, kind[rows], edges, bins, codes, cells.bin_labels, target[rows], recipe.seed)


def _sample_groups(table: pa.Table, own: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return which rows are in the check: groups in the order of their hash, unless they exceed the limit.

    One group of every split, and at least two in all, are kept whatever their size, to train and to score.
    """
    group_ids = np.array(table["group_id"].to_pylist(), str)
    groups, first, code, sizes = np.unique(
        group_ids, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(hash_ranks(recipe.seed, groups))
    own_groups = order[np.isin(order, code[own])]
    split = table["split"].take(pa.array(first[own_groups])).to_numpy()
    needed = own_groups[np.unique(split, return_index=True)[1]]
    taken = np.zeros(len(groups), bool)
    taken[needed if len(needed) > 1 else own_groups[:2]] = True
    room = recipe.check.max_pictures - sizes[taken].sum()
    for group in order[~taken[order]]:
        if sizes[group] <= room:
            taken[group], room = True, room - sizes[group]
    return np.asarray(taken[code])


def add_images(originals: Originals, offered: pa.Table, target: str, kind: str) -> Originals:
    """Return the originals followed by new images of another manifest; the target is numeric."""
    known = pc.is_in(offered["image_id"], originals.table["image_id"].combine_chunks())
    offered = offered.filter(pc.invert(known))
    values = np.asarray(offered[target].to_numpy(), float)
    bins = bin_codes(values, originals.edges or [])
    return replace(
        originals,
        table=pa.concat_tables([originals.table, offered], promote_options="permissive"),
        kind=np.concatenate([originals.kind, np.full(len(offered), kind)]),
        bin=np.concatenate([originals.bin, bins]),
        cell=np.concatenate([originals.cell, -1 - bins]),
        target=np.concatenate([originals.target, values]),
    )


def replan(originals: Originals, train: np.ndarray, recipe: Recipe) -> pa.Table:
    """Apply the recipe to some of the images and return its train rows."""
    released = originals.released
    table = originals.table.filter(pa.array(released))
    split = pa.array(np.where(train[released], "train", "test").tolist(), pa.string())
    table = table.set_column(table.column_names.index("split"), "split", split)
    # `min_n_eff` was met by the whole release; a part of it may miss it.
    lenient = recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"min_n_eff": None})})
    plan = plan_rows(table, lenient).table.select(PLAN.names).cast(PLAN)
    return plan.filter(pc.equal(plan["split"], "train"))


@dataclass(frozen=True, eq=False)
class ImagePool:
    """Every image of some plans once (`wanted`: plan rows), with labels; `parts` are the readers.

    `features` are (n, dim), with dim 0 before they are computed; `widths` has the number of every network's
    features, side by side. Of `n_new` images not all features were in the cache.
    """

    originals: Originals
    wanted: pa.Table
    parts: list[Readable]
    features: np.ndarray
    n_new: int = 0
    widths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.wanted)

    @cached_property
    def _row_by_name(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(_names(self.wanted))}

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return {name: self.originals.column(name) for name in ("group_id", "subtype", "source")}

    def rows(self, plan: pa.Table) -> Rows:
        """Return the rows of a plan."""
        image_id = plan["image_id"].to_pylist()
        parent = self.originals.find(image_id)
        pool_index = np.array([self._row_by_name[name] for name in _names(plan)], np.int64)
        return Rows(
            features=self.features[pool_index],
            target=self.originals.target[parent],
            image_id=np.array(image_id, str),
            group=self._columns["group_id"][parent],
            copy=plan["copy"].to_numpy(),
            subtype=self._columns["subtype"][parent],
            source=self._columns["source"][parent],
            stratum=self.originals.bin[parent],
            weight=plan["weight"].to_numpy(),
            pool_index=pool_index,
            widths=self.widths,
        )


def plan_image_pool(
    release: Release,
    originals: Originals,
    plans: Sequence[pa.Table],
    recipe: Recipe,
    images: Images | None,
) -> ImagePool:
    """Return a pool of every image of `plans`, read from the release or rendered; features are not computed.

    Without `images` the plans may only contain images of the release.
    """
    wanted = _distinct(plans)
    row_by_name = {name: row for row, name in enumerate(_names(release.table))}
    rows = np.array([row_by_name.get(name, -1) for name in _names(wanted)], np.int64)
    released, missing = release.table.take(pa.array(rows[rows >= 0])), wanted.filter(pa.array(rows < 0))
    parts = []
    if len(released):
        released = released.append_column("key", released["file_sha256"])
        read_released = released_reader(release.path, recipe, release.sources_to_render(images))
        parts.append(Readable(np.flatnonzero(rows >= 0), released, read_released))
    if len(missing):
        if images is None:
            raise ValueError(f"{len(missing)} images are not in the release, and no source images were given")
        where = originals.table.select(["source", "path"]).take(
            originals.find(missing["image_id"].to_pylist())
        )
        for name in where.column_names:
            missing = missing.append_column(name, where[name])
        missing = missing.append_column("key", pa.array(render_keys(missing, recipe), pa.string()))
        read = ReadRendered(RenderSamples(images, recipe.image, recipe.pipelines))
        parts.append(Readable(np.flatnonzero(rows < 0), missing, read))
    return ImagePool(originals, wanted, parts, np.empty((len(wanted), 0)))


def fill_image_pool(
    image_pool: ImagePool,
    backbone: Backbone,
    cache: FeatureCache,
    workers: int,
    progress: Progress,
    engine: str = THREADS,
) -> ImagePool:
    """Compute the features of all images of a pool, or read them from the cache; add them to those it has."""
    computed = [
        compute_features(part, backbone, cache, workers, progress, engine) for part in image_pool.parts
    ]
    # float64, as scikit-learn computes; float32 costs digits in the scaler.
    features = np.empty((len(image_pool), computed[0][0].shape[1]))
    for part, (part_features, _) in zip(image_pool.parts, computed, strict=True):
        features[part.at] = part_features
    return replace(
        image_pool,
        features=np.hstack([image_pool.features, features]),
        n_new=max(image_pool.n_new, sum(n_new for _, n_new in computed)),
        widths=(*image_pool.widths, features.shape[1]),
    )


def _distinct(plans: Sequence[pa.Table]) -> pa.Table:
    """Return every image of some plans once; copies of one image are consecutive."""
    table = pa.concat_tables([plan.select(PLAN.names) for plan in plans])
    first = {name: row for row, name in reversed(list(enumerate(_names(table))))}
    distinct = table.take(pa.array(sorted(first.values()), pa.int64()))
    return distinct.sort_by([("image_id", "ascending"), ("copy", "ascending"), ("pipeline", "ascending")])


def _names(plan: pa.Table) -> list[str]:
    """Return a name per image; it has the pipeline, because an original may be augmented or unchanged."""
    return [
        f"{sample_id}|{pipeline}"
        for sample_id, pipeline in zip(
            plan["sample_id"].to_pylist(), plan["pipeline"].to_pylist(), strict=True
        )
    ]
