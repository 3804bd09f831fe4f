"""Read delimited text: any line end, with or without BOM, UTF-8 or cp1252; and parse numbers in cells."""

from __future__ import annotations

import codecs
import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from affectdata.errors import SourceError

_BLOCK = 1 << 20  # bytes decoded at once


def decode_text(data: bytes) -> str:
    """Decode UTF-8 (with or without BOM), else cp1252; normalise line ends to LF."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Lines(Iterable[list[str]]):
    """The rows of a table, read again on every iteration, so that none are kept in memory."""

    def __init__(self, read: Callable[[], Iterable[list[str]]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self._read())


def open_text(data: bytes, encoding: str | None = None) -> Iterator[str]:
    """Yield the lines of a text, decoded and normalised like `decode_text`."""
    if encoding is None:
        encoding = "utf-8-sig" if _is_utf8(data) else "cp1252"
    with io.TextIOWrapper(io.BytesIO(data), encoding, "replace") as lines:
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix("\ufeff")


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data) + 1, _BLOCK):  # the last may be empty: `final` must be set once
            decoder.decode(data[start : start + _BLOCK], final=start + _BLOCK > len(data))
    except UnicodeDecodeError:
        return False
    return True


def parse_delimited(data: bytes, delimiter: str, name: str) -> tuple[list[str], Lines]:
    """Return the header and the rows, with stripped cells; rows of empty cells only are skipped.

    Short rows are padded with empty cells.

    Raises:
        SourceError: no header, or (while the rows are read) a row with more cells than the header.
    """
    return parse_lines(lambda: open_text(data), delimiter, name)


def parse_lines(lines: Callable[[], Iterable[str]], delimiter: str, name: str) -> tuple[list[str], Lines]:
    """Do the same for lines; `lines` is called for the header and for every iteration over the rows."""
    header = next(_iter_cells(lines(), delimiter, name), [])
    if not any(header):
        what = "has no header" if any(line.strip() for line in lines()) else "is empty"
        raise SourceError(f"{name} {what}", where=f"{name}, line 1", fix="restore the original file")
    return header, Lines(lambda: _iter_rows(_iter_cells(lines(), delimiter, name), len(header), name))


def _iter_cells(lines: Iterable[str], delimiter: str, name: str) -> Iterator[list[str]]:
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise SourceError(f"{name} cannot be read as delimited text: {error}", where=name) from error


def _iter_rows(rows: Iterator[list[str]], width: int, name: str) -> Iterator[list[str]]:
    """Yield the rows after the header, padded to `width` cells."""
    for number, row in enumerate(islice(rows, 1, None), 2):
        if len(row) > width and any(row[width:]):
            raise SourceError(
                f"{name} has a row of {len(row)} cells, but its header has {width}",
                where=f"{name}, line {number}",
            )
        if any(row):
            yield row[:width] + [""] * (width - len(row))


def require_columns(
    header: list[str],
    columns: list[str],
    name: str,
    fix: str = "restore the original table, or describe yours in a column map (--source table)",
) -> None:
    """Check that a table has the columns that are needed.

    Raises:
        SourceError: with the missing columns and the header.
    """
    missing = [column for column in columns if column not in header]
    if missing:
        raise SourceError(
            f"{name} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}",
            where=f"{name}, line 1: {', '.join(map(repr, header))}",
            fix=fix,
        )


def parse_number(cell: str) -> float:
    """Read a finite number, also `(5.43)` in parentheses.

    Raises:
        ValueError: the cell is not one.
    """
    if "_" in cell:  # Python would read 3_5 as 35
        raise ValueError(f"could not convert {cell!r} to a number")
    value = float(cell.removeprefix("(").removesuffix(")"))
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not a finite number")
    return value


def parse_count(cell: str, largest: int = 2**31 - 1) -> int:
    """Read a whole number from 0 to `largest`, also written as `101.0`.

    Raises:
        ValueError: the cell is not one.
    """
    value = parse_number(cell)
    if not (value.is_integer() and 0 <= value <= largest):
        raise ValueError(f"{cell!r} is not a whole number from 0 to {largest}")
    return int(value)


def parse_spread(cell: str) -> float:
    """Read a standard deviation: a finite number >= 0.

    Raises:
        ValueError: the cell is not one.
    """
    value = parse_number(cell)
    if value < 0:
        raise ValueError(f"{cell!r} is negative: a standard deviation is >= 0")
    return value


def parse_share(cell: str, percent: bool = False) -> float:
    """Read a share of raters: `13 %` is 0.13, and so is `13` with `percent`.

    Raises:
        ValueError: not a number, or outside 0–1.
    """
    number = cell.removesuffix("%").rstrip()
    share = parse_number(number)
    if percent or number != cell:
        share = round(share / 100, 9)
    if not 0 <= share <= 1:
        raise ValueError(f"{cell!r} is not a share from 0 to 1 (for percentages: `percent: true`)")
    return share
