"""Manifests in a bucket, images whose root is an address, and the cache of what was read."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata import api
from affectdata.errors import ImagesNotFound, IntegrityError, ManifestError, UsageError
from affectdata.manifest.manifest import load_manifest
from affectdata.release.release import open_release
from affectdata.store import cache
from affectdata.store.objects import Bucket
from affectdata.store.remote import local_copy
from tests.buckets import ADDRESS
from tests.buckets import Buckets as Server

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.xdist_group("bucket")]


@pytest.fixture(scope="module")
def manifest(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with splits, hence with a ledger. Not to be written to."""
    path = api.ingest(small_gaped, out=tmp_path_factory.mktemp("manifests")).path
    api.split(path, "valence_bins")
    return path


def upload(root: Path, address: str = f"{ADDRESS}/gaped") -> str:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            Bucket(address).put(path.relative_to(root).as_posix(), path.read_bytes())
    return address


def in_another_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_published_manifest_is_the_manifest(server: Server, manifest: Path) -> None:
    address, is_new = api.publish(manifest, f"{ADDRESS}/manifests")
    assert (address, is_new) == (f"{ADDRESS}/manifests/gaped.parquet", True)
    order = [each.rpartition("/lab/manifests/")[2] for each in server.requests if each.startswith("PUT")]
    assert order[-1].startswith("gaped.parquet") and "SHA256SUMS" in order[-2]
    copy = load_manifest(address).path
    here = sorted(manifest.parent.glob("gaped*.parquet"))
    assert [each.name for each in here] == [
        f"gaped.{k}parquet" for k in ("edges.", "ledger.", "", "rejects.")
    ]
    assert {p.name: p.read_bytes() for p in here} == {p.name: p.read_bytes() for p in copy.parent.iterdir()}
    server.requests.clear()
    assert (
        load_manifest(address).path == copy and len(server.requests) == 1
    )  # what changes is seen by its tag
    assert api.publish(manifest, f"{ADDRESS}/manifests") == (address, False)


def test_a_document_that_is_nested_too_deeply(server: Server) -> None:
    Bucket(f"{ADDRESS}/r").put("release.json", b"[" * 100_000)
    Bucket(f"{ADDRESS}/r").put("SHA256SUMS", b"")
    with pytest.raises(IntegrityError, match="SHA256SUMS differs"):
        open_release(f"{ADDRESS}/r")


def test_a_plain_copy_of_the_file_is_read_too(server: Server, manifest: Path) -> None:
    Bucket(f"{ADDRESS}/copies").put("gaped.parquet", manifest.read_bytes())
    assert load_manifest(f"{ADDRESS}/copies/gaped.parquet").digest == load_manifest(manifest).digest


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[2:]])
def test_a_damaged_list_of_the_files_beside_a_manifest_is_no_lost_ledger(
    server: Server, manifest: Path, damage: Callable[[bytes], bytes]
) -> None:
    address, _ = api.publish(manifest, f"{ADDRESS}/manifests")
    bucket = Bucket(f"{ADDRESS}/manifests")
    (name,) = (each.name for each in bucket.list("objects") if each.name.endswith("SHA256SUMS"))
    bucket.put(name, damage(bucket.get(name)[0]))
    with pytest.raises(IntegrityError, match="SHA256SUMS differs from the published file"):
        load_manifest(address)


def test_a_manifest_that_was_replaced_is_no_lost_ledger(
    server: Server, manifest: Path, tmp_path: Path
) -> None:
    address, _ = api.publish(manifest, f"{ADDRESS}/manifests")
    Bucket(f"{ADDRESS}/manifests").put("gaped.parquet", manifest.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="the list of files beside it is missing"):
        load_manifest(address)


def test_a_release_from_a_manifest_in_a_bucket_has_the_same_bytes(
    server: Server, small_gaped: Path, manifest: Path, tmp_path: Path
) -> None:
    address, _ = api.publish(manifest, ADDRESS)
    root = upload(small_gaped)
    with pytest.raises(ImagesNotFound, match="the images of gaped were not found"):
        api.balance("valence_bins", manifest=[address], out=tmp_path / "none")
    here = api.balance("valence_bins", manifest=[manifest], out=tmp_path / "here").release
    there = api.balance(
        "valence_bins", manifest=[address], roots={"gaped": root}, out=tmp_path / "there"
    ).release
    assert (here.name, here.info["id"]) == (there.name, there.info["id"])
    assert (here.path / "SHA256SUMS").read_bytes() == (there.path / "SHA256SUMS").read_bytes()


def test_commands_take_manifests_and_releases_in_buckets(
    server: Server, small_gaped: Path, manifest: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    published = cli("publish", manifest, ADDRESS, "--json")
    address, root = published.document["address"], upload(small_gaped)
    options = ("--recipe", "valence_bins", "--out", tmp_path / "releases", "--no-report")
    made = cli("balance", "--manifest", address, "--root", f"gaped={root}", *options, "--json")
    assert made.code == 0, made.err
    release = cli("publish", made.document["release"], ADDRESS, "--json").document["address"]
    assert cli("diff", release, made.document["release"], "--json").document["step"] == "none"
    assert cli("report", address, "--out", tmp_path / "checks").code == 0
    assert (tmp_path / "checks" / "gaped.report.html").is_file()
    assert cli("balance", f"--manifest={address}", "--split-from", release, *options, "--dry-run").code == 0
    count = "SELECT count(*) AS n FROM gaped JOIN manifest USING (image_id)"
    assert cli("query", count, "--manifests", ADDRESS, "--json").document["rows"] == [{"n": 18}]
    assert "no manifest in" in cli("query", count, "--manifests", f"{ADDRESS}/none").err
    for refused in (
        ("split", address),
        ("ingest", "--out", ADDRESS),
    ):
        ran = cli(*refused)
        assert ran.code == 2 and "only local paths" in ran.err, ran.err


def test_what_is_no_manifest_is_refused(server: Server, manifest: Path) -> None:
    with pytest.raises(ManifestError, match="no manifest"):
        load_manifest(f"{ADDRESS}/gaped.parquet")
    with pytest.raises(UsageError, match="is not a manifest"):
        load_manifest(f"{ADDRESS}/gaped")


def test_another_manifest_of_that_name_is_refused(server: Server, manifest: Path, tmp_path: Path) -> None:
    address, _ = api.publish(manifest, ADDRESS)
    for each in manifest.parent.glob("*.parquet"):
        shutil.copy(each, tmp_path)
    other = tmp_path / "gaped.parquet"
    (tmp_path / "gaped.ledger.parquet").unlink()  # the same manifest with other files beside it
    with pytest.raises(IntegrityError, match="something else was published"):
        api.publish(other, ADDRESS)
    api.forget_splits(other)
    with pytest.raises(IntegrityError, match="something else was published"):
        api.publish(other, ADDRESS)
    assert load_manifest(address).digest == load_manifest(manifest).digest


def test_a_forged_file_beside_a_manifest_is_refused(server: Server, manifest: Path) -> None:
    address, _ = api.publish(manifest, ADDRESS)
    bucket = Bucket(ADDRESS)
    for stat in list(bucket.list("objects")):
        if not stat.name.endswith("SHA256SUMS"):
            bucket.put(stat.name, b"forged")
    with pytest.raises(IntegrityError, match="differs from the published file"):
        load_manifest(address)


@pytest.mark.parametrize("after", random.Random(1).sample(range(1, 6), 3))
def test_a_killed_writer_leaves_no_manifest_and_the_next_run_ends_it(
    server: Server, manifest: Path, after: int
) -> None:
    code = "import sys; from affectdata import api; api.publish(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(manifest), ADDRESS])
    server.fault = lambda *_: process.kill() if server.count("PUT") >= after else None  # type: ignore[func-returns-value]
    assert process.wait(60) == -9
    server.fault = lambda *_: None
    if after < 5:
        with pytest.raises(ManifestError, match="no manifest"):
            load_manifest(f"{ADDRESS}/gaped.parquet")
    address, _ = api.publish(manifest, ADDRESS)
    assert load_manifest(address).path.read_bytes() == manifest.read_bytes()


def test_the_root_of_images_in_a_bucket_is_their_address(
    server: Server, small_gaped: Path, tmp_path: Path
) -> None:
    root = upload(small_gaped)
    path = api.ingest(root, out=tmp_path).path
    assert root in (tmp_path / ".local.json").read_text()
    first = load_manifest(path).images().roots["gaped"]
    server.requests.clear()
    load_manifest(path).images()
    assert not server.requests
    shutil.rmtree(cache.cache_root())
    again = load_manifest(path).images()  # the cache is only a cache
    row = load_manifest(path).table.slice(0, 1).to_pylist()[0]
    assert again.roots["gaped"] == first and again.read("gaped", row["path"], row["image_id"])
    assert api.ingest(root, out=tmp_path).path == path


@pytest.mark.parametrize("fault", ["cut", "busy", "slow", "lost"])
def test_faults_change_nothing_in_a_manifest(
    server: Server, small_gaped: Path, tmp_path: Path, fault: str
) -> None:
    root, local = upload(small_gaped), api.ingest(small_gaped, out=tmp_path / "local").path
    server.fault = lambda method, path, number: fault if number % 5 == 2 else None
    remote = api.ingest(root, out=tmp_path / "remote").path
    assert remote.read_bytes() == local.read_bytes()
    address, _ = api.publish(remote, ADDRESS)
    assert load_manifest(address).path.read_bytes() == local.read_bytes()


@pytest.mark.parametrize("after", random.Random(2).sample(range(2, 22), 3))
def test_a_killed_reader_leaves_a_cache_that_the_next_run_completes(
    server: Server, small_gaped: Path, tmp_path: Path, after: int
) -> None:
    root = upload(small_gaped)
    code = "import sys; from affectdata import api; api.ingest(sys.argv[1], out=sys.argv[2])"
    process = subprocess.Popen([sys.executable, "-c", code, root, str(tmp_path / "out")])
    server.fault = lambda *_: process.kill() if server.count("GET") >= after else None  # type: ignore[func-returns-value]
    assert process.wait(60) == -9
    server.fault = lambda *_: None
    assert api.ingest(root, out=tmp_path / "out").digest == api.ingest(small_gaped, out=tmp_path / "l").digest


def test_a_large_object_is_read_in_parts_and_from_where_it_was_cut(server: Server, tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3 << 20)
    bucket = Bucket(ADDRESS)
    bucket.put("large", data)
    bucket.put("empty", b"")
    server.requests.clear()
    server.fault = lambda method, path, number: "cut" if number <= 2 else None
    for name, expected in (("large", data), ("empty", b"")):
        with (tmp_path / name).open("wb") as file:
            stat = bucket.read(name, file)
        assert (tmp_path / name).read_bytes() == expected and stat == bucket.stat(name)
    assert server.count("GET", "large") == 3


FETCH = """
import sys
from affectdata.store.trees import fetch_tree
for address in sys.argv[1:]:
    print(fetch_tree(address))
"""


def test_the_cache_is_bounded_and_what_was_not_used_for_longest_goes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [f"{ADDRESS}/tree{number}" for number in range(4)]
    for address in addresses:
        Bucket(address).put("a", b"x" * 1000)
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "2.9e-6")  # two entries and their journals

    def there() -> list[bool]:
        return [(cache.tree_folder(address) / "a").is_file() for address in addresses]

    for address in addresses[:2]:
        assert in_another_process(FETCH, address).returncode == 0
    assert in_another_process(FETCH, addresses[0]).returncode == 0  # used again
    assert there() == [True, True, False, False]
    assert in_another_process(FETCH, addresses[2]).returncode == 0
    assert there() == [True, False, True, False]
    local_copy(addresses[0])  # this process uses it from now on
    os.utime(cache.tree_folder(addresses[0]).parent / ".entry", (0, 0))
    assert in_another_process(FETCH, addresses[3]).returncode == 0
    assert there() == [True, False, False, True]
    ran = in_another_process(FETCH, *addresses)  # all used by one process: none of them goes
    assert ran.returncode == 0 and there() == [True] * 4
    monkeypatch.setenv(cache.LIMIT_VARIABLE, "much")
    ran = in_another_process(FETCH, addresses[0])
    assert "AFFECTDATA_CACHE_GB=much is not a number of gigabytes" in ran.stderr
