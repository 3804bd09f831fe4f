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
from affectdata.records import Annotation, Finding, Reason, Reject, count_text
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


_SHOWN = 3  # examples in a finding
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
    any_zeros: bool = False,
) -> Iterator[tuple[Row, str] | NonRow]:
    """Yield each row with the path of its image, like `join_groups`.

    Equal rows for one image count once, with a finding; different rows for one image are merged by `pool`,
    and without a merged row the image is rejected.
    """
    for group in join_groups(rows, images, fold, others, any_zeros):
        if isinstance(group, tuple):
            yield from _merge(*group, pool)
        else:
            yield group


def join_groups(
    rows: Iterable[Row | NonRow],
    images: Iterable[str],
    fold: Callable[[str], str],
    others: Container[str] = (),
    any_zeros: bool = False,
) -> Iterator[tuple[list[Row], str] | NonRow]:
    """Yield the rows of each image with its path; other items are passed through.

    Names are compared after `fold`; of several images with the same folded name, or rows with names that fold
    to the same image, those whose paths have the longest common ending belong together. With `any_zeros`, a
    name that matches no image is then compared without leading zeros of its numbers, and joined if it and the
    image are the only ones alike. Rows are spilled to disk, as those for one image may be far apart.
    """
    spilled = Spill(_NAMED)
    for row in rows:
        if isinstance(row, Row):
            spilled.add({"row": _pack(row), "folded": fold(row.image), "where": row.where})
        else:
            yield row
    paths = Paths(images)
    targets, several, without_zeros = _find_targets(spilled, paths, fold, any_zeros)
    if without_zeros:
        shown = ", ".join(f"{name!r} with {path!r}" for name, path in without_zeros[:_SHOWN])
        more = ", …" if len(without_zeros) > _SHOWN else ""
        text = (
            f"{count_text(len(without_zeros), 'name', 'are')} joined in spite of leading zeros: {shown}{more}"
        )
        yield Finding("leading_zeros", text)
    for target, group in groupby(_by_target(spilled, targets), itemgetter(0)):
        same_image = [row for _, row in group]
        if target < len(paths):
            candidates = [paths[target]]
        else:
            candidates = _narrow(same_image[0], several.get(fold(same_image[0].image), []))
        if len(candidates) == 1:
            nearest, farther = _nearest(same_image, candidates[0])
            yield nearest, candidates[0]
            yield from (_without_image(row, [], others) for row in farther)
        else:
            yield _without_image(same_image[0], candidates, others)


def _find_targets(
    spilled: Spill, paths: Paths, fold: Callable[[str], str], any_zeros: bool
) -> tuple[np.ndarray, dict[str, list[str]], list[tuple[str, str]]]:
    """Return a target per row, equal for rows of one image, the images that share a folded name, and names
    with their images that differ in leading zeros.

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
    without_zeros = _match_without_zeros(names, folded, targets) if any_zeros else {}
    for name, index in without_zeros.items():
        targets[pc.equal(names, name).to_numpy(zero_copy_only=False)] = index
    missing = targets < 0
    if missing.any():
        where = spilled.column("where").filter(pa.array(missing))
        targets[missing] = len(paths) + where.dictionary_encode().indices.to_numpy()
    return targets, several, [(name, paths[index]) for name, index in without_zeros.items()]


def _match_without_zeros(names: pa.Array, folded: pa.Array, targets: np.ndarray) -> dict[str, int]:
    """Return images by names without one, where exactly one of each is equal but for leading zeros."""
    missing = pc.unique(names.filter(pa.array(targets < 0)))
    missing = missing.filter(pc.invert(pc.is_in(missing, folded)))
    alike = pc.index_in(_without_zeros(missing), pc.unique(_without_zeros(folded)))
    missing = missing.filter(pc.is_valid(alike))
    if not len(missing):
        return {}
    by_image: dict[str, list[int]] = {}
    stripped = _without_zeros(missing)
    for index in np.flatnonzero(pc.is_in(_without_zeros(folded), stripped)).tolist():
        by_image.setdefault(_without_zeros(folded[index : index + 1])[0].as_py(), []).append(index)
    by_name: dict[str, list[str]] = {}
    for name, plain in zip(missing.to_pylist(), stripped.to_pylist(), strict=True):
        by_name.setdefault(plain, []).append(name)
    taken = set(targets.tolist())
    return {
        named[0]: by_image[plain][0]
        for plain, named in by_name.items()
        if len(named) == 1 == len(by_image[plain]) and by_image[plain][0] not in taken
    }


def _without_zeros(names: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(names, "(^|[^0-9.])0+([0-9])", r"\1\2")


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


def _nearest(rows: list[Row], path: str) -> tuple[list[Row], list[Row]]:
    """Return the rows whose names have the longest common ending with the path, and one row of each other."""
    names = {row.image for row in rows}
    if len(names) == 1:
        return rows, []
    endings = {name: common_ending(name, path) for name in names}
    longest = max(endings.values())
    nearest = [row for row in rows if endings[row.image] == longest]
    return nearest, list({row.where: row for row in rows if endings[row.image] < longest}.values())


def _without_image(row: Row, candidates: list[str], others: Container[str]) -> Reject:
    if candidates:
        detail = f"several images match: {', '.join(sorted(candidates))}"
        return Reject(row.where, Reason.BAD_NAME, detail)
    if row.image in others:
        detail = f"{row.image!r} exists, but is not an image by its suffix or content"
        return Reject(row.where, Reason.UNREADABLE, detail)
    return Reject(row.where, Reason.MISSING_IMAGE, f"rated, but there is no image {row.image!r}")


def _merge(rows: list[Row], path: str, pool: Pool | None) -> Iterator[tuple[Row, str] | NonRow]:
    first = rows[0]
    if any(row.cells != first.cells for row in rows):
        pooled = pool(rows) if pool else None
        where = list(dict.fromkeys(row.where for row in rows))
        shown = ", ".join(where[:_SHOWN]) + (", …" if len(where) > _SHOWN else "")
        detail = f"{len(rows)} different rows for it: {shown}"
        if pooled is None:
            yield Reject(path, Reason.CONFLICTING_RATING, detail)
        else:
            yield Finding("averaged", f"{path}: {detail}")
            yield pooled, path
    else:
        if len(rows) > 1:
            yield Finding("repeated_row", f"{first.where} has {len(rows)} identical rows")
        yield first, path
