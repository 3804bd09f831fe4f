"""Records and their images, joined: every image is looked at once, and the rows come out in order.

In: the labels of a source on disk and the files. Out: rows sorted by `image_id`, and near-duplicates. Memory
holds some 200 bytes an image: its path, its hashes, its place in the two orders (by path, by image_id).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.images.duplicates import codes_of, describe_edges, find_first_of_group, find_pairs, hash_views
from affectdata.images.phash import VIEWS
from affectdata.images.probe import PROBED, Probe
from affectdata.manifest.items import LABELS, Items, spread_emotions
from affectdata.manifest.memo import Memo
from affectdata.records import RATINGS, Finding, Reason, Reject
from affectdata.schema import REJECTS, manifest_schema
from affectdata.store.spill import in_order
from affectdata.workers import map_ordered

_BATCH = 16  # images probed per call
_PAIRS = 1 << 10  # merged images held as Python objects at once
_LABEL = ("subtype", "emotion", *(f"{name}{part}" for name in RATINGS for part in ("_raw", "_sd", "_n")))
_SEEN = [name for name in PROBED.names if name not in ("path", "reason", "detail")]
_GROUP = "group"  # the place of the record that a group is called by
_SEEN_SCHEMA = pa.schema([*(PROBED.field(name) for name in _SEEN), (_GROUP, pa.int64())])


def probe_all(
    memo: Memo, probe: Probe, rehash: bool, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    """See to it that the memo has every image: those that it lacks are opened."""
    todo = memo.recall(believe=not rehash)
    starts = range(0, len(todo), _BATCH)
    batches = (pa.table({"path": memo.paths.take(pa.array(todo[at : at + _BATCH]))}) for at in starts)
    n_done = len(memo.paths) - len(todo)
    for start, result in zip(starts, map_ordered(probe, batches, workers), strict=True):
        memo.add(result, todo[start : start + _BATCH])
        n_done += len(result)
        if progress:
            progress(n_done, len(memo.paths))


def order_by_path(items: Items, others: pa.Array | None = None) -> tuple[pa.Array, np.ndarray]:
    """Return the paths of all records, and `others`, sorted, and of each record its place among them."""
    named = items.labels.column("path")
    if others is not None:
        paths = pc.unique(pa.concat_arrays([named, others]))
        paths = paths.take(pc.sort_indices(paths))
        return paths, find_places(items, paths)
    order = pc.sort_indices(named)
    place = np.empty(len(order), np.int64)
    place[order.to_numpy()] = np.arange(len(order))
    return named.take(order), place


def find_places(items: Items, paths: pa.Array) -> np.ndarray:
    """Return of each record its place among paths."""
    places: np.ndarray = pc.index_in(items.labels.column("path"), paths).to_numpy().astype(np.int64)
    return places


class Joined:
    """The records that have an image, one per image; the others become rejects.

    Of records with the same bytes the first by path is kept. `place` is the place of each record among the
    paths of the memo, which may have others. `rank` is the place of each path among the rows, negative where
    it is none.
    """

    def __init__(self, items: Items, memo: Memo, place: np.ndarray) -> None:
        self._items, self._memo, self._place = items, memo, place
        n = len(memo.paths)
        self._ids, self._pixels = np.zeros(n, "S32"), np.zeros(n, "S16")
        self._views = np.zeros((n, len(VIEWS)), np.uint64)
        good = self._read_hashes()
        if items.info.placeholder_names:
            self._drop_placeholders(good, items.info.placeholder_names)
        rows = np.flatnonzero(good)
        _, first, same = np.unique(self._ids[rows], return_index=True, return_inverse=True)
        order = rows[first]  # by image_id
        self._rank = np.full(n, -1)
        self._rank[order] = np.arange(len(order))
        again = self._rank[rows] < 0
        self._merge(rows[again], order[same[again]])
        self._rows = np.sort(order)  # by path

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self, rows: np.ndarray | slice = slice(None)) -> pa.Array:
        """Return the image_id of rows, which are numbered by path."""
        return self._hex(self._rows[rows])

    def _hex(self, at: np.ndarray) -> pa.Array:
        digits = np.frombuffer(self._ids[at].tobytes().hex().encode(), "S64")
        return pa.array(digits, pa.binary()).cast(pa.string())

    def _read_hashes(self) -> np.ndarray:
        good, named = np.zeros((2, len(self._memo.paths)), bool)
        named[self._place] = True
        for part, at in self._memo.read():
            part, at = part.filter(pa.array(named[at])), at[named[at]]
            bad = part.filter(pc.is_valid(part["reason"]))
            self._items.rejects.append(bad.select(REJECTS.names).cast(REJECTS))
            is_good = pc.is_null(part["reason"])
            part, at = part.filter(is_good), at[is_good.to_numpy()]
            good[at] = True
            self._ids[at], self._pixels[at] = _bytes(part["image_id"], 32), _bytes(part["pixel_id"], 16)
            self._views[at] = hash_views(part)
        return good

    def _drop_placeholders(self, good: np.ndarray, least: int) -> None:
        """Reject images whose same pixels bear at least `least` file names."""
        rows = np.flatnonzero(good)
        codes = np.unique(self._pixels[rows], return_inverse=True)[1]
        names = pc.replace_substring_regex(self._memo.paths.take(pa.array(rows)), r"(?s)^.*/", "")
        by_code = (
            pa.table({"code": codes, "name": names}).group_by("code").aggregate([("name", "count_distinct")])
        )
        n_names = np.zeros(len(by_code), np.int64)
        n_names[by_code["code"].to_numpy()] = by_code["name_count_distinct"].to_numpy()
        for row, n in zip(rows.tolist(), n_names[codes].tolist(), strict=True):
            if n >= least:
                good[row] = False
                detail = f"the same image bears {n} names: what a site shows where a photograph is gone"
                self._items.reject(Reject(self._memo.paths[row].as_py(), Reason.PLACEHOLDER, detail))

    def _merge(self, again: np.ndarray, kept: np.ndarray) -> None:
        """Reject the records at `again`, whose images are those of `kept`; say where labels differ."""
        asked = np.union1d(again, kept)
        told = self._labels_at(asked)
        for start in range(0, len(again), _PAIRS):
            here, there = (
                told.take(pa.array(np.searchsorted(asked, each[start : start + _PAIRS]))).to_pylist()
                for each in (again, kept)
            )
            for one, other in zip(here, there, strict=True):
                self._merge_pair(one, other)

    def _labels_at(self, asked: np.ndarray) -> pa.Table:
        """Return path and labels of the records at these places, in their order."""
        columns = ["path", *_LABEL]
        parts, places = [LABELS.empty_table().select(columns)], [np.zeros(0, np.int64)]
        for part, place in self._labels(columns) if len(asked) else ():
            wanted = np.isin(place, asked)
            parts.append(part.select(columns).filter(pa.array(wanted)))
            places.append(place[wanted])
        return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))

    def _merge_pair(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        path, detail = one["path"], f"the same bytes as {other['path']}"
        if any(one[name] != other[name] for name in _LABEL):
            detail += f", labelled differently: {_label(one)} here, {_label(other)} there"
            text = f"{path}: {detail}; the row keeps those of {other['path']}"
            self._items.findings.append(Finding("conflict", text))
        self._items.merge(path, detail)

    def _labels(self, columns: list[str] | None = None) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the labels of all records as the source gave them, and their places by path."""
        start = 0
        for part in self._items.labels.read(columns):
            yield part, self._place[start : start + len(part)]
            start += len(part)

    def find_edges(self) -> pa.Table:
        """Find the images that look alike."""
        pixels = np.unique(self._pixels[self._rows], return_inverse=True)[1]
        self._pairs = find_pairs(self._views[self._rows], pixels, self._rank[self._rows])
        self._views, self._pixels = self._views[:0].copy(), self._pixels[:0].copy()  # not looked at again
        return describe_edges(self._pairs, self.ids)

    def _first_of_groups(self) -> np.ndarray:
        """Return for each row, by image_id, the place of that which its group is called by."""
        record_at = np.full(len(self._rank), -1)
        record_at[self._place] = np.arange(len(self._place))
        record = record_at[self._rows]
        names = {"subject_id", *self._items.info.groups} & set(LABELS.names)
        together = (codes_of(self._items.labels.column(name))[record] for name in names)
        by_id = np.argsort(self._rank[self._rows])
        first = find_first_of_group(by_id, self._pairs[:, :2], together)
        called: np.ndarray = self._rows[first[by_id]]
        return called

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows of the manifest, by image_id."""
        emotions = self._items.emotions
        schema = manifest_schema(emotions)
        groups = self._first_of_groups()
        labels = ((spread_emotions(part, emotions), self._rank[place]) for part, place in self._labels())
        seen = (
            (part.select(_SEEN).append_column(_GROUP, pa.array(groups[self._rank[at]])), self._rank[at])
            for part, at in self._memo.read()
        )

        def join(one: pa.Table, other: pa.Table) -> pa.Table:
            columns = {name: table[name] for table in (one, other) for name in table.column_names}
            columns["group_id"] = self._hex(columns[_GROUP].to_numpy())
            return pa.table([columns[name] for name in schema.names], schema=schema)

        return map(
            join,
            in_order(labels, spread_emotions(LABELS.empty_table(), emotions).schema, len(self)),
            in_order(seen, _SEEN_SCHEMA, len(self)),
        )


def _bytes(digits: pa.ChunkedArray, width: int) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(digits.to_pylist())), f"S{width}")


def _label(row: dict[str, Any]) -> str:
    ratings = [f"{name} {row[f'{name}_raw']:g}" for name in RATINGS if row[f"{name}_raw"] is not None]
    return " ".join(filter(None, [row["subtype"], row["emotion"], *ratings])) or "no label"
