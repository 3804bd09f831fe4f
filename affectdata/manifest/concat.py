"""Concatenate manifests: one row per image, near-duplicates across sources in one group, splits kept.

Rows with the same bytes are merged: the first manifest's row, with missing values filled from the others.
Different ratings or emotions of such rows are a conflict, which a policy resolves:

    error           fail, and list the conflicts (the default)
    first           use the manifest that is listed first
    mean            means of ratings and shares; the number of raters is the sum, the spread is unknown
    prefer:NAME     use that manifest where it has a label, else the first
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError, UsageError
from affectdata.hashing import canonical_json
from affectdata.images.duplicates import assign_groups, find_edges
from affectdata.images.hamming import MAX_BITS
from affectdata.labels import dominant_emotion
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
from affectdata.manifest.manifest import (
    Manifest,
    check_name,
    load_manifest,
    read_local,
    record_root,
    write_manifest,
)
from affectdata.records import RATINGS, Finding, Scale
from affectdata.schema import FOLD, manifest_schema
from affectdata.store.parquet import write_table

POLICIES = ("error", "first", "mean", "prefer:NAME")
_SHOWN = 10  # conflicts listed in an error
FROM = "manifest"  # column with the manifest of a row, while rows are merged
_RATING_PARTS = ("", "_sd", "_n", "_raw", "_min", "_max")
_TOLERANCE = 1e-4  # POMP points; two scales may differ by rounding
_Mean: TypeAlias = Callable[[list[dict[str, Any]], list[str]], dict[str, Any]]


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
    manifests: Sequence[Manifest], name: str | None, out: Path, on_conflict: str = "error"
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
    schema = manifest_schema(
        emotions, folds=any(FOLD.name in manifest.table.column_names for manifest in manifests)
    )
    rows = pa.concat_tables([_add_columns(manifest, schema) for manifest in manifests])
    table, conflicts = merge_rows(rows, emotions, on_conflict)
    if conflicts and on_conflict == "error":
        raise _conflict_error(conflicts)
    edges = find_edges(table)
    table = _regroup(rows, edges, table)
    table, ledger, inherited = _with_splits(table, path, manifests)
    schema = manifest_schema(emotions, folds=FOLD.name in table.column_names)
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
        text = f"{len(changed)} images get an earlier split, their own or that of an image in their group"
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
        f"{len(conflicts)} labels of the same images differ; nothing was written:\n  {shown}{more}",
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
    return [Finding("split", f"{len(split_groups)} groups of near-duplicates are in two splits: {shown}")]


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


@dataclass(frozen=True, slots=True)
class Conflict:
    """A label that differs between manifests; `said`: value by manifest. Field names are JSON keys."""

    image_id: str
    path: str
    column: str
    said: dict[str, Any]
    kept: Any


def describe_conflict(conflict: Conflict) -> str:
    """Return a conflict as text: the image, the column, and the value in each manifest."""
    values = ", ".join(f"{_format(value)} in {name}" for name, value in conflict.said.items())
    return f"{conflict.path}: {conflict.column} {values}"


def _format(value: Any) -> str:
    """Format a number, a word, or several shares."""
    if isinstance(value, dict):
        return " ".join(f"{name.removeprefix('emotion_')} {_format(share)}" for name, share in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def merge_rows(rows: pa.Table, emotions: list[str], policy: str) -> tuple[pa.Table, list[Conflict]]:
    """Return a row per image and all conflicts; `rows` are in the order of their manifests (`FROM`).

    `policy` is `first`, `mean` or `prefer:NAME`; anything else acts like `first`.

    Raises:
        IntegrityError: an image has two splits or folds.
    """
    ids = rows["image_id"].combine_chunks()
    counts = pc.value_counts(ids)
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    is_repeated = pc.is_in(ids, repeated)
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows.filter(is_repeated).to_pylist():
        by_id.setdefault(row["image_id"], []).append(row)
    merge = _Merge(emotions, policy, [])
    merged = [merge.rows(same) for same in by_id.values()]
    unique = rows.filter(pc.invert(is_repeated))
    table = pa.concat_tables([unique, pa.Table.from_pylist(merged, schema=rows.schema)])
    return table.drop_columns([FROM]), merge.conflicts


@dataclass(frozen=True, slots=True)
class _Merge:
    """Merges the rows of one image into one, and collects the conflicts."""

    emotions: list[str]
    policy: str
    conflicts: list[Conflict]

    def rows(self, same: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge rows of one image, in the order of their manifests."""
        merged = {name: _first(row[name] for row in same) for name in same[0]}
        for rating in RATINGS:
            merged |= self._labels(same, rating, [f"{rating}{part}" for part in _RATING_PARTS], _mean_rating)
        shares = [f"emotion_{emotion}" for emotion in self.emotions]
        merged |= self._labels(same, "emotion", ["emotion", *shares, "agreement"], _mean_emotions)
        terms = {name: _join((row[name] for row in same), "; ") for name in ("license", "attribution")}
        tags = _join((tag for row in same for tag in (row["content_tags"] or "").split(",")), ",")
        own = {"extra": _merge_extras(same), "content_tags": tags}
        own |= {column: _single(same, column) for column in ("split", FOLD.name) if column in merged}
        return {**merged, **terms, **own}

    def _labels(
        self, same: list[dict[str, Any]], name: str, columns: list[str], mean: _Mean
    ) -> dict[str, Any]:
        """Return columns that belong together, filled from all rows; a policy resolves conflicts."""
        labelled = [row for row in same if any(row[column] is not None for column in columns)]
        compared = columns[:1] if name in RATINGS else columns[:-1]
        if not any(_differ([row[column] for row in labelled]) for column in compared):
            return {column: _first(row[column] for row in labelled) for column in columns}
        preferred = [row for row in labelled if f"prefer:{row[FROM]}" == self.policy]
        kept = mean(labelled, columns) if self.policy == "mean" else (preferred or labelled)[0]
        values = {row[FROM]: _values(row, compared) for row in labelled}
        first = same[0]
        conflict = Conflict(first["image_id"], first["path"], name, values, _values(kept, compared))
        self.conflicts.append(conflict)
        return {column: kept[column] for column in columns}


def _differ(values: list[Any]) -> bool:
    """Return whether two of the values that are not None differ."""
    values = [value for value in values if value is not None]
    if values and isinstance(values[0], float):
        return bool(max(values) - min(values) > _TOLERANCE)
    return len(set(values)) > 1


def _values(row: dict[str, Any], columns: list[str]) -> Any:
    values = {column: row[column] for column in columns if row[column] is not None}
    return values[columns[0]] if set(values) == {columns[0]} else values


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _mean_rating(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    name, _, n, raw, low, high = columns
    rows = [row for row in rows if row[name] is not None]
    mean = round(statistics.fmean(row[name] for row in rows), 6)
    counts = [row[n] for row in rows]
    scale = Scale(rows[0][low], rows[0][high])
    return {
        **dict.fromkeys(columns),
        name: mean,
        n: None if None in counts else sum(counts),
        raw: scale.from_pomp(mean),
        low: scale.low,
        high: scale.high,
    }


def _mean_emotions(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """Average the shares over the rows that have them; without shares there is no emotion."""
    shares = {}
    for column in columns[1:-1]:
        values = [row[column] for row in rows if row[column] is not None]
        shares[column] = round(statistics.fmean(values), 9) if values else None
    known = {column.removeprefix("emotion_"): share for column, share in shares.items() if share is not None}
    emotion = dominant_emotion(known)
    return {"emotion": emotion, "agreement": known.get(emotion or ""), **shares}


def _single(same: list[dict[str, Any]], column: str) -> Any:
    """Return the split or fold of the rows that have one."""
    by_value = {row[column]: row for row in same if row[column] is not None}
    if len(by_value) > 1:
        values = ", ".join(f"{value} in {row[FROM]}" for value, row in by_value.items())
        raise IntegrityError(
            f"one image has two values of {column}: {values}",
            where=f"{same[0]['path']}, image_id {same[0]['image_id'][:16]}…",
            fix="make new splits for one of the manifests: ingest it with --replace into another --out",
        )
    return next(iter(by_value), None)


def _merge_extras(same: list[dict[str, Any]]) -> str:
    """Return the first row's `extra`, with those of the others by manifest under `also`."""
    others = {row[FROM]: json.loads(row["extra"]) for row in same[1:] if row["extra"] != same[0]["extra"]}
    return canonical_json({**json.loads(same[0]["extra"]), **({"also": others} if others else {})})


def _join(values: Iterable[str | None], separator: str) -> str | None:
    return separator.join(dict.fromkeys(value for value in values if value)) or None
