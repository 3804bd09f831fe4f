"""Fill rare bins of train with images of other manifests before making copies.

Excluded are images that look like one of the balanced manifests, or like one that any manifest holds out
(val, test). On GAPED, real images moved the tails of the predictions where copies did not.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import RecipeError
from affectdata.images.duplicates import codes_of
from affectdata.manifest.ledger import NO_MEMORY, Memory, components_of, is_held_out
from affectdata.plan.cells import assign_cells, bin_edges
from affectdata.plan.solver import solve_bin, target_count
from affectdata.recipe.recipe import Recipe
from affectdata.splits.seeds import id_heads, id_keys, id_ranks

_NO_SUBTYPE = "–"  # label of rows without a subtype


def fill_rows(rows: pa.Table, others: pa.Table, recipe: Recipe, memory: Memory = NO_MEMORY) -> pa.Table:
    """Return `rows`, plus images of `others` for the bins of train that are below their target count.

    Within a bin they are taken as evenly over the other sources' categories (`subtype`) as possible, in a
    category those with the smallest hash. Excluded are images without a target or stratum, or outside their
    bins, and images that must stay together with one of `rows`, or with an image that is val or test in
    `others` or `memory`: because they look alike, or share a group or a column of `split.groups`. An image in
    two sources is taken once.

    Raises:
        RecipeError: `others` lacks a column, or contains a source of `rows`.
    """
    _check_sources(rows, others, recipe)
    usable = pc.and_(_in_cells(rows, others, recipe), pa.array(_is_independent(rows, others, recipe, memory)))
    combined = pa.concat_tables([rows, _drop_duplicates(others.filter(usable))], promote_options="default")
    own, rest = combined.slice(0, len(rows)), combined.slice(len(rows))
    cells = assign_cells(pa.concat_tables([own, rest]), recipe)
    train = pc.equal(own["split"], "train").to_numpy()
    counts = np.bincount(cells.bin[: len(own)][train], minlength=len(cells.bin_labels)).tolist()
    target = target_count(counts, recipe.balance.level)
    bins = cells.bin[len(own) :]
    chosen = [
        _choose(rest, np.flatnonzero(bins == bin_), target - count, recipe.seed)
        for bin_, count in enumerate(counts)
    ]
    filled = rest.take(pa.array(np.concatenate(chosen)))
    filled = filled.set_column(filled.column_names.index("split"), "split", pa.repeat("train", len(filled)))
    return pa.concat_tables([own, filled]).sort_by("image_id")


def _drop_duplicates(others: pa.Table) -> pa.Table:
    """Keep one row per image, from the first source by name."""
    others = others.sort_by([("image_id", "ascending"), ("source", "ascending")])
    _, first = np.unique(codes_of(others["image_id"]), return_index=True)
    return others.take(pa.array(first))


def _is_independent(own: pa.Table, others: pa.Table, recipe: Recipe, memory: Memory) -> np.ndarray:
    """Return a mask of `others`: in no component with a row of `own` or a held-out image."""
    held = others.filter(is_held_out(others))
    remembered = memory.rows.filter(is_held_out(memory.rows))
    code = components_of([others, own, held, remembered], recipe.group_columns, memory.declared)
    return ~np.isin(code[: len(others)], code[len(others) :])


def _check_sources(rows: pa.Table, others: pa.Table, recipe: Recipe) -> None:
    where = "balance.fill_from"
    listed = set(recipe.balance.fill_from)
    unlisted = sorted(set(others["source"].unique().to_pylist()) - listed)
    own = sorted(set(rows["source"].unique().to_pylist()) & listed)
    if unlisted:
        raise RecipeError(
            f"the manifests of {', '.join(sorted(listed))} also contain rows of {', '.join(unlisted)}",
            where=where,
        )
    if own:
        raise RecipeError(f"{', '.join(own)} is the balanced source and cannot fill itself", where=where)
    for column in (recipe.target, *recipe.strata_bins):
        if column not in others.column_names:
            raise RecipeError(f"no column {column!r} in these manifests", where=where)


def _in_cells(rows: pa.Table, others: pa.Table, recipe: Recipe) -> pa.ChunkedArray:
    """Return a mask of `others`: target and strata are present, and within the bins of `rows`."""
    mask = _in_bins(others[recipe.target], rows[recipe.target], assign_cells(rows, recipe).edges)
    for column, bins in recipe.strata_bins.items():
        inside = pc.is_valid(others[column])
        if bins is not None:
            inside = _in_bins(others[column], rows[column], bin_edges(rows[column], bins))
        mask = pc.and_(mask, inside)
    return mask


def _in_bins(values: pa.ChunkedArray, own: pa.ChunkedArray, edges: list[float] | None) -> pa.ChunkedArray:
    """Return a mask of the values between the edges, or for strings of those that occur in `own`."""
    valid = pc.is_valid(values)
    if edges is None:
        return pc.and_(valid, pc.is_in(values, own.unique()))
    inside = pc.and_(pc.greater_equal(values, edges[0]), pc.less_equal(values, edges[-1]))
    return pc.and_(valid, pc.fill_null(inside, False))


def _choose(table: pa.Table, rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Choose up to `n` of `rows`, as evenly over subtypes as possible."""
    if n <= 0 or not len(rows):
        return np.empty(0, np.int64)
    candidates = table.select(["image_id", "subtype"]).take(pa.array(rows))
    subtypes, codes = np.unique(candidates["subtype"].fill_null(_NO_SUBTYPE).to_pylist(), return_inverse=True)
    supply = np.bincount(codes, minlength=len(subtypes)).tolist()
    shares = solve_bin(supply, n, cap=1, undersample=True)
    order = np.lexsort((id_ranks(seed, id_keys(id_heads(candidates["image_id"]))), codes))
    starts = np.cumsum([0, *supply[:-1]]).tolist()
    chosen = [order[start : start + share] for start, share in zip(starts, shares, strict=True)]
    return np.asarray(rows[np.concatenate(chosen)])
