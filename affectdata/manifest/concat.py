"""Concatenate manifests: one row per image, near-duplicates across sources in one group, splits kept.

Rows with the same bytes are merged; `merge` has the policies for different labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import ManifestError, UsageError
from affectdata.images.duplicates import assign_groups, find_edges
from affectdata.images.hamming import MAX_BITS
from affectdata.manifest.findings import find_far_apart
from affectdata.manifest.ledger import (
    Memory,
    inherit_splits,
    merge_splits,
    read_ledger,
    read_own_splits,
    splits_of,
    write_ledger,
)
from affectdata.manifest.manifest import Manifest, check_name, load_manifest, write_manifest
from affectdata.manifest.merge import FROM, Conflict, describe_conflict, merge_rows
from affectdata.manifest.roots import read_local, record_root
from affectdata.records import Finding, count_text
from affectdata.schema import FOLD, manifest_schema, vote_columns
from affectdata.store.parquet import write_table
from affectdata.workers import THREADS, default_workers

POLICIES = ("error", "first", "mean", "prefer:NAME")
_SHOWN = 10  # conflicts listed in an error


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
    names = {name for manifest in manifests for name in manifest.table.column_names}
    schema = manifest_schema(emotions, FOLD.name in names, vote_columns(names))
    rows = pa.concat_tables([_add_columns(manifest, schema) for manifest in manifests])
    table, conflicts = merge_rows(rows, emotions, on_conflict)
    if conflicts and on_conflict == "error":
        raise _conflict_error(conflicts)
    edges = find_edges(table, workers=workers or default_workers(engine), engine=engine)
    table = _regroup(rows, edges, table)
    table, ledger, inherited = _with_splits(table, path, manifests)
    schema = manifest_schema(emotions, FOLD.name in table.column_names, vote_columns(names))
    table = table.select(schema.names).cast(schema).sort_by("image_id")
    write_ledger([ledger], path)
    write_table(edges, path.with_suffix(".edges.parquet"), "edges", {"max_bits": MAX_BITS})
    manifest = write_manifest(table, _metadata(manifests, emotions), path)
    for source, root in roots.items():
        record_root(out, source, root)
    findings = [*inherited, *find_far_apart([table], edges), *_find_split_groups(table)]
    findings += _find_differences(manifests)
    return ConcatResult(
        manifest, len(rows), len(rows) - len(table), _count_across(table, edges), conflicts, findings
    )


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
    table: pa.Table, path: Path, manifests: Sequence[Manifest]
) -> tuple[pa.Table, pa.Table, list[Finding]]:
    """Return the rows with inherited splits, the ledger, and findings about changed splits.

    An image keeps the strictest split that it ever had in one of the manifests, or in the one at `path`.
    """
    ledgers = [read_ledger(manifest.path) for manifest in manifests]
    ledger = merge_splits([splits_of(table), *ledgers, read_own_splits(path, [])])
    groups = {column for manifest in manifests for column in manifest.metadata["groups"]}
    kept = inherit_splits(table, Memory(ledger, frozenset(groups)), replace=True)
    own = pc.fill_null(table["split"], "")
    changed = kept.filter(pc.not_equal(pc.fill_null(kept["split"], ""), own))["path"]
    findings = []
    if len(changed):
        shown = ", ".join(changed.slice(0, 3).to_pylist())
        text = f"{count_text(len(changed), 'image', 'get')} an earlier split, also of others in the group"
        findings.append(Finding("splits", f"{text}: {shown}"))
    return kept, merge_splits([splits_of(kept), ledger]), findings


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


def _add_columns(manifest: Manifest, schema: pa.Schema) -> pa.Table:
    """Add the emotion columns of the other manifests, and a column with the name of this one."""
    table = manifest.table
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    names = pa.array([manifest.name] * len(table), pa.string())
    return table.select(schema.names).cast(schema).append_column(FROM, names)


def _conflict_error(conflicts: list[Conflict]) -> ManifestError:
    shown = "\n  ".join(describe_conflict(conflict) for conflict in conflicts[:_SHOWN])
    more = f"\n  … and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
    return ManifestError(
        f"{count_text(len(conflicts), 'conflict')} of labels of the same images; nothing was written:\n"
        f"  {shown}{more}",
        fix=f"resolve them: --on-conflict with one of {', '.join(POLICIES[1:])}",
    )


def _regroup(rows: pa.Table, edges: pa.Table, table: pa.Table) -> pa.Table:
    """Recompute `group_id`: groups of the manifests stay together, near-duplicates across them are added."""
    plain = rows.select(["image_id", "group_id", "source", "subject_id"])
    grouped = assign_groups(plain, edges, ["image_id", "group_id"])
    index = pc.index_in(table["image_id"], grouped["image_id"].combine_chunks())
    column = table.column_names.index("group_id")
    return table.set_column(column, table.schema.field("group_id"), grouped["group_id"].take(index))


def _count_across(table: pa.Table, edges: pa.Table) -> dict[str, int]:
    """Count the edges between images of two sources, by kind."""
    source = dict(zip(table["image_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    counts = {"same_pixels": 0, "near_duplicate": 0}
    for edge in edges.select(["image_id_a", "image_id_b", "kind"]).to_pylist():
        counts[edge["kind"]] += source[edge["image_id_a"]] != source[edge["image_id_b"]]
    return counts


def _find_split_groups(table: pa.Table) -> list[Finding]:
    """Find groups whose images have different splits, which `balance` refuses."""
    known = table.filter(pc.is_valid(table["split"]))
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
