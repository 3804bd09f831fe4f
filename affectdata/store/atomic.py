"""Files and folders that are written whole or not at all, and locks on them."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from affectdata.errors import InputError, ManifestError, UsageError
from affectdata.store.files import name_in_errors, read_regular


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, sync it and rename it to `path`.

    Raises:
        InputError: the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_files(path)
        temporary, handle = _create_locked(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", fix="choose a writable folder with --out"
        ) from error
    try:
        with name_in_errors(path):
            yield temporary
            os.fsync(handle)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _create_locked(path: Path) -> tuple[Path, int]:
    """Create a temporary file beside `path`, locked while this process uses it."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # not removed as stale before it was locked
            return temporary, handle
        os.close(handle)


def remove_stale_files(path: Path) -> None:
    """Remove the temporary files (folders) that killed runs left when they wrote `path`."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        if not is_unlocked(temporary):
            continue
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def is_unlocked(path: Path) -> bool:
    """Return whether no running process holds the lock of a file or folder."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def locked_folder(folder: Path, wait: bool = True) -> Iterator[None]:
    """Lock a folder for writing; the lock is released with the process, however it ends.

    Raises:
        InputError: the folder cannot be created.
        UsageError: another process holds it, and `wait` is not set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}", fix="choose another --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UsageError(f"another run is writing {folder}", fix="wait until it ends") from error
        yield
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with LF line endings."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, document: Any) -> None:
    """Write JSON with sorted keys and an indent of two spaces; refuse NaN."""
    write_text(
        path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_json(path: Path) -> Any:
    """Read a JSON file that this package wrote.

    Raises:
        ManifestError: the file does not exist or is not JSON, or it repeats a key.
    """
    try:
        return json.loads(
            read_regular(path), parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated
        )
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"cannot read {path.name}: {error}", where=str(path)) from error


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((repeated, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {repeated!r} more than once")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
