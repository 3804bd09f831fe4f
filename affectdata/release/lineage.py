"""What a release promises of its rows and images, whatever the hashes of its files say.

In: an opened release. Out: findings; none means that all holds. The rows are read once, from the first to the
last, and those of an image follow each other; of all others only their groups are kept, a few bytes each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from affectdata.errors import IntegrityError
from affectdata.hashing import hash_ranks
from affectdata.images.duplicates import find_across, hash_views
from affectdata.plan.plan import sample_ids
from affectdata.records import Finding
from affectdata.release.derived import check_info
from affectdata.release.release import Release
from affectdata.schema import DIGITS, FOLD, manifest_schema, release_schema
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys
from affectdata.store.by_image import first_rows, whole_images
from affectdata.store.files import kind_of, open_regular
from affectdata.store.parquet import Rows, are_digits, read_parts

_OF_A_COPY = {"sample_id", "cell", "copy", "pipeline", "seed", "weight", "split", FOLD.name}
_REQUIRED = [field.name for field in release_schema(manifest_schema()) if not field.nullable]
_SPREAD = (  # column of equal values, column that must be equal too, column of the names, what is promised
    ("group_id", "split", "group_id", "this group is in two splits"),
    ("group_id", FOLD.name, "group_id", "this group is in two folds"),
    ("pixel_id", "split", "sample_id", "its pixels are in two splits"),
)
_NO_DIGITS = {
    "image_id": "its image_id is no SHA-256",
    "phash": "its phash is none",
    "phash_views": "its phash_views are none",
}
_SHOWN = 3
_LONGEST = 20  # characters of a name


def require_sound(release: Release, with_files: bool = True) -> None:
    """Refuse a release that contradicts itself; for whatever builds on one, with its files or without.

    Raises:
        IntegrityError: naming every broken promise.
    """
    findings = [*check_info(release), *check_lineage(release)]
    if with_files:
        findings += check_encoding(release)
    if findings:
        raise IntegrityError(
            "structure: the release breaks what it promises:\n  "
            + "\n  ".join(finding.text for finding in findings),
            where=str(release.path),
            fix="remove the folder and re-run `affectdata balance`",
        )


def check_lineage(release: Release) -> list[Finding]:
    """Check what a release promises of its rows.

    Rows are sorted by image and copy. Every row's image has its original in the same split; val and test
    hold originals only; no group is in two splits or folds, and no file, pixels or look-alikes are in two
    splits; ids, seeds and file names follow from image and copy; a copy has a pipeline of the recipe, its
    original's labels and its fold.
    """
    findings, recipe = [], None
    try:
        recipe = release.recipe_document
    except IntegrityError as error:
        findings.append(Finding("changed", error.what))
    broken, last = _Broken(), ""
    spread = [_Spread(*each) for each in _SPREAD if each[1] in release.rows.column_names]
    files, looks = _Spread("file_sha256", "split", "sample_id", "its file is in two splits"), _Looks()
    for part in whole_images(read_parts(release.rows)):
        for name in _REQUIRED:
            if part[name].null_count:
                broken.note(f"{name} is null", part["sample_id"].filter(pc.is_null(part[name])))
                part = part.filter(pc.is_valid(part[name]))
        for name, promise in _NO_DIGITS.items():
            strange = pa.array(~are_digits(part[name], DIGITS[name]))
            broken.note(promise, part["sample_id"].filter(strange))
            part = part.filter(pc.invert(strange))
        if not len(part):
            continue
        first = first_rows(part)
        _check_order(part, first, last, broken)
        _check_names(part, recipe, broken)
        _check_copies(part, first, broken)
        last = part["image_id"][-1].as_py()
        files.add(part)
        images = part.take(pa.array(np.unique(first)))
        looks.add(images)
        for each in spread:
            each.add(images)
    for each in (*spread, files):
        broken.note(each.promise, each.divided(release.rows))
    broken.note("looks like an image of another split", looks.divided())
    return findings + broken.findings()


@dataclass
class _Broken:
    """Of every broken promise the first rows that break it, and how many do."""

    found: dict[str, tuple[list[str], int]] = field(default_factory=dict)

    def note(self, promise: str, keys: pa.Array | pa.ChunkedArray) -> None:
        """Note the keys of rows that break a promise; there may be none."""
        names, n = self.found.get(promise, ([], 0))
        if len(keys):
            more = keys.slice(0, _SHOWN - len(names)).to_pylist()
            self.found[promise] = ([*names, *(str(key)[:_LONGEST] for key in more)], n + len(keys))

    def findings(self) -> list[Finding]:
        """Say it in words."""
        told = []
        for promise, (names, n) in self.found.items():
            more = f" and {n - len(names)} more" if n > len(names) else ""
            told.append(Finding("lineage", f"{', '.join(names)}{more}: {promise}"))
        return told


def _check_order(part: pa.Table, first: np.ndarray, last: str, broken: _Broken) -> None:
    """Hold that rows ascend by image and copy; `last` is the image before this part."""
    keys, copies, starts = part["sample_id"], part["copy"].to_numpy(), pa.array(np.unique(first))
    ids = part["image_id"].take(starts).combine_chunks()
    before = pa.concat_arrays([pa.array([last], ids.type), ids[:-1]])
    backwards = pc.less_equal(ids, before)
    broken.note("is not in the order of images", keys.take(starts).filter(backwards))
    inside = first[1:] == first[:-1]
    step = np.diff(copies)
    broken.note("is there twice", keys[1:].filter(pa.array(inside & (step == 0))))
    broken.note("is not in the order of copies", keys[1:].filter(pa.array(inside & (step < 0))))


def _check_names(part: pa.Table, recipe: dict[str, Any] | None, broken: _Broken) -> None:
    """Hold what follows from image and copy, and from the recipe."""
    keys, copies, heads = part["sample_id"], part["copy"].to_numpy(), id_heads(part["image_id"])
    broken.note("its copy is below 0", keys.filter(pa.array(copies < 0)))
    ids = pc.binary_join_element_wise(pa.array(heads.astype(str)), part["copy"].cast(pa.string()), "-")
    broken.note("sample_id does not follow from image and copy", keys.filter(pc.not_equal(keys, ids)))
    folder = pc.replace_substring_regex(part["file_name"], "/.*$", "")
    broken.note("lies in another split's folder", keys.filter(pc.not_equal(folder, part["split"])))
    bare = pc.replace_substring_regex(part["file_name"], r"^[^/]*/|\.(jpg|png)$", "")
    broken.note("its file_name does not follow from its sample_id", keys.filter(pc.not_equal(bare, keys)))
    if recipe is not None:
        known = pa.array(["", *recipe["pipelines"]], pa.string())
        unknown = pc.invert(pc.is_in(part["pipeline"], known))
        broken.note("its pipeline is not in the recipe", keys.filter(unknown))
        other_seed = copy_seeds(recipe["seed"], id_keys(heads), copies) != part["seed"].to_numpy()
        broken.note("seed does not follow from image and copy", keys.filter(pa.array(other_seed)))


def _check_copies(part: pa.Table, first: np.ndarray, broken: _Broken) -> None:
    """Hold what copies share with their original, and what they must not."""
    keys, copies = part["sample_id"], part["copy"].to_numpy()
    is_copy, in_train = copies > 0, pc.equal(part["split"], "train").to_numpy()
    lacks_pipeline = pc.equal(part["pipeline"], "").to_numpy()
    astray = pc.not_equal(part["split"], part["split"].take(pa.array(first))).to_numpy()
    for promise, rows in (
        ("a copy outside train", is_copy & ~in_train),
        ("a copy without pipeline", is_copy & lacks_pipeline),
        ("its original is not in the same split", astray | (copies[first] > 0)),
    ):
        broken.note(promise, keys.filter(pa.array(rows)))
    if FOLD.name in part.column_names:
        fold = pc.fill_null(part[FOLD.name], -1).to_numpy()
        broken.note("has a fold outside train", keys.filter(pa.array((fold >= 0) & ~in_train)))
        elsewhere = part["image_id"].filter(pa.array(fold != fold[first]))
        broken.note("its copies are in another fold", elsewhere.unique())
    broken.note("its copies do not carry its labels", _relabelled(part, first))


def _relabelled(part: pa.Table, first: np.ndarray) -> pa.Array:
    """Return the images whose rows do not carry one and the same source row."""
    later = np.flatnonzero(first != np.arange(len(part)))
    differs = np.zeros(len(later), bool)
    for name in part.column_names:
        if name in _OF_A_COPY or name.startswith(("file_", "out_")):
            continue
        own, other = (part[name].take(pa.array(rows)) for rows in (later, first[later]))
        same = pc.fill_null(pc.equal(own, other), False)
        both_null = pc.and_(pc.is_null(own), pc.is_null(other))
        differs |= ~pc.or_(same, both_null).to_numpy()
    return part["image_id"].take(pa.array(later[differs])).unique()


@dataclass
class _Spread:
    """Finds the values of a column `key` that have rows in two values of `column`, from two hashes a row.

    Two of a hundred million values share a hash of 64 bits by a chance of 1 in 3,700.
    """

    key: str
    column: str
    shown: str
    promise: str
    _parts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, images: pa.Table) -> None:
        """Take in some rows."""
        groups = images[self.key].fill_null("")
        values = images[self.column].cast(pa.string()).fill_null("")
        placed = pc.binary_join_element_wise(groups, values, "/")
        self._parts.append((hash_ranks(0, groups.to_pylist()), hash_ranks(0, placed.to_pylist())))

    def divided(self, rows: Rows) -> pa.Array:
        """Return what is `shown` of their rows; `rows` are read again if there are any."""
        if not self._parts:
            return pa.array([], pa.string())
        groups, placed = (np.concatenate(each) for each in zip(*self._parts, strict=True))
        order = np.argsort(groups)
        groups, placed = groups[order], placed[order]
        bad = np.unique(groups[1:][(groups[1:] == groups[:-1]) & (placed[1:] != placed[:-1])])
        if not len(bad):
            return pa.array([], pa.string())
        found: list[str] = []
        for part in read_parts(rows, dict.fromkeys([self.key, self.shown])):
            hashes = hash_ranks(0, part[self.key].fill_null("").to_pylist())
            found += part[self.shown].filter(pa.array(np.isin(hashes, bad))).to_pylist()
        return pa.array(dict.fromkeys(found), pa.string())


@dataclass
class _Looks:
    """Finds look-alikes in two splits, from the eight hashes of every image (64 bytes)."""

    _parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, images: pa.Table) -> None:
        """Take in some images."""
        splits = hash_ranks(0, images["split"].to_pylist())
        self._parts.append((hash_views(images), splits, id_heads(images["image_id"])))

    def divided(self) -> pa.Array:
        """Return the sample_ids of the originals in the smaller split of each two."""
        if not self._parts:
            return pa.array([], pa.string())
        views, splits, heads = (np.concatenate(each) for each in zip(*self._parts, strict=True))
        rows = find_across(views, splits)
        return sample_ids(heads[rows], np.zeros(len(rows), np.int64))


def check_encoding(release: Release) -> list[Finding]:
    """Check that all images came out of one encoder with one setting; reads headers, decodes nothing.

    A model tells lossless originals from JPEG copies, or two qualities, at a glance (AUC .999 on GAPED).
    """
    found: dict[str, tuple[str, int]] = {}
    irregular: list[Finding] = []
    for name in () if release.is_virtual else _file_names(release.rows):
        if (other := kind_of(release.path / name)) and not (release.path / name).is_file():
            irregular.append(Finding("changed", f"{name} is no regular file ({other})"))
            continue
        kind = _encoding(release.path / name)
        if kind:  # what is missing or no image is another finding
            first, n = found.get(kind, (name, 0))
            found[kind] = (first, n + 1)
    if len(found) < 2:
        return irregular
    kinds = sorted(found.items(), key=lambda item: -item[1][1])
    told = "; ".join(f"{n} {kind.partition(' ')[0]} such as {first}" for kind, (first, n) in kinds[:_SHOWN])
    text = f"images were encoded in {len(kinds)} ways, which a model can tell: {told}"
    return [*irregular, Finding("lineage", text)]


def _file_names(rows: Rows) -> Iterator[str]:
    for part in read_parts(rows, ["file_name"]):
        yield from part["file_name"].to_pylist()


def _encoding(path: Path) -> str | None:
    """Return format and quantisation of a file, as a word to compare; None if it is no image."""
    try:
        with open_regular(path) as file, Image.open(file) as image:
            tables = str(sorted(getattr(image, "quantization", {}).items()))
            return f"{image.format} {hashlib.sha256(tables.encode()).hexdigest()}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
