"""Measure the cost of each command per image, and how time and memory grow with the collection.

    python benchmarks/bench_scale.py [--quick]

Whole commands, each in a fresh process, on generated images with a rating table: 10,000 and 100,000 of 64 ×
48 px, so small that the cost per row is visible beside the cost per image. The unit of cost is one decode: to
read, hash and decode a JPEG of 640 × 480 px on one core, measured in the same run. Memory is the peak of the
process.
"""

import csv
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg
from _bench import make_images, parse_options, time_in_turns, write_section

from affectdata.reading.sample import draw_image
from affectdata.recipe.recipe import find_recipe

_WIDTH, _HEIGHT = 64, 48
_DECODED = 200  # images for the unit of cost
_SUBTYPES = ("A", "H", "N", "P", "Sn", "Sp")
_COLUMNS = """
name: gaped
table: ratings.csv
key: name
file: "{key}"
scales: {valence: [0, 100]}
columns: {valence: valence, subtype: subtype}
subtypes: {Sn: {name: snakes, upright: false}, Sp: {name: spiders, upright: false}}
"""
# A process in between, as the peak of a child includes the memory of its parent at the fork.
_MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(code)
"""
Cost = tuple[float, float, float]  # wall seconds, CPU seconds, MiB


def make_tree(root: Path, n: int) -> None:
    """Draw n small JPEG images in folders of 1,000, and write their rating table."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n):
        valence = round(float(np.clip(rng.normal(50, 20), 0, 100)), 3)
        name = f"{number // 1000:04d}/{number:07d}.jpg"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(simplejpeg.encode_jpeg(draw_image(rng, valence, _WIDTH, _HEIGHT), 90))
        rows.append((name, valence, _SUBTYPES[number % len(_SUBTYPES)]))
    with (root / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("name", "valence", "subtype"), *rows])
    (root / "columns.yaml").write_text(_COLUMNS)


def commands(recipe: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of the workflow with a label, as called in the folder above the images."""
    yield "ingest", ["ingest", "images"]
    yield "ingest again", ["ingest", "images"]
    yield "balance, plan only", ["balance", "--recipe", str(recipe), "--dry-run"]
    yield "balance", ["balance", "--recipe", str(recipe)]
    yield "verify", ["verify"]
    yield "export", ["export", "RELEASE", "--to", "webdataset", "--i-may-redistribute"]


def measure(arguments: list[str], folder: Path) -> Cost:
    """Run an affectdata command in `folder`."""
    release = next((folder / "releases").glob("[!.]*"), None) if "RELEASE" in arguments else None
    arguments = [str(release) if argument == "RELEASE" else argument for argument in arguments]
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "affectdata", *arguments, "--quiet"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    wall, cpu, peak = map(float, done.stdout.split())
    return wall, cpu, peak


def run_job(folder: Path, n: int) -> dict[str, Cost]:
    """Run the whole workflow on n images."""
    folder.mkdir()
    make_tree(folder / "images", n)
    recipe = folder / "recipe.yaml"
    size = f"short_side_px: {_HEIGHT}"
    recipe.write_text(find_recipe("valence_bins").read_text().replace("short_side_px: 256", size))
    return {name: measure(arguments, folder) for name, arguments in commands(recipe)}


def decode_seconds(folder: Path) -> float:
    """Return the CPU seconds of one decode."""
    make_images(folder, _DECODED)
    paths = sorted(folder.rglob("*.jpg"))

    def decode_all() -> None:
        for path in paths:
            data = path.read_bytes()
            hashlib.sha256(data).hexdigest()
            simplejpeg.decode_jpeg(data)

    times = time_in_turns({"decode": decode_all}, 5)["decode"]
    return sorted(cpu for _, cpu in times)[len(times) // 2] / len(paths)


def main() -> None:
    options = parse_options(__doc__)
    few, many = options.pick(300, 10_000), options.pick(1_000, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        unit = decode_seconds(Path(folder, "unit"))
        small, large = (run_job(Path(folder, str(n)), n) for n in (few, many))
    lines = [
        f"| command | CPU per image of {many:,}, in decodes | to that of {few:,} | wall, to that of {few:,} "
        f"| peak MiB, {few:,} | peak MiB, {many:,} | ratio |",
        "| --- " * 7 + "|",
    ]
    for name, (wall, cpu, peak) in large.items():
        before = small[name]
        cells = (
            f"{cpu / many / unit:.2f}",
            f"{cpu / many / (before[1] / few):.2f}",
            f"{wall / many / (before[0] / few):.2f}",
            f"{before[2]:.0f}",
            f"{peak:.0f}",
            f"{peak / before[2]:.2f}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    write_section("Scale", lines, ("pyarrow", "numpy", "simplejpeg"))


if __name__ == "__main__":
    main()
