"""Which pictures belong together: the same pixels, near-duplicates, the same subject or declared group.

In: the columns of a manifest. Out: edges (`schema.EDGES`) and `group_id`. Nothing here opens a picture.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from affectdata.hashing import VIEWS
from affectdata.near import find_near
from affectdata.schema import EDGES

MAX_BITS = 6  # Hamming distance of two pHashes up to which pictures are near-duplicates
KINDS = ("same_pixels", "near_duplicate")
_UNDONE_BY = np.array([VIEWS.index({"turn_90": "turn_270", "turn_270": "turn_90"}.get(v, v)) for v in VIEWS])
_SEPARATOR = "\x1f"  # in no source's name
_CELLS = 1 << 16  # distances held at once
_ROWS = 1 << 16  # rows whose hashes are read at once


def find_edges(table: pa.Table, max_bits: int = MAX_BITS) -> pa.Table:
    """Find the pairs with the same pixels, and the near-duplicates over all eight flips and turns.

    `table` has `image_id`, `pixel_id`, `phash`, `phash_views`. Pictures with equal hashes are linked in a
    chain, not each with each: the groups are the same and a large cluster costs no more than its size.
    """
    same, equal = _chains(table["pixel_id"]), _chains(table["phash"])
    near = _near_duplicates(hash_views(table), max_bits)
    # Columns: two rows, kind, bits, view. Same pixels come first and stay.
    found = np.concatenate([_of_kind(same, 0), _of_kind(equal, 1), near])
    rank = np.empty(len(table), np.int64)
    rank[pc.sort_indices(table["image_id"]).to_numpy()] = np.arange(len(table))
    swapped = rank[found[:, 0]] > rank[found[:, 1]]
    found[swapped, :2] = found[swapped, 1::-1]
    found[swapped, 4] = _UNDONE_BY[found[swapped, 4]]
    found = _first_of_pair(found, rank[found[:, 0]], rank[found[:, 1]])
    first, second = (table["image_id"].take(pa.array(found[:, side])) for side in (0, 1))
    kinds, views = (pa.array(names).take(pa.array(found[:, at])) for names, at in ((KINDS, 2), (VIEWS, 4)))
    bits = pa.array(found[:, 3]).cast(EDGES.field("distance_bits").type)
    return pa.table([first, second, kinds, bits, views], schema=EDGES)


def _of_kind(pairs: np.ndarray, kind: int) -> np.ndarray:
    return np.column_stack([pairs, np.full(len(pairs), kind), np.zeros((len(pairs), 2), np.int64)])


def _first_of_pair(found: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sort by pair and leave the first row of each."""
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    again = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    kept: np.ndarray = found[order[np.concatenate([[True], ~again])[: len(order)]]]
    return kept


def _near_duplicates(views: np.ndarray, max_bits: int) -> np.ndarray:
    """Compare the first row of every hash with the views of later ones; the nearest view counts."""
    _, rows = np.unique(views[:, 0], return_index=True)
    rows.sort()
    views = views[rows]
    upright, turned = views[:, 0].copy(), views[:, 1:].ravel()
    parts = [(i, j, 0 * j) for i, j in find_near(upright, None, max_bits, _CELLS)]
    for i, flat in find_near(upright, turned, max_bits, _CELLS):
        j, view = np.divmod(flat, len(VIEWS) - 1)
        parts.append((i[i < j], j[i < j], view[i < j] + 1))
    i, j, view = np.concatenate([np.zeros((3, 0), np.int64), *map(np.array, parts)], axis=1)
    bits = np.bitwise_count(views[i, 0] ^ views[j, view])
    order = np.lexsort((view, bits))
    found = np.column_stack([rows[i], rows[j], np.ones_like(i), bits, view])[order]
    return _first_of_pair(found, i[order], j[order])


def hash_views(table: pa.Table) -> np.ndarray:
    """Return the pHashes of every row's eight views as uint64, (rows, 8), in the order of `VIEWS`."""
    views = np.empty((len(table), len(VIEWS)), np.uint64)
    for start in range(0, len(table), _ROWS):
        part = table.slice(start, _ROWS)
        digits = "".join(pc.binary_join_element_wise(part["phash"], part["phash_views"], "").to_pylist())
        views[start : start + _ROWS] = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, len(VIEWS))
    return views


def _chains(column: pa.ChunkedArray) -> np.ndarray:
    """Link each row with the next one of equal value, (links, 2); null equals nothing."""
    codes = pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy(
        zero_copy_only=False
    )
    order = np.argsort(codes, kind="stable")
    equal = (codes[order][1:] == codes[order][:-1]) & (codes[order][1:] >= 0)
    return np.column_stack([order[:-1][equal], order[1:][equal]])


def _subjects(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["source"], table["subject_id"], _SEPARATOR)  # null stays null


def assign_groups(table: pa.Table, edges: pa.Table, columns: Iterable[str] = ()) -> pa.Table:
    """Set `group_id` to the smallest image_id of each row's component.

    Rows hang together by an edge, or by an equal value (not null) in one of `columns` or, within a source, in
    `subject_id`: subject 1 of one source is not that of another.
    """
    ids = table["image_id"]
    by_edge = [pc.index_in(edges[side], ids).to_numpy() for side in ("image_id_a", "image_id_b")]
    links = [np.column_stack(by_edge)]
    for column in {"subject_id", *columns} & set(table.column_names):
        links.append(_chains(_subjects(table) if column == "subject_id" else table[column]))
    n = table.num_rows
    ends = np.concatenate(links)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    by_id = pc.sort_indices(ids).to_numpy()
    _, smallest = np.unique(component[by_id], return_index=True)
    groups = ids.take(pa.array(by_id[smallest[component]]))
    field = pa.field("group_id", pa.string(), nullable=False)
    if "group_id" in table.column_names:
        return table.set_column(table.column_names.index("group_id"), field, groups)
    return table.append_column(field, groups)
