"""The ledger: every image that ever had a split, so that none is forgotten while the image is away.

`<name>.ledger.parquet` (`schema.LEDGER`) lies beside a manifest. Whatever writes splits into a manifest
writes the ledger first. An image without a split gets that of its image_id, else that of an image which it
must stay together with: the same pixels, look-alikes, group, subject, or an equal value of a declared column.
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
from affectdata.records import Finding
from affectdata.schema import DIGITS, FOLD, LEDGER
from affectdata.splits.assign import SPLITS
from affectdata.splits.folds import put_folds
from affectdata.store.parquet import (
    are_digits,
    in_one_piece,
    open_table,
    read_parts,
    read_table,
    write_table,
)
from affectdata.store.spill import Spill

KIND = "ledger"
HELD = ("val", "test")
_TRAIN, _FREE, _NO_FOLD = 0, -1, np.iinfo(np.int32).max
_SHOWN = 3  # paths named in a finding
_ROWS = pa.schema([field.with_nullable(True) for field in LEDGER])  # also of images without a split
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
    """Return where the ledger of a manifest lies."""
    return manifest.with_suffix(".ledger.parquet")


def read_ledger(manifest: Path) -> pa.Table:
    """Return the ledger beside a manifest, which need not be there itself; empty if there is none.

    Raises:
        ManifestError: it cannot be read.
        IntegrityError: its rows are not those that were written.
    """
    path = ledger_path(manifest)
    if not os.path.lexists(path):  # a link that leads nowhere is a ledger that cannot be read
        return LEDGER.empty_table()
    try:
        table = read_table(path, KIND)[0]
        if not table.schema.equals(LEDGER):
            raise ManifestError("its columns are not those of a ledger", where=str(path))
        if strange := _strange_columns(table):
            raise ManifestError(
                f"it holds values that no ledger has in {', '.join(strange)}", where=str(path)
            )
    except (ManifestError, IntegrityError) as error:
        fix = f"restore it, or `affectdata split {manifest} --forget` gives up the splits that it remembers"
        raise type(error)(error.what, where=str(path), fix=fix) from error
    return table


def _strange_columns(table: pa.Table) -> list[str]:
    """Name the columns with a hash or a split that is none."""
    strange = [name for name, n in DIGITS.items() if not are_digits(table[name], n).all()]
    return strange if (_codes(table) != _FREE).all() else [*strange, "split"]


def write_ledger(tables: Sequence[pa.Table], manifest: Path) -> None:
    """Write the splits of several tables as the ledger of a manifest (`merge_splits`), if there are any."""
    table = merge_splits(tables)
    if len(table):
        write_table(table, ledger_path(manifest), KIND)


def splits_of(table: pa.Table) -> pa.Table:
    """Return the rows of a manifest or release that have a split, as those of a ledger."""
    table = table.filter(pc.is_valid(table["split"]))
    if "copy" in table.column_names:
        table = table.filter(pc.equal(table["copy"], 0))
    return _with_columns(table, LEDGER)


def merge_splits(tables: Sequence[pa.Table]) -> pa.Table:
    """Return one ledger of several, a row per image: the first, but test beats val, and val beats train."""
    table = pa.concat_tables([LEDGER.empty_table(), *(each.select(LEDGER.names) for each in tables)])
    strictness = -_codes(table)
    without_fold = pc.is_null(table[FOLD.name]).to_numpy()
    rank = pc.rank(table["image_id"], tiebreaker="dense").to_numpy()
    order = np.lexsort((without_fold, strictness, rank))
    first = np.unique(rank[order], return_index=True)[1]
    return table.take(pa.array(order[first])).combine_chunks()


def recall_own(manifest: Path, findings: list[Finding]) -> pa.Table:
    """Return every split that an image had in the manifest at a path: its ledger's, and its rows'.

    Raises:
        ManifestError, IntegrityError: there is a ledger, which cannot be read.
    """
    ledger = read_ledger(manifest)
    try:
        rows = open_table(manifest, MANIFEST) if manifest.is_file() else LEDGER.empty_table()
    except AffectdataError as error:
        findings.append(Finding("replaced", f"{manifest} could not be read and is replaced: {error.what}"))
        return ledger
    names = [name for name in LEDGER.names if name in rows.column_names]
    return merge_splits([*(splits_of(part) for part in read_parts(rows, names)), ledger])


def forget_splits(manifest: Path) -> tuple[int, str | None]:
    """Remove every split from a manifest and its ledger; return how many images had one, and the digest.

    Folds go too. Either may be missing, and the ledger need not be readable.

    Raises:
        ManifestError: neither is there, or the manifest is none.
        IntegrityError: the rows of the manifest are not those that were written.
    """
    path, found, digest = ledger_path(manifest), [], None
    with suppress(AffectdataError):
        found.append(read_ledger(manifest))
    if manifest.exists() or not os.path.lexists(path):
        loaded = load_manifest(manifest)
        found.append(splits_of(loaded.table))
        table = _set_split(loaded.table, pa.nulls(len(loaded), pa.string()))
        table = table.select([name for name in table.column_names if name != FOLD.name])
        digest = write_manifest(table, loaded.metadata, manifest).digest
    path.unlink(missing_ok=True)
    return len(merge_splits(found)), digest


@dataclass(frozen=True)
class Memory:
    """Splits that images had (`schema.LEDGER`); `declared` are columns that group images within a source."""

    rows: pa.Table
    declared: frozenset[str] = frozenset()


NOTHING = Memory(LEDGER.empty_table())


def recall(manifests: Iterable[Manifest], earlier: pa.Table | None = None) -> Memory:
    """Return what ledgers know that the manifests do not say, and the splits of an `earlier` release."""
    tables = [] if earlier is None else [splits_of(earlier)]
    declared: set[str] = set()
    for manifest in manifests:
        declared.update(manifest.metadata.get("groups", ()))
        ledger = read_ledger(manifest.path)
        if len(ledger):
            rows = manifest.rows.select(["image_id", "split"])
            at = pc.index_in(ledger["image_id"], in_one_piece(rows["image_id"]))
            same = pc.equal(ledger["split"], rows["split"].take(at))
            tables.append(ledger.filter(pc.invert(pc.fill_null(same, False))))
    return Memory(merge_splits(tables), frozenset(declared))


def take_over(table: pa.Table, splits: pa.Table, *, replace: bool = False) -> pa.Table:
    """Give rows without a split, or all with `replace`, that which `splits` has for their `image_id`.

    The fold comes along with train.
    """
    at = pc.index_in(table["image_id"], in_one_piece(splits["image_id"]))
    found = splits["split"].take(at)
    split = pc.coalesce(found, table["split"]) if replace else pc.coalesce(table["split"], found)
    fold = splits[FOLD.name].take(at)
    if FOLD.name in table.column_names:
        fold = pc.coalesce(table[FOLD.name], fold)
    elif splits[FOLD.name].null_count == len(splits):
        return _set_split(table, split)
    held = pc.is_in(split, pa.array(HELD))
    return put_folds(_set_split(table, split), pc.if_else(held, pa.scalar(None, FOLD.type), fold))


def inherit_splits(
    table: pa.Table, memory: Memory, columns: Iterable[str] = (), replace: bool = False
) -> pa.Table:
    """Give rows without a split that of their image, else that of the images they must stay together with.

    These are in `memory`, or rows of `table`; where they have several, test beats val beats train. `columns`
    hold images together whatever their source. With `replace` the remembered split of an image also beats
    the one that its row has.
    """
    return Kin(take_over(table, memory.rows, replace=replace), memory, columns).inherit()


def keep_splits(
    rows: Iterable[pa.Table],
    schema: pa.Schema,
    own: pa.Table,
    memory: Memory,
    manifest: Path,
    findings: list[Finding],
) -> tuple[Iterator[pa.Table], bool]:
    """Return the rows of a new manifest with the splits that they inherit, and whether any has a fold.

    `own` are the splits that the manifest at this path had, `memory` those that may be inherited. Its ledger
    is written here, before it has a row. Memory holds the columns of the ledger; the rest waits on disk.
    """
    spill, parts = Spill(schema), [_ROWS.empty_table()]
    for part in rows:
        parts.append(_with_columns(part, _ROWS))
        spill.append(part)
    before = pa.concat_tables(parts)
    after = inherit_splits(before, memory, replace=True)
    write_ledger([splits_of(after), own], manifest)
    findings += _describe(before, after, own, memory, manifest)
    kept = after.select(["image_id", "split", FOLD.name])
    return (take_over(part, kept, replace=True) for part in spill.read()), bool(
        pc.any(kept[FOLD.name].is_valid()).as_py()
    )


def _describe(
    before: pa.Table, after: pa.Table, own: pa.Table, memory: Memory, manifest: Path
) -> Iterator[Finding]:
    """Say which splits rows of a manifest kept, inherited or lost, and which images are no rows now."""
    at = pc.index_in(before["image_id"], in_one_piece(memory.rows["image_id"]))
    free, known = pc.is_null(before["split"]), pc.is_valid(at)
    if n_kept := pc.sum(pc.and_(free, known)).as_py():
        yield _finding(f"{n_kept} images keep the split that they had in {manifest}")
    inherited = pc.and_(pc.and_not(free, known), pc.is_valid(after["split"]))
    if n_inherited := pc.sum(inherited).as_py():
        paths = ", ".join(after.filter(inherited)["path"].slice(0, _SHOWN).to_pylist())
        text = "images get the split of one that looks the same or is of the same group"
        yield _finding(f"{n_inherited} {text}: {paths}")
    other = pc.fill_null(pc.not_equal(before["split"], memory.rows["split"].take(at)), False)
    if n_other := pc.sum(other).as_py():
        was, now = (each.filter(other)["split"][0].as_py() for each in (before, after))
        path = before.filter(other)["path"][0].as_py()
        text = f"{n_other} images have another split in the source than they had before, which stays"
        fix = f"`affectdata split {manifest} --forget` gives up what is remembered"
        yield _finding(f"{text}: {path} ({was} there, stays {now}); {fix}")
    gone = pc.invert(pc.is_in(own["image_id"], in_one_piece(before["image_id"])))
    if n_retired := pc.sum(gone).as_py():
        text = "images that had a split are no rows now; their splits are remembered"
        yield _finding(f"{n_retired} {text} in {ledger_path(manifest)}")


def _finding(text: str) -> Finding:
    return Finding("splits", text)


class Kin:
    """The rows of a table, and what is remembered beyond them, by what must stay together.

    `beyond` are remembered images that are no rows, or that have another split as a row than is remembered.
    """

    def __init__(self, table: pa.Table, memory: Memory, columns: Iterable[str] = ()) -> None:
        self.table, self._memory, self._columns = table, memory, columns
        at = pc.index_in(memory.rows["image_id"], in_one_piece(table["image_id"]))
        same = pc.equal(memory.rows["split"], table["split"].take(at))
        self.beyond = memory.rows.filter(pc.invert(pc.fill_null(same, False)))

    @cached_property
    def _component(self) -> np.ndarray:
        return components_of([self.table, self.beyond], self._columns, self._memory.declared)

    @cached_property
    def _split(self) -> np.ndarray:
        return np.concatenate([_codes(self.table), _codes(self.beyond)])

    def inherit(self) -> pa.Table:
        """Return the table with a split for each row without one that hangs together with one that has."""
        if not self.table["split"].null_count:
            return self.table
        n, component = len(self.table), self._component
        best = np.full(component.max(initial=-1) + 1, _FREE)
        np.maximum.at(best, component, self._split)
        free = self._split[:n] == _FREE
        found = np.where(free, best[component[:n]], self._split[:n])
        split = pa.array(SPLITS).take(pa.array(found, mask=found == _FREE))
        table = _set_split(self.table, split)
        if FOLD.name not in table.column_names:
            return table
        folds = [each[FOLD.name].fill_null(int(_NO_FOLD)).to_numpy() for each in (self.table, self.beyond)]
        lowest = np.full(len(best), _NO_FOLD)
        np.minimum.at(lowest, component, np.concatenate(folds))
        fold = np.where(free & (found == _TRAIN), lowest[component[:n]], folds[0])
        return put_folds(table, pa.array(fold, FOLD.type, mask=fold == _NO_FOLD))

    def find_torn(self) -> tuple[np.ndarray, str]:
        """Return which rows of train are remembered in val or test, or their kin; and one such pair."""
        n = len(self.table)
        held = np.flatnonzero(self._split[n:] > _TRAIN)
        torn = np.zeros(n, bool)
        if len(held):
            torn = np.isin(self._component[:n], self._component[n + held]) & (self._split[:n] == _TRAIN)
        if not torn.any():
            return torn, ""
        row = int(np.flatnonzero(torn)[0])
        other = held[self._component[n + held] == self._component[row]][:1]
        pair = (self.table.slice(row, 1), self.beyond.take(pa.array(other)))
        return torn, ", ".join(f"{t['image_id'][0].as_py()[:16]} in {t['split'][0].as_py()}" for t in pair)


def components_of(
    tables: Sequence[pa.Table], columns: Iterable[str] = (), declared: Collection[str] = ()
) -> np.ndarray:
    """Return a number for each row of several tables, one after the other; equal where they stay together."""
    asked = {*columns, *declared} - set(_LINKS)
    fields = [LEDGER.field(name).with_nullable(True) for name in _LINKS]
    schema = pa.schema([*fields, *(pa.field(name, pa.string()) for name in sorted(asked))])
    return find_components(
        pa.concat_tables([_with_columns(each, schema) for each in tables]), columns, declared
    )


def _with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return these columns of a table; those that it has not are null."""
    there = set(table.column_names)
    columns = [
        table[field.name].cast(field.type) if field.name in there else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _set_split(table: pa.Table, split: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index("split"), "split", split)


def _codes(table: pa.Table) -> np.ndarray:
    """Return the place of each row's split in `SPLITS`, the stricter the later; -1 for none."""
    return np.asarray(pc.fill_null(pc.index_in(table["split"], pa.array(SPLITS)), _FREE).to_numpy(), np.int64)
