"""How fast are near-duplicates found, against an exact join in DuckDB, and in how much memory?

    python benchmarks/bench_near.py [--quick]

Pairs within 6 bits among random 64-bit hashes, of which a thousandth are near another. DuckDB joins on the
same eight bands, keyed on any two, and leaves each pair once: exact as well; and among fewer hashes every one
is compared with every other. Then the memory of one view, of the eight views of `ingest`, and of hashes that
are skewed (every bit is three times as often one value as the other). Wanted: a quarter of DuckDB's time
(aimed at: a sixth) and 0.6 GiB, 1.5 if skewed; for ten times as many, 30 times the time and 2 GiB.
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
    """Make n hashes; a thousandth are up to three bits away from another."""
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
    """Compare every hash with every other; count the pairs, all of which must have been found, once each."""
    count = 0
    for hashes in (make_hashes(n), make_hashes(n, skewed=True)):
        blocks = find_near(hashes, None, MAX_BITS)
        found = sorted(pair for block in blocks for pair in zip(*block, strict=True))
        bits = (np.bitwise_count(hashes[at + 1 :] ^ hashes[at]) for at in range(n))
        true = [(at, at + 1 + j) for at, row in enumerate(bits) for j in np.flatnonzero(row <= MAX_BITS)]
        if found != true:
            raise SystemExit(f"{len(found)} pairs were found of {len(true)}, or others")
        count += len(true)
    return count


def ours(hashes: np.ndarray) -> int:
    """Count the pairs."""
    return sum(len(i) for i, _ in find_near(hashes, None, MAX_BITS))


def by_duckdb(hashes: np.ndarray) -> int:
    """Count the pairs with joins on two bands of eight, one after the other so that memory suffices."""
    connection = duckdb.connect(config={"threads": default_workers()})
    connection.register("given", pa.table({"id": np.arange(len(hashes)), "h": hashes}))
    connection.sql("CREATE TABLE t AS SELECT * FROM given")
    connection.sql("CREATE TABLE pairs (a BIGINT, b BIGINT)")
    for one, two in itertools.combinations(range(8), 2):
        keys = [f"((({side}.h >> {8 * one}) & 255) << 8) + (({side}.h >> {8 * two}) & 255)" for side in "ab"]
        connection.sql(
            f"INSERT INTO pairs SELECT a.id, b.id FROM t a JOIN t b ON {keys[0]} = {keys[1]} "
            f"WHERE a.id < b.id AND bit_count(xor(a.h, b.h)) <= {MAX_BITS}"
        )
    return connection.sql("SELECT count(*) FROM (SELECT DISTINCT a, b FROM pairs)").fetchall()[0][0]


def views(n: int, skewed: bool) -> None:
    """Search over eight views, in a process of its own."""
    _near_duplicates(make_hashes(8 * n, skewed).reshape(n, 8), MAX_BITS)


def identity(n: int, skewed: bool = False) -> None:
    """Search over one view, in a process of its own."""
    ours(make_hashes(n, skewed))


def main() -> None:
    options = parse_options(__doc__)
    n = options.pick(50_000, 1_000_000)
    few = options.pick(2_000, 20_000)
    n_checked = check_recall(few)
    hashes = make_hashes(n)
    found = {"ours": 0, "duckdb": 0}
    ways = {
        "find_near": lambda: found.update(ours=ours(hashes)),
        "DuckDB": lambda: found.update(duckdb=by_duckdb(hashes)),
    }
    lines = compare(ways, options.pick(1, 5))
    many = make_hashes(10 * n)
    growth = compare(
        {f"{10 * n:,} hashes": lambda: ours(many), f"{n:,} hashes": lambda: ours(hashes)}, options.pick(1, 5)
    )
    if found["ours"] != found["duckdb"]:
        raise SystemExit(f"they differ: {found}")
    memory = ["| peak memory of a process | MiB |", "| --- | --- |"]
    memory.append(f"| that only makes {8 * n:,} hashes | {peak_mib(make_hashes, 8 * n):.0f} |")
    memory.append(f"| one view of {n:,} images | {peak_mib(identity, n):.0f} |")
    memory.append(f"| one view of {n:,} images, skewed | {peak_mib(identity, n, True):.0f} |")
    memory.append(f"| one view of {10 * n:,} images | {peak_mib(identity, 10 * n):.0f} |")
    memory.append(f"| eight views of {n:,} images | {peak_mib(views, n, False):.0f} |")
    memory.append(f"| eight views of {n // 4:,} images, skewed | {peak_mib(views, n // 4, True):.0f} |")
    said = [
        f"{n:,} random hashes, {found['ours']} pairs found by both. Among {few:,}, random and skewed, all",
        f"{n_checked} pairs are found that a comparison of each with each finds.",
    ]
    write_section("Near-duplicates", [*said, "", *lines, "", *growth, "", *memory], ("numpy", "duckdb"))


if __name__ == "__main__":
    main()
