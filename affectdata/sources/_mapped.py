"""Rows of any table as records, by a map from our columns to the table's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from affectdata.config import StrictModel
from affectdata.errors import SourceError
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.records import (
    RATINGS,
    Annotation,
    Rating,
    Reason,
    Record,
    Reject,
    Scale,
    SourceInfo,
    Subtype,
)
from affectdata.sources._delimited import parse_count, parse_number, parse_spread, require_columns
from affectdata.sources._join import Row, join_rows
from affectdata.sources._names import fold_path, spell_split
from affectdata.sources._protocol import Item
from affectdata.sources._tables import read_table
from affectdata.tree import Tree, is_picture_name

_TEXTS = (
    *("subtype", "subject_id", "artist", "theme", "age_group", "gender", "ethnicity"),
    *("license", "attribution", "url"),
)
_SPREADS = tuple(f"{name}_{part}" for name in RATINGS for part in ("sd", "n"))
MAPPED = (*RATINGS, *_SPREADS, *_TEXTS, "emotion", "agreement", "age", "split")
MAP_FILE = "columns.yaml"  # at the root, it is the column map of the tree
_OLDEST = 150
_PLACE = re.compile(r"\{([^{}]+)\}")
Parsed = TypeVar("Parsed")


class SubtypeMap(StrictModel):
    """A content category: what its code means."""

    name: str
    sign: Literal[-1, 0, 1] | None = None
    upright: bool = True
    tags: list[str] = []


class ColumnMap(StrictModel):
    """Where a table is, which of its columns is what, on which scales, and under which terms."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_]*$")]
    table: str  # path inside the root, or a pattern such as ratings/*.csv
    key: str  # the column that names the picture
    file: str = "{key}"  # {key} or any column in braces; a picture's suffix is optional
    title: str = ""
    sheet: str | None = None
    skip_rows: Annotated[int, Field(ge=0)] = 0
    encoding: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    na: list[str] = ["NA", "N/A", "nan", "NaN", "null", "None"]  # an empty cell always is
    scales: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {}
    columns: dict[str, str] = {}
    emotions: dict[str, str] = {}
    percent: bool = False
    subtypes: dict[str, SubtypeMap] = {}
    groups: list[str] = []
    license: str = "not stated"
    citation: str = "not stated"
    url: str = ""
    bibtex: str = ""
    evidence: Literal["seen", "unverified"] = "seen"

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            "".encode(encoding or "utf-8")
        except LookupError:
            raise ValueError("no such encoding") from None
        return encoding

    @field_validator("scales")
    @classmethod
    def _usable_scales(cls, scales: dict[str, list[float]]) -> dict[str, list[float]]:
        _refuse(
            [
                f"{name} is no rating; these are: {', '.join(RATINGS)}"
                for name in scales
                if name not in RATINGS
            ]
            + [f"{name} does not go from low to high" for name, (low, high) in scales.items() if low >= high]
        )
        return scales

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        scales = info.data.get("scales", RATINGS)  # if those are wrong, that is said already
        _refuse(
            [f"{name} is unknown; known: {', '.join(MAPPED)}" for name in columns if name not in MAPPED]
            + [
                f"{name} needs its scale under `scales`"
                for name in RATINGS
                if name in columns.keys() - scales
            ]
            + [f"{name} without {name.split('_')[0]}" for name in _SPREADS if _lacks_mean(name, columns)]
        )
        return columns

    @field_validator("emotions")
    @classmethod
    def _spelt_emotions(cls, emotions: dict[str, str]) -> dict[str, str]:
        _refuse(
            [f"write {name} as {spell_emotion(name)}" for name in emotions if spell_emotion(name) != name]
        )
        return emotions

    @field_validator("groups")
    @classmethod
    def _mapped_groups(cls, groups: list[str], info: ValidationInfo) -> list[str]:
        columns = info.data.get("columns", groups)
        _refuse([f"{name} is not among `columns`" for name in groups if name not in columns])
        return groups

    def to_info(self, name: str, layout: str) -> SourceInfo:
        """Return the data sheet that the map amounts to."""
        return SourceInfo(
            name=name,
            title=self.title or name,
            scales={rating: Scale(low, high) for rating, (low, high) in self.scales.items()},
            license=self.license,
            citation=self.citation,
            url=self.url,
            layout=layout,
            subtypes={
                code: Subtype(item.name, item.sign, item.upright, tuple(item.tags))
                for code, item in self.subtypes.items()
            },
            groups=tuple(self.groups),
            evidence=self.evidence,
            bibtex=self.bibtex,
        )


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))


def _lacks_mean(name: str, columns: Mapping[str, str]) -> bool:
    return name in columns and name.split("_")[0] not in columns


def read_mapped(tree: Tree, tables: list[str], spec: ColumnMap, folder: str = "") -> Iterator[Item]:
    """Yield the tables as annotations and each of their rows as a record or a reject.

    `spec.file` is relative to `folder`, which is empty or ends in a slash.

    Raises:
        SourceError: a table cannot be read or lacks a column that the map names.
    """
    rows: list[Row] = []
    for table in tables:
        yield Annotation(table)
        for item in _read_rows(tree, table, spec, folder):
            if isinstance(item, Row):
                rows.append(item)
            else:
                yield item
    pictures = [path for path in tree.pictures() if path.startswith(folder)]
    for pair in join_rows(rows, pictures, fold_path):
        yield _read_row(spec, *pair) if isinstance(pair, tuple) else pair


def _read_rows(tree: Tree, table: str, spec: ColumnMap, folder: str) -> Iterator[Row | Reject]:
    header, lines = read_table(
        tree,
        table,
        sheet=spec.sheet,
        skip_rows=spec.skip_rows,
        encoding=spec.encoding,
        delimiter=spec.delimiter,
    )
    placed = [name for name in _PLACE.findall(spec.file) if name != "key"]
    needed = dict.fromkeys([spec.key, *placed, *spec.columns.values(), *spec.emotions.values()])
    require_columns(header, list(needed), table, fix="correct the names in the column map")
    for number, line in enumerate(lines, 1):
        row = _named_row(table, dict(zip(header, line, strict=True)), spec, folder)
        detail = f"data row {number} has nothing under {spec.key!r}"
        yield row or Reject(f"{table}#row {number}", Reason.MISSING_IMAGE, detail)


def _named_row(table: str, cells: dict[str, str], spec: ColumnMap, folder: str) -> Row | None:
    """Work out which picture a row means; None without a key."""
    key = re.sub(r"^(\d+)\.0+$", r"\1", cells[spec.key])  # a spreadsheet's 2000.0, but not 2375.1
    if not key or key in spec.na:
        return None
    stem = key.replace("\\", "/").lstrip("/").removeprefix("./")
    if is_picture_name(stem) and not spec.file.endswith("{key}"):
        stem = stem.rpartition(".")[0]
    picture = _PLACE.sub(lambda at: stem if at[1] == "key" else cells[at[1]], spec.file)
    return Row(table, key, folder + picture, cells)


def _read_row(spec: ColumnMap, row: Row, path: str) -> Record | Reject:
    cells = {column: cell for column, cell in row.cells.items() if cell and cell not in spec.na}
    labels = [spec.columns[name] for name in (*RATINGS, "emotion") if name in spec.columns]
    labels += spec.emotions.values()
    if labels and not any(column in cells for column in labels):
        detail = f"{row.where} has nothing under {', '.join(labels)}"
        return Reject(path, Reason.MISSING_RATING, detail)
    try:
        return _to_record(spec, row, path, cells)
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}, {error}")


def _to_record(spec: ColumnMap, row: Row, path: str, cells: Mapping[str, str]) -> Record:
    used = {spec.key, *spec.columns.values(), *spec.emotions.values()}
    texts = {name: cells.get(spec.columns[name]) for name in _TEXTS if name in spec.columns}
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
        emotion = spell_emotion(cells.get(spec.columns["emotion"], "")) or None
    else:
        emotion = dominant_emotion(shares)
    agreement = _parse(cells, spec.columns.get("agreement"), parse)
    return shares, emotion, shares.get(emotion or "") if agreement is None else agreement


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


def _split(spec: ColumnMap, row: Row, cells: Mapping[str, str]) -> str | None:
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
