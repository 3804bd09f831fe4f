"""Which pictures belong together: the same pixels, near-duplicates, the same subject or declared group.

In: the columns of a manifest. Out: edges (`schema.EDGES`) and `group_id`. Nothing here opens a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from affectdata.hashing import VIEWS
from affectdata.schema import EDGES

MAX_BITS = 6  # Hamming distance of two pHashes up to which pictures are near-duplicates
_INVERSE = {"turn_90": "turn_270", "turn_270": "turn_90"}  # every other view undoes itself
_CELLS = 1 << 24  # distances held at once


def find_edges(table: pa.Table, max_bits: int = MAX_BITS) -> pa.Table:
    """Find the pairs with the same pixels, and the near-duplicates over all eight flips and turns.

    `table` has `image_id`, `pixel_id`, `phash`, `phash_views`. Pictures with equal hashes are linked in a
    chain, not each with each: the groups are the same and a large cluster costs no more than its size.
    """
    ids = table["image_id"].to_numpy()
    rows = [*_same_pixels(table), *_near_duplicates(table, max_bits)]
    edges: dict[tuple[str, str], tuple[str, int, str]] = {}
    for first, second, kind, distance, view in rows:
        a, b = ids[first], ids[second]
        if a > b:
            a, b, view = b, a, _INVERSE.get(view, view)
        edges.setdefault((a, b), (kind, distance, view))  # same pixels are found first and stay
    columns = [(a, b, *rest) for (a, b), rest in sorted(edges.items())]
    return pa.table([list(column) for column in zip(*columns, strict=True)] or [[]] * 5, schema=EDGES)


def _same_pixels(table: pa.Table) -> Iterator[tuple[int, int, str, int, str]]:
    for first, second in _chains(table["pixel_id"]):
        yield first, second, "same_pixels", 0, VIEWS[0]


def _near_duplicates(table: pa.Table, max_bits: int) -> Iterator[tuple[int, int, str, int, str]]:
    views = hash_views(table)
    for first, second in _chains(table["phash"]):
        yield first, second, "near_duplicate", 0, VIEWS[0]
    _, once = np.unique(views[:, 0], return_index=True)
    views = views[np.sort(once)]
    rows = np.sort(once)
    step = max(1, _CELLS // max(1, len(rows)))
    for start in range(0, len(rows), step):
        block = views[start : start + step, 0]
        best = np.full((len(block), len(rows)), 255, np.uint8)
        at = np.zeros_like(best)
        for index in range(len(VIEWS)):
            distance = np.bitwise_count(block[:, None] ^ views[None, :, index])
            at[distance < best] = index
            np.minimum(best, distance, out=best)
        for i, j in np.argwhere(best <= max_bits):
            if start + i < j:
                yield rows[start + i], rows[j], "near_duplicate", int(best[i, j]), VIEWS[at[i, j]]


def hash_views(table: pa.Table) -> np.ndarray:
    """Return the pHashes of every row's eight views as uint64, (rows, 8), in the order of `VIEWS`."""
    digits = "".join(pc.binary_join_element_wise(table["phash"], table["phash_views"], "").to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, len(VIEWS))


def _chains(column: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Link each row with the next one of equal value; null equals nothing."""
    codes = pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy(
        zero_copy_only=False
    )
    order = np.argsort(codes, kind="stable")
    equal = (codes[order][1:] == codes[order][:-1]) & (codes[order][1:] >= 0)
    yield from zip(order[:-1][equal].tolist(), order[1:][equal].tolist(), strict=True)


def assign_groups(table: pa.Table, edges: pa.Table, columns: Iterable[str] = ()) -> pa.Table:
    """Set `group_id` to the smallest image_id of each row's component.

    Rows hang together by an edge, or by an equal value (not null) in `subject_id` or one of `columns`.
    """
    ids = table["image_id"]
    first = pc.index_in(edges["image_id_a"], ids).to_pylist()
    second = pc.index_in(edges["image_id_b"], ids).to_pylist()
    links = list(zip(first, second, strict=True))
    for column in {"subject_id", *columns} & set(table.column_names):
        links += _chains(table[column])
    n = table.num_rows
    ends = np.array(links, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    by_id = pc.sort_indices(ids).to_numpy()
    _, smallest = np.unique(component[by_id], return_index=True)
    groups = ids.take(pa.array(by_id[smallest[component]]))
    field = pa.field("group_id", pa.string(), nullable=False)
    if "group_id" in table.column_names:
        return table.set_column(table.column_names.index("group_id"), field, groups)
    return table.append_column(field, groups)
