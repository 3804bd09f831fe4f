"""Delimited text as it comes: any line end, BOM or not, UTF-8 or cp1252, duplicate and empty header names."""

from __future__ import annotations

import csv
import io
import math

from affectdata.errors import SourceError


def decode_text(data: bytes) -> str:
    """Decode UTF-8 (with or without BOM), else cp1252; make every line end LF."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_delimited(data: bytes, delimiter: str, name: str) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows, cells stripped; rows of empty cells only are left out.

    Rows that are short are filled with empty cells.

    Raises:
        SourceError: no header, or a row with more cells than the header.
    """
    try:
        lines = csv.reader(io.StringIO(decode_text(data), newline=""), delimiter=delimiter)
        table = [[cell.strip() for cell in row] for row in lines]
    except csv.Error as error:
        raise SourceError(f"{name} is no delimited text: {error}", where=name) from error
    if not table or not any(table[0]):
        what = "has no header" if data.strip() else "is empty"
        raise SourceError(f"{name} {what}", where=f"{name}, line 1", fix="restore it as it was shipped")
    header, width = table[0], len(table[0])
    rows = []
    for number, row in enumerate(table[1:], 2):
        if len(row) > width and any(row[width:]):
            raise SourceError(
                f"{name} has a row of {len(row)} cells under a header of {width}",
                where=f"{name}, line {number}",
            )
        if any(row):
            rows.append(row[:width] + [""] * (width - len(row)))
    return header, rows


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
