"""Archives give the same manifest as the folder; hostile archives are refused and leave nothing behind."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import load_manifest
from affectdata.reading import archives
from affectdata.reading.archives import find_roots_in, is_archive, unpack
from affectdata.sources.oasis import write_sample


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives") / "OASIS"
    write_sample(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="module")
def files(tree: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(tree.rglob("*")) if path.is_file())
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def digest(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return ingest(tree, out=tmp_path_factory.mktemp("out"), workers=1).manifest.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "wrapped"),
    [
        ("zip", ""),
        ("zip", "OASIS_2016/deep/"),
        ("tar", "OASIS/"),
        ("TGZ", ""),
        ("tar.xz", ""),
        ("tar.bz2", ""),
    ],
)
def test_an_archive_gives_the_manifest_of_its_folder(
    suffix: str, wrapped: str, digest: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    inside = {f"{wrapped}{name}": data for name, data in files.items()}
    inside |= {"__MACOSX/._x": b"x"} if wrapped else {}
    mode = {"tar": "w", "tar.xz": "w:xz", "tar.bz2": "w:bz2"}.get(suffix, "w:gz")
    path = tmp_path / f"down load.{suffix}"
    archive = zip_of(path, inside) if suffix == "zip" else tar_of(path, inside, mode)
    result = ingest(archive, out=tmp_path / "b", workers=1)
    assert result.manifest.digest == digest and result.info.name == "oasis"
    assert "unpacked" in {finding.kind for finding in result.findings}
    (folder,) = (path for path in tmp_path.iterdir() if path.name.startswith("down load-"))
    row = result.manifest.table.to_pylist()[0]
    images = load_manifest(tmp_path / "b" / "oasis.parquet").images()
    assert images.read("oasis", row["path"], row["image_id"]) == files[row["path"]]
    assert images.roots["oasis"] == folder / wrapped


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_tar_format(form: int, tmp_path: Path) -> None:
    """Names longer than 100 bytes or outside ASCII are stored differently in each format."""
    long = f"{'deep/' * 20}{'n' * 90}.jpg" if form == tarfile.USTAR_FORMAT else "d/" * 70 + "é" * 90 + ".jpg"
    inside = {"a.jpg": b"1", "empty.jpg": b"", long: b"2" * 513, "ü.jpg": b"3" * 512, "z/z.jpg": b"4"}
    with tarfile.open(tmp_path / "n.tar", "w", format=form) as packed:
        packed.addfile(tarfile.TarInfo("comment"), None)
        for name, data in inside.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 0.5  # half a second has a pax header of its own
            packed.addfile(info, io.BytesIO(data))
    folder = unpack(tmp_path / "n.tar")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    unpacked = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    assert unpacked == {"comment": b"", **inside}


@pytest.mark.slow
def test_a_second_ingest_unpacks_nothing(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zip_of(tmp_path / "o.zip", files)
    first = ingest(archive, out=tmp_path / "m", workers=1)
    monkeypatch.setattr(archives, "_unpack_to", lambda *_: pytest.fail("unpacked again"))
    assert ingest(archive, out=tmp_path / "m", workers=1).manifest.digest == first.manifest.digest
    monkeypatch.undo()
    zip_of(archive, {**files, "more.txt": b"x"})
    assert unpack(archive) != Path(first.manifest.images().roots["oasis"])


def test_a_named_source_is_found_inside_a_folder(files: dict[str, bytes], tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "o.zip", {f"up\\{name}": data for name, data in files.items()})
    assert len(ingest(archive, source="oasis", out=tmp_path / "m", workers=1).manifest) == 29


def test_a_folder_of_one_folder_is_stepped_into(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "b" / "x.csv").write_bytes(b"x")
    assert find_roots_in(tmp_path) == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def special(path: Path, **fields: Any) -> Path:
    """A tar with one member that is no file."""
    with tarfile.open(path, "w") as packed:
        info = tarfile.TarInfo("a.jpg")
        for name, value in fields.items():
            setattr(info, name, value)
        packed.addfile(info)
    return path


def zip_link(path: Path) -> Path:
    info = zipfile.ZipInfo("a.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(info, "/etc/passwd")
    return path


def twice(path: Path) -> Path:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.jpg", b"1")
        packed.writestr("./a.jpg".removeprefix("./"), b"2")
    return path


def changed(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    """A small archive with some bytes replaced."""
    data = zip_of(path, {"a.jpg": b"0123456789" * 9}).read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


def cut(path: Path) -> Path:
    tar_of(path, {"a.jpg": np.random.default_rng(0).bytes(9000)})
    path.write_bytes(path.read_bytes()[:4000])
    return path


def headers(path: Path, *extended: tuple[bytes, bytes], end: bytes = bytes(1024)) -> Path:
    """A tar of extended headers (type and content) before one file."""
    with gzip.open(path, "wb") as packed:
        for kind, content in (*extended, (tarfile.REGTYPE, b"x")):
            info = tarfile.TarInfo("a.jpg")
            info.type, info.size = kind, len(content)
            packed.write(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
        packed.write(end)
    return path


def record(key: str, value: str) -> bytes:
    """A record of a pax header, less than 1000 bytes long."""
    return f"{len(key) + len(value) + 6:03d} {key}={value}\n".encode()


PAX, LONG = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME
DAMAGED = "cannot be unpacked|another size"
HOSTILE: dict[str, tuple[str, Callable[[Path], Path], str]] = {
    "zip leads out": ("zip", lambda p: zip_of(p, {"a/../../b.jpg": b"x"}), "leads out of the archive"),
    "zip leads out, Windows": (
        "zip",
        lambda p: zip_of(p, {"a\\..\\..\\b.jpg": b"x"}),
        "leads out of the archive",
    ),
    "zip absolute": ("zip", lambda p: zip_of(p, {"/tmp/b.jpg": b"x"}), "leads out of the archive"),
    "zip drive": ("zip", lambda p: zip_of(p, {"C:/b.jpg": b"x"}), "leads out of the archive"),
    "tar leads out": ("tar", lambda p: tar_of(p, {"../b.jpg": b"x"}, "w"), "leads out of the archive"),
    "tar absolute": ("tgz", lambda p: tar_of(p, {"/b.jpg": b"x"}), "leads out of the archive"),
    "zip link": ("zip", zip_link, "a link or a device"),
    "tar link": ("tar", lambda p: special(p, type=tarfile.SYMTYPE, linkname="/etc"), "a link, a device"),
    "tar hard link": ("tar", lambda p: special(p, type=tarfile.LNKTYPE, linkname="b"), "a link, a device"),
    "tar device": ("tar", lambda p: special(p, type=tarfile.CHRTYPE), "a link, a device"),
    "tar pipe": ("tar", lambda p: special(p, type=tarfile.FIFOTYPE), "a link, a device"),
    "zip twice": ("zip", twice, "two files named 'a.jpg'"),
    "tar twice": ("tar", lambda p: tar_of(p, {"a": b"1", "./a": b"2"}, "w"), "two files named 'a'"),
    "a file and a folder": ("tar", lambda p: tar_of(p, {"a": b"1", "a/b": b"2"}, "w"), "cannot be unpacked"),
    "zip bomb": ("zip", lambda p: zip_of(p, {"a": bytes(3 << 20)}), "unpacks to more than"),
    "tar bomb": ("tgz", lambda p: tar_of(p, {"a": b"x", "b": bytes(3 << 20)}), "unpacks to more than"),
    "sum of a bomb": (
        "tgz",
        lambda p: tar_of(p, {f"{n}": bytes(1 << 18) for n in range(9)}),
        "unpacks to more",
    ),
    "zip declares less": (
        "zip",
        lambda p: changed(p, b"\x5a\0\0\0", b"\x09\0\0\0"),
        DAMAGED,
    ),
    "zip declares more": (
        "zip",
        lambda p: changed(p, b"\x5a\0\0\0", b"\x5b\0\0\0"),
        DAMAGED,
    ),
    "many files": ("zip", lambda p: zip_of(p, {f"{n}": b"" for n in range(51)}), "more than 50 files"),
    "many folders": ("tar", lambda p: tar_of(p, {f"{n}": b"" for n in range(51)}, "w"), "more than 50 files"),
    "zeros": ("tgz", lambda p: headers(p, (PAX, b"0" * (1 << 19))), "header is damaged"),
    "zeros in a comment": (
        "tgz",
        lambda p: headers(p, (PAX, b"1000000 comment=" + b"0" * 999983 + b"\n"), (PAX, b"x")),
        "header is damaged",
    ),
    "short records": ("tgz", lambda p: headers(p, (PAX, b"2 " * (1 << 18))), "header is damaged"),
    "a record of nothing": ("tgz", lambda p: headers(p, (PAX, b"0 a=b\n")), "header is damaged"),
    "a record too long": ("tgz", lambda p: headers(p, (PAX, b"9 a=b\n")), "header is damaged"),
    "no size": ("tgz", lambda p: headers(p, (PAX, record("size", "-1"))), "declares -1 bytes"),
    "large header": ("tgz", lambda p: headers(p, (PAX, bytes(2 << 20))), "headers that are too large"),
    "large name": ("tgz", lambda p: headers(p, (LONG, b"x" * (2 << 20))), "headers that are too large"),
    "many headers": ("tgz", lambda p: headers(p, *[(LONG, b"x" * 9999)] * 200), "headers that are too large"),
    "longer name": ("tgz", lambda p: headers(p, (LONG, b"x" * 300)), "cannot be unpacked"),
    "name leads out": ("tgz", lambda p: headers(p, (LONG, b"../b.jpg")), "leads out of the archive"),
    "path leads out": (
        "tgz",
        lambda p: headers(p, (PAX, record("path", "/b.jpg"))),
        "leads out of the archive",
    ),
    "sparse": ("tgz", lambda p: headers(p, (tarfile.GNUTYPE_SPARSE, b"")), "a sparse file"),
    "sparse, pax": ("tgz", lambda p: headers(p, (PAX, record("GNU.sparse.major", "1"))), "a sparse file"),
    "no end": ("tgz", lambda p: headers(p, end=b""), "is truncated"),
    "no beginning": ("tar", lambda p: (p.touch(), p)[1], "is truncated"),
    "cut": ("tgz", cut, "cannot be unpacked"),
    "no zip": ("zip", lambda p: (p.write_bytes(b"PK no zip"), p)[1], "cannot be unpacked"),
    "no tar": ("tar", lambda p: (p.write_bytes(b"x" * 2000), p)[1], "cannot be unpacked"),
    "long name": ("zip", lambda p: zip_of(p, {"x" * 300: b"x"}), "cannot be unpacked"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_BYTES", 1 << 20)
    monkeypatch.setattr(archives, "_MAX_ENTRIES", 50)
    suffix, make, message = HOSTILE[name]
    folder = tmp_path / "inner" / "downloads"
    folder.mkdir(parents=True)
    archive = make(folder / f"bad.{suffix}")
    with pytest.raises(SourceError, match=message) as caught:
        ingest(archive, out=tmp_path / "m")
    assert caught.value.where == str(archive) and "by other means" in caught.value.fix
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "downloads", archive.name]


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "e.zip", {"a.jpg": b"x"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flags of the entry in the directory
    archive.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="is encrypted"):
        unpack(archive)


def test_archives_are_recognised_by_their_suffix(tmp_path: Path) -> None:
    names = ["a.zip", "a.TAR.GZ", "a.tgz", "a.tar.xz", "a.rar", "zip", "a.gz", "a.xlsx"]
    assert [is_archive(Path(name)) for name in names] == [True] * 4 + [False] * 4
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(SourceError, match="is a file, not a folder") as caught:
        ingest(tmp_path / "a.rar")
    assert ".zip or .tar" in caught.value.fix
