"""Parse the cells of a row by a column map; errors name the column, and the key of the map that helps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from affectdata.column_map.columns import ColumnMap
from affectdata.column_map.label_lists import split_labels
from affectdata.labels import spell_emotion
from affectdata.reading.delimited import find_number_format, parse_answer, parse_number, parse_share, to_plain
from affectdata.reading.join import Row

Parsed = TypeVar("Parsed")
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d( [\d:]+)?"  # of a workbook; then as text: 3. Mai, 3-May-24, May-05
    r"|\d{1,2}[-./ ]{1,2}[A-Za-zäé]{3,4}\.?([-./ ]\d+)?|[A-Za-zäé]{3,4}\.?[- ]\d{2,4}"
)
_WHOLE = 100.0
_NEAR_WHOLE = 2.0  # percentages of one image add up to 100 within this


def filled(spec: ColumnMap, row: Row) -> dict[str, str]:
    """Return the cells that are neither empty nor NA."""
    return {column: cell for column, cell in row.cells.items() if cell and cell not in spec.na}


def parse_cell(
    spec: ColumnMap, cells: Mapping[str, str], column: str | None, parse: Callable[[str], Parsed]
) -> Parsed | None:
    """Parse one number; None if the column is not mapped or the cell is NA.

    Raises:
        ValueError: the cell is not one; the message names the column.
    """
    if column is None or column not in cells:
        return None
    cell = cells[column]
    try:
        return parse(to_plain(cell, spec.decimal, spec.thousands))
    except ValueError as error:
        keys = find_number_format(cell)
        if keys:
            raise ValueError(f"{column}: {cell!r} is not a number; in the column map: {keys}") from None
        if _DATE.fullmatch(cell):
            raise ValueError(
                f"{column}: {cell!r} is a date, perhaps made of a number by a spreadsheet"
            ) from None
        raise ValueError(f"{column}: {error}") from None


def parse_rating(spec: ColumnMap, cells: Mapping[str, str], name: str, column: str | None) -> float | None:
    """Parse a rating: a number, or a word that `values` of the map translate to one.

    Raises:
        ValueError: as for `parse_cell`.
    """
    codes = spec.values.get(name, {})
    if column is not None and cells.get(column) in codes:
        code = codes[cells[column]]
        return None if code is None else parse_number(str(code))
    try:
        return parse_cell(spec, cells, column, parse_answer)
    except ValueError as error:
        others = f" and is not one of {', '.join(codes)}" if codes else ""
        raise ValueError(f"{error}{others}") from None


def parse_shares(spec: ColumnMap, cells: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, float]:
    """Parse shares of raters; by `percent`, percentages.

    Raises:
        ValueError: a cell is not a share.
    """

    def parse(cell: str) -> float:
        try:
            return parse_share(cell, spec.percent)
        except ValueError as error:
            raise ValueError(f"{error}{_suggest(spec, cells, columns)}") from None

    parsed = {name: parse_cell(spec, cells, column, parse) for name, column in columns.items()}
    return {name: share for name, share in parsed.items() if share is not None}


def _suggest(spec: ColumnMap, cells: Mapping[str, str], columns: Mapping[str, str]) -> str:
    """Return the key of a map with which these numbers are shares, if one is."""
    try:
        numbers = [parse_cell(spec, cells, column, parse_number) for column in columns.values()]
    except ValueError:
        return ""
    known = [number for number in numbers if number is not None]
    if spec.percent or min(known) < 0:
        return ""
    if abs(sum(known) - _WHOLE) <= _NEAR_WHOLE or (len(columns) == 1 and known[0] <= _WHOLE):
        return "; if these are percentages: `percent: true`"
    if all(number.is_integer() for number in known):
        return "; if these are numbers of votes: `counts: true`"
    return "; if these are graded: `intensities` instead of `emotions`"


def parse_words(spec: ColumnMap, cells: Mapping[str, str], name: str, column: str) -> str | None:
    """Return the text of a cell, translated by `values` of the map.

    Raises:
        ValueError: `values` has no such code.
    """
    return translate(spec, name, column, cells[column]) if column in cells else None


def translate(spec: ColumnMap, name: str, column: str, word: str) -> str | None:
    """Return the meaning of a code in `values` of the map; without them, the code itself.

    Raises:
        ValueError: `values` has no such code.
    """
    known = spec.values.get(name)
    if known is None:
        return word
    if word not in known:
        raise ValueError(f"{column}: {word!r} is not one of {', '.join(known)}")
    meaning = known[word]
    return None if meaning is None else str(meaning)


def parse_emotions(
    spec: ColumnMap, cells: Mapping[str, str], column: str
) -> tuple[dict[str, float], bool] | None:
    """Return the emotions of a cell with their shares, and whether it is a list; None if it is NA.

    A label without a weight counts 1, and weights of labels with one meaning are added. With `counts`,
    weights are divided by their sum.

    Raises:
        ValueError: the cell is neither a word nor a list, `values` has no such code, a weight is not a share,
            or a label is repeated.
    """
    if column not in cells:
        return None
    labels = split_labels(cells[column], spec.separator)
    meanings = {
        word: spell_emotion(translate(spec, "emotion", column, word) or "")
        for word, _ in labels or [(cells[column], None)]
    }
    if labels is None:
        return dict.fromkeys(filter(None, meanings.values()), 1.0), False
    listed = [(word, weight) for word, weight in labels if meanings[word]]
    weights = {word: weight for word, weight in listed if weight is not None}
    of_one_rater = spec.rows == "rater" or bool(spec.raters)
    if not weights and of_one_rater:
        return dict.fromkeys((meanings[word] for word, _ in listed), 1.0), True
    _refuse_repeated(spec, column, [word for word, _ in listed], bool(weights))
    parse = parse_counts if spec.counts else parse_shares
    numbers = parse(spec, weights, {word: word for word in weights})
    shares: dict[str, float] = {}
    for word, _ in listed:
        added = shares.get(meanings[word], 0.0) if weights or spec.counts else 0.0
        shares[meanings[word]] = round(added + numbers.get(word, 1.0), 9)
    total = sum(shares.values()) if spec.counts else 1.0
    if excess := [name for name, share in shares.items() if share > total]:
        raise ValueError(f"{column}: the shares of {excess[0]!r} add up to {shares[excess[0]]:g}")
    return {name: share / total for name, share in shares.items()}, True


def _refuse_repeated(spec: ColumnMap, column: str, words: list[str], are_weighted: bool) -> None:
    """Refuse a label that occurs several times in a cell, unless each is a vote.

    Raises:
        ValueError: with the label.
    """
    repeated = [word for word, n in Counter(words).items() if n > 1]
    if repeated and (are_weighted or not spec.counts):
        hint = "" if are_weighted else "; if each is a vote: `counts: true`"
        raise ValueError(f"{column}: {repeated[0]!r} occurs {words.count(repeated[0])} times{hint}")


def parse_counts(spec: ColumnMap, cells: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, float]:
    """Parse numbers of votes, at least one of which is positive.

    Raises:
        ValueError: one is empty, negative or no number, or all are 0.
    """
    counts: dict[str, float] = {}
    for name, column in columns.items():
        number = parse_cell(spec, cells, column, parse_number)
        if number is None:
            raise ValueError(f"{column}: empty; write 0 where there is no vote")
        if number < 0:
            raise ValueError(f"{column}: {cells[column]!r} is negative")
        if not number.is_integer():
            raise ValueError(f"{column}: {cells[column]!r} is not a whole number of votes")
        counts[name] = number
    if counts and not any(counts.values()):
        raise ValueError("all numbers of votes are 0")
    return counts
