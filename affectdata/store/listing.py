"""Files and folders under a folder, listed without holding a whole folder in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from affectdata.store.chunks import STREAM_ROWS
from affectdata.store.text_set import StringHashSet


def find_unlisted_files(folder: Path, listed: StringHashSet) -> list[str]:
    """Return the files under a folder that are not `listed`; names are relative to it, sorted."""
    unlisted, names = [], _iter_files(folder, "")
    while batch := list(islice(names, STREAM_ROWS)):
        unlisted += [name for name, is_listed in zip(batch, listed.has(batch), strict=True) if not is_listed]
    return sorted(unlisted)


def _iter_files(folder: Path, base: str) -> Iterator[str]:
    """Yield the names of all files, without listing a whole folder in memory."""
    with os.scandir(folder / base) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _iter_files(folder, f"{base}{entry.name}/")
            else:
                yield f"{base}{entry.name}"


def find_empty_folders(folder: Path) -> list[str]:
    """Return the folders without a file in them or below, relative to `folder`, sorted."""
    empty: set[str] = set()
    for path, folders, files in os.walk(folder, topdown=False):
        inside = {f"{path}/{name}" for name in folders}
        if path != str(folder) and not files and inside <= empty:
            empty.add(path)
    return sorted(Path(path).relative_to(folder).as_posix() for path in empty)
