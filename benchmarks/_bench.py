"""Shared code of the benchmarks: generated data, interleaved timing, and a section of RESULTS.md for each."""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.reading.sample import draw_image, save_image
from affectdata.schema import manifest_schema
from affectdata.workers import default_workers, keep_freed_memory

RESULTS = Path(__file__).parent / "RESULTS.md"
ROOT_VARIABLE = "AFFECTDATA_BENCH_ROOT"  # a tree of real images (GAPED) instead of generated ones
Ways = dict[str, Callable[[], object]]  # alternatives to compare, by label
Times = dict[str, list[tuple[float, float]]]  # wall and CPU seconds of each run, by label


@dataclass(frozen=True)
class Options:
    """`quick`: few images and rows, to check that everything runs; the results are not meaningful."""

    quick: bool

    def pick(self, quick: int, full: int) -> int:
        """Return the size for this run."""
        return quick if self.quick else full


def parse_options(description: str) -> Options:
    """Parse the command line, and apply the allocator settings of the `affectdata` command."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images and rows")
    keep_freed_memory()
    return Options(parser.parse_args().quick)


def time_in_turns(ways: Ways, rounds: int) -> Times:
    """Run all alternatives in turn, `rounds` times after a warm-up; return wall and CPU seconds of each run.

    In turn, so that other load on the machine affects all of them.
    """
    times: Times = {label: [] for label in ways}
    for number in range(rounds + 1):
        for label, run in ways.items():
            wall, cpu = time.perf_counter(), _cpu_seconds()
            run()
            if number:
                times[label].append((time.perf_counter() - wall, _cpu_seconds() - cpu))
    return times


def _cpu_seconds() -> float:
    return time.process_time() + sum(os.times()[2:4])  # with ended child processes


def compare(ways: Ways, rounds: int) -> list[str]:
    """Time the alternatives in turn, and return a table of the first against each of the others."""
    return ratios(time_in_turns(ways, rounds), *ways)


def ratios(times: Times, label: str, *baselines: str) -> list[str]:
    """Return a table of `label` against each baseline: medians over the rounds of the ratio of times.

    Ratios only: times depend on the machine and its load.
    """
    lines = [f"| {label}, to | wall | CPU |", "| --- | --- | --- |"]
    for baseline in baselines:
        pairs = list(zip(times[label], times[baseline], strict=True))
        wall, cpu = (statistics.median(run[clock] / base[clock] for run, base in pairs) for clock in (0, 1))
        lines.append(f"| {baseline} | {wall:.{_places(wall)}f} | {cpu:.{_places(cpu)}f} |")
    return lines


def _places(ratio: float) -> int:
    return 2 if ratio >= 0.1 else 3  # two significant digits


def peak_mib(run: Callable[..., object], *arguments: Any) -> float:
    """Return the peak memory of a fresh process that imports the module of `run` and calls it (Linux)."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure_peak, (run, arguments))


def _measure_peak(run: Callable[..., object], arguments: tuple[Any, ...]) -> float:
    run(*arguments)
    # Not `ru_maxrss`, which a new process inherits from its parent.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


def write_section(title: str, lines: list[str], libraries: tuple[str, ...]) -> None:
    """Print a result and replace its section of RESULTS.md, or append it; the title names the script.

    With `--quick` it is only printed.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    environment = (
        f"{platform.machine()}, {default_workers()} cores, Python {platform.python_version()}; {versions}."
    )
    script = Path(inspect.stack()[1].filename).name
    title = f"{title} ({script})"
    section = "\n".join([f"## {title}", "", *lines, "", environment, ""])
    print(section)
    if "--quick" in sys.argv:
        return
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results of the benchmarks\n"
    pattern = rf"^## {re.escape(title)}\n.*?(?=^## |\Z)"
    after, count = re.subn(pattern, lambda _: section + "\n", before, flags=re.MULTILINE | re.DOTALL)
    RESULTS.write_text((after if count else f"{before}\n{section}").rstrip() + "\n", encoding="utf-8")


def make_images(folder: Path, n: int) -> None:
    """Draw n different JPEG images of 640 × 480 px, in two class folders."""
    rng = np.random.default_rng(0)
    for number in range(n):
        name = f"{('joy', 'sadness')[number % 2]}/{number:06d}.jpg"
        save_image(folder / name, draw_image(rng, number % 100, 640, 480), "JPEG")


def real_root() -> Path | None:
    """Return the tree of real images to measure on, if given."""
    path = os.environ.get(ROOT_VARIABLE)
    return Path(path) if path else None


def make_table(n: int, seed: int = 0) -> pa.Table:
    """Generate a manifest table of n rows: ten bins of valence, six subtypes, random hashes."""
    rng = np.random.default_rng(seed)
    digits = np.frombuffer(rng.bytes(n * 48).hex().encode(), "S96").astype("U96")
    ids = [text[:64] for text in np.sort(digits).tolist()]
    hashes = rng.bytes(n * 64).hex()
    columns: dict[str, Any] = {
        "image_id": ids,
        "pixel_id": [image_id[:32] for image_id in ids],
        "phash": [hashes[start : start + 16] for start in range(0, n * 128, 128)],
        "phash_views": [hashes[start + 16 : start + 128] for start in range(0, n * 128, 128)],
        "source": ["gaped"] * n,
        "source_id": [str(number) for number in range(n)],
        "path": [f"A/{number}.jpg" for number in range(n)],
        "format": ["jpeg"] * n,
        "bytes": np.full(n, 100_000),
        "width_px": np.full(n, 640, np.int32),
        "height_px": np.full(n, 480, np.int32),
        "subtype": np.array(["A", "H", "N", "P", "Sn", "Sp"])[rng.integers(6, size=n)].tolist(),
        "valence": np.round(np.clip(rng.normal(50, 20, n), 0, 100), 6),
        "split": np.array(["train", "val", "test"])[rng.choice(3, n, p=[0.7, 0.15, 0.15])].tolist(),
        "extra": ["{}"] * n,
        "group_id": ids,
    }
    schema = manifest_schema()
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in schema]
    return pa.table(arrays, schema=schema)
