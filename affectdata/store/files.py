"""Open files for reading, regular ones only: a FIFO would wait for ever, a device has no end.

For every path that comes from a user, a source or a release. What is refused is an OSError, so that whoever
handles a file that cannot be read handles this too; its `strerror` names the kind.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from pathlib import Path


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, which is never whole in memory."""
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
    """Open a regular file, or what a link leads to, for reading bytes; never waits for a writer.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(handle), path)
        return open(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | Path) -> bytes:
    """Read a whole regular file.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return file.read()


def open_text(path: str | Path, *, encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
    """Open a regular file for reading text, with its line ends as they are.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    return io.TextIOWrapper(open_regular(path), encoding=encoding, errors=errors, newline="")


def check_regular(path: str | Path) -> None:
    """Refuse what is no regular file, for readers that open a path themselves.

    Raises:
        OSError: it is none, or not there.
    """
    _require_regular(Path(path).stat(), path)


def kind_of(path: str | Path) -> str | None:
    """Say what lies there in place of a regular file, links included; None for a regular file or nothing."""
    try:
        mode = Path(path).lstat().st_mode
    except OSError:
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def _require_regular(found: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise OSError(errno.EINVAL, f"not a regular file ({kind})", str(path))
