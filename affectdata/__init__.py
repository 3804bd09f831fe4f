"""Balanced affective image datasets: ingest, balance, verify and check images with human ratings.

The whole job, on a folder as its owners ship it:

    import affectdata

    ingested = affectdata.ingest("gaped/")                     # manifests/gaped.parquet
    ingested.manifest.to_pandas()
    balanced = affectdata.balance("valence_bins.yaml")         # releases/valence_bins-<id>/
    checked = affectdata.train_check(balanced.release)         # checks/<release>/train-check.json
    print(checked.outcome, *checked.sentences, sep="\\n")
    balanced.release.dataset("train")                          # a torch Dataset

Every command is a function here, with parameters named like its options; `help(affectdata.api)`
describes them in the order of the workflow. Errors are subclasses of `AffectdataError`.

    list_sources, sample, download          what there is to ingest
    ingest, concat, groups, split, forget_splits    a source tree becomes a manifest (`Manifest`)
    init, query                             a project folder with a recipe for it; SQL over manifests
    lint, plan_balance, balance             manifests become a release (`Release`, `open_release`)
    select, suggest                         a stimulus set from a manifest; which images to rate next
    verify, diff, export                    a release is checked, compared, and handed to other programs
    train_check, study, predict             models are trained on it, and used
    report                                  all of it as one HTML page
    doctor                                  what is unfinished or broken in a working folder
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectdata.api import (
        balance,
        compare,
        concat,
        diff,
        doctor,
        download,
        export,
        forget_splits,
        groups,
        ingest,
        init,
        lint,
        list_sources,
        plan_balance,
        publish,
        query,
        report,
        sample,
        select,
        split,
        study,
        suggest,
        train_check,
        verify,
    )
    from affectdata.errors import AffectdataError
    from affectdata.manifest.manifest import Manifest, load_manifest
    from affectdata.release.release import Release, open_release
    from affectdata.train.predict import predict

__version__ = "0.1.0"
__all__ = [
    "AffectdataError",
    "Manifest",
    "Release",
    "balance",
    "compare",
    "concat",
    "diff",
    "doctor",
    "download",
    "export",
    "forget_splits",
    "groups",
    "ingest",
    "init",
    "lint",
    "list_sources",
    "load_manifest",
    "open_release",
    "plan_balance",
    "predict",
    "publish",
    "query",
    "report",
    "sample",
    "select",
    "split",
    "study",
    "suggest",
    "train_check",
    "verify",
]

_HOMES = dict.fromkeys(__all__, "api") | {
    "AffectdataError": "errors",
    "Manifest": "manifest.manifest",
    "Release": "release.release",
    "load_manifest": "manifest.manifest",
    "open_release": "release.release",
    "predict": "train.predict",
}


def __getattr__(name: str) -> Any:  # PEP 562: `import affectdata` loads none of Arrow, DuckDB or OpenCV
    if name not in _HOMES:
        raise AttributeError(f"module 'affectdata' has no attribute {name!r}")
    return getattr(importlib.import_module(f"affectdata.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
