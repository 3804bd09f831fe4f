"""One row of a mapped table as a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar

from affectdata.column_map.columns import TEXTS, ColumnMap
from affectdata.errors import SourceError
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.reading.delimited import parse_count, parse_number, parse_share, parse_spread
from affectdata.reading.join import Row
from affectdata.reading.names import spell_split
from affectdata.records import RATINGS, Rating, Reason, Record, Reject

_OLDEST = 150
Parsed = TypeVar("Parsed")


def read_row(spec: ColumnMap, row: Row, path: str) -> Record | Reject:
    """Return what a row says of its picture, or why it says nothing."""
    cells = {column: cell for column, cell in row.cells.items() if cell and cell not in spec.na}
    try:
        record = _to_record(spec, row, path, cells)
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}, {error}")
    labels = [spec.columns[name] for name in (*RATINGS, "emotion") if name in spec.columns]
    labels += spec.emotions.values()
    if labels and not (record.ratings or record.emotion or record.emotions):
        return Reject(path, Reason.MISSING_RATING, f"{row.where} has nothing under {', '.join(labels)}")
    return record


def _to_record(spec: ColumnMap, row: Row, path: str, cells: Mapping[str, str]) -> Record:
    used = {spec.key, *spec.columns.values(), *spec.emotions.values()}
    texts = {name: _word(spec, cells, name) for name in TEXTS if name in spec.columns}
    shares, emotion, agreement = _emotions(spec, cells)
    subtype = spec.subtypes.get(texts.get("subtype") or "")
    return Record(
        path=path,
        source_id=row.key,
        ratings=_ratings(spec, cells),
        emotion=emotion,
        emotions=shares,
        agreement=agreement,
        age=_parse(cells, spec.columns.get("age"), lambda cell: parse_count(cell, _OLDEST)),
        split=_split(spec, row, cells),
        content_tags=tuple(subtype.tags) if subtype else (),
        extra={column: cell for column, cell in row.cells.items() if column not in used},
        **texts,
    )


def _parse(cells: Mapping[str, str], column: str | None, parse: Callable[[str], Parsed]) -> Parsed | None:
    """Parse one cell; None where the column is not mapped or holds NA; an error names the column."""
    if column is None or column not in cells:
        return None
    try:
        return parse(cells[column])
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _word(spec: ColumnMap, cells: Mapping[str, str], name: str) -> str | None:
    """Return a cell's text, or what the map says that it means."""
    known = spec.values.get(name)

    def read(cell: str) -> str | None:
        if known is not None and cell not in known:
            raise ValueError(f"{cell!r} is none of {', '.join(known)}")
        return known[cell] if known else cell

    return _parse(cells, spec.columns[name], read)


def _ratings(spec: ColumnMap, cells: Mapping[str, str]) -> dict[str, Rating]:
    ratings = {}
    for name in RATINGS:
        mean = _parse(cells, spec.columns.get(name), parse_number)
        sd = _parse(cells, spec.columns.get(f"{name}_sd"), parse_spread)
        n = _parse(cells, spec.columns.get(f"{name}_n"), parse_count)
        if mean is not None:
            ratings[name] = Rating(mean, sd, n)
    return ratings


def _emotions(spec: ColumnMap, cells: Mapping[str, str]) -> tuple[dict[str, float], str | None, float | None]:
    """Return shares, dominant emotion and agreement; without an emotion column the largest share decides.

    Two largest shares have no dominant emotion.
    """

    def parse(cell: str) -> float:
        return parse_share(cell, spec.percent)

    read = {name: _parse(cells, column, parse) for name, column in spec.emotions.items()}
    shares = {name: share for name, share in read.items() if share is not None}
    if "emotion" in spec.columns:
        emotion = spell_emotion(_word(spec, cells, "emotion") or "") or None
    else:
        emotion = dominant_emotion(shares)
    agreement = _parse(cells, spec.columns.get("agreement"), parse)
    return shares, emotion, shares.get(emotion or "") if agreement is None else agreement


def _split(spec: ColumnMap, row: Row, cells: Mapping[str, str]) -> str | None:
    if spec.split_by_table:
        return spell_split(PurePosixPath(row.table).stem)
    word = cells.get(spec.columns.get("split", ""))
    if word is None:
        return None
    split = spell_split(word)
    if split is None:
        raise SourceError(
            f"{word!r} is no split; these are: train, val, test",
            where=f"{row.where}, {spec.columns['split']}",
            fix="correct the cell, or leave the column out of the map",
        )
    return split
