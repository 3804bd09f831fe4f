"""Rows of one picture made one: what each lacks from the others, what differs by a policy that is named."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError
from affectdata.hashing import canonical_json
from affectdata.labels import dominant_emotion
from affectdata.records import RATINGS, Scale
from affectdata.schema import FOLD

FROM = "manifest"  # the column that says where a row is from, while rows are merged
_RATING_PARTS = ("", "_sd", "_n", "_raw", "_min", "_max")
_ALIKE = 1e-4  # POMP points that two scales may differ by rounding
_Mean: TypeAlias = Callable[[list[dict[str, Any]], list[str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A picture of which manifests do not say the same: `said` by their names, and what was `kept`."""

    image_id: str
    path: str
    column: str
    said: dict[str, Any]
    kept: Any


def describe_conflict(conflict: Conflict) -> str:
    """Say which manifest says what of a picture."""
    said = ", ".join(f"{_plainly(value)} in {name}" for name, value in conflict.said.items())
    return f"{conflict.path}: {conflict.column} {said}"


def _plainly(told: Any) -> str:
    """Write a number, a word, or several shares."""
    if isinstance(told, dict):
        return " ".join(f"{name.removeprefix('emotion_')} {_plainly(value)}" for name, value in told.items())
    return f"{told:g}" if isinstance(told, float) else str(told)


def merge_rows(rows: pa.Table, emotions: list[str], policy: str) -> tuple[pa.Table, list[Conflict]]:
    """Return a row per picture and every conflict; `rows` are in the order of their manifests (`FROM`).

    `policy` is `first`, `mean` or `prefer:NAME`; any other takes the first.

    Raises:
        IntegrityError: a picture has two splits or folds.
    """
    ids = rows["image_id"].combine_chunks()
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    is_repeated = pc.is_in(ids, repeated)
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows.filter(is_repeated).to_pylist():
        by_id.setdefault(row["image_id"], []).append(row)
    merge = _Merge(emotions, policy, [])
    merged = [merge.rows(same) for same in by_id.values()]
    alone = rows.filter(pc.invert(is_repeated))
    table = pa.concat_tables([alone, pa.Table.from_pylist(merged, schema=rows.schema)])
    return table.drop_columns([FROM]), merge.conflicts


@dataclass(frozen=True, slots=True)
class _Merge:
    """Makes one row of several for one picture, and notes the conflicts."""

    emotions: list[str]
    policy: str
    conflicts: list[Conflict]

    def rows(self, same: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge rows of one picture, in the order of their manifests."""
        row = {name: _first(each[name] for each in same) for name in same[0]}
        for rating in RATINGS:
            row |= self._labels(same, rating, [f"{rating}{part}" for part in _RATING_PARTS], _mean_rating)
        shares = [f"emotion_{emotion}" for emotion in self.emotions]
        row |= self._labels(same, "emotion", ["emotion", *shares, "agreement"], _mean_emotions)
        terms = {name: _joined((each[name] for each in same), "; ") for name in ("license", "attribution")}
        tags = _joined((tag for each in same for tag in (each["content_tags"] or "").split(",")), ",")
        own = {"extra": _both_extras(same), "content_tags": tags}
        own |= {column: _same(same, column) for column in ("split", FOLD.name) if column in row}
        return {**row, **terms, **own}

    def _labels(
        self, same: list[dict[str, Any]], name: str, columns: list[str], mean: _Mean
    ) -> dict[str, Any]:
        """Return columns that belong together: filled up from all rows; where they differ, by the policy."""
        told = [each for each in same if any(each[column] is not None for column in columns)]
        compared = columns[:1] if name in RATINGS else columns[:-1]
        if not any(_differ([each[column] for each in told]) for column in compared):
            return {column: _first(each[column] for each in told) for column in columns}
        preferred = [each for each in told if f"prefer:{each[FROM]}" == self.policy]
        kept = mean(told, columns) if self.policy == "mean" else (preferred or told)[0]
        said = {each[FROM]: _told(each, compared) for each in told}
        first = same[0]
        self.conflicts.append(Conflict(first["image_id"], first["path"], name, said, _told(kept, compared)))
        return {column: kept[column] for column in columns}


def _differ(values: list[Any]) -> bool:
    """Say whether two values that are there are not the same."""
    there = [value for value in values if value is not None]
    if there and isinstance(there[0], float):
        return bool(max(there) - min(there) > _ALIKE)
    return len(set(there)) > 1


def _told(row: dict[str, Any], columns: list[str]) -> Any:
    told = {column: row[column] for column in columns if row[column] is not None}
    return told[columns[0]] if set(told) == {columns[0]} else told


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _mean_rating(told: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    name, _, n, raw, low, high = columns
    told = [each for each in told if each[name] is not None]
    mean = round(statistics.fmean(each[name] for each in told), 6)
    counts = [each[n] for each in told]
    scale = Scale(told[0][low], told[0][high])
    return {
        **dict.fromkeys(columns),
        name: mean,
        n: None if None in counts else sum(counts),
        raw: scale.from_pomp(mean),
        low: scale.low,
        high: scale.high,
    }


def _mean_emotions(told: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """Average the shares of those that have some; emotions that differ, and no shares, leave no emotion."""
    shares = {}
    for column in columns[1:-1]:
        said = [each[column] for each in told if each[column] is not None]
        shares[column] = round(statistics.fmean(said), 9) if said else None
    known = {column.removeprefix("emotion_"): share for column, share in shares.items() if share is not None}
    emotion = dominant_emotion(known)
    return {"emotion": emotion, "agreement": known.get(emotion or ""), **shares}


def _same(same: list[dict[str, Any]], column: str) -> Any:
    """Return the split or fold that all rows have which have one."""
    said = {each[column]: each for each in same if each[column] is not None}
    if len(said) > 1:
        told = ", ".join(f"{value} in {each[FROM]}" for value, each in said.items())
        raise IntegrityError(
            f"one picture has two values of {column}: {told}",
            where=f"{same[0]['path']}, image_id {same[0]['image_id'][:16]}…",
            fix="split one of the manifests anew: ingest it with --replace into another --out",
        )
    return next(iter(said), None)


def _both_extras(same: list[dict[str, Any]]) -> str:
    """Keep the first row's `extra`, and under `also` those of the others, by manifest."""
    others = {each[FROM]: json.loads(each["extra"]) for each in same[1:] if each["extra"] != same[0]["extra"]}
    return canonical_json({**json.loads(same[0]["extra"]), **({"also": others} if others else {})})


def _joined(values: Iterable[str | None], separator: str) -> str | None:
    return separator.join(dict.fromkeys(value for value in values if value)) or None
