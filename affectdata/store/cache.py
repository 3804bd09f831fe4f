"""Local copies of what is in buckets: where they lie, and which are removed when there are too many.

An entry is a folder per address, `KIND/<hash of the address>`. Its file `.entry` names the address and the
bytes once the copy is complete; its time is that of the last use, and every process that uses the entry holds
a shared lock on it, so that nobody removes what another reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from affectdata.errors import InputError, UsageError
from affectdata.store.addresses import check_address, is_address
from affectdata.store.atomic import locked_folder

LIMIT_VARIABLE = "AFFECTDATA_CACHE_GB"
_LIMIT_GB = 100.0
_NOTE = ".entry"
_TREES = "trees"
_IN_USE: dict[Path, int] = {}  # entries that this process uses: open files with their locks


def cache_root() -> Path:
    """Return the folder of all local copies: AFFECTDATA_CACHE, else affectdata in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("AFFECTDATA_CACHE") or Path(base, "affectdata"))


def cache_entry(address: str, kind: str) -> Path:
    """Return the entry of an address, which need not exist."""
    return cache_root() / kind / hashlib.sha256(check_address(address).encode()).hexdigest()[:16]


def tree_folder(address: str) -> Path:
    """Return where the local copy of a tree lies, or will lie."""
    return cache_entry(address, _TREES) / check_address(address).rpartition("/")[2]


def address_of(folder: Path) -> str | None:
    """Return the address of which a folder is the local copy (`tree_folder`); None if it is not one."""
    address = _read_note(folder.parent / _NOTE).get("address")
    is_copy = is_address(address) and tree_folder(address).resolve() == folder.resolve()
    return address if is_copy else None


def use_tree(address: str) -> bool:
    """Return whether there is a complete local copy of a tree, and keep it while this process runs."""
    entry = cache_entry(address, _TREES)
    is_complete = bool(_read_note(entry / _NOTE))
    if is_complete:
        use(entry)
    return is_complete


@contextmanager
def filling(entry: Path, address: str) -> Iterator[Callable[[], None]]:
    """Lock an entry while it is written; yield what is called when it is complete.

    Then the entries that were not used for longest are removed until the rest fits AFFECTDATA_CACHE_GB.
    """
    limit = _limit()
    use(entry)
    with locked_folder(entry):
        (entry / _NOTE).write_bytes(b"")

        def complete() -> None:
            n_bytes = _count_bytes(entry)
            (entry / _NOTE).write_text(json.dumps({"address": address, "bytes": n_bytes}), encoding="utf-8")

        yield complete
    _remove_oldest(limit)


def use(entry: Path) -> None:
    """Keep an entry while this process runs, and note that it was used now."""
    if entry in _IN_USE and not os.fstat(_IN_USE[entry]).st_nlink:  # somebody removed the cache
        os.close(_IN_USE.pop(entry))
    while entry not in _IN_USE:
        try:
            entry.mkdir(parents=True, exist_ok=True)
            handle = os.open(entry / _NOTE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # removed in between
            continue
        except OSError as error:
            fix = "set AFFECTDATA_CACHE to a writable folder"
            raise InputError(f"cannot write to the cache {entry}: {error.strerror}", fix=fix) from error
        fcntl.flock(handle, fcntl.LOCK_SH)
        if os.fstat(handle).st_nlink:
            _IN_USE[entry] = handle
        else:  # removed before it was locked
            os.close(handle)
    os.utime(_IN_USE[entry])


def _remove_oldest(limit: float) -> None:
    notes = {path: path.stat().st_mtime_ns for path in cache_root().glob(f"*/*/{_NOTE}")}
    sizes = {path: _size(path) for path in notes}
    total = sum(sizes.values())
    for path in sorted(notes, key=lambda path: notes[path]):
        if total <= limit:
            return
        if _remove(path):
            total -= sizes[path]


def _remove(note: Path) -> bool:
    """Remove an entry, unless a process uses it; return whether it is gone."""
    try:
        handle = os.open(note, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = note.parent.with_name(secrets.token_hex(8))
        note.parent.rename(gone)  # so that nobody fills it meanwhile
        shutil.rmtree(gone, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _read_note(note: Path) -> dict[str, Any]:
    """Return what is noted of a complete entry; nothing of any other."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _size(note: Path) -> int:
    n_bytes = _read_note(note).get("bytes")
    if isinstance(n_bytes, int):
        return n_bytes
    return _count_bytes(note.parent)


def _count_bytes(entry: Path) -> int:
    return sum(path.stat().st_size for path in entry.rglob("*") if path.is_file())


def _limit() -> float:
    """Return the bytes that all entries may have.

    Raises:
        UsageError: the variable is not a number of gigabytes.
    """
    value = os.environ.get(LIMIT_VARIABLE) or str(_LIMIT_GB)
    try:
        limit = float(value)
    except ValueError:
        limit = -1
    if not limit >= 0:
        raise UsageError(f"{LIMIT_VARIABLE}={value} is not a number of gigabytes", fix="set it to 50, say")
    return limit * 1e9
