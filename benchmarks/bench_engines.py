"""Compare the engines of `ingest`: CPU and wall time of Ray on this machine, to that of threads.

    python benchmarks/bench_engines.py [--quick]

Generated JPEGs of 640 × 480 px, each engine in turn. CPU is that of this process and all that it started,
Ray's own processes included, after Ray has started and every worker has run. The bytes must be equal.
"""

import os
import tempfile
import time
from pathlib import Path

from _bench import make_images, parse_options, write_section

from affectdata.hashing import file_hash
from affectdata.manifest.ingest import ingest
from affectdata.workers import default_workers

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its living descendants (Linux)."""
    fields = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
    family = {os.getpid()}
    while more := {pid for pid, each in fields.items() if int(each[1]) in family} - family:
        family |= more
    return sum(int(fields[pid][11]) + int(fields[pid][12]) for pid in family) / _TICKS


def measure(root: Path, out: Path, engine: str, workers: int | None = None) -> tuple[float, float, str]:
    """Ingest a tree; return wall and CPU seconds, and the SHA-256 of the manifest."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    result = ingest(root, source="image_folder", out=out, workers=workers or default_workers(), engine=engine)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return wall, cpu, file_hash(result.path.read_bytes())


def main() -> None:
    options = parse_options(__doc__)
    n = options.pick(200, 20_000)
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        make_images(few, 200)
        make_images(many, n)
        for engine in ("ray", "threads"):
            measure(few, Path(folder, f"start-{engine}"), engine)
        found = {engine: measure(many, Path(folder, engine), engine) for engine in ("threads", "ray")}
    if found["ray"][2] != found["threads"][2]:
        raise SystemExit("the manifests differ")
    wall, cpu = (found["ray"][at] / found["threads"][at] for at in (0, 1))
    each = found["threads"][1] / n * 1000
    lines = [
        f"| `ingest --engine ray` of {n:,} images, to threads | wall | CPU |",
        "| --- | --- | --- |",
        f"| {default_workers()} workers | {wall:.2f} | {cpu:.2f} |",
        "",
        f"Threads took {each:.2f} ms of CPU per image. The manifests have one SHA-256.",
    ]
    write_section("Engines", lines, ("ray", "pyarrow", "numpy", "simplejpeg"))


if __name__ == "__main__":
    main()
