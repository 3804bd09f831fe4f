"""Every engine: results in order, a bounded window, exceptions at their place, the same bytes as threads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from affectdata import api
from affectdata.errors import DecodeError, InputError
from affectdata.images import hamming
from affectdata.registry import find_plugins
from affectdata.workers import default_workers, map_ordered

HAS_RAY = find_spec("ray") is not None
ON_RAY = [
    pytest.mark.skipif(not HAS_RAY, reason="the extra `ray` is not installed"),
    pytest.mark.slow,  # Ray takes seconds to start
    pytest.mark.enable_socket,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
ENGINES = [
    pytest.param(name, marks=ON_RAY if name == "ray" else [], id=name) for name in find_plugins("engines")
]


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep Ray from writing its token to the home folder, and from joining a cluster; stop it at the end."""
    token = tmp_path_factory.mktemp("ray") / "token"
    token.write_text("0123456789abcdef" * 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def fail_at_five(number: int) -> int:
    if number == 5:
        error = DecodeError("truncated", "it ends early")
        error.where = "a.jpg"
        raise error
    return number


def wait_unevenly(number: int) -> int:
    time.sleep(0.02 * (number % 3 == 0))
    return number


@pytest.mark.parametrize("engine", ENGINES)
def test_results_come_in_the_order_of_the_batches(engine: str) -> None:
    assert list(map_ordered(wait_unevenly, range(30), 2, engine)) == list(range(30))
    assert list(map_ordered(wait_unevenly, [], 2, engine)) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_the_window_is_bounded(engine: str) -> None:
    taken = 0

    def batches() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    results = map_ordered(abs, batches(), 2, engine)
    for n_out, _ in enumerate(results, 1):
        assert taken - n_out < 4


@pytest.mark.parametrize("engine", ENGINES)
def test_an_exception_comes_at_its_place_with_its_fields(engine: str) -> None:
    got: list[int] = []
    with pytest.raises(DecodeError, match="it ends early") as caught:
        got.extend(map_ordered(fail_at_five, range(40), 2, engine))
    assert (caught.value.reason, caught.value.what, caught.value.where) == (
        "truncated",
        "it ends early",
        "a.jpg",
    )
    got.clear()
    with pytest.raises(DecodeError):
        for number in map_ordered(fail_at_five, range(40), 2, engine):
            got.append(number)
    assert got == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("engine", ENGINES)
def test_there_is_at_least_one_worker(engine: str) -> None:
    assert default_workers(engine) >= 1


def make_all(root: Path, folder: Path, engine: str) -> dict[str, str]:
    """Ingest, balance, verify and export a tree with an engine; return the SHA-256 of every file written."""
    given: dict[str, Any] = {"workers": 2, "engine": engine}
    manifest = api.ingest(root, out=folder / "manifests", **given).path
    release = api.balance("valence_bins", manifest=[manifest], out=folder / "releases", **given).release
    assert api.verify(release, **given).is_sound
    api.export(release, "webdataset", out=folder / "export", i_may_redistribute=True, **given)
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    created = {"release.json"}  # it has the time of its making
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in created
    }


@pytest.fixture(scope="module")
def expected(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What threads write for `small_gaped`."""
    return make_all(small_gaped, tmp_path_factory.mktemp("threads"), "threads")


@pytest.mark.slow
@pytest.mark.parametrize("engine", [each for each in ENGINES if each.id != "threads"])
def test_an_engine_writes_the_bytes_that_threads_write(
    engine: str, small_gaped: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    assert make_all(small_gaped, tmp_path, engine) == expected


@pytest.mark.slow
@pytest.mark.parametrize("engine", [each for each in ENGINES if each.id != "threads"])
def test_relative_paths_are_those_of_the_caller(
    engine: str, small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_gaped)
    result = api.ingest(Path(), source="gaped", out=tmp_path, workers=2, engine=engine)
    assert result.counts["kept"] == 18


@pytest.mark.slow
@pytest.mark.parametrize("engine", [each for each in ENGINES if each.id != "threads"])
def test_near_duplicates_are_those_of_threads(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.repeat(np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64), 2)
    hashes[::2] ^= np.uint64(5)
    monkeypatch.setattr(hamming, "_FEW", 0)
    monkeypatch.setattr(hamming, "_RANGE", 500)
    monkeypatch.setattr(hamming, "_TABLE_COST", 0)  # so that there are several tables
    found = [
        np.concatenate(
            [np.stack(block) for block in hamming.find_near(hashes, other, 6, 64, 2, name)], axis=1
        )
        for name in ("threads", engine)
        for other in (None, hashes)
    ]
    assert found[0].tolist() == found[2].tolist() and found[1].tolist() == found[3].tolist()
    assert found[0].shape == (2, 1000) and found[1].shape == (2, 4000)


@pytest.fixture(scope="module")
def mirrored(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of ratings for mirrored images of `small_gaped`, and one for images of `small_gaped`."""
    root = tmp_path_factory.mktemp("mirrored")
    names = sorted(path.relative_to(small_gaped).as_posix() for path in small_gaped.glob("*/*.bmp"))
    for name in names:
        ImageOps.mirror(Image.open(small_gaped / name)).save(root / name.replace("/", "-"))
    rows = [f"{name.replace('/', '-')},{Path(name).stem},{5 * at}" for at, name in enumerate(names)]
    (root / "ratings.csv").write_text("\n".join(["file,of,valence", *rows]))
    both = "table: ratings.csv\nscales: {valence: [0, 100]}\ncolumns: {valence: valence}\nlicense: CC0\n"
    (root / "columns.yaml").write_text(f"name: mirrored\nkey: file\n{both}")
    (root / "onto.yaml").write_text(f"name: onto\nkey: of\nfile: gaped/{{key}}\n{both}")
    recipe = """name: two\nsources: [gaped, mirrored]\nseed: 7\ntarget: valence\nbins: {width: 50}\n"""
    (root / "two.yaml").write_text(recipe + "split: {val: 0.2, test: 0.2}\nbalance: {max_copies: 1}\n")
    return root


def merge_all(gaped: Path, mirrored: Path, folder: Path, engine: str) -> dict[str, bytes]:
    """Concatenate, overlay and plan with an engine, by threads what comes before; return what was made."""
    given: dict[str, Any] = {"workers": 2, "engine": engine}
    parts = folder / "parts"
    onto = api.ingest(gaped, out=parts).path
    other = api.ingest(mirrored, column_map=mirrored / "columns.yaml", out=parts).path
    across = api.concat([onto, other], name="both", out=folder, **given).n_across
    assert across["near_duplicate"] > 10
    api.ingest(mirrored / "ratings.csv", onto=[onto], column_map=mirrored / "onto.yaml", out=folder, **given)
    plan = api.plan_balance(mirrored / "two.yaml", manifest=[onto, other], **given)
    written = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    return {**written, "plan": repr(plan.rows.to_pydict()).encode()}


@pytest.mark.slow
@pytest.mark.parametrize("engine", [each for each in ENGINES if each.id != "threads"])
def test_what_takes_several_manifests_compares_their_images_on_the_engine(
    engine: str, small_gaped: Path, mirrored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    real = hamming.map_ordered

    def note(fn: Any, batches: Any, workers: int, engine: str) -> Any:
        used.append(engine)
        return real(fn, batches, workers, engine)

    monkeypatch.setattr(hamming, "_FEW", 0)  # else few hashes stay in this thread
    monkeypatch.setattr(hamming, "map_ordered", note)
    by_threads = merge_all(small_gaped, mirrored, tmp_path / "threads", "threads")
    used.clear()
    assert merge_all(small_gaped, mirrored, tmp_path / engine, engine) == by_threads
    assert used.count(engine) == 6 and len(by_threads) == 6  # upright and turned, three times


def test_ray_is_not_imported_unless_chosen() -> None:
    code = (
        "import sys\nfrom affectdata.workers import map_ordered\n"
        "assert list(map_ordered(abs, [1, -2], 2)) == [1, 2]\nassert 'ray' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_ray_the_engine_says_what_to_install(
    cli: Callable[..., Any], small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "affectdata.engines.ray", raising=False)
    ran = cli("ingest", small_gaped, "--out", tmp_path, "--engine", "ray")
    assert ran.code == 5 and "pip install 'affectdata[ray]'" in ran.err


# Nodes of a cluster on this machine, in a process of its own: `ray.cluster_utils.Cluster`. It loses a
# worker, then a node; then another with other versions joins.
CLUSTER = """
import json, os, sys, time
import ray
from pathlib import Path
from ray.cluster_utils import Cluster
from affectdata import api
from affectdata.errors import AffectdataError
from affectdata.workers import map_ordered

root, out, other = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
os.environ["RAY_ADDRESS"] = cluster.address

def work(number):
    time.sleep(.1)
    if number == 7 and not Path(out, "killed").exists():
        Path(out, "killed").touch()
        os._exit(1)
    return number, ray.get_runtime_context().get_node_id()

found = {"numbers": [], "nodes": []}
for number, node in map_ordered(work, range(60), 2, "ray"):
    found["numbers"].append(number)
    found["nodes"].append(node)
    if number == 15:
        cluster.remove_node(second, allow_graceful=False)
found["killed"] = Path(out, "killed").exists()
found["digest"] = api.ingest(root, out=Path(out, "manifests"), engine="ray", workers=2).digest
cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": other})
try:
    api.ingest(root, out=Path(out, "mixed"), engine="ray", workers=2)
except AffectdataError as error:
    found["refused"] = [type(error).__name__, str(error)]
Path(out, "found.json").write_text(json.dumps(found))
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What `CLUSTER` found, and its folder."""
    out = tmp_path_factory.mktemp("cluster")
    fake = out / "other" / "pillow-1.0.dist-info"
    fake.mkdir(parents=True)
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 1.0\n")
    path = os.pathsep.join(filter(None, [str(fake.parent), *sys.path]))
    ran = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(small_gaped), str(out), path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return out, json.loads((out / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="the extra `ray` is not installed")
@pytest.mark.xdist_group("ray")
def test_lost_workers_and_nodes_change_nothing(
    cluster: tuple[Path, dict[str, Any]], small_gaped: Path, tmp_path: Path
) -> None:
    _, found = cluster
    assert found["killed"] and len(set(found["nodes"])) == 2 and len(set(found["nodes"][40:])) == 1
    assert found["numbers"] == list(range(60))
    assert found["digest"] == api.ingest(small_gaped, out=tmp_path / "threads").digest


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="the extra `ray` is not installed")
@pytest.mark.xdist_group("ray")
def test_a_node_with_other_versions_is_refused(cluster: tuple[Path, dict[str, Any]]) -> None:
    out, found = cluster
    kind, message = found["refused"]
    assert kind == InputError.__name__
    assert "pillow 1.0 instead of" in message and "node " in message
    assert not list(out.glob("mixed/*.parquet"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="the extra `ray` is not installed")
@pytest.mark.xdist_group("ray")
def test_an_interrupt_ends_with_130_and_the_run_resumes(
    start: Callable[..., Any], sample_gaped: Path, tmp_path: Path
) -> None:
    slow = (
        "import os, signal\nimport affectdata.manifest.memo as memo\nadd = memo.Memo.add\n"
        "def interrupt(self, result, at):\n    add(self, result, at)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "memo.Memo.add = interrupt"
    )
    arguments = ["ingest", sample_gaped, "--out", tmp_path, "--engine", "ray", "--workers", "2"]
    process = start(*arguments, first=slow)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err.strip()) == (130, "interrupted; the same command goes on from here")
    process = start(*arguments, "--quiet")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    by_threads = api.ingest(sample_gaped, out=tmp_path / "threads")
    assert api.ingest(sample_gaped, out=tmp_path).digest == by_threads.digest


@pytest.mark.parametrize("engine", [each for each in ENGINES if each.id != "threads"])
@pytest.mark.slow
def test_features_are_those_of_threads(engine: str, small_gaped: Path, tmp_path: Path) -> None:
    manifest = api.ingest(small_gaped, out=tmp_path / "manifests").path
    found = []
    for name in ("threads", engine):
        api.groups(manifest, checks=tmp_path / name, out=tmp_path / f"{name}.csv", workers=2, engine=name)
        files = sorted((tmp_path / name / ".features").rglob("*.parquet"))
        found.append({path.name: path.read_bytes() for path in files})
    assert found[0] == found[1] and found[0]
    assert (tmp_path / "threads.csv").read_bytes() == (tmp_path / f"{engine}.csv").read_bytes()
