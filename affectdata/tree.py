"""A source tree on disk, listed safely: plain files only, sorted, nothing outside the root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from affectdata.errors import SourceError

PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
DOWNLOADED = "download.parquet"  # what `affectdata download` notes in the folder of its pictures
_JUNK_NAMES = frozenset(
    {"thumbs.db", ".ds_store", "desktop.ini", "ehthumbs.db", ".gitkeep", ".gitattributes"}
)


def is_picture_name(path: str) -> bool:
    """Say whether a file's name ends as a picture's does."""
    return PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES


def is_junk(path: str) -> bool:
    """Say whether a path is what an operating system or an archiver leaves behind."""
    parts = PurePosixPath(path).parts
    name = parts[-1].lower()
    return name in _JUNK_NAMES or name.startswith("._") or "__MACOSX" in parts or parts[0] == ".git"


@dataclass(frozen=True, slots=True)
class Tree:
    """The files under `root`: `files` as sorted POSIX paths, `links` and `bad_names` apart.

    `links` are symbolic links and whatever is no plain file; `bad_names` are names that are not UTF-8,
    written with escapes.
    """

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...] = ()
    bad_names: tuple[str, ...] = ()

    def pictures(self) -> list[str]:
        """List the files whose names end as pictures' do and that are no junk."""
        return [path for path in self.files if is_picture_name(path) and not is_junk(path)]

    def read_bytes(self, path: str, most: int = -1) -> bytes:
        """Read one listed file, or its first `most` bytes."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(most)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}", where=str(self.root / path)) from error


def read_tree(root: Path, leave_out: Path | None = None) -> Tree:
    """List a source tree; `leave_out` is a folder of our own, if it lies inside.

    Raises:
        SourceError: `root` is not a folder, cannot be read, or holds no file.
    """
    if root.is_file():
        raise SourceError(
            f"{root} is a file, not a folder",
            fix="give the folder that the source was unpacked to; `ingest` also takes its .zip or .tar, and "
            "labels for pictures that have a manifest: `affectdata ingest TABLE --onto MANIFEST`",
        )
    if not root.is_dir():
        raise SourceError(f"{root} does not exist", fix="give the folder that the source was unpacked to")
    files: list[str] = []
    links: list[str] = []
    bad_names: list[str] = []
    for path, is_plain in _walk(root, leave_out and leave_out.resolve()):
        try:
            path.encode()
        except UnicodeEncodeError:
            bad_names.append(os.fsencode(path).decode("utf-8", "backslashreplace"))
            continue
        (files if is_plain else links).append(path)
    if not files and not links and not bad_names:
        raise SourceError(f"{root} is empty", fix="give the folder that the source was unpacked to")
    return Tree(root, tuple(sorted(files)), tuple(sorted(links)), tuple(sorted(bad_names)))


def _walk(root: Path, leave_out: Path | None) -> Iterator[tuple[str, bool]]:
    folders = [""]  # a list, not recursion: a hostile tree may be deeper than Python's stack
    while folders:
        prefix = folders.pop()
        if leave_out and prefix and (root / prefix).resolve() == leave_out:
            continue
        try:
            entries = list(os.scandir(root / prefix))
        except OSError as error:
            raise SourceError(
                f"cannot list {root / prefix}: {error.strerror}", where=str(root / prefix)
            ) from error
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path + "/")
            else:
                yield path, entry.is_file(follow_symlinks=False)
