"""The image pool: every image that any arm or split needs, once, with its labels and features.

Copy k of an image is the same image in every split, so its features are computed once. What the release
holds is read from it; what it does not hold (copies of test images, say) is rendered from the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.check.arms import draw
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


@dataclass(frozen=True, eq=False)
class Originals:
    """One row per image, sorted by image_id, as the recipe sees it.

    `kind` is own (scored, and trained on when it is not), filled (fills thin bins of the release: trained on,
    never scored) or offered (of another manifest; the release does not have it). `edges` are those of the
    target's bins, None where it is no number; `bin` is the bin of each row, else its word; `cell` its cell.
    """

    table: pa.Table
    kind: np.ndarray
    edges: list[float] | None
    bin: np.ndarray
    cell: np.ndarray
    labels: list[str]
    y: np.ndarray
    seed: int

    @property
    def own(self) -> np.ndarray:
        """Which rows may be scored."""
        return np.asarray(self.kind == "own")

    def plain(self, rows: np.ndarray) -> pa.Table:
        """Return plan rows of some of the images as they are, resized and nothing else."""
        return draw(self.table["image_id"].filter(pa.array(rows)), "", 0, self.seed)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {each: row for row, each in enumerate(self.table["image_id"].to_pylist())}

    def find(self, image_ids: Iterable[str]) -> np.ndarray:
        """Return the row of each image."""
        return np.array([self._place[each] for each in image_ids], np.int64)

    def column(self, name: str) -> np.ndarray:
        """Return a column of words, "" for null."""
        return np.array(self.table[name].cast(pa.string()).fill_null("").to_pylist(), str)


def find_originals(release: Release, recipe: Recipe) -> Originals:
    """Return the images that a release was made from, one row each.

    Of more than `check.max_pictures`, whole groups are left out (see `_sampled`).
    """
    table = release.table.filter(pc.equal(release.table["copy"], 0)).sort_by("image_id")
    cells = assign_cells(table, recipe)
    edges = cells.edges if recipe.target in NUMERIC else None
    y = np.zeros(len(table)) if edges is None else np.asarray(table[recipe.target].to_numpy(), float)
    own = own_rows(table, recipe)
    kind = np.where(own, "own", "filled")
    rows = _sampled(table, own, recipe)
    bins, codes, table = cells.bin[rows], cells.code[rows], table.filter(pa.array(rows))
    return Originals(table, kind[rows], edges, bins, codes, cells.bin_labels, y[rows], recipe.seed)


def _sampled(table: pa.Table, own: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return which rows take part: groups in the order of their hash, but those for which there is no room.

    One of every split, and two in all, there must be to train and to score, however large they are.
    """
    names = np.array(table["group_id"].to_pylist(), str)
    groups, first, code, sizes = np.unique(names, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(hash_ranks(recipe.seed, groups))
    ours = order[np.isin(order, code[own])]
    split = table["split"].take(pa.array(first[ours])).to_numpy()
    needed = ours[np.unique(split, return_index=True)[1]]
    taken = np.zeros(len(groups), bool)
    taken[needed if len(needed) > 1 else ours[:2]] = True
    room = recipe.check.max_pictures - sizes[taken].sum()
    for group in order[~taken[order]]:
        if sizes[group] <= room:
            taken[group], room = True, room - sizes[group]
    return np.asarray(taken[code])


def add_offered(originals: Originals, offered: pa.Table, target: str) -> Originals:
    """Return the originals with images of another manifest behind them; the target is a number."""
    y = np.asarray(offered[target].to_numpy(), float)
    bins = bin_codes(y, originals.edges or [])
    return replace(
        originals,
        table=pa.concat_tables([originals.table, offered], promote_options="permissive"),
        kind=np.concatenate([originals.kind, np.full(len(offered), "offered")]),
        bin=np.concatenate([originals.bin, bins]),
        cell=np.concatenate([originals.cell, -1 - bins]),
        y=np.concatenate([originals.y, y]),
    )


def replan(originals: Originals, train: np.ndarray, recipe: Recipe) -> pa.Table:
    """Plan the recipe anew on some of the images and return its train rows."""
    ours = originals.kind != "offered"
    table = originals.table.filter(pa.array(ours))
    split = pa.array(np.where(train[ours], "train", "test").tolist(), pa.string())
    table = table.set_column(table.column_names.index("split"), "split", split)
    # A floor on what a cell is worth was met by the whole; a part of it may miss it.
    lenient = recipe.model_copy(update={"balance": recipe.balance.model_copy(update={"min_n_eff": None})})
    plan = plan_rows(table, lenient).table.select(PLAN.names).cast(PLAN)
    return plan.filter(pc.equal(plan["split"], "train"))


@dataclass(frozen=True, eq=False)
class ImagePool:
    """Planned images (`wanted`), each once, with their labels; `parts` say how they are read.

    `x` are their features (n, dim), no columns where none were computed; `n_new` were by this run.
    """

    originals: Originals
    wanted: pa.Table
    parts: list[Readable]
    x: np.ndarray
    n_new: int = 0

    def __len__(self) -> int:
        return len(self.wanted)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(_names(self.wanted))}

    @cached_property
    def _words(self) -> dict[str, np.ndarray]:
        return {name: self.originals.column(name) for name in ("group_id", "subtype", "source")}

    def rows(self, plan: pa.Table) -> Rows:
        """Return the rows of a plan."""
        image_id = plan["image_id"].to_pylist()
        of = self.originals.find(image_id)
        at = np.array([self._place[name] for name in _names(plan)], np.int64)
        return Rows(
            features=self.x[at],
            target=self.originals.y[of],
            image_id=np.array(image_id, str),
            group=self._words["group_id"][of],
            copy=plan["copy"].to_numpy(),
            subtype=self._words["subtype"][of],
            source=self._words["source"][of],
            stratum=self.originals.bin[of],
            weight=plan["weight"].to_numpy(),
            pool_index=at,
        )


def plan_image_pool(
    release: Release,
    originals: Originals,
    plans: Sequence[pa.Table],
    recipe: Recipe,
    images: Images | None,
) -> ImagePool:
    """Find every image of `plans` once, in the release or to be rendered; no features.

    Without `images` the plans may only name what the release holds.
    """
    wanted = _distinct(plans)
    place = {name: row for row, name in enumerate(_names(release.table))}
    found = np.array([place.get(name, -1) for name in _names(wanted)], np.int64)
    held, missing = release.table.take(pa.array(found[found >= 0])), wanted.filter(pa.array(found < 0))
    parts = []
    if len(held):
        held = held.append_column("key", held["file_sha256"])
        read_held = released_reader(release.path, recipe, release.sources_to_render(images))
        parts.append(Readable(np.flatnonzero(found >= 0), held, read_held))
    if len(missing):
        if images is None:
            raise ValueError(f"{len(missing)} images are not in the release, and there is no source of them")
        where = originals.table.select(["source", "path"]).take(
            originals.find(missing["image_id"].to_pylist())
        )
        for name in where.column_names:
            missing = missing.append_column(name, where[name])
        missing = missing.append_column("key", pa.array(render_keys(missing, recipe), pa.string()))
        read = ReadRendered(RenderSamples(images, recipe.image, recipe.pipelines))
        parts.append(Readable(np.flatnonzero(found < 0), missing, read))
    return ImagePool(originals, wanted, parts, np.empty((len(wanted), 0)))


def fill_image_pool(
    image_pool: ImagePool, backbone: Backbone, cache: FeatureCache, workers: int, progress: Progress
) -> ImagePool:
    """Compute, or find in the cache, the features of all images of a pool."""
    found = [compute_features(each, backbone, cache, workers, progress) for each in image_pool.parts]
    # float64, as scikit-learn computes; float32 costs digits in the scaler.
    x = np.empty((len(image_pool), found[0][0].shape[1]))
    for part, (features, _) in zip(image_pool.parts, found, strict=True):
        x[part.at] = features
    return replace(image_pool, x=x, n_new=sum(n_new for _, n_new in found))


def _distinct(plans: Sequence[pa.Table]) -> pa.Table:
    """Return every image of some plans once; copies of one image follow each other."""
    table = pa.concat_tables([plan.select(PLAN.names) for plan in plans])
    first = {name: row for row, name in reversed(list(enumerate(_names(table))))}
    distinct = table.take(pa.array(sorted(first.values()), pa.int64()))
    return distinct.sort_by([("image_id", "ascending"), ("copy", "ascending"), ("pipeline", "ascending")])


def _names(plan: pa.Table) -> list[str]:
    """Name images: an original that took a draw of its pipeline is another image than the plain one."""
    return [
        f"{each}|{pipeline}"
        for each, pipeline in zip(plan["sample_id"].to_pylist(), plan["pipeline"].to_pylist(), strict=True)
    ]
