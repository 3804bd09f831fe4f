"""Check a release: its files against SHA256SUMS, its rows against what a release promises.

In: an opened release. Out: findings; none means that all holds. Columns are read as they are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from affectdata.draws import copy_seeds, id_heads, id_keys
from affectdata.errors import IntegrityError, ManifestError
from affectdata.hashing import hash_file
from affectdata.records import Finding
from affectdata.release import (
    INFO_FILE,
    METADATA_FILE,
    METADATA_KIND,
    SUMS_FILE,
    TABLE_FILE,
    Release,
    find_strangers,
    split_metadata,
)
from affectdata.schema import FOLD
from affectdata.tables import STREAM_ROWS, open_table, same_rows

_DIGITS = 64  # of a SHA-256; two spaces follow, then the name
_OF_A_COPY = {"sample_id", "cell", "copy", "pipeline", "seed", "weight", "split", FOLD.name}
_LINEAGE = ["sample_id", "image_id", "split", "copy", "pipeline", "seed", "file_name", "group_id"]


def check_release(release: Release, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Check every file against SHA256SUMS, and the table's lineage; an empty list means that all holds."""
    files = check_files(release, progress)
    said = {finding.text for finding in files}
    promised = [*check_lineage(release), *check_encoding(release)]
    return files + [finding for finding in promised if finding.text not in said]


def require_sound(release: Release) -> None:
    """Refuse a release whose lineage or encoding does not hold; for whatever builds on one.

    Raises:
        IntegrityError: naming every broken promise.
    """
    findings = [*check_lineage(release), *check_encoding(release)]
    if findings:
        raise IntegrityError(
            "structure: the release breaks what it promises:\n  "
            + "\n  ".join(finding.text for finding in findings),
            where=str(release.path),
            fix="make it anew with `affectdata balance`",
        )


# --- files -----------------------------------------------------------------------------------------------


def check_files(release: Release, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Re-hash every file; name those that changed, are missing, or were added."""
    path = release.path / SUMS_FILE
    if not path.is_file():
        return [Finding("missing", f"{SUMS_FILE} is not there")]
    findings = []
    if hash_file(path) != release.info.get("sums_sha256"):
        findings.append(Finding("changed", f"{SUMS_FILE} is not the one that was published"))
    sums = _read_sums(path)
    for done, (name, expected) in enumerate(_pairs(sums), 1):
        file = release.path / name
        if not file.is_file():
            findings.append(Finding("missing", f"{name} is not there"))
        elif hash_file(file) != expected:
            findings.append(Finding("changed", f"{name} is not the file that was published"))
        if progress:
            progress(done, len(sums))
    strangers = find_strangers(release.path, sums["name"].combine_chunks())
    extra = [name for name in strangers if name not in (SUMS_FILE, INFO_FILE)]
    findings += [Finding("added", f"{name} is no part of the release") for name in extra]
    if release.is_virtual:
        return findings
    return findings + _unlisted_rows(release, sums) + _other_metadata(release)


def _read_sums(path: Path) -> pa.Table:
    """Return the columns `name` and `sha256` of SHA256SUMS."""
    parts = [pa.table({"name": pa.array([], pa.string()), "sha256": pa.array([], pa.string())})]
    with path.open(encoding="utf-8", errors="replace") as file:
        while lines := [line.rstrip("\n") for line in file.readlines(STREAM_ROWS * _DIGITS)]:
            columns = ([line[_DIGITS + 2 :] for line in lines], [line[:_DIGITS] for line in lines])
            parts.append(pa.table([pa.array(each, pa.string()) for each in columns], ["name", "sha256"]))
    return pa.concat_tables(parts)


def _pairs(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table as tuples."""
    for batch in table.to_batches(STREAM_ROWS):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _unlisted_rows(release: Release, sums: pa.Table) -> list[Finding]:
    rows = release.rows.select(["file_name", "file_sha256"])
    listed = sums["sha256"].take(pc.index_in(rows["file_name"], sums["name"].combine_chunks()))
    other = pc.fill_null(pc.not_equal(listed, rows["file_sha256"]), True)
    picture = pc.and_not(pc.match_substring(sums["name"], "/"), pc.ends_with(sums["name"], METADATA_FILE))
    without = pc.and_not(picture, pc.is_in(sums["name"], rows["file_name"].combine_chunks()))
    return [
        *(
            Finding("changed", f"{TABLE_FILE} and {SUMS_FILE} do not agree on {name}")
            for name in rows["file_name"].filter(other).to_pylist()
        ),
        *(
            Finding("added", f"{name} is in no row of {TABLE_FILE}")
            for name in sorted(sums["name"].filter(without).to_pylist())
        ),
    ]


def _other_metadata(release: Release) -> list[Finding]:
    """Name the tables for Hugging Face that do not say what `manifest.parquet` says of their split."""
    findings = []
    for split in sorted(release.rows.select(["split"])["split"].unique().to_pylist()):
        name = f"{split}/{METADATA_FILE}"
        if not (release.path / name).is_file():
            continue  # missing, and named as such
        try:
            stored = open_table(release.path / name, METADATA_KIND)
            there = (pa.Table.from_batches([each]) for each in stored.to_batches(STREAM_ROWS))
            same = stored.schema.equals(release.rows.schema) and same_rows(
                there, split_metadata(release.rows, split), stored.schema
            )
        except (ManifestError, IntegrityError):
            same = False
        if not same:
            findings.append(Finding("changed", f"{name} does not say what {TABLE_FILE} says"))
    return findings


def check_encoding(release: Release) -> list[Finding]:
    """Check that all pictures came out of one encoder with one setting; reads headers, decodes nothing.

    A model tells lossless originals from JPEG copies, or two qualities, at a glance (AUC .999 on GAPED).
    """
    found: dict[str, tuple[str, int]] = {}
    for (name,) in () if release.is_virtual else _pairs(release.rows.select(["file_name"])):
        kind = _encoding(release.path / name)
        if kind:  # what is missing or no picture is another finding
            first, n = found.get(kind, (name, 0))
            found[kind] = (first, n + 1)
    if len(found) < 2:
        return []
    kinds = sorted(found.items(), key=lambda item: -item[1][1])
    told = "; ".join(f"{n} {kind.partition(' ')[0]} such as {first}" for kind, (first, n) in kinds[:3])
    return [Finding("lineage", f"pictures were encoded in {len(kinds)} ways, which a model can tell: {told}")]


def _encoding(path: Path) -> str | None:
    """Return format and quantisation of a file, as a word to compare; None if it is no picture."""
    try:
        with Image.open(path) as picture:
            tables = str(sorted(getattr(picture, "quantization", {}).items()))
            return f"{picture.format} {hashlib.sha256(tables.encode()).hexdigest()}"
    except (OSError, ValueError, SyntaxError):
        return None


# --- rows ------------------------------------------------------------------------------------------------


def check_lineage(release: Release) -> list[Finding]:
    """Check what a release promises of its rows, whatever the hashes say.

    Every row's picture has its original in the same split; val and test hold originals only; no group is in
    two splits or folds; ids, seeds and file names follow from picture and copy; a copy has a pipeline of the
    recipe, its original's labels and its fold.
    """
    table = release.rows.select(
        [name for name in (*_LINEAGE, FOLD.name) if name in release.rows.column_names]
    )
    strange = pc.invert(pc.match_substring_regex(table["image_id"], "^[0-9a-f]{64}$"))
    if pc.any(strange).as_py():
        return _name_rows(table["sample_id"].filter(strange), "its image_id is no SHA-256")
    copies = table["copy"].to_numpy()
    splits, groups, pictures, keys = (
        _codes(table[name]) for name in ("split", "group_id", "image_id", "sample_id")
    )
    is_copy, in_train = copies > 0, pc.equal(table["split"], "train").to_numpy()
    lacks_pipeline = pc.equal(table["pipeline"], "").to_numpy()
    heads = pc.utf8_slice_codeunits(table["image_id"], 0, 16)
    ids = pc.binary_join_element_wise(heads, table["copy"].cast(pa.string()), "-")
    findings, wrong = (
        [],
        [(pc.not_equal(table["sample_id"], ids), "sample_id does not follow from picture and copy")],
    )
    try:
        recipe = release.recipe_document
    except IntegrityError as error:
        findings.append(Finding("changed", error.what))
    else:
        known = pa.array(["", *recipe["pipelines"]], pa.string())
        seeds = copy_seeds(recipe["seed"], id_keys(id_heads(table["image_id"])), copies)
        wrong += [
            (pc.invert(pc.is_in(table["pipeline"], known)), "its pipeline is not in the recipe"),
            (seeds != table["seed"].to_numpy(), "seed does not follow from picture and copy"),
        ]
    folder = pc.replace_substring_regex(table["file_name"], "/.*$", "")
    original = np.zeros((pictures.max(initial=-1) + 1, splits.max(initial=-1) + 1), bool)
    original[pictures[~is_copy], splits[~is_copy]] = True
    wrong += [
        (pc.not_equal(folder, table["split"]), "lies in another split's folder"),
        (is_copy & ~in_train, "a copy outside train"),
        (is_copy & lacks_pipeline, "a copy without pipeline"),
        (_first_of(keys)[keys] != np.arange(len(keys)), "is there twice"),
        (~original[pictures, splits], "its original is not in the same split"),
    ]
    for rows, what in wrong:
        findings += _name_rows(
            table["sample_id"].filter(pa.array(rows) if isinstance(rows, np.ndarray) else rows), what
        )
    findings += _name_rows(_unequal(table["group_id"], groups, splits), "this group is in two splits")
    return findings + _broken_folds(table, pictures, groups, in_train) + _unequal_labels(release, pictures)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Return a whole number per row, in the order in which the values come."""
    return np.asarray(pc.fill_null(column, "").combine_chunks().dictionary_encode().indices.to_numpy())


def _first_of(codes: np.ndarray) -> np.ndarray:
    """Return the first row of every code."""
    first = np.zeros(codes.max(initial=-1) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


def _unequal(column: pa.ChunkedArray, codes: np.ndarray, values: np.ndarray) -> pa.ChunkedArray:
    """Return the values of `column`, each once, whose rows do not agree in `values`."""
    first = _first_of(codes)
    unequal = np.unique(codes[values != values[first][codes]])
    return column.take(pa.array(first[unequal]))


def _broken_folds(
    table: pa.Table, pictures: np.ndarray, groups: np.ndarray, in_train: np.ndarray
) -> list[Finding]:
    if FOLD.name not in table.column_names:
        return []
    fold = pc.fill_null(table[FOLD.name], -1).to_numpy()
    return [
        *_name_rows(table["sample_id"].filter(pa.array((fold >= 0) & ~in_train)), "has a fold outside train"),
        *_name_rows(_unequal(table["image_id"], pictures, fold), "its copies are in another fold"),
        *_name_rows(_unequal(table["group_id"], groups, fold), "this group is in two folds"),
    ]


def _unequal_labels(release: Release, pictures: np.ndarray) -> list[Finding]:
    """Name the pictures whose rows do not carry one and the same source row; column by column."""
    first, differs = _first_of(pictures)[pictures], np.zeros(len(pictures), bool)
    for name in release.rows.column_names:
        if name in _OF_A_COPY or name.startswith(("file_", "out_")):
            continue
        column = release.rows.select([name])[name].combine_chunks()
        for start in range(0, len(column), STREAM_ROWS):
            own = column.slice(start, STREAM_ROWS)
            other = column.take(pa.array(first[start : start + STREAM_ROWS]))
            same = pc.fill_null(pc.equal(own, other), False)
            both_null = pc.and_(pc.is_null(own), pc.is_null(other))
            differs[start : start + STREAM_ROWS] |= ~pc.or_(same, both_null).to_numpy(zero_copy_only=False)
    named = release.rows.select(["image_id"])["image_id"].filter(pa.array(differs)).unique()
    return _name_rows(named, "its copies do not carry its labels")


def _name_rows(keys: pa.Array | pa.ChunkedArray, what: str) -> list[Finding]:
    if not len(keys):
        return []
    names = ", ".join(str(key)[:20] for key in keys[:3])
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return [Finding("lineage", f"{names}{more}: {what}")]
