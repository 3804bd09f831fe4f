"""Check release.json against values derived from the rows, the recipe and the sources' data sheets.

In: an opened release. Out: findings, and the terms as derived from the rows. Reads a few low-cardinality
columns only, in parts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.plan.plan import effective_size_of_sums, evenness, imbalance_ratio
from affectdata.records import Finding
from affectdata.registry import load_plugin
from affectdata.release.info import FORMER, check_content_hash
from affectdata.release.release import INFO_FILE, Release
from affectdata.release.terms import combine_terms, forbids_redistribution
from affectdata.schema import FOLD
from affectdata.splits.assign import SPLITS
from affectdata.store.by_image import first_rows, iter_complete_images
from affectdata.store.parquet import read_parts

_COLUMNS = ("image_id", "source", "license", "split", "copy", "cell")
_NOT_STATED = "not stated"
_MAX_CHARS = 160  # of a value in a message


def check_info(release: Release) -> list[Finding]:
    """Return a finding for every field of release.json that differs from its derived value."""
    info, counts = release.info, _count(release)
    texts = [
        *check_content_hash(info),
        *_check_recipe(release),
        *_check_rows(info, counts),
        *_check_cells(release, counts),
        *_check_sources(info, counts),
    ]
    return [Finding("stated", f"{INFO_FILE}: {text}") for text in texts]


def release_terms(release: Release) -> dict[str, Any]:
    """Return the combined terms of all images, derived from rows and data sheets, not from release.json."""
    return _terms(release.info, _count(release))


@dataclass
class _CellCounts:
    """Counts of one train cell; `n_squares` sums the squared number of rows of each image."""

    n_images: int = 0
    n_rows: int = 0
    n_squares: int = 0


@dataclass
class _Counts:
    """Counts over all rows; `licenses` per source."""

    splits: Counter[str] = field(default_factory=Counter)
    licenses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    cells: dict[str, _CellCounts] = field(default_factory=lambda: defaultdict(_CellCounts))
    n_copies: int = 0
    last_fold: int = -1

    def add(self, part: pa.Table) -> None:
        """Add a part, which must not split the rows of an image."""
        self.splits.update(_values(part["split"]))
        self.n_copies += pc.sum(pc.greater(part["copy"], 0)).as_py() or 0
        pairs = part.group_by(["source", "license"]).aggregate([([], "count_all")])
        for row in pairs.to_pylist():
            license_ = _NOT_STATED if row["license"] is None else row["license"]
            self.licenses[row["source"] or ""][license_] += row["count_all"]
        if FOLD.name in part.column_names:
            last = pc.max(part[FOLD.name]).as_py()
            self.last_fold = max(self.last_fold, -1 if last is None else last)
        self._add_cells(part.filter(pc.fill_null(pc.equal(part["split"], "train"), False)))

    def _add_cells(self, train: pa.Table) -> None:
        if not len(train):
            return
        first, sizes = np.unique(first_rows(train), return_counts=True)
        for name, n_rows in _values(train["cell"]).items():
            self.cells[name].n_rows += n_rows
        cells = train["cell"].fill_null("").combine_chunks().take(pa.array(first)).dictionary_encode()
        codes = cells.indices.to_numpy()
        squares = np.bincount(codes, sizes.astype(float) ** 2).astype(np.int64)
        for name, n, squared in zip(cells.dictionary.to_pylist(), np.bincount(codes), squares, strict=True):
            self.cells[name].n_images += int(n)
            self.cells[name].n_squares += int(squared)


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"] or "": row["counts"] for row in column.value_counts().to_pylist()}


def _count(release: Release) -> _Counts:
    counts = _Counts()
    names = [*_COLUMNS, *(name for name in (FOLD.name,) if name in release.rows.column_names)]
    for part in iter_complete_images(read_parts(release.rows, names)):
        counts.add(part)
    return counts


def _compare(name: str, stated: Any, derived: Any) -> Iterator[str]:
    if isinstance(stated, dict) and isinstance(derived, dict):
        keys = {key for key in stated.keys() | derived.keys() if stated.get(key) != derived.get(key)}
        stated, derived = ({key: value.get(key) for key in sorted(keys)} for value in (stated, derived))
    if stated != derived:
        yield f"{name} is {_shorten(stated)}, but should be {_shorten(derived)}"


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def _check_recipe(release: Release) -> Iterator[str]:
    try:
        recipe = release.recipe_document
    except IntegrityError:
        return  # `check_lineage` reports it
    for name in ("name", "mode", "target"):
        yield from _compare(name, release.info[name], recipe.get(name))
    split = recipe.get("split")
    folds = split.get("folds") if isinstance(split, dict) else None
    yield from _compare("folds", release.info["folds"], folds)
    try:
        digest = file_hash(canonical_json(recipe).encode())
    except (ValueError, TypeError, RecursionError):  # a date, an infinite number
        digest = None
    yield from _compare("recipe_sha256", release.info["recipe_sha256"], digest)


def _check_rows(info: dict[str, Any], counts: _Counts) -> Iterator[str]:
    n_rows = counts.splits.total()
    stated = {name: n for name, n in info["rows"].items() if n or name not in SPLITS}
    yield from _compare("rows", stated, dict(counts.splits))
    yield from _compare("copies", info["copies"], counts.n_copies)
    yield from _compare("originals", info["originals"], n_rows - counts.n_copies)
    yield from _compare("balance.rows", info["balance"]["rows"], n_rows)
    if counts.last_fold >= (info["folds"] or 0):
        yield f"folds is {info['folds']}, but rows are in fold {counts.last_fold}"


def _check_cells(release: Release, counts: _Counts) -> Iterator[str]:
    """Check `balance.cells` and `balance.bins`; images dropped by undersampling can no longer be counted."""
    bins, cells = release.info["balance"]["bins"], release.info["balance"]["cells"]
    names = [cell["cell"] for cell in cells]
    rows = {cell["cell"]: cell["n_after"] for cell in cells if cell["n_after"]}
    derived = {name: cell.n_rows for name, cell in counts.cells.items()}
    if rows != derived or len(set(names)) < len(names):
        yield f"balance.cells has {_shorten(rows)} rows, but should have {_shorten(derived)}"
        return
    exact = not _undersamples(release)
    for cell in cells:
        name = cell["cell"]
        count = counts.cells.get(name, _CellCounts())
        if cell["n_before"] != count.n_images and (exact or cell["n_before"] < count.n_images):
            yield from _compare(f"balance.cells: n_before of {name}", cell["n_before"], count.n_images)
        n_eff = effective_size_of_sums(count.n_rows, count.n_squares)
        yield from _compare(f"balance.cells: n_eff of {name}", cell["n_eff"], n_eff)
    yield from _check_bins(release.info["balance"], bins, cells)


def _undersamples(release: Release) -> bool:
    try:
        balance = release.recipe_document.get("balance")
    except IntegrityError:
        return True
    return isinstance(balance, dict) and balance.get("undersample") is True


def _check_bins(
    balance: dict[str, Any], bins: list[dict[str, Any]], cells: list[dict[str, Any]]
) -> Iterator[str]:
    before, after = Counter[str](), Counter[str]()
    for cell in cells:
        before[cell["bin"]] += cell["n_before"]
        after[cell["bin"]] += cell["n_after"]
    if sorted({row["bin"] for row in bins} | set(before)) != sorted(row["bin"] for row in bins):
        yield "balance.bins must list every bin of balance.cells exactly once"
    for row in bins:
        name = row["bin"]
        yield from _compare(f"balance.bins: n_after of {name}", row["n_after"], after[name])
        available = row["n_before"] + row["n_filled"]
        yield from _compare(f"balance.bins: n_before and n_filled of {name}", available, before[name])
        shortfall = max(0, row["target"] - row["n_after"])
        yield from _compare(f"balance.bins: shortfall of {name}", row["shortfall"], shortfall)
    for name, measure in (("imbalance_ratio", imbalance_ratio), ("entropy", evenness)):
        for when in ("before", "after"):
            value = measure([row[f"n_{when}"] for row in bins])
            yield from _compare(f"balance.{name}.{when}", balance[name][when], value)


def _check_sources(info: dict[str, Any], counts: _Counts) -> Iterator[str]:
    """Check sources and terms; a source whose labels were joined to another source's images has no rows."""
    stated = {entry["source"] for entry in info["manifests"]}
    unknown = sorted(counts.licenses.keys() - stated)
    if unknown and not stated - counts.licenses.keys():
        yield f"manifests lacks the sources {_shorten(unknown)}, which have rows"
    for entry in info["manifests"]:
        licenses = counts.licenses.get(entry["source"], Counter())
        in_rows = not licenses or any(entry["license"] in license_ for license_ in licenses)
        if not in_rows and (entry["redistributable"] or _data_sheet(entry["source"])):
            yield (
                f"manifests states the licence {_shorten(entry['license'])} for {entry['source']}, "
                "but none of its rows has it"
            )
        if entry["redistributable"] and not _is_redistributable(entry, licenses):
            yield f"manifests marks {entry['source']} as redistributable, but its terms forbid it"
    if "terms" in info or info["schema"] != FORMER:
        yield from _compare("terms", info.get("terms"), _terms(info, counts))


def _terms(info: dict[str, Any], counts: _Counts) -> dict[str, Any]:
    entries = info["manifests"]
    redistributable = counts.licenses.keys() <= {entry["source"] for entry in entries}
    for entry in entries:
        redistributable &= _is_redistributable(entry, counts.licenses.get(entry["source"], Counter()))
    images: Counter[str] = sum(counts.licenses.values(), Counter())
    return combine_terms(images, redistributable)


def _is_redistributable(entry: dict[str, Any], licenses: Counter[str]) -> bool:
    """Return whether release.json, the data sheet and the licences all let images be redistributed."""
    sheet = _data_sheet(entry["source"])
    allowed = entry["redistributable"] and (sheet is None or sheet.redistributable)
    return bool(allowed) and not any(map(forbids_redistribution, [entry["license"], *licenses]))


def _data_sheet(source: str) -> Any:
    """Return the data sheet of a collection that has a module in this package; None for any other source."""
    try:
        info = load_plugin("sources", source).INFO
    except (UsageError, AttributeError):
        return None
    return None if info.generic else info
