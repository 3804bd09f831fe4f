"""From manifests and a recipe to a plan: choose rows, group, split, level, and name every copy.

Decisions only, on Arrow tables; a pure function of the manifests' rows and the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, RecipeError, UsageError
from affectdata.images.duplicates import assign_groups, find_edges
from affectdata.manifest.ledger import NOTHING, Kin, Memory, recall, take_over
from affectdata.manifest.manifest import Manifest, query_tables
from affectdata.plan.cells import Cells, assign_cells, own_rows
from affectdata.plan.fill import fill_rows
from affectdata.plan.labelling import add_labels
from affectdata.plan.plan import BinCount, CellCount, Plan, effective_size, sample_ids
from affectdata.plan.solver import solve_bin, target_count
from affectdata.plan.weights import row_weights
from affectdata.recipe.recipe import LABEL, LEXICON, Recipe
from affectdata.recipe.resolve import check_subtypes, check_upright, upright_of
from affectdata.schema import EDGES, FOLD, LEDGER, PLAN
from affectdata.splits.assign import SPLITS, assign_splits, drop_conflicts, split_distance
from affectdata.splits.folds import assign_folds
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys, id_ranks
from affectdata.store.parquet import in_one_piece

_TRAIN = SPLITS.index("train")
_ROW = ("image_id", "source", "path", "subtype", "subject_id", "group_id", "split", FOLD.name, "license")
_LOOK = ("pixel_id", "phash", "phash_views")  # what look-alikes across manifests are found by


def plan_release(
    manifests: Sequence[Manifest],
    others: Sequence[Manifest],
    recipe: Recipe,
    *,
    earlier: pa.Table | None = None,
    drop_train: bool = False,
) -> tuple[pa.Table, Plan]:
    """Return the rows of a release, split and filled, and its plan; `others` are those of `fill_from`.

    The recipe names subtypes by their codes (`resolve_subtypes`). `earlier` is the table of a release whose
    splits are taken over, as are those in the manifests' ledgers; `drop_train` leaves out train rows whose
    group is in val or test too, which is an error otherwise.

    Raises:
        RecipeError: the recipe does not fit the manifests.
        IntegrityError: a group has rows in two splits already.
    """
    check_subtypes(recipe, [*manifests, *others])
    check_upright(recipe, upright_of([*manifests, *others]))
    memory, whole = recall(manifests, earlier), recall([*manifests, *others], earlier)
    rows = choose_rows(manifests, recipe, whole)
    rows = split_rows(rows, recipe, memory=memory, drop_train=drop_train)
    if others:
        asked = (*_LOOK, *_asked_by(whole))  # as of the rows
        spare = _without_folds(
            pa.concat_tables([_read(each, recipe, asked) for each in others], promote_options="default")
        )
        if recipe.labels is not None:  # which classes count is for the balanced rows to say
            every = recipe.labels.model_copy(update={"top": None, "min_count": None})
            spare = add_labels(spare, every, check=False)
        rows = fill_rows(rows, spare, recipe, whole)
    rows = _with_shared_ids(rows)
    return rows, plan_rows(rows, recipe)


def _with_shared_ids(rows: pa.Table) -> pa.Table:
    """Return the rows with `group_id` as places in `image_id`, so that each id is held once.

    A group is called by one of its images; where one of these was left out, the rows stay as they are.
    """
    ids = in_one_piece(rows["image_id"])
    places = pc.index_in(rows["group_id"], ids)
    if places.null_count:
        return rows
    groups = pa.DictionaryArray.from_arrays(in_one_piece(places), ids)
    return rows.set_column(rows.column_names.index("group_id"), "group_id", groups)


def choose_rows(manifests: Sequence[Manifest], recipe: Recipe, memory: Memory = NOTHING) -> pa.Table:
    """Return the rows that a recipe is about, sorted by image_id: all, or those that `where` selects.

    They have the columns that images in `memory` are compared by, if there are any.

    Raises:
        RecipeError: no row is left, or two manifests hold the same image.
    """
    several = len(manifests) > 1
    asked = {*(_LOOK if several or recipe.balance.fill_from else ()), *_asked_by(memory)}
    table = pa.concat_tables([_read(each, recipe, asked) for each in manifests], promote_options="default")
    if several:  # each knows its own look-alikes only
        table = assign_groups(table, find_edges(table), ["group_id"])
    if recipe.where is not None:
        table = _selected(table, recipe.where)
    if recipe.labels is not None:
        table = add_labels(table, recipe.labels)
        table = table.filter(pc.is_valid(table[LABEL]))
    if not table.num_rows:
        raise RecipeError(f"no row of {', '.join(each.name for each in manifests)} is left", where="where")
    if _ascends(table["image_id"]):  # as every manifest does; to sort is to copy
        return table
    table = table.sort_by("image_id")
    if not _ascends(table["image_id"]):
        raise RecipeError("one image is in two of the manifests", where="sources", fix="concat them first")
    return table


def _asked_by(memory: Memory) -> Iterable[str]:
    """Return the columns by which rows are compared with remembered images."""
    return {*_LOOK, *(memory.declared & set(LEDGER.names))} if len(memory.rows) else ()


def _read(manifest: Manifest, recipe: Recipe, more: Iterable[str]) -> pa.Table:
    """Read the columns that are decided by; all, if a condition may name any, or one is not there."""
    asked = {recipe.target, *recipe.strata_bins, *(recipe.split.groups if recipe.split != "none" else [])}
    asked -= {LABEL, *LEXICON}
    there = manifest.rows.column_names
    if recipe.where is not None or asked - set(there):
        return manifest.table
    asked |= {*_ROW, *more}
    if recipe.labels is not None:
        asked |= {"valence", "arousal", "agreement", *(name for name in there if name.startswith("emotion"))}
    return manifest.rows.select([name for name in there if name in asked])


def _ascends(ids: pa.ChunkedArray) -> bool:
    return len(ids) < 2 or bool(pc.all(pc.greater(ids.slice(1), ids.slice(0, len(ids) - 1))).as_py())


def _selected(table: pa.Table, condition: str) -> pa.Table:
    try:
        rows = query_tables({"manifest": table}, f"SELECT * FROM manifest WHERE {condition}")
    except UsageError as error:
        raise RecipeError(
            f"{condition!r} is no condition over the manifest: {error.what}",
            where="where",
            fix=f"columns: {', '.join(table.column_names)}",
        ) from error
    return rows.cast(table.schema)


def split_rows(
    table: pa.Table, recipe: Recipe, *, memory: Memory = NOTHING, drop_train: bool = False
) -> pa.Table:
    """Fill `split`, group-safe and stratified over bin and cell; splits that are there or remembered stay.

    So with `fold`, if the recipe asks for folds; else there is no such column.
    """
    if recipe.split == "none":
        table = _without_folds(table)
        train = pa.repeat("train", len(table))
        return table.set_column(table.column_names.index("split"), "split", train)
    for column in recipe.split.groups:
        if column not in table.column_names:
            raise RecipeError(f"no column {column!r} in the manifest", where="split.groups")
    together = ["group_id", *recipe.split.groups]
    table = assign_groups(table, EDGES.empty_table(), together)
    if len(memory.rows):
        table = _take_over(table, memory, recipe.split.groups, drop_train)
    if drop_train:
        table = drop_conflicts(table)
    cells = assign_cells(table, recipe)
    levels = [cells.bin, cells.code]
    table = assign_splits(table, levels, recipe.split.fractions, recipe.seed)
    if recipe.split.folds is None:
        return _without_folds(table)
    return assign_folds(table, levels, recipe.split.folds, recipe.seed)


def _take_over(table: pa.Table, memory: Memory, columns: Sequence[str], drop_train: bool) -> pa.Table:
    """Take over remembered splits; leave out train rows that hang together with a held-out image, or refuse.

    Raises:
        IntegrityError: there is such a row, and `drop_train` is not set.
    """
    kin = Kin(take_over(table, memory.rows), memory, columns)
    table = kin.inherit()
    torn, pair = kin.find_torn()
    if torn.any() and not drop_train:
        raise IntegrityError(
            f"one group is in two splits: {pair}",
            where="the second split is not of a row of the manifest; a ledger or --split-from has it",
            fix="`balance --on-conflict drop-train` leaves train's out; `split --forget` gives all splits up",
        )
    return table.filter(pa.array(~torn)) if torn.any() else table


def _without_folds(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name != FOLD.name])


def describe_splits(rows: pa.Table, recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's own rows per split, and how far each split's shares of bins and cells are off.

    The distance is the total variation (0–1) between a split and the whole; images filled in do not count.
    Where there are folds, `folds` says the same of them, the whole being what was dealt.
    """
    own = rows.filter(pa.array(own_rows(rows, recipe)))
    cells = assign_cells(own, recipe)
    found = _describe(own["split"], cells.bin, cells.code)
    found["rows"] = {name: found["rows"].get(name, 0) for name in SPLITS}
    if FOLD.name in own.column_names:
        dealt = pc.is_valid(own[FOLD.name]).to_numpy()
        fold = own[FOLD.name].filter(pa.array(dealt))
        found["folds"] = _describe(fold, cells.bin[dealt], cells.code[dealt])
    return found


def _describe(part_of: pa.ChunkedArray, bin_of: np.ndarray, cell_of: np.ndarray) -> dict[str, Any]:
    counts = {str(each["values"]): each["counts"] for each in part_of.value_counts().to_pylist()}
    distance = {"bin": split_distance(bin_of, part_of), "cell": split_distance(cell_of, part_of)}
    return {"rows": dict(sorted(counts.items())), "distance": distance}


def plan_rows(table: pa.Table, recipe: Recipe) -> Plan:
    """Plan the release of rows whose `split` is filled: train is levelled, val and test are originals.

    Copy k of an image has the same seed and pipeline whatever the other rows are.

    Raises:
        RecipeError: the recipe does not fit these rows (columns, subtypes, bins, pipelines).
    """
    with ThreadPoolExecutor(1) as beside:  # numpy and Arrow let go of the GIL
        heading = beside.submit(id_heads, table["image_id"])
        piping = beside.submit(_pipelines, table["subtype"], recipe)
        cells = assign_cells(table, recipe)
        split = pc.index_in(table["split"], pa.array(SPLITS)).to_numpy()
    heads, pipeline = heading.result(), piping.result()
    if not (split == _TRAIN).any():
        raise RecipeError(
            "no row is left to train on: every one is in val or test already",
            where="split",
            fix="lower the shares of val and test, or empty the column `split` of the manifest",
        )
    keys = id_keys(heads)
    copies, bins, counts = _level(table, cells, split == _TRAIN, id_ranks(recipe.seed, keys), recipe)
    _check_worth(counts, recipe)
    rows = np.repeat(np.arange(len(table), dtype=np.int32), copies)
    first = np.cumsum(copies, dtype=np.int32) - copies
    copy = np.arange(len(rows), dtype=np.int32) - first.take(rows)
    with ThreadPoolExecutor(1) as beside:
        naming = beside.submit(sample_ids, heads.take(rows), copy)
        columns = {
            **_decisions(table, cells, split, pipeline, rows, copy, recipe),
            "seed": copy_seeds(recipe.seed, keys.take(rows), copy),
            "sample_id": naming.result(),
        }
    arrays = [(field, pa.array(columns[field.name])) for field in [*PLAN, FOLD] if field.name in columns]
    schema = pa.schema([field.with_type(array.type) for field, array in arrays])
    return Plan(pa.table([array for _, array in arrays], schema=schema), bins, counts)


def _decisions(
    table: pa.Table,
    cells: Cells,
    split: np.ndarray,
    pipeline: np.ndarray,
    rows: np.ndarray,
    copy: np.ndarray,
    recipe: Recipe,
) -> dict[str, Any]:
    """Return what follows from image (`rows`) and copy of each output row, but for its key and seed.

    `split` and `pipeline` are codes per image.
    """
    side = split.take(rows)
    drawn = (copy > 0) | ((side == _TRAIN) & (recipe.originals == "drawn"))
    columns = {
        "image_id": pa.DictionaryArray.from_arrays(rows, in_one_piece(table["image_id"])),
        "split": pa.DictionaryArray.from_arrays(side, pa.array(SPLITS)),
        "cell": pa.DictionaryArray.from_arrays(
            cells.code.take(rows), [n for row in cells.names for n in row]
        ),
        "copy": copy,
        "pipeline": pa.DictionaryArray.from_arrays(pipeline.take(rows) * drawn, ["", *recipe.pipelines]),
        "weight": _weights(cells, rows, side, recipe),
    }
    if FOLD.name in table.column_names:
        columns[FOLD.name] = in_one_piece(table[FOLD.name]).take(pa.array(rows))
    return columns


def _level(
    table: pa.Table, cells: Cells, train: np.ndarray, ranks: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, list[BinCount], list[CellCount]]:
    """Return the number of output rows per image, and what that makes of each bin and cell."""
    members = _members(cells, train)
    supply = [[len(rows) for rows in row] for row in members]
    filled = np.bincount(cells.bin[train & ~own_rows(table, recipe)], minlength=len(supply)).tolist()
    own = [sum(row) - more for row, more in zip(supply, filled, strict=True)]
    target, spec = target_count(own, recipe.balance.level), recipe.balance
    copies = np.ones(table.num_rows, np.int32)
    bins, counts = [], []
    for b, label in enumerate(cells.bin_labels):
        have = sum(supply[b])
        rows = solve_bin(supply[b], target, spec.max_copies, spec.undersample and have > target)
        for s, images in enumerate(members[b]):
            if not len(images):
                continue
            copies[images] = shared = _share_copies(rows[s], ranks.take(images))
            n_eff = effective_size(shared)
            stratum, name = cells.stratum_labels[s], cells.names[b][s]
            counts.append(CellCount(label, stratum, name, len(images), rows[s], n_eff))
        short = max(0, target - sum(rows))
        bins.append(BinCount(label, target, own[b], filled[b], sum(rows), short))
    return copies, bins, counts


def _members(cells: Cells, train: np.ndarray) -> list[list[np.ndarray]]:
    """Gather the train rows of every bin and stratum."""
    n_strata = len(cells.stratum_labels)
    n_cells = len(cells.bin_labels) * n_strata
    # Elsewhere than train is no cell. Small whole numbers are sorted by counting.
    code = np.where(train, cells.code, n_cells).astype(np.min_scalar_type(n_cells))
    ends = np.cumsum(np.bincount(code, minlength=n_cells + 1))
    parts = np.split(np.argsort(code, kind="stable"), ends[:-1])
    return [parts[start : start + n_strata] for start in range(0, n_cells, n_strata)]


def _share_copies(rows: int, ranks: np.ndarray) -> np.ndarray:
    """Share a cell's rows over its images as evenly as can be; the smallest ranks get one more."""
    each, more = divmod(rows, len(ranks))
    shared = np.full(len(ranks), each, np.int32)
    if more:
        shared[np.argpartition(ranks, more - 1)[:more]] += 1
    return shared


def _check_worth(counts: list[CellCount], recipe: Recipe) -> None:
    floor = recipe.balance.min_n_eff
    poor = [each for each in counts if floor and each.n_after > each.n_before and each.n_eff < floor]
    if poor:
        listed = "\n  ".join(f"{each.cell}: {each.n_after} rows worth {each.n_eff:.1f}" for each in poor)
        raise RecipeError(
            f"{len(poor)} cells with copies are worth less than {floor:g} images:\n  {listed}",
            where="balance.min_n_eff",
            fix="lower balance.max_copies, widen the bins, or fill them with images (balance.fill_from)",
        )


def _pipelines(subtypes: pa.ChunkedArray, recipe: Recipe) -> np.ndarray:
    """Return the pipeline that each image's subtype is drawn with: 0 is none, 1 the recipe's first."""
    kinds = in_one_piece(subtypes).dictionary_encode(null_encoding="encode")
    rules = [recipe.rule_for(subtype) for subtype in kinds.dictionary.to_pylist()]
    names = ["", *recipe.pipelines]
    of_kind = np.array([names.index(rule.pipeline) if rule else 0 for rule in rules], np.int32)
    return np.asarray(of_kind.take(kinds.indices.to_numpy()))


def _weights(cells: Cells, rows: np.ndarray, side: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the weights of the output rows: 1 in val and test, mean 1 over train."""
    weights = np.ones(len(rows))
    if recipe.weights is not None:
        train = side == _TRAIN
        kept = rows[train]
        weights[train] = row_weights(cells.bin[kept], cells.code[kept], len(cells.bin_labels), recipe.weights)
    return weights
