"""Nothing is new: where all that decides a manifest is as it was, `ingest` ends as it did, without its steps.

What decides: the files of the tree and the tables that were written, by what the memo goes by (size, time of
modification, inode); what `ingest` was asked for; the code of this package and the versions of the libraries.
A note beside the manifest has it as one hash, and what was found. It may be removed at any time.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, astuple, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from affectdata.errors import ManifestError
from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import PIXEL_LIBRARIES
from affectdata.manifest.manifest import read_local
from affectdata.manifest.memo import STAMP, stamp_file, stamp_files
from affectdata.reading.indexes import find_index
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.tree import Tree
from affectdata.records import Finding
from affectdata.registry import has_outside
from affectdata.store.parquet import read_json, table_digest, write_json

_PACKAGE = Path(__file__).parents[1]
# Those that read tables, look for duplicates or write Parquet; beside them, those that decide pixels.
_LIBRARIES = ("openpyxl", "pyarrow", "pydantic", "pyyaml", "scipy", "xlrd", "xxhash")
_SAID_ONCE = ("replaced",)


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run found, beside the tables that it wrote; `plugin` is the source that read the tree."""

    plugin: str
    why: str
    counts: dict[str, int]
    findings: list[Finding]


def describe_state(tree: Tree, options: ReadOptions, asked: list[Any]) -> str:
    """Hash what decides a manifest: a tree, options, what else is `asked` (plain values), and the code."""
    stamps = dict(zip(STAMP, stamp_files(tree.root, tree.files.array).T, strict=True))
    files = table_digest(pa.table({"path": tree.files.array, **stamps}))
    mapped = stamp_file(options.map_path) if options.map_path else None
    told = [*map(str, (tree.root.resolve(), *astuple(options))), mapped, asked]
    state = [_code(), files, tree.links, tree.bad_names, told]
    return file_hash(canonical_json(state).encode())


@cache
def _code() -> list[str]:
    versions = [f"{name} {version(name)}" for name in (*PIXEL_LIBRARIES, *_LIBRARIES)]
    digest = xxhash.xxh3_128()
    for path in sorted(each for kind in ("py", "yaml") for each in _PACKAGE.rglob(f"*.{kind}")):
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes())
    return [sys.version, *versions, digest.hexdigest()]


def recall_ending(out: Path, root: Path, state: str) -> tuple[str, Ending] | None:
    """Return the name of the manifest that was made in this state, and how that ended; None if none was."""
    if has_outside("sources"):
        return None  # whose code is not in the state
    for name, noted in read_local(out).items():
        if noted == str(root.resolve()) and _note(out, name).is_file():
            try:
                note = read_json(_note(out, name))
                if (note["state"], note["written"]) == (state, _written(out, name)):
                    counts, findings = dict(note["counts"]), [Finding(**each) for each in note["findings"]]
                    return name, Ending(note["plugin"], note["why"], counts, findings)
            except (ManifestError, KeyError, TypeError, ValueError):  # no note of ours
                continue
    return None


def note_ending(out: Path, name: str, state: str, ending: Ending) -> None:
    """Note how a run ended that wrote the manifest `name`, unless the next one would end otherwise."""
    if any(each.kind in _SAID_ONCE for each in ending.findings):
        return
    counts = list(ending.counts.items())  # their order stays, which that of a JSON object does not
    note = {**asdict(ending), "counts": counts, "state": state, "written": _written(out, name)}
    write_json(_note(out, name), note)


def _note(out: Path, name: str) -> Path:
    return out / f".{name}.ending.json"


def _written(out: Path, name: str) -> list[list[int]]:
    """Return how the files of a manifest are now, and the index that it is compared with."""
    kinds = ("{}.parquet", "{}.ledger.parquet", "{}.rejects.parquet", "{}.edges.parquet", ".{}.memo")
    index = find_index(name)
    return [list(stamp_file(path)) for path in (*(out / kind.format(name) for kind in kinds), index) if path]
