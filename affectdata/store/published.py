"""Folders and tables in a bucket, written whole or not at all, and read by hash.

A published folder is `objects/<SHA-256>` for every file, then `SHA256SUMS`, then one document that has the
SHA-256 of SHA256SUMS. A published table is `objects/<SHA-256>` for every file beside it, then their list,
`objects/<SHA-256 of the table>.SHA256SUMS`, then the table under its own name. Every object is written if it
is absent, the document or table last: without it nothing was published. Local copies lie in the cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectdata.errors import InputError, IntegrityError, ManifestError, UsageError
from affectdata.hashing import file_hash
from affectdata.store.addresses import check_address, check_name
from affectdata.store.atomic import replace_file, write_bytes
from affectdata.store.cache import cache_entry, filling, use
from affectdata.store.files import hash_file, read_regular
from affectdata.store.objects import CONNECTIONS, Bucket
from affectdata.workers import map_ordered

SUMS = "SHA256SUMS"
_OBJECTS = "objects"
_DIGITS = 64
_LISTED = "`affectdata verify` lists all such files; make the release again"
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
                fix=_LISTED,
            )
        if not self.bucket.create(f"{_OBJECTS}/{digest}", data):
            self.bucket.put(f"{_OBJECTS}/{digest}", data)  # what is there is not what its name promises
        return len(data)


def publish_folder(
    folder: Path, document: str, address: str, progress: Progress | None = None
) -> tuple[bool, int]:
    """Write a folder to a bucket; return whether it is new there, and how many lost objects it has again.

    A run that was killed goes on. Objects that were removed after publication, which one LIST per thousand
    shows, are written again.

    Raises:
        IntegrityError: a file is not as SHA256SUMS has it, or another folder was published there.
    """
    bucket = Bucket(check_address(address))
    sums, info = read_regular(folder / SUMS), read_regular(folder / document)
    was_there, there = _published(bucket, document, info), _sizes(bucket)
    n_written = _upload(bucket, folder, list(_lines(sums, str(folder))), there, progress)
    if was_there and SUMS in there:
        return False, n_written
    if not bucket.create(SUMS, sums):
        raise _taken(bucket, SUMS)
    if was_there:
        return False, n_written + 1
    return bucket.create(document, info) or not _published(bucket, document, info), 0


def publish_table(
    path: Path, beside: Iterable[Path], address: str, progress: Progress | None = None
) -> tuple[bool, int]:
    """Write a table and the files beside it to a bucket; return the same as `publish_folder`.

    Raises:
        IntegrityError: another table of that name, or the same with other files, was published there.
    """
    bucket, table = Bucket(check_address(address)), read_regular(path)
    lines = [(hash_file(each), each.name) for each in sorted(beside)]
    was_there = bucket.stat(path.name) is not None
    n_written = _upload(bucket, path.parent, lines, _sizes(bucket, _OBJECTS), progress)
    sums = "".join(f"{digest}  {name}\n" for digest, name in lines).encode()
    for name, data in ((_beside(file_hash(table)), sums + _own_line(sums)), (path.name, table)):
        if not bucket.create(name, data):
            raise _taken(bucket, path.name)
    return not was_there, n_written if was_there else 0


def _beside(digest: str) -> str:
    """Return the name of the list of files beside a table."""
    return f"{_OBJECTS}/{digest}.{SUMS}"


def _own_line(lines: bytes) -> bytes:
    """Return the last line of such a list: the hash of those above."""
    return f"{file_hash(lines)}  {SUMS}\n".encode()


def _read_beside(bucket: Bucket, digest: str) -> bytes:
    """Return the list of files beside a table of this hash.

    Raises:
        IntegrityError: it is not the one that was written, or belongs to another table.
    """
    try:
        sums = bucket.get(_beside(digest))[0]
    except FileNotFoundError as error:
        if any(bucket.list(_OBJECTS)):
            raise IntegrityError(
                "the manifest is not the one that was published: the list of files beside it is missing",
                where=str(error.filename),
                fix="publish it again: affectdata publish MANIFEST ADDRESS",
            ) from error
        return b""  # a file that was copied there by other means
    *lines, last = sums.splitlines(keepends=True) or [b""]
    if last != _own_line(b"".join(lines)):
        where = f"{bucket.address}/{_beside(digest)}"
        raise IntegrityError(f"{SUMS} differs from the published file", where=where)
    return b"".join(lines)


def _sizes(bucket: Bucket, prefix: str = "") -> dict[str, int]:
    return {stat.name: stat.size for stat in bucket.list(prefix)}


def _upload(
    bucket: Bucket,
    folder: Path,
    lines: list[tuple[str, str]],
    there: dict[str, int],
    progress: Progress | None,
) -> int:
    """Write the files that are not `there` with their size; return their number."""
    todo = [
        (digest, name)
        for digest, name in dict(lines).items()
        if there.get(f"{_OBJECTS}/{digest}") != _size(folder, name)
    ]
    for done, _ in enumerate(map_ordered(_Upload(str(folder), bucket), todo, CONNECTIONS), 1):
        if progress:
            progress(len(lines) - len(todo) + done, len(lines))
    return len(todo)


def _size(folder: Path, name: str) -> int:
    path = folder / name
    if not path.is_file():
        raise IntegrityError(f"{name} is missing", where=str(folder), fix=_LISTED)
    return path.stat().st_size


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
    except (ValueError, RecursionError):
        return None
    return {k: v for k, v in document.items() if k != "created"} if isinstance(document, dict) else None


def _taken(bucket: Bucket, name: str) -> IntegrityError:
    return IntegrityError(
        f"something else was published at {bucket.address}: its {name} differs",
        fix="choose another address, or compare the two with `affectdata diff`",
    )


def _lines(sums: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Yield hash and name of each line of SHA256SUMS."""
    for line in sums.decode(errors="replace").splitlines():
        digest, name = line[:_DIGITS], line[_DIGITS + 2 :]
        if len(digest) < _DIGITS or set(digest) - set("0123456789abcdef"):
            raise IntegrityError(f"{SUMS} has a line without a hash and a name: {line[:80]!r}", where=where)
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
        with replace_file(path) as temporary:
            try:
                with temporary.open("wb") as file:
                    self.bucket.read(f"{_OBJECTS}/{digest}", file)
            except FileNotFoundError as error:
                raise IntegrityError(
                    f"{name} is missing",
                    where=str(error.filename),
                    fix="publish the same files again: `affectdata publish` writes what is missing",
                ) from error
            if hash_file(temporary) != digest:
                raise IntegrityError(
                    f"{name} differs from the published file",
                    where=f"{self.bucket.address}/{_OBJECTS}/{digest}",
                    fix="remove this object, then publish the same files again: `affectdata publish`",
                )


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
    entry = cache_entry(bucket.address, "releases")
    folder = entry / file_hash(info)[:16] / bucket.address.rpartition("/")[2]
    if (folder / document).is_file() and not again:
        use(entry)
        return folder
    with filling(entry, address) as complete:
        sums = bucket.get(SUMS)[0]
        if file_hash(sums) != _field(info, key):
            raise IntegrityError(f"{SUMS} differs from the published file", where=f"{address}/{SUMS}")
        _download(bucket, folder, list(_lines(sums, address)), again, progress)
        for file, data in ((SUMS, sums), (document, info)):  # the document last: with it the copy is complete
            write_bytes(folder / file, data)
        complete()
    return folder


def fetch_table(address: str) -> Path:
    """Return a local copy of a table in a bucket, with the files that were published beside it.

    Raises:
        UsageError: the address does not end as those of tables do.
        ManifestError: there is none.
        IntegrityError: a file beside it is missing, or is not what its name promises.
    """
    where, _, name = check_address(address).rpartition("/")
    if not name.endswith(".parquet"):
        raise UsageError(f"{address} is not a manifest", fix="its address ends in .parquet")
    bucket = Bucket(where)
    stat = bucket.stat(name)
    if stat is None:
        raise ManifestError(f"no manifest {address}", fix="publish it: affectdata publish MANIFEST ADDRESS")
    entry = cache_entry(address, "manifests")
    path = entry / file_hash(f"{stat.size} {stat.tag}".encode())[:16] / name
    if path.is_file():
        use(entry)
        return path
    with filling(entry, address) as complete:
        with replace_file(path) as temporary:  # renamed at the end: with it the copy is complete
            with temporary.open("wb") as file:
                read = bucket.read(name, file)
            if read != stat:
                raise InputError("the object changed while it was read", where=address, fix="run it again")
            sums = _read_beside(bucket, hash_file(temporary))
            _download(bucket, path.parent, list(_lines(sums, address)), False, None)
        complete()
    return path


def fetch_tables(address: str) -> list[Path]:
    """Return local copies of all tables at an address, by name (`fetch_table`)."""
    names = (stat.name for stat in Bucket(check_address(address)).list())
    tables = sorted(name for name in names if name.endswith(".parquet") and "/" not in name)
    return [fetch_table(f"{check_address(address)}/{name}") for name in tables]


def _download(
    bucket: Bucket, folder: Path, lines: list[tuple[str, str]], again: bool, progress: Progress | None
) -> None:
    for done, _ in enumerate(map_ordered(_Download(bucket, str(folder), again), lines, CONNECTIONS), 1):
        if progress:
            progress(done, len(lines))


def _field(info: bytes, key: str) -> Any:
    try:
        document = json.loads(info)
    except (ValueError, RecursionError):
        return None
    return document.get(key) if isinstance(document, dict) else None
