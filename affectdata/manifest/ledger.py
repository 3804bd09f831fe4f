"""The ledger: every image that ever had a split, so that a removed image keeps its split.

`<name>.ledger.parquet` (`schema.LEDGER`) is stored beside a manifest. Code that writes splits into a manifest
writes the ledger first. An image without a split inherits that of its image_id, else that of an image in the
same component: same pixels, near-duplicates, group, subject, or an equal value of a declared column.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import AffectdataError, IntegrityError, ManifestError
from affectdata.images.duplicates import find_components
from affectdata.manifest.manifest import KIND as MANIFEST
from affectdata.manifest.manifest import Manifest, load_manifest, write_manifest
from affectdata.records import Finding, count_text, shorten
from affectdata.schema import DIGITS, FOLD, LEDGER
from affectdata.splits.assign import SPLITS
from affectdata.splits.folds import put_folds
from affectdata.store.chunks import are_digits, as_one_array
from affectdata.store.parquet import open_table, read_parts, read_table, write_table
from affectdata.store.spill import Spill

KIND = "ledger"
HELD_OUT = ("val", "test")
_TRAIN, _FREE, _NO_FOLD = 0, -1, np.iinfo(np.int32).max
_SHOWN = 3  # paths listed in a finding
_ROWS = pa.schema([field.with_nullable(True) for field in LEDGER])  # for images without a split too
_LINKS = (
    "image_id",
    "pixel_id",
    "phash",
    "phash_views",
    "source",
    "subject_id",
    "group_id",
    "split",
    FOLD.name,
)


def ledger_path(manifest: Path) -> Path:
    """Return the path of the ledger of a manifest."""
    return manifest.with_suffix(".ledger.parquet")


def read_ledger(manifest: Path) -> pa.Table:
    """Return the ledger of a manifest path, empty if there is none; the manifest itself need not exist.

    Raises:
        ManifestError: the ledger cannot be read.
        IntegrityError: its rows are not those that were written.
    """
    path = ledger_path(manifest)
    if not os.path.lexists(path):  # a link that leads nowhere is a ledger that cannot be read
        return LEDGER.empty_table()
    try:
        return read_ledger_file(path)
    except (ManifestError, IntegrityError) as error:
        fix = f"restore it, or discard its splits with `affectdata split {manifest} --forget`"
        raise type(error)(error.what, where=str(path), fix=fix) from error


def read_ledger_file(path: Path) -> pa.Table:
    """Return the rows of a ledger; the columns of `schema.LEDGER` come first, those of groups may follow.

    Raises:
        ManifestError: the ledger cannot be read.
        IntegrityError: its rows are not those that were written.
    """
    table = read_table(path, KIND)[0]
    columns = list(table.schema)
    is_ledger = pa.schema(columns[: len(LEDGER)]).equals(LEDGER)
    if not is_ledger or any(column.type != pa.string() for column in columns[len(LEDGER) :]):
        raise ManifestError("its columns are not those of a ledger", where=str(path))
    if strange := _strange_columns(table):
        raise ManifestError(f"it has invalid values in {', '.join(strange)}", where=str(path))
    return table


def _strange_columns(table: pa.Table) -> list[str]:
    """Name the columns with an invalid hash or split."""
    strange = [name for name, n in DIGITS.items() if not are_digits(table[name], n).all()]
    return strange if (_codes(table) != _FREE).all() else [*strange, "split"]


def write_ledger(tables: Sequence[pa.Table], manifest: Path) -> None:
    """Write the merged splits of several tables (`merge_splits`) as the ledger of a manifest, if any."""
    table = merge_splits(tables).select(LEDGER.names)
    if len(table):
        write_table(table, ledger_path(manifest), KIND)


def splits_of(table: pa.Table, columns: Iterable[str] = ()) -> pa.Table:
    """Return the rows of a manifest or release that have a split, as ledger rows.

    Those of `columns` that the table has, and a ledger has not, are added as strings.
    """
    if table["split"].null_count:  # else all rows would be copied
        table = table.filter(pc.is_valid(table["split"]))
    if "copy" in table.column_names:
        table = table.filter(pc.equal(table["copy"], 0))
    more = sorted({*columns} & {*table.column_names} - {*LEDGER.names})
    return _with_columns(table, pa.schema([*LEDGER, *(pa.field(name, pa.string()) for name in more)]))


def merge_splits(tables: Sequence[pa.Table]) -> pa.Table:
    """Merge ledgers, a row per image: the first one, but test wins over val, and val over train."""
    table = pa.concat_tables([LEDGER.empty_table(), *tables], promote_options="default")
    strictness = -_codes(table)
    without_fold = pc.is_null(table[FOLD.name]).to_numpy()
    rank = pc.rank(table["image_id"], tiebreaker="dense").to_numpy()
    order = np.lexsort((without_fold, strictness, rank))
    first = np.unique(rank[order], return_index=True)[1]
    return table.take(pa.array(order[first])).combine_chunks()


def read_own_splits(manifest: Path, findings: list[Finding]) -> pa.Table:
    """Return the splits in the manifest at a path and in its ledger.

    Raises:
        ManifestError, IntegrityError: the ledger cannot be read.
    """
    ledger = read_ledger(manifest)
    try:
        rows = open_table(manifest, MANIFEST) if manifest.is_file() else LEDGER.empty_table()
    except AffectdataError as error:
        findings.append(Finding("replaced", f"{manifest} could not be read and was replaced: {error.what}"))
        return ledger
    names = [name for name in LEDGER.names if name in rows.column_names]
    return merge_splits([*(splits_of(part) for part in read_parts(rows, names)), ledger])


def forget_splits(manifest: Path) -> tuple[int, str | None]:
    """Remove all splits and folds from a manifest and its ledger; return the number of images and the digest.

    Either file may be missing, and the ledger need not be readable.

    Raises:
        ManifestError: neither exists, or the file is not a manifest.
        IntegrityError: the rows of the manifest are not those that were written.
    """
    path, removed, digest = ledger_path(manifest), [], None
    with suppress(AffectdataError):
        removed.append(read_ledger(manifest))
    if manifest.exists() or not os.path.lexists(path):
        loaded = load_manifest(manifest)
        removed.append(splits_of(loaded.table))
        table = _set_split(loaded.table, pa.nulls(len(loaded), pa.string()))
        table = table.select([name for name in table.column_names if name != FOLD.name])
        digest = write_manifest(table, loaded.metadata, manifest).digest
    path.unlink(missing_ok=True)
    return len(merge_splits(removed)), digest


@dataclass(frozen=True)
class Memory:
    """Earlier splits of images (`schema.LEDGER`); `declared` columns group images within a source."""

    rows: pa.Table
    declared: frozenset[str] = frozenset()

    def merge(self, other: Memory) -> Memory:
        """Return both; of an image that both remember, the stricter split."""
        return Memory(merge_splits([self.rows, other.rows]), self.declared | other.declared)

    def held_out_beyond(self, table: pa.Table) -> pa.Table:
        """Return the rows in val or test whose image is not in a table, or has another split there."""
        return _beyond(self.rows.filter(is_held_out(self.rows)), table)


NO_MEMORY = Memory(LEDGER.empty_table())


def read_memory(
    manifests: Iterable[Manifest], earlier: pa.Table | None = None, columns: Iterable[str] = ()
) -> Memory:
    """Return the splits that are in ledgers but not in the manifests, and those of an `earlier` release.

    `columns` are those of groups, as far as the release has them.
    """
    tables = [] if earlier is None else [splits_of(earlier, columns)]
    declared: set[str] = set()
    for manifest in manifests:
        declared.update(manifest.metadata.get("groups", ()))
        ledger = read_ledger(manifest.path)
        if len(ledger):
            tables.append(_beyond(ledger, manifest.rows.select(["image_id", "split"])))
    return Memory(merge_splits(tables), frozenset(declared))


def find_left_out(manifests: Iterable[Manifest], rows: pa.Table, columns: Iterable[str] = ()) -> Memory:
    """Return the images that are val or test in a manifest and not in `rows`, which were chosen from it."""
    tables = []
    for manifest in manifests:
        keys = manifest.rows.select(["image_id", "split"])
        left_out = pc.and_(is_held_out(keys), _is_beyond(keys, rows))
        if pc.any(left_out).as_py():
            names = [name for name in manifest.rows.column_names if name in {*LEDGER.names, *columns}]
            tables.append(splits_of(manifest.rows.select(names).filter(left_out), columns))
    return Memory(merge_splits(tables))


def is_held_out(table: pa.Table) -> pa.ChunkedArray:
    """Return whether each row is in val or test."""
    return pc.is_in(table["split"], pa.array(HELD_OUT))


def _beyond(ledger: pa.Table, table: pa.Table) -> pa.Table:
    """Return the ledger rows whose image is not in the table, or has another split there or none."""
    return ledger.filter(_is_beyond(ledger, table))


def _is_beyond(ledger: pa.Table, table: pa.Table) -> pa.ChunkedArray:
    index = pc.index_in(ledger["image_id"], as_one_array(table["image_id"]))
    return pc.invert(pc.fill_null(pc.equal(ledger["split"], table["split"].take(index)), False))


def copy_splits(table: pa.Table, splits: pa.Table, *, replace: bool = False) -> pa.Table:
    """Fill empty splits from `splits` by `image_id`; with `replace`, overwrite existing ones too.

    Train rows get the fold as well.
    """
    index = pc.index_in(table["image_id"], as_one_array(splits["image_id"]))
    earlier = splits["split"].take(index)
    split = pc.coalesce(earlier, table["split"]) if replace else pc.coalesce(table["split"], earlier)
    fold = splits[FOLD.name].take(index)
    if FOLD.name in table.column_names:
        fold = pc.coalesce(table[FOLD.name], fold)
    elif splits[FOLD.name].null_count == len(splits):
        return _set_split(table, split)
    table = _set_split(table, split)
    return put_folds(table, pc.if_else(is_held_out(table), pa.scalar(None, FOLD.type), fold))


def inherit_splits(
    table: pa.Table, memory: Memory, columns: Iterable[str] = (), replace: bool = False
) -> pa.Table:
    """Give rows without a split that of their image, else that of the images in their component.

    These are in `memory` or in `table`; of several splits, test wins over val, and val over train. Equal
    values of `columns` connect images across sources. With `replace`, the remembered split of an image
    overwrites the one in its row.
    """
    return RelatedImages(copy_splits(table, memory.rows, replace=replace), memory, columns).inherit()


def inherit_and_record_splits(
    rows: Iterable[pa.Table],
    schema: pa.Schema,
    own: pa.Table,
    memory: Memory,
    manifest: Path,
    findings: list[Finding],
) -> tuple[Iterator[pa.Table], bool]:
    """Return the rows of a new manifest with inherited splits, and whether any has a fold; write its ledger.

    `own` are the splits of the existing manifest at this path, `memory` those that may be inherited. Memory
    holds the columns of the ledger; the other columns are spilled to disk.
    """
    spill, parts = Spill(schema), [_ROWS.empty_table()]
    for part in rows:
        parts.append(_with_columns(part, _ROWS))
        spill.append(part)
    before = pa.concat_tables(parts)
    after = inherit_splits(before, memory, replace=True)
    write_ledger([splits_of(after), own], manifest)
    findings += _find_changes(before, after, own, memory, manifest)
    has_folds = bool(pc.any(after[FOLD.name].is_valid()).as_py())
    kept = after.select(["split", FOLD.name] if has_folds else ["split"])
    return put_columns(spill.read(), kept), has_folds


def put_columns(parts: Iterable[pa.Table], columns: pa.Table) -> Iterator[pa.Table]:
    """Put columns into rows that are given in parts, in the order of these rows; only `fold` may be new."""
    start = 0
    for part in parts:
        own = columns.slice(start, len(part))
        start += len(part)
        for field in own.schema:
            if field.name == FOLD.name:
                part = put_folds(part, own[FOLD.name])
            else:
                part = part.set_column(part.column_names.index(field.name), field, own[field.name])
        yield part


def _find_changes(
    before: pa.Table, after: pa.Table, own: pa.Table, memory: Memory, manifest: Path
) -> Iterator[Finding]:
    """Report the splits that rows kept, inherited or lost, and the images that are no longer rows."""
    index = pc.index_in(before["image_id"], as_one_array(memory.rows["image_id"]))
    free, known = pc.is_null(before["split"]), pc.is_valid(index)
    if n_kept := pc.sum(pc.and_(free, known)).as_py():
        paths = before.filter(pc.and_(free, known))["path"].slice(0, _SHOWN).to_pylist()
        yield _finding(
            f"{count_text(n_kept, 'image', 'keep')} the former split of {manifest}: {shorten(paths, n_kept)}"
        )
    inherited = pc.and_(pc.and_not(free, known), pc.is_valid(after["split"]))
    if n_inherited := pc.sum(inherited).as_py():
        paths = after.filter(inherited)["path"].slice(0, _SHOWN).to_pylist()
        text = f"{count_text(n_inherited, 'image', 'inherit')} the split of a near-duplicate or of the group"
        yield _finding(f"{text}: {shorten(paths, n_inherited)}")
    differs = pc.fill_null(pc.not_equal(before["split"], memory.rows["split"].take(index)), False)
    if n_differing := pc.sum(differs).as_py():
        shipped, kept = (table.filter(differs).slice(0, _SHOWN).to_pylist() for table in (before, after))
        pairs = [
            f"{a['path']} ({a['split']} in the source, {b['split']} kept)"
            for a, b in zip(shipped, kept, strict=True)
        ]
        images = count_text(n_differing, "image", "have")
        text = f"{images} another split in the source than before; the earlier one is kept"
        fix = f"`affectdata split {manifest} --forget` discards the earlier splits"
        yield _finding(f"{text}: {shorten(pairs, n_differing)}; {fix}")
    gone = pc.invert(pc.is_in(own["image_id"], as_one_array(before["image_id"])))
    if n_retired := pc.sum(gone).as_py():
        text = f"no longer in the manifest: {count_text(n_retired, 'image')}, with the split recorded"
        paths = own.filter(gone)["path"].slice(0, _SHOWN).to_pylist()
        yield _finding(f"{text} in {ledger_path(manifest)}: {shorten(paths, n_retired)}")


def _finding(text: str) -> Finding:
    return Finding("splits", text)


class RelatedImages:
    """The rows of a table, and what is remembered beyond them, with their components.

    `beyond` are remembered images that are not rows, or whose row has another split than is remembered.
    """

    def __init__(self, table: pa.Table, memory: Memory, columns: Iterable[str] = ()) -> None:
        self.table, self._memory, self._columns = table, memory, columns
        self.beyond = _beyond(memory.rows, table)

    @cached_property
    def _component(self) -> np.ndarray:
        return components_of([self.table, self.beyond], self._columns, self._memory.declared)

    @cached_property
    def _split(self) -> np.ndarray:
        return np.concatenate([_codes(self.table), _codes(self.beyond)])

    def inherit(self) -> pa.Table:
        """Return the table with a split for each row whose component has one."""
        if not self.table["split"].null_count:
            return self.table
        n, component = len(self.table), self._component
        best = np.full(component.max(initial=-1) + 1, _FREE)
        np.maximum.at(best, component, self._split)
        free = self._split[:n] == _FREE
        code = np.where(free, best[component[:n]], self._split[:n])
        split = pa.array(SPLITS).take(pa.array(code, mask=code == _FREE))
        table = _set_split(self.table, split)
        if FOLD.name not in table.column_names:
            return table
        folds = [part[FOLD.name].fill_null(int(_NO_FOLD)).to_numpy() for part in (self.table, self.beyond)]
        lowest = np.full(len(best), _NO_FOLD)
        np.minimum.at(lowest, component, np.concatenate(folds))
        fold = np.where(free & (code == _TRAIN), lowest[component[:n]], folds[0])
        return put_folds(table, pa.array(fold, FOLD.type, mask=fold == _NO_FOLD))

    def find_conflicts(self) -> tuple[np.ndarray, str]:
        """Return which train rows are related to an image remembered in val or test, and one such pair."""
        n = len(self.table)
        held_out = np.flatnonzero(self._split[n:] > _TRAIN)
        in_conflict = np.zeros(n, bool)
        if len(held_out):
            in_conflict = np.isin(self._component[:n], self._component[n + held_out]) & (
                self._split[:n] == _TRAIN
            )
        if not in_conflict.any():
            return in_conflict, ""
        row = int(np.flatnonzero(in_conflict)[0])
        partner = held_out[self._component[n + held_out] == self._component[row]][:1]
        pair = (self.table.slice(row, 1), self.beyond.take(pa.array(partner)))
        return in_conflict, ", ".join(
            f"{t['image_id'][0].as_py()[:16]} in {t['split'][0].as_py()}" for t in pair
        )


def components_of(
    tables: Sequence[pa.Table], columns: Iterable[str] = (), declared: Collection[str] = ()
) -> np.ndarray:
    """Return a number for each row of the concatenated tables, equal for rows that must stay together."""
    extra = {*columns, *declared} - set(_LINKS)
    fields = [LEDGER.field(name).with_nullable(True) for name in _LINKS]
    schema = pa.schema([*fields, *(pa.field(name, pa.string()) for name in sorted(extra))])
    return find_components(
        pa.concat_tables([_with_columns(table, schema) for table in tables]), columns, declared
    )


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return these columns of a table; missing ones are null."""
    existing = set(table.column_names)
    columns = [
        table[field.name].cast(field.type) if field.name in existing else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _set_split(table: pa.Table, split: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index("split"), "split", split)


def _codes(table: pa.Table) -> np.ndarray:
    """Return the index of each row's split in `SPLITS`, stricter ones last; -1 for none."""
    return np.asarray(pc.fill_null(pc.index_in(table["split"], pa.array(SPLITS)), _FREE).to_numpy(), np.int64)
