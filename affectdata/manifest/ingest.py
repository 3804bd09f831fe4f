"""Ingest a source tree: list its files, read the tables, probe every image, find duplicates, write.

In: a folder and its source (recognised if not given). Out: `<name>.parquet`, `<name>.rejects.parquet`,
`<name>.edges.parquet` and, if images have splits, `<name>.ledger.parquet`. Every file and every rating row is
counted exactly once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import AffectdataError, SourceError, UsageError
from affectdata.images.decode import pixel_versions
from affectdata.images.hamming import MAX_BITS
from affectdata.images.probe import PROBED, Probe
from affectdata.manifest.content import join_by_content
from affectdata.manifest.findings import (
    LABEL_COLUMNS,
    QUALITY_COLUMNS,
    find_against_sign,
    find_bad_quality,
    find_far_apart,
    find_undecided,
    find_unlabelled,
    group_findings,
)
from affectdata.manifest.hints import explain, fix_for, most_frequent_reason
from affectdata.manifest.items import Items, add_unnamed_files
from affectdata.manifest.join import RecordJoin, find_indices, order_by_path, probe_all
from affectdata.manifest.ledger import Memory, inherit_and_record_splits, merge_splits, read_own_splits
from affectdata.manifest.manifest import KIND, Manifest, check_name, load_manifest
from affectdata.manifest.memo import Memo, stamp_files
from affectdata.manifest.roots import read_local, record_root
from affectdata.manifest.unchanged import CachedResult, fingerprint, read_cached_result, write_cached_result
from affectdata.reading.archives import find_archives, find_roots_in, is_archive, unpack
from affectdata.reading.indexes import load_index, name_by_index
from affectdata.reading.links import check_links
from affectdata.reading.protocol import (
    Link,
    ReadOptions,
    Source,
    check_options,
    detect_source,
    find_source_links,
    read_source,
)
from affectdata.reading.tables import TABLE_SUFFIXES
from affectdata.reading.tree import Tree, is_junk, name_junk, read_tree
from affectdata.reading.unread import name_unread_layout
from affectdata.records import RATINGS, Finding, Reason, SourceInfo, count_text, shorten
from affectdata.registry import is_outside, load_plugin, load_usable, warn_skipped
from affectdata.schema import manifest_schema
from affectdata.store.parquet import (
    StoredTable,
    open_table,
    read_parts,
    read_table,
    write_batches,
    write_table,
)
from affectdata.workers import THREADS, default_workers

_SHOWN = 5  # rejects listed when no image is kept


@dataclass(frozen=True)
class IngestResult:
    """Result of `ingest`: the manifest on disk, five counts (they add up to `n_seen`), rejects, findings."""

    rows: StoredTable
    info: SourceInfo
    why: str
    counts: dict[str, int]
    rejects: pa.Table
    findings: list[Finding]

    @property
    def path(self) -> Path:
        """The path of the manifest."""
        return self.rows.path

    @property
    def digest(self) -> str:
        """The logical digest of the manifest."""
        return str(self.rows.metadata["digest"])

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read on first access."""
        return load_manifest(self.path)

    def count(self, column: str) -> dict[str, int]:
        """Count the images by the values of a column, sorted; nulls are left out."""
        counts = self.rows.select([column])[column].drop_null().value_counts().to_pylist()
        return dict(sorted((row["values"], row["counts"]) for row in counts))

    def valence_histogram(self) -> list[int]:
        """Count the images in ten bins of valence, [0, 10) to [90, 100]."""
        valence = self.rows.select(["valence"])["valence"].drop_null().to_numpy()
        bins = np.bincount(np.minimum(valence // 10, 9).astype(int), minlength=10)
        return [int(n) for n in bins]

    @cached_property
    def rejects_without_junk(self) -> pa.Table:
        """The rejects that a user may want to look at, sorted by path."""
        return self.rejects.filter(pc.not_equal(self.rejects["reason"], Reason.JUNK))

    def junk(self) -> dict[str, int]:
        """Count the junk by kind, the most frequent first."""
        junk = self.rejects.filter(pc.equal(self.rejects["reason"], Reason.JUNK))
        return dict(Counter(map(name_junk, junk["path"].to_pylist())).most_common())

    @property
    def fix(self) -> str | None:
        """The most frequent reason, and what to do about it; None if nothing is known."""
        fix = fix_for(self.rejects)
        return fix and f"{most_frequent_reason(self.rejects)}: {fix}"

    def reasons(self) -> dict[str, int]:
        """Count the rejects by reason, sorted; junk is left out."""
        counts = self.rejects_without_junk["reason"].value_counts().to_pylist()
        return dict(sorted((row["values"], row["counts"]) for row in counts))

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {kind}" for kind, n in self.counts.items())
        return f"<IngestResult {self.path}: {counts}>"

    @property
    def n_seen(self) -> int:
        """Number of files under the root and of rating rows without a file."""
        return sum(self.counts.values())


def ingest(
    root: Path,
    *,
    source: str | None = None,
    options: ReadOptions | None = None,
    out: Path = Path("manifests"),
    workers: int | None = None,
    engine: str = THREADS,
    strict: bool = False,
    replace: bool = False,
    rehash: bool = False,
    trust_names: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> IngestResult:
    """Turn a source tree into a manifest under `out`; an archive is first unpacked beside itself.

    `progress` is called with the number of images done and of all images. `strict` rejects images with a
    decoder warning, and refuses tables with votes that cannot be used. Files that did not change since an
    earlier run, finished or interrupted, are not opened again, unless `rehash` is set. Images in the index of
    their source are labelled by content, others by name; with `trust_names`, also those that look different
    from the indexed image of that name.

    Raises:
        SourceError: the folder does not exist, no source recognises it, or its tables break the layout.
        UsageError: a manifest of that name was made from another folder, and `replace` is not set; or the
            source does not support an option.
    """
    unpacked = _unpack(root, source) if root.is_file() and is_archive(root) else None
    root = unpacked or root
    tree = read_tree(root, leave_out=out)
    check_links(tree)
    options = replaced(options or ReadOptions(), strict=strict)
    state = fingerprint(tree, options, [source, strict, str(unpacked), trust_names])
    cached = None if rehash else _read_cached(tree, options, out, state)
    if cached:
        return cached
    required = load_plugin("sources", source) if source else None
    with explain(tree, partial(_first_match, source=source)):
        name, why = (source, "as specified") if source else recognise(tree)
        plugin = cast(Source, required or load_plugin("sources", name))
        check_options(plugin.INFO, options)
        reading = read_source(plugin, tree, options)
        check_name(reading.info.name)
        check_replace(out, reading.info.name, root, replace)
        items = Items(reading.info)
        for item in reading.items:
            items.add(item)
        if not len(items.labels) and not len(items.rejects):
            raise SourceError(
                f"{root} contains no image and no rating of {name}", fix=_expected_layout(plugin.INFO)
            )
    add_unnamed_files(tree, items)
    items.findings += _find_archives(tree, items)
    index = load_index(name)
    if trust_names and not index:
        raise UsageError(f"--trust-names has no effect: there is no index of {name}", fix="remove it")
    paths, index_of = order_by_path(items, tree.images().array if index else None)
    indexed = tree if index else None
    del tree  # frees its paths; `paths` has nearly all of them
    probe = Probe(str(root), strict)
    settings = {"strict": strict, "max_pixels": probe.max_pixels, "decoders": pixel_versions()}
    settings["columns"] = PROBED.names
    n_workers = workers or default_workers(engine)
    stamps = stamp_files(root, paths, n_workers, engine)
    with Memo(out / f".{reading.info.name}.memo", paths, stamps, settings) as memo:
        probe_all(memo, probe, rehash, n_workers, progress, engine)
        if index and indexed:
            items = join_by_content(plugin, indexed, options, items, memo, index, trust_names)
            index_of = find_indices(items, paths)
        if unpacked:
            items.findings.append(Finding("unpacked", f"keep {root}: the images are read from there"))
        joined = RecordJoin(items, memo, index_of)
        if not len(joined):
            raise _no_image_kept(
                items, root, plugin.INFO, find_source_links(plugin, read_tree(root), options)
            )
        edges = joined.find_edges(n_workers, engine)
        metadata = describe_source(reading.info, items.emotions, items.votes)
        rows = write_tables(joined.rows(), edges, items, metadata, out)
        items.findings += _find_warnings(rows, edges, items)
    findings = group_findings(items.findings)
    record_root(out, reading.info.name, root)
    counts = items.count(len(joined))
    result = CachedResult(name, why, counts, findings)
    write_cached_result(out, reading.info.name, state, result)
    return IngestResult(rows, reading.info, why, counts, items.rejects_table(), findings)


def _read_cached(tree: Tree, options: ReadOptions, out: Path, state: str) -> IngestResult | None:
    """Return the result of an earlier run with the same fingerprint, if there is one."""
    entry = read_cached_result(out, tree.root, state)
    if entry is None:
        return None
    name, cached = entry
    path = out / f"{name}.parquet"
    try:
        rows, rejects = open_table(path, KIND), read_table(path.with_suffix(".rejects.parquet"), "rejects")[0]
        info = read_source(load_plugin("sources", cached.plugin), tree, options).info
    except AffectdataError:  # a full run will report it
        return None
    return IngestResult(rows, info, cached.why, cached.counts, rejects, cached.findings)


def _unpack(archive: Path, source: str | None) -> Path:
    """Unpack an archive and return the folder of the source in it.

    Raises:
        SourceError: it is a webdataset shard, which is read in place.
    """
    shards = cast(Source, load_plugin("sources", "webdataset"))
    if why := detect_source(shards, Tree(archive.parent, [archive.name])):
        raise SourceError(
            f"{archive} is a webdataset shard, not an archive of a source ({why})",
            fix=f"pass the folder with all shards: affectdata ingest '{archive.parent}'",
        )
    roots = find_roots_in(unpack(archive))
    plugins = {source: load_plugin("sources", source)} if source else load_usable("sources")
    known = (root for root in roots if any(why for _, why in _ask(plugins, read_tree(root), source)))
    return next(known, roots[-1])


def recognise(tree: Tree) -> tuple[str, str]:
    """Return the source that recognises a tree, and why.

    Raises:
        SourceError: no source or several sources recognise it, or one recognises only a folder inside it.
    """
    matches = _detect(tree)
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"{name} ({why})" for name, why in matches)
        raise SourceError(
            f"{tree.root} matches several sources: {names}", fix="choose one with --source NAME"
        )
    folders = sorted({path.split("/")[0] for path in tree.files if "/" in path})
    has_siblings = len({path.split("/")[0] for path in tree.files if not is_junk(path)}) > 1
    for folder in folders:
        inside = _detect(
            read_tree(tree.root / folder), generic=not has_siblings
        )  # else the siblings would be lost
        if inside:
            raise SourceError(
                f"{tree.root} is not a source, but its folder {folder} looks like {inside[0][0]}",
                fix=f"affectdata ingest '{tree.root / folder}'",
            )
    unread = name_unread_layout(tree)
    if unread:
        raise SourceError(f"{tree.root} has {unread[0]}", where=str(tree.root), fix=unread[1])
    tables = [path for path in tree.others() if Path(path).suffix.lower() in TABLE_SUFFIXES]
    own = f"a table of your own ({shorten(tables)})" if tables else "a table of your own"
    raise SourceError(
        f"no source recognises {tree.root} ({count_text(len(tree.files), 'file')})",
        where=name_by_index(tree) or "",
        fix="name the source with --source NAME (`affectdata sources` lists them with their layouts); "
        f"for {own}: --source table --map COLUMNS.yaml; for a folder per class: --source image_folder",
    )


def _detect(tree: Tree, generic: bool = True) -> list[tuple[str, str]]:
    """Return the sources that recognise a tree, and why; generic ones only if no specific one does."""
    matches = list(_ask(load_usable("sources"), tree))
    specific = any(why for info, why in matches if not info.generic)
    return [
        (info.name, why) for info, why in matches if why and not (info.generic and (specific or not generic))
    ]


def _ask(
    plugins: Mapping[str, Source], tree: Tree, required: str | None = None
) -> Iterator[tuple[SourceInfo, str | None]]:
    """Yield of each source why it recognises a tree; sources of other packages that fail are skipped.

    Raises:
        SourceError: a source of this package failed, or the required one.
    """
    for name, plugin in plugins.items():
        try:
            yield plugin.INFO, detect_source(plugin, tree)
        except SourceError as error:
            if name == required or not is_outside("sources", name):
                raise
            warn_skipped("sources", name, error.what)


def _first_match(tree: Tree, source: str | None) -> tuple[str, bool] | None:
    """Return the source that recognises a tree, and whether it is generic; with `source`, only this one."""
    matches = [name for name, _ in _detect(tree) if source in (None, name)]
    return (matches[0], load_plugin("sources", matches[0]).INFO.generic) if matches else None


def _find_archives(tree: Tree, items: Items) -> Iterator[Finding]:
    """Report the archives in a tree that are not part of the source."""
    archives = find_archives(tree)
    if archives:
        junk = {
            row["path"]
            for part in items.rejects.read()
            for row in part.to_pylist()
            if row["reason"] == "junk"
        }
        archives = [path for path in archives if path in junk]
    if archives:
        text = f"not unpacked: {count_text(len(archives), 'archive')} in the folder: {shorten(archives)}"
        yield Finding("archives", f"{text}; unpack them there if they have images")


def _expected_layout(info: SourceInfo) -> str:
    return f"the layout of {info.name} is: {info.layout}"


def _no_image_kept(items: Items, root: Path, info: SourceInfo, links: list[Link]) -> SourceError:
    rejects = items.rejects_table()
    listed = rejects.filter(pc.not_equal(rejects["reason"], Reason.JUNK))
    shown = "\n  ".join(": ".join(row.values()) for row in listed.slice(0, _SHOWN).to_pylist())
    fix = "; ".join(filter(None, [fix_for(rejects), _expected_layout(info)]))
    if info.overlay:
        fix = "first ingest the databases with the images, then: affectdata ingest TABLE --onto MANIFEST"
    elif links and most_frequent_reason(rejects) == Reason.MISSING_IMAGE:
        fix = f"`affectdata download '{root}'` fetches images from the URLs in its tables"
    return SourceError(
        f"no image of {root} can be used; nothing was written. Rejects: {len(listed)}, such as:\n  {shown}",
        fix=fix,
    )


def check_replace(out: Path, name: str, root: Path, replace: bool) -> None:
    """Refuse to replace a manifest made from another existing folder, unless `replace` is set."""
    recorded = read_local(out).get(name)
    path = out / f"{name}.parquet"
    moved = recorded and not Path(recorded).is_dir()  # ingesting again is how to record the new folder
    if path.exists() and recorded and recorded != str(root.resolve()) and not (replace or moved):
        raise UsageError(
            f"{path} was made from another folder",
            where=f"{recorded}, now {root.resolve()}",
            fix="replace it with --replace, or keep both with another --out (or --name, for generic sources)",
        )


def write_tables(
    rows: Iterable[pa.Table],
    edges: pa.Table,
    items: Items,
    metadata: dict[str, Any],
    out: Path,
    folds: bool = False,
    ledgers: Sequence[pa.Table] = (),
) -> StoredTable:
    """Write a manifest, its rejects, edges and ledger; return the manifest on disk.

    Findings about inherited splits are added to `items`. `folds`: the rows have a column `fold`. Splits are
    inherited from the existing manifest of that name, its ledger, and other `ledgers`.
    """
    path = out / f"{items.info.name}.parquet"
    votes = metadata.get("votes", [])
    schema = manifest_schema(metadata["emotions"], folds, votes)
    own = read_own_splits(path, items.findings)
    memory = Memory(merge_splits([own, *ledgers]), frozenset(metadata["groups"]))
    write_table(items.rejects_table(), path.with_suffix(".rejects.parquet"), "rejects")
    write_table(edges, path.with_suffix(".edges.parquet"), "edges", {"max_bits": MAX_BITS})
    if len(memory.rows) or items.has_splits:
        rows, any_fold = inherit_and_record_splits(rows, schema, own, memory, path, items.findings)
        schema = manifest_schema(metadata["emotions"], folds or any_fold, votes)
    write_batches(rows, schema, path, KIND, metadata)
    return open_table(path, KIND)


def _find_warnings(rows: StoredTable, edges: pa.Table, items: Items) -> Iterator[Finding]:
    """Find valid but suspicious rows of a manifest."""
    yield from find_far_apart(read_parts(rows, ["image_id", "path", *RATINGS]), edges)
    yield from find_against_sign(read_parts(rows, ["subtype", "valence", "path"]), items.info)
    yield from find_bad_quality(read_parts(rows, ["path", *QUALITY_COLUMNS]))
    shares = [f"emotion_{name}" for name in items.emotions]
    yield from find_undecided(read_parts(rows, ["emotion", "path", *shares]), items.emotions)
    yield from find_unlabelled(read_parts(rows, ["path", *LABEL_COLUMNS, *shares, *items.votes]))


def describe_source(info: SourceInfo, emotions: list[str], votes: list[str]) -> dict[str, Any]:
    """Return the metadata of a manifest about its source; `votes` are its optional columns."""
    return {
        "source": info.name,
        "title": info.title,
        "license": info.license,
        "citation": info.citation,
        "bibtex": info.bibtex.strip(),
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
        **({"votes": votes} if votes else {}),
        "decoders": pixel_versions(),
    }
