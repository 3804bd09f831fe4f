"""From a source tree to a manifest: list, read the tables, look at every image, find duplicates, write.

In: a folder, and which source it is (recognised if not said). Out: `<name>.parquet`,
`<name>.rejects.parquet`, `<name>.edges.parquet` and, where images have splits, `<name>.ledger.parquet`.
Every file and every rating row is accounted for exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import AffectdataError, SourceError, UsageError
from affectdata.images.decode import pixel_versions
from affectdata.images.duplicates import MAX_BITS
from affectdata.images.probe import Probe
from affectdata.manifest.content import join_by_content
from affectdata.manifest.findings import find_against_sign, find_far_apart, find_undecided
from affectdata.manifest.items import Items, sweep
from affectdata.manifest.join import Joined, find_places, order_by_path, probe_all
from affectdata.manifest.ledger import Memory, keep_splits, merge_splits, recall_own
from affectdata.manifest.manifest import (
    KIND,
    Manifest,
    check_name,
    load_manifest,
    note_root,
    query_tables,
    read_local,
)
from affectdata.manifest.memo import Memo
from affectdata.manifest.unchanged import Ending, describe_state, note_ending, recall_ending
from affectdata.reading.archives import find_roots_in, is_archive, unpack
from affectdata.reading.indexes import compare_index, images_of, name_by_index
from affectdata.reading.protocol import (
    Link,
    ReadOptions,
    Source,
    check_options,
    detect_source,
    find_source_links,
    read_source,
)
from affectdata.reading.tree import Tree, is_junk, read_tree
from affectdata.records import RATINGS, Finding, Reason, SourceInfo
from affectdata.registry import find_plugins, load_plugin
from affectdata.schema import manifest_schema
from affectdata.store.parquet import (
    StoredTable,
    open_table,
    read_parts,
    read_table,
    write_batches,
    write_table,
)
from affectdata.workers import default_workers

_SHOWN = 5  # rejects named when nothing is left


@dataclass(frozen=True)
class IngestResult:
    """What came of a tree: where the manifest is, the five counts (they add up to `n_seen`), findings."""

    rows: StoredTable
    info: SourceInfo
    why: str
    counts: dict[str, int]
    rejects: pa.Table
    findings: list[Finding]

    @property
    def path(self) -> Path:
        """Where the manifest is."""
        return self.rows.path

    @property
    def digest(self) -> str:
        """The logical digest of the manifest."""
        return str(self.rows.metadata["digest"])

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read when it is asked for."""
        return load_manifest(self.path)

    def sql(self, query: str, *columns: str) -> pa.Table:
        """Run SQL over `rejects`, or over some columns as `manifest`, without reading the others."""
        tables = {"rejects": self.rejects}
        if columns:
            tables["manifest"] = self.rows.select(columns)
        return query_tables(tables, query)

    @property
    def n_seen(self) -> int:
        """Files under the root, and rating rows that found no file."""
        return sum(self.counts.values())


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

    `progress` is called with images done and images in all. `strict` rejects what a decoder warns about.
    Files that did not change since an earlier run, finished or interrupted, are not opened again, unless
    `rehash` is set. Images that the index of their source knows are labelled by content, the others by name.

    Raises:
        SourceError: no such folder, no source recognises it, or its tables are not what its layout says.
        UsageError: a manifest of that name was made from another folder, and `replace` is not set; or the
            source does not take an option.
    """
    unpacked = _unpack(root, source) if root.is_file() and is_archive(root) else None
    root = unpacked or root
    tree = read_tree(root, leave_out=out)
    options = options or ReadOptions()
    state = describe_state(tree, options, [source, strict, str(unpacked)])
    as_before = None if rehash else _recall(tree, options, out, state)
    if as_before:
        return as_before
    name, why = (source, "as said") if source else recognise(tree)
    plugin = cast(Source, load_plugin("sources", name))
    check_options(plugin.INFO, options)
    reading = read_source(plugin, tree, options)
    check_name(reading.info.name)
    check_replace(out, reading.info.name, root, replace)
    items = Items(reading.info)
    for item in reading.items:
        items.add(item)
    if not len(items.labels) and not len(items.rejects):
        raise SourceError(f"{root} holds no image and no rating of {name}", fix=_expected_layout(plugin.INFO))
    sweep(tree, items)
    index = images_of(name)
    paths, place = order_by_path(items, tree.images().array if index else None)
    indexed = tree if index else None
    del tree  # its paths, of which `paths` holds nearly all
    probe = Probe(str(root), strict)
    settings = {"strict": strict, "max_pixels": probe.max_pixels, "decoders": pixel_versions()}
    with Memo(out / f".{reading.info.name}.memo", root, paths, settings) as memo:
        probe_all(memo, probe, rehash, workers or default_workers(), progress)
        if indexed:
            items = join_by_content(plugin, indexed, options, items, memo, index)
            place = find_places(items, paths)
        if unpacked:
            items.findings.append(Finding("unpacked", f"keep {root}: the images are read there from now on"))
        joined = Joined(items, memo, place)
        if not len(joined):
            raise _nothing_kept(items, root, plugin.INFO, find_source_links(plugin, read_tree(root), options))
        edges = joined.find_edges()
        metadata = describe_source(reading.info, items.emotions)
        rows = write_tables(joined.rows(), edges, items, metadata, out)
        items.findings += _notice(rows, edges, items)
    note_root(out, reading.info.name, root)
    counts = items.count(len(joined))
    note_ending(out, reading.info.name, state, Ending(name, why, counts, items.findings))
    return IngestResult(rows, reading.info, why, counts, items.rejects_table(), items.findings)


def _recall(tree: Tree, options: ReadOptions, out: Path, state: str) -> IngestResult | None:
    """Return what an earlier run made, if one would make the same."""
    found = recall_ending(out, tree.root, state)
    if found is None:
        return None
    name, ending = found
    path = out / f"{name}.parquet"
    try:
        rows, rejects = open_table(path, KIND), read_table(path.with_suffix(".rejects.parquet"), "rejects")[0]
        info = read_source(load_plugin("sources", ending.plugin), tree, options).info
    except AffectdataError:  # every step is taken again, which says so
        return None
    return IngestResult(rows, info, ending.why, ending.counts, rejects, ending.findings)


def _unpack(archive: Path, source: str | None) -> Path:
    """Unpack an archive, and step into the folders that it wraps around the source."""
    roots = find_roots_in(unpack(archive))
    names = [source] if source else find_plugins("sources")
    plugins = [cast(Source, load_plugin("sources", name)) for name in names]
    known = (root for root in roots if any(detect_source(plugin, read_tree(root)) for plugin in plugins))
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
    found = [(plugin.INFO, detect_source(plugin, tree)) for plugin in plugins]
    specific = any(why for info, why in found if not info.generic)
    return [
        (info.name, why) for info, why in found if why and not (info.generic and (specific or not generic))
    ]


def _expected_layout(info: SourceInfo) -> str:
    return f"the layout of {info.name} is: {info.layout}"


def _nothing_kept(items: Items, root: Path, info: SourceInfo, links: list[Link]) -> SourceError:
    rejects = items.rejects_table()
    told = rejects.filter(pc.not_equal(rejects["reason"], Reason.JUNK))
    shown = "\n  ".join(": ".join(each.values()) for each in told.slice(0, _SHOWN).to_pylist())
    fix = f"names in a table are relative to the root; {_expected_layout(info)}"
    if info.overlay:
        fix = "ingest the databases that have the images, then: affectdata ingest TABLE --onto MANIFEST"
    elif links and Reason.MISSING_IMAGE in told["reason"].unique().to_pylist():
        fix = f"`affectdata download '{root}'` fetches images from the addresses in its tables"
    return SourceError(
        f"no image of {root} can be a row; nothing was written. Rejects: {len(told)}, such as:\n  {shown}",
        fix=fix,
    )


def check_replace(out: Path, name: str, root: Path, replace: bool) -> None:
    """Refuse to replace a manifest made from another folder, unless that is gone or `replace` is set."""
    noted = read_local(out).get(name)
    path = out / f"{name}.parquet"
    moved = noted and not Path(noted).is_dir()  # the images went elsewhere: this is the way to say so
    if path.exists() and noted and noted != str(root.resolve()) and not (replace or moved):
        raise UsageError(
            f"{path} was made from another folder",
            where=f"{noted}, now {root.resolve()}",
            fix="--replace to replace it, or another --out (--name, for sources without one) to keep both",
        )


def write_tables(
    rows: Iterable[pa.Table],
    edges: pa.Table,
    items: Items,
    metadata: dict[str, Any],
    out: Path,
    folds: bool = False,
    remembered: Sequence[pa.Table] = (),
) -> StoredTable:
    """Write a manifest, its rejects, edges and ledger; return the manifest as it is on disk.

    `items` gets findings: splits that stay. `folds` says that the rows have a column `fold`. Splits are
    inherited from the ledger of the manifest that was there, and from those that are `remembered` elsewhere.
    """
    path = out / f"{items.info.name}.parquet"
    schema = manifest_schema(metadata["emotions"], folds)
    own = recall_own(path, items.findings)
    memory = Memory(merge_splits([own, *remembered]), frozenset(metadata["groups"]))
    write_table(items.rejects_table(), path.with_suffix(".rejects.parquet"), "rejects")
    write_table(edges, path.with_suffix(".edges.parquet"), "edges", {"max_bits": MAX_BITS})
    if len(memory.rows) or items.has_splits:
        rows, any_fold = keep_splits(rows, schema, own, memory, path, items.findings)
        schema = manifest_schema(metadata["emotions"], folds or any_fold)
    write_batches(rows, schema, path, KIND, metadata)
    return open_table(path, KIND)


def _notice(rows: StoredTable, edges: pa.Table, items: Items) -> Iterator[Finding]:
    """Find what a person should look at in a manifest."""
    yield from compare_index(items.info.name, (part["image_id"] for part in read_parts(rows, ["image_id"])))
    yield from find_far_apart(read_parts(rows, ["image_id", "path", *RATINGS]), edges)
    yield from find_against_sign(read_parts(rows, ["subtype", "valence"]), items.info)
    shares = [f"emotion_{name}" for name in items.emotions]
    yield from find_undecided(read_parts(rows, ["emotion", *shares]), items.emotions)


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
