"""What tests make for themselves: rows, manifests, recipes, releases, and forged ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Manifest, load_manifest
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import Recipe, parse_recipe
from affectdata.release.info import CONTENT_HASH, info_hash
from affectdata.release.publish import publish_release
from affectdata.release.release import (
    INFO_FILE,
    KIND,
    METADATA_KIND,
    SUMS_FILE,
    Release,
    open_release,
    split_file,
    split_metadata,
    table_file,
)
from affectdata.schema import manifest_schema
from affectdata.sources.gaped import INFO
from affectdata.splits.assign import SPLITS
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys
from affectdata.store.digest import table_digest
from affectdata.store.parquet import read_table, write_batches

FLIP = [{"HorizontalFlip": {"p": 1.0}}]


def image_id(key: str) -> str:
    """The id that `make_rows` gives to the row of this key."""
    return hashlib.sha256(key.encode()).hexdigest()


def sample_id(image_id: str, copy: int) -> str:
    """The key of one output image."""
    return f"{image_id[:16]}-{copy}"


def copy_seed(recipe_seed: int, image_id: str, copy: int) -> int:
    """The seed of one output image."""
    return int(copy_seeds(recipe_seed, id_keys(id_heads(pa.array([image_id]))), np.array([copy]))[0])


def make_rows(rows: Sequence[Mapping[str, Any]], emotions: Sequence[str] = ()) -> pa.Table:
    """A manifest's table; a row needs no more than `key` (default: its number), the rest is filled in.

    `group` is the key of the row whose group it joins; `emotions` have columns.
    """
    filled = []
    for number, given in enumerate(rows):
        row = dict(given)
        key = str(row.pop("key", number))
        group = str(row.pop("group", key))
        fixed = {
            "image_id": image_id(key),
            "pixel_id": image_id(key)[:32],
            "phash": image_id(key)[:16],
            "phash_views": image_id(key)[:16] * 7,
            "source": "gaped",
            "source_id": key,
            "path": f"{key}.bmp",
            "format": "bmp",
            "bytes": 1,
            "width_px": 160,
            "height_px": 120,
            "extra": "{}",
            "group_id": image_id(group),
        }
        filled.append({**fixed, **row})
    return pa.Table.from_pylist(filled, schema=manifest_schema(emotions))


def make_manifest(table: pa.Table, name: str = "gaped", **metadata: Any) -> Manifest:
    """A manifest in memory, with the data sheet of GAPED's subtypes."""
    subtypes = {
        code: {"name": each.name, "sign": each.sign, "upright": each.upright}
        for code, each in INFO.subtypes.items()
    }
    document = {"subtypes": subtypes, "emotions": [], "digest": table_digest(table), **metadata}
    return Manifest(table, document, Path(f"{name}.parquet"))


def recipe_document(**changes: Any) -> dict[str, Any]:
    """A small recipe as plain data; None leaves a key out."""
    document = {
        "name": "made",
        "target": "valence",
        "bins": {"width": 10},
        "strata": ["subtype"],
        "split": "none",
        "balance": {"level": "max", "max_copies": 8},
        "image": {"short_side_px": 32},
        "pipelines": {"flip": FLIP},
        "subtypes": {"default": {"pipeline": "flip"}},
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def make_recipe(**changes: Any) -> Recipe:
    """A small recipe."""
    return parse_recipe(recipe_document(**changes))


def publish(root: Path, out: Path, *, workers: int = 1, **changes: Any) -> Release:
    """Ingest the tree `root` into `out`/manifests and release it into `out`/releases; `changes` as above."""
    manifest = load_manifest(ingest(root, out=out / "manifests", replace=True, workers=workers).manifest.path)
    return publish_manifest(manifest, out, workers=workers, **changes)


def publish_manifest(manifest: Manifest, out: Path, *, workers: int = 1, **changes: Any) -> Release:
    """Release a manifest into `out`/releases; `changes` as above."""
    recipe = make_recipe(**{"split": {"val": 0.2, "test": 0.2}, **changes})
    rows, plan = plan_release([manifest], [], recipe)
    return publish_release([manifest], rows, plan, recipe, out / "releases", workers=workers)[0]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones too; the time in release.json is left out."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    if INFO_FILE in found:
        info = json.loads(found[INFO_FILE])
        found[INFO_FILE] = json.dumps({**info, "created": ""}).encode()
    return found


def forge(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> Release:
    """Change the rows of a release, and every hash so that nothing but the lineage can tell.

    Images whose row names another file are moved there.
    """
    mode = json.loads((folder / INFO_FILE).read_text())["mode"]
    table, metadata = read_table(folder / table_file(mode), KIND)
    rows = table.to_pylist()
    before = {id(row): row["file_name"] for row in rows}
    change(rows)
    for row in rows:
        if (old := before[id(row)]) != row["file_name"]:
            (folder / row["file_name"]).parent.mkdir(exist_ok=True)
            (folder / old).rename(folder / row["file_name"])
    table = pa.Table.from_pylist(rows, schema=table.schema)
    write_batches([table], table.schema, folder / table_file(mode), KIND, {"release": metadata["release"]})
    for split in SPLITS:
        path = folder / split_file(mode, split)
        path.unlink(missing_ok=True)
        parts = list(split_metadata(table, split))
        if any(map(len, parts)):
            write_batches(parts, table.schema, path, METADATA_KIND)
    reseal(folder)
    return open_release(folder)


def reseal(folder: Path) -> None:
    """Make SHA256SUMS and release.json agree with whatever lies in the folder."""
    names = sorted(set(contents(folder)) - {SUMS_FILE, INFO_FILE})
    sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (folder / SUMS_FILE).write_text(sums)
    info = json.loads((folder / INFO_FILE).read_text())
    info["sums_sha256"] = hashlib.sha256(sums.encode()).hexdigest()
    sign(folder, info)


def sign(folder: Path, info: dict[str, Any]) -> None:
    """Write release.json with the hash over its content, if it has one."""
    if CONTENT_HASH in info:
        info = {**info, CONTENT_HASH: info_hash(info)}
    (folder / INFO_FILE).write_text(json.dumps(info))
