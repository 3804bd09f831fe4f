"""Archives as downloaded: a .zip or .tar is unpacked once, to a folder beside it.

It is not read in place, because `balance` reads the images again, in another order than that of a
compressed tar. The folder is named after the archive and its SHA-256, and appears complete or not at all. An
archive with entries that no collection needs (links, devices, paths that lead out, two files of one name) is
refused, not repaired.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import secrets
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from affectdata.errors import SourceError
from affectdata.reading.tree import Tree, is_junk
from affectdata.store.atomic import locked_folder, remove_stale_files
from affectdata.store.files import hash_file, name_in_errors
from affectdata.store.tar import BLOCK, content_end, iter_members

_SUFFIX = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)
_ANY_ARCHIVE = re.compile(rf"{_SUFFIX.pattern}|\.(7z|rar|zst|gz|z\d\d|zip\.\d+)$", re.IGNORECASE)
_MAX_ENTRIES = 2_000_000
_MAX_RATIO = 100  # unpacked to packed bytes; images hardly shrink, tables to a tenth
_ALWAYS_BYTES = 256 << 20  # allowed whatever the ratio
_CHUNK = 1 << 20
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of an archive: name, declared size, and content, to be read before the next entry."""

    name: str
    size: int
    chunks: Iterator[bytes]


def is_archive(path: Path) -> bool:
    """Return whether `unpack` takes the file, judging by its suffix."""
    return _SUFFIX.search(path.name) is not None


def find_archives(tree: Tree) -> list[str]:
    """List the archives in a tree, of any kind; none of them is unpacked."""
    return [path for path in tree.others() if _ANY_ARCHIVE.search(path)]


def unpack(archive: Path) -> Path:
    """Unpack an archive to a folder beside it, unless that exists, and return the folder.

    Raises:
        SourceError: the archive is damaged or hostile, unpacks to too much, or the folder cannot be written.
    """
    try:
        digest = hash_file(archive)
        folder = archive.with_name(f"{_SUFFIX.sub('', archive.name)}-{digest[:8]}")
        if not folder.is_dir():
            _unpack_to(archive, folder)
    except SourceError:
        raise
    except Exception as error:  # readers of archives raise anything on hostile bytes
        raise _refusal(archive, f"cannot be unpacked: {error}") from error
    return folder


def _refusal(archive: Path, what: str) -> SourceError:
    fix = "download it again; or unpack it by other means, check its content, and pass the folder"
    return SourceError(f"{archive.name} {what}", where=str(archive), fix=fix)


def _unpack_to(archive: Path, folder: Path) -> None:
    remove_stale_files(folder)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with locked_folder(temporary):
        _fill(temporary, archive)
        temporary.rename(folder)


def _fill(temporary: Path, archive: Path) -> None:
    """Unpack an archive into an empty folder; if it is refused, remove the folder."""
    n_left = _max_bytes(archive)
    names: set[str] = set()
    try:
        for entry in _entries(archive):
            name = _check_name(archive, entry.name)
            if name in names:
                raise _refusal(archive, f"contains two files named {name!r}")
            names.add(name)
            if entry.size > n_left:
                raise _refusal(archive, f"unpacks to more than {_MAX_RATIO} times its size, at {name!r}")
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            n_left -= _copy(archive, entry, temporary / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _max_bytes(archive: Path) -> int:
    """Return how many bytes an archive may unpack to."""
    return max(_ALWAYS_BYTES, _MAX_RATIO * archive.stat().st_size)


def _copy(archive: Path, entry: _Entry, to: Path) -> int:
    """Write one file and return its size; refuse one that differs from the declared size."""
    n_bytes = 0
    with name_in_errors(to), to.open("xb") as file:
        for chunk in entry.chunks:
            n_bytes += len(chunk)
            if n_bytes > entry.size:
                break
            file.write(chunk)
    if n_bytes != entry.size:
        raise _refusal(archive, f"declares {entry.size} bytes for {entry.name!r}, which has another size")
    return n_bytes


def _check_name(archive: Path, name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name or name[1:2] == ":":
        raise _refusal(archive, f"contains a path that leads out of the archive: {name!r}")
    return path.as_posix()


def _entries(archive: Path) -> Iterator[_Entry]:
    return _zip_entries(archive) if archive.name.lower().endswith(".zip") else _tar_entries(archive)


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in _limit_count(archive, packed.infolist()):
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = info.filename.replace("\\", "/")
            if info.is_dir() or name.endswith("/"):
                continue
            if kind not in (0, stat.S_IFREG):
                raise _refusal(archive, f"contains a link or a device: {name!r}")
            if info.flag_bits & 1:
                raise _refusal(archive, f"is encrypted, starting with {name!r}")
            with packed.open(info) as file:
                yield _Entry(name, info.file_size, iter(partial(file.read, _CHUNK), b""))


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    with archive.open("rb") as file:
        head = file.read(BLOCK)
    opener = next((open_ for magic, open_ in _OPENERS.items() if head.startswith(magic)), open)
    with opener(archive, "rb") as packed:
        for info in _limit_count(archive, iter_members(packed, _max_bytes(archive))):
            if info.isdir():
                continue
            if not info.isreg() or info.type == tarfile.GNUTYPE_SPARSE:
                raise _refusal(archive, f"contains a link, a device or a sparse file: {info.name!r}")
            end = content_end(packed.tell(), info.size)
            yield _Entry(info.name, info.size, _read(packed, info.size))
            packed.seek(end)


def _read(packed: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := packed.read(min(_CHUNK, size))):
        size -= len(chunk)
        yield chunk


Item = TypeVar("Item")


def _limit_count(archive: Path, items: Iterable[Item]) -> Iterator[Item]:
    for number, item in enumerate(items):
        if number >= _MAX_ENTRIES:
            raise _refusal(archive, f"contains more than {_MAX_ENTRIES} files")
        yield item


def find_roots_in(folder: Path) -> list[Path]:
    """List a folder, and the folders inside it for as long as each contains only one folder (and junk)."""
    roots = [folder]
    while True:
        entries = [entry for entry in roots[-1].iterdir() if not is_junk(entry.name + "/" * entry.is_dir())]
        if len(entries) != 1 or not entries[0].is_dir():
            return roots
        roots.append(entries[0])
