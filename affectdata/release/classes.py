"""The class of every row of a release, as a name and as a number that all splits and exports share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import InputError
from affectdata.labels import class_names, cut_values
from affectdata.recipe.recipe import Recipe
from affectdata.store.chunks import as_one_array
from affectdata.store.parquet import Rows


@dataclass(frozen=True)
class Classes:
    """The classes that occur, sorted by name, and per row the position of its class in `names`, or null."""

    column: str
    names: list[str]
    codes: pa.Array

    def words(self) -> pa.Array:
        """Return the name of the class of every row, null if it has none."""
        return pa.array(self.names, pa.string()).take(self.codes)

    def require_all(self) -> Classes:
        """Return this if every row has a class.

        Raises:
            InputError: rows without a class.
        """
        if self.codes.null_count:
            raise InputError(
                f"{self.column} is null in {self.codes.null_count} of {len(self.codes)} rows",
                where="--by",
                fix="choose another column, or exclude these rows from the release (`where:`)",
            )
        return self


def find_classes(rows: Rows, recipe: Recipe, by: str | None = None) -> Classes:
    """Return the classes in the column `by`, by default the recipe's target.

    A numeric column is cut at the thresholds in `check.classes` of the recipe. Names are sorted as folders
    are, so that the numbers are those of torchvision's ImageFolder.

    Raises:
        InputError: no such column, or a numeric column without thresholds.
    """
    name = by or recipe.target
    if name not in rows.column_names:
        known = ", ".join(field.name for field in rows.schema if pa.types.is_string(field.type))
        raise InputError(f"the release has no column {name!r}", where="--by", fix=f"columns: {known}")
    values = as_one_array(rows.select([name])[name])
    if not pa.types.is_string(values.type):
        values = _cut(name, values, recipe)
    names = sorted(values.unique().drop_null().to_pylist())
    return Classes(name, names, pc.index_in(values, pa.array(names, pa.string())).cast(pa.int64()))


def _cut(name: str, values: pa.Array, recipe: Recipe) -> pa.Array:
    thresholds = recipe.check.classes.get(name)
    if thresholds is None:
        raise InputError(
            f"{name} is numeric, and the recipe's check.classes has no thresholds for it",
            where="--by",
            fix="choose a column of strings, such as --by subtype",
        )
    numbers = np.asarray(values.to_numpy(zero_copy_only=False), float)
    words = cut_values(numbers, thresholds, class_names(len(thresholds)))
    return pa.array(words.tolist(), pa.string(), mask=np.isnan(numbers))
