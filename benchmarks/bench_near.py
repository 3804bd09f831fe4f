"""Compare the search for near-duplicates with an exact join in DuckDB, in time and memory.

    python benchmarks/bench_near.py [--quick]

Pairs within 6 bits among random 64-bit hashes, of which 1/1000 are near another. DuckDB joins on the same
eight bands, keyed on any two, and keeps each pair once, which is exact too; among fewer hashes, all pairs are
compared. Then the memory for one view, for the eight views of `ingest`, and for skewed hashes (every bit has
one value three times as often as the other). Required: 1/4 of DuckDB's time (target: 1/6) and 0.6 GiB, 1.5
GiB if skewed; for ten times as many hashes, 30 times the time and 2 GiB.
"""

import itertools

import duckdb
import numpy as np
import pyarrow as pa
from _bench import compare, parse_options, peak_mib, write_section

from affectdata.images.duplicates import MAX_BITS, _near_duplicates
from affectdata.images.hamming import find_near
from affectdata.workers import default_workers


def make_hashes(n: int, skewed: bool = False) -> np.ndarray:
    """Generate n hashes; 1/1000 of them differ from another by up to three bits."""
    rng = np.random.default_rng(0)
    if skewed:
        blocks = [rng.random((1000, 64)) < np.tile([0.75, 0.25], 32) for _ in range(n // 1000)]
        return np.concatenate([np.packbits(block, axis=1).view(">u8")[:, 0] for block in blocks]).astype("u8")
    hashes = rng.integers(0, 2**64, n, np.uint64)
    for row in range(0, n, 1000):
        bits = rng.choice(64, int(rng.integers(1, 4)), replace=False)
        hashes[row] = int(hashes[row + 1]) ^ sum(1 << int(bit) for bit in bits)
    return hashes


def check_recall(n: int) -> int:
    """Compare all pairs of hashes; count the near ones, and exit if `find_near` differs."""
    count = 0
    for hashes in (make_hashes(n), make_hashes(n, skewed=True)):
        blocks = find_near(hashes, None, MAX_BITS)
        pairs = sorted(pair for block in blocks for pair in zip(*block, strict=True))
        bits = (np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) for i in range(n))
        expected = [(i, i + 1 + j) for i, row in enumerate(bits) for j in np.flatnonzero(row <= MAX_BITS)]
        if pairs != expected:
            raise SystemExit(
                f"find_near returned {len(pairs)} pairs; expected {len(expected)}, or other pairs"
            )
        count += len(expected)
    return count


def count_pairs(hashes: np.ndarray) -> int:
    """Count the pairs with `find_near`."""
    return sum(len(i) for i, _ in find_near(hashes, None, MAX_BITS))


def count_pairs_in_duckdb(hashes: np.ndarray) -> int:
    """Count the pairs with joins on two of eight bands, one join at a time to limit memory."""
    connection = duckdb.connect(config={"threads": default_workers()})
    connection.register("hashes", pa.table({"id": np.arange(len(hashes)), "h": hashes}))
    connection.sql("CREATE TABLE t AS SELECT * FROM hashes")
    connection.sql("CREATE TABLE pairs (a BIGINT, b BIGINT)")
    for i, j in itertools.combinations(range(8), 2):
        keys = [f"((({side}.h >> {8 * i}) & 255) << 8) + (({side}.h >> {8 * j}) & 255)" for side in "ab"]
        connection.sql(
            f"INSERT INTO pairs SELECT a.id, b.id FROM t a JOIN t b ON {keys[0]} = {keys[1]} "
            f"WHERE a.id < b.id AND bit_count(xor(a.h, b.h)) <= {MAX_BITS}"
        )
    return connection.sql("SELECT count(*) FROM (SELECT DISTINCT a, b FROM pairs)").fetchall()[0][0]


def search_eight_views(n: int, skewed: bool) -> None:
    """Generate and search eight views; runs in its own process."""
    _near_duplicates(make_hashes(8 * n, skewed).reshape(n, 8), MAX_BITS)


def search_one_view(n: int, skewed: bool = False) -> None:
    """Generate and search one view; runs in its own process."""
    count_pairs(make_hashes(n, skewed))


def main() -> None:
    options = parse_options(__doc__)
    n = options.pick(50_000, 1_000_000)
    few = options.pick(2_000, 20_000)
    n_checked = check_recall(few)
    hashes = make_hashes(n)
    counts = {"find_near": 0, "duckdb": 0}
    ways = {
        "find_near": lambda: counts.update(find_near=count_pairs(hashes)),
        "DuckDB": lambda: counts.update(duckdb=count_pairs_in_duckdb(hashes)),
    }
    lines = compare(ways, options.pick(1, 5))
    many = make_hashes(10 * n)
    growth = compare(
        {f"{10 * n:,} hashes": lambda: count_pairs(many), f"{n:,} hashes": lambda: count_pairs(hashes)},
        options.pick(1, 5),
    )
    if counts["find_near"] != counts["duckdb"]:
        raise SystemExit(f"the numbers of pairs differ: {counts}")
    memory = ["| peak memory of a process | MiB |", "| --- | --- |"]
    memory.append(f"| generating {8 * n:,} hashes only | {peak_mib(make_hashes, 8 * n):.0f} |")
    memory.append(f"| one view of {n:,} images | {peak_mib(search_one_view, n):.0f} |")
    memory.append(f"| one view of {n:,} images, skewed | {peak_mib(search_one_view, n, True):.0f} |")
    memory.append(f"| one view of {10 * n:,} images | {peak_mib(search_one_view, 10 * n):.0f} |")
    memory.append(f"| eight views of {n:,} images | {peak_mib(search_eight_views, n, False):.0f} |")
    memory.append(
        f"| eight views of {n // 4:,} images, skewed | {peak_mib(search_eight_views, n // 4, True):.0f} |"
    )
    summary = [
        f"{n:,} random hashes; both find {counts['find_near']} pairs. Among {few:,} random and as many",
        f"skewed hashes, `find_near` finds all {n_checked} pairs of an exhaustive comparison.",
    ]
    write_section("Near-duplicates", [*summary, "", *lines, "", *growth, "", *memory], ("numpy", "duckdb"))


if __name__ == "__main__":
    main()
