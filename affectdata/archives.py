"""Archives as downloaded: a .zip or .tar is unpacked once, to a folder beside it.

It is not read in place, because `balance` reads the pictures again, in another order than a compressed tar
has. The folder is called by the archive and its content, and appears whole or not at all. An archive that
holds what no collection needs (links, devices, paths that lead out, two files of one name) is refused, not
repaired.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar, cast

from affectdata.errors import SourceError
from affectdata.tree import is_junk

_SUFFIX = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)
_MAX_ENTRIES = 2_000_000
_MAX_RATIO = 100  # unpacked to packed bytes; pictures hardly shrink, tables to a tenth
_ALWAYS_BYTES = 256 << 20  # allowed whatever the ratio
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of an archive: its name and declared size, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Say whether a file's name is that of an archive which `unpack` takes."""
    return _SUFFIX.search(path.name) is not None


def unpack(archive: Path) -> Path:
    """Unpack an archive to a folder beside it, unless it is there already, and return that folder.

    Raises:
        SourceError: the archive is damaged or hostile, unpacks to too much, or the folder cannot be written.
    """
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        folder = archive.with_name(f"{_SUFFIX.sub('', archive.name)}-{digest[:8]}")
        if not folder.is_dir():
            _unpack_to(archive, folder)
    except SourceError:
        raise
    except Exception as error:  # readers of archives raise anything on hostile bytes
        raise _refused(archive, f"cannot be unpacked: {error}") from error
    return folder


def _refused(archive: Path, what: str) -> SourceError:
    fix = "download it again, or unpack it by other means, look what is in it, and give the folder"
    return SourceError(f"{archive.name} {what}", where=str(archive), fix=fix)


def _unpack_to(archive: Path, folder: Path) -> None:
    making = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    making.mkdir()
    left = max(_ALWAYS_BYTES, _MAX_RATIO * archive.stat().st_size)
    names: set[str] = set()
    try:
        for entry in _entries(archive):
            name = _checked_name(archive, entry.name)
            if name in names:
                raise _refused(archive, f"holds two files called {name!r}")
            names.add(name)
            if entry.size > left:
                raise _refused(archive, f"unpacks to more than {_MAX_RATIO} times its size, at {name!r}")
            (making / name).parent.mkdir(parents=True, exist_ok=True)
            left -= _copy(archive, entry, making / name)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _copy(archive: Path, entry: _Entry, to: Path) -> int:
    """Write one file and return its size, which is the declared one."""
    n_bytes = 0
    with entry.open() as packed, to.open("xb") as file:
        while chunk := packed.read(_CHUNK):
            n_bytes += len(chunk)
            if n_bytes > entry.size:
                break
            file.write(chunk)
    if n_bytes != entry.size:
        raise _refused(archive, f"declares {entry.size} bytes for {entry.name!r}, which is not so")
    return n_bytes


def _checked_name(archive: Path, name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name or name[1:2] == ":":
        raise _refused(archive, f"holds a file that would lie elsewhere: {name!r}")
    return path.as_posix()


def _entries(archive: Path) -> Iterator[_Entry]:
    return _zip_entries(archive) if archive.name.lower().endswith(".zip") else _tar_entries(archive)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in _counted(archive, packed.infolist()):
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = info.filename.replace("\\", "/")
            if info.is_dir() or name.endswith("/"):
                continue
            if kind not in (0, stat.S_IFREG):
                raise _refused(archive, f"holds a link or a device: {name!r}")
            if info.flag_bits & 1:
                raise _refused(archive, f"is encrypted, from {name!r} on")
            yield _Entry(name, info.file_size, partial(packed.open, info))


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with tarfile.open(archive) as packed:
        for info in _counted(archive, packed):
            if info.isdir():
                continue
            if not info.isreg():
                raise _refused(archive, f"holds a link or a device: {info.name!r}")
            yield _Entry(info.name, info.size, partial(_open_member, packed, info))


def _open_member(packed: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], packed.extractfile(info))  # None only for what is no file


Item = TypeVar("Item")


def _counted(archive: Path, items: Iterable[Item]) -> Iterator[Item]:
    for number, item in enumerate(items):
        if number >= _MAX_ENTRIES:
            raise _refused(archive, f"holds more than {_MAX_ENTRIES} files")
        yield item


def find_roots_in(folder: Path) -> list[Path]:
    """List a folder, and what is in it as long as that is one folder and nothing else but junk."""
    found = [folder]
    while True:
        inside = [entry for entry in found[-1].iterdir() if not is_junk(entry.name)]
        if len(inside) != 1 or not inside[0].is_dir():
            return found
        found.append(inside[0])
