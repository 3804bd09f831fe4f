"""Folders in a bucket: a published folder, read and written by hash, and a tree of files, read by ETag.

A published folder is `objects/<SHA-256>` for every file, then `SHA256SUMS`, then one document that has the
SHA-256 of SHA256SUMS. Every object is written if it is absent, the document last: without it nothing was
published. Local copies lie in a cache, which may be removed at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectdata.errors import IntegrityError, ManifestError, UsageError
from affectdata.hashing import file_hash
from affectdata.store.addresses import cache_folder, check_address, check_name
from affectdata.store.atomic import locked_folder, replace_file
from affectdata.store.files import hash_file, read_regular
from affectdata.store.objects import Bucket, Stat
from affectdata.workers import map_ordered

SUMS = "SHA256SUMS"
_OBJECTS = "objects"
_DIGITS = 64
_CONNECTIONS = 16  # objects under way at a time: 2 * this in memory
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Upload:
    """Write a file as the object of its hash."""

    folder: str
    bucket: Bucket

    def __call__(self, line: tuple[str, str]) -> int:
        digest, name = line
        data = read_regular(Path(self.folder, name))
        if file_hash(data) != digest:
            raise IntegrityError(
                f"{name} differs from the published file",
                where=self.folder,
                fix="`affectdata verify` lists all such files; make the release again",
            )
        if not self.bucket.create(f"{_OBJECTS}/{digest}", data):
            self.bucket.put(f"{_OBJECTS}/{digest}", data)  # what is there is not what its name promises
        return len(data)


def publish_folder(folder: Path, address: str, document: str, progress: Progress | None = None) -> bool:
    """Write a folder to a bucket; return whether it is new there. A run that was killed goes on.

    Raises:
        IntegrityError: a file is not as SHA256SUMS has it, or another folder was published there.
    """
    bucket = Bucket(check_address(address))
    sums, info = read_regular(folder / SUMS), read_regular(folder / document)
    if _published(bucket, document, info):
        return False
    lines = list(_lines(sums, str(folder)))
    there = {stat.name: stat.size for stat in bucket.list(_OBJECTS)}
    todo = [
        (digest, name)
        for digest, name in dict(lines).items()
        if there.get(f"{_OBJECTS}/{digest}") != (folder / name).stat().st_size
    ]
    for done, _ in enumerate(map_ordered(_Upload(str(folder), bucket), todo, _CONNECTIONS), 1):
        if progress:
            progress(len(lines) - len(todo) + done, len(lines))
    if not bucket.create(SUMS, sums):
        raise _taken(bucket, SUMS)
    return bucket.create(document, info) or not _published(bucket, document, info)


def _published(bucket: Bucket, document: str, info: bytes) -> bool:
    """Return whether the folder with this document is there already; the time of its making may differ.

    Raises:
        IntegrityError: another folder is there.
    """
    try:
        found = bucket.get(document)[0]
    except FileNotFoundError:
        return False
    if _without_time(found) != _without_time(info):
        raise _taken(bucket, document)
    return True


def _without_time(info: bytes) -> Any:
    try:
        document = json.loads(info)
    except ValueError:
        return None
    return {k: v for k, v in document.items() if k != "created"} if isinstance(document, dict) else None


def _taken(bucket: Bucket, name: str) -> IntegrityError:
    return IntegrityError(
        f"another folder was published at {bucket.address}: its {name} differs",
        fix="choose another address, or compare the two with `affectdata diff`",
    )


def _lines(sums: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Yield hash and name of each line of SHA256SUMS."""
    for line in sums.decode(errors="replace").splitlines():
        digest, name = line[:_DIGITS], line[_DIGITS + 2 :]
        if len(digest) < _DIGITS or set(digest) - set("0123456789abcdef"):
            raise IntegrityError(f"{SUMS} has a line that is no hash and name: {line[:80]!r}", where=where)
        yield digest, check_name(name, where)


@dataclass(frozen=True, slots=True)
class _Download:
    """Read the object of a hash into a file, unless the file has that hash already."""

    bucket: Bucket
    folder: str
    again: bool

    def __call__(self, line: tuple[str, str]) -> None:
        digest, name = line
        path = Path(self.folder, name)
        if not self.again and path.is_file() and hash_file(path) == digest:
            return
        try:
            data, _ = self.bucket.get(f"{_OBJECTS}/{digest}")
        except FileNotFoundError as error:
            raise IntegrityError(f"{name} is missing", where=str(error.filename)) from error
        if file_hash(data) != digest:
            where = f"{self.bucket.address}/{_OBJECTS}/{digest}"
            raise IntegrityError(f"{name} differs from the published file", where=where)
        with replace_file(path) as temporary:
            temporary.write_bytes(data)


def fetch_folder(
    address: str, document: str, key: str, *, again: bool = False, progress: Progress | None = None
) -> Path:
    """Return a local copy of a published folder; every file has the hash under which it was published.

    `key` is the field of the document with the hash of SHA256SUMS. `again`: read every object again, also if
    the local copy is complete.

    Raises:
        ManifestError: nothing was published there.
        IntegrityError: an object is missing, or is not what its name promises.
    """
    bucket = Bucket(check_address(address))
    try:
        info = bucket.get(document)[0]
    except FileNotFoundError as error:
        raise ManifestError(
            f"{address} is not a finished release: it has no {document}",
            fix="publish it: affectdata publish RELEASE ADDRESS; that also goes on after an interrupt",
        ) from error
    name = bucket.address.rpartition("/")[2]
    folder = cache_folder(f"{bucket.address}", kind="releases") / file_hash(info)[:16] / name
    if (folder / document).is_file() and not again:
        return folder
    with locked_folder(folder.parent):
        sums = bucket.get(SUMS)[0]
        if file_hash(sums) != _field(info, key):
            raise IntegrityError(f"{SUMS} differs from the published file", where=f"{address}/{SUMS}")
        lines = [(digest, path) for digest, path in _lines(sums, address)]
        for done, _ in enumerate(map_ordered(_Download(bucket, str(folder), again), lines, _CONNECTIONS), 1):
            if progress:
                progress(done, len(lines))
        for file, data in ((SUMS, sums), (document, info)):  # the document last: with it the copy is complete
            with replace_file(folder / file) as temporary:
                temporary.write_bytes(data)
    return folder


def _field(info: bytes, key: str) -> Any:
    try:
        document = json.loads(info)
    except ValueError:
        return None
    return document.get(key) if isinstance(document, dict) else None


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Read an object of a tree into a file; return what was read."""

    bucket: Bucket
    folder: str

    def __call__(self, name: str) -> Stat:
        data, stat = self.bucket.get(name)
        with replace_file(Path(self.folder, name)) as temporary:
            temporary.write_bytes(data)
        return stat


def fetch_tree(address: str, progress: Progress | None = None) -> Path:
    """Return a local copy of all objects below an address; only what changed (size, ETag) is read.

    Raises:
        UsageError: there is nothing below the address.
        IntegrityError: the name of an object can be no file.
    """
    bucket = Bucket(check_address(address))
    folder = cache_folder(address, kind="trees") / bucket.address.rpartition("/")[2]
    journal = folder.parent / "fetched.jsonl"
    with locked_folder(folder.parent):
        objects = {
            check_name(stat.name, address): stat
            for stat in bucket.list()
            if not (stat.name.endswith("/") and not stat.size)  # a folder, as consoles make them
        }
        if not objects:
            raise UsageError(f"there is nothing below {address}", fix="check the address")
        fetched = {stat.name: stat for stat in _read_journal(journal)}
        _remove_others(folder, objects)
        todo = [
            name
            for name, stat in objects.items()
            if fetched.get(name) != stat or not _has_size(folder / name, stat.size)
        ]
        n_done = len(objects) - len(todo)
        with journal.open("a", encoding="utf-8") as file:
            for stat in map_ordered(_Fetch(bucket, str(folder)), todo, _CONNECTIONS):
                file.write(json.dumps([stat.name, stat.size, stat.tag]) + "\n")
                n_done += 1
                if progress:
                    progress(n_done, len(objects))
    return folder


def _read_journal(path: Path) -> Iterator[Stat]:
    """Yield what was read earlier, the last entry of an object last; a line that was cut is ignored."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            yield Stat(*json.loads(line))
        except (ValueError, TypeError):
            continue


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _remove_others(folder: Path, names: Iterable[str]) -> None:
    """Remove files of objects that are there no more."""
    kept = {folder / name for name in names}
    for path in list(folder.rglob("*")):
        if path.is_file() and path not in kept:
            path.unlink()
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
