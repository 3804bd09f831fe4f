"""Make manifest and release of collections in several ways, and compare the SHA-256 of every file.

    python benchmarks/check_bytes.py FOLDER ROOT=RECIPE [ROOT=RECIPE ...]

Threads; Ray; Ray with one of two nodes removed in `ingest` and in `balance`; a bucket of the tests' server
(source, manifest and release go through it); the same with faults: every eleventh request is answered 503,
every thirteenth answer is cut, every seventeenth is lost. `created` of release.json is left out. Needs the
server that `make test` installs.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import ray
from ray.cluster_utils import Cluster

from affectdata import api
from affectdata.manifest.manifest import load_manifest
from affectdata.release.release import open_release
from affectdata.store.objects import Bucket
from tests.buckets import ADDRESS, Buckets, serve_buckets

Progress = Callable[[str, int, int], None]


def sums(manifest: Path, release: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a manifest and a release."""
    files = [*manifest.parent.glob(f"{manifest.stem}*.parquet"), *release.rglob("*")]
    found = {}
    for path in files:
        if path.is_file():
            data = path.read_bytes()
            if path.name == "release.json":
                data = json.dumps({**json.loads(data), "created": ""}).encode()
            name = str(path.relative_to(release)) if path.is_relative_to(release) else path.name
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def make(
    root: str | Path, recipe: str, out: Path, engine: str, progress: Progress | None = None
) -> tuple[Path, Path]:
    """Ingest and balance; return the manifest and the release."""
    given: dict[str, Any] = {"workers": 2, "engine": engine, "progress": progress}
    manifest = api.ingest(root, out=out / "manifests", **given).path
    return manifest, api.balance(recipe, manifest=[manifest], out=out / "releases", **given).release.path


def on_two_nodes(root: Path, recipe: str, out: Path) -> dict[str, str]:
    """Remove one of two nodes after a third of the images, in each of the two commands."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = {"ingest": cluster.add_node(num_cpus=1)}
    os.environ["RAY_ADDRESS"] = cluster.address
    lost = []

    def lose(stage: str, done: int, total: int) -> None:
        if stage not in nodes:
            nodes[stage] = cluster.add_node(num_cpus=1)
        if stage not in lost and done > total / 3:
            lost.append(stage)
            cluster.remove_node(nodes[stage], allow_graceful=False)

    try:
        found = sums(*make(root, recipe, out, "ray", lose))
    finally:
        ray.shutdown()
        cluster.shutdown()
        del os.environ["RAY_ADDRESS"]
    if lost != ["ingest", "render"]:
        raise SystemExit(f"no node was lost: {lost}")
    return found


def by_bucket(server: Buckets, root: Path, recipe: str, out: Path, faults: bool) -> dict[str, str]:
    """Read the source, publish manifest and release, and read these again, all by the bucket."""
    server.reset()
    os.environ["AFFECTDATA_CACHE"] = str(out / "cache")
    source = Bucket(f"{ADDRESS}/{root.name}")
    for path in root.rglob("*"):
        if path.is_file():
            source.put(path.relative_to(root).as_posix(), path.read_bytes())
    if faults:
        every = {11: "busy", 13: "cut", 17: "lost"}
        server.fault = lambda _method, _path, n: next((each for k, each in every.items() if n % k == 5), None)
    manifest, release = make(source.address, recipe, out, "threads")
    if not faults:
        server.requests.clear()
        api.ingest(source.address, out=out / "manifests", workers=2)
        n_files = sum(path.is_file() for path in root.rglob("*"))
        print(f"  second ingest of {n_files} objects: {len(server.requests)} requests", server.requests[:2])
    manifest_address, _ = api.publish(manifest, ADDRESS)
    release_address, _ = api.publish(release, ADDRESS)
    found = sums(load_manifest(manifest_address).path, open_release(release_address).path)
    if not api.verify(release_address).is_sound:
        raise SystemExit("the published release is not sound")
    return found


def compare(server: Buckets, folder: Path, root: Path, recipe: str) -> None:
    """Print for every way whether its files are those of the first."""
    ways: dict[str, Callable[[Path], dict[str, str]]] = {
        "threads": lambda out: sums(*make(root, recipe, out, "threads")),
        "bucket": lambda out: by_bucket(server, root, recipe, out, False),
        "bucket with faults": lambda out: by_bucket(server, root, recipe, out, True),
        "ray": lambda out: sums(*make(root, recipe, out, "ray")),
        "ray, a node lost": lambda out: on_two_nodes(root, recipe, out),
    }
    expected: dict[str, str] = {}
    for way, run in ways.items():
        out = folder / root.name / way.replace(" ", "-")
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        found = run(out)
        ray.shutdown()
        expected = expected or found
        differ = sorted(name for name, _ in found.items() ^ expected.items())
        same = f"differ: {differ[:3]}" if differ else "same"
        seconds = time.perf_counter() - start
        print(f"{root.name}, {way}: {len(found)} files, {same}, {seconds:.0f} s", flush=True)


def main() -> None:
    folder, *given = sys.argv[1:]
    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    with serve_buckets() as server:
        os.environ |= {"AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": server.address}
        for each in given:
            root, _, recipe = each.partition("=")
            compare(server, Path(folder), Path(root).resolve(), recipe)


if __name__ == "__main__":
    main()
