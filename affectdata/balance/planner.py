"""From manifests and a recipe to a plan: choose rows, group, split, level, and name every copy.

Decisions only, on Arrow tables; a pure function of the manifests' rows and the recipe.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.balance.cells import Cells, assign_cells, own_rows
from affectdata.balance.fill import fill_rows
from affectdata.balance.labelling import add_labels
from affectdata.balance.recipe import DEFAULT, LABEL, Recipe
from affectdata.balance.solver import share_copies, solve_bin, target_count
from affectdata.balance.transforms import steps_that_overturn
from affectdata.balance.weights import row_weights
from affectdata.duplicates import assign_groups, find_edges
from affectdata.errors import RecipeError, UsageError
from affectdata.folds import assign_folds
from affectdata.hashing import hash_ranks
from affectdata.manifest import Manifest, query_tables
from affectdata.plan import BinCount, CellCount, Plan, copy_seed, effective_size, sample_id
from affectdata.schema import EDGES, FOLD, PLAN
from affectdata.split import SPLITS, adopt_splits, assign_splits, drop_conflicts, split_distance


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
    splits are taken over; `drop_train` leaves out train rows whose group is in val or test too, which is an
    error otherwise.

    Raises:
        RecipeError: the recipe does not fit the manifests.
        IntegrityError: a group has rows in two splits already.
    """
    check_subtypes(recipe, [*manifests, *others])
    check_upright(recipe, upright_of([*manifests, *others]))
    rows = split_rows(choose_rows(manifests, recipe), recipe, earlier=earlier, drop_train=drop_train)
    if others:
        spare = _without_folds(pa.concat_tables([each.table for each in others], promote_options="default"))
        if recipe.labels is not None:  # which classes count is for the balanced rows to say
            every = recipe.labels.model_copy(update={"top": None, "min_count": None})
            spare = add_labels(spare, every, check=False)
        rows = fill_rows(rows, spare, recipe)
    return rows, plan_rows(rows, recipe)


def choose_rows(manifests: Sequence[Manifest], recipe: Recipe) -> pa.Table:
    """Return the rows that a recipe is about, sorted by image_id: all, or those that `where` selects.

    Raises:
        RecipeError: no row is left, or two manifests hold the same picture.
    """
    table = pa.concat_tables([each.table for each in manifests], promote_options="default")
    if len(manifests) > 1:  # each knows its own look-alikes only
        table = assign_groups(table, find_edges(table), ["group_id"])
    if recipe.where is not None:
        table = _selected(table, recipe.where)
    if recipe.labels is not None:
        table = add_labels(table, recipe.labels)
        table = table.filter(pc.is_valid(table[LABEL]))
    if not table.num_rows:
        raise RecipeError(f"no row of {', '.join(each.name for each in manifests)} is left", where="where")
    if table["image_id"].combine_chunks().value_counts().field("counts").to_numpy().max() > 1:
        raise RecipeError("one picture is in two of the manifests", where="sources", fix="concat them first")
    return table.sort_by("image_id")


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
    table: pa.Table, recipe: Recipe, *, earlier: pa.Table | None = None, drop_train: bool = False
) -> pa.Table:
    """Fill `split`, group-safe and stratified over bin and cell; splits that are there stay.

    So with `fold`, if the recipe asks for folds; else there is no such column.
    """
    if recipe.split == "none":
        table = _without_folds(table)
        train = pa.array(["train"] * table.num_rows, pa.string())
        return table.set_column(table.column_names.index("split"), "split", train)
    for column in recipe.split.groups:
        if column not in table.column_names:
            raise RecipeError(f"no column {column!r} in the manifest", where="split.groups")
    together = ["group_id", *recipe.split.groups]
    table = assign_groups(table, EDGES.empty_table(), together)
    if earlier is not None:
        table = adopt_splits(table, earlier)
    if drop_train:
        table = drop_conflicts(table)
    cells = assign_cells(table, recipe)
    levels = [cells.bin, cells.code]
    table = assign_splits(table, levels, recipe.split.fractions, recipe.seed)
    if recipe.split.folds is None:
        return _without_folds(table)
    return assign_folds(table, levels, recipe.split.folds, recipe.seed)


def _without_folds(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name != FOLD.name])


def describe_splits(rows: pa.Table, recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's own rows per split, and how far each split's shares of bins and cells are off.

    The distance is the total variation (0–1) between a split and the whole; pictures filled in do not count.
    Where there are folds, `folds` says the same of them, the whole being what was dealt.
    """
    own = rows.filter(pa.array(own_rows(rows, recipe)))
    cells = assign_cells(own, recipe)
    found = _describe(np.array(own["split"].to_pylist()), cells.bin, cells.code)
    found["rows"] = {name: found["rows"].get(name, 0) for name in SPLITS}
    if FOLD.name in own.column_names:
        dealt = pc.is_valid(own[FOLD.name]).to_numpy()
        fold = own[FOLD.name].filter(pa.array(dealt)).to_numpy()
        found["folds"] = _describe(fold, cells.bin[dealt], cells.code[dealt])
    return found


def _describe(part_of: np.ndarray, bin_of: np.ndarray, cell_of: np.ndarray) -> dict[str, Any]:
    parts, counts = np.unique(part_of, return_counts=True)
    distance = {"bin": split_distance(bin_of, part_of), "cell": split_distance(cell_of, part_of)}
    return {"rows": dict(zip(map(str, parts), counts.tolist(), strict=True)), "distance": distance}


def plan_rows(table: pa.Table, recipe: Recipe) -> Plan:
    """Plan the release of rows whose `split` is filled: train is levelled, val and test are originals.

    Copy k of a picture has the same seed and pipeline whatever the other rows are.

    Raises:
        RecipeError: the recipe does not fit these rows (columns, subtypes, bins, pipelines).
    """
    cells = assign_cells(table, recipe)
    train = np.array(table["split"].to_pylist()) == "train"
    if not train.any():
        raise RecipeError(
            "no row is left to train on: every one is in val or test already",
            where="split",
            fix="lower the shares of val and test, or empty the column `split` of the manifest",
        )
    copies, bins, counts = _level(table, cells, train, recipe)
    _check_worth(counts, recipe)
    rows = np.repeat(np.arange(table.num_rows), copies)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(copies) - copies, copies)
    return Plan(_plan_table(table, cells, rows, number, recipe), bins, counts)


def _level(
    table: pa.Table, cells: Cells, train: np.ndarray, recipe: Recipe
) -> tuple[np.ndarray, list[BinCount], list[CellCount]]:
    """Return the number of output rows per picture, and what that makes of each bin and cell."""
    n_strata = len(cells.stratum_labels)
    members = _members(cells, train, hash_ranks(recipe.seed, table["image_id"]), n_strata)
    supply = [[len(rows) for rows in row] for row in members]
    own = np.bincount(cells.bin[train & own_rows(table, recipe)], minlength=len(supply)).tolist()
    target, spec = target_count(own, recipe.balance.level), recipe.balance
    copies = np.ones(table.num_rows, np.int64)
    bins, counts = [], []
    for b, label in enumerate(cells.bin_labels):
        have = sum(supply[b])
        rows = solve_bin(supply[b], target, spec.max_copies, spec.undersample and have > target)
        for s, pictures in enumerate(members[b]):
            if not len(pictures):
                continue
            copies[pictures] = share_copies(rows[s], len(pictures))
            n_eff = effective_size(copies[pictures].tolist())
            stratum, name = cells.stratum_labels[s], cells.names[b][s]
            counts.append(CellCount(label, stratum, name, len(pictures), rows[s], n_eff))
        short = max(0, target - sum(rows))
        bins.append(BinCount(label, target, own[b], have - own[b], sum(rows), short))
    return copies, bins, counts


def _members(cells: Cells, train: np.ndarray, ranks: np.ndarray, n_strata: int) -> list[list[np.ndarray]]:
    """Gather the train rows of every bin and stratum, those with the smallest hash first."""
    order = np.lexsort((ranks, cells.code))
    order = order[train[order]]
    bounds = np.searchsorted(cells.code[order], np.arange(len(cells.bin_labels) * n_strata + 1))
    return [
        [order[bounds[b * n_strata + s] : bounds[b * n_strata + s + 1]] for s in range(n_strata)]
        for b in range(len(cells.bin_labels))
    ]


def _check_worth(counts: list[CellCount], recipe: Recipe) -> None:
    floor = recipe.balance.min_n_eff
    poor = [each for each in counts if floor and each.n_after > each.n_before and each.n_eff < floor]
    if poor:
        listed = "\n  ".join(f"{each.cell}: {each.n_after} rows worth {each.n_eff:.1f}" for each in poor)
        raise RecipeError(
            f"{len(poor)} cells with copies are worth less than {floor:g} pictures:\n  {listed}",
            where="balance.min_n_eff",
            fix="lower balance.max_copies, widen the bins, or fill them with pictures (balance.fill_from)",
        )


def check_subtypes(recipe: Recipe, manifests: Sequence[Manifest]) -> None:
    """Refuse rules for subtypes that neither the manifests nor the data sheets of their sources know.

    Raises:
        RecipeError: naming them, and those that there are.
    """
    known = {code for manifest in manifests for code in manifest.metadata["subtypes"]}
    for manifest in manifests:
        known |= set(manifest.table["subtype"].unique().drop_null().to_pylist())
    unknown = sorted(set(recipe.subtypes) - known - {DEFAULT})
    if unknown:
        close = difflib.get_close_matches(unknown[0], sorted(known), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise RecipeError(
            f"no picture has the subtype {', '.join(map(repr, unknown))}",
            where="subtypes",
            fix=f"{hint}subtypes of the manifests: {', '.join(sorted(known)) or 'none'}",
        )


def resolve_subtypes(recipe: Recipe, manifests: Sequence[Manifest]) -> Recipe:
    """Return the recipe with the data sheets' long names of subtypes ("snakes") replaced by their codes.

    Raises:
        RecipeError: a subtype is named twice, by code and by name.
    """
    codes = {
        subtype["name"]: code
        for manifest in manifests
        for code, subtype in manifest.metadata["subtypes"].items()
    }
    resolved = {codes.get(name, name): rule for name, rule in recipe.subtypes.items()}
    if len(resolved) < len(recipe.subtypes):
        raise RecipeError("a subtype is there twice, by its code and by its name", where="subtypes")
    return recipe.model_copy(update={"subtypes": resolved})


def resolve_strata(recipe: Recipe, manifests: Sequence[Manifest]) -> Recipe:
    """Return the recipe with `source` as its first stratum, where the pictures are of several sources.

    Ratings on one scale are comparable in unit, not in meaning. A recipe that names `source` itself, or says
    `strata: []`, stays as it is.
    """
    sources = {source for manifest in manifests for source in manifest.sources}
    pooled = not recipe.strata and "strata" in recipe.model_fields_set
    if len(sources) < 2 or pooled or "source" in (recipe.target, *recipe.strata_bins):
        return recipe
    return recipe.model_copy(update={"strata": ["source", *recipe.strata]})


def upright_of(manifests: Sequence[Manifest]) -> dict[str, bool]:
    """Return which subtypes stand upright, as the data sheets say; if any source says so, it does."""
    upright: dict[str, bool] = {}
    for manifest in manifests:
        for code, subtype in manifest.metadata["subtypes"].items():
            upright[code] = upright.get(code, False) or subtype["upright"]
    return upright


def check_upright(recipe: Recipe, upright: dict[str, bool]) -> None:
    """Refuse pipelines that would turn over what stands upright; `upright` is the data sheets' word.

    A subtype that the data sheet does not know counts as upright.

    Raises:
        RecipeError: naming subtype, pipeline and step.
    """
    problems = []
    for subtype in sorted({*recipe.subtypes, *upright}):
        rule = recipe.rule_for(subtype)
        if rule is None:
            continue
        stands = rule.upright if rule.upright is not None else upright.get(subtype, True)
        overturning = steps_that_overturn(recipe.pipelines[rule.pipeline])
        if stands and overturning:
            problems.append(f"{subtype}: pipeline {rule.pipeline} turns it over ({', '.join(overturning)})")
    if problems:
        raise RecipeError(
            "subtypes that stand upright would be turned over:\n  " + "\n  ".join(problems),
            where="subtypes",
            fix="give them a pipeline that keeps their up, or say `upright: false` if they have none",
        )


def _plan_table(
    table: pa.Table, cells: Cells, rows: np.ndarray, number: np.ndarray, recipe: Recipe
) -> pa.Table:
    picked = table.select(["image_id", "split", "subtype"]).take(pa.array(rows))
    ids, splits, copies = picked["image_id"].to_pylist(), picked["split"].to_pylist(), number.tolist()
    names = np.array(cells.names, object)[cells.bin[rows], cells.stratum[rows]]
    columns = {
        "sample_id": [sample_id(image_id, copy) for image_id, copy in zip(ids, copies, strict=True)],
        "image_id": ids,
        "split": splits,
        "cell": names.tolist(),
        "copy": copies,
        "pipeline": _pipelines(picked["subtype"].to_pylist(), copies, splits, recipe),
        "seed": [copy_seed(recipe.seed, image_id, copy) for image_id, copy in zip(ids, copies, strict=True)],
        "weight": _weights(cells, rows, splits, recipe),
    }
    plan = pa.table([columns[field.name] for field in PLAN], schema=PLAN)
    if FOLD.name not in table.column_names:
        return plan
    return plan.append_column(FOLD, table[FOLD.name].take(pa.array(rows)))


def _pipelines(subtypes: list[str | None], copies: list[int], splits: list[str], recipe: Recipe) -> list[str]:
    rules = {subtype: recipe.rule_for(subtype) for subtype in set(subtypes)}
    names = {subtype: rule.pipeline if rule else "" for subtype, rule in rules.items()}
    drawn = recipe.originals == "drawn"
    return [
        names[subtype] if copy or (drawn and split == "train") else ""
        for subtype, copy, split in zip(subtypes, copies, splits, strict=True)
    ]


def _weights(cells: Cells, rows: np.ndarray, splits: list[str], recipe: Recipe) -> np.ndarray:
    """Return the weights of the output rows: 1 in val and test, mean 1 over train."""
    weights = np.ones(len(rows))
    train = np.array(splits) == "train"
    if recipe.weights is not None:
        kept = rows[train]
        weights[train] = row_weights(cells.bin[kept], cells.code[kept], len(cells.bin_labels), recipe.weights)
    return weights
