"""A rating table in any common container as text cells: delimited, .xlsx, .xls, .parquet, .json, .jsonl.

Out: a header of unique names and rows of as many cells; what is missing is an empty cell.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from affectdata.errors import SourceError
from affectdata.reading.delimited import Lines, decode_text, open_text, parse_lines
from affectdata.reading.tree import Tree

_HEAD_BYTES = 1 << 16
_PARQUET_ROWS = 1 << 12  # held as Python objects at once
_HEAD_ROWS = 40  # among which a header is looked for
_MAX_WORKBOOK_BYTES = 1 << 29  # unpacked
_MAX_WORKBOOK_RATIO = 100  # unpacked to packed bytes of what is more than …
_ALWAYS_WORKBOOK_BYTES = 1 << 24  # … this; sheets shrink to a tenth
_MAX_ROWS = 1 << 20  # that a sheet has in Excel
_MAX_CELLS = 1 << 24  # rows that are not empty, times the widest one
_BOOKS = {".xlsx", ".xlsm", ".xls"}
_NOT_READ = {".ods", ".sav", ".mat", ".rda", ".rds"}
TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".dat", ".parquet", ".jsonl", *_BOOKS, *_NOT_READ}


def read_head(tree: Tree, path: str) -> str:
    """Read the first line of a text file, without reading the rest.

    Raises:
        SourceError: the file cannot be read.
    """
    return decode_text(tree.read_bytes(path, _HEAD_BYTES)).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Shape:
    """Where in a file the table is, and how its text is written.

    `needed` are columns that the header has: it is the first line or row with all of them, and without one
    the line after `skip_rows`. `names` is the header of a table that has none.
    """

    sheet: str | None = None
    skip_rows: int = 0
    encoding: str | None = None
    delimiter: str | None = None
    needed: Sequence[str] = ()
    names: Sequence[str] = ()


def has_columns(tree: Tree, path: str, shape: Shape) -> bool:
    """Say whether a table has a header of the columns needed; of a text only the beginning is read."""
    suffix = PurePosixPath(path).suffix.lower()
    try:
        if suffix in _BOOKS:
            head = _read_rows(tree.read_bytes(path), path, shape.sheet, _HEAD_ROWS)
        else:
            data = tree.read_bytes(path, _HEAD_BYTES)
            read = codecs.getincrementaldecoder(shape.encoding or "utf-8")("replace")  # it may end mid-letter
            head = [_cells(line, shape.delimiter) for line in read.decode(data).splitlines()[:_HEAD_ROWS]]
    except SourceError:
        return False
    return _find_header(head, shape.needed) is not None


def read_table(tree: Tree, path: str, shape: Shape | None = None) -> tuple[list[str], Lines]:
    """Read one table; cells are stripped text, whole floats without `.0`, empty rows left out.

    A name that is there twice becomes `M`, `M#2`; a column without one is called by its place, `#1`.

    Raises:
        SourceError: the file is not what its suffix says, or of a kind that is not read.
    """
    shape = shape or Shape()
    data, suffix = tree.read_bytes(path), PurePosixPath(path).suffix.lower()
    if not data:
        raise SourceError(f"{path} is empty", where=path, fix="restore it as it was shipped")
    if suffix in _NOT_READ:
        raise SourceError(
            f"{suffix} files are not read", where=path, fix="save the table as .xlsx, .csv or .parquet"
        )
    rows: Iterable[list[str]]
    if suffix in _BOOKS:
        header, rows = _fit(_from_header(_read_rows(data, path, shape.sheet), shape), path)
    elif suffix == ".parquet":
        header, rows = _read_parquet(data, path)
    elif suffix in (".json", ".jsonl"):
        header, rows = _read_json_lines(data, path)
    else:
        header, rows = _read_text(data, path, shape)
    return unique_names(header), Lines(lambda: (row for row in rows if any(row)))


def _read_text(data: bytes, path: str, shape: Shape) -> tuple[list[str], Lines]:
    _check_encoding(data, shape.encoding, path)

    def lines() -> Iterator[str]:
        return open_text(data, shape.encoding)

    head = [line.rstrip("\n") for line in islice(lines(), _HEAD_ROWS)]
    at = _find_header([_cells(line, shape.delimiter) for line in head], shape.needed)
    skipped = shape.skip_rows if at is None else at
    delimiter = shape.delimiter or _guess_delimiter(next(islice(lines(), skipped, None), ""))
    names = [delimiter.join(shape.names) + "\n"] if at is None and shape.names else []
    return parse_lines(lambda: chain(names, islice(lines(), skipped, None)), delimiter, path)


def _cells(line: str, delimiter: str | None) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=delimiter or _guess_delimiter(line)), [])
    except csv.Error:  # longer than any cell of a header
        return []
    return [cell.strip() for cell in row]


def _find_header(head: Sequence[Sequence[str]], needed: Sequence[str]) -> int | None:
    """Return the first row that has all the columns needed; None if there is none, or none is needed."""
    found = (at for at, row in enumerate(head) if needed and set(unique_names(row)).issuperset(needed))
    return next(found, None)


def _from_header(rows: list[list[str]], shape: Shape) -> list[list[str]]:
    at = _find_header(rows[:_HEAD_ROWS], shape.needed)
    if at is None and shape.names:
        width = max(map(len, rows), default=0)
        return [list(shape.names) + [""] * (width - len(shape.names)), *rows]
    return rows[shape.skip_rows if at is None else at :]


def _check_encoding(data: bytes, encoding: str | None, path: str) -> None:
    if encoding is None:
        return
    try:
        data.decode(encoding)
    except UnicodeError as error:
        raise SourceError(
            f"{path} is not {encoding}: {error}", where=path, fix="correct `encoding`"
        ) from error


def _guess_delimiter(text: str) -> str:
    head = text.partition("\n")[0]
    if "\t" in head:
        return "\t"
    return ";" if head.count(";") > head.count(",") else ","


def _read_rows(data: bytes, path: str, sheet: str | None, most: int | None = None) -> list[list[str]]:
    """Read the cells of one sheet of a workbook, or its first rows, as text."""
    try:
        is_old = PurePosixPath(path).suffix.lower() == ".xls"
        sheets = _read_old_workbook(data) if is_old else _read_workbook(data)
        chosen = next(iter(sheets), "") if sheet is None else sheet
        if chosen in sheets:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about dates and extensions
                return _align(islice(sheets[chosen](), most))
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise SourceError(f"{path} cannot be read as a workbook: {error}", where=path) from error
    raise SourceError(f"{path} has no sheet {chosen!r}", where=f"its sheets: {', '.join(sheets)}")


def _align(sheet: Iterable[Sequence[Any]]) -> list[list[str]]:
    """Return rows as wide as the last cell that holds anything; those without one are empty."""
    rows: list[list[str]] = []
    n_filled = width = 0
    for cells in sheet:
        row = [_cell_text(cell) for cell in cells]
        while row and not row[-1]:
            row.pop()
        rows.append(row)
        n_filled, width = n_filled + bool(row), max(width, len(row))
        if len(rows) > _MAX_ROWS or n_filled * width > _MAX_CELLS:
            raise ValueError(
                f"cells as far as row {len(rows)} and column {width}; empty those beside the table"
            )
    return [row and row + [""] * (width - len(row)) for row in rows]


def _read_workbook(data: bytes) -> dict[str, Callable[[], Iterable[Sequence[Any]]]]:
    unpacked = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
    most = max(_ALWAYS_WORKBOOK_BYTES, _MAX_WORKBOOK_RATIO * len(data))
    if unpacked > min(most, _MAX_WORKBOOK_BYTES):
        raise ValueError(f"it unpacks to {unpacked >> 20} MiB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, on which no cell depends
        import openpyxl

        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    for cells in book.worksheets:
        cells.reset_dimensions()  # what a sheet says of its size would pad every row to it
    return {cells.title: partial(cells.iter_rows, values_only=True) for cells in book.worksheets}


def _read_old_workbook(data: bytes) -> dict[str, Callable[[], Iterable[Sequence[Any]]]]:
    import xlrd

    book = xlrd.open_workbook(file_contents=data, logfile=io.StringIO(), ragged_rows=True)
    return {cells.name: partial(map, cells.row_values, range(cells.nrows)) for cells in book.sheets()}


def _read_parquet(data: bytes, path: str) -> tuple[list[str], Lines]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise SourceError(f"{path} cannot be read as Parquet: {error}", where=path) from error

    def rows() -> Iterator[list[str]]:
        for batch in table.to_batches(_PARQUET_ROWS):
            columns = [[_cell_text(cell) for cell in column.to_pylist()] for column in batch.columns]
            yield from map(list, zip(*columns, strict=True))

    return table.column_names, Lines(rows)


def _read_json_lines(data: bytes, path: str) -> tuple[list[str], list[list[str]]]:
    text = decode_text(data)
    try:
        listed = path.lower().endswith(".json")
        objects = (
            json.loads(text) if listed else [json.loads(line) for line in text.split("\n") if line.strip()]
        )
        objects = [dict(item) for item in objects]
    except (ValueError, TypeError, RecursionError) as error:
        form = "a list of JSON objects" if listed else "one JSON object per line"
        raise SourceError(f"{path} is not {form}: {error}", where=path) from error
    header = list(dict.fromkeys(name for item in objects for name in item))
    return header, [[_cell_text(item.get(name)) for name in header] for item in objects]


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value).strip()


def _fit(rows: list[list[str]], path: str) -> tuple[list[str], list[list[str]]]:
    if not rows or not any(rows[0]):
        raise SourceError(
            f"{path} has no header", where=path, fix="`skip_rows` says how many rows precede it"
        )
    return rows[0], rows[1:]


def unique_names(header: Sequence[str]) -> list[str]:
    """Return a header in which no name is empty and none is there twice."""
    names: dict[str, None] = {}  # in their order
    count: dict[str, int] = {}
    for place, title in enumerate(header, 1):
        name = title or f"#{place}"
        while name in names:
            count[title] = count.get(title, 1) + 1
            name = f"{title}#{count[title]}"
        names[name] = None
    return list(names)
