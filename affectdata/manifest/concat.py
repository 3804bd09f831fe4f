"""Concatenate manifests: one row per image, near-duplicates across sources in one group, splits kept.

Rows with the same bytes are merged; `merge` has the policies for different labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import ManifestError, UsageError
from affectdata.images.duplicates import KINDS, assign_groups, codes_of, find_edges_of_sorted
from affectdata.images.hamming import MAX_BITS
from affectdata.manifest.findings import find_far_apart
from affectdata.manifest.ledger import (
    Memory,
    inherit_splits,
    merge_splits,
    put_columns,
    read_ledger,
    read_own_splits,
    splits_of,
    write_ledger,
)
from affectdata.manifest.manifest import KIND, Manifest, check_name, load_manifest
from affectdata.manifest.merge import FROM, Conflict, describe_conflict, merge_rows
from affectdata.manifest.roots import read_local, record_root
from affectdata.manifest.several import read_columns, read_rows
from affectdata.records import RATINGS, Finding, count_text
from affectdata.schema import FOLD, LEDGER, manifest_schema, vote_columns
from affectdata.store.by_image import iter_complete_images
from affectdata.store.chunks import STREAM_ROWS, as_one_array, rechunk
from affectdata.store.parquet import Rows, read_parts, write_batches, write_table
from affectdata.store.spill import Spill, iter_by_rank, with_ranks
from affectdata.workers import THREADS, default_workers

POLICIES = ("error", "first", "mean", "prefer:NAME")
_SHOWN = 10  # conflicts listed in an error
_PLACED = ("group_id", "split", FOLD.name)  # columns that are made for all rows together


@dataclass(frozen=True, slots=True)
class ConcatResult:
    """The manifest, counts of input and merged rows, edges across sources, conflicts, findings."""

    manifest: Manifest
    n_rows: int
    n_merged: int
    n_across: dict[str, int]
    conflicts: list[Conflict]
    findings: list[Finding]


def concat(
    manifests: Sequence[Manifest],
    name: str | None,
    out: Path,
    on_conflict: str = "error",
    workers: int | None = None,
    engine: str = THREADS,
) -> ConcatResult:
    """Write the rows of several manifests as one, `name`.parquet under `out`, and its edges.

    Splits that an image had in one of them, or in an existing manifest of that name, are kept.

    Raises:
        UsageError: fewer than two manifests, an unknown policy, a source with two folders, or a name in use.
        ManifestError: there are conflicts, and the policy is `error`.
        IntegrityError: an image has two splits.
    """
    _check(manifests, on_conflict)
    name = name or "_".join(manifest.name for manifest in manifests)
    check_name(name)
    path = out / f"{name}.parquet"
    _check_earlier(path)
    roots = _roots(manifests)
    emotions = sorted({emotion for manifest in manifests for emotion in manifest.metadata["emotions"]})
    names = {name for manifest in manifests for name in manifest.rows.column_names}
    schema = manifest_schema(emotions, FOLD.name in names, vote_columns(names))
    places = _Places.of(read_columns(manifests, ["image_id"])["image_id"])
    rows, conflicts = _merge(manifests, schema, places, emotions, on_conflict)
    if conflicts and on_conflict == "error":
        raise _conflict_error(conflicts)
    order = np.concatenate([places.alone, places.merged])
    edges = find_edges_of_sorted(rows, order, workers or default_workers(engine), engine)
    groups = _regroup(manifests, edges)
    kept, ledger, inherited = _with_splits(rows, groups, order, path, manifests)
    schema = manifest_schema(emotions, FOLD.name in kept.column_names, vote_columns(names))
    write_ledger([ledger], path)
    write_table(edges, path.with_suffix(".edges.parquet"), "edges", {"max_bits": MAX_BITS})
    parts = (part.select(schema.names) for part in put_columns(rows.read(), kept))
    write_batches(parts, schema, path, KIND, _metadata(manifests, emotions))
    manifest = load_manifest(path)
    for source, root in roots.items():
        record_root(out, source, root)
    rated = read_parts(manifest.rows, ["image_id", "path", *RATINGS])
    findings = [*inherited, *find_far_apart(rated, edges), *_find_split_groups(manifest.rows)]
    findings += _find_differences(manifests)
    n_rows, across = len(places.image), _count_across(manifest.rows, edges)
    return ConcatResult(manifest, n_rows, n_rows - len(rows), across, conflicts, findings)


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the rows of all manifests go: the image of each row, by the rank of its image_id.

    `several` is the rank of each row among those whose image has several rows, which are together there, and
    -1 for all others. `alone` are the images of one row and `merged` those of several, in the order of rows.
    """

    image: np.ndarray
    several: np.ndarray
    alone: np.ndarray
    merged: np.ndarray

    @classmethod
    def of(cls, ids: pa.ChunkedArray) -> _Places:
        """Number the images of rows with these image_ids."""
        image = pc.rank(ids, tiebreaker="dense").to_numpy().astype(np.int64) - 1
        _, first, counts = np.unique(image, return_index=True, return_counts=True)
        rows, several = np.flatnonzero(counts[image] > 1), np.full(len(image), -1)
        several[rows[np.argsort(first[image[rows]], kind="stable")]] = np.arange(len(rows))
        return cls(image, several, image[np.sort(first[counts == 1])], image[np.sort(first[counts > 1])])


def _merge(
    manifests: Sequence[Manifest], schema: pa.Schema, places: _Places, emotions: list[str], policy: str
) -> tuple[Spill, list[Conflict]]:
    """Return a row per image, by image_id, and all conflicts."""
    named, rows = schema.append(pa.field(FROM, pa.string())), Spill(schema)
    several = iter_by_rank(
        with_ranks(_read(manifests, schema), places.several), named, int(places.several.max(initial=-1)) + 1
    )
    together = iter_complete_images(rechunk(several, named, STREAM_ROWS))
    merged, conflicts = merge_rows(together, named, emotions, policy)
    alone = with_ranks(_read(manifests, schema), np.where(places.several < 0, places.image, -1))
    parts = chain(alone, with_ranks(merged.read(), places.merged))
    for part in iter_by_rank(parts, named, len(places.alone) + len(places.merged)):
        rows.append(part.drop_columns([FROM]))
    return rows, conflicts


def _read(manifests: Sequence[Manifest], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of all manifests in parts, with the name of their manifest."""
    for manifest in manifests:
        for part in read_rows([manifest], schema):
            yield part.append_column(FROM, pa.array([manifest.name] * len(part), pa.string()))


def _check(manifests: Sequence[Manifest], on_conflict: str) -> None:
    names = [manifest.name for manifest in manifests]
    if len(set(names)) < max(2, len(names)):
        too_few = {0: "no manifest given", 1: "only one manifest given"}
        what = too_few.get(len(names), "two manifests have the same name")
        raise UsageError(f"{what}: {', '.join(names)}", fix="give two or more manifests with different names")
    known = ["error", "first", "mean", *(f"prefer:{name}" for name in names)]
    if on_conflict not in known:
        raise UsageError(
            f"unknown policy {on_conflict!r}", fix=f"--on-conflict with one of {', '.join(known)}"
        )


def _check_earlier(path: Path) -> None:
    """Refuse to replace a manifest that was not written by `concat`."""
    if path.is_file() and "parts" not in load_manifest(path).metadata:
        raise UsageError(f"{path} was not written by concat", fix="choose another --name or --out")


def _with_splits(
    rows: Spill, groups: pa.ChunkedArray, order: np.ndarray, path: Path, manifests: Sequence[Manifest]
) -> tuple[pa.Table, pa.Table, list[Finding]]:
    """Return groups and splits of the rows, the ledger, and findings about changed splits.

    An image keeps the strictest split that it ever had in one of the manifests, or in the one at `path`.
    Images are compared in `order`, as for the edges.
    """
    declared = {column for manifest in manifests for column in manifest.metadata["groups"]}
    ledgers = [*(read_ledger(manifest.path) for manifest in manifests), read_own_splits(path, [])]
    has_splits = any(map(len, ledgers)) or rows.column("split").null_count < len(rows)
    wanted = {*LEDGER.names, *declared} if has_splits else {*_PLACED}
    names = [name for name in rows.schema.names if name in wanted]
    table = pa.concat_tables([rows.schema.empty_table().select(names), *rows.read(names)])
    table = table.set_column(names.index("group_id"), table.schema.field("group_id"), groups)
    ledger = merge_splits([splits_of(table), *ledgers])
    findings = []
    if len(ledger):
        kept = _inherit(table, Memory(ledger, frozenset(declared)), order)
        changed = pc.not_equal(pc.fill_null(kept["split"], ""), pc.fill_null(table["split"], "")).to_numpy()
        findings = _find_changed(kept["path"].take(pa.array(order[changed[order]])))
        table, ledger = kept, merge_splits([splits_of(kept), ledger])
    return table.select([name for name in _PLACED if name in table.column_names]), ledger, findings


def _inherit(table: pa.Table, memory: Memory, order: np.ndarray) -> pa.Table:
    """Return the table with inherited splits, for which its rows are compared in `order`."""
    if not table["split"].null_count:
        return inherit_splits(table, memory, replace=True)
    after = inherit_splits(table.take(pa.array(order)), memory, replace=True)
    names = [name for name in ("split", FOLD.name) if name in after.column_names]
    return next(put_columns([table], after.select(names).take(pa.array(np.argsort(order)))))


def _find_changed(paths: pa.ChunkedArray) -> list[Finding]:
    """Report the images whose split is not the one that their manifest has."""
    if not len(paths):
        return []
    text = f"{count_text(len(paths), 'image', 'get')} an earlier split, also of others in the group"
    return [Finding("splits", f"{text}: {', '.join(paths.slice(0, 3).to_pylist())}")]


def _roots(manifests: Sequence[Manifest]) -> dict[str, Path]:
    """Return the image folder of each source, if it was recorded."""
    roots: dict[str, Path] = {}
    for manifest in manifests:
        for source, root in read_local(manifest.path.parent).items():
            if source in manifest.sources and roots.setdefault(source, Path(root)) != Path(root):
                raise UsageError(
                    f"the images of {source} are in two folders",
                    where=f"{roots[source]}, {root}",
                    fix="ingest both manifests from the same folder",
                )
    return roots


def _conflict_error(conflicts: list[Conflict]) -> ManifestError:
    shown = "\n  ".join(describe_conflict(conflict) for conflict in conflicts[:_SHOWN])
    more = f"\n  … and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
    return ManifestError(
        f"{count_text(len(conflicts), 'conflict')} of labels of the same images; nothing was written:\n"
        f"  {shown}{more}",
        fix=f"resolve them: --on-conflict with one of {', '.join(POLICIES[1:])}",
    )


def _regroup(manifests: Sequence[Manifest], edges: pa.Table) -> pa.ChunkedArray:
    """Return a new `group_id` of each image, by image_id.

    Groups of the manifests stay together, near-duplicates across them are added.
    """
    plain = read_columns(manifests, ["image_id", "group_id", "source", "subject_id"])
    grouped = assign_groups(plain, edges, ["image_id", "group_id"])
    _, first = np.unique(pc.rank(plain["image_id"], tiebreaker="dense").to_numpy(), return_index=True)
    return grouped["group_id"].take(pa.array(first))


def _count_across(rows: Rows, edges: pa.Table) -> dict[str, int]:
    """Count the edges between images of two sources, by kind."""
    table = rows.select(["image_id", "source"])
    ids, source = as_one_array(table["image_id"]), codes_of(table["source"])
    a, b = (source[pc.index_in(edges[side], ids).to_numpy()] for side in ("image_id_a", "image_id_b"))
    across = edges["kind"].filter(pa.array(a != b))
    return {kind: pc.sum(pc.equal(across, kind)).as_py() or 0 for kind in KINDS}


def _find_split_groups(rows: Rows) -> list[Finding]:
    """Find groups whose images have different splits, which `balance` refuses."""
    known = rows.select(["group_id", "split", "path"]).filter(pc.field("split").is_valid())
    splits = known.group_by("group_id").aggregate([("split", "count_distinct")])
    split_groups = splits.filter(pc.greater(splits["split_count_distinct"], 1))["group_id"]
    paths = known.filter(pc.is_in(known["group_id"], split_groups.combine_chunks()))["path"].to_pylist()
    if not paths:
        return []
    shown = ", ".join(sorted(paths)[:_SHOWN])
    groups = count_text(len(split_groups), "group")
    return [Finding("split", f"{groups} of near-duplicates in two splits: {shown}")]


def _find_differences(manifests: Sequence[Manifest]) -> list[Finding]:
    """Find subtype codes with different names, and pixels from different decoder versions."""
    names: dict[str, str] = {}
    findings = []
    for manifest in manifests:
        for code, subtype in manifest.metadata["subtypes"].items():
            if names.setdefault(code, subtype["name"]) != subtype["name"]:
                text = f"the subtype {code} is {names[code]!r}, but {subtype['name']!r} in {manifest.name}"
                findings.append(Finding("subtype", text))
    if any(manifest.metadata["decoders"] != manifests[0].metadata["decoders"] for manifest in manifests):
        text = "made with different decoder versions, so equal pixels may be missed; re-run ingest"
        findings.append(Finding("decoders", text))
    return findings


def _metadata(manifests: Sequence[Manifest], emotions: list[str]) -> dict[str, Any]:
    """Return the metadata of the whole, with those of each source under `parts`."""
    parts: dict[str, dict[str, Any]] = {}
    subtypes: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        for part in manifest.parts:
            parts.setdefault(part["source"], part)
        for code, subtype in manifest.metadata["subtypes"].items():
            known = subtypes.setdefault(code, subtype)
            subtypes[code] = {**known, "upright": known["upright"] or subtype["upright"]}
    return {
        "source": ", ".join(parts),
        "parts": list(parts.values()),
        "subtypes": subtypes,
        "groups": sorted({column for manifest in manifests for column in manifest.metadata["groups"]}),
        "emotions": emotions,
        "decoders": manifests[0].metadata["decoders"],
    }
