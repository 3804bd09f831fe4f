"""Real images first: fill thin bins with images of other manifests before copies do.

They go to train only, and none that looks like an image of the target manifests, or like one that any of the
manifests holds out (val, test), is taken. On GAPED it moved
the tails when copies did not.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import RecipeError
from affectdata.images.duplicates import codes_of
from affectdata.manifest.ledger import HELD, NOTHING, Memory, components_of
from affectdata.plan.cells import assign_cells, bin_edges
from affectdata.plan.solver import solve_bin, target_count
from affectdata.recipe.recipe import Recipe
from affectdata.splits.seeds import id_heads, id_keys, id_ranks

_NO_SUBTYPE = "–"


def fill_rows(rows: pa.Table, others: pa.Table, recipe: Recipe, memory: Memory = NOTHING) -> pa.Table:
    """Return the split rows, and in train images of `others` where its bins are short of their target.

    Inside a bin they are taken as level over the other sources' own categories (`subtype`) as there are
    images, and of one category those with the smallest hash. Not taken are images without a target or
    stratum, or outside the bins of either, and those that must stay together with one of `rows`, or with an
    image that is val or test among `others` or in `memory`: they look like it, or share a group or a column
    of `split.groups`. An image of two sources is taken once.

    Raises:
        RecipeError: `others` has no such column, or holds a source of `rows`.
    """
    _check_sources(rows, others, recipe)
    free = pc.and_(_fits(rows, others, recipe), pa.array(_is_free(rows, others, recipe, memory)))
    together = pa.concat_tables([rows, _each_once(others.filter(free))], promote_options="default")
    own, rest = together.slice(0, len(rows)), together.slice(len(rows))
    cells = assign_cells(pa.concat_tables([own, rest]), recipe)
    train = pc.equal(own["split"], "train").to_numpy()
    counts = np.bincount(cells.bin[: len(own)][train], minlength=len(cells.bin_labels)).tolist()
    target = target_count(counts, recipe.balance.level)
    bin_of = cells.bin[len(own) :]
    chosen = [
        _choose(rest, np.flatnonzero(bin_of == b), target - count, recipe.seed)
        for b, count in enumerate(counts)
    ]
    picked = rest.take(pa.array(np.concatenate(chosen)))
    picked = picked.set_column(picked.column_names.index("split"), "split", pa.repeat("train", len(picked)))
    return pa.concat_tables([own, picked]).sort_by("image_id")


def _each_once(others: pa.Table) -> pa.Table:
    """Keep one row per image, that of the first source by name."""
    others = others.sort_by([("image_id", "ascending"), ("source", "ascending")])
    _, first = np.unique(codes_of(others["image_id"]), return_index=True)
    return others.take(pa.array(first))


def _is_free(own: pa.Table, others: pa.Table, recipe: Recipe, memory: Memory) -> np.ndarray:
    """Say which of the others hang together neither with a row of `own` nor with a held-out image."""
    held = others.filter(pc.is_in(others["split"], pa.array(HELD)))
    remembered = memory.rows.filter(pc.is_in(memory.rows["split"], pa.array(HELD)))
    columns = recipe.split.groups if recipe.split != "none" else []
    code = components_of([others, own, held, remembered], columns, memory.declared)
    return ~np.isin(code[: len(others)], code[len(others) :])


def _check_sources(rows: pa.Table, others: pa.Table, recipe: Recipe) -> None:
    where = "balance.fill_from"
    named = set(recipe.balance.fill_from)
    unnamed = sorted(set(others["source"].unique().to_pylist()) - named)
    own = sorted(set(rows["source"].unique().to_pylist()) & named)
    if unnamed:
        raise RecipeError(
            f"it names {', '.join(sorted(named))}, but holds rows of {', '.join(unnamed)}", where=where
        )
    if own:
        raise RecipeError(f"{', '.join(own)} is balanced already; it cannot fill itself", where=where)
    for column in (recipe.target, *recipe.strata_bins):
        if column not in others.column_names:
            raise RecipeError(f"no column {column!r} in what is to fill", where=where)


def _fits(rows: pa.Table, others: pa.Table, recipe: Recipe) -> pa.ChunkedArray:
    """Say which of the others have a target and strata, inside the bins into which `rows` are cut."""
    fits = _inside(others[recipe.target], rows[recipe.target], assign_cells(rows, recipe).edges)
    for column, bins in recipe.strata_bins.items():
        inside = pc.is_valid(others[column])
        if bins is not None:
            inside = _inside(others[column], rows[column], bin_edges(rows[column], bins))
        fits = pc.and_(fits, inside)
    return fits


def _inside(values: pa.ChunkedArray, own: pa.ChunkedArray, edges: list[float] | None) -> pa.ChunkedArray:
    """Say which values fall into a bin: between the edges, or one of the target rows' words."""
    known = pc.is_valid(values)
    if edges is None:
        return pc.and_(known, pc.is_in(values, own.unique()))
    within = pc.and_(pc.greater_equal(values, edges[0]), pc.less_equal(values, edges[-1]))
    return pc.and_(known, pc.fill_null(within, False))


def _choose(table: pa.Table, rows: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Choose up to `wanted` of `rows`, as level over subtypes as can be."""
    if wanted <= 0 or not len(rows):
        return np.empty(0, np.int64)
    picked = table.select(["image_id", "subtype"]).take(pa.array(rows))
    kinds, codes = np.unique(picked["subtype"].fill_null(_NO_SUBTYPE).to_pylist(), return_inverse=True)
    supply = np.bincount(codes, minlength=len(kinds)).tolist()
    shares = solve_bin(supply, wanted, cap=1, undersample=True)
    order = np.lexsort((id_ranks(seed, id_keys(id_heads(picked["image_id"]))), codes))
    starts = np.cumsum([0, *supply[:-1]]).tolist()
    taken = [order[start : start + n] for start, n in zip(starts, shares, strict=True)]
    return np.asarray(rows[np.concatenate(taken)])
