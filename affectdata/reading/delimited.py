"""Delimited text as it comes: any line end, BOM or not, UTF-8 or cp1252, duplicate and empty header names."""

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
    """Decode UTF-8 (with or without BOM), else cp1252; make every line end LF."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Lines(Iterable[list[str]]):
    """The rows of a table, read anew whenever they are asked for: none are held."""

    def __init__(self, read: Callable[[], Iterable[list[str]]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self._read())


def open_text(data: bytes, encoding: str | None = None) -> Iterator[str]:
    """Yield the lines of a text, as `decode_text` would have them."""
    if encoding is None:
        encoding = "utf-8-sig" if _is_utf8(data) else "cp1252"
    with io.TextIOWrapper(io.BytesIO(data), encoding, "replace") as lines:
        for number, line in enumerate(lines):
            yield line if number else line.removeprefix("\ufeff")


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data) + 1, _BLOCK):  # the last one is empty if it is no part of a block
            decoder.decode(data[start : start + _BLOCK], final=start + _BLOCK > len(data))
    except UnicodeDecodeError:
        return False
    return True


def parse_delimited(data: bytes, delimiter: str, name: str) -> tuple[list[str], Lines]:
    """Return the header and the rows, cells stripped; rows of empty cells only are left out.

    Rows that are short are filled with empty cells.

    Raises:
        SourceError: no header, or (as the rows are read) one with more cells than the header.
    """
    return parse_lines(lambda: open_text(data), delimiter, name)


def parse_lines(lines: Callable[[], Iterable[str]], delimiter: str, name: str) -> tuple[list[str], Lines]:
    """Parse as `parse_delimited` does what `lines` yields, each time that it is called."""
    header = next(_cells(lines(), delimiter, name), [])
    if not any(header):
        what = "has no header" if any(line.strip() for line in lines()) else "is empty"
        raise SourceError(f"{name} {what}", where=f"{name}, line 1", fix="restore it as it was shipped")
    return header, Lines(lambda: _fit(_cells(lines(), delimiter, name), len(header), name))


def _cells(lines: Iterable[str], delimiter: str, name: str) -> Iterator[list[str]]:
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise SourceError(f"{name} is no delimited text: {error}", where=name) from error


def _fit(rows: Iterator[list[str]], width: int, name: str) -> Iterator[list[str]]:
    """Yield the rows after the first, as wide as that."""
    for number, row in enumerate(islice(rows, 1, None), 2):
        if len(row) > width and any(row[width:]):
            raise SourceError(
                f"{name} has a row of {len(row)} cells under a header of {width}",
                where=f"{name}, line {number}",
            )
        if any(row):
            yield row[:width] + [""] * (width - len(row))


def require_columns(
    header: list[str],
    columns: list[str],
    name: str,
    fix: str = "restore the table as its owner ships it, or describe yours in a column map (--source table)",
) -> None:
    """Check that a table has the columns that it is read for.

    Raises:
        SourceError: naming what is missing and what is there.
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
        ValueError: it is none.
    """
    if "_" in cell:  # Python alone reads 3_5 as 35
        raise ValueError(f"could not convert {cell!r} to a number")
    value = float(cell.removeprefix("(").removesuffix(")"))
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not a finite number")
    return value


def parse_count(cell: str, most: int = 2**31 - 1) -> int:
    """Read a whole number from 0 to `most`, also written as `101.0`.

    Raises:
        ValueError: it is none.
    """
    value = parse_number(cell)
    if not (value.is_integer() and 0 <= value <= most):
        raise ValueError(f"{cell!r} is not a whole number from 0 to {most}")
    return int(value)


def parse_spread(cell: str) -> float:
    """Read a standard deviation: a finite number from 0 up.

    Raises:
        ValueError: it is none.
    """
    value = parse_number(cell)
    if value < 0:
        raise ValueError(f"{cell!r} is negative, so no standard deviation")
    return value


def parse_share(cell: str, percent: bool = False) -> float:
    """Read a share of raters; `13 %`, and with `percent` a bare `13` too, is 0.13.

    Raises:
        ValueError: no number, or outside 0–1.
    """
    number = cell.removesuffix("%").rstrip()
    share = parse_number(number)
    if percent or number != cell:
        share = round(share / 100, 9)
    if not 0 <= share <= 1:
        raise ValueError(f"{cell!r} is no share from 0 to 1 (for percentages: `percent: true`)")
    return share
