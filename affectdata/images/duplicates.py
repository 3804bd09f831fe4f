"""Find images that belong together: same pixels, near-duplicates, same subject or declared group.

In: the columns of a manifest. Out: edges (`schema.EDGES`) and `group_id`. Nothing here opens an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.images.hamming import MAX_BITS, find_near
from affectdata.images.phash import VIEWS
from affectdata.schema import EDGES
from affectdata.store.chunks import as_one_array
from affectdata.store.spill import Spill
from affectdata.workers import THREADS

KINDS = ("same_pixels", "near_duplicate")
_INVERSE = np.array([VIEWS.index({"turn_90": "turn_270", "turn_270": "turn_90"}.get(v, v)) for v in VIEWS])
_HASHES = ("phash", "phash_views")
_SEPARATOR = "\x1f"  # occurs in no source name
_CELLS = 1 << 16  # distances in memory at once
_ROWS = 1 << 16  # rows whose hashes are read at once


def find_edges(
    table: pa.Table, max_bits: int = MAX_BITS, workers: int = 1, engine: str = THREADS
) -> pa.Table:
    """Find pairs with the same pixels and near-duplicates over all eight flips and rotations.

    `table` has `image_id`, `pixel_id`, `phash`, `phash_views`. Images with equal hashes are linked in a
    chain, not pairwise: the groups are the same, and the cost of a cluster is linear in its size.
    """
    by_id = pc.sort_indices(table["image_id"]).to_numpy()
    rank = _ranks(by_id)
    pairs = find_pairs(hash_views(table), codes_of(table["pixel_id"]), rank, max_bits, workers, engine)
    return describe_edges(pairs, lambda rows: table["image_id"].take(pa.array(rows)))


def find_edges_of_sorted(rows: Spill, order: np.ndarray, workers: int = 1, engine: str = THREADS) -> pa.Table:
    """Do the same for rows on disk that are sorted by image_id; `order` is that in which they are compared.

    Which of two images is flipped or rotated depends on that order.
    """
    views = np.concatenate([np.empty((0, len(VIEWS)), np.uint64), *map(hash_views, rows.read(_HASHES))])
    pixels = codes_of(rows.column("pixel_id"))[order]
    pairs = find_pairs(views[order], pixels, order, workers=workers, engine=engine)
    ids = rows.column("image_id")
    return describe_edges(pairs, lambda ends: ids.take(pa.array(order[ends])))


def find_pairs(
    views: np.ndarray,
    pixels: np.ndarray,
    rank: np.ndarray,
    max_bits: int = MAX_BITS,
    workers: int = 1,
    engine: str = THREADS,
) -> np.ndarray:
    """Return edges as integers, (edges, 5): two rows, kind, distance in bits, view.

    `views` are the hashes of each row (rows, 8), `pixels` a code per row, equal for the same pixels and
    negative where unknown, `rank` the rank of each row by image_id. The smaller image_id comes first.
    """
    near = _near_duplicates(views, max_bits, workers, engine)
    same, equal = _chains(pixels), _chains(views[:, 0].view(np.int64), ignore_below=None)
    edges = np.concatenate([_of_kind(same, 0), _of_kind(equal, 1), near])  # same pixels first: they are kept
    swapped = rank[edges[:, 0]] > rank[edges[:, 1]]
    edges[swapped, :2] = edges[swapped, 1::-1]
    edges[swapped, 4] = _INVERSE[edges[swapped, 4]]
    return _first_of_pair(edges, rank[edges[:, 0]], rank[edges[:, 1]])


def find_across(views: np.ndarray, part_of: np.ndarray, max_bits: int = MAX_BITS) -> np.ndarray:
    """Return the rows that are near-duplicates of a row of another, larger part, sorted.

    Which of two images `find_pairs` rotates depends on the order of its rows. Here both directions must be
    within `max_bits`, so that images which it grouped are never reported, whatever the order of its rows.
    """
    parts, sizes = np.unique(part_of, return_counts=True)
    ordered = [np.flatnonzero(part_of == part) for part in parts[np.argsort(-sizes, kind="stable")]]
    near = [np.empty(0, np.int64)]
    for number, rows in enumerate(ordered[1:], 1):
        larger = np.concatenate(ordered[:number])
        upright, first = np.unique(views[larger, 0], return_index=True)
        larger, own = larger[first], views[rows]
        for i, flat in find_near(upright, own.ravel(), max_bits, _CELLS):
            j, view = np.divmod(flat, len(VIEWS))
            apart = np.bitwise_count(views[larger[i], _INVERSE[view]] ^ own[j, 0])
            near.append(rows[np.unique(j[apart <= max_bits])])
    return np.unique(np.concatenate(near))


def describe_edges(edges: np.ndarray, ids: Callable[[np.ndarray], pa.Array]) -> pa.Table:
    """Return edges (`find_pairs`) as a table; `ids` returns the image_id of rows."""
    kinds, views = pa.array(KINDS).take(pa.array(edges[:, 2])), pa.array(VIEWS).take(pa.array(edges[:, 4]))
    bits = pa.array(edges[:, 3]).cast(EDGES.field("distance_bits").type)
    return pa.table([ids(edges[:, 0]), ids(edges[:, 1]), kinds, bits, views], schema=EDGES)


def _ranks(order: np.ndarray) -> np.ndarray:
    """Return the rank of each row in an order."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _of_kind(pairs: np.ndarray, kind: int) -> np.ndarray:
    return np.column_stack([pairs, np.full(len(pairs), kind), np.zeros((len(pairs), 2), np.int64)])


def _first_of_pair(edges: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sort edges by pair and keep the first edge of each pair."""
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    repeated = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
    kept: np.ndarray = edges[order[np.concatenate([[True], ~repeated])[: len(order)]]]
    return kept


def _near_duplicates(views: np.ndarray, max_bits: int, workers: int = 1, engine: str = THREADS) -> np.ndarray:
    """Compare the first row of every distinct hash with the views of later ones; keep the nearest view."""
    _, rows = np.unique(views[:, 0], return_index=True)
    rows.sort()
    upright, turned = views[rows, 0], views[rows, 1:].ravel()
    parts = [(i, j, 0 * j) for i, j in find_near(upright, None, max_bits, _CELLS, workers, engine)]
    for i, flat in find_near(upright, turned, max_bits, _CELLS, workers, engine):
        j, view = np.divmod(flat, len(VIEWS) - 1)
        parts.append((i[i < j], j[i < j], view[i < j] + 1))
    i, j, view = np.concatenate([np.zeros((3, 0), np.int64), *map(np.array, parts)], axis=1)
    bits = np.bitwise_count(upright[i] ^ views[rows[j], view])
    order = np.lexsort((view, bits))
    edges = np.column_stack([rows[i], rows[j], np.ones_like(i), bits, view])[order]
    return _first_of_pair(edges, i[order], j[order])


def hash_views(table: pa.Table) -> np.ndarray:
    """Return the pHashes of every row's eight views as uint64, (rows, 8), in the order of `VIEWS`."""
    views = np.empty((len(table), len(VIEWS)), np.uint64)
    for start in range(0, len(table), _ROWS):
        part = table.slice(start, _ROWS)
        digits = "".join(pc.binary_join_element_wise(part["phash"], part["phash_views"], "").to_pylist())
        views[start : start + _ROWS] = np.frombuffer(bytes.fromhex(digits), ">u8").reshape(-1, len(VIEWS))
    return views


def codes_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return an integer code per row, equal for equal values; -1 for null."""
    column = as_one_array(column) if isinstance(column, pa.ChunkedArray) else column
    indices = column.dictionary_encode().indices
    codes: np.ndarray = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)
    return codes


def _chains(codes: np.ndarray, ignore_below: int | None = 0) -> np.ndarray:
    """Link each row with the next row of equal code, (links, 2)."""
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    equal = codes[1:] == codes[:-1]
    if ignore_below is not None:
        equal &= codes[1:] >= ignore_below
    return np.column_stack([order[:-1][equal], order[1:][equal]])


def _within_source(table: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["source"], table[name], _SEPARATOR)  # null stays null


def assign_groups(table: pa.Table, edges: pa.Table, columns: Iterable[str] = ()) -> pa.Table:
    """Set `group_id` to the smallest image_id of each row's component.

    Rows are connected by an edge, or by an equal value (not null) in one of `columns` or, within a source, in
    `subject_id`: subject 1 of one source is not subject 1 of another.
    """
    ids = table["image_id"]
    by_edge = [pc.index_in(edges[side], ids).to_numpy() for side in ("image_id_a", "image_id_b")]
    together = [
        codes_of(_within_source(table, name) if name == "subject_id" else table[name])
        for name in {"subject_id", *columns} & set(table.column_names)
    ]
    first = find_first_of_group(pc.sort_indices(ids).to_numpy(), np.column_stack(by_edge), together)
    groups = ids.take(pa.array(first))
    field = pa.field("group_id", pa.string(), nullable=False)
    if "group_id" in table.column_names:
        return table.set_column(table.column_names.index("group_id"), field, groups)
    return table.append_column(field, groups)


def find_components(
    table: pa.Table, columns: Iterable[str] = (), declared: Iterable[str] = (), max_bits: int = MAX_BITS
) -> np.ndarray:
    """Return a number per row, less than the number of rows, equal for rows that must stay together.

    Rows stay together if they have the same image, the same pixels, are near-duplicates, have the same
    `group_id` (or the image_id of one is the group_id of the other), or have an equal value of `columns` or,
    within a source, of `declared` and `subject_id`. An image may be in several rows.
    """
    by_id = pc.sort_indices(table["image_id"]).to_numpy()
    pairs = find_pairs(hash_views(table), codes_of(table["pixel_id"]), _ranks(by_id), max_bits)
    named_by = pc.fill_null(pc.index_in(table["group_id"], as_one_array(table["image_id"])), -1).to_numpy()
    rows = np.flatnonzero(named_by >= 0)
    links = np.concatenate([pairs[:, :2], np.column_stack([rows, named_by[rows]])])
    within = {"subject_id", *({*declared} - {*columns})}
    together = [codes_of(table[name]) for name in {"image_id", "group_id", *columns} - within]
    together += [codes_of(_within_source(table, name)) for name in within]
    return find_first_of_group(by_id, links, together).astype(np.int64)


def find_first_of_group(by_id: np.ndarray, links: np.ndarray, together: Iterable[np.ndarray]) -> np.ndarray:
    """Return for each row the row of its component that has the smallest image_id.

    `by_id` are the rows in the order of their image_id, `links` pairs of rows (links, 2); each array in
    `together` is a code per row that connects rows where it is equal and not negative.
    """
    ends = _ranks(by_id)[np.concatenate([links, *map(_chains, together)])]
    first: np.ndarray = by_id[_smallest_of_component(len(by_id), ends)[_ranks(by_id)]]
    return first


def _smallest_of_component(n: int, links: np.ndarray) -> np.ndarray:
    """Return for each node 0 … n - 1 the smallest node of its component.

    Every root takes the smallest label across its links, then labels follow their own until nothing changes:
    a few rounds, however long a chain is. SciPy's `connected_components` costs .26 s to import.
    """
    label = np.arange(n)
    while True:
        lowest = label[links].min(axis=1)
        new = label.copy()
        for side in (0, 1):
            np.minimum.at(new, label[links[:, side]], lowest)
        while not np.array_equal(new, further := new[new]):
            new = further
        if np.array_equal(new, label):
            return label
        label = new
