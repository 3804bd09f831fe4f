"""Tables that contain their images: Parquet tables with image files, and webdataset shards.

In: a table whose rows are images. Out: the items of its rows, by a column map or by the names of its columns.
The path of an image is `FILE#N`; `images.read` reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from affectdata.column_map.columns import MAPPED, ColumnMap
from affectdata.column_map.rows import RowReader
from affectdata.config import parse_model
from affectdata.errors import SourceError
from affectdata.labels import spell_emotion
from affectdata.reading.delimited import parse_number, require_columns
from affectdata.reading.join import Row
from affectdata.reading.label_tables import is_own_table
from affectdata.reading.names import find_readmes, spell_split
from affectdata.reading.protocol import Item, Reading
from affectdata.reading.tree import Tree
from affectdata.records import RATINGS, Annotation, Finding, Record, Reject, SourceInfo

KEY = "#image"  # a column of every row: what the source calls the image
CLASS_COLUMNS = ("emotion", "label", "labels", "class", "category", "expression", "cls")
_TEXTS = ("txt", "text", "caption")  # a class only if all are single words
_WORD = re.compile(r"[^\W\d_]{3,30}")
_MOST_CLASSES = 1000


@dataclass(frozen=True)
class EmbeddedRow:
    """A row with an image: its number in the file, what the source calls it, and its cells by column."""

    number: int
    key: str
    cells: dict[str, str]


@dataclass(frozen=True)
class EmbeddedTable:
    """A table that contains its images; `rows` reads it again at every call.

    `classes` are the columns that the table itself declares to be classes.
    """

    path: str
    rows: Callable[[], Iterator[EmbeddedRow | Reject | Finding]]
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class _Column:
    """The distinct values of a column, until there are too many for classes."""

    values: set[str]


def read_embedded(table: EmbeddedTable, spec: ColumnMap, strict: bool = False) -> Iterator[Item]:
    """Yield the table as an annotation, and its rows as records and rejects.

    Raises:
        SourceError: with `strict`, the table lacks a column that the map names, beside the key.
    """
    if spec.rows != "image":
        raise SourceError(
            f"{table.path} contains its images, so a row is an image, not a {spec.rows}",
            where=table.path,
            fix="remove `rows` from the column map",
        )
    if strict:
        needed = [column for column in spec.needed if column != spec.key]
        require_columns(list(_read_columns([table])), needed, table.path, fix="correct the column map")
    yield Annotation(table.path)
    split, reader = split_of(table.path), RowReader(spec)
    for row in table.rows():
        if not isinstance(row, EmbeddedRow):
            yield row
            continue
        path = f"{table.path}#{row.number}"
        item = reader.read_row(Row(table.path, str(row.number), path, {KEY: row.key, **row.cells}), path)
        if isinstance(item, Record):
            item = replace(item, source_id=row.key, split=item.split or split)
        yield item
    yield from reader.tally.findings()


def split_of(path: str) -> str | None:
    """Return the split that a path names: in the file name, else in a folder.

    >>> split_of("data/train-00000-of-00002.parquet"), split_of("test/0000.parquet"), split_of("a.tar")
    ('train', 'test', None)
    """
    *folders, name = path.split("/")
    for words in (re.split(r"[^a-z]+", name.lower())[:-1], *([folder] for folder in reversed(folders))):
        splits = {split for word in words if (split := spell_split(word))}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def read_described(tree: Tree, info: SourceInfo, tables: Sequence[EmbeddedTable], name: str) -> Reading:
    """Read tables by the names of their columns, as the collection `name`; `info` is their source."""
    spec, findings = map_columns(tables, name)

    def items() -> Iterator[Item]:
        yield from map(Annotation, find_readmes(tree))
        for table in tables:
            yield from read_embedded(table, spec)
        yield from findings

    return Reading(replace(info, name=name, title=name, scales=spec.to_info(name).scales), items())


def map_columns(tables: Sequence[EmbeddedTable], name: str) -> tuple[ColumnMap, list[Finding]]:
    """Return a column map by the names of the columns, and what a user should know about it.

    Columns with the names of those of a manifest are used; the class is the first of CLASS_COLUMNS, else a
    declared one, else a text that is always one word. A rating without its scale stays in `extra`.
    """
    columns = _read_columns(tables)
    scales = {rating: _scale(columns, rating) for rating in RATINGS if rating in columns}
    unscaled = [rating for rating, scale in scales.items() if scale is None]
    absent = tuple(rating for rating in RATINGS if rating not in scales or rating in unscaled)
    mapped = {column: column for column in MAPPED if column in columns and not column.startswith(absent)}
    label = _class_column(columns, [name for table in tables for name in table.classes])
    if label:
        mapped["emotion"] = label
    shares = [column for column in columns if column.startswith("emotion_")]
    document = {
        "name": name,
        "table": [table.path for table in tables],
        "key": KEY,
        "columns": mapped,
        "scales": {rating: scale for rating, scale in scales.items() if scale is not None},
        "emotions": {spell_emotion(column.removeprefix("emotion_")): column for column in shares},
    }
    return parse_model(ColumnMap, document, tables[0].path), list(_findings(columns, label, unscaled))


def _read_columns(tables: Iterable[EmbeddedTable]) -> dict[str, _Column]:
    columns: dict[str, _Column] = {}
    for table in tables:
        for row in table.rows():
            for name, cell in row.cells.items() if isinstance(row, EmbeddedRow) else ():
                values = columns.setdefault(name, _Column(set())).values
                if cell and len(values) <= _MOST_CLASSES:
                    values.add(cell)
    return columns


def _class_column(columns: dict[str, _Column], declared: Sequence[str]) -> str | None:
    filled = {name.lower(): name for name, column in columns.items() if column.values}
    if is_own_table(columns):
        return filled.get("emotion")
    words = [
        name for name in _TEXTS if name in filled and all(map(_WORD.fullmatch, columns[filled[name]].values))
    ]
    likely = [*CLASS_COLUMNS, *(name.lower() for name in declared), *words]
    return next((filled[name] for name in likely if name in filled), None)


def _scale(columns: dict[str, _Column], rating: str) -> list[float] | None:
    if f"{rating}_raw" in columns:  # written by this package: 0–100
        return [0.0, 100.0]
    ends = [columns.get(f"{rating}_{end}", _Column(set())).values for end in ("min", "max")]
    try:
        low, high = (parse_number(next(iter(values))) if len(values) == 1 else None for values in ends)
    except ValueError:
        return None
    return [low, high] if low is not None and high is not None and low < high else None


def _findings(columns: dict[str, _Column], label: str | None, unscaled: list[str]) -> Iterator[Finding]:
    fix = "describe the columns in a column map: --source table --map COLUMNS.yaml"
    if unscaled:
        text = f"{', '.join(unscaled)}: no scale is known, so that it is only in `extra`; {fix}"
        yield Finding("unscaled", text)
    values = sorted(columns[label].values) if label else []
    if values and all(value.isdigit() for value in values):
        shown = ", ".join(sorted(values, key=int)[:5]) + (", …" if len(values) > 5 else "")
        text = f"the classes of {label} are numbers without names: {shown}; {fix}"
        yield Finding("unnamed_classes", text)
