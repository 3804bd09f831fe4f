"""Columns of a release as Hugging Face declares them: types, and the names of classes (ClassLabel)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from affectdata.store.parquet import Rows, distinct

_CATEGORIES = ("emotion", "subtype", "label")
_DTYPES = {pa.float64(): "float64", pa.float32(): "float32"}  # other types have equal names in Arrow


def category_names(rows: Rows) -> dict[str, list[str]]:
    """Return the sorted values of every column that is declared as a ClassLabel, if it has any."""
    texts = {field.name for field in rows.schema if pa.types.is_string(field.type)}
    found = {name: distinct(rows, name) for name in _CATEGORIES if name in texts}
    return {name: words for name, words in found.items() if words}


def describe_columns(fields: Iterable[pa.Field], names: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return columns in the notation of a card's front matter; `names` are those of classes."""
    return [{"name": field.name, "dtype": column_type(field, names)} for field in fields]


def column_type(field: pa.Field, names: Mapping[str, Sequence[str]]) -> Any:
    """Return the type of a column in the same notation; `image` is the image."""
    if field.name == "image":
        return "image"
    return class_label(names[field.name]) if field.name in names else _DTYPES.get(field.type, str(field.type))


def class_label(names: Sequence[str]) -> dict[str, Any]:
    """Return the type of a class in the same notation."""
    return {"class_label": {"names": {str(code): name for code, name in enumerate(names)}}}
