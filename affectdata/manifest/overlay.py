"""Put labels of one source onto images of others: a table whose rows reference images in manifests.

In: a table, the source that reads it, and manifests. Out: a manifest of the referenced images with the labels
of the table; rows that match no image are rejects. The images stay in the folders of their own sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import SourceError, UsageError
from affectdata.hashing import canonical_json
from affectdata.images.duplicates import assign_groups, find_edges_of_sorted
from affectdata.manifest.findings import group_findings
from affectdata.manifest.hints import fix_for, most_frequent_reason
from affectdata.manifest.ingest import IngestResult, check_replace, describe_source, recognise, write_tables
from affectdata.manifest.items import LABELS, Items
from affectdata.manifest.ledger import put_columns, read_ledger
from affectdata.manifest.manifest import Manifest, check_name
from affectdata.manifest.roots import read_local, record_root
from affectdata.manifest.several import read_columns, read_rows
from affectdata.reading.protocol import ReadOptions, Source, check_options, read_source
from affectdata.reading.tree import Paths, Tree, are_images
from affectdata.records import RATINGS, Reason, SourceInfo
from affectdata.registry import load_plugin
from affectdata.schema import FOLD, INTENSITY, manifest_schema, vote_columns
from affectdata.store.chunks import STREAM_ROWS, as_one_array
from affectdata.store.spill import Spill, iter_by_rank, with_ranks
from affectdata.workers import THREADS, default_workers

# Kept from the source of the image.
_OF_THE_IMAGE = ("source", "source_id", "path", "license", "url", "extra")
_SHARE = "emotion_"  # prefix of the column of an emotion
_SUFFIX = ".jpg"  # appended to the keys of images, so that the table finds them; no such file exists


def overlay(
    path: Path,
    onto: Sequence[Manifest],
    *,
    source: str | None = None,
    options: ReadOptions | None = None,
    out: Path = Path("manifests"),
    replace: bool = False,
    workers: int | None = None,
    engine: str = THREADS,
) -> IngestResult:
    """Put the labels of the table at `path` onto the images of manifests, and write them as one manifest.

    The table's rows reference images as `<source>/<source_id>`. Labels of the table replace those of the
    image's own source, which move into `extra` as `<source> <column>`; other labels are kept. A rating is
    replaced with its spread and scale; emotion, shares and agreement are replaced together.

    Raises:
        SourceError: the table does not exist, no source recognises it, or no row matches an image.
        UsageError: a manifest of that name was made from another folder, and `replace` is not set, or it is
            one of `onto`; or the source does not support an option.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file", fix="--onto takes labels from one table: give its path")
    table_only = Tree(path.parent, [path.name])
    name, why = (source, "as specified") if source else _recognise(table_only)
    plugin, options = cast(Source, load_plugin("sources", name)), options or ReadOptions()
    check_options(plugin.INFO, options)
    images = _Images.of(onto)
    files = Paths(pa.concat_arrays([pa.array([path.name]), images.references]))
    reading = read_source(plugin, replaced(table_only, files=files), options)
    check_name(reading.info.name)
    check_replace(out, reading.info.name, path.parent, replace)
    _check_target(out / f"{reading.info.name}.parquet", onto)
    items = Items(reading.info)
    for item in reading.items:
        items.add(item)
    if not len(items.labels):
        rejects = items.rejects_table()
        shown = rejects.slice(0, 3).to_pylist()
        details = "; ".join(f"{reject['path']}: {reject['detail']}" for reject in shown)
        is_missing = most_frequent_reason(rejects) in (None, Reason.MISSING_IMAGE)
        raise SourceError(
            f"no row of {path} matches an image of {', '.join(manifest.name for manifest in onto)}",
            where=details or str(path),
            fix="give the manifests of the images with --onto; rows reference images by source and id, "
            f"in a column map by `file: '{[*onto[0].sources, 'SOURCE'][0]}/{{key}}'`"
            if is_missing
            else fix_for(rejects) or "",
        )
    rows, order, used = _label_images(onto, images, items)
    edges = find_edges_of_sorted(rows, order, workers or default_workers(engine), engine)
    keys = pa.concat_tables(rows.read(["image_id", "group_id", "source", "subject_id"]))
    groups = assign_groups(keys, edges, ["group_id"]).select(["group_id"])
    emotions = sorted(name.removeprefix(_SHARE) for name in used if name.startswith(_SHARE))
    votes, has_folds = vote_columns(used), FOLD.name in used
    names = manifest_schema(emotions, has_folds, votes).names
    parts = (part.select(names) for part in put_columns(rows.read(), groups))
    metadata = _describe(describe_source(reading.info, emotions, votes), onto)
    items.has_splits = rows.column("split").null_count < len(rows)
    ledgers = [read_ledger(base.path) for base in onto]
    written = write_tables(parts, edges, items, metadata, out, has_folds, ledgers)
    record_root(out, reading.info.name, path.parent)
    for base in onto:
        for name in base.sources:
            if root := read_local(base.path.parent).get(name):
                record_root(out, name, Path(root))
    counts, findings = {**items.count(len(rows)), "annotation": 1}, group_findings(items.findings)
    return IngestResult(written, reading.info, why, counts, items.rejects_table(), findings)


def _check_target(target: Path, onto: Sequence[Manifest]) -> None:
    """Refuse to write the images with new labels in place of all images of a manifest.

    Raises:
        UsageError: the result has the path of a manifest that the labels are put onto.
    """
    if any(manifest.path.resolve() == target.resolve() for manifest in onto):
        raise UsageError(
            f"the result would replace {target}, whose images without a row in the table would be lost",
            where=f"the table and the manifest are both called {target.stem}",
            fix="give the table another name (`name` in its column map, or --name), or another --out",
        )


def _recognise(table: Tree) -> tuple[str, str]:
    try:
        return recognise(table)
    except SourceError as error:
        raise SourceError(
            f"no source recognises the table {table.files[0]}",
            where=str(table.root / table.files[0]),
            fix="name its source, such as --source capd, or describe it: --source table --map COLUMNS.yaml, "
            "where `file` is the source and id of an image: 'gaped/{key}'",
        ) from error


@dataclass(frozen=True, slots=True)
class _Images:
    """The images of manifests: `names` as `<source>/<source_id>`, a row each, and what a table finds them by.

    Of rows with equal `references` the last one counts, which is in `row`.
    """

    names: pa.ChunkedArray
    references: pa.Array
    row: np.ndarray

    @classmethod
    def of(cls, manifests: Sequence[Manifest]) -> _Images:
        """Read the names of all images."""
        keys = read_columns(manifests, ["source", "source_id"])
        names = pc.binary_join_element_wise(keys["source"], keys["source_id"], "/")
        found = pc.if_else(are_images(names), names, pc.binary_join_element_wise(names, _SUFFIX, ""))
        encoded = as_one_array(found).dictionary_encode()
        row = np.zeros(len(encoded.dictionary), np.int64)
        row[encoded.indices.to_numpy()] = np.arange(len(names))
        return cls(names, encoded.dictionary, row)


def _label_images(
    onto: Sequence[Manifest], images: _Images, items: Items
) -> tuple[Spill, np.ndarray, set[str]]:
    """Return a row per labelled image, by image_id; their order by reference; the columns with any value.

    Of several references to one image the first is used.
    """
    paths = items.labels.column("path")
    row = images.row[pc.index_in(paths, images.references).to_numpy()]
    ids = read_columns(onto, ["image_id"])["image_id"].take(pa.array(row))
    image = pc.rank(ids, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    by_path = pc.sort_indices(paths).to_numpy()
    first = by_path[np.unique(image[by_path], return_index=True)[1]]
    rank, rank_of_row = np.full(len(paths), -1), np.full(len(images.names), -1)
    rank[first] = rank_of_row[row[first]] = np.arange(len(first))
    for other in by_path[rank[by_path] < 0].tolist():
        kept = images.names[int(row[first[image[other]]])].as_py()
        items.merge(paths[other].as_py(), f"the same bytes as {kept}, which the table labels too")
    names = {name for manifest in onto for name in manifest.rows.column_names}
    emotions = {name.removeprefix(_SHARE) for name in names if name.startswith(_SHARE)} | {*items.emotions}
    schema = manifest_schema(emotions, FOLD.name in names, {*vote_columns(names), *items.votes})
    pairs = zip(
        iter_by_rank(with_ranks(read_rows(onto, schema), rank_of_row), schema, len(first)),
        iter_by_rank(with_ranks(items.labels.read(), rank), LABELS, len(first)),
        strict=True,
    )
    rows, used = Spill(schema), set[str]()
    for row in _label_rows(pairs, items.info):
        used.update(name for name, value in row.items() if value is not None)
        rows.add(row)
    return rows, rank[by_path][rank[by_path] >= 0], used


def _label_rows(pairs: Iterable[tuple[pa.Table, pa.Table]], info: SourceInfo) -> Iterator[dict[str, Any]]:
    """Yield the rows of images with new labels; a pair has images and the labels of the same."""
    for pair in pairs:
        for start in range(0, len(pair[0]), STREAM_ROWS):
            images, labels = (table.slice(start, STREAM_ROWS).to_pylist() for table in pair)
            for image, label in zip(images, labels, strict=True):
                yield _label(image, label, info)


def _label(image: dict[str, Any], label: dict[str, Any], info: SourceInfo) -> dict[str, Any]:
    """Return the row of an image with other labels, which are a row of `items.LABELS`."""
    shares = {_SHARE + emotion: share for emotion, share in label["emotions"]}
    intensities = {INTENSITY + emotion: value for emotion, value in label["intensities"]}
    labels = {**label, **shares, **intensities}
    new = {name: labels[name] for name in image if name not in _OF_THE_IMAGE and labels.get(name) is not None}
    prefixes = tuple(name for name in RATINGS if name in new)  # of columns that are replaced together
    if label["emotion"] or shares:
        prefixes += ("emotion", "agreement")
    if label["split"] not in (None, image["split"]):
        prefixes += (FOLD.name,)
    replaced_names = [name for name in image if name in new or name.startswith(prefixes)]
    earlier = {
        f"{image['source']} {name}": str(image[name]) for name in replaced_names if image[name] is not None
    }
    extra = {f"{info.name} {name}": cell for name, cell in json.loads(label["extra"]).items()}
    kept = {name: value for name, value in image.items() if name not in replaced_names}
    return {**kept, **new, "extra": canonical_json({**json.loads(image["extra"]), **earlier, **extra})}


def _estimated(part: dict[str, Any]) -> list[str]:
    return list(part.get("estimated", []))


def _describe(metadata: dict[str, Any], onto: Sequence[Manifest]) -> dict[str, Any]:
    """Add subtypes, groups and estimated columns of the images' own sources."""
    subtypes = {code: subtype for base in onto for code, subtype in base.metadata["subtypes"].items()}
    groups = sorted({column for base in onto for column in base.metadata["groups"]})
    return {
        **metadata,
        "subtypes": {**subtypes, **metadata["subtypes"]},
        "groups": sorted({*groups, *metadata["groups"]}),
        "estimated": sorted({column for base in onto for part in base.parts for column in _estimated(part)}),
    }
