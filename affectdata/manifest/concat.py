"""Several manifests as one: a row per image, look-alikes across sources in one group, splits as they were.

Rows with the same bytes become one: the first manifest's, and what it lacks from the others. Where ratings or
emotions of such rows differ, that is a conflict, which a policy that is named resolves:

    error           refuse, and list them (the default)
    first           the manifest that is named first
    mean            means of ratings and shares; the number of raters is the sum, the spread is unknown
    prefer:NAME     that manifest where it says something, else the first
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
from affectdata.images.duplicates import MAX_BITS, assign_groups, find_edges
from affectdata.labels import dominant_emotion
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
from affectdata.records import RATINGS, Finding, Scale
from affectdata.schema import FOLD, manifest_schema
from affectdata.store.parquet import write_table

POLICIES = ("error", "first", "mean", "prefer:NAME")
_SHOWN = 10  # conflicts named in an error
FROM = "manifest"  # the column that says where a row is from, while rows are merged
_RATING_PARTS = ("", "_sd", "_n", "_raw", "_min", "_max")
_ALIKE = 1e-4  # POMP points that two scales may differ by rounding
_Mean: TypeAlias = Callable[[list[dict[str, Any]], list[str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Concat:
    """What came of several manifests: rows in all, rows that were the same image, what is worth a look."""

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
        IntegrityError: an image has two splits.
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
    """Return where the images of each source are, as far as it was noted."""
    roots: dict[str, Path] = {}
    for each in manifests:
        for source, root in read_local(each.path.parent).items():
            if source in each.sources and roots.setdefault(source, Path(root)) != Path(root):
                raise UsageError(
                    f"the images of {source} lie in two folders",
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
        f"{len(conflicts)} labels of the same images differ; nothing was written:\n  {shown}{more}",
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
    """Count the edges between images of two sources, by kind."""
    source = dict(zip(table["image_id"].to_pylist(), table["source"].to_pylist(), strict=True))
    counts = {"same_pixels": 0, "near_duplicate": 0}
    for edge in edges.select(["image_id_a", "image_id_b", "kind"]).to_pylist():
        counts[edge["kind"]] += source[edge["image_id_a"]] != source[edge["image_id_b"]]
    return counts


def _find_split_groups(table: pa.Table) -> list[Finding]:
    """Name images that hang together now and had different splits; `balance` refuses those."""
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


@dataclass(frozen=True, slots=True)
class Conflict:
    """An image of which manifests do not say the same: `said` by their names, and what was `kept`."""

    image_id: str
    path: str
    column: str
    said: dict[str, Any]
    kept: Any


def describe_conflict(conflict: Conflict) -> str:
    """Say which manifest says what of an image."""
    said = ", ".join(f"{_plainly(value)} in {name}" for name, value in conflict.said.items())
    return f"{conflict.path}: {conflict.column} {said}"


def _plainly(told: Any) -> str:
    """Write a number, a word, or several shares."""
    if isinstance(told, dict):
        return " ".join(f"{name.removeprefix('emotion_')} {_plainly(value)}" for name, value in told.items())
    return f"{told:g}" if isinstance(told, float) else str(told)


def merge_rows(rows: pa.Table, emotions: list[str], policy: str) -> tuple[pa.Table, list[Conflict]]:
    """Return a row per image and every conflict; `rows` are in the order of their manifests (`FROM`).

    `policy` is `first`, `mean` or `prefer:NAME`; any other takes the first.

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
    alone = rows.filter(pc.invert(is_repeated))
    table = pa.concat_tables([alone, pa.Table.from_pylist(merged, schema=rows.schema)])
    return table.drop_columns([FROM]), merge.conflicts


@dataclass(frozen=True, slots=True)
class _Merge:
    """Makes one row of several for one image, and notes the conflicts."""

    emotions: list[str]
    policy: str
    conflicts: list[Conflict]

    def rows(self, same: list[dict[str, Any]]) -> dict[str, Any]:
        """Merge rows of one image, in the order of their manifests."""
        row = {name: _first(each[name] for each in same) for name in same[0]}
        for rating in RATINGS:
            row |= self._labels(same, rating, [f"{rating}{part}" for part in _RATING_PARTS], _mean_rating)
        shares = [f"emotion_{emotion}" for emotion in self.emotions]
        row |= self._labels(same, "emotion", ["emotion", *shares, "agreement"], _mean_emotions)
        terms = {name: _joined((each[name] for each in same), "; ") for name in ("license", "attribution")}
        tags = _joined((tag for each in same for tag in (each["content_tags"] or "").split(",")), ",")
        own = {"extra": _both_extras(same), "content_tags": tags}
        own |= {column: _same(same, column) for column in ("split", FOLD.name) if column in row}
        return {**row, **terms, **own}

    def _labels(
        self, same: list[dict[str, Any]], name: str, columns: list[str], mean: _Mean
    ) -> dict[str, Any]:
        """Return columns that belong together: filled up from all rows; where they differ, by the policy."""
        told = [each for each in same if any(each[column] is not None for column in columns)]
        compared = columns[:1] if name in RATINGS else columns[:-1]
        if not any(_differ([each[column] for each in told]) for column in compared):
            return {column: _first(each[column] for each in told) for column in columns}
        preferred = [each for each in told if f"prefer:{each[FROM]}" == self.policy]
        kept = mean(told, columns) if self.policy == "mean" else (preferred or told)[0]
        said = {each[FROM]: _told(each, compared) for each in told}
        first = same[0]
        self.conflicts.append(Conflict(first["image_id"], first["path"], name, said, _told(kept, compared)))
        return {column: kept[column] for column in columns}


def _differ(values: list[Any]) -> bool:
    """Say whether two values that are there are not the same."""
    there = [value for value in values if value is not None]
    if there and isinstance(there[0], float):
        return bool(max(there) - min(there) > _ALIKE)
    return len(set(there)) > 1


def _told(row: dict[str, Any], columns: list[str]) -> Any:
    told = {column: row[column] for column in columns if row[column] is not None}
    return told[columns[0]] if set(told) == {columns[0]} else told


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _mean_rating(told: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    name, _, n, raw, low, high = columns
    told = [each for each in told if each[name] is not None]
    mean = round(statistics.fmean(each[name] for each in told), 6)
    counts = [each[n] for each in told]
    scale = Scale(told[0][low], told[0][high])
    return {
        **dict.fromkeys(columns),
        name: mean,
        n: None if None in counts else sum(counts),
        raw: scale.from_pomp(mean),
        low: scale.low,
        high: scale.high,
    }


def _mean_emotions(told: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    """Average the shares of those that have some; emotions that differ, and no shares, leave no emotion."""
    shares = {}
    for column in columns[1:-1]:
        said = [each[column] for each in told if each[column] is not None]
        shares[column] = round(statistics.fmean(said), 9) if said else None
    known = {column.removeprefix("emotion_"): share for column, share in shares.items() if share is not None}
    emotion = dominant_emotion(known)
    return {"emotion": emotion, "agreement": known.get(emotion or ""), **shares}


def _same(same: list[dict[str, Any]], column: str) -> Any:
    """Return the split or fold that all rows have which have one."""
    said = {each[column]: each for each in same if each[column] is not None}
    if len(said) > 1:
        told = ", ".join(f"{value} in {each[FROM]}" for value, each in said.items())
        raise IntegrityError(
            f"one image has two values of {column}: {told}",
            where=f"{same[0]['path']}, image_id {same[0]['image_id'][:16]}…",
            fix="split one of the manifests anew: ingest it with --replace into another --out",
        )
    return next(iter(said), None)


def _both_extras(same: list[dict[str, Any]]) -> str:
    """Keep the first row's `extra`, and under `also` those of the others, by manifest."""
    others = {each[FROM]: json.loads(each["extra"]) for each in same[1:] if each["extra"] != same[0]["extra"]}
    return canonical_json({**json.loads(same[0]["extra"]), **({"also": others} if others else {})})


def _joined(values: Iterable[str | None], separator: str) -> str | None:
    return separator.join(dict.fromkeys(value for value in values if value)) or None
