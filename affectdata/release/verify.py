"""Check a release: its files against SHA256SUMS, its tables against each other, and its lineage.

In: an opened release. Out: findings; none means that all holds. Names are held as hashes of eight bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.records import Finding
from affectdata.release.derived import check_info
from affectdata.release.lineage import check_encoding, check_lineage
from affectdata.release.release import (
    INFO_FILE,
    METADATA_KIND,
    SUMS_FILE,
    Release,
    find_strangers,
    split_file,
    split_metadata,
)
from affectdata.splits.assign import SPLITS
from affectdata.store.files import hash_file, kind_of, open_text
from affectdata.store.parquet import (
    STREAM_ROWS,
    Rows,
    StoredTable,
    column_digest,
    distinct,
    open_table,
    read_parts,
)
from affectdata.store.text_set import Names

_DIGITS = 64  # of a SHA-256; two spaces follow, then the name


def check_release(release: Release, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Check every file against SHA256SUMS, and the table's lineage; an empty list means that all holds."""
    files = check_files(release, progress)
    said = {finding.text for finding in files}
    promised = [*check_info(release), *check_lineage(release), *check_encoding(release)]
    return files + [finding for finding in promised if finding.text not in said]


def check_files(release: Release, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Re-hash every file; name those that changed, are missing, or were added."""
    path = release.path / SUMS_FILE
    if (kind := kind_of(path)) or not path.is_file():
        return [_not_there(SUMS_FILE, kind)]
    findings = []
    if hash_file(path) != release.info.get("sums_sha256"):
        findings.append(Finding("changed", f"{SUMS_FILE} is not the one that was published"))
    listed = Names(list(map(_name, lines)) for lines in _read_sums(path))
    done = 0
    for lines in _read_sums(path):
        for line in lines:
            findings += _check_file(release.path, _name(line), line[:_DIGITS])
            done += 1
            if progress:
                progress(done, len(listed))
    strangers = find_strangers(release.path, listed)
    extra = [name for name in strangers if name not in (SUMS_FILE, INFO_FILE)]
    findings += [Finding("added", f"{name} is no part of the release") for name in extra]
    if not release.is_virtual:
        findings += _unlisted_rows(release, path)
    return findings + _other_metadata(release)


def _read_sums(path: Path) -> Iterator[list[str]]:
    """Yield the lines of SHA256SUMS, some at a time."""
    with open_text(path, errors="replace") as file:
        while lines := [line.rstrip("\n") for line in file.readlines(STREAM_ROWS * _DIGITS)]:
            yield lines


def _name(line: str) -> str:
    return line[_DIGITS + 2 :]


def _check_file(folder: Path, name: str, expected: str) -> list[Finding]:
    file = folder / name
    if (kind := kind_of(file)) or not file.is_file():
        return [_not_there(name, kind)]
    if hash_file(file) != expected:
        return [Finding("changed", f"{name} is not the file that was published")]
    return []


def _not_there(name: str, kind: str | None) -> Finding:
    """Say that a file is missing, or what lies in its place."""
    if kind:
        return Finding("changed", f"{name} is no regular file ({kind})")
    return Finding("missing", f"{name} is not there")


def _unlisted_rows(release: Release, path: Path) -> list[Finding]:
    """Name the rows that SHA256SUMS does not know with the same hash, and its images that have no row."""
    lines, findings = Names(_read_sums(path)), []
    for part in read_parts(release.rows, ["file_name", "file_sha256"]):
        said = pc.binary_join_element_wise(part["file_sha256"], part["file_name"], "  ")
        findings += [
            Finding("changed", f"{release.table_file} and {SUMS_FILE} do not agree on {name}")
            for name in part["file_name"].filter(pa.array(~lines.has(said.to_pylist()))).to_pylist()
        ]
    in_rows = Names(part["file_name"].to_pylist() for part in read_parts(release.rows, ["file_name"]))
    tables = {release.table_file, *(split_file(release.info["mode"], split) for split in SPLITS)}
    for some in _read_sums(path):
        images = [name for name in map(_name, some) if "/" in name and name not in tables]
        without = [name for name, known in zip(images, in_rows.has(images), strict=True) if not known]
        findings += [Finding("added", f"{name} is in no row of {release.table_file}") for name in without]
    return findings


def _other_metadata(release: Release) -> list[Finding]:
    """Name the tables of splits, which Hugging Face reads, that differ from the table of all rows."""
    findings = []
    for split in distinct(release.rows, "split"):
        name = split_file(release.info["mode"], split)
        if not (release.path / name).is_file():
            continue  # missing, and named as such
        try:
            stored = open_table(release.path / name, METADATA_KIND)
        except (ManifestError, IntegrityError):
            stored = None
        if stored is None or stored.metadata["digest"] != _split_digest(release.rows, split, stored):
            findings.append(Finding("changed", f"{name} does not say what {release.table_file} says"))
    return findings


def _split_digest(rows: Rows, split: str, stored: StoredTable) -> str:
    """Return the digest that the table of a split has for Hugging Face, if it has the rows of `stored`."""
    version = stored.metadata["schema_version"]
    return column_digest(
        rows.schema, len(stored), lambda name: split_metadata(rows, split, [name]), schema_version=version
    )
