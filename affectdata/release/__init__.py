"""A release: published, opened, verified, compared.

In: a plan and its recipe, or the folder of a release. Out: a folder that never changes; its rows and images.

Read in this order:

info            release.json: types, and the hash that covers it
release         the folder, opened
images          the bytes of its images: files, or rendered in memory
dataset         a split as a torch Dataset
card, write     the data card; tables and release.json
terms           the terms of several sources together
journal         images rendered into a folder, resumed after an interruption
derived         what release.json states, compared with rows and recipe
lineage         what a release promises of its rows
verify          files against checksums, tables against each other, lineage
publish         all of it: a plan published as a release
rebuild, diff   images rendered again and compared; two releases compared
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
