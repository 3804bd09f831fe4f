"""Read a rating table of any common format as text cells: delimited, .xlsx, .xls, .parquet, .json, .jsonl.

Out: a header of unique names, and rows of as many cells; missing values are empty cells.
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
from affectdata.reading.json_tables import read_records
from affectdata.reading.tree import Tree

_HEAD_BYTES = 1 << 16
_PARQUET_ROWS = 1 << 12  # as Python objects at a time
_HEAD_ROWS = 40  # the header is searched in these
_MAX_WORKBOOK_BYTES = 1 << 29  # unpacked
_MAX_WORKBOOK_RATIO = 100  # unpacked to packed bytes; sheets shrink to a tenth
_ALWAYS_WORKBOOK_BYTES = 1 << 24  # unpacked, allowed whatever the ratio
_MAX_ROWS = 1 << 20  # of a sheet in Excel
_MAX_CELLS = 1 << 24  # rows that are not empty, times the width of the widest
_BOOKS = {".xlsx", ".xlsm", ".xls"}
_NOT_READ = {".ods", ".sav", ".mat", ".rda", ".rds"}
TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".dat", ".parquet", ".json", ".jsonl", *_BOOKS, *_NOT_READ}


def read_head(tree: Tree, path: str) -> str:
    """Read the first line of a text file, without reading the rest.

    Raises:
        SourceError: the file cannot be read.
    """
    return decode_text(tree.read_bytes(path, _HEAD_BYTES)).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the table is in a file, and how its text is encoded.

    `needed` are columns of the header: it is the first row with all of them, or the row after `skip_rows` if
    no row has them. `names` is the header of a table without one.
    """

    sheet: str | None = None
    skip_rows: int = 0
    encoding: str | None = None
    delimiter: str | None = None
    needed: Sequence[str] = ()
    names: Sequence[str] = ()


def has_columns(tree: Tree, path: str, shape: Shape) -> bool:
    """Return whether a table has a header with the needed columns; of a text file only the start is read."""
    suffix = PurePosixPath(path).suffix.lower()
    try:
        if suffix in _BOOKS:
            head = _read_rows(tree.read_bytes(path), path, shape.sheet, _HEAD_ROWS)
        else:
            data = tree.read_bytes(path, _HEAD_BYTES)
            decoder = codecs.getincrementaldecoder(shape.encoding or "utf-8")(
                "replace"
            )  # may end mid-character
            head = [_cells(line, shape.delimiter) for line in decoder.decode(data).splitlines()[:_HEAD_ROWS]]
    except SourceError:
        return False
    return _find_header(head, shape.needed) is not None


def read_table(tree: Tree, path: str, shape: Shape | None = None) -> tuple[list[str], Lines]:
    """Read one table; cells are stripped text, whole floats without `.0`; empty rows are skipped.

    A repeated column name becomes `M`, `M#2`; a column without a name is called by its position, `#1`.

    Raises:
        SourceError: the content does not match the suffix, or the format is not supported.
    """
    shape = shape or Shape()
    data, suffix = tree.read_bytes(path), PurePosixPath(path).suffix.lower()
    if not data:
        raise SourceError(f"{path} is empty", where=path, fix="restore the original file")
    if suffix in _NOT_READ:
        raise SourceError(
            f"{suffix} files are not supported", where=path, fix="save the table as .xlsx, .csv or .parquet"
        )
    rows: Iterable[list[str]]
    if suffix in _BOOKS:
        header, rows = _split_header(_from_header(_read_rows(data, path, shape.sheet), shape), path)
    elif suffix == ".parquet":
        header, rows = _read_parquet(data, path)
    elif suffix in (".json", ".jsonl"):
        header, rows = _read_json(data, path, shape.needed)
    else:
        header, rows = _read_text(data, path, shape)
    return unique_names(header), Lines(lambda: (row for row in rows if any(row)))


def _read_text(data: bytes, path: str, shape: Shape) -> tuple[list[str], Lines]:
    _check_encoding(data, shape.encoding, path)

    def lines() -> Iterator[str]:
        return open_text(data, shape.encoding)

    head = [line.rstrip("\n") for line in islice(lines(), _HEAD_ROWS)]
    index = _find_header([_cells(line, shape.delimiter) for line in head], shape.needed)
    skipped = shape.skip_rows if index is None else index
    delimiter = shape.delimiter or _guess_delimiter(next(islice(lines(), skipped, None), ""))
    names = [delimiter.join(shape.names) + "\n"] if index is None and shape.names else []
    return parse_lines(lambda: chain(names, islice(lines(), skipped, None)), delimiter, path)


def _cells(line: str, delimiter: str | None) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=delimiter or _guess_delimiter(line)), [])
    except csv.Error:  # longer than any cell of a header
        return []
    return [cell.strip() for cell in row]


def _find_header(head: Sequence[Sequence[str]], needed: Sequence[str]) -> int | None:
    """Return the index of the first row with all needed columns; None if there is none, or none is needed."""
    rows = (index for index, row in enumerate(head) if needed and set(unique_names(row)).issuperset(needed))
    return next(rows, None)


def _from_header(rows: list[list[str]], shape: Shape) -> list[list[str]]:
    index = _find_header(rows[:_HEAD_ROWS], shape.needed)
    if index is None and shape.names:
        width = max(map(len, rows), default=0)
        return [list(shape.names) + [""] * (width - len(shape.names)), *rows]
    return rows[shape.skip_rows if index is None else index :]


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


def _read_rows(data: bytes, path: str, sheet: str | None, n_rows: int | None = None) -> list[list[str]]:
    """Read the cells of one sheet of a workbook as text; of its first `n_rows` rows, if given."""
    try:
        is_old = PurePosixPath(path).suffix.lower() == ".xls"
        sheets = _read_old_workbook(data) if is_old else _read_workbook(data)
        chosen = next(iter(sheets), "") if sheet is None else sheet
        if chosen in sheets:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about dates and extensions
                return _align(islice(sheets[chosen](), n_rows))
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise SourceError(f"{path} cannot be read as a workbook: {error}", where=path) from error
    raise SourceError(f"{path} has no sheet {chosen!r}", where=f"its sheets: {', '.join(sheets)}")


def _align(sheet: Iterable[Sequence[Any]]) -> list[list[str]]:
    """Return rows padded to the last column with content; rows without content are empty."""
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
                f"it has cells up to row {len(rows)}, column {width}; delete those outside the table"
            )
    return [row and row + [""] * (width - len(row)) for row in rows]


def _read_workbook(data: bytes) -> dict[str, Callable[[], Iterable[Sequence[Any]]]]:
    unpacked = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
    limit = max(_ALWAYS_WORKBOOK_BYTES, _MAX_WORKBOOK_RATIO * len(data))
    if unpacked > min(limit, _MAX_WORKBOOK_BYTES):
        raise ValueError(f"it unpacks to {unpacked >> 20} MiB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, which no cell depends on
        import openpyxl

        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    for cells in book.worksheets:
        cells.reset_dimensions()  # the declared size of a sheet would pad every row to it
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


def _read_json(data: bytes, path: str, needed: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    records = read_records(decode_text(data), path, needed)
    header = list(dict.fromkeys(name for record in records for name in record))
    return header, [[_cell_text(record.get(name)) for name in header] for record in records]


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


def _split_header(rows: list[list[str]], path: str) -> tuple[list[str], list[list[str]]]:
    if not rows or not any(rows[0]):
        raise SourceError(
            f"{path} has no header", where=path, fix="set `skip_rows` to the number of rows above it"
        )
    return rows[0], rows[1:]


def unique_names(header: Sequence[str]) -> list[str]:
    """Return a header without empty or repeated names."""
    names: dict[str, None] = {}  # an ordered set
    count: dict[str, int] = {}
    for position, title in enumerate(header, 1):
        name = title or f"#{position}"
        while name in names:
            count[title] = count.get(title, 1) + 1
            name = f"{title}#{count[title]}"
        names[name] = None
    return list(names)
