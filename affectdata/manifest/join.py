"""Join records with their images: every image is probed once, and rows are yielded in order.

In: the labels of a source on disk and the files. Out: rows sorted by `image_id`, and near-duplicates. Memory
holds some 200 bytes per image: its path, its hashes, its rank in two orders (by path, by image_id).
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
from affectdata.manifest.items import LABELS, Items, expand_emotions
from affectdata.manifest.memo import Memo
from affectdata.records import RATINGS, Finding, Reason, Reject
from affectdata.schema import REJECTS, manifest_schema
from affectdata.store.spill import iter_by_rank
from affectdata.workers import THREADS, map_ordered

_BATCH = 16  # images probed per call
_PAIRS = 1 << 10  # merged images as Python objects in memory
_LABEL = ("subtype", "emotion", *(f"{name}{part}" for name in RATINGS for part in ("_raw", "_sd", "_n")))
_IMAGE = [name for name in PROBED.names if name not in ("path", "reason", "detail")]
_GROUP = "group"  # index, by path, of the image after which a group is named
_IMAGE_SCHEMA = pa.schema([*(PROBED.field(name) for name in _IMAGE), (_GROUP, pa.int64())])


def probe_all(
    memo: Memo,
    probe: Probe,
    rehash: bool,
    workers: int,
    progress: Callable[[int, int], None] | None,
    engine: str = THREADS,
) -> None:
    """Add missing and changed images to the memo, or all with `rehash`."""
    todo = memo.stale_files(force=rehash)
    starts = range(0, len(todo), _BATCH)
    batches = (
        pa.table({"path": memo.paths.take(pa.array(todo[start : start + _BATCH]))}) for start in starts
    )
    n_done = len(memo.paths) - len(todo)
    for start, result in zip(starts, map_ordered(probe, batches, workers, engine), strict=True):
        memo.add(result, todo[start : start + _BATCH])
        n_done += len(result)
        if progress:
            progress(n_done, len(memo.paths))


def order_by_path(items: Items, others: pa.Array | None = None) -> tuple[pa.Array, np.ndarray]:
    """Return the sorted paths of all records and `others`, and the index of each record among them."""
    named = items.labels.column("path")
    if others is not None:
        paths = pc.unique(pa.concat_arrays([named, others]))
        paths = paths.take(pc.sort_indices(paths))
        return paths, find_indices(items, paths)
    order = pc.sort_indices(named)
    index = np.empty(len(order), np.int64)
    index[order.to_numpy()] = np.arange(len(order))
    return named.take(order), index


def find_indices(items: Items, paths: pa.Array) -> np.ndarray:
    """Return the index of each record in `paths`."""
    indices: np.ndarray = pc.index_in(items.labels.column("path"), paths).to_numpy().astype(np.int64)
    return indices


class RecordJoin:
    """The records that have an image, one per image; the others become rejects.

    Of records with the same bytes the first by path is kept. `index` is the index of each record in the paths
    of the memo, which may have more. `_rank` is the rank of each path among the rows, negative if it is no
    row.
    """

    def __init__(self, items: Items, memo: Memo, index: np.ndarray) -> None:
        self._items, self._memo, self._index = items, memo, index
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
        repeated = self._rank[rows] < 0
        self._merge(rows[repeated], order[same[repeated]])
        self._rows = np.sort(order)  # by path

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self, rows: np.ndarray | slice = slice(None)) -> pa.Array:
        """Return the image_id of rows, numbered by path."""
        return self._hex(self._rows[rows])

    def _hex(self, index: np.ndarray) -> pa.Array:
        digits = np.frombuffer(self._ids[index].tobytes().hex().encode(), "S64")
        return pa.array(digits, pa.binary()).cast(pa.string())

    def _read_hashes(self) -> np.ndarray:
        good, named = np.zeros((2, len(self._memo.paths)), bool)
        named[self._index] = True
        for part, index in self._memo.read():
            part, index = part.filter(pa.array(named[index])), index[named[index]]
            bad = part.filter(pc.is_valid(part["reason"]))
            self._items.rejects.append(bad.select(REJECTS.names).cast(REJECTS))
            is_good = pc.is_null(part["reason"])
            part, index = part.filter(is_good), index[is_good.to_numpy()]
            good[index] = True
            self._ids[index], self._pixels[index] = _bytes(part["image_id"], 32), _bytes(part["pixel_id"], 16)
            self._views[index] = hash_views(part)
        return good

    def _drop_placeholders(self, good: np.ndarray, least: int) -> None:
        """Reject images whose pixels occur under at least `least` file names."""
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
                detail = f"identical pixels under {n} file names (the site's 'photo unavailable' image)"
                self._items.reject(Reject(self._memo.paths[row].as_py(), Reason.PLACEHOLDER, detail))

    def _merge(self, repeated: np.ndarray, kept: np.ndarray) -> None:
        """Reject the `repeated` records, whose images are those of `kept`; report labels that differ."""
        wanted = np.union1d(repeated, kept)
        labels = self._labels_of(wanted)
        for start in range(0, len(repeated), _PAIRS):
            rejected, first = (
                labels.take(pa.array(np.searchsorted(wanted, side[start : start + _PAIRS]))).to_pylist()
                for side in (repeated, kept)
            )
            for pair in zip(rejected, first, strict=True):
                self._merge_pair(*pair)

    def _labels_of(self, wanted: np.ndarray) -> pa.Table:
        """Return path and labels of the records with these indices, sorted by index."""
        columns = ["path", *_LABEL]
        parts, indices = [LABELS.empty_table().select(columns)], [np.zeros(0, np.int64)]
        for part, index in self._labels(columns) if len(wanted) else ():
            is_wanted = np.isin(index, wanted)
            parts.append(part.select(columns).filter(pa.array(is_wanted)))
            indices.append(index[is_wanted])
        return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(indices))))

    def _merge_pair(self, rejected: dict[str, Any], kept: dict[str, Any]) -> None:
        path, detail = rejected["path"], f"the same bytes as {kept['path']}"
        if any(rejected[name] != kept[name] for name in _LABEL):
            detail += f", labelled differently: {_label(rejected)} here, {_label(kept)} there"
            text = f"{path}: {detail}; the row keeps the labels of {kept['path']}"
            self._items.findings.append(Finding("conflict", text))
        self._items.merge(path, detail)

    def _labels(self, columns: list[str] | None = None) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yield the labels of all records in the order of the source, and their indices by path."""
        start = 0
        for part in self._items.labels.read(columns):
            yield part, self._index[start : start + len(part)]
            start += len(part)

    def find_edges(self, workers: int = 1, engine: str = THREADS) -> pa.Table:
        """Find the images with the same pixels and the near-duplicates."""
        pixels = np.unique(self._pixels[self._rows], return_inverse=True)[1]
        views, rank = self._views[self._rows], self._rank[self._rows]
        self._pairs = find_pairs(views, pixels, rank, workers=workers, engine=engine)
        self._views, self._pixels = self._views[:0].copy(), self._pixels[:0].copy()  # no longer needed
        return describe_edges(self._pairs, self.ids)

    def _first_of_groups(self) -> np.ndarray:
        """Return for each row, by image_id, the index of the image after which its group is named."""
        record_of = np.full(len(self._rank), -1)
        record_of[self._index] = np.arange(len(self._index))
        record = record_of[self._rows]
        names = {"subject_id", "together", *self._items.info.groups} & set(LABELS.names)
        together = (codes_of(self._items.labels.column(name))[record] for name in names)
        by_id = np.argsort(self._rank[self._rows])
        first = find_first_of_group(by_id, self._pairs[:, :2], together)
        named_after: np.ndarray = self._rows[first[by_id]]
        return named_after

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows of the manifest, by image_id."""
        emotions, votes = self._items.emotions, self._items.votes
        schema = manifest_schema(emotions, votes=votes)
        groups = self._first_of_groups()
        labels = (
            (expand_emotions(part, emotions, votes), self._rank[index]) for part, index in self._labels()
        )
        images = (
            (
                part.select(_IMAGE).append_column(_GROUP, pa.array(groups[self._rank[index]])),
                self._rank[index],
            )
            for part, index in self._memo.read()
        )

        def join(left: pa.Table, right: pa.Table) -> pa.Table:
            columns = {name: table[name] for table in (left, right) for name in table.column_names}
            columns["group_id"] = self._hex(columns[_GROUP].to_numpy())
            return pa.table([columns[name] for name in schema.names], schema=schema)

        return map(
            join,
            iter_by_rank(labels, expand_emotions(LABELS.empty_table(), emotions, votes).schema, len(self)),
            iter_by_rank(images, _IMAGE_SCHEMA, len(self)),
        )


def _bytes(digits: pa.ChunkedArray, width: int) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(digits.to_pylist())), f"S{width}")


def _label(row: dict[str, Any]) -> str:
    ratings = [f"{name} {row[f'{name}_raw']:g}" for name in RATINGS if row[f"{name}_raw"] is not None]
    return " ".join(filter(None, [row["subtype"], row["emotion"], *ratings])) or "no label"
