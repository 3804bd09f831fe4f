"""Several manifests as one: a row per picture, look-alikes across sources in one group, splits as they were.

Rows with the same bytes become one: the first manifest's, and what it lacks from the others. Where ratings or
emotions of such rows differ, that is a conflict, which a policy that is named resolves:

    error           refuse, and list them (the default)
    first           the manifest that is named first
    mean            means of ratings and shares; the number of raters is the sum, the spread is unknown
    prefer:NAME     that manifest where it says something, else the first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import ManifestError, UsageError
from affectdata.images.duplicates import MAX_BITS, assign_groups, find_edges
from affectdata.manifest.findings import find_far_apart
from affectdata.manifest.ledger import (
    Memory,
    inherit_splits,
    merge_splits,
    read_ledger,
    recall_own,
    splits_of,
    write_ledger,
)
from affectdata.manifest.manifest import (
    Manifest,
    check_name,
    load_manifest,
    note_root,
    read_local,
    write_manifest,
)
from affectdata.manifest.merging import FROM, Conflict, describe_conflict, merge_rows
from affectdata.records import Finding
from affectdata.schema import FOLD, manifest_schema
from affectdata.store.parquet import write_table

POLICIES = ("error", "first", "mean", "prefer:NAME")
_SHOWN = 10  # conflicts named in an error


@dataclass(frozen=True, slots=True)
class Concat:
    """What came of several manifests: rows in all, rows that were the same picture, what is worth a look."""

    manifest: Manifest
    n_rows: int
    n_merged: int
    n_across: dict[str, int]
    conflicts: list[Conflict]
    findings: list[Finding]


def concat(manifests: Sequence[Manifest], name: str | None, out: Path, on_conflict: str = "error") -> Concat:
    """Write the rows of several manifests as one, `name`.parquet under `out`, and its edges.

    Every split that an image had in one of them, or in a manifest that is there already, is kept.

    Raises:
        UsageError: fewer than two manifests, no such policy, a source with two folders, a name that is taken.
        ManifestError: there are conflicts, and the policy is `error`.
        IntegrityError: a picture has two splits.
    """
    _check(manifests, on_conflict)
    name = name or "_".join(manifest.name for manifest in manifests)
    check_name(name)
    path = out / f"{name}.parquet"
    _check_earlier(path)
    roots = _roots(manifests)
    emotions = sorted({emotion for each in manifests for emotion in each.metadata["emotions"]})
    schema = manifest_schema(emotions, folds=any(FOLD.name in each.table.column_names for each in manifests))
    rows = pa.concat_tables([_widen(each, schema) for each in manifests])
    table, conflicts = merge_rows(rows, emotions, on_conflict)
    if conflicts and on_conflict == "error":
        raise _in_conflict(conflicts)
    edges = find_edges(table)
    table = _group(rows, edges, table)
    table, ledger, inherited = _with_splits(table, path, manifests)
    schema = manifest_schema(emotions, folds=FOLD.name in table.column_names)
    table = table.select(schema.names).cast(schema).sort_by("image_id")
    write_ledger([ledger], path)
    write_table(edges, path.with_suffix(".edges.parquet"), "edges", {"max_bits": MAX_BITS})
    manifest = write_manifest(table, _metadata(manifests, emotions), path)
    for source, root in roots.items():
        note_root(out, source, root)
    findings = [*inherited, *find_far_apart([table], edges), *_find_split_groups(table)]
    findings += _find_differences(manifests)
    return Concat(manifest, len(rows), len(rows) - len(table), _across(table, edges), conflicts, findings)


def _check(manifests: Sequence[Manifest], on_conflict: str) -> None:
    names = [manifest.name for manifest in manifests]
    if len(set(names)) < max(2, len(names)):
        few = {0: "there is no manifest", 1: "there is one manifest only"}
        what = few.get(len(names), "two manifests are called the same")
        raise UsageError(f"{what}: {', '.join(names)}", fix="name two or more that differ")
    known = ["error", "first", "mean", *(f"prefer:{name}" for name in names)]
    if on_conflict not in known:
        raise UsageError(f"no policy is called {on_conflict!r}", fix=f"known here: {', '.join(known)}")


def _check_earlier(path: Path) -> None:
    """Refuse to replace a manifest that no `concat` wrote."""
    if path.is_file() and "parts" not in load_manifest(path).metadata:
        raise UsageError(f"{path} is no result of concat", fix="choose another --name or --out")


def _with_splits(
    table: pa.Table, path: Path, manifests: Sequence[Manifest]
) -> tuple[pa.Table, pa.Table, list[Finding]]:
    """Return the rows with the splits that they inherit, the ledger, and what was inherited.

    An image keeps the strictest split that it ever had in one of the manifests, or in the one at `path`.
    """
    ledgers = [read_ledger(each.path) for each in manifests]
    ledger = merge_splits([splits_of(table), *ledgers, recall_own(path, [])])
    groups = {column for each in manifests for column in each.metadata["groups"]}
    kept = inherit_splits(table, Memory(ledger, frozenset(groups)), replace=True)
    own = pc.fill_null(table["split"], "")
    changed = kept.filter(pc.not_equal(pc.fill_null(kept["split"], ""), own))["path"]
    findings = []
    if len(changed):
        shown = ", ".join(changed.slice(0, 3).to_pylist())
        text = f"{len(changed)} images get the split that they, or one that must stay with them, had before"
        findings.append(Finding("splits", f"{text}: {shown}"))
    return kept, merge_splits([splits_of(kept), ledger]), findings


def _roots(manifests: Sequence[Manifest]) -> dict[str, Path]:
    """Return where the pictures of each source are, as far as it was noted."""
    roots: dict[str, Path] = {}
    for each in manifests:
        for source, root in read_local(each.path.parent).items():
            if source in each.sources and roots.setdefault(source, Path(root)) != Path(root):
                raise UsageError(
                    f"the pictures of {source} lie in two folders",
                    where=f"{roots[source]}, {root}",
                    fix="ingest them from one of the two",
                )
    return roots


def _widen(manifest: Manifest, schema: pa.Schema) -> pa.Table:
    """Add the columns of emotions that other manifests have, and where the rows are from."""
    table = manifest.table
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    names = pa.array([manifest.name] * len(table), pa.string())
    return table.select(schema.names).cast(schema).append_column(FROM, names)


def _in_conflict(conflicts: list[Conflict]) -> ManifestError:
    shown = "\n  ".join(describe_conflict(each) for each in conflicts[:_SHOWN])
    more = f"\n  … and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
    return ManifestError(
        f"{len(conflicts)} labels of the same pictures differ; nothing was written:\n  {shown}{more}",
        fix=f"--on-conflict with one of {', '.join(POLICIES[1:])}",
    )


def _group(rows: pa.Table, edges: pa.Table, table: pa.Table) -> pa.Table:
    """Set `group_id` anew: what hung together in a manifest still does, and look-alikes across them too."""
    plain = rows.select(["image_id", "group_id", "source", "subject_id"])
    grouped = assign_groups(plain, edges, ["image_id", "group_id"])
    at = pc.index_in(table["image_id"], grouped["image_id"].combine_chunks())
    place = table.column_names.index("group_id")
    return table.set_column(place, table.schema.field("group_id"), grouped["group_id"].take(at))


def _across(table: pa.Table, edges: pa.Table) -> dict[str, int]:
    """Count the edges between pictures of two sources, by kind."""
    source = dict(zip(table["image_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    counts = {"same_pixels": 0, "near_duplicate": 0}
    for edge in edges.select(["image_id_a", "image_id_b", "kind"]).to_pylist():
        counts[edge["kind"]] += source[edge["image_id_a"]] != source[edge["image_id_b"]]
    return counts


def _find_split_groups(table: pa.Table) -> list[Finding]:
    """Name pictures that hang together now and had different splits; `balance` refuses those."""
    known = table.filter(pc.is_valid(table["split"]))
    splits = known.group_by("group_id").aggregate([("split", "count_distinct")])
    torn = splits.filter(pc.greater(splits["split_count_distinct"], 1))["group_id"]
    paths = known.filter(pc.is_in(known["group_id"], torn.combine_chunks()))["path"].to_pylist()
    if not paths:
        return []
    shown = ", ".join(sorted(paths)[:_SHOWN])
    return [Finding("split", f"{len(torn)} groups of look-alikes are in two splits now: {shown}")]


def _find_differences(manifests: Sequence[Manifest]) -> list[Finding]:
    """Name what the manifests mean differently: subtypes by one code, pixels by another decoder."""
    names: dict[str, str] = {}
    findings = []
    for each in manifests:
        for code, subtype in each.metadata["subtypes"].items():
            if names.setdefault(code, subtype["name"]) != subtype["name"]:
                text = f"the subtype {code} is {names[code]!r} and {subtype['name']!r} ({each.name})"
                findings.append(Finding("subtype", text))
    if any(each.metadata["decoders"] != manifests[0].metadata["decoders"] for each in manifests):
        text = "made with other versions of the decoders: equal pixels may go unseen; ingest them anew"
        findings.append(Finding("decoders", text))
    return findings


def _metadata(manifests: Sequence[Manifest], emotions: list[str]) -> dict[str, Any]:
    """Return what holds for the whole, and under `parts` what each source says of itself."""
    parts: dict[str, dict[str, Any]] = {}
    subtypes: dict[str, dict[str, Any]] = {}
    for each in manifests:
        for part in each.parts:
            parts.setdefault(part["source"], part)
        for code, subtype in each.metadata["subtypes"].items():
            known = subtypes.setdefault(code, subtype)
            subtypes[code] = {**known, "upright": known["upright"] or subtype["upright"]}
    return {
        "source": ", ".join(parts),
        "parts": list(parts.values()),
        "subtypes": subtypes,
        "groups": sorted({column for each in manifests for column in each.metadata["groups"]}),
        "emotions": emotions,
        "decoders": manifests[0].metadata["decoders"],
    }
