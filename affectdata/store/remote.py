"""Folders that may lie in a bucket, read where a path is."""

from __future__ import annotations

from pathlib import Path

from affectdata.store.addresses import is_address
from affectdata.store.cache import tree_folder, use_tree


def local_copy(path: str | Path) -> Path:
    """Return a folder; of a tree in a bucket its local copy, which is read now if it is not there."""
    if not is_address(path):
        return Path(path)
    if not use_tree(path):
        from affectdata.store.trees import fetch_tree  # it imports obstore

        fetch_tree(path)
    return tree_folder(path)
