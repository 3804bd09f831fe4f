"""A project folder for a manifest: a recipe with the bins, subtypes and sizes that it has, and comments."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from affectdata.errors import InputError
from affectdata.manifest.manifest import Manifest, find_manifests, load_manifest
from affectdata.recipe.recipe import RATED
from affectdata.store.atomic import write_text

_TARGETS = (*RATED, "emotion", "subtype", "age_group", "gender", "ethnicity")
_MOST_STRATA = 12
_YAML_WORDS = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
_WIDTHS = (10, 20, 25)
_LEAST_PER_BIN = 20  # images on average; with fewer, bins are wider
_SHORT_SIDE = 256
_UPRIGHT = """\
  upright:                                    # for images that must not be turned: mirror, turn a little
    - HorizontalFlip: {p: 0.5}
    - Affine: {rotate: [-10, 10], scale: [0.95, 1.05], interpolation: cubic, border_mode: reflect_101, p: 1.0}
"""
_TURN = """\
  turn:                                       # for close-ups without an up side: any quarter turn
    - D4: {p: 1.0}
    - RandomCropFromBorders: {crop_left: 0.1, crop_right: 0.1, crop_top: 0.1, crop_bottom: 0.1, p: 1.0}
"""
_README = """\
# Project

    affectdata ingest ROOT                    # manifests/NAME.parquet
    affectdata init .                         # recipes/NAME.yaml, for the manifest
    affectdata balance --recipe NAME --dry-run
    affectdata balance --recipe NAME --link releases/current
    affectdata train-check releases/current

Commit recipes/; manifests, releases and checks can be made again.
"""
_IGNORED = "manifests/\nreleases/\nchecks/\nexports/\n"


@dataclass(frozen=True)
class Project:
    """The files of a project folder that were written or kept, and its recipes."""

    written: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    recipes: list[Path] = field(default_factory=list)


def write_project(folder: Path, manifest: Path | None = None) -> Project:
    """Write the files of a project that are not there, with a recipe for a manifest, or for all in it.

    Raises:
        ManifestError: a manifest cannot be read.
        InputError: it has nothing to balance, or the folder cannot be written.
    """
    paths = [manifest] if manifest else find_manifests(folder / "manifests")
    texts = {folder / "README.md": _README, folder / ".gitignore": _IGNORED}
    project = Project()
    for path in paths:
        target = folder / "recipes" / f"{path.stem}.yaml"
        project.recipes.append(target)
        texts[target] = "" if target.exists() else draft_recipe(load_manifest(path))
    for target, text in texts.items():
        if target.exists():
            project.kept.append(target)
        else:
            write_text(target, text)
            project.written.append(target)
    return project


def draft_recipe(manifest: Manifest) -> str:
    """Return a commented recipe for a manifest, as YAML.

    Raises:
        InputError: it has neither ratings nor classes.
    """
    target = _choose_target(manifest)
    values = manifest.rows.select([target])[target]
    lines = [
        f"# Balances {target} of {manifest.name}, {len(values) - values.null_count} images.",
        "# Every key: docs/recipes.md, or `affectdata schema recipe`.",
        f"name: {_quoted(_slug(manifest.name))}",
        f"sources: [{_quoted(manifest.name)}]",
        "seed: 0                                       # of splits and copies",
        f"target: {target:<38}# what is levelled and predicted",
    ]
    if values.null_count:
        lines.append(f"where: {target} IS NOT NULL  # images without: {values.null_count}")
    if target in RATED:
        lines += _bins(np.asarray(values.drop_null().to_numpy(), float))
    subtypes = _subtypes(manifest) if target != "subtype" else {}
    if subtypes:
        counts = ", ".join(f"{_quoted(name)} {n}" for name, n in subtypes.items())
        lines.append(f"strata: [subtype]  # bins are levelled over these: {counts}")
    side = min(
        _SHORT_SIDE, *(pc.min(manifest.rows.select([c])[c]).as_py() for c in ("width_px", "height_px"))
    )
    lines += [
        "split: {val: 0.15, test: 0.15}                # shares of images; look-alikes stay together",
        "balance: {level: max, max_copies: 8}          # rows per bin: as the largest; at most 8 per image",
        f"image: {{short_side_px: {max(8, side)}, format: jpeg, quality: 95}}",
        "pipelines:",
    ]
    turned = [name for name in subtypes if _may_turn(manifest, name)]
    pipelines = _UPRIGHT + (_TURN if turned else "")
    rules = ["subtypes:", "  default: {pipeline: upright}"]
    rules += [f"  {_quoted(name)}: {{pipeline: turn}}" for name in turned]
    return "\n".join(lines) + f"\n{pipelines}" + "\n".join(rules) + "\n"


def _choose_target(manifest: Manifest) -> str:
    """Return the first of the ratings, then of the classes, that most images have; else that any has."""
    table = manifest.rows.select([*_TARGETS])
    known = {name: len(table) - table[name].null_count for name in _TARGETS}
    for least in (len(table) / 2, 1):
        for name, n_images in known.items():
            if n_images and n_images >= least:
                return name
    raise InputError(
        f"{manifest.name} has neither ratings nor classes",
        where=str(manifest.path),
        fix="write the recipe by hand: docs/recipes.md",
    )


def _bins(values: np.ndarray) -> list[str]:
    """Return the line of the bins, and a comment with the images in each."""
    fits = (width for width in _WIDTHS if len(values) * width / 100 >= _LEAST_PER_BIN)
    width = next(fits, _WIDTHS[-1])
    edges = np.arange(0, 100 + width, width)
    counts = ", ".join(
        f"{low:g}–{low + width:g}: {n}"
        for low, n in zip(edges[:-1], np.histogram(values, edges)[0], strict=True)
    )
    return [f"bins: {{width: {width}}}  # images per bin: {counts}"]


def _subtypes(manifest: Manifest) -> dict[str, int]:
    """Return the images by subtype, if all have one and they are few enough to be levelled over."""
    column = manifest.rows.select(["subtype"])["subtype"]
    counts = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
    usable = not column.null_count and 1 < len(counts) <= _MOST_STRATA
    return dict(sorted(counts.items())) if usable else {}


def _may_turn(manifest: Manifest, subtype: str) -> bool:
    known = manifest.metadata.get("subtypes", {}).get(subtype)
    return bool(known) and not known["upright"]


def _quoted(name: str) -> str:
    """Return a name as YAML reads it: as a string, on one line."""
    is_plain = re.fullmatch(r"[A-Za-z]\w*", name) and name.lower() not in _YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def _slug(name: str) -> str:
    kept = "".join(each if each.isascii() and each.isalnum() else "_" for each in name.lower())
    return kept.strip("_")[:64] or "mine"
