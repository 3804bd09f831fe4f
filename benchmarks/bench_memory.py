"""Does the memory of `ingest` and `balance` grow with the rows, and by how much per row?

    python benchmarks/bench_memory.py [--quick]

Generated rows in place of pictures: what `ingest` does after it has looked at every picture (join with the
ratings, near-duplicates, groups) and the plan of `balance`. Each in a fresh process, beside one that only
reads the rows.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _bench import make_table, parse_options, peak_mib, write_section

from affectdata.balance.planner import plan_rows
from affectdata.balance.recipe import find_recipe, read_recipe
from affectdata.duplicates import assign_groups, find_edges
from affectdata.ingest import SortedItems, _build
from affectdata.probe import PROBED
from affectdata.records import Rating, Record
from affectdata.sources.gaped import INFO


def read(path: str) -> None:
    """Only read the rows."""
    pq.read_table(path)


def join(path: str) -> None:
    """Do what `ingest` does after the pictures."""
    rows = pq.read_table(path)
    seen = rows.select([name for name in PROBED.names if name in rows.column_names])
    for name in ("reason", "detail"):
        seen = seen.append_column(PROBED.field(name), pa.nulls(len(seen), pa.string()))
    columns = rows.select(["path", "source_id", "subtype", "valence"]).to_pylist()
    records = [
        Record(
            row["path"], row["source_id"], subtype=row["subtype"], ratings={"valence": Rating(row["valence"])}
        )
        for row in columns
    ]
    table, _ = _build(SortedItems(records), seen, INFO, [])
    assign_groups(table, find_edges(table))


def plan(path: str) -> None:
    """Plan a release."""
    plan_rows(pq.read_table(path), read_recipe(find_recipe("valence_bins")))


def main() -> None:
    sizes = [10_000, 100_000, 1_000_000][: parse_options(__doc__).pick(1, 3)]
    lines = ["| rows | reading them, MiB | join of ingest, MiB | plan of balance, MiB |", "| --- " * 4 + "|"]
    ways: list[Callable[[str], None]] = [read, join, plan]
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = str(Path(folder, f"{size}.parquet"))
            pq.write_table(make_table(size), path)
            peaks = " | ".join(f"{peak_mib(way, path):.0f}" for way in ways)
            lines.append(f"| {size:,} | {peaks} |")
    write_section("Memory", ["Peak memory of a process.", "", *lines], ("pyarrow", "numpy"))


if __name__ == "__main__":
    main()
