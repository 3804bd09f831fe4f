"""What release.json states, held against what rows, recipe and the sources' data sheets say.

In: an opened release. Out: findings, and the terms as they follow from the rows. Only columns of a few words
are read, in parts.
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
from affectdata.plan.plan import evenness, imbalance_ratio
from affectdata.records import Finding
from affectdata.registry import load_plugin
from affectdata.release.info import check_cover
from affectdata.release.release import INFO_FILE, Release
from affectdata.release.terms import combine_terms, forbids_passing_on
from affectdata.schema import FOLD
from affectdata.splits.assign import SPLITS
from affectdata.store.by_image import first_rows, whole_images
from affectdata.store.parquet import read_parts

_READ = ("image_id", "source", "license", "split", "copy", "cell")
_NOT_STATED = "not stated"
_LONGEST = 160  # characters of a value in a message


def check_info(release: Release) -> list[Finding]:
    """Name every statement of release.json that does not follow from rows, recipe and data sheets."""
    info, counted = release.info, _count(release)
    texts = [
        *check_cover(info),
        *_against_recipe(release),
        *_against_rows(info, counted),
        *_against_cells(release, counted),
        *_against_sources(info, counted),
    ]
    return [Finding("stated", f"{INFO_FILE}: {text}") for text in texts]


def release_terms(release: Release) -> dict[str, Any]:
    """Return the terms of all images together, from rows and data sheets, not from release.json."""
    return _terms(release.info, _count(release))


@dataclass
class _Cell:
    """Of one cell of train: images, rows, and the sum of the squared rows of each image."""

    n_images: int = 0
    n_rows: int = 0
    n_squares: int = 0


@dataclass
class _Counted:
    """Counts over all rows; `licenses` by source."""

    splits: Counter[str] = field(default_factory=Counter)
    licenses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    cells: dict[str, _Cell] = field(default_factory=lambda: defaultdict(_Cell))
    n_copies: int = 0
    last_fold: int = -1

    def add(self, part: pa.Table) -> None:
        """Take in rows of whole images."""
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
        own = train["cell"].fill_null("").combine_chunks().take(pa.array(first)).dictionary_encode()
        codes = own.indices.to_numpy()
        squares = np.bincount(codes, sizes.astype(float) ** 2).astype(np.int64)
        for name, n, squared in zip(own.dictionary.to_pylist(), np.bincount(codes), squares, strict=True):
            self.cells[name].n_images += int(n)
            self.cells[name].n_squares += int(squared)


def _values(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"] or "": row["counts"] for row in column.value_counts().to_pylist()}


def _count(release: Release) -> _Counted:
    counted = _Counted()
    names = [*_READ, *(name for name in (FOLD.name,) if name in release.rows.column_names)]
    for part in whole_images(read_parts(release.rows, names)):
        counted.add(part)
    return counted


def _differs(what: str, stated: Any, found: Any) -> Iterator[str]:
    if isinstance(stated, dict) and isinstance(found, dict):
        keys = {key for key in stated.keys() | found.keys() if stated.get(key) != found.get(key)}
        stated, found = ({key: each.get(key) for key in sorted(keys)} for each in (stated, found))
    if stated != found:
        yield f"{what} is {_short(stated)}, but it follows that it is {_short(found)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _against_recipe(release: Release) -> Iterator[str]:
    try:
        recipe = release.recipe_document
    except IntegrityError:
        return  # a finding of its own
    for name in ("name", "mode", "target"):
        yield from _differs(name, release.info[name], recipe.get(name))
    split = recipe.get("split")
    folds = split.get("folds") if isinstance(split, dict) else None
    yield from _differs("folds", release.info["folds"], folds)
    try:
        digest = file_hash(canonical_json(recipe).encode())
    except (ValueError, TypeError, RecursionError):  # a date, an infinite number
        digest = None
    yield from _differs("recipe_sha256", release.info["recipe_sha256"], digest)


def _against_rows(info: dict[str, Any], counted: _Counted) -> Iterator[str]:
    n_rows = counted.splits.total()
    stated = {name: n for name, n in info["rows"].items() if n or name not in SPLITS}
    yield from _differs("rows", stated, dict(counted.splits))
    yield from _differs("copies", info["copies"], counted.n_copies)
    yield from _differs("originals", info["originals"], n_rows - counted.n_copies)
    yield from _differs("balance.rows", info["balance"]["rows"], n_rows)
    if counted.last_fold >= (info["folds"] or 0):
        yield f"folds is {info['folds']}, but rows are in fold {counted.last_fold}"


def _against_cells(release: Release, counted: _Counted) -> Iterator[str]:
    """Compare the table of levelling; images that undersampling left out cannot be counted any more."""
    bins, cells = release.info["balance"]["bins"], release.info["balance"]["cells"]
    names = [cell["cell"] for cell in cells]
    rows = {cell["cell"]: cell["n_after"] for cell in cells if cell["n_after"]}
    found = {name: cell.n_rows for name, cell in counted.cells.items()}
    if rows != found or len(set(names)) < len(names):
        yield f"balance.cells has {_short(rows)} rows, but it follows that it is {_short(found)}"
        return
    exact = not _undersamples(release)
    for cell in cells:
        own = counted.cells.get(cell["cell"], _Cell())
        if cell["n_before"] != own.n_images and (exact or cell["n_before"] < own.n_images):
            yield from _differs(f"balance.cells: n_before of {cell['cell']}", cell["n_before"], own.n_images)
        n_eff = round(own.n_rows**2 / own.n_squares, 6) if own.n_squares else 0.0
        yield from _differs(f"balance.cells: n_eff of {cell['cell']}", cell["n_eff"], n_eff)
    yield from _against_bins(release.info["balance"], bins, cells)


def _undersamples(release: Release) -> bool:
    try:
        balance = release.recipe_document.get("balance")
    except IntegrityError:
        return True
    return isinstance(balance, dict) and balance.get("undersample") is True


def _against_bins(
    balance: dict[str, Any], bins: list[dict[str, Any]], cells: list[dict[str, Any]]
) -> Iterator[str]:
    before, after = Counter[str](), Counter[str]()
    for cell in cells:
        before[cell["bin"]] += cell["n_before"]
        after[cell["bin"]] += cell["n_after"]
    if sorted({each["bin"] for each in bins} | set(before)) != sorted(each["bin"] for each in bins):
        yield "balance.bins does not name each bin of balance.cells once"
    for each in bins:
        name = each["bin"]
        yield from _differs(f"balance.bins: n_after of {name}", each["n_after"], after[name])
        have = each["n_before"] + each["n_filled"]
        yield from _differs(f"balance.bins: n_before and n_filled of {name}", have, before[name])
        short = max(0, each["target"] - each["n_after"])
        yield from _differs(f"balance.bins: shortfall of {name}", each["shortfall"], short)
    for name, measure in (("imbalance_ratio", imbalance_ratio), ("entropy", evenness)):
        for when in ("before", "after"):
            value = measure([each[f"n_{when}"] for each in bins])
            yield from _differs(f"balance.{name}.{when}", balance[name][when], value)


def _against_sources(info: dict[str, Any], counted: _Counted) -> Iterator[str]:
    """Compare sources and terms; labels put onto another source's images are of a source without rows."""
    stated = {entry["source"] for entry in info["manifests"]}
    unknown = sorted(counted.licenses.keys() - stated)
    if unknown and not stated - counted.licenses.keys():
        yield f"manifests does not name the sources {_short(unknown)}, which have rows"
    for entry in info["manifests"]:
        here = counted.licenses.get(entry["source"], Counter())
        carried = not here or any(entry["license"] in license_ for license_ in here)
        if not carried and (entry["redistributable"] or _sheet(entry["source"])):
            what = f"{entry['source']} ({_short(entry['license'])})"
            yield f"manifests states a licence of {what} that none of its rows carries"
        if entry["redistributable"] and not _may_pass_on(entry, here):
            yield f"manifests lets the images of {entry['source']} be passed on, which its terms do not"
    if info.get("terms") is not None:
        yield from _differs("terms", info["terms"], _terms(info, counted))


def _terms(info: dict[str, Any], counted: _Counted) -> dict[str, Any]:
    entries = info["manifests"]
    may = counted.licenses.keys() <= {entry["source"] for entry in entries}
    for entry in entries:
        may &= _may_pass_on(entry, counted.licenses.get(entry["source"], Counter()))
    images: Counter[str] = sum(counted.licenses.values(), Counter())
    return combine_terms(images, may)


def _may_pass_on(entry: dict[str, Any], licenses: Counter[str]) -> bool:
    """Say whether a source's images may be passed on: no more than its data sheet and its licences allow."""
    sheet = _sheet(entry["source"])
    allowed = entry["redistributable"] and (sheet is None or sheet.redistributable)
    return bool(allowed) and not any(map(forbids_passing_on, [entry["license"], *licenses]))


def _sheet(source: str) -> Any:
    """Return the data sheet of a collection that this package knows; None for any other source."""
    try:
        info = load_plugin("sources", source).INFO
    except (UsageError, AttributeError):
        return None
    return None if info.generic else info
