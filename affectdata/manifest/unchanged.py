"""Up-to-date check: if nothing that affects a manifest has changed, `ingest` returns the cached result.

The manifest depends on the files of the tree and the written tables, compared by size, modification time and
inode (as in the memo); the arguments of `ingest`; the code of this package and the versions of its libraries.
A file beside the manifest contains their fingerprint and the result. It may be removed at any time.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, astuple, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from affectdata.errors import ManifestError
from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import PIXEL_LIBRARIES
from affectdata.manifest.memo import STAMP, stamp_file, stamp_files
from affectdata.manifest.roots import read_local
from affectdata.reading.indexes import find_index, ratings_path
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.tree import Tree
from affectdata.records import Finding
from affectdata.registry import has_outside
from affectdata.store.atomic import read_json, write_json
from affectdata.store.digest import table_digest

_PACKAGE = Path(__file__).parents[1]
# Libraries that read tables, find duplicates or write Parquet, in addition to PIXEL_LIBRARIES.
_LIBRARIES = ("openpyxl", "pyarrow", "pydantic", "pyyaml", "scipy", "xlrd", "xxhash")
_REPORTED_ONCE = ("replaced",)


@dataclass(frozen=True, slots=True)
class CachedResult:
    """The result of a run besides the tables that it wrote; `plugin` is the source that read the tree."""

    plugin: str
    why: str
    counts: dict[str, int]
    findings: list[Finding]


def fingerprint(tree: Tree, options: ReadOptions, arguments: list[Any]) -> str:
    """Hash everything that affects a manifest: tree, options, other `arguments` (plain values), and code."""
    stamps = dict(zip(STAMP, stamp_files(tree.root, tree.files.array).T, strict=True))
    files = table_digest(pa.table({"path": tree.files.array, **stamps}))
    mapped = stamp_file(options.map_path) if options.map_path else None
    settings = [*map(str, (tree.root.resolve(), *astuple(options))), mapped, arguments]
    state = [_code(), files, tree.links, tree.bad_names, tree.targets, settings]
    return file_hash(canonical_json(state).encode())


@cache
def _code() -> list[str]:
    """Return the versions of libraries, and the stamps of the files of this package."""
    versions = [f"{name} {version(name)}" for name in (*PIXEL_LIBRARIES, *_LIBRARIES)]
    paths = sorted(path for kind in ("py", "yaml") for path in _PACKAGE.rglob(f"*.{kind}"))
    return [sys.version, *versions, *(f"{path} {stamp_file(path)}" for path in paths)]


def read_cached_result(out: Path, root: Path, state: str) -> tuple[str, CachedResult] | None:
    """Return the name and result of the manifest written with this fingerprint; None if there is none."""
    if has_outside("sources"):
        return None  # the fingerprint does not cover the code of external plugins
    for name, known_root in read_local(out).items():
        if known_root == str(root.resolve()) and _cache_path(out, name).is_file():
            try:
                cached = read_json(_cache_path(out, name))
                if (cached["state"], cached["written"]) == (state, _stamp_outputs(out, name)):
                    counts = dict(cached["counts"])
                    findings = [Finding(**finding) for finding in cached["findings"]]
                    return name, CachedResult(cached["plugin"], cached["why"], counts, findings)
            except (ManifestError, KeyError, TypeError, ValueError):  # not written by this package
                continue
    return None


def write_cached_result(out: Path, name: str, state: str, result: CachedResult) -> None:
    """Cache the result of a run that wrote the manifest `name`, unless a second run would differ."""
    if any(finding.kind in _REPORTED_ONCE for finding in result.findings):
        return
    counts = list(result.counts.items())  # a list keeps its order, a JSON object here does not
    document = {**asdict(result), "counts": counts, "state": state, "written": _stamp_outputs(out, name)}
    write_json(_cache_path(out, name), document)


def _cache_path(out: Path, name: str) -> Path:
    return out / f".{name}.ending.json"


def _stamp_outputs(out: Path, name: str) -> list[list[int]]:
    """Return the stamps of the files of a manifest and of the index of its source."""
    kinds = ("{}.parquet", "{}.ledger.parquet", "{}.rejects.parquet", "{}.edges.parquet", ".{}.memo")
    paths = [out / kind.format(name) for kind in kinds]
    index = find_index(name)
    paths += [index, ratings_path(index)] if index else []
    return [list(stamp_file(path)) for path in paths]
