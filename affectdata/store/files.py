"""Open regular files only: reading a FIFO would block, a device has no end.

Used for every path that comes from a user, a source or a release. Anything else raises OSError, so that code
that handles unreadable files handles these too; `strerror` names the kind of file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # the beginning of a text in place of a file


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, reading it in chunks."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}


def open_regular(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading bytes, following links; never waits for a writer.

    Raises:
        OSError: the file cannot be opened or is not a regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(handle), path)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | Path, max_bytes: int | None = None) -> bytes:
    """Read a whole regular file.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is larger than `max_bytes`.
    """
    with open_regular(path) as file:
        n_bytes = os.fstat(file.fileno()).st_size
        if max_bytes is not None and n_bytes > max_bytes:
            problem = f"it has {n_bytes} bytes; the limit is {max_bytes}"
            raise OSError(errno.EFBIG, problem, str(path))
        return file.read()


def open_text(path: str | Path, *, encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
    """Open a regular file for reading text, keeping its line endings.

    Raises:
        OSError: the file cannot be opened or is not a regular file.
    """
    return io.TextIOWrapper(open_regular(path), encoding=encoding, errors=errors, newline="")


def check_regular(path: str | Path) -> None:
    """Check that a path is a regular file, for readers that open it themselves.

    Raises:
        OSError: it is not a regular file, or does not exist.
    """
    _require_regular(Path(path).stat(), path)


@contextmanager
def name_in_errors(path: str | Path) -> Iterator[None]:
    """Name the file in an OSError without one, as a write to a full disk raises it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def kind_of(path: str | Path) -> str | None:
    """Return the kind of an irregular file, such as "a link"; None for a regular or missing file."""
    try:
        mode = Path(path).lstat().st_mode
    except OSError:
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def _require_regular(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"not a regular file ({kind})", str(path))
