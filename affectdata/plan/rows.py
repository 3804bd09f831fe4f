"""The rows that a recipe applies to: of all manifests, labelled and grouped, sorted by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import RecipeError, UsageError
from affectdata.images.duplicates import assign_groups, find_edges
from affectdata.manifest.ledger import NO_MEMORY, Memory
from affectdata.manifest.manifest import Manifest
from affectdata.manifest.query import query_tables
from affectdata.plan.groups import join_groups
from affectdata.plan.labelling import add_labels
from affectdata.recipe.recipe import LABEL, LEXICON, Recipe
from affectdata.schema import LEDGER
from affectdata.workers import THREADS

_COLUMNS = ("image_id", "source", "path", "subtype", "subject_id", "group_id", "split", "fold", "license")
_LOOK_COLUMNS = ("pixel_id", "phash", "phash_views")  # to find look-alikes across manifests


def choose_rows(
    manifests: Sequence[Manifest],
    recipe: Recipe,
    memory: Memory = NO_MEMORY,
    workers: int = 1,
    engine: str = THREADS,
) -> pa.Table:
    """Return the rows that a recipe applies to, sorted by image_id: all, or those selected by `where`.

    They include the columns for comparing with images in `memory`, if there are any.

    Raises:
        RecipeError: no row is left, or two manifests contain the same image.
    """
    several = len(manifests) > 1
    compared = several or recipe.balance.fill_from or recipe.labels  # these may leave out a held-out row
    columns = {*(_LOOK_COLUMNS if compared else ()), *_memory_columns(memory)}
    table = pa.concat_tables(
        [_read(manifest, recipe, columns) for manifest in manifests], promote_options="default"
    )
    if several:  # a manifest has groups for its own look-alikes only
        table = assign_groups(table, find_edges(table, workers=workers, engine=engine), ["group_id"])
    for groups in [] if recipe.split == "none" else recipe.split.group_tables:
        table = join_groups(table, groups)
    if recipe.where is not None:
        table = filter_rows(table, recipe.where)
    if recipe.labels is not None:
        table = add_labels(table, recipe.labels)
        table = table.filter(pc.is_valid(table[LABEL]))
    if not table.num_rows:
        names = ", ".join(manifest.name for manifest in manifests)
        raise RecipeError(f"no row of {names} is left", where="where", fix="relax the condition")
    if _ascends(table["image_id"]):  # as in every manifest; sorting would copy the table
        return table
    table = table.sort_by("image_id")
    if not _ascends(table["image_id"]):
        raise RecipeError(
            "an image is in two of the manifests", where="sources", fix="run `affectdata concat` first"
        )
    return table


def read_candidates(others: Sequence[Manifest], recipe: Recipe, memory: Memory) -> pa.Table:
    """Return all rows of the manifests of `fill_from`, with the columns that `choose_rows` reads."""
    columns = (*_LOOK_COLUMNS, *_memory_columns(memory))
    rows = pa.concat_tables([_read(each, recipe, columns) for each in others], promote_options="default")
    if recipe.labels is None:
        return rows
    # `top` and `min_count` apply to the balanced rows only.
    every_class = recipe.labels.model_copy(update={"top": None, "min_count": None})
    return add_labels(rows, every_class, check=False)


def _memory_columns(memory: Memory) -> Iterable[str]:
    """Return the columns for comparing rows with remembered images."""
    return {*_LOOK_COLUMNS, *(memory.declared & set(LEDGER.names))} if len(memory.rows) else ()


def _read(manifest: Manifest, recipe: Recipe, more: Iterable[str]) -> pa.Table:
    """Read the columns needed for the plan; all columns if a condition may use any, or one is missing."""
    needed = {
        recipe.target,
        *recipe.strata_bins,
        *recipe.group_columns,
    }
    needed -= {LABEL, *LEXICON}
    available = manifest.rows.column_names
    if recipe.where is not None or needed - set(available):
        return manifest.table
    needed |= {*_COLUMNS, *more}
    if recipe.labels is not None:
        needed |= {"valence", "arousal", "agreement"}
        needed |= {name for name in available if name.startswith("emotion")}
    return manifest.rows.select([name for name in available if name in needed])


def _ascends(ids: pa.ChunkedArray) -> bool:
    return len(ids) < 2 or bool(pc.all(pc.greater(ids.slice(1), ids.slice(0, len(ids) - 1))).as_py())


def filter_rows(table: pa.Table, condition: str) -> pa.Table:
    """Return the rows for which an SQL condition over the columns holds.

    Raises:
        RecipeError: DuckDB rejects the condition; the message has the reason.
    """
    try:
        rows = query_tables({"manifest": table}, f"SELECT * FROM manifest WHERE {condition}", bounded=True)
    except (MemoryError, TimeoutError) as error:
        raise RecipeError(
            f"{condition!r} takes too much time or memory: {error}",
            where="where",
            fix="compare columns of the manifest with values: `valence_sd < 20 AND subtype <> 'A'`",
        ) from error
    except UsageError as error:
        raise RecipeError(
            f"{condition!r} is not a valid condition over the manifest: {error.what}",
            where="where",
            fix=f"columns: {', '.join(table.column_names)}",
        ) from error
    return rows.cast(table.schema)
