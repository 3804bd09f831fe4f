"""From a source tree to a manifest: list, read the tables, probe every picture, find duplicates, write.

In: a folder, and which source it is (recognised if not said). Out: `<name>.parquet`, `<name>.rejects.parquet`
and `<name>.edges.parquet`. Every file and every rating row is accounted for exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.archives import find_roots_in, is_archive, unpack
from affectdata.duplicates import MAX_BITS, assign_groups, find_edges
from affectdata.errors import AffectdataError, SourceError, UsageError
from affectdata.hashing import canonical_json
from affectdata.imaging import pixel_versions
from affectdata.indexes import compare_index, name_by_index
from affectdata.manifest import Manifest, check_name, load_manifest, note_root, read_local, write_manifest
from affectdata.memo import MEMO, read_memo, recall, stamp_files, write_memo
from affectdata.noticed import find_against_sign, find_far_apart, find_undecided
from affectdata.probe import Probe, mark_placeholders
from affectdata.records import RATINGS, Annotation, Finding, Reason, Record, Reject, SourceInfo
from affectdata.registry import find_plugins, load_plugin
from affectdata.schema import FOLD, REJECTS, manifest_schema
from affectdata.sources._protocol import Item, Link, ReadOptions, Source, check_options
from affectdata.split import adopt_splits
from affectdata.tables import write_table
from affectdata.tree import DOWNLOADED, Tree, is_junk, is_picture_name, read_tree
from affectdata.workers import default_workers, map_ordered

_BATCH = 16  # pictures probed per call
_JOIN_ROWS = 1 << 13  # rows held as Python objects at once
_SHOWN = 5  # rejects named when nothing is left
_NOTE_EVERY = 4096  # pictures after which the memo is written, for a run that is killed
_AS_THEY_ARE = (
    *("source_id", "subtype", "emotion", "agreement", "subject_id", "artist", "theme", "age", "age_group"),
    *("gender", "ethnicity", "split", "attribution"),
)


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What came of a tree: the manifest, the five counts (they add up to `n_seen`), findings for a person."""

    manifest: Manifest
    info: SourceInfo
    why: str
    counts: dict[str, int]
    rejects: pa.Table
    findings: list[Finding]

    @property
    def n_seen(self) -> int:
        """Files under the root, and rating rows that found no file."""
        return sum(self.counts.values())


@dataclass(slots=True)
class SortedItems:
    """The items of a source, by kind."""

    records: list[Record] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def ingest(
    root: Path,
    *,
    source: str | None = None,
    options: ReadOptions | None = None,
    out: Path = Path("manifests"),
    workers: int | None = None,
    strict: bool = False,
    replace: bool = False,
    rehash: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestResult:
    """Turn a source tree into a manifest under `out`; an archive of one is first unpacked beside itself.

    `progress` is called with pictures done and pictures in all. `strict` rejects what a decoder warns about.
    Files that did not change since an earlier run, finished or interrupted, are not opened again, unless
    `rehash` is set.

    Raises:
        SourceError: no such folder, no source recognises it, or its tables are not what its layout says.
        UsageError: a manifest of that name was made from another folder, and `replace` is not set; or the
            source does not take an option.
    """
    unpacked = _unpack(root, source) if root.is_file() and is_archive(root) else None
    root = unpacked or root
    tree = read_tree(root, leave_out=out)
    name, why = (source, "as said") if source else recognise(tree)
    plugin = cast(Source, load_plugin("sources", name))
    options = options or ReadOptions()
    check_options(plugin.INFO, options)
    reading = plugin.read(tree, options)
    check_name(reading.info.name)
    check_replace(out, reading.info.name, root, replace)
    items = sort_items(reading.items, reading.info)
    if unpacked:
        items.findings.append(Finding("unpacked", f"keep {root}: the pictures are read there from now on"))
    if not items.records and not items.rejects:
        raise SourceError(
            f"{root} holds no picture and no rating of {name}", fix=_expected_layout(plugin.INFO)
        )
    _sweep(tree, items)
    memo = out / f".{reading.info.name}.memo"
    n_workers = workers or default_workers()
    probed = _probe_all(tree, items.records, Probe(str(root), strict), memo, rehash, n_workers, progress)
    if reading.info.placeholder_names:
        probed = mark_placeholders(probed, reading.info.placeholder_names)
    emotions = sorted({emotion for record in items.records for emotion in record.emotions})
    table, n_merged = _build(items, probed, reading.info, emotions)
    if not len(table):
        raise _nothing_kept(items.rejects, root, plugin.INFO, find_links(plugin, tree, options))
    edges = find_edges(table)
    table = assign_groups(table, edges, reading.info.groups).sort_by("image_id")
    items.findings += compare_index(reading.info.name, table["image_id"].to_pylist())
    items.findings += [*find_far_apart(table, edges), *find_against_sign(table, reading.info)]
    items.findings += find_undecided(table, emotions)

    manifest, rejects = write_tables(table, edges, items, describe_source(reading.info, emotions), out)
    note_root(out, reading.info.name, root)
    n_junk = sum(reject.reason is Reason.JUNK for reject in items.rejects)
    counts = {
        "kept": len(table),
        "merged": n_merged,
        "annotation": len(items.annotations),
        "junk": n_junk,
        "rejected": len(items.rejects) - n_junk - n_merged,
    }
    return IngestResult(manifest, reading.info, why, counts, rejects, items.findings)


def _unpack(archive: Path, source: str | None) -> Path:
    """Unpack an archive, and step into the folders that it wraps around the source."""
    roots = find_roots_in(unpack(archive))
    names = [source] if source else find_plugins("sources")
    plugins = [cast(Source, load_plugin("sources", name)) for name in names]
    known = (root for root in roots if any(plugin.detect(read_tree(root)) for plugin in plugins))
    return next(known, roots[-1])


def recognise(tree: Tree) -> tuple[str, str]:
    """Return the source that recognises a tree, and why.

    Raises:
        SourceError: none does, or several do; or one does for a folder inside it.
    """
    found = _detect(tree)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{name} ({why})" for name, why in found)
        raise SourceError(
            f"{tree.root} looks like several sources: {names}", fix="say which with --source NAME"
        )
    folders = sorted({path.split("/")[0] for path in tree.files if "/" in path})
    beside = len({path.split("/")[0] for path in tree.files if not is_junk(path)}) > 1
    for folder in folders:
        inside = _detect(read_tree(tree.root / folder), generic=not beside)  # else what lies beside is lost
        if inside:
            raise SourceError(
                f"{tree.root} is no source, but the folder {folder} in it looks like {inside[0][0]}",
                fix=f"affectdata ingest '{tree.root / folder}'",
            )
    raise SourceError(
        f"no source recognises {tree.root} ({len(tree.files)} files)",
        where=name_by_index(tree) or "",
        fix="say which it is with --source NAME (`affectdata sources` lists them with their layouts); "
        "for a table of your own: --source table --map COLUMNS.yaml",
    )


def _detect(tree: Tree, generic: bool = True) -> list[tuple[str, str]]:
    """Return the sources that recognise a tree, and why; the generic ones, if at all, where no other does."""
    plugins = [cast(Source, load_plugin("sources", name)) for name in find_plugins("sources")]
    found = [(plugin.INFO, plugin.detect(tree)) for plugin in plugins]
    specific = any(why for info, why in found if not info.generic)
    return [
        (info.name, why) for info, why in found if why and not (info.generic and (specific or not generic))
    ]


def _expected_layout(info: SourceInfo) -> str:
    return f"the layout of {info.name} is: {info.layout}"


def find_links(plugin: Source, tree: Tree, options: ReadOptions) -> list[Link]:
    """List the addresses of pictures that a tree has; most sources ship pictures instead."""
    find: Callable[[Tree, ReadOptions], Iterable[Link]] | None = getattr(plugin, "find_links", None)
    return list(find(tree, options)) if find else []


def _nothing_kept(rejects: list[Reject], root: Path, info: SourceInfo, links: list[Link]) -> SourceError:
    told = [each for each in rejects if each.reason is not Reason.JUNK]
    shown = "\n  ".join(f"{each.path}: {each.reason}: {each.detail}" for each in told[:_SHOWN])
    fix = f"names in a table are relative to the root; {_expected_layout(info)}"
    if info.overlay:
        fix = "ingest the databases that have the pictures, then: affectdata ingest TABLE --onto MANIFEST"
    elif links and any(each.reason is Reason.MISSING_IMAGE for each in told):
        fix = f"`affectdata download '{root}'` fetches pictures from the addresses in its tables"
    return SourceError(
        f"no picture of {root} can be a row; nothing was written. Rejects: {len(told)}, such as:\n  {shown}",
        fix=fix,
    )


def check_replace(out: Path, name: str, root: Path, replace: bool) -> None:
    """Refuse to replace a manifest made from another folder, unless that is gone or `replace` is set."""
    noted = read_local(out).get(name)
    path = out / f"{name}.parquet"
    moved = noted and not Path(noted).is_dir()  # the pictures went elsewhere: this is the way to say so
    if path.exists() and noted and noted != str(root.resolve()) and not (replace or moved):
        raise UsageError(
            f"{path} was made from another folder",
            where=f"{noted}, now {root.resolve()}",
            fix="--replace to replace it, or another --out (--name, for sources without one) to keep both",
        )


def sort_items(items: Iterable[Item], info: SourceInfo) -> SortedItems:
    """Sort what a source says by kind; a rating outside its scale is a reject."""
    into = SortedItems()
    for item in items:
        if isinstance(item, Record):
            outside = _out_of_range(item, info)
            if outside:
                into.rejects.append(outside)
            else:
                into.records.append(item)
        elif isinstance(item, Reject):
            into.rejects.append(item)
        elif isinstance(item, Annotation):
            into.annotations.append(item.path)
        else:
            into.findings.append(item)
    into.records.sort(key=lambda record: record.path)
    return into


def _out_of_range(record: Record, info: SourceInfo) -> Reject | None:
    for name, rating in record.ratings.items():
        scale = info.scales[name]
        if rating.mean not in scale:
            detail = f"{name} {rating.mean:g} of {record.source_id} is outside {scale.low:g}–{scale.high:g}"
            return Reject(record.path, Reason.RATING_OUT_OF_RANGE, detail)
    return None


def _sweep(tree: Tree, items: SortedItems) -> None:
    """Account for every file that the source did not name."""
    named = Counter(record.path for record in items.records)
    named.update(items.annotations)
    named.update(reject.path for reject in items.rejects)
    twice = [path for path, count in named.items() if count > 1]
    if twice:
        raise SourceError(
            f"the source names {twice[0]} {named[twice[0]]} times", where=str(tree.root / twice[0])
        )
    for path in tree.files:
        if path in named:
            continue
        if path == DOWNLOADED:
            items.annotations.append(path)
        elif is_junk(path):
            items.rejects.append(
                Reject(path, Reason.JUNK, "left behind by an operating system or an archiver")
            )
        elif is_picture_name(path):
            items.rejects.append(Reject(path, Reason.MISSING_RATING, "a picture that no rating row names"))
        else:
            items.rejects.append(Reject(path, Reason.JUNK, "neither a picture nor a table of this source"))
    items.rejects += [
        Reject(path, Reason.LINK, "a link or no plain file; not followed") for path in tree.links
    ]
    items.rejects += [Reject(path, Reason.BAD_NAME, "the name is not UTF-8") for path in tree.bad_names]


def _probe_all(
    tree: Tree,
    records: list[Record],
    probe: Probe,
    memo: Path,
    rehash: bool,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> pa.Table:
    """Return what is seen of each record's file, in their order; the memo spares what did not change."""
    stamps = stamp_files(tree.root, [record.path for record in records])
    settings = {"strict": probe.strict, "max_pixels": probe.max_pixels, "decoders": pixel_versions()}
    known = MEMO.empty_table() if rehash else read_memo(memo, settings)
    done = [recall(known, stamps)]
    todo = stamps.filter(pc.invert(pc.is_in(stamps["path"], done[0]["path"].combine_chunks())))
    n_done, n_noted = len(done[0]), len(done[0])
    batches = (todo.slice(start, _BATCH) for start in range(0, len(todo), _BATCH))
    try:
        for result in map_ordered(probe, batches, workers):
            done.append(result)
            n_done += len(result)
            if n_done - n_noted >= _NOTE_EVERY:
                write_memo(memo, pa.concat_tables(done), stamps, settings)
                n_noted = n_done
            if progress:
                progress(n_done, len(stamps))
    finally:
        if n_done > n_noted:
            write_memo(memo, pa.concat_tables(done), stamps, settings)
    seen = pa.concat_tables(done)
    return seen.take(pc.index_in(stamps["path"], seen["path"].combine_chunks()))


def _build(
    items: SortedItems, probed: pa.Table, info: SourceInfo, emotions: list[str]
) -> tuple[pa.Table, int]:
    """Join records with what was seen of their pictures; bad pictures and exact duplicates become rejects."""
    schema = manifest_schema(emotions)
    schema = schema.remove(schema.get_field_index("group_id"))
    parts = [schema.empty_table()]
    first: dict[str, Record] = {}
    n_merged = 0
    for start in range(0, len(items.records), _JOIN_ROWS):
        rows: list[dict[str, Any]] = []
        records = items.records[start : start + _JOIN_ROWS]
        for record, seen in zip(records, probed.slice(start, _JOIN_ROWS).to_pylist(), strict=True):
            reason, detail = seen.pop("reason"), seen.pop("detail")
            if reason:
                items.rejects.append(Reject(record.path, Reason(reason), detail))
            elif seen["image_id"] in first:
                items.rejects.append(_merge(record, first[seen["image_id"]], items.findings))
                n_merged += 1
            else:
                first[seen["image_id"]] = record
                rows.append({**seen, **columns_of(record, info)})
        parts.append(pa.Table.from_pylist(rows, schema=schema))
    return pa.concat_tables(parts), n_merged


def _merge(record: Record, kept: Record, findings: list[Finding]) -> Reject:
    detail = f"the same bytes as {kept.path}"
    if record.ratings != kept.ratings or record.emotion != kept.emotion or record.subtype != kept.subtype:
        detail += f", labelled differently: {_label(record)} here, {_label(kept)} there"
        findings.append(Finding("conflict", f"{record.path}: {detail}; the row keeps those of {kept.path}"))
    return Reject(record.path, Reason.EXACT_DUPLICATE, detail)


def _label(record: Record) -> str:
    ratings = [f"{name} {rating.mean:g}" for name, rating in record.ratings.items()]
    return " ".join(filter(None, [record.subtype, record.emotion, *ratings])) or "no label"


def columns_of(record: Record, info: SourceInfo) -> dict[str, Any]:
    """Return a record as columns of the manifest."""
    row: dict[str, Any] = {name: getattr(record, name) for name in _AS_THEY_ARE}
    row |= {
        "source": info.name,
        "license": record.license or info.license,
        "url": record.url or info.url,
        "content_tags": ",".join(record.content_tags) or None,
        "extra": canonical_json(dict(record.extra)),
    }
    row |= {f"emotion_{emotion}": share for emotion, share in record.emotions.items()}
    for name in RATINGS:
        rating = record.ratings.get(name)
        if rating is not None:
            scale = info.scales[name]
            row |= {
                name: scale.to_pomp(rating.mean),
                f"{name}_sd": None if rating.sd is None else scale.spread_to_pomp(rating.sd),
                f"{name}_n": rating.n,
                f"{name}_raw": rating.mean,
                f"{name}_min": scale.low,
                f"{name}_max": scale.high,
            }
    return row


def write_tables(
    table: pa.Table, edges: pa.Table, items: SortedItems, metadata: dict[str, Any], out: Path
) -> tuple[Manifest, pa.Table]:
    """Write a manifest, its rejects and its edges; return the manifest and the rejects as a table."""
    path = out / f"{metadata['source']}.parquet"
    table = _keep_splits(table, path, items.findings)
    rejects = _rejects_table(items.rejects)
    schema = manifest_schema(metadata["emotions"], folds=FOLD.name in table.column_names)
    write_table(rejects, path.with_suffix(".rejects.parquet"), "rejects")
    write_table(edges, path.with_suffix(".edges.parquet"), "edges", {"max_bits": MAX_BITS})
    return write_manifest(table.select(schema.names).cast(schema), metadata, path), rejects


def _keep_splits(table: pa.Table, path: Path, findings: list[Finding]) -> pa.Table:
    """Take over the splits that the manifest at `path` has: a split, once made, stays."""
    if not path.is_file():
        return table
    try:
        earlier = load_manifest(path).table
    except AffectdataError as error:
        findings.append(Finding("replaced", f"{path} could not be read and is replaced: {error.what}"))
        return table
    kept = adopt_splits(table, earlier)
    n_kept = table["split"].null_count - kept["split"].null_count
    if n_kept:
        findings.append(Finding("splits", f"{n_kept} pictures keep the split that they had in {path}"))
    return kept


def _rejects_table(rejects: list[Reject]) -> pa.Table:
    rows = sorted((reject.path, str(reject.reason), reject.detail) for reject in rejects)
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * 3, schema=REJECTS)


def describe_source(info: SourceInfo, emotions: list[str]) -> dict[str, Any]:
    """Return what a manifest says of its source as a whole."""
    return {
        "source": info.name,
        "title": info.title,
        "license": info.license,
        "citation": info.citation,
        "url": info.url,
        "redistributable": info.redistributable,
        "evidence": info.evidence,
        "estimated": list(info.estimated),
        "scales": {name: [scale.low, scale.high] for name, scale in info.scales.items()},
        "subtypes": {
            code: {"name": subtype.name, "sign": subtype.sign, "upright": subtype.upright}
            for code, subtype in info.subtypes.items()
        },
        "groups": list(info.groups),
        "emotions": emotions,
        "decoders": pixel_versions(),
    }
