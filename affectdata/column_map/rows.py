"""Turn the rows of one image into a record, by a column map."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeVar

from affectdata.column_map.cells import filled, parse_cell, parse_emotions, parse_words
from affectdata.column_map.columns import TEXTS, ColumnMap
from affectdata.column_map.tally import Tally
from affectdata.column_map.votes import Labels, is_far_from_one, label_people, label_raters, label_row
from affectdata.errors import SourceError
from affectdata.reading.delimited import parse_count, parse_number
from affectdata.reading.join import Row
from affectdata.reading.names import spell_split
from affectdata.records import RATINGS, Reason, Record, Reject

_OLDEST = 150
_MOST_EMOTIONS = 1000  # different words in a column of emotions
_MOST_CELLS = 10_000  # different cells in a column of emotions that are remembered
_SEPARATORS = ("|", ";", ",", "/", "+", "&")
_OF_PERSON = ("subject_id", "age", "age_group", "gender", "ethnicity")
Item = TypeVar("Item")


class RowReader:
    """Reads the rows of a table; `tally` counts what is worth a finding.

    `note` sees all rows before any is read: emotions that no rater of an image chose have the share 0.
    """

    def __init__(self, spec: ColumnMap) -> None:
        self.spec = spec
        self.tally = Tally()
        self._emotions: set[str] = set()
        self._cells: set[str] = set()  # that were noted

    def note(self, row: Item) -> Item:
        """Note the emotions in a row, and return it."""
        if isinstance(row, Row):
            named = [self.spec.columns["emotion"]] if "emotion" in self.spec.columns else []
            for column in [*named, *self.spec.rater_columns("emotion", row.cells)]:
                cell = row.cells.get(column, "")
                if cell and cell not in self.spec.na and cell not in self._cells:
                    self._note_cell(column, cell, row.table)
        return row

    def _note_cell(self, column: str, cell: str, table: str) -> None:
        if len(self._cells) < _MOST_CELLS:
            self._cells.add(cell)
        try:
            words, is_list = parse_emotions(self.spec, {column: cell}, column) or ({}, False)
        except ValueError:
            return  # reported when the row is read
        if self.spec.has_votes or is_list:
            self._emotions.update(words)
        if len(self._emotions) > _MOST_EMOTIONS:
            raise SourceError(
                f"the column {column!r} has more than {_MOST_EMOTIONS} different words",
                where=table,
                fix="map `emotion` to a column of emotions, or translate its words with `values`",
            )

    def check_words(self) -> None:
        """Refuse cells that are several labels, after all rows were noted.

        Raises:
            SourceError: cells have a separator that the map does not name.
        """
        if self.spec.separator or "emotion" in self.spec.values:
            return
        for separator in _SEPARATORS:
            joined = sorted(cell for cell in self._cells if _joins(cell, separator, self._cells))
            if joined:
                raise SourceError(
                    f"{len(joined)} different cells look like several labels: "
                    + ", ".join(map(repr, joined[:3])),
                    where=", ".join(self.spec.patterns),
                    fix=f"in the column map, `separator: {separator!r}`; or, if each is one class, list the "
                    "words under `values: {emotion: …}`",
                )

    def read_row(self, row: Row, path: str) -> Record | Reject:
        """Return the record of an image from one row, or the reject with the reason why it has none."""
        try:
            labels = label_row(self.spec, row, self.tally)
            record = self._to_record(row, path, labels)
        except ValueError as error:
            if self.spec.has_votes:
                self.tally.add("bad_vote", f"{row.where}, {error}")
            return Reject(path, Reason.BAD_RATING, f"{row.where}, {error}")
        total = is_far_from_one(self.spec, labels)
        if total is not None:
            self.tally.add("share_sum", f"{row.where} {total:.3g}")
        return record

    def read_group(self, rows: Sequence[Row], path: str) -> Record | Reject:
        """Return the record of an image from its rows of raters or people, or the reject."""
        are_people = self.spec.rows == "person"
        row, varying = _combine(self.spec, rows)
        if fixed := [name for name in varying if not (are_people and name in _OF_PERSON)]:
            column = self.spec.columns[fixed[0]]
            detail = f"{row.where} has {len(rows)} rows that differ in {column}: {row.cells[column]}"
            return Reject(path, Reason.CONFLICTING_RATING, detail)
        label = label_people if are_people else label_raters
        labels = label(self.spec, rows, self.tally)
        if labels.is_empty:
            detail = f"{row.where}: none of its {len(rows)} rows has a label that can be used"
            return Reject(path, Reason.BAD_RATING, detail)
        try:
            return self._to_record(row, path, labels, varying)
        except ValueError as error:
            return Reject(path, Reason.BAD_RATING, f"{row.where}, {error}")

    def _to_record(self, row: Row, path: str, labels: Labels, varying: Sequence[str] = ()) -> Record | Reject:
        """Return the record; mapped columns of `varying` names have several values and go into `extra`.

        Raises:
            ValueError: a cell cannot be read.
        """
        spec = self.spec
        labelled = _label_columns(spec, row)
        if labelled and labels.is_empty:
            if spec.raters and filled(spec, row).keys() & labelled:  # each cell is tallied
                detail = f"{row.where}: nothing in {', '.join(labelled)} can be used"
                return Reject(path, Reason.BAD_RATING, detail)
            if spec.has_votes:
                self.tally.add("bad_vote", f"{row.where}: empty")
            detail = f"{row.where} has no value in {', '.join(labelled)}"
            return Reject(path, Reason.MISSING_RATING, detail)
        columns = {name: column for name, column in spec.columns.items() if name not in varying}
        cells = filled(spec, row)
        texts = {name: parse_words(spec, cells, name, columns[name]) for name in TEXTS if name in columns}
        subtype = spec.subtypes.get(texts.get("subtype") or "")
        used = {spec.key, *columns.values(), *labelled} - {spec.columns[name] for name in varying}
        return Record(
            path=path,
            source_id=row.key,
            ratings=labels.ratings,
            emotion=labels.emotion,
            emotions=self._complete(labels.emotions),
            agreement=labels.agreement,
            agreement_n=labels.agreement_n,
            intensities=labels.intensities,
            age=parse_cell(spec, cells, columns.get("age"), lambda cell: parse_count(cell, _OLDEST)),
            split=_split(spec, row, cells),
            content_tags=tuple(subtype.tags) if subtype else (),
            extra={column: cell for column, cell in row.cells.items() if column not in used},
            **texts,
        )

    def _complete(self, shares: Mapping[str, float]) -> Mapping[str, float]:
        return {**dict.fromkeys(sorted(self._emotions), 0.0), **shares} if shares else shares


def _joins(cell: str, separator: str, cells: set[str]) -> bool:
    """Return whether a cell is several labels: of the rarer separators a part must be a cell too."""
    parts = [part.strip() for part in cell.split(separator)]
    if len(parts) < 2 or not all(parts) or cell[0] in "[{(":
        return False
    return separator in "|;" or any(part in cells for part in parts)


def _label_columns(spec: ColumnMap, row: Row) -> list[str]:
    """Return the columns with labels."""
    named = [spec.columns[name] for name in (*RATINGS, "emotion") if name in spec.columns]
    raters = [column for name in spec.raters for column in spec.rater_columns(name, row.cells)]
    return [*named, *spec.emotions.values(), *spec.intensities.values(), *raters]


def _combine(spec: ColumnMap, rows: Sequence[Row]) -> tuple[Row, list[str]]:
    """Return the rows of one image as one, and the names of mapped columns, labels aside, that differ.

    Different cells are joined with " | ".
    """
    labels = {*RATINGS, "emotion", "agreement"} | {
        f"{name}_{part}" for name in RATINGS for part in ("sd", "n")
    }
    fixed = {column: name for name, column in spec.columns.items() if name not in labels}
    cells, varying = {}, []
    for column, first in rows[0].cells.items():
        distinct = list(dict.fromkeys(row.cells.get(column, "") for row in rows))
        if column in fixed:
            distinct = [cell for cell in distinct if cell and cell not in spec.na] or distinct[:1]
            varying += [fixed[column]] if len(distinct) > 1 else []
        cells[column] = first if column == spec.key else " | ".join(distinct)
    return replace(rows[0], cells=cells), varying


def average_rows(spec: ColumnMap, rows: list[Row]) -> Row | None:
    """Merge the rows of one image: mean ratings; None if labels other than ratings differ.

    SDs are pooled as for equal numbers of raters; other different cells are joined with " | ".
    """
    rated = {column: name for name, column in spec.columns.items() if name.startswith(RATINGS)}
    fixed = {*spec.columns.values(), *spec.emotions.values(), *spec.intensities.values()} - rated.keys()
    cells = {}
    for column, first in rows[0].cells.items():
        distinct = list(dict.fromkeys(row.cells[column] for row in rows))
        if len(distinct) == 1 or column == spec.key:
            cells[column] = first
        elif column in fixed:
            return None
        elif column not in rated:
            cells[column] = " | ".join(distinct)
        else:
            try:
                values = [parse_cell(spec, filled(spec, row), column, parse_number) for row in rows]
                pooled = _pool(rated[column], [value for value in values if value is not None])
            except ValueError:
                return None
            cells[column] = pooled.replace(".", spec.decimal)
    return Row(rows[0].table, rows[0].key, rows[0].image, cells)


def _pool(name: str, numbers: list[float]) -> str:
    if name.endswith("_n"):
        return f"{sum(numbers):g}"
    if name.endswith("_sd"):
        return f"{statistics.fmean(number**2 for number in numbers) ** 0.5:.9g}"
    return f"{statistics.fmean(numbers):.9g}"


def _split(spec: ColumnMap, row: Row, cells: Mapping[str, str]) -> str | None:
    if spec.split_by_table:
        return spell_split(PurePosixPath(row.table).stem)
    word = cells.get(spec.columns.get("split", ""))
    if word is None:
        return None
    split = spell_split(word)
    if split is None:
        raise SourceError(
            f"{word!r} is not a split; use train, val or test",
            where=f"{row.where}, {spec.columns['split']}",
            fix="correct the cell, or leave the column out",
        )
    return split
