"""Plan a release from manifests and a recipe: select rows, group, split, balance, assign ids and seeds.

Works on Arrow tables only; a pure function of the manifests' rows and the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, RecipeError
from affectdata.images.duplicates import assign_groups
from affectdata.manifest.ledger import (
    NO_MEMORY,
    Memory,
    RelatedImages,
    copy_splits,
    find_left_out,
    read_memory,
)
from affectdata.manifest.manifest import Manifest
from affectdata.plan.cells import Cells, assign_cells, own_rows
from affectdata.plan.fill import fill_rows
from affectdata.plan.plan import (
    BinCount,
    CellCount,
    Plan,
    SplitDistance,
    SplitSummary,
    effective_size,
    sample_ids,
)
from affectdata.plan.rows import choose_rows, read_candidates
from affectdata.plan.solver import solve_bin, target_count
from affectdata.plan.weights import row_weights
from affectdata.recipe.recipe import Recipe, Split
from affectdata.recipe.resolve import check_subtypes, check_upright, upright_subtypes
from affectdata.records import count_text
from affectdata.schema import EDGES, FOLD, PLAN
from affectdata.splits.assign import SPLITS, assign_splits, drop_conflicts, split_distance
from affectdata.splits.folds import assign_folds
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys, id_ranks
from affectdata.store.chunks import as_one_array
from affectdata.workers import THREADS

_TRAIN = SPLITS.index("train")


def plan_release(
    manifests: Sequence[Manifest],
    others: Sequence[Manifest],
    recipe: Recipe,
    *,
    earlier: pa.Table | None = None,
    drop_train: bool = False,
    workers: int = 1,
    engine: str = THREADS,
) -> tuple[pa.Table, Plan]:
    """Return the rows of a release, split and filled, and its plan; `others` are those of `fill_from`.

    The recipe must have subtype codes, not names (`resolve_subtypes`). `earlier` are the splits of a release
    and of its ledger, which are reused, as are those in the manifests' ledgers. With `drop_train`, train rows
    whose group is also in val or test are dropped; otherwise they are an error.

    Raises:
        RecipeError: the recipe does not match the manifests.
        IntegrityError: a group already has rows in two splits.
    """
    check_subtypes(recipe, [*manifests, *others])
    check_upright(recipe, upright_subtypes([*manifests, *others]))
    columns = recipe.group_columns
    memory = read_memory(manifests, earlier, columns)
    rest = read_memory(others)
    rows = choose_rows(manifests, recipe, memory.merge(rest), workers, engine)
    memory = memory.merge(find_left_out(manifests, rows, columns))
    whole = memory.merge(rest)
    rows = split_rows(rows, recipe, memory=memory, drop_train=drop_train)
    if others:
        candidates = _drop_folds(read_candidates(others, recipe, whole))
        rows = fill_rows(rows, candidates, recipe, whole)
    rows = _with_shared_ids(rows)
    return rows, replace(plan_rows(rows, recipe), held_out=memory.held_out_beyond(rows))


def _with_shared_ids(rows: pa.Table) -> pa.Table:
    """Encode `group_id` as indexes into `image_id`, so that each id is stored once.

    A group has the id of one of its images; if any of these is not in the rows, they are returned unchanged.
    """
    ids = as_one_array(rows["image_id"])
    indexes = pc.index_in(rows["group_id"], ids)
    if indexes.null_count:
        return rows
    groups = pa.DictionaryArray.from_arrays(as_one_array(indexes), ids)
    return rows.set_column(rows.column_names.index("group_id"), "group_id", groups)


def split_rows(
    table: pa.Table, recipe: Recipe, *, memory: Memory = NO_MEMORY, drop_train: bool = False
) -> pa.Table:
    """Fill `split`, by groups and stratified over bin and cell; existing and recorded splits are kept.

    The same for `fold` if the recipe has folds; otherwise the column is removed. With `split: none` no image
    is newly assigned to val or test; one that was in val or test before never enters train.
    """
    spec = Split(val=0, test=0) if recipe.split == "none" else recipe.split
    for column in spec.group_columns:
        if column not in table.column_names:
            raise RecipeError(f"no column {column!r} in the manifest", where="split.groups")
    declared = table["split"].unique().to_pylist()  # by the source or `split`, not by a former release
    table = assign_groups(table, EDGES.empty_table(), ["group_id", *spec.group_columns])
    if len(memory.rows):
        table = _apply_memory(table, memory, spec.group_columns, drop_train)
    if drop_train:
        table = drop_conflicts(table)
    cells = assign_cells(table, recipe)
    strata = [cells.bin, cells.code]
    table = assign_splits(table, strata, spec.open_fractions(declared), recipe.seed)
    if spec.folds is None:
        return _drop_folds(table)
    return assign_folds(table, strata, spec.folds, recipe.seed)


def _apply_memory(table: pa.Table, memory: Memory, columns: Sequence[str], drop_train: bool) -> pa.Table:
    """Apply remembered splits; drop train rows that must stay together with a held-out image.

    Raises:
        IntegrityError: there is such a row, and `drop_train` is not set.
    """
    kin = RelatedImages(copy_splits(table, memory.rows), memory, columns)
    table = kin.inherit()
    torn, pair = kin.find_conflicts()
    if torn.any() and not drop_train:
        raise IntegrityError(
            f"one group is in two splits: {pair}",
            where="the second split is from a ledger or --split-from, not from a row of the manifest",
            fix="`balance --on-conflict drop-train` drops the train rows; `split --forget` resets all splits",
        )
    return table.filter(pa.array(~torn)) if torn.any() else table


def _drop_folds(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name != FOLD.name])


def describe_splits(rows: pa.Table, recipe: Recipe) -> SplitSummary:
    """Return the recipe's own rows per split, and the distance of each split's distribution from the whole.

    Images from `fill_from` do not count. Folds are described relative to all rows with a fold.
    """
    own = rows.filter(pa.array(own_rows(rows, recipe)))
    cells = assign_cells(own, recipe)
    summary = _describe(own["split"], cells.bin, cells.code)
    folds = None
    if FOLD.name in own.column_names:
        has_fold = pc.is_valid(own[FOLD.name]).to_numpy()
        fold = own[FOLD.name].filter(pa.array(has_fold))
        folds = _describe(fold, cells.bin[has_fold], cells.code[has_fold])
    counts = {name: summary.rows.get(name, 0) for name in SPLITS}
    return SplitSummary(counts, summary.distance, folds)


def _describe(part: pa.ChunkedArray, bins: np.ndarray, cells: np.ndarray) -> SplitSummary:
    """Return the rows per value of `part`, and its distances; `part` is the split or fold of each row."""
    counts = {str(row["values"]): int(row["counts"]) for row in part.value_counts().to_pylist()}
    distance = SplitDistance(split_distance(bins, part), split_distance(cells, part))
    return SplitSummary(dict(sorted(counts.items())), distance)


def plan_rows(table: pa.Table, recipe: Recipe) -> Plan:
    """Plan the release of rows whose `split` is filled: balance train, keep val and test as originals.

    Copy k of an image has the same seed and pipeline regardless of the other rows.

    Raises:
        RecipeError: the recipe does not match these rows (columns, subtypes, bins, pipelines).
    """
    with ThreadPoolExecutor(1) as pool:  # numpy and Arrow release the GIL
        heads_future = pool.submit(id_heads, table["image_id"])
        pipeline_future = pool.submit(_pipelines, table["subtype"], recipe)
        cells = assign_cells(table, recipe)
        split = pc.index_in(table["split"], pa.array(SPLITS)).to_numpy()
    heads, pipeline = heads_future.result(), pipeline_future.result()
    if not (split == _TRAIN).any():
        raise RecipeError(
            "no row is left for train: all are in val or test",
            where="split",
            fix="lower the shares of val and test, or empty the column `split` of the manifest",
        )
    keys = id_keys(heads)
    copies, bins, counts = _balance(table, cells, split == _TRAIN, id_ranks(recipe.seed, keys), recipe)
    _check_n_eff(counts, recipe)
    rows = np.repeat(np.arange(len(table), dtype=np.int32), copies)
    first = np.cumsum(copies, dtype=np.int32) - copies
    copy = np.arange(len(rows), dtype=np.int32) - first.take(rows)
    with ThreadPoolExecutor(1) as pool:
        ids_future = pool.submit(sample_ids, heads.take(rows), copy)
        columns = {
            **_row_columns(table, cells, split, pipeline, rows, copy, recipe),
            "seed": copy_seeds(recipe.seed, keys.take(rows), copy),
            "sample_id": ids_future.result(),
        }
    arrays = [(field, pa.array(columns[field.name])) for field in [*PLAN, FOLD] if field.name in columns]
    schema = pa.schema([field.with_type(array.type) for field, array in arrays])
    return Plan(pa.table([array for _, array in arrays], schema=schema), bins, counts)


def _row_columns(
    table: pa.Table,
    cells: Cells,
    split: np.ndarray,
    pipeline: np.ndarray,
    rows: np.ndarray,
    copy: np.ndarray,
    recipe: Recipe,
) -> dict[str, Any]:
    """Return the columns of the plan but `sample_id` and `seed`.

    `rows` and `copy` are the image and copy of each output row; `split` and `pipeline` are codes per image.
    """
    row_split = split.take(rows)
    augmented = (copy > 0) | ((row_split == _TRAIN) & (recipe.originals == "drawn"))
    columns = {
        "image_id": pa.DictionaryArray.from_arrays(rows, as_one_array(table["image_id"])),
        "split": pa.DictionaryArray.from_arrays(row_split, pa.array(SPLITS)),
        "cell": pa.DictionaryArray.from_arrays(
            cells.code.take(rows), [name for names in cells.names for name in names]
        ),
        "copy": copy,
        "pipeline": pa.DictionaryArray.from_arrays(pipeline.take(rows) * augmented, ["", *recipe.pipelines]),
        "weight": _weights(cells, rows, row_split, recipe),
    }
    if FOLD.name in table.column_names:
        columns[FOLD.name] = as_one_array(table[FOLD.name]).take(pa.array(rows))
    return columns


def _balance(
    table: pa.Table, cells: Cells, train: np.ndarray, ranks: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, list[BinCount], list[CellCount]]:
    """Return the number of output rows per image, and the resulting counts of each bin and cell."""
    members = _members(cells, train)
    supply = [[len(rows) for rows in row] for row in members]
    filled = np.bincount(cells.bin[train & ~own_rows(table, recipe)], minlength=len(supply)).tolist()
    own = [sum(row) - n_filled for row, n_filled in zip(supply, filled, strict=True)]
    target, spec = target_count(own, recipe.balance.level), recipe.balance
    copies = np.ones(table.num_rows, np.int32)
    bins, counts = [], []
    for b, label in enumerate(cells.bin_labels):
        rows = solve_bin(supply[b], target, spec.max_copies, spec.undersample and sum(supply[b]) > target)
        for s, images in enumerate(members[b]):
            if not len(images):
                continue
            copies[images] = shared = _share_copies(rows[s], ranks.take(images))
            n_eff = effective_size(shared)
            stratum, name = cells.stratum_labels[s], cells.names[b][s]
            counts.append(CellCount(label, stratum, name, len(images), rows[s], n_eff))
        shortfall = max(0, target - sum(rows))
        bins.append(BinCount(label, target, own[b], filled[b], sum(rows), shortfall))
    return copies, bins, counts


def _members(cells: Cells, train: np.ndarray) -> list[list[np.ndarray]]:
    """Return the train rows of every bin and stratum."""
    n_strata = len(cells.stratum_labels)
    n_cells = len(cells.bin_labels) * n_strata
    # Rows outside train get an extra code. numpy uses a radix sort for small integer types.
    code = np.where(train, cells.code, n_cells).astype(np.min_scalar_type(n_cells))
    ends = np.cumsum(np.bincount(code, minlength=n_cells + 1))
    parts = np.split(np.argsort(code, kind="stable"), ends[:-1])
    return [parts[start : start + n_strata] for start in range(0, n_cells, n_strata)]


def _share_copies(rows: int, ranks: np.ndarray) -> np.ndarray:
    """Distribute a cell's rows over its images as evenly as possible; the smallest ranks get one more."""
    base, remainder = divmod(rows, len(ranks))
    copies = np.full(len(ranks), base, np.int32)
    if remainder:
        copies[np.argpartition(ranks, remainder - 1)[:remainder]] += 1
    return copies


def _check_n_eff(counts: list[CellCount], recipe: Recipe) -> None:
    bound = recipe.balance.min_n_eff
    low = [cell for cell in counts if bound and cell.n_after > cell.n_before and cell.n_eff < bound]
    if low:
        listed = "\n  ".join(
            f"{cell.cell}: {count_text(cell.n_after, 'row')}, n_eff {cell.n_eff:.1f}" for cell in low
        )
        raise RecipeError(
            f"{count_text(len(low), 'cell')} with copies and an effective sample size below {bound:g}:\n"
            f"  {listed}",
            where="balance.min_n_eff",
            fix="lower balance.max_copies, widen the bins, or add images (balance.fill_from)",
        )


def _pipelines(subtypes: pa.ChunkedArray, recipe: Recipe) -> np.ndarray:
    """Return the number of each image's pipeline by its subtype: 0 for none, 1 for the recipe's first."""
    encoded = as_one_array(subtypes).dictionary_encode(null_encoding="encode")
    rules = [recipe.rule_for(subtype) for subtype in encoded.dictionary.to_pylist()]
    names = ["", *recipe.pipelines]
    numbers = np.array([names.index(rule.pipeline) if rule else 0 for rule in rules], np.int32)
    return np.asarray(numbers.take(encoded.indices.to_numpy()))


def _weights(cells: Cells, rows: np.ndarray, split: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return the weights of the output rows: 1 in val and test, mean 1 over train."""
    weights = np.ones(len(rows))
    if recipe.weights is not None:
        train = split == _TRAIN
        images = rows[train]
        n_bins = len(cells.bin_labels)
        weights[train] = row_weights(cells.bin[images], cells.code[images], n_bins, recipe.weights)
    return weights
