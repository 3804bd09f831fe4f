"""Are questions to a manifest as fast as DuckDB is without us?

    python benchmarks/bench_query.py [--quick]

A manifest of generated rows: the histogram of valence by subtype, and one row by its `image_id`, with
`Manifest.sql` over the loaded manifest, with DuckDB over the same Arrow table, and with DuckDB and pyarrow
over the Parquet file; and a look-up in a file of the same rows in no order.
"""

import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
from _bench import compare, make_table, parse_options, write_section

from affectdata.manifest import load_manifest, write_manifest

HISTOGRAM = "SELECT least(floor(valence / 10), 9) AS bin, subtype, count(*) FROM {} GROUP BY ALL ORDER BY ALL"


def main() -> None:
    options = parse_options(__doc__)
    n, rounds = options.pick(20_000, 1_000_000), options.pick(2, 9)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gaped.parquet")
        write_manifest(make_table(n), {"source": "gaped", "emotions": [], "subtypes": {}}, path)
        manifest = load_manifest(path)
        bare = duckdb.connect()
        bare.register("rows", manifest.table)
        wanted = manifest.table["image_id"][n // 2].as_py()
        one = f"SELECT * FROM {{}} WHERE image_id = '{wanted}'"
        lines = compare(
            {
                "histogram, Manifest.sql": lambda: manifest.sql(HISTOGRAM.format("manifest")),
                "DuckDB over the same table": lambda: bare.sql(HISTOGRAM.format("rows")).to_arrow_table(),
                "DuckDB over the file": lambda: bare.sql(HISTOGRAM.format(f"'{path}'")).to_arrow_table(),
            },
            rounds,
        )
        look_up = compare(
            {
                "look-up, Manifest.sql": lambda: manifest.sql(one.format("manifest")),
                "DuckDB over the same table": lambda: bare.sql(one.format("rows")).to_arrow_table(),
                "DuckDB over the file": lambda: bare.sql(one.format(f"'{path}'")).to_arrow_table(),
                "pyarrow over the file": lambda: pq.read_table(path, filters=[("image_id", "=", wanted)]),
            },
            rounds,
        )
        unsorted = Path(folder, "unsorted.parquet")
        shuffled = manifest.table.take(np.random.default_rng(0).permutation(n))
        pq.write_table(shuffled, unsorted, compression="zstd", row_group_size=1 << 17, use_dictionary=False)
        del shuffled
        by_tool = [
            compare(
                {
                    f"look-up in the file, {tool}": lambda ask=ask: ask(path),
                    "in an unsorted file": lambda ask=ask: ask(unsorted),
                },
                rounds,
            )
            for tool, ask in (
                ("DuckDB", lambda file: bare.sql(one.format(f"'{file}'")).to_arrow_table()),
                ("pyarrow", lambda file: pq.read_table(file, filters=[("image_id", "=", wanted)])),
            )
        ]
        load = compare(
            {
                "load_manifest, digest checked": lambda: load_manifest(path),
                "pyarrow": lambda: pq.read_table(path),
            },
            options.pick(1, 3),
        )
    said = f"{n:,} rows."
    write_section(
        "Queries",
        [said, "", *lines, "", *look_up, "", *by_tool[0], "", *by_tool[1], "", *load],
        ("duckdb", "pyarrow"),
    )


if __name__ == "__main__":
    main()
