"""The candidates of a selection: rows that fall into a cell, values to match, and groups of look-alikes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import RecipeError
from affectdata.images.duplicates import assign_groups, codes_of, find_edges
from affectdata.manifest.manifest import Manifest
from affectdata.plan.labelling import add_labels
from affectdata.plan.rows import filter_rows
from affectdata.recipe.recipe import LABEL
from affectdata.selection.request import Levels, SetRequest
from affectdata.splits.seeds import id_heads, id_keys, id_ranks


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows of a manifest that may be selected, in an order that depends on the seed.

    `cell` is the index in `cells` of each row; `group` is equal for rows of which one may be selected.
    `left_out` counts the rows that are not candidates, by reason.
    """

    rows: pa.Table
    cells: list[str]
    cell: np.ndarray
    group: np.ndarray
    left_out: dict[str, int]

    def values(self, column: str) -> np.ndarray:
        """Return a numeric column."""
        return np.asarray(self.rows[column].to_numpy(), float)

    def scale(self, column: str) -> float:
        """Return the standard deviation of a column, the unit of differences; 1 if all are equal."""
        return float(np.std(self.values(column), ddof=1)) or 1.0


def find_candidates(manifest: Manifest, request: SetRequest) -> Candidates:
    """Return the rows of a manifest that a request may select.

    Raises:
        RecipeError: a column is missing or has no numbers, the condition is wrong, or no row is in a cell.
    """
    table = manifest.table
    n_rows = len(table)
    if request.where is not None:
        table = filter_rows(table, request.where)
    left_out = {"where": n_rows - len(table)}
    if request.labels is not None:
        table = add_labels(table, request.labels)
        table = table.filter(pc.is_valid(table[LABEL]))
    for column in (*request.match, *request.cells, *request.groups):
        _check_column(table, column)
    codes, names = _cross(table, request)
    valid = np.ones(len(table), bool)
    for column in request.match:
        _check_numeric(table, column, "match")
        valid &= np.isfinite(pc.fill_null(table[column].cast(pa.float64()), np.nan).to_numpy())
    left_out |= {"no cell": int(np.sum(codes < 0)), "no value": int(np.sum(~valid & (codes >= 0)))}
    keep = np.flatnonzero(valid & (codes >= 0))
    if not len(keep):
        raise RecipeError("no row is in a cell", where="cells", fix="relax `where` or the levels")
    ids = table["image_id"].take(pa.array(keep))
    order = keep[np.argsort(id_ranks(request.seed, id_keys(id_heads(ids))), kind="stable")]
    rows = table.take(pa.array(order))
    return Candidates(rows, names, codes[order], _look_alikes(rows, request.groups), left_out)


def _look_alikes(rows: pa.Table, columns: list[str]) -> np.ndarray:
    """Return a code per row, equal for look-alikes and for rows that are equal in a column."""
    keys = rows.select(["image_id", *dict.fromkeys(columns)])
    return np.asarray(codes_of(assign_groups(keys, find_edges(rows), columns)["group_id"]))


def _check_column(table: pa.Table, column: str) -> None:
    if column not in table.column_names:
        raise RecipeError(
            f"no column {column!r} in the manifest",
            where="cells, match, groups",
            fix=f"columns: {', '.join(table.column_names)}",
        )
    if len(table) and table[column].null_count == len(table):
        raise RecipeError(
            f"{column} is null in all rows",
            where="cells, match, groups",
            fix="choose another column; if it is one of image quality, run `affectdata ingest` again",
        )


def _check_numeric(table: pa.Table, column: str, key: str) -> None:
    kind = table.schema.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise RecipeError(f"{column} has no numbers", where=key, fix="use a numeric column")


def _cross(table: pa.Table, request: SetRequest) -> tuple[np.ndarray, list[str]]:
    """Return the cell of every row (-1: none) and the names of the cells."""
    parts = [_levels(table, column, levels) for column, levels in request.cells.items()]
    codes = np.zeros(len(table), int)
    for part, names in parts:
        codes = np.where((codes < 0) | (part < 0), -1, codes * len(names) + part)
    return codes, [" ".join(names) for names in product(*(names for _, names in parts))]


def _levels(table: pa.Table, column: str, levels: Levels) -> tuple[np.ndarray, list[str]]:
    """Return the level of every row (-1: none) and the names of the levels."""
    if isinstance(levels, dict):
        _check_numeric(table, column, f"cells.{column}")
        values = pc.fill_null(table[column].cast(pa.float64()), np.nan).to_numpy()
        top = max(high for _, high in levels.values())
        codes = np.full(len(table), -1)
        for code, (low, high) in enumerate(levels.values()):
            codes[(values >= low) & ((values < high) | ((values == high) & (high == top)))] = code
        return codes, list(levels)
    words = table[column].cast(pa.string())
    names = sorted(words.unique().drop_null().to_pylist()) if levels == "all" else levels
    if unknown := sorted(_unknown(words, names)):
        raise RecipeError(
            f"no row has the {column} {', '.join(unknown)}",
            where=f"cells.{column}",
            fix=f"known: {', '.join(sorted(words.unique().drop_null().to_pylist()))}",
        )
    return pc.fill_null(pc.index_in(words, pa.array(names)), -1).to_numpy(), names


def _unknown(words: pa.ChunkedArray, names: list[str]) -> Iterator[str]:
    known = set(words.unique().to_pylist())
    return (name for name in names if name not in known)
