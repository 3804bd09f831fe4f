"""Balanced affective image datasets: ingest, balance, verify and check images with human ratings.

manifest = affectdata.load_manifest("manifests/gaped.parquet")
release = affectdata.open_release("releases/valence_bins-0123abcd")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectdata.errors import AffectdataError
    from affectdata.manifest.manifest import Manifest, load_manifest
    from affectdata.release.release import Release, open_release
    from affectdata.train.kept import predict

__version__ = "0.1.0"
__all__ = ["AffectdataError", "Manifest", "Release", "load_manifest", "open_release", "predict"]

_HOMES = {
    "AffectdataError": "errors",
    "Manifest": "manifest.manifest",
    "Release": "release.release",
    "load_manifest": "manifest.manifest",
    "open_release": "release.release",
    "predict": "train.kept",
}


def __getattr__(name: str) -> Any:  # PEP 562: `import affectdata` loads none of Arrow, DuckDB or OpenCV
    if name not in _HOMES:
        raise AttributeError(f"module 'affectdata' has no attribute {name!r}")
    return getattr(importlib.import_module(f"affectdata.{_HOMES[name]}"), name)
