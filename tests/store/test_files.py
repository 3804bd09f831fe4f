"""Only regular files are read: a FIFO, a device or a folder in place of a file ends a command at once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import AffectdataError
from affectdata.release.lineage import validate_release
from affectdata.release.release import open_release
from affectdata.release.verify import check_release
from affectdata.store.files import check_regular, hash_file, kind_of, open_regular, open_text, read_regular
from tests.made import publish

Cli = Callable[..., Any]
_PATIENCE_S = 60


@pytest.fixture(autouse=True)
def _never_waits() -> Iterator[None]:
    """Interrupt a test that hangs."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the test hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


IRREGULAR = [fifo, device, folder]


@pytest.mark.parametrize("make", IRREGULAR)
def test_anything_but_a_regular_file_raises_os_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "x"
    make(path)
    for read in (open_regular, open_text, read_regular, check_regular, hash_file):
        with pytest.raises(OSError, match=r"regular file|Is a directory"):
            read(path)
    assert kind_of(path) in ("a FIFO", "a link", "a folder")


def test_a_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # its path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert kind_of("s") == "a socket"
        with pytest.raises(OSError):
            open_regular("s")


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1\r\n2")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "b") == b"1\r\n2"
    with open_text(tmp_path / "a") as file:
        assert file.read() == "1\r\n2"
    check_regular(tmp_path / "b")
    assert (kind_of(tmp_path / "a"), kind_of(tmp_path / "c")) == (None, None)


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with source, manifest and release. Not to be written to."""
    out = tmp_path_factory.mktemp("files")
    shutil.copytree(small_gaped, out / "gaped")
    publish(out / "gaped", out)
    return out


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil."""
    copy = Path(shutil.copytree(made, tmp_path / "work"))
    monkeypatch.chdir(copy)
    monkeypatch.setenv("AFFECTDATA_ROOTS", f"gaped={copy / 'gaped'}")
    return copy


def release_in(work: Path) -> Path:
    (release,) = (work / "releases").iterdir()
    return release


@pytest.mark.slow
@pytest.mark.parametrize("make", IRREGULAR)
@pytest.mark.parametrize("name", ["image", "SHA256SUMS", "manifest.parquet", "recipe.yaml", "release.json"])
def test_nothing_in_a_release_makes_a_command_wait(
    work: Path, name: str, make: Callable[[Path], None], cli: Cli
) -> None:
    release = release_in(work)
    image = str(open_release(release).rows.select(["file_name"])["file_name"][0])
    make(release / (image if name == "image" else name))
    assert cli("verify", release).code in (3, 4)
    if name != "SHA256SUMS":  # only `verify` reads it
        for form in ("folders", "webdataset"):
            out = work / form
            assert cli("export", release, "--to", form, "--out", out, "--i-may-redistribute").code in (3, 4)
        with pytest.raises(AffectdataError):  # as `train-check` does first
            validate_release(open_release(release))


def test_a_link_in_place_of_an_image_is_a_finding(work: Path, tmp_path: Path) -> None:
    release = open_release(release_in(work))
    path = release.path / str(release.table["file_name"][0])
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    texts = [finding.text for finding in check_release(release)]
    assert texts == [f"{path.relative_to(release.path)} is not a regular file (a link)"]


@pytest.mark.slow
@pytest.mark.parametrize("make", IRREGULAR)
def test_nothing_in_a_source_makes_a_command_wait(work: Path, make: Callable[[Path], None], cli: Cli) -> None:
    image = next((work / "gaped" / "A").glob("*.bmp"))
    make(image)
    recipe = work / "made.yaml"
    (release,) = (work / "releases").iterdir()
    shutil.copy(release / "recipe.yaml", recipe)
    shutil.rmtree(release)
    assert cli("balance", "--recipe", recipe, "--manifest", work / "manifests" / "gaped.parquet").code in (
        3,
        4,
    )
    assert cli("ingest", work / "gaped", "--replace").code == 0
    make(work / "gaped" / "A.txt")
    assert cli("ingest", work / "gaped", "--replace").code in (0, 3)


@pytest.mark.parametrize("make", IRREGULAR)
def test_no_path_on_the_command_line_makes_it_wait(
    work: Path, make: Callable[[Path], None], cli: Cli
) -> None:
    for name in ("r.yaml", "m.parquet", "t.csv", "a.zip"):
        make(work / name)
    manifest = work / "manifests" / "gaped.parquet"
    for command in (
        ("balance", "--recipe", work / "r.yaml", "--manifest", manifest),
        ("balance", "--recipe", "valence_bins", "--manifest", work / "m.parquet"),
        ("ingest", work / "t.csv", "--onto", manifest, "--source", "capd"),
        ("ingest", work / "gaped", "--map", work / "r.yaml"),
        ("ingest", work / "a.zip"),
    ):
        assert cli(*command).code in (2, 3), command
