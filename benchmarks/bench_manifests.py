"""Measure the memory of the commands that put manifests together: `concat` and `ingest --onto`.

    python benchmarks/bench_manifests.py [--quick]

Two manifests of generated rows, half of the rows each; one in a hundred images is in both. `ingest --onto`
puts a rating of every image, from a table, onto them. With splits, a ledger has every image too. Every
command runs in a process of its own; `sources` reads no rows.
"""

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
from _bench import make_table, parse_options, write_section
from bench_scale import measure

from affectdata.manifest.manifest import write_manifest

_METADATA = {"emotions": [], "subtypes": {}, "groups": [], "decoders": {}}
_NAMES = ("gaped", "oasis")
_COMMANDS = {
    "sources": "sources",
    "concat": "concat gaped.parquet oasis.parquet --name both --on-conflict first",
    "ingest --onto": "ingest rated.csv --map columns.yaml --onto gaped.parquet --onto oasis.parquet",
}
_EVERY = 100  # one image in so many is in both manifests
_MAP = """
name: rated
table: rated.csv
key: image
file: "{image}"
scales: {arousal: [1, 9]}
columns: {arousal: arousal, arousal_sd: sd, arousal_n: n}
"""


def make_manifests(folder: Path, n: int, with_splits: bool) -> int:
    """Write two manifests of n rows together and a table with a rating of each image; return their bytes."""
    n_both, references, n_bytes = n // 2 // _EVERY, [], 0
    tables = [make_table(n // 2, seed) for seed in range(len(_NAMES))]
    if not with_splits:
        tables = [_set(table, "split", [None] * len(table)) for table in tables]
    again = _set(tables[0].slice(0, n_both), "source_id", [f"again{number}" for number in range(n_both)])
    tables[1] = pa.concat_tables([tables[1].slice(n_both), again]).sort_by("image_id")
    for name, rows in zip(_NAMES, tables, strict=True):
        table = _set(rows, "source", [name] * len(rows))
        write_manifest(table, {"source": name, **_METADATA}, folder / f"{name}.parquet")
        n_bytes += table.nbytes
        references += [f"{name}/{key}" for key in table["source_id"].to_pylist()]
    ratings = np.round(np.random.default_rng(0).uniform(1, 9, len(references)), 2).tolist()
    rows = (f"{image},{value},1.5,20\n" for image, value in zip(references, ratings, strict=True))
    (folder / "rated.csv").write_text("image,arousal,sd,n\n" + "".join(rows))
    (folder / "columns.yaml").write_text(_MAP)
    return n_bytes


def _set(table: pa.Table, name: str, values: Sequence[str | None]) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


def main() -> None:
    options = parse_options(__doc__)
    lines = [
        f"| rows | splits | both tables in memory | {' | '.join(f'`{name}`' for name in _COMMANDS)} |",
        "| --- " * (3 + len(_COMMANDS)) + "|",
    ]
    for n, with_splits in product(
        (options.pick(2_000, 100_000), options.pick(4_000, 1_000_000)), (False, True)
    ):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = make_manifests(folder, n, with_splits) / 2**20
            peaks = [measure(command.split(), folder)[2] for command in _COMMANDS.values()]
            cells = [f"{n:,}", "all" if with_splits else "none", *(f"{each:,.0f}" for each in (size, *peaks))]
            lines.append(f"| {' | '.join(cells)} |")
    write_section("Memory of concat and ingest --onto, MiB", lines, ("pyarrow",))


if __name__ == "__main__":
    main()
