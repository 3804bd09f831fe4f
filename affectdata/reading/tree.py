"""List a source tree on disk safely: regular files only, sorted, nothing outside the root."""

from __future__ import annotations

import errno
import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import SourceError
from affectdata.store.files import open_regular

DOWNLOADED = "download.parquet"  # written by `affectdata download` into the folder of its images
# For Arrow; matched against lower-case paths, except _JUNK_FOLDER.
# From `eps` on: images that no decoder is used for. They are rejected, but not as missing or junk.
_IMAGE = (
    r"[^/]\.(avif|bmp|gif|j2c|j2k|jfif|jp2|jpe|jpeg|jpf|jpg|jpx|pbm|pgm|png|pnm|ppm|tif|tiff|webp"
    r"|eps|heic|heif|hif|jxl|psd|svg)$"
)
# Files that are not images, whatever they start with: tables, texts, archives (camera raw starts as TIFF).
_KNOWN = (
    r"\.(ann|csv|dat|docx?|html?|jsonl?|log|mat|md|npy|npz|ods|odt|parquet|pdf|pkl|pt|py|rst|rtf|sav|tab|tex"
    r"|tsv|txt|xlsm?|xlsx|xml|ya?ml|zip|tar|gz|tgz|bz2|xz|7z|rar|arw|cr2|dng|nef|orf|rw2)$"
)
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|BM.{4}\0\0\0\0"
    rb"|.{4}ftyp(avif|avis|hei|hev|mif1|msf1)|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
_JUNK = r"(^|/)(thumbs\.db|desktop\.ini|ehthumbs\.db|~\x24[^/]*|\.[^/]*)$"
# Folders of tools and file systems: .git, .ipynb_checkpoints, @eaDir, $RECYCLE.BIN, __MACOSX, …
_JUNK_FOLDER = (
    r"(^|/)(([.@\x24]|__)[^/]*|(?i:system volume information|lost\+found|#?recycler?|found\.\d{3}))/"
)
# `$` in Arrow is `\Z` in Python.
_IS_IMAGE, _IS_JUNK, _IS_JUNK_FOLDER = (
    re.compile(pattern.replace("$", r"\Z")).search for pattern in (_IMAGE, _JUNK, _JUNK_FOLDER)
)
_BLOCK = 1 << 13  # paths as Python strings at a time


def is_image_name(path: str) -> bool:
    """Return whether a path has the suffix of an image."""
    return _IS_IMAGE(path.lower()) is not None


def is_junk(path: str) -> bool:
    """Return whether a path is a leftover of an operating system or a tool."""
    return bool(_IS_JUNK(path.lower()) or _IS_JUNK_FOLDER(path))


def name_junk(path: str) -> str:
    """Return what kind of junk a path is: a known name, a folder of a tool, or a suffix.

    >>> name_junk("a/Thumbs.db"), name_junk(".cache/z.jpg"), name_junk("a/._b.jpg"), name_junk("a/notes.DOCX")
    ('Thumbs.db', '.cache/', '._*', '*.docx')
    """
    name, folder = path.rpartition("/")[2], _IS_JUNK_FOLDER(path)
    if folder:
        return f"{folder[2]}/"
    if is_junk(name):
        return "._*" if name.startswith("._") else name
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return f"*.{suffix}" if suffix else "without a suffix"


def are_images(paths: pa.Array) -> pa.Array:
    """Return `is_image_name` of each path, as booleans."""
    return pc.match_substring_regex(pc.utf8_lower(paths), _IMAGE)


def are_junk(paths: pa.Array) -> pa.Array:
    """Return `is_junk` of each path, as booleans."""
    by_name = pc.match_substring_regex(pc.utf8_lower(paths), _JUNK)
    return pc.or_(by_name, pc.match_substring_regex(paths, _JUNK_FOLDER))


class Paths(Sequence[str]):
    """Sorted paths in one Arrow array: as Python strings they would take three times the memory."""

    def __init__(self, paths: Iterable[str] | pa.StringArray = ()) -> None:
        if isinstance(paths, Paths):
            self.array: pa.StringArray = paths.array
            return
        unsorted = paths if isinstance(paths, pa.StringArray) else _in_blocks(paths)
        self.array = unsorted.take(pc.sort_indices(unsorted))

    @classmethod
    def _of(cls, array: pa.Array) -> Paths:
        paths = cls()
        paths.array = array
        return paths

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        return Paths._of(self.array[index]) if isinstance(index, slice) else self.array[index].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self.array[start : start + _BLOCK].to_pylist()

    def __contains__(self, path: object) -> bool:
        index = bisect_left(self, path) if isinstance(path, str) else len(self)  # in code point order
        return index < len(self) and bool(self[index] == path)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def filter(self, wanted: pa.Array) -> Paths:
        """Return the paths for which `wanted` is true."""
        return Paths._of(self.array.filter(wanted))

    def one_per_folder(self) -> list[str]:
        """Return the first path of each folder, which is enough to check the folders."""
        folders = pc.replace_substring_regex(self.array, "[^/]*$", "").dictionary_encode()
        _, first = np.unique(folders.indices.to_numpy(), return_index=True)
        return list(self.array.take(pa.array(np.sort(first))).to_pylist())

    def count_by_folder(self) -> dict[str, int]:
        """Return how many paths each folder has, without those in folders inside it; names end in a slash."""
        folders = pc.replace_substring_regex(self.array, "[^/]*$", "")
        return {row["values"]: row["counts"] for row in pc.value_counts(folders).to_pylist()}

    def inside(self, folder: str) -> Paths:
        """Return the paths inside a folder; `folder` is empty or ends in a slash."""
        return self.filter(pc.starts_with(self.array, folder)) if folder else self


def _in_blocks(paths: Iterable[str]) -> pa.StringArray:
    """Return paths as an array, without all of them as Python strings at a time."""
    rest, blocks = iter(paths), [pa.array([], pa.string())]
    while block := list(islice(rest, _BLOCK)):
        blocks.append(pa.array(block, pa.string()))
    return pa.concat_arrays(blocks)


@dataclass(frozen=True, init=False)
class Tree:
    """The files under `root`: `files` as sorted POSIX paths; `links` and `bad_names` are listed separately.

    Symbolic links to files and folders inside the root are followed: `files` has the path of the link,
    `targets` that of the file behind it. `links` are all other links and everything else that is not a
    regular file; `bad_names` are names that are not UTF-8, written with escapes, and folders whose path is
    too long to list. `last_read` is the file that was read last, for error messages.
    """

    root: Path
    files: Paths
    links: tuple[str, ...]
    bad_names: tuple[str, ...]
    targets: tuple[str, ...]
    last_read: str | None = field(init=False, compare=False, repr=False)

    def __init__(
        self,
        root: Path,
        files: Iterable[str],
        links: Iterable[str] = (),
        bad_names: Iterable[str] = (),
        targets: Iterable[str] = (),
    ) -> None:
        listed = (tuple(sorted(paths)) for paths in (links, bad_names, set(targets)))
        values = (root, Paths(files), *listed, None)
        for attribute, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, attribute.name, value)

    def images(self) -> Paths:
        """List the images, junk excluded: by suffix, or if that is unknown, by the first bytes."""
        return self._kinds[0]

    def others(self) -> Paths:
        """List the files that are neither images nor junk."""
        return self._kinds[1]

    @cached_property
    def _kinds(self) -> tuple[Paths, Paths]:
        named, junk = are_images(self.files.array), are_junk(self.files.array)
        known = pc.match_substring_regex(pc.utf8_lower(self.files.array), _KNOWN)
        odd = self.files.filter(pc.invert(pc.or_(named, pc.or_(known, junk))))
        by_content = pa.array([path for path in odd if self._starts_as_image(path)], pa.string())
        images = pc.or_(named, pc.is_in(self.files.array, by_content))
        wanted = pc.and_not(images, junk), pc.invert(pc.or_(images, junk))
        return self.files.filter(wanted[0]), self.files.filter(wanted[1])

    def _starts_as_image(self, path: str) -> bool:
        try:
            with open_regular(self.root / path) as file:
                return _SIGNATURES.match(file.read(16)) is not None
        except OSError:  # reported when it is read
            return False

    def read_bytes(self, path: str, size: int = -1) -> bytes:
        """Read one listed file, or its first `size` bytes.

        Raises:
            SourceError: it cannot be read.
        """
        self.note_read(path)
        try:
            with open_regular(self.root / path) as file:
                return file.read(size)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}", where=str(self.root / path)) from error

    def note_read(self, path: str | None) -> None:
        """Set `last_read`, which is the one attribute that changes."""
        object.__setattr__(self, "last_read", path)


def read_tree(root: Path, leave_out: Path | None = None, max_files: int | None = None) -> Tree:
    """List a source tree; `leave_out` is an output folder that may be inside it.

    Raises:
        SourceError: `root` is not a folder, cannot be read, or contains no file or more than `max_files`.
    """
    if root.is_file():
        raise SourceError(
            f"{root} is a file, not a folder",
            fix="pass the folder that the source was unpacked to; `ingest` also takes a .zip or .tar, and a "
            "table of labels for images that have a manifest: `affectdata ingest TABLE --onto MANIFEST`",
        )
    if not root.is_dir():
        raise SourceError(f"{root} does not exist", fix="pass the folder that the source was unpacked to")
    found = _Walk(root, leave_out and leave_out.resolve())
    files = Paths(islice(found.regular_files(), max_files and max_files + 1))
    if max_files and len(files) > max_files:
        raise SourceError(f"{root} contains more than {max_files} files")
    if not files and not found.links and not found.bad_names:
        raise SourceError(f"{root} is empty", fix="pass the folder that the source was unpacked to")
    return Tree(root, files, found.links, found.bad_names, found.targets)


class _Walk:
    """Lists a folder, and what in it is not a regular file."""

    def __init__(self, root: Path, leave_out: Path | None) -> None:
        self.links: list[str] = []
        self.bad_names: list[str] = []
        self.targets: list[str] = []
        self._root, self._inside, self._leave_out = root, root.resolve(), leave_out
        # A list, not recursion: a hostile tree may be deeper than Python's stack. Of each folder the path,
        # and where it is, which is another path if a link leads to it.
        self._folders = [("", "")]

    def regular_files(self) -> Iterator[str]:
        """Yield the paths of files; read it to the end before the lists."""
        while self._folders:
            prefix, place = self._folders.pop()
            if self._leave_out and prefix and (self._root / prefix).resolve() == self._leave_out:
                continue
            try:
                yield from self._files_in(prefix, place)
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    self.bad_names.append(prefix)
                    continue
                folder = self._root / prefix
                raise SourceError(f"cannot list {folder}: {error.strerror}", where=str(folder)) from error

    def _files_in(self, prefix: str, place: str) -> Iterator[str]:
        for entry in os.scandir(self._root / prefix):
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                self._folders.append((path + "/", place + entry.name + "/"))
            elif not _is_utf8(path):
                self.bad_names.append(os.fsencode(path).decode("utf-8", "backslashreplace"))
            elif entry.is_file(follow_symlinks=False):
                if prefix != place:
                    self.targets.append(place + entry.name)
                yield path
            elif not entry.is_symlink():
                self.links.append(path)
            elif self._follow(path, is_linked=prefix != place):
                yield path

    def _follow(self, path: str, is_linked: bool) -> bool:
        """Follow a link inside the root; return whether it leads to a file.

        A link to a folder around it is not followed, nor one to a folder inside a linked folder: such links
        could list the same files endlessly.
        """
        target = Path(os.path.realpath(self._root / path))
        is_inside = target.is_relative_to(self._inside) and _is_utf8(str(target))
        place = target.relative_to(self._inside).as_posix() if is_inside else ""
        if is_inside and target.is_file():
            self.targets.append(place)
            return True
        is_around = (self._root / path).parent.resolve().is_relative_to(target)
        if is_inside and target.is_dir() and not is_around and not is_linked:
            self._folders.append((path + "/", place + "/"))
        else:
            self.links.append(path)
        return False


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
