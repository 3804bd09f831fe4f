"""Check the invariants of a release's rows and images, independently of the hashes of its files.

In: an opened release. Out: findings; an empty list means that all invariants hold. The rows are read once, in
order, with the rows of an image adjacent; of earlier rows only hashes are kept, a few bytes each.
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
from affectdata.records import RATINGS, Finding
from affectdata.release.derived import check_info
from affectdata.release.held_out import HeldOut, read_held_out
from affectdata.release.release import Release
from affectdata.schema import DIGITS, FOLD, LEDGER, manifest_schema, release_schema
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys
from affectdata.store.by_image import first_rows, iter_complete_images
from affectdata.store.chunks import are_digits
from affectdata.store.files import kind_of, open_regular
from affectdata.store.parquet import Rows, read_parts

_PER_COPY = {"sample_id", "cell", "copy", "pipeline", "seed", "weight", "split", FOLD.name}
_REQUIRED = [field.name for field in release_schema(manifest_schema()) if not field.nullable]
_ONE_PLACE = (  # key column, column that must be equal for equal keys, column to report, message
    ("group_id", "split", "group_id", "group is in two splits"),
    ("group_id", FOLD.name, "group_id", "group is in two folds"),
    ("pixel_id", "split", "sample_id", "equal pixels are in two splits"),
)
_ROUNDING = 1e-5  # POMP units: ratings are stored to 6 decimals
_HEX_COLUMNS = {
    "image_id": "image_id is not a SHA-256",
    "phash": "phash is not valid",
    "phash_views": "phash_views is not valid",
}
_MAX_SHOWN = 3
_MAX_CHARS = 20  # of a name


def validate_release(release: Release, with_files: bool = True) -> None:
    """Validate a release before using it; without `with_files`, do not open its image files.

    Raises:
        IntegrityError: lists every violated invariant.
    """
    findings = [*check_info(release), *check_lineage(release)]
    if with_files:
        findings += check_encoding(release)
    refuse(release, findings)


def refuse(release: Release, findings: list[Finding]) -> None:
    """Refuse a release that has findings.

    Raises:
        IntegrityError: lists them.
    """
    if findings:
        raise IntegrityError(
            "structure: the release is inconsistent:\n  " + "\n  ".join(finding.text for finding in findings),
            where=str(release.path),
            fix="remove the folder and re-run `affectdata balance`",
        )


def check_lineage(release: Release) -> list[Finding]:
    """Check the invariants of the rows.

    Rows are sorted by image and copy. Every row's image has its original in the same split; val and test
    contain originals only; ratings follow from the source's own numbers; no group is in two splits or folds,
    and no file, equal pixels or look-alikes are in two splits; nothing in train was held out earlier; ids,
    seeds and file names follow from image and copy; a copy has a pipeline of the recipe, and the labels and
    fold of its original.
    """
    findings, recipe = [], None
    try:
        recipe = release.recipe_document
    except IntegrityError as error:
        findings.append(Finding("changed", error.what))
    held_out = _open_ledger(release, findings)
    violations, last = _Violations(), ""
    splits = [_OnePlace(*spec) for spec in _ONE_PLACE if spec[1] in release.rows.column_names]
    files = _OnePlace("file_sha256", "split", "sample_id", "equal files are in two splits")
    look_alikes = _LookAlikes()
    for part in iter_complete_images(read_parts(release.rows)):
        for name in _REQUIRED:
            if part[name].null_count:
                violations.add(f"{name} is null", part["sample_id"].filter(pc.is_null(part[name])))
                part = part.filter(pc.is_valid(part[name]))
        for name, message in _HEX_COLUMNS.items():
            invalid = pa.array(~are_digits(part[name], DIGITS[name]))
            violations.add(message, part["sample_id"].filter(invalid))
            part = part.filter(pc.invert(invalid))
        if not len(part):
            continue
        first = first_rows(part)
        _check_order(part, first, last, violations)
        _check_names(part, recipe, violations)
        _check_copies(part, first, violations)
        _check_numbers(part, violations)
        last = part["image_id"][-1].as_py()
        files.add(part)
        images = part.take(pa.array(np.unique(first)))
        look_alikes.add(images)
        for message, keys in held_out.find(images):
            violations.add(message, keys)
        for check in splits:
            check.add(images)
    for check in (*splits, files):
        violations.add(check.message, check.find_violations(release.rows))
    violations.add("looks like an image of another split", look_alikes.find_violations())
    of_held_out = look_alikes.find_in_train(held_out.ledger)
    violations.add("looks alike: one is in train, one was held out earlier", of_held_out)
    return findings + violations.findings()


def _open_ledger(release: Release, findings: list[Finding]) -> HeldOut:
    try:
        return HeldOut(read_held_out(release))
    except IntegrityError as error:
        findings.append(Finding("changed", error.what))
        return HeldOut(LEDGER.empty_table())


@dataclass
class _Violations:
    """Per message, the first keys that it applies to, and their number."""

    by_message: dict[str, tuple[list[str], int]] = field(default_factory=dict)

    def add(self, message: str, keys: pa.Array | pa.ChunkedArray) -> None:
        """Add the keys of rows that violate an invariant; `keys` may be empty."""
        names, n = self.by_message.get(message, ([], 0))
        if len(keys):
            more = keys.slice(0, _MAX_SHOWN - len(names)).to_pylist()
            self.by_message[message] = ([*names, *(str(key)[:_MAX_CHARS] for key in more)], n + len(keys))

    def findings(self) -> list[Finding]:
        """Return one finding per message."""
        findings = []
        for message, (names, n) in self.by_message.items():
            more = f" and {n - len(names)} more" if n > len(names) else ""
            findings.append(Finding("lineage", f"{', '.join(names)}{more}: {message}"))
        return findings


def _check_order(part: pa.Table, first: np.ndarray, last: str, violations: _Violations) -> None:
    """Check that rows ascend by image and copy; `last` is the image before this part."""
    keys, copies, starts = part["sample_id"], part["copy"].to_numpy(), pa.array(np.unique(first))
    ids = part["image_id"].take(starts).combine_chunks()
    previous = pa.concat_arrays([pa.array([last], ids.type), ids[:-1]])
    violations.add("is not in the order of images", keys.take(starts).filter(pc.less_equal(ids, previous)))
    same_image = first[1:] == first[:-1]
    step = np.diff(copies)
    violations.add("is a duplicate row", keys[1:].filter(pa.array(same_image & (step == 0))))
    violations.add("is not in the order of copies", keys[1:].filter(pa.array(same_image & (step < 0))))


def _check_names(part: pa.Table, recipe: dict[str, Any] | None, violations: _Violations) -> None:
    """Check the values that follow from image and copy, and from the recipe."""
    keys, copies, heads = part["sample_id"], part["copy"].to_numpy(), id_heads(part["image_id"])
    violations.add("copy is negative", keys.filter(pa.array(copies < 0)))
    ids = pc.binary_join_element_wise(pa.array(heads.astype(str)), part["copy"].cast(pa.string()), "-")
    violations.add("sample_id does not follow from image and copy", keys.filter(pc.not_equal(keys, ids)))
    folder = pc.replace_substring_regex(part["file_name"], "/.*$", "")
    violations.add("is in the folder of another split", keys.filter(pc.not_equal(folder, part["split"])))
    stem = pc.replace_substring_regex(part["file_name"], r"^[^/]*/|\.(jpg|png)$", "")
    violations.add("file_name does not follow from sample_id", keys.filter(pc.not_equal(stem, keys)))
    if recipe is not None:
        known = pa.array(["", *recipe["pipelines"]], pa.string())
        unknown = pc.invert(pc.is_in(part["pipeline"], known))
        violations.add("pipeline is not in the recipe", keys.filter(unknown))
        wrong_seed = copy_seeds(recipe["seed"], id_keys(heads), copies) != part["seed"].to_numpy()
        violations.add("seed does not follow from image and copy", keys.filter(pa.array(wrong_seed)))


def _check_copies(part: pa.Table, first: np.ndarray, violations: _Violations) -> None:
    """Check what copies must share with their original, and where they must not be."""
    keys, copies = part["sample_id"], part["copy"].to_numpy()
    is_copy, in_train = copies > 0, pc.equal(part["split"], "train").to_numpy()
    lacks_pipeline = pc.equal(part["pipeline"], "").to_numpy()
    other_split = pc.not_equal(part["split"], part["split"].take(pa.array(first))).to_numpy()
    for message, rows in (
        ("is a copy outside train", is_copy & ~in_train),
        ("is a copy without pipeline", is_copy & lacks_pipeline),
        ("the original is not in the same split", other_split | (copies[first] > 0)),
    ):
        violations.add(message, keys.filter(pa.array(rows)))
    if FOLD.name in part.column_names:
        fold = pc.fill_null(part[FOLD.name], -1).to_numpy()
        violations.add("has a fold outside train", keys.filter(pa.array((fold >= 0) & ~in_train)))
        other_fold = part["image_id"].filter(pa.array(fold != fold[first]))
        violations.add("copies are in another fold", other_fold.unique())
    violations.add("copies have other labels than the original", _relabelled(part, first))


def _check_numbers(part: pa.Table, violations: _Violations) -> None:
    """Check that weights are finite, and that ratings follow from the source's own numbers and scale."""
    weight = part["weight"].to_numpy()
    invalid = ~(np.isfinite(weight) & (weight >= 0))
    violations.add("weight is not a finite number >= 0", part["sample_id"].filter(pa.array(invalid)))
    for name in RATINGS:
        columns = [name, f"{name}_raw", f"{name}_min", f"{name}_max"]
        value, raw, low, high = (part[column].fill_null(np.nan).to_numpy() for column in columns)
        with np.errstate(divide="ignore", invalid="ignore"):
            pomp = (raw - low) / (high - low) * 100
        differs = np.isfinite(raw) & ~(np.abs(value - pomp) <= _ROUNDING)
        message = f"{name} does not follow from {name}_raw and its scale"
        violations.add(message, part["sample_id"].filter(pa.array(differs)))


def _relabelled(part: pa.Table, first: np.ndarray) -> pa.Array:
    """Return the images whose rows differ in a column that comes from the source row."""
    later = np.flatnonzero(first != np.arange(len(part)))
    differs = np.zeros(len(later), bool)
    for name in part.column_names:
        if name in _PER_COPY or name.startswith(("file_", "out_")):
            continue
        copy, original = (part[name].take(pa.array(rows)) for rows in (later, first[later]))
        same = pc.fill_null(pc.equal(copy, original), False)
        both_null = pc.and_(pc.is_null(copy), pc.is_null(original))
        differs |= ~pc.or_(same, both_null).to_numpy()
    return part["image_id"].take(pa.array(later[differs])).unique()


@dataclass
class _OnePlace:
    """Finds values of the column `key` whose rows have two values of `column`, from two hashes per row.

    Among a hundred million values, two share a 64-bit hash with a chance of 1 in 3,700.
    """

    key: str
    column: str
    reported: str
    message: str
    _parts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, images: pa.Table) -> None:
        """Add rows."""
        keys = images[self.key].fill_null("")
        values = images[self.column].cast(pa.string()).fill_null("")
        pairs = pc.binary_join_element_wise(keys, values, "/")
        self._parts.append((hash_ranks(0, keys.to_pylist()), hash_ranks(0, pairs.to_pylist())))

    def find_violations(self, rows: Rows) -> pa.Array:
        """Return the `reported` column of the rows concerned; `rows` is read again only if there are any."""
        if not self._parts:
            return pa.array([], pa.string())
        keys, pairs = (np.concatenate(arrays) for arrays in zip(*self._parts, strict=True))
        order = np.argsort(keys)
        keys, pairs = keys[order], pairs[order]
        bad = np.unique(keys[1:][(keys[1:] == keys[:-1]) & (pairs[1:] != pairs[:-1])])
        if not len(bad):
            return pa.array([], pa.string())
        names: list[str] = []
        for part in read_parts(rows, dict.fromkeys([self.key, self.reported])):
            hashes = hash_ranks(0, part[self.key].fill_null("").to_pylist())
            names += part[self.reported].filter(pa.array(np.isin(hashes, bad))).to_pylist()
        return pa.array(dict.fromkeys(names), pa.string())


@dataclass
class _LookAlikes:
    """Finds look-alikes in two splits, from the eight hashes of every image (64 bytes)."""

    _parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, images: pa.Table) -> None:
        """Add the original rows of images."""
        splits = hash_ranks(0, images["split"].to_pylist())
        self._parts.append((hash_views(images), splits, id_heads(images["image_id"])))

    def find_violations(self) -> pa.Array:
        """Return the sample_ids of the originals in the smaller split of each pair."""
        if not self._parts:
            return pa.array([], pa.string())
        return _find_across(*map(np.concatenate, zip(*self._parts, strict=True)))

    def find_in_train(self, ledger: pa.Table) -> pa.Array:
        """Return the sample_ids of images in train or in a ledger that look like one of the other."""
        if not self._parts or not len(ledger):
            return pa.array([], pa.string())
        views, splits, heads = map(np.concatenate, zip(*self._parts, strict=True))
        train = np.flatnonzero(splits == hash_ranks(0, ["train"]))
        return _find_across(
            np.concatenate([hash_views(ledger), views[train]]),
            np.repeat([0, 1], [len(ledger), len(train)]),
            np.concatenate([id_heads(ledger["image_id"]), heads[train]]),
        )


def _find_across(views: np.ndarray, parts: np.ndarray, heads: np.ndarray) -> pa.Array:
    rows = find_across(views, parts)
    return sample_ids(heads[rows], np.zeros(len(rows), np.int64))


def check_encoding(release: Release) -> list[Finding]:
    """Check that all images have the same encoder settings; reads headers, decodes nothing.

    A model easily separates lossless originals from JPEG copies, or two JPEG qualities (AUC .999 on GAPED).
    """
    examples: dict[str, tuple[str, int]] = {}  # by encoding: the first file, and how many
    irregular: list[Finding] = []
    for name in () if release.is_virtual else _file_names(release.rows):
        if (file_kind := kind_of(release.path / name)) and not (release.path / name).is_file():
            irregular.append(Finding("changed", f"{name} is not a regular file ({file_kind})"))
            continue
        encoding = _encoding(release.path / name)
        if encoding:  # files that are missing or not images are reported elsewhere
            first, n = examples.get(encoding, (name, 0))
            examples[encoding] = (first, n + 1)
    if len(examples) < 2:
        return irregular
    ordered = sorted(examples.items(), key=lambda item: -item[1][1])[:_MAX_SHOWN]
    listed = "; ".join(f"{n} {name.partition(' ')[0]} such as {first}" for name, (first, n) in ordered)
    text = f"images have {len(examples)} different encodings, which a model can detect: {listed}"
    return [*irregular, Finding("lineage", text)]


def _file_names(rows: Rows) -> Iterator[str]:
    for part in read_parts(rows, ["file_name"]):
        yield from part["file_name"].to_pylist()


def _encoding(path: Path) -> str | None:
    """Return format and quantisation tables of a file, as a string to compare; None if it is not an image."""

    try:
        with open_regular(path) as file, Image.open(file) as image:
            tables = str(sorted(getattr(image, "quantization", {}).items()))
            return f"{image.format} {hashlib.sha256(tables.encode()).hexdigest()}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
