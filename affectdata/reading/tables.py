"""Read a rating table of any common format as text cells: delimited, .xlsx, .xls, .parquet, .json, .jsonl.

Out: a header of unique names, and rows of as many cells; missing values are empty cells.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from affectdata.errors import SourceError
from affectdata.reading.delimited import (
    Lines,
    decode_head,
    decode_text,
    find_encoding,
    open_text,
    parse_lines,
    split_lines,
)
from affectdata.reading.json_tables import read_records
from affectdata.reading.tree import Tree
from affectdata.reading.unread import SAVE_TABLE, name_other_file, name_pointer
from affectdata.reading.workbooks import (
    HEAD_ROWS,
    MAX_CELLS,
    MAX_RATIO,
    WORKBOOK_SUFFIXES,
    SheetText,
    cell_text,
    read_sheet,
)
from affectdata.records import count_text

_HEAD_BYTES = 1 << 16
_PARQUET_ROWS = 1 << 12  # as Python objects at a time
_ALWAYS_BYTES = 256 << 20  # of an unpacked Parquet table, allowed whatever the ratio
_MAX_COLUMNS = 1 << 16
_NOT_READ = {".ods", ".sav", ".mat", ".rda", ".rds"}
_TEXTS = {".csv", ".tsv", ".tab", ".txt", ".dat"}
TABLE_SUFFIXES = {*_TEXTS, ".parquet", ".json", ".jsonl", *WORKBOOK_SUFFIXES, *_NOT_READ}
_BLANKS = " "  # as a delimiter: one blank or more
_WIDE = "  "  # two blanks or more, where names of columns have single ones
_DELIMITERS = ("\t", ";", ",", "|", _BLANKS, _WIDE)


def read_head(tree: Tree, path: str) -> str:
    """Read the first line of a text file, without reading the rest.

    Raises:
        SourceError: the file cannot be read.
    """
    return decode_head(tree.read_bytes(path, _HEAD_BYTES)).partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Shape:
    """Where the table is in a file, and how its text is encoded.

    `needed` are columns of the header: it is the first row with all of them, or the row after `skip_rows` if
    no row has them. `names` is the header of a table without one. A blank as `delimiter` is one or more.
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
        if suffix in WORKBOOK_SUFFIXES:
            return _find_header(_read_sheet(tree, path, shape).rows[:HEAD_ROWS], shape.needed) is not None
        text = decode_head(tree.read_bytes(path, _HEAD_BYTES), shape.encoding)
    except SourceError:
        return False
    if suffix in (".json", ".jsonl"):
        return all(f'"{column}"' in text for column in shape.needed)
    return _find_text_header(text.split("\n")[:HEAD_ROWS], shape) is not None


def read_table(tree: Tree, path: str, shape: Shape | None = None) -> tuple[list[str], Lines]:
    """Read one table; cells are stripped text, whole floats without `.0`; empty rows are skipped.

    A repeated column name becomes `M`, `M#2`; a column without a name is called by its position, `#1`. The
    `notes` of the rows are what a user should know about the table.

    Raises:
        SourceError: the content does not match the suffix, the format is not supported, or the table is too
            wide.
    """
    shape = shape or Shape()
    suffix = PurePosixPath(path).suffix.lower()
    data = tree.read_bytes(path)
    if not data:
        raise SourceError(f"{path} is empty", where=path, fix="restore the original file")
    if found := name_pointer(data):
        raise SourceError(f"{path} is {found[0]}", where=path, fix=found[1])
    if suffix in _NOT_READ:
        raise SourceError(f"{suffix} files are not supported", where=path, fix=SAVE_TABLE)
    rows: Iterable[list[str]]
    notes: Sequence[str] = ()
    if suffix in WORKBOOK_SUFFIXES:
        sheet = _read_sheet(tree, path, shape)
        header, rows = _split_header(_from_header(sheet.rows, shape), path)
        notes = [*sheet.notes, *_check_formulas(sheet, header, shape, path)]
    elif suffix == ".parquet":
        header, rows = _read_parquet(data, path)
    elif suffix in (".json", ".jsonl"):
        header, rows = _read_json(data, path, shape.needed)
    else:
        header, rows = _read_text(data, path, shape)
    _check_cells(0, len(header), len(data), path)
    return unique_names(header), Lines(lambda: (row for row in rows if any(row)), notes)


def _read_sheet(tree: Tree, path: str, shape: Shape) -> SheetText:
    def fits(rows: list[list[str]]) -> bool:
        return _find_header(rows, shape.needed) is not None

    return read_sheet(tree.read_bytes(path), path, shape.sheet, fits)


def _check_formulas(sheet: SheetText, header: list[str], shape: Shape, path: str) -> list[str]:
    """Return a note about formulas without a value.

    Raises:
        SourceError: one is in a needed column.
    """
    if not sheet.formulas:
        return []
    shown = ", ".join(sheet.formulas[:3]) + (", …" if len(sheet.formulas) > 3 else "")
    what = f"{count_text(len(sheet.formulas), 'formula')} saved without a value: {shown}"
    columns = {re.sub(r"\d", "", cell) for cell in sheet.formulas}
    names = {name: _letters(index) for index, name in enumerate(unique_names(header))}
    if any(names.get(name) in columns for name in shape.needed):
        raise SourceError(
            f"{path}: {what}",
            where=f"sheet {sheet.name!r}",
            fix="open the workbook in a spreadsheet program, which computes them, and save it again",
        )
    return [what]


def _letters(index: int) -> str:
    """Return the name of a column of a sheet: A, B, …, Z, AA."""
    letters = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def _read_text(data: bytes, path: str, shape: Shape) -> tuple[list[str], Lines]:
    if other := name_other_file(data):
        raise SourceError(f"{path} is not a text table, but {other[0]}", where=path, fix=other[1])
    encoding = find_encoding(data, shape.encoding, path)
    head = [line.rstrip("\n") for line in islice(open_text(data, encoding), HEAD_ROWS)]
    found = _find_text_header(head, shape, whole=bool(shape.names or shape.skip_rows))
    skipped, delimiter = found or (shape.skip_rows, "")
    if not found:
        first = next(islice(open_text(data, encoding), skipped, None), "")
        delimiter = shape.delimiter or _guess_delimiter(first)
    names = [delimiter.join(map(_quote, shape.names)) + "\n"] if not found and shape.names else []

    def lines() -> Iterator[str]:
        return chain(names, islice(open_text(data, encoding), skipped, None))

    if delimiter == _WIDE:
        return parse_lines(lambda: map(_mark_wide, lines()), "\t", path)
    return parse_lines(lines, delimiter, path)


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _mark_wide(line: str) -> str:
    return re.sub(" {2,}", "\t", line.strip(" "))


def _find_text_header(head: Sequence[str], shape: Shape, whole: bool = True) -> tuple[int, str] | None:
    """Return the index of the header and the delimiter with which it has all needed columns.

    Without such a line and not `whole`, that with most of them, which an error can name.
    """
    best, most = None, 0
    for index, line in enumerate(head if shape.needed else ()):
        likely = [shape.delimiter] if shape.delimiter else [_guess_delimiter(line), *_DELIMITERS]
        for delimiter in likely:
            n = len(set(shape.needed).intersection(unique_names(_cells(line, delimiter))))
            if n == len(set(shape.needed)):
                return index, delimiter
            if n > most:
                best, most = (index, delimiter), n
    return None if whole else best


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == _WIDE:
        line, delimiter = _mark_wide(line), "\t"
    try:
        return next(split_lines([line], delimiter), [])
    except csv.Error:  # longer than any cell of a header
        return []


def _find_header(head: Sequence[Sequence[str]], needed: Sequence[str]) -> int | None:
    """Return the index of the first row with all needed columns; None if there is none, or none is needed."""
    rows = (index for index, row in enumerate(head) if needed and set(unique_names(row)).issuperset(needed))
    return next(rows, None)


def _from_header(rows: list[list[str]], shape: Shape) -> list[list[str]]:
    index = _find_header(rows[:HEAD_ROWS], shape.needed)
    if index is None and not shape.names and not shape.skip_rows:  # the row with most of them
        counts = [len(set(shape.needed).intersection(row)) for row in rows[:HEAD_ROWS]]
        index = counts.index(max(counts)) if any(counts) else None
    if index is None and shape.names:
        width = max(map(len, rows), default=0)
        return [list(shape.names) + [""] * (width - len(shape.names)), *rows]
    return rows[shape.skip_rows if index is None else index :]


def _guess_delimiter(line: str) -> str:
    if "\t" in line:
        return "\t"
    if ";" not in line and "," not in line and " " in line.strip():
        return _BLANKS
    return ";" if line.count(";") > line.count(",") else ","


def _read_parquet(data: bytes, path: str) -> tuple[list[str], Lines]:
    with _reading_parquet(path):
        file = pq.ParquetFile(pa.BufferReader(data))
        _check_parquet_size(file.metadata, len(data), path)

    def rows() -> Iterator[list[str]]:
        with _reading_parquet(path):
            for batch in file.iter_batches(_PARQUET_ROWS, use_threads=False):
                columns = [[value_text(cell) for cell in column.to_pylist()] for column in batch.columns]
                yield from map(list, zip(*columns, strict=True))

    return list(file.schema_arrow.names), Lines(rows)


@contextmanager
def _reading_parquet(path: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:  # also an ArrowException
        raise
    except (OSError, pa.ArrowException) as error:
        fix = "restore the original file, or write it as Parquet or CSV again"
        raise SourceError(f"{path} cannot be read as Parquet: {error}", where=path, fix=fix) from error


def _check_parquet_size(metadata: pq.FileMetaData, n_bytes: int, path: str) -> None:
    """Refuse a table that a small file expands to, as workbooks are refused.

    Raises:
        SourceError: with the number of rows and columns.
    """
    unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    _check_cells(metadata.num_rows, metadata.num_columns, n_bytes, path, unpacked)


def _check_cells(n_rows: int, n_columns: int, n_bytes: int, path: str, unpacked: int = 0) -> None:
    """Do so for any table.

    Raises:
        SourceError: with the number of rows and columns.
    """
    if n_columns > _MAX_COLUMNS:
        raise SourceError(
            f"{path} has {n_columns} columns; the limit is {_MAX_COLUMNS}",
            where=path,
            fix="leave out the columns that are not needed, or restore the original table",
        )
    is_large = n_rows * n_columns > max(MAX_CELLS, MAX_RATIO * n_bytes)
    if is_large or unpacked > max(_ALWAYS_BYTES, MAX_RATIO * n_bytes):
        raise SourceError(
            f"{path} has {n_rows} rows of {n_columns} columns in {n_bytes} bytes",
            where=path,
            fix="restore the original table; repeated rows may be left out",
        )


def _read_json(data: bytes, path: str, needed: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    records = read_records(decode_text(data, path), path, needed)
    header = list(dict.fromkeys(name for record in records for name in record))
    _check_cells(len(records), len(header), len(data), path)
    return header, [[value_text(record.get(name)) for name in header] for record in records]


def value_text(value: Any) -> str:
    """Return a value of a typed table or of JSON as text; lists and objects as JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return cell_text(value)


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
