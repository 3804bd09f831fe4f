"""Does the memory of `ingest` and `balance` grow with the rows, and by how much per row?

    python benchmarks/bench_memory.py [--quick]

`ingest` as a whole over small generated pictures, and the plan of `balance` over generated rows. Each in a
fresh process, beside one that only reads the rows.
"""

import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from _bench import make_table, parse_options, peak_mib, write_section

from affectdata.balance.planner import plan_rows
from affectdata.balance.recipe import find_recipe, read_recipe
from affectdata.cli._main import run


def make_small_pictures(root: Path, n: int) -> None:
    """Write n JPEG pictures of 32 × 32 px, all different, in two folders of classes."""
    rng = np.random.default_rng(0)
    for number in range(n):
        path = root / ("joy", "sadness")[number % 2] / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path.write_bytes(cv2.imencode(".jpg", cv2.resize(rough, (32, 32)))[1].tobytes())


def ingest(root: str) -> None:
    """Run the command."""
    with redirect_stdout(StringIO()):
        run(["ingest", root, "--out", f"{root}.out", "--quiet"])


def read(path: str) -> None:
    """Only read the rows."""
    pq.read_table(path)


def plan(path: str) -> None:
    """Plan a release."""
    plan_rows(pq.read_table(path), read_recipe(find_recipe("valence_bins")))


def main() -> None:
    options = parse_options(__doc__)
    sizes = [10_000, 100_000, 1_000_000][: options.pick(1, 3)]
    lines = ["| rows | reading them, MiB | plan of balance, MiB |", "| --- " * 3 + "|"]
    ways: list[Callable[[str], None]] = [read, plan]
    whole = ["| pictures | ingest, MiB |", "| --- | --- |"]
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            path = str(Path(folder, f"{size}.parquet"))
            pq.write_table(make_table(size), path)
            peaks = " | ".join(f"{peak_mib(way, path):.0f}" for way in ways)
            lines.append(f"| {size:,} | {peaks} |")
        for size in (options.pick(1_000, 10_000), options.pick(2_000, 100_000)):
            make_small_pictures(Path(folder, str(size)), size)
            whole.append(f"| {size:,} | {peak_mib(ingest, str(Path(folder, str(size)))):.0f} |")
    write_section("Memory", ["Peak memory of a process.", "", *whole, "", *lines], ("pyarrow", "numpy"))


if __name__ == "__main__":
    main()
