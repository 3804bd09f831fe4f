"""Buckets: trees and releases through a server on the loopback, with its faults (tests/buckets.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata import api
from affectdata.errors import InputError, IntegrityError, ManifestError, UsageError
from affectdata.release.release import open_release
from affectdata.release.verify import check_release
from affectdata.store.addresses import check_address, check_name, is_address
from affectdata.workers import map_ordered
from tests.buckets import ADDRESS
from tests.buckets import Buckets as Server
from tests.documents import name_of

pytest.importorskip("obstore", reason="the extra `remote` is not installed")

from obstore.exceptions import GenericError

from affectdata.store import objects
from affectdata.store.objects import Bucket
from affectdata.store.published import fetch_folder, publish_folder
from affectdata.store.trees import fetch_tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.enable_socket,
    pytest.mark.xdist_group("bucket"),
]


@pytest.fixture(scope="module")
def release(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published release. Not to be written to."""
    folder = tmp_path_factory.mktemp("release")
    manifest = api.ingest(small_gaped, out=folder / "manifests").path
    return api.balance("valence_bins", manifest=[manifest], out=folder / "releases").release.path


def upload(root: Path, address: str = f"{ADDRESS}/gaped") -> str:
    bucket = Bucket(address)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            bucket.put(path.relative_to(root).as_posix(), path.read_bytes())
    return address


def send(server: Server, path: str, body: bytes) -> None:
    """Send a PUT that obstore would not."""
    headers = {"Content-Type": "application/octet-stream"}
    asked = urllib.request.Request(server.address + path, body, headers, method="PUT")
    urllib.request.urlopen(asked).close()


def put_raw(server: Server, name: str, data: bytes = b"") -> None:
    send(server, f"{ADDRESS.removeprefix('s3:/')}/{name}", data)


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_put_create_get_list_and_stat(server: Server) -> None:
    bucket = Bucket(ADDRESS)
    bucket.put("a/1", b"one")
    assert bucket.create("a/2", b"two") and bucket.create("a/2", b"two")
    assert not bucket.create("a/2", b"other") and bucket.get("a/2")[0] == b"two"
    data, stat = bucket.get("a/1")
    assert (data, stat) == (b"one", bucket.stat("a/1"))
    assert [each.name for each in bucket.list("a")] == ["a/1", "a/2"]
    assert bucket.stat("none") is None
    with pytest.raises(FileNotFoundError, match="no such object"):
        bucket.get("none")


@pytest.mark.parametrize("fault", ["busy", "lost", "slow"])
def test_a_write_is_repeated_and_its_lost_response_found(server: Server, fault: str) -> None:
    server.fault = lambda method, path, number: fault if method == "PUT" and number <= 2 else None
    assert Bucket(ADDRESS).create("x", b"data")
    assert Bucket(ADDRESS).get("x")[0] == b"data"
    server.fault = lambda method, path, number: fault if method == "GET" and number % 3 == 0 else None
    assert all(Bucket(ADDRESS).get("x")[0] == b"data" for _ in range(4))


@pytest.mark.parametrize("fault", ["busy", "lost", "cut"])
def test_answers_that_end_early_are_asked_for_again(server: Server, tmp_path: Path, fault: str) -> None:
    bucket = Bucket(ADDRESS)
    bucket.put("x", b"data")
    server.fault = lambda method, path, number: fault if number % 2 else None
    server.requests.clear()
    with pytest.raises(FileNotFoundError):  # the text of a 404 is cut too
        bucket.get("none")
    server.requests.clear()
    assert [each.name for each in bucket.list()] == ["x"]
    server.requests.clear()
    assert bucket.stat("x") and bucket.stat("none") is None
    server.requests.clear()
    with (tmp_path / "x").open("wb") as file, pytest.raises(FileNotFoundError):
        bucket.read("none", file)


def test_messages_have_no_credentials(server: Server) -> None:
    server.fault = lambda method, path, number: "denied"
    with pytest.raises(InputError, match="access was denied") as caught:
        Bucket(ADDRESS).put("a", b"")
    assert f"{ADDRESS}/a" in str(caught.value)
    for secret in ("AKIATEST", "very-secret"):
        assert secret not in str(caught.value)
    for address in ("s3://key:secret@bucket/x", "s3://bucket/x?sig=secret", "s3://", "s3:///x"):
        with pytest.raises(UsageError) as refused:
            check_address(address)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["../a", "a/../b", "/a", "a//b", "a/", ".", "a\0"])
def test_no_object_becomes_a_file_elsewhere(name: str) -> None:
    with pytest.raises(IntegrityError, match="cannot be the name of a file"):
        check_name(name, ADDRESS)


def test_a_tree_gives_the_manifest_of_the_folder(server: Server, small_gaped: Path, tmp_path: Path) -> None:
    address = upload(small_gaped)
    local = api.ingest(small_gaped, out=tmp_path / "local")
    server.requests.clear()
    remote = api.ingest(address, out=tmp_path / "remote")
    assert remote.path.read_bytes() == local.path.read_bytes()
    assert remote.counts == local.counts
    n_files = len(files_of(small_gaped))
    assert server.count("GET", "list-type=2") == 1 and len(server.requests) == n_files + 1
    server.requests.clear()
    assert api.ingest(address, out=tmp_path / "remote").digest == local.digest
    assert len(server.requests) == 1  # the list


def test_a_change_in_a_tree_is_read_and_what_is_gone_removed(server: Server, tmp_path: Path) -> None:
    bucket = Bucket(f"{ADDRESS}/tree")
    for name in ("a/1", "a/2", "b/3"):
        bucket.put(name, name.encode())
    folder = fetch_tree(bucket.address)
    assert files_of(folder) == {"a/1": b"a/1", "a/2": b"a/2", "b/3": b"b/3"}
    bucket.put("a/1", b"A/1")  # as many bytes
    shutil.copytree(folder, tmp_path / "before")
    import obstore

    obstore.delete(bucket._store, "b/3")
    server.requests.clear()
    assert files_of(fetch_tree(bucket.address)) == {"a/1": b"A/1", "a/2": b"a/2"}
    assert len(server.requests) == 2 and not (folder / "b").exists()
    (folder / "a/2").write_bytes(b"cut")
    (folder / "a/2").write_bytes(b"c")
    assert files_of(fetch_tree(bucket.address))["a/2"] == b"a/2"


def test_a_tree_that_is_known_costs_a_request_per_thousand_objects(server: Server) -> None:
    bucket = Bucket(f"{ADDRESS}/many")
    for _ in map_ordered(lambda number: bucket.put(f"{number:04}", b"x"), range(1100), 16):
        pass
    fetch_tree(bucket.address)
    server.requests.clear()
    assert len(files_of(fetch_tree(bucket.address))) == 1100
    assert len(server.requests) == server.count("GET", "list-type=2") == 2


def test_folders_as_consoles_make_them_are_no_files(server: Server, tmp_path: Path) -> None:
    bucket = Bucket(f"{ADDRESS}/tree")
    bucket.put("a/1", b"one")
    bucket.put("a/empty", b"")
    for name in ("", "a/", "none/"):
        put_raw(server, f"tree/{name}")
    assert files_of(fetch_tree(bucket.address)) == {"a/1": b"one", "a/empty": b""}


def test_an_object_that_cannot_be_a_file_is_named(server: Server) -> None:
    put_raw(server, "odd/a/./b.jpg", b"x")
    with pytest.raises(IntegrityError, match=r"a/\./b\.jpg cannot be the name of a file"):
        fetch_tree(f"{ADDRESS}/odd")
    bucket = Bucket(f"{ADDRESS}/both")
    bucket.put("a", b"x")
    bucket.put("a/b/c", b"x")
    with pytest.raises(IntegrityError, match="a is an object and a folder"):
        fetch_tree(bucket.address)


def test_objects_with_versions_are_read_once(server: Server) -> None:
    body = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    send(server, "/bucket?versioning", body.encode())
    bucket = Bucket(f"{ADDRESS}/tree")
    bucket.put("a", b"one")
    fetch_tree(bucket.address)
    server.requests.clear()
    fetch_tree(bucket.address)
    assert len(server.requests) == 1  # a list has no versions
    bucket.put("a", b"two")
    assert files_of(fetch_tree(bucket.address)) == {"a": b"two"}


def test_what_cannot_succeed_is_not_repeated(server: Server) -> None:
    with pytest.raises(InputError, match="404 Not Found"):
        fetch_tree("s3://nobucket/tree")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "n_requests"),
    [("429 Too Many Requests", 2), ("408 Request Timeout", 2), ("503 Slow Down", 2), ("403 Forbidden", 1)],
)
def test_a_request_that_may_succeed_later_is_repeated(
    monkeypatch: pytest.MonkeyPatch, status: str, n_requests: int
) -> None:
    monkeypatch.setattr(objects, "_PAUSES_S", (0.0,))
    requests = []

    def request() -> None:
        requests.append(status)
        raise GenericError(f"Server returned: {status}")

    with pytest.raises(GenericError):
        objects._repeat(request)
    assert len(requests) == n_requests


def test_an_empty_address_is_an_error(server: Server) -> None:
    with pytest.raises(UsageError, match="there is nothing below"):
        fetch_tree(f"{ADDRESS}/nothing")


def test_a_published_release_is_the_release(server: Server, release: Path) -> None:
    address, is_new = api.publish(release, ADDRESS)
    assert is_new and address == f"{ADDRESS}/{release.name}"
    opened = open_release(address)
    assert files_of(opened.path) == files_of(release) and opened.name == release.name
    assert check_release(opened) == [] and api.verify(address).is_sound
    assert len(opened.dataset("train")) == opened.info["rows"]["train"]
    order = [each.rpartition("/lab/")[2] for each in server.requests if each.startswith("PUT")]
    assert order[-1].startswith(f"{release.name}/release.json") and "SHA256SUMS" in order[-2]
    server.requests.clear()
    assert api.publish(release, ADDRESS) == (address, False)
    assert open_release(address).path == opened.path
    assert server.count("PUT") == 0 and len(server.requests) <= 3


def test_verify_reads_every_object_again(server: Server, release: Path) -> None:
    address, _ = api.publish(release, ADDRESS)
    open_release(address)
    bucket = Bucket(address)
    name = next(each.name for each in bucket.list("objects"))
    bucket.put(name, b"forged")
    with pytest.raises(IntegrityError, match="differs from the published file"):
        api.verify(address)


def test_lost_objects_are_named_and_written_again(
    server: Server, release: Path, cli: Callable[..., Any]
) -> None:
    import obstore

    address, _ = api.publish(release, ADDRESS)
    opened, bucket = open_release(address), Bucket(address)
    lost = ["SHA256SUMS", *(each.name for each in bucket.list("objects")[:2])]
    for name in lost[1:]:
        obstore.delete(bucket._store, name)
    ran = cli("verify", address)
    assert ran.code == 4 and any(name in ran.err for name in lost) and "is missing" in ran.err
    obstore.delete(bucket._store, lost[0])
    server.requests.clear()
    ran = cli("publish", release, ADDRESS, "--json")
    assert ran.code == 0 and not ran.document["new"] and "missing there: 3 objects" in ran.err
    assert server.count("GET", "list-type=2") == 1 and server.count("PUT") == 3
    assert api.verify(address).is_sound and files_of(opened.path) == files_of(release)


def test_a_release_without_a_file_is_not_published(server: Server, release: Path, tmp_path: Path) -> None:
    other = tmp_path / release.name
    shutil.copytree(release, other)
    gone = next((other / "train").iterdir())
    gone.unlink()
    with pytest.raises(IntegrityError, match=f"train/{gone.name} does not exist"):
        api.publish(other, ADDRESS)
    assert Bucket(ADDRESS).list() == []


@pytest.mark.parametrize("fault", ["busy", "lost"])
def test_faults_change_nothing_in_a_release(server: Server, release: Path, fault: str) -> None:
    server.fault = lambda method, path, number: fault if number % 7 == 3 else None
    address, _ = api.publish(release, ADDRESS)
    assert files_of(open_release(address).path) == files_of(release)


def test_two_writers_end_well_and_leave_one_release(server: Server, release: Path, tmp_path: Path) -> None:
    import json

    other = tmp_path / release.name  # made at another time
    shutil.copytree(release, other)
    info = json.loads((other / "release.json").read_text())
    (other / "release.json").write_text(json.dumps({**info, "created": "2001-01-01T00:00:00+00:00"}))
    found: list[Any] = []
    writers = [
        threading.Thread(target=lambda each=each: found.append(api.publish(each, ADDRESS)[1]))
        for each in (release, other)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(found) == [False, True]
    assert api.verify(f"{ADDRESS}/{release.name}").is_sound


def test_another_release_of_that_name_is_refused(server: Server, release: Path, tmp_path: Path) -> None:
    import json

    api.publish(release, ADDRESS)
    other = tmp_path / release.name
    shutil.copytree(release, other)
    info = json.loads((other / "release.json").read_text())
    (other / "release.json").write_text(json.dumps({**info, "originals": 1}))
    with pytest.raises(IntegrityError, match="something else was published"):
        publish_folder(other, "release.json", f"{ADDRESS}/{release.name}")


@pytest.mark.parametrize("after", [1, 10, 20])
def test_a_killed_writer_leaves_no_release_and_the_next_run_ends_it(
    server: Server, release: Path, after: int
) -> None:
    address = f"{ADDRESS}/{release.name}"
    code = f"from affectdata import api; api.publish({str(release)!r}, {ADDRESS!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    server.fault = lambda *_: process.kill() if server.count("PUT") >= after else None  # type: ignore[func-returns-value]
    process.wait(60)
    assert process.returncode == -9
    with pytest.raises(ManifestError, match="not a finished release"):
        open_release(address)
    server.fault = lambda *_: None
    assert api.publish(release, ADDRESS) == (address, True)
    assert files_of(open_release(address).path) == files_of(release)


def test_hostile_names_in_a_published_release_are_refused(server: Server, tmp_path: Path) -> None:
    from affectdata.hashing import file_hash

    sums = f"{'0' * 64}  ../../evil\n".encode()
    bucket = Bucket(f"{ADDRESS}/evil")
    bucket.put("SHA256SUMS", sums)
    bucket.put("release.json", f'{{"sums_sha256": "{file_hash(sums)}"}}'.encode())
    with pytest.raises(IntegrityError, match="cannot be the name of a file"):
        fetch_folder(bucket.address, "release.json", "sums_sha256")


def test_commands_take_addresses(server: Server, release: Path, cli: Callable[..., Any]) -> None:
    ran = cli("publish", release, ADDRESS, "--json")
    assert name_of(ran.document) == "publish"
    assert ran.code == 0 and ran.document["new"] and "keep the bucket private" in ran.err
    assert cli("verify", "--json", ran.document["address"]).code == 0
    refused = cli("ingest", "gaped", "--out", ADDRESS)
    assert refused.code == 2 and "only local paths" in refused.err
    assert is_address(ADDRESS) and not is_address(Path(ADDRESS))


def test_a_check_of_a_published_release_is_that_of_the_folder(
    server: Server, release: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    address, _ = api.publish(release, ADDRESS)
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--no-report", "--json")
    here = cli("train-check", release, *options, "--no-crossfit", "--out", tmp_path / "here")
    server.requests.clear()
    faults = {3: "busy", 5: "cut", 7: "lost", 9: "slow"}
    server.fault = lambda method, path, number: faults.get(number % 11)
    there = cli("train-check", address, *options, "--no-crossfit", "--out", tmp_path / "there")
    assert len(server.requests) > 50 and (there.code, there.err) == (here.code, here.err)
    assert {**there.document, "path": ""} == {**here.document, "path": ""}
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")
