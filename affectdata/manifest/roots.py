"""Where the images of each source are on this machine: as given, in the environment, or recorded by `ingest`.

A place is a folder, or an address in a bucket, whose objects are then read into the cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from affectdata.errors import ImagesNotFound, ManifestError
from affectdata.store.addresses import is_address
from affectdata.store.atomic import locked_folder, read_json, write_json
from affectdata.store.cache import address_of, tree_folder
from affectdata.store.remote import local_copy

LOCAL_FILE = ".local.json"
ROOTS_VARIABLE = "AFFECTDATA_ROOTS"


def find_roots(sources: list[str], folder: Path, given: Mapping[str, Path]) -> dict[str, Path]:
    """Find the image folder of each source: as given, else in AFFECTDATA_ROOTS, else recorded in `folder`.

    AFFECTDATA_ROOTS is `SOURCE=PATH`, several separated as in PATH.

    Raises:
        ImagesNotFound: no folder is known, or it does not exist; the message has three ways to set it.
    """
    variable = _roots_of_environment()
    recorded = _read_recorded(folder)
    roots = {}
    for source in sources:
        candidates = [given.get(source), variable.get(source), recorded.get(source)]
        root = next((local_copy(path) for path in candidates if path), None)
        if root is None or not root.is_dir():
            searched = [f"{root} (no such folder)"] if root else ["no folder is known"]
            raise not_found(source, "its folder does not exist", searched)
        roots[source] = root
    return roots


def not_found(source: str, what: str, searched: list[str]) -> ImagesNotFound:
    return ImagesNotFound(
        f"the images of {source} were not found: {what}",
        where=", ".join(searched),
        fix=f"set --root {source}=PATH or {ROOTS_VARIABLE}={source}=PATH, or re-run `affectdata ingest PATH`",
    )


def _roots_of_environment() -> dict[str, str]:
    """Return the roots that AFFECTDATA_ROOTS names; the colon of an address separates nothing."""
    items = re.split(rf"{os.pathsep}(?!//)", os.environ.get(ROOTS_VARIABLE, ""))
    return dict(item.split("=", 1) for item in items if "=" in item)


def read_local(folder: Path) -> dict[str, str]:
    """Return the folder of each source, as recorded by the last `ingest` on this machine."""
    recorded = _read_recorded(folder)
    return {name: str(tree_folder(root)) if is_address(root) else root for name, root in recorded.items()}


def _read_recorded(folder: Path) -> dict[str, str]:
    """Return the folder of each source, or its address in a bucket."""
    path = folder / LOCAL_FILE
    if not path.exists():
        return {}
    document = read_json(path)
    roots = document.get("roots") if isinstance(document, dict) else None
    if not isinstance(roots, dict) or not all(map(_is_place, roots.values())):
        raise ManifestError(
            f"{LOCAL_FILE} does not have a folder for each source",
            where=str(path),
            fix="remove it, and ingest the sources again",
        )
    return roots


def _is_place(root: object) -> bool:
    """Return whether the system could have a folder of this name."""
    try:
        return isinstance(root, str) and b"\0" not in os.fsencode(root) != b""
    except UnicodeEncodeError:  # half of a character
        return False


def record_root(folder: Path, source: str, root: Path) -> None:
    """Record the image folder of a source, of a local copy the address; part of no hash."""
    place = address_of(root) or str(root.resolve())
    with locked_folder(folder):
        write_json(folder / LOCAL_FILE, {"roots": {**_read_recorded(folder), source: place}})
