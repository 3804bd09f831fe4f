"""Put labels of one source onto images of others: a table whose rows reference images in manifests.

In: a table, the source that reads it, and manifests. Out: a manifest of the referenced images with the labels
of the table; rows that match no image are rejects. The images stay in the folders of their own sources.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from affectdata.errors import SourceError, UsageError
from affectdata.hashing import canonical_json
from affectdata.images.duplicates import assign_groups, find_edges
from affectdata.manifest.findings import group_findings
from affectdata.manifest.hints import fix_for, most_frequent_reason
from affectdata.manifest.ingest import IngestResult, check_replace, describe_source, recognise, write_tables
from affectdata.manifest.items import Items, columns_of, out_of_range
from affectdata.manifest.ledger import read_ledger
from affectdata.manifest.manifest import Manifest, check_name
from affectdata.manifest.roots import read_local, record_root
from affectdata.reading.protocol import ReadOptions, Source, check_options, read_source
from affectdata.reading.tree import Paths, Tree, is_image_name
from affectdata.records import Reason, Record, SourceInfo
from affectdata.registry import load_plugin
from affectdata.schema import FOLD, manifest_schema, vote_columns
from affectdata.workers import THREADS, default_workers

_OF_THE_IMAGE = (
    "source",
    "source_id",
    "license",
    "url",
    "extra",
)  # kept from the source of the image
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
    images = {_reference(row): row for manifest in onto for row in manifest.table.to_pylist()}
    reading = read_source(plugin, replaced(table_only, files=Paths([path.name, *images])), options)
    check_name(reading.info.name)
    check_replace(out, reading.info.name, path.parent, replace)
    _check_target(out / f"{reading.info.name}.parquet", onto)
    items, records = Items(reading.info), []
    for item in reading.items:
        if isinstance(item, Record) and not out_of_range(item, reading.info):
            records.append(item)
        else:
            items.add(item)
    if not records:
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
    table = _build(sorted(records, key=lambda record: record.path), items, images)
    emotions = [name.removeprefix(_SHARE) for name in table.column_names if name.startswith(_SHARE)]
    edges = find_edges(table, workers=workers or default_workers(engine), engine=engine)
    table = assign_groups(table, edges, ["group_id"]).sort_by("image_id")
    metadata = _describe(describe_source(reading.info, emotions, vote_columns(table.column_names)), onto)
    items.has_splits = table["split"].null_count < len(table)
    folds, ledgers = FOLD.name in table.column_names, [read_ledger(base.path) for base in onto]
    written = write_tables([table], edges, items, metadata, out, folds, ledgers)
    record_root(out, reading.info.name, path.parent)
    for base in onto:
        for name in base.sources:
            if root := read_local(base.path.parent).get(name):
                record_root(out, name, Path(root))
    counts, findings = {**items.count(len(table)), "annotation": 1}, group_findings(items.findings)
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


def _reference(row: dict[str, Any]) -> str:
    """Return the key by which a table references an image."""
    key = f"{row['source']}/{row['source_id']}"
    return key if is_image_name(key) else key + _SUFFIX


def _build(records: list[Record], items: Items, images: dict[str, dict[str, Any]]) -> pa.Table:
    """Return the rows; of several references to one image the first is used."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = _label(images[record.path], record, items.info)
        kept = rows.setdefault(row["image_id"], row)
        if kept is not row:
            reference = f"{kept['source']}/{kept['source_id']}"
            items.merge(record.path, f"the same bytes as {reference}, which the table labels too")
    used = {name for row in rows.values() for name, value in row.items() if value is not None}
    emotions = {name.removeprefix(_SHARE) for name in used if name.startswith(_SHARE)}
    schema = manifest_schema(emotions, folds=FOLD.name in used, votes=vote_columns(used))
    return pa.Table.from_pylist(list(rows.values()), schema=schema)


def _label(image: dict[str, Any], record: Record, info: SourceInfo) -> dict[str, Any]:
    labels = {name: value for name, value in columns_of(record, info).items() if value is not None}
    new = {name: value for name, value in labels.items() if name not in _OF_THE_IMAGE}
    prefixes = tuple(record.ratings)  # of columns that are replaced together
    if record.emotion or record.emotions:
        prefixes += ("emotion", "agreement")
    if record.split not in (None, image["split"]):
        prefixes += (FOLD.name,)
    replaced_names = [name for name in image if name in new or name.startswith(prefixes)]
    earlier = {
        f"{image['source']} {name}": str(image[name]) for name in replaced_names if image[name] is not None
    }
    extra = {f"{info.name} {name}": cell for name, cell in record.extra.items()}
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
