"""Find pairs of 64-bit hashes within a Hamming distance: exact, without comparing all pairs.

Cut the 64 bits into `max_bits + k` bands: two hashes within `max_bits` agree in at least k bands. So for
every choice of k bands (a table), only hashes that agree in these are compared; k = 0 compares all pairs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from affectdata.workers import THREADS, map_ordered

MAX_BITS = 6  # Hamming distance of two pHashes up to which images are near-duplicates
_BITS = 64
_MOST_BANDS = 3  # in a key; with more, the tables cost more than the comparisons that they save
_MANY = 50_000_000  # hashes from which one band more may pay
_RANGE = 1 << 24  # hashes of a table that are sorted at once, on average
_FEW = 1 << 15  # hashes that are searched in this thread
_BLOCK = 1 << 17  # hashes compared with the others at once
_CANDIDATES = 1 << 16  # comparisons in memory at once; fits the cache of a core
_SAMPLE, _SAMPLE_PER_HASH = 1 << 17, 8  # pairs: at most, and per hash
_SAMPLE_OF_MANY = (
    1 << 22
)  # of uniform hashes, 1 pair in 30,000 shares a key of three bands, of four 1 in 240,000
_TABLE_COST, _HASH_COST, _KEY_COST = 50_000, 8, 0.5  # measured, in comparisons

Bands = list[tuple[int, int]]  # lowest bit and width
Side = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # rows, hashes, begin and end of their buckets


def find_near(
    a: np.ndarray,
    b: np.ndarray | None,
    max_bits: int,
    candidates: int = _CANDIDATES,
    workers: int = 1,
    engine: str = THREADS,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of indices (i, j), every pair of uint64 `a[i]`, `b[j]` within `max_bits` exactly once.

    Without `b`, yield the pairs within `a`, i < j. A block is what one table has in one range of keys; few
    hashes are not worth a worker. Each worker has a few arrays as long as a range, even where many hashes
    share a key; `a` and `b` themselves they share, with Ray those of a node.
    """
    bands, n_keyed = _choose_bands(a, a if b is None else b, max_bits)
    tables = list(itertools.combinations(range(len(bands)), n_keyed))
    n_bits = min(math.ceil(math.log2(max(1, len(a) / _RANGE))), min((width for _, width in bands), default=0))
    n_ranges = 1 << n_bits if n_keyed else 1
    search = _Search(a, b, bands, max_bits, candidates, n_ranges)
    if len(a) < _FEW:
        workers, engine = 1, THREADS
    yield from map_ordered(search, itertools.product(tables, range(n_ranges)), workers, engine)


@dataclass(frozen=True)
class _Search:
    """Find the pairs that share a key in a table and a range of keys, and no key of an earlier table."""

    a: np.ndarray
    b: np.ndarray | None
    bands: Bands
    max_bits: int
    candidates: int
    n_ranges: int
    # Reused by all tables: allocating new pages costs more than the work.
    spaces: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def __call__(self, task: tuple[tuple[int, ...], int]) -> tuple[np.ndarray, np.ndarray]:
        table, number = task
        n_keys = (1 << sum(self.bands[band][1] for band in table)) // self.n_ranges
        try:
            space, own_space = self.spaces.pop()
        except IndexError:
            space, own_space = np.empty((4, len(self.a)), np.uint64), np.empty((3, _BLOCK), np.uint64)
        found = [np.empty((2, 0), np.int64)]
        for i, j in self._pairs(table, (number * n_keys, (number + 1) * n_keys), space, own_space):
            found.append(np.stack([i, j]))
        self.spaces.append((space, own_space))
        i, j = np.concatenate(found, axis=1)
        return i, j

    def _pairs(
        self, table: tuple[int, ...], span: tuple[int, int], space: np.ndarray, own_space: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        keys, rows = _sort_by_key(self.a, self.bands, table, span, space[:3])
        first = np.zeros(span[1] - span[0] + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=len(first) - 1), out=first[1:])
        # With another mode `take` copies.
        sorted_a = np.take(self.a, rows, out=space[3, : len(rows)], mode="clip")
        if self.b is None:  # compare each hash with those before it in its bucket
            sides = _own_buckets(keys, rows, sorted_a, first)
        else:
            starts = range(0, len(self.b), _BLOCK)
            sides = (
                _find_buckets(self.b, start, first, self.bands, table, span, own_space) for start in starts
            )
        for own_rows, own, begins, ends in sides:
            for i, j in _compare(sorted_a, own, begins, ends, self.max_bits, self.candidates):
                is_new = _is_first(sorted_a[i] ^ own[j], self.bands, table)
                yield rows[i[is_new]], own_rows[j[is_new]]


def _own_buckets(keys: np.ndarray, rows: np.ndarray, a: np.ndarray, first: np.ndarray) -> Iterator[Side]:
    for start in range(0, len(a), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield rows[part], a[part], first[keys[part]], np.arange(start, min(start + _BLOCK, len(a)))


def _find_buckets(
    b: np.ndarray,
    start: int,
    first: np.ndarray,
    bands: Bands,
    table: tuple[int, ...],
    span: tuple[int, int],
    space: np.ndarray,
) -> Side:
    """Return a block of `b` in the order of its keys: indices, hashes, begin and end of its bucket in `a`."""
    keys, rows = _sort_by_key(b[start : start + _BLOCK], bands, table, span, space)
    rows += start
    return rows, b[rows], first[keys], first[keys + 1]


def _choose_bands(a: np.ndarray, b: np.ndarray, max_bits: int) -> tuple[Bands, int]:
    """Return the bands, and the number of bands per key, that cost least on a sample of pairs.

    Hashes of images are not uniform: some share far more keys than random hashes would.
    """
    if not len(a) or not len(b):
        return [], 0
    rng = np.random.default_rng(0)
    is_many = max(len(a), len(b)) >= _MANY
    n = min(_SAMPLE_OF_MANY if is_many else _SAMPLE, _SAMPLE_PER_HASH * (len(a) + len(b)))
    differ = a[rng.integers(len(a), size=n)] ^ b[rng.integers(len(b), size=n)]
    costs: dict[float, tuple[Bands, int]] = {}
    for n_keyed in range(min(_MOST_BANDS + is_many, max(0, _BITS - max_bits)) + 1):
        bands = _cut_bits(max_bits + n_keyed)
        n_equal = sum((differ & _mask(band)) == 0 for band in bands) + np.zeros(n, np.int64)
        counts = np.bincount(n_equal).tolist()
        collisions = sum(count * math.comb(equal, n_keyed) for equal, count in enumerate(counts))
        n_keys = 2.0 ** (n_keyed * _BITS / max(1, len(bands)))
        table_cost = _TABLE_COST + _HASH_COST * (len(a) + len(b)) + _KEY_COST * n_keys
        cost = math.comb(len(bands), n_keyed) * table_cost + len(a) * len(b) * collisions / n
        costs.setdefault(cost, (bands, n_keyed))
    return costs[min(costs)]


def _cut_bits(n_bands: int) -> Bands:
    """Cut the bits into bands of nearly equal width."""
    edges = np.linspace(0, _BITS, n_bands + 1).astype(int).tolist()
    return [(low, high - low) for low, high in itertools.pairwise(edges)]


def _mask(band: tuple[int, int]) -> np.uint64:
    low, width = band
    return np.uint64(((1 << width) - 1) << low)


def _sort_by_key(
    hashes: np.ndarray, bands: Bands, table: tuple[int, ...], span: tuple[int, int], space: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of hashes within `span`, from its begin, ascending, and the index of each hash.

    Both are views of `space`.
    """
    n, n_keys = 0, 1 << sum(bands[band][1] for band in table)
    low, last = np.uint64(span[0] << 32), np.uint64((span[1] << 32) - 1)
    for start in range(0, len(hashes), _BLOCK):
        part = hashes[start : start + _BLOCK]
        into = space[0, n : n + len(part)]
        into[:] = 0
        for band in table:
            bit, width = bands[band]
            into <<= np.uint64(width)
            into |= (part & _mask(bands[band])) >> np.uint64(bit)
        into <<= np.uint64(32)
        into |= np.arange(start, start + len(part), dtype=np.uint64)
        if span != (0, n_keys):
            inside = into[(into >= low) & (into <= last)]
            into = into[: len(inside)]
            np.subtract(inside, low, out=into)
        n += len(into)
    packed, keys, rows = space[:, :n]
    packed.sort()  # sorting integers is several times as fast as `argsort`
    np.right_shift(packed, np.uint64(32), out=keys)
    np.bitwise_and(packed, np.uint64(0xFFFFFFFF), out=rows)
    return keys.view(np.int64), rows.view(np.int64)


def _compare(
    a: np.ndarray, b: np.ndarray, first: np.ndarray, end: np.ndarray, max_bits: int, candidates: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the (i, j) within `max_bits` of each `b[j]` and `a[first[j]:end[j]]`, `candidates` at a time."""
    ends = np.cumsum(end - first)
    begins = ends - (end - first)
    shift = first - begins
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, candidates):
        stop = min(start + candidates, total)
        low, high = np.searchsorted(ends, start, "right"), np.searchsorted(begins, stop, "left")
        counts = np.minimum(ends[low:high], stop) - np.maximum(begins[low:high], start)
        index = np.repeat(shift[low:high], counts)
        index += np.arange(start, stop)
        apart = np.bitwise_count(a[index] ^ np.repeat(b[low:high], counts))
        near = np.flatnonzero(apart <= max_bits)
        if len(near):
            yield index[near], np.searchsorted(ends, near + start, "right")


def _is_first(differ: np.ndarray, bands: Bands, table: tuple[int, ...]) -> np.ndarray:
    """Return which pairs collide in no earlier table: no other band up to the last of `table` is equal."""
    is_first = np.ones(len(differ), bool)
    for band in set(range(max(table, default=0))) - set(table):
        is_first &= (differ & _mask(bands[band])) != 0
    return is_first
