"""Are questions to a manifest as fast as DuckDB is without us, and does it pay that its rows are sorted?

    python benchmarks/bench_query.py [--quick]

A manifest of generated rows, opened once: the histogram of valence by subtype, and one row by its `image_id`,
with `Manifest.sql`, and with DuckDB and pyarrow over its Parquet file; and over a file of as many rows in no
order, that is the same in all else. The files are written in parts: the rows are never in memory.

Wanted, in time: 1.25 of DuckDB for the histogram (aimed at: 1.05); for a row, a tenth of what it takes in the
unsorted file (a sixteenth).
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
PART = 1_000_000  # rows made at once
GROUP = 1 << 17  # rows of a row group of the unsorted file: most of the manifest's are as large


def make_parts(n: int, unsorted: pq.ParquetWriter) -> Iterator[pa.Table]:
    """Yield n rows in the order of their ids; the same, but for the ids, go to another file in no order."""
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
    """Return the id of a row half-way through a file."""
    with pq.ParquetFile(path) as file:
        ids = file.read_row_group(file.num_row_groups // 2, columns=["image_id"])["image_id"]
    return str(ids[len(ids) // 2])


def by_duckdb(bare: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    return bare.sql(query).to_arrow_table()


def by_pyarrow(path: Path, image_id: str) -> pa.Table:
    return pq.read_table(path, filters=[("image_id", "=", image_id)])


def read_all(path: Path) -> None:
    """Read a file a row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            file.read_row_group(group)


def main() -> None:
    options = parse_options(__doc__)
    n, rounds, bare = options.pick(50_000, 10_000_000), options.pick(1, 9), duckdb.connect()
    with tempfile.TemporaryDirectory() as folder:
        path, unsorted = make_files(n, Path(folder))
        manifest, wanted, other = load_manifest(path), middle_id(path), middle_id(unsorted)
        histogram = compare(
            {
                "histogram, Manifest.sql": lambda: manifest.sql(HISTOGRAM.format("manifest")),
                "DuckDB over the file": partial(by_duckdb, bare, HISTOGRAM.format(f"'{path}'")),
            },
            rounds,
        )
        ways = {
            "a row, Manifest.sql": lambda: manifest.sql(ROW.format("manifest", wanted)),
            "a row, DuckDB": partial(by_duckdb, bare, ROW.format(f"'{path}'", wanted)),
            "a row, pyarrow": partial(by_pyarrow, path, wanted),
            "DuckDB, unsorted file": partial(by_duckdb, bare, ROW.format(f"'{unsorted}'", other)),
            "pyarrow, unsorted file": partial(by_pyarrow, unsorted, other),
        }
        found = time_in_turns(ways, rounds)
        ours, by_duck, by_arrow, *others = ways
        tables = [
            histogram,
            ratios(found, ours, by_duck, by_arrow, *others),
            ratios(found, by_duck, others[0]),
            ratios(found, by_arrow, others[1]),
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
