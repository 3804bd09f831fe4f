"""A rating table in any common container as text cells: delimited text, .xlsx, .parquet, .jsonl.

Out: a header of unique names and rows of as many cells; what is missing is an empty cell.
"""

from __future__ import annotations

import io
import json
import math
import warnings
import zipfile
from pathlib import PurePosixPath
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from affectdata.errors import SourceError
from affectdata.sources._delimited import decode_text, parse_delimited
from affectdata.tree import Tree

_HEAD_BYTES = 1 << 16
_MAX_WORKBOOK_BYTES = 1 << 29  # unpacked; a small file can unpack to any size
_NOT_READ = {".xls", ".ods", ".sav", ".mat", ".rda", ".rds"}
TABLE_SUFFIXES = {".csv", ".tsv", ".tab", ".txt", ".dat", ".xlsx", ".xlsm", ".parquet", ".jsonl", *_NOT_READ}


def read_head(tree: Tree, path: str) -> str:
    """Read the first line of a text file, without reading the rest.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with (tree.root / path).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", where=str(tree.root / path)) from error
    return decode_text(head).partition("\n")[0]


def read_table(
    tree: Tree,
    path: str,
    *,
    sheet: str | None = None,
    skip_rows: int = 0,
    encoding: str | None = None,
    delimiter: str | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Read one table; cells are stripped text, whole floats without `.0`, empty rows left out.

    A name that is there twice becomes `M`, `M#2`; a column without one is called by its place, `#1`.

    Raises:
        SourceError: the file is not what its suffix says, or of a kind that is not read.
    """
    data, suffix = tree.read_bytes(path), PurePosixPath(path).suffix.lower()
    if suffix in _NOT_READ:
        raise SourceError(
            f"{suffix} files are not read", where=path, fix="save the table as .xlsx, .csv or .parquet"
        )
    if suffix in (".xlsx", ".xlsm"):
        header, rows = _fit(_read_workbook(data, path, sheet)[skip_rows:], path)
    elif suffix == ".parquet":
        header, rows = _read_parquet(data, path)
    elif suffix == ".jsonl":
        header, rows = _read_json_lines(data, path)
    else:
        text = _decode(data, encoding, path).split("\n", skip_rows)[-1]
        header, rows = parse_delimited(text.encode(), delimiter or _guess_delimiter(text), path)
    return _unique_names(header), [row for row in rows if any(row)]


def _decode(data: bytes, encoding: str | None, path: str) -> str:
    if encoding is None:
        return decode_text(data)
    try:
        return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    except UnicodeError as error:
        raise SourceError(
            f"{path} is not {encoding}: {error}", where=path, fix="correct `encoding`"
        ) from error


def _guess_delimiter(text: str) -> str:
    head = text.partition("\n")[0]
    if "\t" in head:
        return "\t"
    return ";" if head.count(";") > head.count(",") else ","


def _read_workbook(data: bytes, path: str, sheet: str | None) -> list[list[str]]:
    try:
        unpacked = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
        if unpacked > _MAX_WORKBOOK_BYTES:
            raise ValueError(f"it unpacks to {unpacked >> 20} MiB")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validations, on which no cell depends
            book = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise SourceError(f"{path} cannot be read as a workbook: {error}", where=path) from error
    sheets = {cells.title: cells for cells in book.worksheets}
    chosen = next(iter(sheets), "") if sheet is None else sheet
    if chosen not in sheets:
        raise SourceError(f"{path} has no sheet {chosen!r}", where=f"its sheets: {', '.join(sheets)}")
    return [[_cell_text(cell) for cell in row] for row in sheets[chosen].iter_rows(values_only=True)]


def _read_parquet(data: bytes, path: str) -> tuple[list[str], list[list[str]]]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise SourceError(f"{path} cannot be read as Parquet: {error}", where=path) from error
    columns = [[_cell_text(cell) for cell in column.to_pylist()] for column in table.columns]
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]


def _read_json_lines(data: bytes, path: str) -> tuple[list[str], list[list[str]]]:
    lines = [line for line in decode_text(data).split("\n") if line.strip()]
    try:
        objects = [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(f"{path} is not one JSON object per line: {error}", where=path) from error
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


def _unique_names(header: list[str]) -> list[str]:
    names: list[str] = []
    for place, title in enumerate(header, 1):
        name, count = title or f"#{place}", 1
        while name in names:
            count += 1
            name = f"{title}#{count}"
        names.append(name)
    return names
