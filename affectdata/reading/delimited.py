"""Read delimited text of any line end and usual encoding; and parse numbers in cells."""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from affectdata.errors import SourceError
from affectdata.registry import suggest

_BLOCK = 1 << 20  # bytes decoded at once
_MAX_PADDED = 1 << 26  # cells that short rows of a table lack
_SHOWN = 80  # characters of a line in an error
_TRUTH = {"true": 1.0, "false": 0.0}
_BLANKS = " \u00a0\u2009\u202f"  # between groups of three digits
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
}  # before those of UTF-16, the beginning
_BOMS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Zero-width characters and marks of direction, which copying from web pages and documents leaves in cells.
_INVISIBLE = dict.fromkeys(
    [0xAD, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), 0xFEFF]
)


def find_encoding(data: bytes, encoding: str | None = None, name: str = "the text") -> str:
    """Return the encoding of a text: as given, by its byte-order mark, UTF-8, or else cp1252.

    Raises:
        SourceError: the text is not in the encoding given, or is UTF-16 without a byte-order mark.
    """
    if encoding is not None:
        try:
            data.decode(encoding)
        except UnicodeError as error:
            fix = "correct `encoding`"
            raise SourceError(f"{name} is not {encoding}: {error}", where=name, fix=fix) from error
        return encoding
    head = data[:_BLOCK]
    if not _by_mark(data) and head.count(0) * 4 > len(head):
        likely = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        raise SourceError(
            f"{name} looks like UTF-16 without a byte-order mark: it is full of zero bytes",
            where=name,
            fix=f"save it as UTF-8, or state its encoding in the column map: `encoding: {likely}`",
        )
    return _guess_encoding(data)


def _by_mark(data: bytes) -> str | None:
    return next((encoding for mark, encoding in _BOMS.items() if data.startswith(mark)), None)


def _guess_encoding(data: bytes) -> str:
    return _by_mark(data) or ("utf-8-sig" if _is_utf8(data) else "cp1252")


def decode_text(data: bytes, name: str = "the text") -> str:
    """Decode a text; normalise line ends to LF.

    Raises:
        SourceError: as for `find_encoding`.
    """
    return _normalise(data.decode(find_encoding(data, None, name), "replace"))


def decode_head(data: bytes, encoding: str | None = None) -> str:
    """Decode the beginning of a file, text or not; it may end within a line, so the last one is left out."""
    head = data[: max(data.rfind(b"\n"), data.rfind(b"\r")) + 1] or data
    return _normalise(head.decode(encoding or _guess_encoding(head), "replace"))


def _normalise(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def clean_cell(text: str) -> str:
    """Return a cell without surrounding blanks and without zero-width characters."""
    return text.strip() if text.isascii() else text.translate(_INVISIBLE).strip()


class Lines(Iterable[list[str]]):
    """The rows of a table, read again on every iteration, so that none are kept in memory.

    `notes` are what a user should know about the table.
    """

    def __init__(self, read: Callable[[], Iterable[list[str]]], notes: Sequence[str] = ()) -> None:
        self._read = read
        self.notes = tuple(notes)

    def __iter__(self) -> Iterator[list[str]]:
        return iter(self._read())


def open_text(data: bytes, encoding: str | None = None) -> Iterator[str]:
    """Yield the lines of a text, decoded and normalised like `decode_text`.

    Raises:
        SourceError: as for `find_encoding`.
    """
    with io.TextIOWrapper(io.BytesIO(data), encoding or find_encoding(data), "replace") as lines:
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
    return header, Lines(lambda: _iter_rows(lines(), delimiter, len(header), name))


def split_lines(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of every line; a blank as `delimiter` is one or more.

    Raises:
        csv.Error: a cell is longer than the limit of `csv`, or a quotation mark is not closed.
    """
    blanks, n_quotes = delimiter == " ", 0

    def trimmed() -> Iterator[str]:
        nonlocal n_quotes
        for line in lines:
            n_quotes += line.count('"')
            yield line.strip() if blanks else line

    reader = csv.reader(trimmed(), delimiter=delimiter, skipinitialspace=blanks)
    row: list[str] = []
    begin = end = (0, 0)  # lines and quotation marks before the row, and with it
    for row in reader:
        begin, end = end, (reader.line_num, n_quotes)
        yield [clean_cell(cell) for cell in row]
    if end[0] - begin[0] > 1 and (end[1] - begin[1]) % 2:
        beginning = delimiter.join(row)[:_SHOWN].split("\n")[0]
        raise csv.Error(f"a quotation mark is not closed in the row that begins with {beginning!r}")


def _iter_cells(lines: Iterable[str], delimiter: str, name: str) -> Iterator[list[str]]:
    try:
        yield from split_lines(lines, delimiter)
    except csv.Error as error:
        raise SourceError(
            f"{name} cannot be read as delimited text: {error}",
            where=name,
            fix="look for a quotation mark that is not closed; inside of a cell it is written twice",
        ) from error


def _iter_rows(lines: Iterable[str], delimiter: str, width: int, name: str) -> Iterator[list[str]]:
    """Yield the rows after the header, padded to `width` cells."""
    rows, n_padded = _iter_cells(lines, delimiter, name), 0
    for number, row in enumerate(islice(rows, 1, None), 2):
        if len(row) > width and any(row[width:]):
            raise SourceError(
                f"{name} has a row of {len(row)} cells, but its header has {width}",
                where=f"{name}, line {number}: {delimiter.join(row)[:_SHOWN]}",
                fix="put cells with the delimiter in them, such as decimal commas, into quotes; if every row "
                "begins with a number or name of the row, give its column a name in the header",
            )
        if any(row):
            n_padded += max(0, width - len(row))
            if n_padded > _MAX_PADDED:
                raise SourceError(
                    f"{name} has rows that are much shorter than its header of {width} cells",
                    where=f"{name}, line {number}",
                    fix="restore the original table, or name the right `delimiter` and `skip_rows`",
                )
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
        hints = (suggest(column, header) for column in missing)
        raise SourceError(
            f"{name} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}",
            where=f"{name}, header: {', '.join(map(repr, header))}",
            fix=f"{''.join(hints)}{fix}",
        )


def to_plain(cell: str, decimal: str = ".", thousands: str | None = None) -> str:
    """Rewrite a number with this decimal mark and thousands separator as Python writes it; keep other text.

    Separators must be between groups of three digits: with the separator ".", `3.5` is not 35 but no number.

    >>> to_plain("1.234,5", ",", "."), to_plain("55,5 %", ",")
    ('1234.5', '55.5 %')
    """
    if decimal == "." and thousands is None:
        return cell
    mark, separator = re.escape(decimal), rf"[{_BLANKS}]" if thousands == " " else re.escape(thousands or "")
    groups = rf"\d{{1,3}}(?:{separator}\d{{3}})+(?!\d)|" if thousands else ""
    match = re.fullmatch(rf"(\(?[+-]?)({groups}\d*)(?:{mark}(\d*))?((?:[eE][+-]?\d+)?\)?\s*%?)", cell)
    if match is None:
        if thousands == "." and re.fullmatch(r"[+-]?\d*\.\d+", cell):
            raise ValueError(f"{cell!r} has no thousands separator '.' in its place")
        return cell
    sign, whole, fraction, rest = match.groups()
    whole = re.sub(r"\D", "", whole)
    return f"{sign}{whole}.{fraction}{rest}" if fraction is not None else f"{sign}{whole}{rest}"


def find_number_format(cell: str) -> str:
    """Return the keys of a column map that make a number of a cell, for error messages; empty if none do."""
    if re.fullmatch(rf"[+-]?\d{{1,3}}(?:[{_BLANKS}]\d{{3}})+(?:,\d+)?\s*%?", cell):
        return '`thousands: " "`' + (' and `decimal: ","`' if "," in cell else "")
    if re.fullmatch(r"[+-]?\d{1,3}(?:\.\d{3})+,\d+\s*%?", cell):
        return '`decimal: ","` and `thousands: "."`'
    if re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})*,\d{3}(?:\.\d+)?\s*%?", cell):
        return '`thousands: ","`' + ("" if "." in cell else ' or, if it is less than 1000, `decimal: ","`')
    if re.fullmatch(r"[+-]?\d*,\d+\s*%?", cell):
        return '`decimal: ","`'
    return ""


def parse_answer(cell: str) -> float:
    """Read a number on a scale; a percent sign is dropped: `80 %` is 80 on a scale from 0 to 100.

    Raises:
        ValueError: the cell is not one.
    """
    return parse_number(cell.removesuffix("%").rstrip())


def parse_number(cell: str) -> float:
    """Read a finite number, also `(5.43)` in parentheses.

    Raises:
        ValueError: the cell is not one.
    """
    plain = cell.removeprefix("(").removesuffix(")").replace("\N{MINUS SIGN}", "-")
    try:
        value = math.nan if "_" in cell else float(plain)  # Python would read 3_5 as 35
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{cell!r} is not a number")
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
    """Read a standard deviation: a finite number >= 0; a percent sign is dropped, as of ratings.

    Raises:
        ValueError: the cell is not one.
    """
    value = parse_answer(cell)
    if value < 0:
        raise ValueError(f"{cell!r} is negative: a standard deviation is >= 0")
    return value


def parse_share(cell: str, percent: bool = False) -> float:
    """Read a share of raters: `13 %` is 0.13, and so is `13` with `percent`; `True` is 1.

    Raises:
        ValueError: not a number, or outside 0–1.
    """
    if cell.lower() in _TRUTH:  # one-hot columns of pandas
        return _TRUTH[cell.lower()]
    number = cell.removesuffix("%").rstrip()
    share = parse_number(number)
    if percent or number != cell:
        share = round(share / 100, 9)
    if not 0 <= share <= 1:
        raise ValueError(f"{cell!r} is not a share from 0 to 1")
    return share
