"""Merge the rows of images that several manifests have.

Rows with the same bytes are merged: the first manifest's row, with missing values filled from the others.
Different ratings or emotions of such rows are a conflict, which a policy resolves:

    error           fail, and list the conflicts (the default)
    first           use the manifest that is listed first
    mean            means of ratings and shares; the number of raters is the sum, the spread is unknown
    prefer:NAME     use that manifest where it has a label, else the first
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import pyarrow as pa

from affectdata.errors import IntegrityError
from affectdata.hashing import canonical_json
from affectdata.labels import dominant_emotion
from affectdata.records import RATINGS, Scale
from affectdata.schema import AGREEMENT_N, FOLD, INTENSITY
from affectdata.store.spill import Spill

FROM = "manifest"  # column with the manifest of a row, while rows are merged
_RATING_PARTS = ("", "_sd", "_n", "_raw", "_min", "_max")
_TOLERANCE = 1e-4  # POMP points; two scales may differ by rounding
Label: TypeAlias = float | str | dict[str, float | str | None] | None
_Mean: TypeAlias = Callable[[list[dict[str, Any]], list[str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A label that differs between manifests: its values by manifest, and the one that was kept.

    Several columns that belong together (shares of emotions) are a dict. Field names are JSON keys.
    """

    image_id: str
    path: str
    column: str
    values: dict[str, Label]
    kept: Label


def describe_conflict(conflict: Conflict) -> str:
    """Return a conflict as text: the image, the column, and the value in each manifest."""
    values = ", ".join(f"{_format(value)} in {name}" for name, value in conflict.values.items())
    return f"{conflict.path}: {conflict.column} {values}"


def _format(value: Label) -> str:
    """Format a number, a word, or several shares."""
    if isinstance(value, dict):
        return " ".join(f"{name.removeprefix('emotion_')} {_format(share)}" for name, share in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def merge_rows(
    parts: Iterable[pa.Table], schema: pa.Schema, emotions: list[str], policy: str
) -> tuple[Spill, list[Conflict]]:
    """Return a row per image and all conflicts, in the order of the images.

    In `parts` the rows of an image are together, in the order of their manifests (`FROM`). `policy` is
    `first`, `mean` or `prefer:NAME`; anything else acts like `first`.

    Raises:
        IntegrityError: an image has two splits or folds.
    """
    merge, merged = _Merge(emotions, policy, []), Spill(schema)
    for part in parts:
        for _, same in groupby(part.to_pylist(), itemgetter("image_id")):
            merged.add(merge.rows([*same]))
    return merged, merge.conflicts


@dataclass(frozen=True, slots=True)
class _Merge:
    """Merges the rows of one image into one, and collects the conflicts."""

    emotions: list[str]
    policy: str
    conflicts: list[Conflict]

    def rows(self, same: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge rows of one image, in the order of their manifests."""
        merged = {name: _first(row[name] for row in same) for name in same[0]}
        for rating in RATINGS:
            merged |= self._labels(same, rating, [f"{rating}{part}" for part in _RATING_PARTS], _mean_rating)
        shares = [f"emotion_{emotion}" for emotion in self.emotions]
        merged |= self._labels(same, "emotion", ["emotion", *shares, "agreement"], _mean_emotions)
        for name in merged:
            if name.startswith(INTENSITY):
                merged |= self._labels(same, name, [name], _mean_value)
        if AGREEMENT_N.name in merged:  # that of the shares which are kept; of a mean it is unknown
            alike = (row for row in same if all(row[share] == merged[share] for share in shares))
            merged[AGREEMENT_N.name] = _first(row[AGREEMENT_N.name] for row in alike)
        terms = {name: _join((row[name] for row in same), "; ") for name in ("license", "attribution")}
        tags = _join((tag for row in same for tag in (row["content_tags"] or "").split(",")), ",")
        own = {"extra": _merge_extras(same), "content_tags": tags}
        own |= {column: _single(same, column) for column in ("split", FOLD.name) if column in merged}
        return {**merged, **terms, **own}

    def _labels(
        self, same: list[dict[str, Any]], name: str, columns: list[str], mean: _Mean
    ) -> dict[str, Any]:
        """Return columns that belong together, filled from all rows; a policy resolves conflicts."""
        labelled = [row for row in same if any(row[column] is not None for column in columns)]
        compared = columns[:-1] if name == "emotion" else columns[:1]
        if not any(_differ([row[column] for row in labelled]) for column in compared):
            return {column: _first(row[column] for row in labelled) for column in columns}
        preferred = [row for row in labelled if f"prefer:{row[FROM]}" == self.policy]
        kept = mean(labelled, columns) if self.policy == "mean" else (preferred or labelled)[0]
        values = {row[FROM]: _values(row, compared) for row in labelled}
        first = same[0]
        conflict = Conflict(first["image_id"], first["path"], name, values, _values(kept, compared))
        self.conflicts.append(conflict)
        return {column: kept[column] for column in columns}


def _differ(values: list[Any]) -> bool:
    """Return whether two of the values that are not None differ."""
    values = [value for value in values if value is not None]
    if values and isinstance(values[0], float):
        return bool(max(values) - min(values) > _TOLERANCE)
    return len(set(values)) > 1


def _values(row: dict[str, Any], columns: list[str]) -> Any:
    values = {column: row[column] for column in columns if row[column] is not None}
    return values[columns[0]] if set(values) == {columns[0]} else values


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _mean_rating(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    name, _, n, raw, low, high = columns
    rows = [row for row in rows if row[name] is not None]
    mean = round(statistics.fmean(row[name] for row in rows), 6)
    counts = [row[n] for row in rows]
    scale = Scale(rows[0][low], rows[0][high])
    return {
        **dict.fromkeys(columns),
        name: mean,
        n: None if None in counts else sum(counts),
        raw: scale.from_pomp(mean),
        low: scale.low,
        high: scale.high,
    }


def _mean_value(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    return {name: round(statistics.fmean(row[name] for row in rows), 6) for name in columns}


def _mean_emotions(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """Average the shares over the rows that have them; without shares there is no emotion."""
    shares = {}
    for column in columns[1:-1]:
        values = [row[column] for row in rows if row[column] is not None]
        shares[column] = round(statistics.fmean(values), 9) if values else None
    known = {column.removeprefix("emotion_"): share for column, share in shares.items() if share is not None}
    emotion = dominant_emotion(known)
    return {"emotion": emotion, "agreement": known.get(emotion or ""), **shares}


def _single(same: list[dict[str, Any]], column: str) -> Any:
    """Return the split or fold of the rows that have one."""
    by_value = {row[column]: row for row in same if row[column] is not None}
    if len(by_value) > 1:
        values = ", ".join(f"{value} in {row[FROM]}" for value, row in by_value.items())
        raise IntegrityError(
            f"one image has two values of {column}: {values}",
            where=f"{same[0]['path']}, image_id {same[0]['image_id'][:16]}…",
            fix="make new splits for one of the manifests: ingest it with --replace into another --out",
        )
    return next(iter(by_value), None)


def _merge_extras(same: list[dict[str, Any]]) -> str:
    """Return the first row's `extra`, with those of the others by manifest under `also`."""
    others = {row[FROM]: json.loads(row["extra"]) for row in same[1:] if row["extra"] != same[0]["extra"]}
    return canonical_json({**json.loads(same[0]["extra"]), **({"also": others} if others else {})})


def _join(values: Iterable[str | None], separator: str) -> str | None:
    return separator.join(dict.fromkeys(value for value in values if value)) or None
