"""Rating rows and images, brought together: every row is a pair, a reject or one of several equal rows."""

from __future__ import annotations

import pickle
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.reading.tree import Paths
from affectdata.records import Annotation, Finding, Reason, Reject
from affectdata.store.spill import Spill, in_order


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `table`: `key` as the table has it, `image` the name to look for, `cells` by column."""

    table: str
    key: str
    image: str
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """Table and key, for a person and for rejects."""
        return f"{self.table}#{self.key}"


Other: TypeAlias = Reject | Annotation | Finding
Pool: TypeAlias = Callable[[list[Row]], Row | None]
_NAMED = pa.schema(
    [("row", pa.binary()), ("folded", pa.string()), ("where", pa.string())]
)  # rows are pickled
_TARGETED = pa.schema([_NAMED.field("row"), ("target", pa.int64())])


def join_rows(
    rows: Iterable[Row | Other],
    images: Iterable[str],
    fold: Callable[[str], str],
    pool: Pool | None = None,
) -> Iterator[tuple[Row, str] | Other]:
    """Yield each row with its image's path; items that are no rows are handed on.

    Names are compared after `fold`, then exactly where that finds several images. Equal rows for one
    image count once, with a finding; rows that differ are one if `pool` makes one of them, else they reject
    the image. Rows wait on disk, as those for one image may stand anywhere.
    """
    waiting = Spill(_NAMED)
    for row in rows:
        if isinstance(row, Row):
            waiting.add({"row": _pack(row), "folded": fold(row.image), "where": row.where})
        else:
            yield row
    paths = Paths(images)
    targets, several = _find_targets(waiting, paths, fold)
    for target, same in groupby(_by_target(waiting, targets), itemgetter(0)):
        together = [row for _, row in same]
        if target < len(paths):
            found = [paths[target]]
        else:
            found = _candidates(together[0], several.get(fold(together[0].image), []))
        yield from _pair(found, together, pool)


def _find_targets(
    waiting: Spill, paths: Paths, fold: Callable[[str], str]
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Return a number per row, equal for rows that belong together, and the images that share a name.

    It is the image's place in `paths` if there is one image, else comes after those.
    """
    folded = _texts(map(fold, paths))
    counts = pc.value_counts(folded)
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    several: dict[str, list[str]] = {}
    for at in np.flatnonzero(pc.is_in(folded, shared)).tolist():
        several.setdefault(folded[at].as_py(), []).append(paths[at])
    names = waiting.column("folded")
    targets = pc.fill_null(pc.index_in(names, folded), -1).to_numpy().astype(np.int64)
    doubtful = pc.is_in(names, shared).to_numpy(zero_copy_only=False)
    start = 0
    for part in waiting.read(["row"]) if several else ():
        for at in (start + np.flatnonzero(doubtful[start : start + len(part)])).tolist():
            row = _unpack(part["row"][at - start].as_py())
            found = _candidates(row, several[names[at].as_py()])
            targets[at] = bisect_left(paths, found[0]) if len(found) == 1 else -1
        start += len(part)
    missing = targets < 0
    if missing.any():
        where = waiting.column("where").filter(pa.array(missing))
        targets[missing] = len(paths) + where.dictionary_encode().indices.to_numpy()
    return targets, several


def _texts(texts: Iterable[str]) -> pa.Array:
    """Return texts as one Arrow array; few of them are Python's at a time."""
    spill = Spill(pa.schema([("text", pa.string())]))
    for text in texts:
        spill.add({"text": text})
    return spill.column("text")


def _by_target(waiting: Spill, targets: np.ndarray) -> Iterator[tuple[int, Row]]:
    """Yield the rows of each target together, in the order of the first one of each."""
    _, first, which = np.unique(targets, return_index=True, return_inverse=True)
    rank = np.empty(len(targets), np.int64)
    rank[np.argsort(first[which], kind="stable")] = np.arange(len(targets))

    def parts() -> Iterator[tuple[pa.Table, np.ndarray]]:
        start = 0
        for part in waiting.read(["row"]):
            rows = slice(start, start + len(part))
            yield part.append_column("target", pa.array(targets[rows])), rank[rows]
            start += len(part)

    for table in in_order(parts(), _TARGETED, len(targets)):
        for target, row in zip(table["target"].to_pylist(), table["row"].to_pylist(), strict=True):
            yield target, _unpack(row)


def _pack(row: Row) -> bytes:
    return pickle.dumps((row.table, row.key, row.image, row.cells))  # a third of the time of `row` itself


def _unpack(packed: bytes) -> Row:
    return Row(*pickle.loads(packed))


def _candidates(row: Row, found: list[str]) -> list[str]:
    exact = [path for path in found if row.image in (path, PurePosixPath(path).stem)]
    return exact if len(exact) == 1 else found


def _pair(found: list[str], rows: list[Row], pool: Pool | None) -> Iterator[tuple[Row, str] | Other]:
    first = rows[0]
    if not found:
        yield Reject(first.where, Reason.MISSING_IMAGE, f"rated, but there is no image {first.image!r}")
    elif len(found) > 1:
        detail = f"which image was rated is unknown: {', '.join(sorted(found))}"
        yield Reject(first.where, Reason.BAD_NAME, detail)
    elif any(row.cells != first.cells for row in rows):
        pooled = pool(rows) if pool else None
        detail = f"{len(rows)} rows for it, which differ: {', '.join(row.where for row in rows)}"
        if pooled is None:
            yield Reject(found[0], Reason.CONFLICTING_RATING, detail)
        else:
            yield Finding("averaged", f"{found[0]}: {detail}; their means are taken")
            yield pooled, found[0]
    else:
        if len(rows) > 1:
            yield Finding("repeated_row", f"{first.where} is there {len(rows)} times, word for word")
        yield first, found[0]
