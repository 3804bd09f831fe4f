"""Rows, manifests and recipes made up for a test: decisions need no pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from affectdata.balance.recipe import Recipe, parse_recipe
from affectdata.manifest import Manifest
from affectdata.schema import manifest_schema
from affectdata.sources.gaped import INFO
from affectdata.tables import table_digest

FLIP = [{"HorizontalFlip": {"p": 1.0}}]


def image_id(key: str) -> str:
    """The id that `make_rows` gives to the row of this key."""
    return hashlib.sha256(key.encode()).hexdigest()


def make_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A manifest's table; a row needs no more than `key` (default: its number), the rest is filled in.

    `group` is the key of the row whose group it joins.
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
    return pa.Table.from_pylist(filled, schema=manifest_schema())


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
