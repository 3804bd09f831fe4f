"""Read a table in JSON: records, JSON lines, objects keyed by file name, columns, COCO annotations.

In: the text of a file, and the columns that a map names, the key first. Out: records, one per row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from affectdata.errors import SourceError

Records: TypeAlias = list[dict[str, Any]]
KEY, VALUE = "key", "value"  # columns of a table keyed by file name, if the map does not name them
CATEGORY = "category"  # column with the category of the annotations of an image in COCO
_COCO = {"images", "annotations", "categories"}
_OF_ANNOTATION = {"id", "image_id", "category_id", "segmentation", "bbox", "area", "iscrowd", "attributes"}
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # the escape of one half of a surrogate pair
_FORMS = "a list of objects, an object per line, an object keyed by file name, an object of columns, or COCO"


def load_json(text: str | bytes, **options: Any) -> Any:
    """Parse a JSON document that others wrote; `options` are those of `json.loads`.

    Raises:
        ValueError, RecursionError: it is not JSON, or a text in it cannot be written as UTF-8.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    document = json.loads(text, **options)
    try:
        if _HALF.search(text):
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        near = error.object[max(0, error.start - 20) : error.start]
        raise ValueError(
            f"the escape {ascii(half)[1:-1]} after {near!a} is half of a character; write the whole character"
        ) from error
    return document


def read_records(text: str, path: str, needed: Sequence[str] = ()) -> Records:
    """Return the rows of a table in JSON; a needed `a.b` may be the value of `b` in an object `a`.

    Raises:
        SourceError: it is not JSON, has no rows, or is of a form that is recognised and not read.
    """
    records = _read(_parse(text, path), path, needed)
    nested = [name for name in dict.fromkeys(needed) if "." in name]
    for record in records if nested else ():
        found = ((name, _nested(record, name)) for name in nested if name not in record)
        record.update((name, value) for name, value in found if value is not None)
    return records


def _nested(record: Any, name: str) -> Any:
    for part in name.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def _read(document: Any, path: str, needed: Sequence[str]) -> Records:
    if isinstance(document, list):
        if not all(isinstance(item, dict) for item in document):
            raise _not_a_table(path, "a list with items that are not objects")
        _refuse_label_studio(document, path)
        return document
    if not isinstance(document, dict):
        raise _not_a_table(path, "a single value")
    if document.keys() >= _COCO:
        return _read_coco(document, path, needed)
    return _from_columns(document, needed) or _from_wrapper(document, needed) or _from_keys(document, needed)


def _parse(text: str, path: str) -> Any:
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        return load_json(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        if len(lines) < 2 or not lines[0][1].rstrip().endswith(("}", "]")):
            fix = "restore the original file, or save the table as .csv"
            raise SourceError(f"{path} is not JSON: {error}", where=path, fix=fix) from error
    records = []
    for number, line in lines:
        try:
            records.append(load_json(line, object_pairs_hook=_without_repeats))
        except (ValueError, RecursionError) as error:
            raise SourceError(
                f"{path} is not one JSON object per line: {error}", where=f"{path}, line {number}"
            ) from error
    return records


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} occurs several times in one object")
    return document


def _not_a_table(path: str, what: str) -> SourceError:
    return SourceError(f"{path} is not a table: it is {what}", where=path, fix=f"expected: {_FORMS}")


def _from_columns(document: dict[str, Any], needed: Sequence[str]) -> Records | None:
    """Read an object of columns: lists of equal lengths, or objects with the same keys, as pandas writes."""
    columns = list(document.values())
    if not needed or not document.keys() >= set(needed):
        return None
    if all(isinstance(column, list) for column in columns) and len(set(map(len, columns))) == 1:
        return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]
    if all(isinstance(column, dict) and column.keys() == columns[0].keys() for column in columns):
        return [{name: column[row] for name, column in document.items()} for row in columns[0]]
    return None


def _from_wrapper(document: dict[str, Any], needed: Sequence[str]) -> Records | None:
    """Read the one list of records with the needed columns inside an object."""
    lists = [
        value
        for value in document.values()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    ]
    fitting = [value for value in lists if {name for item in value for name in item} >= set(needed)]
    return fitting[0] if needed and len(fitting) == 1 else None


def _from_keys(document: dict[str, Any], needed: Sequence[str]) -> Records:
    """Read an object keyed by file name; its values are objects, or the only other column."""
    inner = {name for value in document.values() if isinstance(value, dict) for name in value}
    key = next((name for name in needed[:1] if name not in inner), KEY)
    others = [name for name in needed if name not in (key, *inner)]
    value = others[0] if len(others) == 1 else VALUE
    return [
        {key: name, **(cell if isinstance(cell, dict) else {value: cell})} for name, cell in document.items()
    ]


def _read_coco(document: dict[str, Any], path: str, needed: Sequence[str]) -> Records:
    """Return a row per image, with the fields of its annotations; several values are a list."""
    records = _join_coco(document, path)
    columns = list(dict.fromkeys(name for record in records for name in record))
    if missing := [name for name in needed if name not in columns]:
        raise SourceError(
            f"{path} has COCO annotations without {', '.join(map(repr, missing))}",
            where=f"its columns: {', '.join(columns)}",
            fix=f"correct the column map; for the categories: `columns: {{emotion: {CATEGORY}}}`",
        )
    return records


def _join_coco(document: dict[str, Any], path: str) -> Records:
    try:
        categories = {item["id"]: item["name"] for item in document["categories"]}
        annotations: dict[Any, list[dict[str, Any]]] = {item["id"]: [] for item in document["images"]}
        for item in document["annotations"]:
            name = {CATEGORY: categories[item["category_id"]]} if "category_id" in item else {}
            annotations[item["image_id"]].append(
                {
                    **{key: value for key, value in item.items() if key not in _OF_ANNOTATION},
                    **(item.get("attributes") or {}),
                    **name,
                }
            )
        return [{**_join(annotations[item["id"]]), **item} for item in document["images"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path} looks like COCO, but cannot be read: {type(error).__name__}: {error}",
            where=path,
            fix="every annotation needs the id of an image and of a category that the file has",
        ) from error


def _join(annotations: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    joined: dict[str, list[Any]] = {CATEGORY: []}
    for annotation in annotations:
        for name, value in annotation.items():
            if value not in joined.setdefault(name, []):
                joined[name].append(value)
    return {name: values[0] if len(values) == 1 else values or None for name, values in joined.items()}


def _refuse_label_studio(tasks: Records, path: str) -> None:
    if any(
        isinstance(task.get("data"), dict) and ("annotations" in task or "completions" in task)
        for task in tasks[:1]
    ):
        raise SourceError(
            f"{path} is an export of Label Studio with all annotations of every task, which is not read",
            where=path,
            fix="export the project as JSON-MIN or CSV, and name its columns in the column map",
        )
