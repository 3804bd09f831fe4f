"""Compare queries of a manifest with plain DuckDB and pyarrow, and with an unsorted file.

    python benchmarks/bench_query.py [--quick]

A manifest of generated rows, opened once: the histogram of valence by subtype, and one row by its `image_id`,
with `Manifest.sql`, and with DuckDB and pyarrow on its Parquet file; and on an otherwise equal file with
unsorted rows. The files are written in parts: the rows are never all in memory.

Required time: 1.25 of DuckDB for the histogram (target: 1.05); for a row, 1/10 of the time in the unsorted
file (1/16).
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _bench import compare, make_table, parse_options, ratios, time_in_turns, write_section

from affectdata.manifest.manifest import KIND, load_manifest
from affectdata.schema import manifest_schema
from affectdata.store.parquet import write_batches

HISTOGRAM = "SELECT least(floor(valence / 10), 9) AS bin, subtype, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
ROW = "SELECT * FROM {} WHERE image_id = '{}'"
PART = 1_000_000  # rows generated at a time
GROUP = 1 << 17  # rows per row group of the unsorted file, as in most of the manifest


def make_parts(n: int, unsorted: pq.ParquetWriter) -> Iterator[pa.Table]:
    """Yield n rows sorted by id; write rows that differ only in order and ids to the unsorted file."""
    for number, start in enumerate(range(0, n, PART)):
        rows = make_table(min(PART, n - start), seed=number)
        order = np.random.default_rng(number).permutation(len(rows))
        unsorted.write_table(rows.take(order), row_group_size=GROUP)
        ids = rows["image_id"].cast(pa.binary())
        ids = pc.binary_slice(pc.binary_replace_slice(ids, 0, 0, b"%02x" % number), 0, 64).cast(pa.string())
        yield rows.set_column(0, rows.schema.field(0), ids)


def make_files(n: int, folder: Path) -> tuple[Path, Path]:
    """Write a manifest of n rows, and an unsorted file."""
    path, unsorted = folder / "gaped.parquet", folder / "unsorted.parquet"
    schema, metadata = manifest_schema(), {"source": "gaped", "emotions": [], "subtypes": {}}
    with pq.ParquetWriter(unsorted, schema, compression="zstd", use_dictionary=False) as writer:
        write_batches(make_parts(n, writer), schema, path, KIND, metadata)
    return path, unsorted


def middle_id(path: Path) -> str:
    """Return the id of a row in the middle of a file."""
    with pq.ParquetFile(path) as file:
        ids = file.read_row_group(file.num_row_groups // 2, columns=["image_id"])["image_id"]
    return str(ids[len(ids) // 2])


def query_duckdb(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return connection.sql(query).to_arrow_table()


def query_pyarrow(path: Path, image_id: str) -> pa.Table:
    return pq.read_table(path, filters=[("image_id", "=", image_id)])


def read_all(path: Path) -> None:
    """Read a file one row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group)


def main() -> None:
    options = parse_options(__doc__)
    n, rounds, connection = options.pick(50_000, 10_000_000), options.pick(1, 9), duckdb.connect()
    with tempfile.TemporaryDirectory() as folder:
        path, unsorted = make_files(n, Path(folder))
        manifest, sorted_id, unsorted_id = load_manifest(path), middle_id(path), middle_id(unsorted)
        histogram = compare(
            {
                "histogram, Manifest.sql": lambda: manifest.sql(HISTOGRAM.format("manifest")),
                "DuckDB over the file": partial(query_duckdb, connection, HISTOGRAM.format(f"'{path}'")),
            },
            rounds,
        )
        ways = {
            "a row, Manifest.sql": lambda: manifest.sql(ROW.format("manifest", sorted_id)),
            "a row, DuckDB": partial(query_duckdb, connection, ROW.format(f"'{path}'", sorted_id)),
            "a row, pyarrow": partial(query_pyarrow, path, sorted_id),
            "DuckDB, unsorted file": partial(
                query_duckdb, connection, ROW.format(f"'{unsorted}'", unsorted_id)
            ),
            "pyarrow, unsorted file": partial(query_pyarrow, unsorted, unsorted_id),
        }
        times = time_in_turns(ways, rounds)
        own, in_duckdb, in_pyarrow, *unsorted_ways = ways
        tables = [
            histogram,
            ratios(times, own, in_duckdb, in_pyarrow, *unsorted_ways),
            ratios(times, in_duckdb, unsorted_ways[0]),
            ratios(times, in_pyarrow, unsorted_ways[1]),
            compare(
                {
                    "load_manifest, digest checked": lambda: load_manifest(path),
                    "pyarrow reads all": lambda: read_all(path),
                },
                options.pick(1, 5),
            ),
        ]
    lines = [f"{n:,} rows.", *(line for table in tables for line in ("", *table))]
    write_section("Queries", lines, ("duckdb", "pyarrow"))


if __name__ == "__main__":
    main()
