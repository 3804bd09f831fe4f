"""Which images belong together: the same pixels, near-duplicates, the same subject or declared group.

In: the columns of a manifest. Out: edges (`schema.EDGES`) and `group_id`. Nothing here opens an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.images.hamming import find_near
from affectdata.images.phash import VIEWS
from affectdata.schema import EDGES
from affectdata.store.parquet import in_one_piece

MAX_BITS = 6  # Hamming distance of two pHashes up to which images are near-duplicates
KINDS = ("same_pixels", "near_duplicate")
_UNDONE_BY = np.array([VIEWS.index({"turn_90": "turn_270", "turn_270": "turn_90"}.get(v, v)) for v in VIEWS])
_SEPARATOR = "\x1f"  # in no source's name
_CELLS = 1 << 16  # distances held at once
_ROWS = 1 << 16  # rows whose hashes are read at once


def find_edges(table: pa.Table, max_bits: int = MAX_BITS) -> pa.Table:
    """Find the pairs with the same pixels, and the near-duplicates over all eight flips and turns.

    `table` has `image_id`, `pixel_id`, `phash`, `phash_views`. Images with equal hashes are linked in a
    chain, not each with each: the groups are the same and a large cluster costs no more than its size.
    """
    by_id = pc.sort_indices(table["image_id"]).to_numpy()
    found = find_pairs(hash_views(table), codes_of(table["pixel_id"]), _ranks(by_id), max_bits)
    return describe_edges(found, lambda rows: table["image_id"].take(pa.array(rows)))


def find_pairs(
    views: np.ndarray, pixels: np.ndarray, rank: np.ndarray, max_bits: int = MAX_BITS
) -> np.ndarray:
    """Return the edges of rows as numbers: two rows, kind, bits and view of each.

    `views` are the hashes of each row (rows, 8), `pixels` a number per row that is equal for the same pixels,
    negative where it is not known, `rank` the rows' places by image_id. The smaller image_id comes first.
    """
    near = _near_duplicates(views, max_bits)
    same, equal = _chains(pixels), _chains(views[:, 0].view(np.int64), nothing_below=None)
    found = np.concatenate([_of_kind(same, 0), _of_kind(equal, 1), near])  # same pixels come first and stay
    swapped = rank[found[:, 0]] > rank[found[:, 1]]
    found[swapped, :2] = found[swapped, 1::-1]
    found[swapped, 4] = _UNDONE_BY[found[swapped, 4]]
    return _first_of_pair(found, rank[found[:, 0]], rank[found[:, 1]])


def find_across(views: np.ndarray, part_of: np.ndarray, max_bits: int = MAX_BITS) -> np.ndarray:
    """Return the rows that look like a row of another, larger part, sorted.

    Which of two images `find_pairs` turns depends on the order of its rows. Here both ways must be within
    `max_bits`, so that what it put into one group is never apart, in whatever order it saw the rows.
    """
    parts, sizes = np.unique(part_of, return_counts=True)
    ordered = [np.flatnonzero(part_of == part) for part in parts[np.argsort(-sizes, kind="stable")]]
    found = [np.empty(0, np.int64)]
    for number, rows in enumerate(ordered[1:], 1):
        larger = np.concatenate(ordered[:number])
        upright, first = np.unique(views[larger, 0], return_index=True)
        larger, own = larger[first], views[rows]
        for i, flat in find_near(upright, own.ravel(), max_bits, _CELLS):
            j, view = np.divmod(flat, len(VIEWS))
            apart = np.bitwise_count(views[larger[i], _UNDONE_BY[view]] ^ own[j, 0])
            found.append(rows[np.unique(j[apart <= max_bits])])
    return np.unique(np.concatenate(found))


def describe_edges(found: np.ndarray, ids: Callable[[np.ndarray], pa.Array]) -> pa.Table:
    """Return edges as a table; `ids` gives the image_id of rows."""
    kinds, views = (pa.array(names).take(pa.array(found[:, at])) for names, at in ((KINDS, 2), (VIEWS, 4)))
    bits = pa.array(found[:, 3]).cast(EDGES.field("distance_bits").type)
    return pa.table([ids(found[:, 0]), ids(found[:, 1]), kinds, bits, views], schema=EDGES)


def _ranks(order: np.ndarray) -> np.ndarray:
    """Return the place of each row in an order."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


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
    upright, turned = views[rows, 0], views[rows, 1:].ravel()
    parts = [(i, j, 0 * j) for i, j in find_near(upright, None, max_bits, _CELLS)]
    for i, flat in find_near(upright, turned, max_bits, _CELLS):
        j, view = np.divmod(flat, len(VIEWS) - 1)
        parts.append((i[i < j], j[i < j], view[i < j] + 1))
    i, j, view = np.concatenate([np.zeros((3, 0), np.int64), *map(np.array, parts)], axis=1)
    bits = np.bitwise_count(upright[i] ^ views[rows[j], view])
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


def codes_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a number for each row, equal where the values are; -1 for null."""
    column = in_one_piece(column) if isinstance(column, pa.ChunkedArray) else column
    indices = column.dictionary_encode().indices
    codes: np.ndarray = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False)
    return codes


def _chains(codes: np.ndarray, nothing_below: int | None = 0) -> np.ndarray:
    """Link each row with the next one of equal code, (links, 2)."""
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    equal = codes[1:] == codes[:-1]
    if nothing_below is not None:
        equal &= codes[1:] >= nothing_below
    return np.column_stack([order[:-1][equal], order[1:][equal]])


def _within_source(table: pa.Table, name: str) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["source"], table[name], _SEPARATOR)  # null stays null


def assign_groups(table: pa.Table, edges: pa.Table, columns: Iterable[str] = ()) -> pa.Table:
    """Set `group_id` to the smallest image_id of each row's component.

    Rows hang together by an edge, or by an equal value (not null) in one of `columns` or, within a source, in
    `subject_id`: subject 1 of one source is not that of another.
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
    """Return a number for each row, below the number of rows and equal where rows must stay together.

    They do with the same image, the same pixels, as look-alikes, by `group_id` (also where one is called by
    the other), by an equal value of `columns` or, within a source, of `declared` and `subject_id`. An image
    may be in several rows.
    """
    by_id = pc.sort_indices(table["image_id"]).to_numpy()
    pairs = find_pairs(hash_views(table), codes_of(table["pixel_id"]), _ranks(by_id), max_bits)
    namesake = pc.fill_null(pc.index_in(table["group_id"], in_one_piece(table["image_id"])), -1).to_numpy()
    rows = np.flatnonzero(namesake >= 0)
    links = np.concatenate([pairs[:, :2], np.column_stack([rows, namesake[rows]])])
    within = {"subject_id", *({*declared} - {*columns})}
    together = [codes_of(table[name]) for name in {"image_id", "group_id", *columns} - within]
    together += [codes_of(_within_source(table, name)) for name in within]
    return find_first_of_group(by_id, links, together).astype(np.int64)


def find_first_of_group(by_id: np.ndarray, links: np.ndarray, together: Iterable[np.ndarray]) -> np.ndarray:
    """Return for each row the row of its component that has the smallest image_id.

    `by_id` are the rows in the order of their image_id, `links` pairs of rows (links, 2), and each of
    `together` a code per row that joins the rows where it is equal and not negative.
    """
    ends = _ranks(by_id)[np.concatenate([links, *map(_chains, together)])]
    first: np.ndarray = by_id[_smallest_of_component(len(by_id), ends)[_ranks(by_id)]]
    return first


def _smallest_of_component(n: int, links: np.ndarray) -> np.ndarray:
    """Return for each of the numbers below n the smallest one that a chain of links leads to.

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
