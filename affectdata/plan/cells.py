"""Balance cells: the bin and stratum of every row of a manifest.

In: Arrow columns and a recipe. Out: integer codes per row with their labels. Nothing here opens an image.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import RecipeError
from affectdata.recipe.recipe import Bins, Recipe
from affectdata.records import count_text
from affectdata.store.chunks import as_one_array

_SEPARATOR = "\x1f"  # between the values of crossed strata; no label contains it
_ALL = "all"  # the only stratum of a recipe without strata


@dataclass(frozen=True, slots=True)
class Cells:
    """Codes per row, `bin` into `bin_labels` and `stratum` into `stratum_labels`; `edges` of numeric bins.

    `names[bin][stratum]` is the name of a cell.
    """

    bin: np.ndarray
    stratum: np.ndarray
    bin_labels: list[str]
    stratum_labels: list[str]
    edges: list[float] | None
    names: list[list[str]]

    @property
    def code(self) -> np.ndarray:
        """One integer per row and cell, ordered by bin, then stratum."""
        return np.asarray(self.bin * len(self.stratum_labels) + self.stratum)


def assign_cells(table: pa.Table, recipe: Recipe) -> Cells:
    """Assign a cell to every row.

    Raises:
        RecipeError: a column is missing, null in some rows, or a value is outside the bins.
    """
    for key, column in [("target", recipe.target), *(("strata", name) for name in recipe.strata_bins)]:
        _check_column(table, column, key)
    own = pa.array(own_rows(table, recipe))
    bins, labels, edges = _cut(table, recipe.target, recipe.bins, own)
    strata, crossed = _strata(table, recipe, own)
    names = [[_cell_name(recipe, label, stratum) for stratum in crossed] for label in labels]
    stratum_labels = [stratum.replace(_SEPARATOR, "|") for stratum in crossed]
    return Cells(bins, strata, labels, stratum_labels, edges, names)


def _cut(
    table: pa.Table, column: str, bins: Bins | None, own: pa.Array
) -> tuple[np.ndarray, list[str], list[float] | None]:
    """Return codes, labels and edges of a column: by bins if it is numeric, else a code per string."""
    values = table[column]
    if bins is None:
        return *_codes(values), None
    _check_number(values, column)
    edges = bin_edges(values.filter(own), bins)
    return _binned(values.to_numpy(), edges, column), _interval_labels(edges), edges


def column_bins(table: pa.Table, column: str, bins: Bins, own: np.ndarray) -> np.ndarray:
    """Return the label of each row's bin of a numeric column, "" for null or a value outside the bins.

    Edges from quantiles are those of the rows in `own`.
    """
    values = table[column]
    edges = bin_edges(values.filter(pa.array(own)).drop_null(), bins)
    numbers = np.asarray(values.cast(pa.float64()).to_numpy(), float)  # NaN for null
    inside = (numbers >= edges[0]) & (numbers <= edges[-1])
    labels = np.full(len(table), "", object)
    labels[inside] = np.array(_interval_labels(edges))[_binned(numbers[inside], edges, column)]
    return labels.astype(str)


def own_rows(table: pa.Table, recipe: Recipe) -> np.ndarray:
    """Return a mask of the rows from the recipe's own sources, as opposed to `balance.fill_from`."""
    if not recipe.balance.fill_from:
        return np.ones(table.num_rows, bool)
    filled = pc.is_in(table["source"], pa.array(recipe.balance.fill_from, pa.string()))
    return np.asarray(pc.invert(filled).to_numpy())


def _check_column(table: pa.Table, column: str, key: str) -> None:
    if column not in table.column_names:
        raise RecipeError(
            f"no column {column!r} in the manifest",
            where=key,
            fix=f"columns: {', '.join(table.column_names)}",
        )
    n_null = table[column].null_count
    if n_null:
        raise RecipeError(
            f"{column} is null in {n_null} of {table.num_rows} rows",
            where=key,
            fix=f"choose another column, or exclude these rows with `where: {column} IS NOT NULL`",
        )


def _check_number(values: pa.ChunkedArray, target: str) -> None:
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise RecipeError(
            f"{target} contains strings, not numbers: it cannot have bins",
            where="bins",
            fix="remove bins: every string is its own bin",
        )


def bin_edges(values: pa.ChunkedArray, bins: Bins) -> list[float]:
    """Return the edges of the bins, ascending, in the unit of `values` (POMP for ratings)."""
    if bins.edges is not None:
        return list(bins.edges)
    if bins.quantiles is not None:
        return _quantile_edges(values, bins.quantiles)
    width = bins.width or 100.0
    inner = np.arange(1, int(np.ceil(100 / width - 1e-9))) * width
    return [0.0, *(round(float(edge), 6) for edge in inner), 100.0]


def _quantile_edges(values: pa.ChunkedArray, n_bins: int) -> list[float]:
    shares = np.linspace(0, 1, n_bins + 1)
    edges = sorted({round(float(edge), 6) for edge in np.quantile(values.to_numpy(), shares)})
    if len(edges) != n_bins + 1:
        raise RecipeError(
            f"{n_bins} quantiles give only {len(edges) - 1} distinct bins: too many equal values",
            where="bins.quantiles",
            fix="use fewer quantiles, or give edges",
        )
    return edges


def _binned(values: np.ndarray, edges: list[float], target: str) -> np.ndarray:
    outside = ~((values >= edges[0]) & (values <= edges[-1]))
    if outside.any():
        raise RecipeError(
            f"{count_text(int(outside.sum()), 'row', 'have')} {target} outside {edges[0]:g}–{edges[-1]:g} "
            f"(e.g. {values[outside][0]:g})",
            where="bins.edges",
            fix="widen the bins, or exclude the rows with `where:`",
        )
    codes = np.zeros(len(values), np.min_scalar_type(len(edges)))
    for edge in edges[1:-1]:  # faster than a binary search per row, because bins are few
        codes += values >= edge
    return codes.astype(np.int32)


def _interval_labels(edges: list[float]) -> list[str]:
    last = len(edges) - 2
    return [
        f"[{low:.12g},{high:.12g}{']' if index == last else ')'}"
        for index, (low, high) in enumerate(itertools.pairwise(edges))
    ]


def _codes(values: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return a code per row and the sorted labels."""
    encoded = as_one_array(values.cast(pa.string())).dictionary_encode()
    return _sorted_codes(encoded.indices, encoded.dictionary.to_pylist())


def _sorted_codes(codes: pa.Array, labels: list[str]) -> tuple[np.ndarray, list[str]]:
    new_code = np.empty(len(labels), np.int32)
    order = sorted(range(len(labels)), key=labels.__getitem__)
    new_code[order] = np.arange(len(labels))
    return new_code.take(codes.to_numpy()), [labels[index] for index in order]


def _strata(table: pa.Table, recipe: Recipe, own: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Cross the strata; only combinations that occur get a code."""
    if not recipe.strata:
        return np.zeros(table.num_rows, np.int32), [_ALL]
    codes, labels = np.zeros(table.num_rows, np.int32), [""]
    for number, (column, bins) in enumerate(recipe.strata_bins.items()):
        column_codes, column_labels, _ = _cut(table, column, bins, own)
        if not number and bins is None:  # all of these labels occur
            codes, labels = column_codes, column_labels
            continue
        n_labels = len(column_labels)
        encoded = pa.array(codes.astype(np.int64) * n_labels + column_codes).dictionary_encode()
        pairs = (divmod(code, n_labels) for code in encoded.dictionary.to_pylist())
        crossed = [labels[left] + _SEPARATOR * (number > 0) + column_labels[right] for left, right in pairs]
        codes, labels = _sorted_codes(encoded.indices, crossed)
    return codes, labels


def _cell_name(recipe: Recipe, bin_label: str, stratum: str) -> str:
    parts = [f"{recipe.target}={bin_label}"]
    if recipe.strata:
        values = stratum.split(_SEPARATOR)
        parts += [f"{name}={value}" for name, value in zip(recipe.strata_bins, values, strict=True)]
    return "|".join(parts)
