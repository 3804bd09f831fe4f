"""Read sheets of .xlsx and .xls workbooks as text cells.

A merged cell holds for all of its rows. Formulas that were saved without a value are listed, not guessed.
"""

from __future__ import annotations

import io
import math
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from affectdata.errors import SourceError
from affectdata.reading.delimited import clean_cell

WORKBOOK_SUFFIXES = {".xlsx", ".xlsm", ".xls"}
HEAD_ROWS = 40  # the header is searched in these
_MAX_BYTES = 1 << 29  # unpacked
MAX_RATIO = 100  # unpacked to packed bytes; sheets shrink to a tenth
_ALWAYS_BYTES = 1 << 24  # unpacked, allowed whatever the ratio
_MAX_SHEETS, _MAX_FOUND = 1000, 1 << 16
_MAX_ROWS = 1 << 20  # of a sheet in Excel
MAX_CELLS = 1 << 24  # rows that are not empty, times the width of the widest
_BLOCK = 1 << 20  # bytes of a sheet searched at a time
_LONGEST = 1 << 14  # bytes of one element that is searched for: formulas have up to 8,192 characters
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]{1,3}\d+:[A-Z]{1,3}\d+)"')
_NO_VALUE = re.compile(
    rb'<(?:\w+:)?c\s[^>]*?r="([A-Z]{1,3}\d+)"[^>]*>\s*<(?:\w+:)?f(?:\s[^>]*)?(?:/>|>[^<]*</(?:\w+:)?f>)'
    rb"\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)

Range: TypeAlias = tuple[int, int, int, int]  # first row, end, first column, end; from 0


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A sheet before it is read: its rows, merged ranges, and formulas without a value."""

    rows: Callable[[], Iterable[Sequence[Any]]]
    merged: Callable[[], list[Range]]
    formulas: Callable[[], list[str]] = list


@dataclass(frozen=True, slots=True)
class SheetText:
    """A sheet as text: rows of equal width (empty ones are empty lists), and what a user should know.

    `formulas` are the cells, such as `B2`, whose formula was saved without a value.
    """

    name: str
    rows: list[list[str]]
    formulas: list[str]
    notes: list[str]


def read_sheet(
    data: bytes, path: str, sheet: str | None, fits: Callable[[list[list[str]]], bool] | None = None
) -> SheetText:
    """Read one sheet of a workbook: `sheet`, else the first whose first rows fit, else the first.

    Raises:
        SourceError: the workbook cannot be read, or has no such sheet.
    """
    try:
        is_old = PurePosixPath(path).suffix.lower() == ".xls"
        sheets = _open_old(data) if is_old else _open(data)
        fitting = [name for name in sheets if fits and fits(read_head_rows(sheets[name]))]
        name = (fitting or [*sheets, ""])[0] if sheet is None else sheet
        if name in sheets:
            return _read(name, sheets, fitting, is_chosen=sheet is not None)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise SourceError(
            f"{path} cannot be read as a workbook: {error}",
            where=path,
            fix="open it in a spreadsheet program, and save it as .xlsx or .csv",
        ) from error
    raise SourceError(
        f"{path} has no sheet {name!r}",
        where=f"its sheets: {', '.join(sheets)}",
        fix=f"`sheet: {fitting[0]}` has the columns" if fitting else "",
    )


def read_head_rows(sheet: _Sheet) -> list[list[str]]:
    """Return the first rows of a sheet, with merged cells filled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about dates and extensions
        rows = _align(islice(sheet.rows(), HEAD_ROWS))
    _fill_merged(rows, sheet.merged())
    return rows


def _read(name: str, sheets: dict[str, _Sheet], fitting: list[str], is_chosen: bool) -> SheetText:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = _align(sheets[name].rows())
    notes = []
    filled = _fill_merged(rows, sheets[name].merged())
    if filled:
        notes.append(f"{len(filled)} merged cells hold for all of their rows: {_some(filled)}")
    if not is_chosen and len(fitting) > 1:
        notes.append(f"the sheet {name!r} is read; others with these columns: {', '.join(fitting[1:])}")
    elif not is_chosen and fitting and name != next(iter(sheets)):
        notes.append(f"the sheet {name!r} is read, the first with these columns")
    elif is_chosen and fitting and name not in fitting:
        notes.append(f"the columns are in the sheet {fitting[0]!r}: `sheet: {fitting[0]}`")
    return SheetText(name, rows, sheets[name].formulas(), notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _align(sheet: Iterable[Sequence[Any]]) -> list[list[str]]:
    """Return rows padded to the last column with content; rows without content are empty."""
    rows: list[list[str]] = []
    n_filled = width = 0
    for cells in sheet:
        row = [cell_text(cell) for cell in cells]
        while row and not row[-1]:
            row.pop()
        rows.append(row)
        n_filled, width = n_filled + bool(row), max(width, len(row))
        if len(rows) > _MAX_ROWS or n_filled * width > MAX_CELLS:
            raise ValueError(
                f"it has cells up to row {len(rows)}, column {width}; delete those outside the table"
            )
    return [row and row + [""] * (width - len(row)) for row in rows]


def cell_text(value: Any) -> str:
    """Return a typed value as text: whole numbers without `.0`, missing values as the empty string."""
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    return clean_cell(str(value))


def _fill_merged(rows: list[list[str]], ranges: list[Range]) -> list[str]:
    """Write the value of each merged cell into all of its rows that have content; return those filled.

    Cells merged within one row are left: titles and groups of columns above a header.
    """
    filled, n_cells = [], 0
    for top, bottom, left, right in ranges:
        if bottom - top < 2 or top >= len(rows) or left >= len(rows[top]) or not rows[top][left]:
            continue
        value, bottom = rows[top][left], min(bottom, len(rows))
        right = min(right, len(rows[top]))
        n_cells += (bottom - top) * (right - left)
        if n_cells > MAX_CELLS:
            raise ValueError(f"its merged cells cover more than {MAX_CELLS} cells")
        for row in filter(None, rows[top:bottom]):
            row[left:right] = [value] * (right - left)
        filled.append(value)
    return filled


def _open(data: bytes) -> dict[str, _Sheet]:
    unpacked = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(data)).infolist())
    if unpacked > min(max(_ALWAYS_BYTES, MAX_RATIO * len(data)), _MAX_BYTES):
        raise ValueError(f"it unpacks to {unpacked >> 20} MiB")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, which no cell depends on
        import openpyxl

        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    if len(book.worksheets) > _MAX_SHEETS:
        raise ValueError(f"it has {len(book.worksheets)} sheets; the limit is {_MAX_SHEETS}")
    for cells in book.worksheets:
        cells.reset_dimensions()  # the declared size of a sheet would pad every row to it
    return {
        cells.title: _Sheet(
            partial(cells.iter_rows, values_only=True),
            partial(_merged_ranges, data, cells._worksheet_path),  # a read-only sheet does not list them
            partial(_search, data, cells._worksheet_path, _NO_VALUE),
        )
        for cells in book.worksheets
    }


def _merged_ranges(data: bytes, part: str) -> list[Range]:
    from openpyxl.utils import range_boundaries

    bounds = map(range_boundaries, _search(data, part, _MERGED))
    return sorted((top - 1, bottom, left - 1, right) for left, top, right, bottom in bounds)


def _search(data: bytes, part: str, pattern: re.Pattern[bytes]) -> list[str]:
    """Return the first group of every match in a part of an .xlsx file, read in blocks."""
    found: dict[str, None] = {}
    with zipfile.ZipFile(io.BytesIO(data)).open(part) as sheet:
        text = b""
        while block := sheet.read(_BLOCK):
            text = text[-_LONGEST:] + block
            found |= dict.fromkeys(match[1].decode() for match in pattern.finditer(text))
            if len(found) > _MAX_FOUND:
                raise ValueError(f"it has more than {_MAX_FOUND} merged cells or formulas without a value")
    return list(found)


def _open_old(data: bytes) -> dict[str, _Sheet]:
    import xlrd

    def rows(cells: Any) -> Iterator[list[Any]]:
        for index in range(cells.nrows):
            yield [_old_value(cell, book.datemode) for cell in cells.row(index)]

    # Without `formatting_info` merged cells are not listed.
    book = xlrd.open_workbook(
        file_contents=data, logfile=io.StringIO(), ragged_rows=True, formatting_info=True
    )
    return {
        cells.name: _Sheet(partial(rows, cells), partial(list, cells.merged_cells)) for cells in book.sheets()
    }


def _old_value(cell: Any, datemode: int) -> Any:
    """Return the value of a cell; xlrd gives errors and dates as numbers."""
    import xlrd

    if cell.ctype == xlrd.XL_CELL_ERROR:
        return xlrd.error_text_from_code.get(cell.value, "#ERROR!")
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            return xlrd.xldate_as_datetime(cell.value, datemode)
        except (ValueError, OverflowError):
            return cell.value
    return cell.value
