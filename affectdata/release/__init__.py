"""Releases: publish, open, verify, compare.

In: a plan and its recipe, or the folder of a release. Out: an immutable folder; its rows and images.

Read in this order:

info            the schema of release.json, and the hash over it
release         open a release
explain         why an image is where it is
images          read its images: from files, or rendered in memory
dataset         a split as a torch Dataset
card, write     the data card; tables and release.json
terms           parse licence strings into permissions
journal         render images into a folder, resume after an interruption
derived         check release.json against rows and recipe
lineage         check the invariants of the rows
verify          check files against checksums, tables against each other, and the above
publish         publish a plan as a release
rebuild, diff   render images again and compare; compare two releases

"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectdata.release.release import Release, newest_release, open_release

__all__ = ["Release", "newest_release", "open_release"]


def __getattr__(name: str) -> Any:  # PEP 562: importing one module of this folder does not load them all
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("affectdata.release.release"), name)
