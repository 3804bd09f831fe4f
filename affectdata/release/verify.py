"""Check a release: its files against SHA256SUMS, its tables against each other, and its lineage.

In: an opened release. Out: findings; an empty list means valid. File names are kept as 64-bit hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.records import Finding
from affectdata.release.derived import check_info
from affectdata.release.lineage import check_encoding, check_lineage, refuse
from affectdata.release.release import (
    INFO_FILE,
    LEDGER_FILE,
    METADATA_KIND,
    SUMS_FILE,
    Release,
    split_file,
    split_metadata,
)
from affectdata.splits.assign import SPLITS
from affectdata.store.chunks import STREAM_ROWS
from affectdata.store.digest import column_digest
from affectdata.store.files import hash_file, kind_of, open_text
from affectdata.store.listing import find_empty_folders, find_unlisted_files
from affectdata.store.parquet import Rows, StoredTable, distinct, open_table, read_parts
from affectdata.store.text_set import StringHashSet
from affectdata.workers import THREADS, map_ordered

_BATCH = 64  # files hashed per task
_DIGITS = 64  # of a SHA-256; a line is the digits, two spaces, the name


def check_release(
    release: Release,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    engine: str = THREADS,
    *,
    hash_images: bool = True,
) -> list[Finding]:
    """Check every file against SHA256SUMS, and release.json, lineage and encoding; empty if valid.

    Without `hash_images`, that is left to whatever reads the images next (`images.ReadReleased`).
    """
    files = check_files(release, progress, workers, engine, hash_images=hash_images)
    texts = {finding.text for finding in files}
    others = [*check_info(release), *check_lineage(release), *check_encoding(release)]
    return files + [finding for finding in others if finding.text not in texts]


def require_verified(release: Release, *, hash_images: bool, workers: int = 1, engine: str = THREADS) -> None:
    """Refuse a release that is to be passed on and has findings of `check_release`.

    Raises:
        IntegrityError: lists them.
    """
    refuse(release, check_release(release, None, workers, engine, hash_images=hash_images))


def check_files(
    release: Release,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
    engine: str = THREADS,
    *,
    hash_images: bool = True,
) -> list[Finding]:
    """Hash every file again; report files that changed, are missing, or were added."""
    path = release.path / SUMS_FILE
    if (kind := kind_of(path)) or not path.is_file():
        return [_missing_or_irregular(SUMS_FILE, kind)]
    findings = []
    if kind := kind_of(release.path / INFO_FILE):
        findings.append(_missing_or_irregular(INFO_FILE, kind))
    if hash_file(path) != release.info.get("sums_sha256"):
        findings.append(Finding("changed", f"{SUMS_FILE} differs from the published file"))
    listed = StringHashSet(list(map(_name, lines)) for lines in _read_sums(path))
    done = 0
    batches = (
        lines[start : start + _BATCH] for lines in _read_sums(path) for start in range(0, len(lines), _BATCH)
    )
    check = _CheckFiles(str(release.path), None if hash_images else _tables(release))
    for n, found in map_ordered(check, batches, workers, engine):
        findings += found
        done += n
        if progress:
            progress(done, len(listed))
    unlisted = find_unlisted_files(release.path, listed)
    added = [name for name in unlisted if name not in (SUMS_FILE, INFO_FILE)]
    findings += [Finding("added", f"{name} is not part of the release") for name in added]
    findings += [
        Finding("added", f"{name}/ is an empty folder, and not part of the release")
        for name in find_empty_folders(release.path)
    ]
    if not release.is_virtual:
        findings += _compare_rows_with_sums(release, path)
    return findings + _check_split_tables(release)


def _read_sums(path: Path) -> Iterator[list[str]]:
    """Yield the lines of SHA256SUMS in chunks."""
    with open_text(path, errors="replace") as file:
        while lines := [line.rstrip("\n") for line in file.readlines(STREAM_ROWS * _DIGITS)]:
            yield lines


def _name(line: str) -> str:
    return line[_DIGITS + 2 :]


@dataclass(frozen=True, slots=True)
class _CheckFiles:
    """Hash the files of some lines of SHA256SUMS; return how many, and findings.

    With `tables`, the names of tables in folders, the other files in folders, images, are not hashed.
    """

    folder: str
    tables: frozenset[str] | None

    def __call__(self, lines: list[str]) -> tuple[int, list[Finding]]:
        found = [self._check(_name(line), line[:_DIGITS]) for line in lines]
        return len(lines), [finding for each in found for finding in each]

    def _check(self, name: str, digest: str) -> list[Finding]:
        is_hashed = self.tables is None or not _is_image(name, self.tables)
        return _check_file(Path(self.folder), name, digest if is_hashed else None)


def _check_file(folder: Path, name: str, expected: str | None) -> list[Finding]:
    if "\0" in name:
        return [Finding("changed", f"{SUMS_FILE} has a name that no file can have: {name!r}")]
    file = folder / name
    if (kind := kind_of(file)) or not file.is_file():
        return [_missing_or_irregular(name, kind)]
    if expected is not None and hash_file(file) != expected:
        return [Finding("changed", f"{name} differs from the published file")]
    return []


def _missing_or_irregular(name: str, kind: str | None) -> Finding:
    if kind:
        return Finding("changed", f"{name} is not a regular file ({kind})")
    return Finding("missing", f"{name} does not exist")


def _compare_rows_with_sums(release: Release, path: Path) -> list[Finding]:
    """Report rows that SHA256SUMS lacks or lists with another hash, and its images without a row."""
    lines, findings = StringHashSet(_read_sums(path)), []
    for part in read_parts(release.rows, ["file_name", "file_sha256"]):
        expected = pc.binary_join_element_wise(part["file_sha256"], part["file_name"], "  ")
        findings += [
            Finding("changed", f"{release.table_file} and {SUMS_FILE} do not agree on {name}")
            for name in part["file_name"].filter(pa.array(~lines.has(expected.to_pylist()))).to_pylist()
        ]
    in_rows = StringHashSet(part["file_name"].to_pylist() for part in read_parts(release.rows, ["file_name"]))
    tables = _tables(release)
    for chunk in _read_sums(path):
        images = [name for name in map(_name, chunk) if _is_image(name, tables)]
        without = [name for name, has_row in zip(images, in_rows.has(images), strict=True) if not has_row]
        findings += [Finding("added", f"{name} is in no row of {release.table_file}") for name in without]
    return findings


def _tables(release: Release) -> frozenset[str]:
    splits = (split_file(release.info["mode"], split) for split in SPLITS)
    return frozenset([release.table_file, LEDGER_FILE, *splits])


def _is_image(name: str, tables: frozenset[str]) -> bool:
    return "/" in name and name not in tables


def _check_split_tables(release: Release) -> list[Finding]:
    """Report tables of splits, which Hugging Face reads, that differ from the table of all rows."""
    findings = []
    for split in distinct(release.rows, "split"):
        name = split_file(release.info["mode"], split)
        if not (release.path / name).is_file():
            continue  # `_check_file` reports it
        try:
            stored = open_table(release.path / name, METADATA_KIND)
        except (ManifestError, IntegrityError):
            stored = None
        if stored is None or stored.metadata["digest"] != _split_digest(release.rows, split, stored):
            findings.append(Finding("changed", f"{name} differs from {release.table_file}"))
    return findings


def _split_digest(rows: Rows, split: str, stored: StoredTable) -> str:
    """Return the digest that the table of a split must have, in the schema version of `stored`."""

    version = stored.metadata["schema_version"]
    return column_digest(
        rows.schema, len(stored), lambda name: split_metadata(rows, split, [name]), schema_version=version
    )
