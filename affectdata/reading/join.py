"""Join rating rows with images: every row becomes a pair, a reject or one of several equal rows."""

from __future__ import annotations

import pickle
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, takewhile
from operator import itemgetter
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.reading.names import fold_path
from affectdata.reading.tree import Paths
from affectdata.records import Annotation, Finding, Reason, Reject
from affectdata.store.spill import Spill, iter_by_rank


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `table`: `key` as in the table, `image` the name to look for, `cells` by column."""

    table: str
    key: str
    image: str
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """Table and key, for messages and rejects."""
        return f"{self.table}#{self.key}"


NonRow: TypeAlias = Reject | Annotation | Finding
Pool: TypeAlias = Callable[[list[Row]], Row | None]
_NAMED = pa.schema(
    [("row", pa.binary()), ("folded", pa.string()), ("where", pa.string())]
)  # rows are pickled
_TARGETED = pa.schema([_NAMED.field("row"), ("target", pa.int64())])


def join_rows(
    rows: Iterable[Row | NonRow],
    images: Iterable[str],
    fold: Callable[[str], str],
    pool: Pool | None = None,
    others: Container[str] = (),
) -> Iterator[tuple[Row, str] | NonRow]:
    """Yield each row with the path of its image; other items are passed through.

    Names are compared after `fold`; of several images with the same folded name, or rows with names that fold
    to the same image, those whose paths have the longest common ending belong together. Equal rows for one
    image count once, with a finding; different rows for one image are merged by `pool`, and without a merged
    row the image is rejected. Rows are spilled to disk, as those for one image may be far apart.
    """
    spilled = Spill(_NAMED)
    for row in rows:
        if isinstance(row, Row):
            spilled.add({"row": _pack(row), "folded": fold(row.image), "where": row.where})
        else:
            yield row
    paths = Paths(images)
    targets, several = _find_targets(spilled, paths, fold)
    for target, group in groupby(_by_target(spilled, targets), itemgetter(0)):
        same_image = [row for _, row in group]
        if target < len(paths):
            candidates = [paths[target]]
        else:
            candidates = _narrow(same_image[0], several.get(fold(same_image[0].image), []))
        for item in _pair(candidates, same_image, pool):
            if (
                isinstance(item, Reject)
                and item.reason == Reason.MISSING_IMAGE
                and same_image[0].image in others
            ):
                detail = f"{same_image[0].image!r} exists, but is no image by its suffix or content"
                item = Reject(item.path, Reason.UNREADABLE, detail)
            yield item


def _find_targets(
    spilled: Spill, paths: Paths, fold: Callable[[str], str]
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """Return a target per row, equal for rows of one image, and the images that share a folded name.

    The target is the image's index in `paths`; rows without exactly one image have targets >= len(paths).
    """
    folded = _texts(map(fold, paths))
    counts = pc.value_counts(folded)
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    several: dict[str, list[str]] = {}
    for index in np.flatnonzero(pc.is_in(folded, shared)).tolist():
        several.setdefault(folded[index].as_py(), []).append(paths[index])
    names = spilled.column("folded")
    targets = pc.fill_null(pc.index_in(names, folded), -1).to_numpy().astype(np.int64)
    ambiguous = pc.is_in(names, shared).to_numpy(zero_copy_only=False)
    start = 0
    for part in spilled.read(["row"]) if several else ():
        for index in (start + np.flatnonzero(ambiguous[start : start + len(part)])).tolist():
            row = _unpack(part["row"][index - start].as_py())
            candidates = _narrow(row, several[names[index].as_py()])
            targets[index] = bisect_left(paths, candidates[0]) if len(candidates) == 1 else -1
        start += len(part)
    missing = targets < 0
    if missing.any():
        where = spilled.column("where").filter(pa.array(missing))
        targets[missing] = len(paths) + where.dictionary_encode().indices.to_numpy()
    return targets, several


def _texts(texts: Iterable[str]) -> pa.Array:
    """Return texts as one Arrow array, with few of them as Python objects at a time."""
    spill = Spill(pa.schema([("text", pa.string())]))
    for text in texts:
        spill.add({"text": text})
    return spill.column("text")


def _by_target(spilled: Spill, targets: np.ndarray) -> Iterator[tuple[int, Row]]:
    """Yield the rows grouped by target, in the order of the first row of each target."""
    _, first, inverse = np.unique(targets, return_index=True, return_inverse=True)
    rank = np.empty(len(targets), np.int64)
    rank[np.argsort(first[inverse], kind="stable")] = np.arange(len(targets))

    def parts() -> Iterator[tuple[pa.Table, np.ndarray]]:
        start = 0
        for part in spilled.read(["row"]):
            rows = slice(start, start + len(part))
            yield part.append_column("target", pa.array(targets[rows])), rank[rows]
            start += len(part)

    for table in iter_by_rank(parts(), _TARGETED, len(targets)):
        for target, row in zip(table["target"].to_pylist(), table["row"].to_pylist(), strict=True):
            yield target, _unpack(row)


def _pack(row: Row) -> bytes:
    return pickle.dumps((row.table, row.key, row.image, row.cells))  # a third of the time of `row` itself


def _unpack(packed: bytes) -> Row:
    return Row(*pickle.loads(packed))


def _narrow(row: Row, candidates: list[str]) -> list[str]:
    """Return the one image whose path has the longest common ending with the name, else all candidates."""

    def nearness(path: str) -> tuple[int, int, bool]:
        named_exactly = row.image.rpartition("/")[2] in (PurePosixPath(path).name, PurePosixPath(path).stem)
        return common_ending(row.image, path), named_exactly, path == row.image

    best = max(map(nearness, candidates), default=None)
    nearest = [path for path in candidates if nearness(path) == best]
    return nearest if len(nearest) == 1 else candidates


def common_ending(name: str, path: str) -> int:
    """Return how many last parts two paths have in common, without case and suffix of an image.

    >>> common_ending("Run_1/park/a.jpg", "images/run_1/park/A.JPG")
    3
    """
    parts = zip(*(reversed(fold_path(text).split("/")) for text in (name, path)), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], parts))


def _pair(candidates: list[str], rows: list[Row], pool: Pool | None) -> Iterator[tuple[Row, str] | NonRow]:
    if len(candidates) == 1 and any(row.image != rows[0].image for row in rows):
        endings = [common_ending(row.image, candidates[0]) for row in rows]
        farther = [row for row, ending in zip(rows, endings, strict=True) if ending < max(endings)]
        yield from (_missing(row) for row in farther)
        rows = [row for row in rows if row not in farther]
    first = rows[0]
    if not candidates:
        yield _missing(first)
    elif len(candidates) > 1:
        detail = f"several images match: {', '.join(sorted(candidates))}"
        yield Reject(first.where, Reason.BAD_NAME, detail)
    elif any(row.cells != first.cells for row in rows):
        pooled = pool(rows) if pool else None
        detail = f"{len(rows)} different rows for it: {', '.join(row.where for row in rows)}"
        if pooled is None:
            yield Reject(candidates[0], Reason.CONFLICTING_RATING, detail)
        else:
            yield Finding("averaged", f"{candidates[0]}: {detail}; the means are used")
            yield pooled, candidates[0]
    else:
        if len(rows) > 1:
            yield Finding("repeated_row", f"{first.where} has {len(rows)} identical rows")
        yield first, candidates[0]


def _missing(row: Row) -> Reject:
    return Reject(row.where, Reason.MISSING_IMAGE, f"rated, but there is no image {row.image!r}")
