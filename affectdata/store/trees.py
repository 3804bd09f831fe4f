"""A tree of files in a bucket, copied to the cache; again, only what changed (size, ETag) is read."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from affectdata.errors import IntegrityError, UsageError
from affectdata.store.addresses import check_address, check_name
from affectdata.store.atomic import replace_file
from affectdata.store.cache import filling, tree_folder
from affectdata.store.objects import CONNECTIONS, Bucket, Stat
from affectdata.store.published import Progress
from affectdata.workers import map_ordered


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Read an object of a tree into a file; return what was read."""

    bucket: Bucket
    folder: str

    def __call__(self, name: str) -> Stat:
        with replace_file(Path(self.folder, name)) as temporary, temporary.open("wb") as file:
            return self.bucket.read(name, file)


def fetch_tree(address: str, progress: Progress | None = None) -> Path:
    """Return a local copy of all objects below an address; only what changed (size, ETag) is read.

    Raises:
        UsageError: there is nothing below the address.
        IntegrityError: an object cannot be a file, by its name.
    """
    bucket = Bucket(check_address(address))
    folder = tree_folder(address)
    journal = folder.parent / "fetched.jsonl"
    with filling(folder.parent, address) as complete:
        objects = {
            check_name(stat.name, address): stat
            for stat in bucket.list()
            if stat.size or (stat.name and bucket.stat(stat.name))  # else a folder, as consoles make them
        }
        _check_folders(objects, address)
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
            for stat in map_ordered(_Fetch(bucket, str(folder)), todo, CONNECTIONS):
                file.write(json.dumps([stat.name, stat.size, stat.tag]) + "\n")
                n_done += 1
                if progress:
                    progress(n_done, len(objects))
        complete()
    return folder


def _check_folders(names: Collection[str], address: str) -> None:
    """Refuse an object whose name is that of a folder with objects.

    Raises:
        IntegrityError: naming one.
    """
    folders = {name.rpartition("/")[0] for name in names}
    folders |= {str(parent) for folder in folders for parent in PurePosixPath(folder).parents}
    for name in sorted(folders.intersection(names)):
        raise IntegrityError(
            f"{name} is an object and a folder of objects: no file can be both",
            where=address,
            fix="rename the object",
        )


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
    """Remove files of objects that no longer exist."""
    kept = {folder / name for name in names}
    for path in list(folder.rglob("*")):
        if path.is_file() and path not in kept:
            path.unlink()
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
