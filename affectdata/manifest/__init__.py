"""Build manifests from source trees and from other manifests.

In: a folder and the source that reads it. Out: a Parquet file with one row per image, its rejects and edges.

Read in this order:

manifest            the manifest, and where its images are on this machine
ingest              the steps from a tree to a manifest
items, memo, join   labels on disk; cache of probed files; labels joined with images
content, ledger     labels by content instead of by name; every split that an image ever had
findings            warnings about a new manifest
query               SQL over manifests
merge, concat       several manifests as one
overlay             labels of one source on the images of others
unchanged           up-to-date check of a whole run
download, fetch     images of which a source ships only the URLs
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectdata.manifest.manifest import Images, Manifest, load_manifest, write_manifest

__all__ = ["Manifest", "Images", "load_manifest", "write_manifest"]


def __getattr__(name: str) -> Any:  # PEP 562: importing one module of this folder does not load them all
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("affectdata.manifest.manifest"), name)
