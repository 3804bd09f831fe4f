"""Write a release's tables, card and release.json beside its images, a few thousand rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from affectdata.images.decode import pixel_versions
from affectdata.manifest.ledger import KIND as LEDGER
from affectdata.manifest.manifest import Manifest
from affectdata.plan.labelling import counted_emotions
from affectdata.plan.plan import Plan
from affectdata.recipe.recipe import Recipe
from affectdata.release.card import data_card
from affectdata.release.croissant import CROISSANT_FILE, describe
from affectdata.release.info import CONTENT_HASH, info_hash
from affectdata.release.release import (
    CARD_FILE,
    INFO_FILE,
    KIND,
    LEDGER_FILE,
    METADATA_KIND,
    RECIPE_FILE,
    SCHEMA,
    SUMS_FILE,
    split_file,
    split_metadata,
    table_file,
)
from affectdata.release.terms import combine_terms
from affectdata.render.render import CANARY_DRAWS, RENDER_VERSION
from affectdata.schema import FOLD, RENDERED, release_schema
from affectdata.splits.assign import SPLITS
from affectdata.store.atomic import replace_file, write_json, write_text
from affectdata.store.files import hash_file
from affectdata.store.listing import find_empty_folders, find_unlisted_files
from affectdata.store.parquet import (
    Rows,
    StoredTable,
    distinct,
    open_table,
    read_parts,
    write_batches,
    write_table,
)
from affectdata.store.spill import Spill
from affectdata.store.text_set import StringHashSet


def write_release(
    partial: Path,
    manifests: Sequence[Manifest],
    rows: pa.Table,
    plan: Plan,
    rendered: Spill,
    recipe: Recipe,
    known: dict[str, Any],
) -> None:
    """Write everything but the images; release.json last.

    `rows` are the source rows as planned (split, folds, labels); all other columns come from the manifests.
    `rendered` (schema.RENDERED and more) has the rows of the plan; `known` has more fields of release.json.
    """
    info = {**_describe(manifests, rows, plan, recipe), **known}
    schema = _schema(manifests, rows, plan)
    batches = _iter_rows(manifests, rows, plan, rendered.read(RENDERED.names), schema)
    path = partial / table_file(recipe.mode)
    write_batches(batches, schema, path, KIND, {"release": info["id"]})
    table = open_table(path, KIND)
    _write_split_tables(partial, table, recipe.mode)
    document = yaml.safe_dump(recipe.document(), sort_keys=False, allow_unicode=True)
    write_text(partial / RECIPE_FILE, document)
    write_text(partial / CARD_FILE, data_card(info, table))
    suffix = recipe.image.suffix if recipe.mode == "files" else None
    info["ledger_sha256"] = None
    if len(plan.held_out):
        write_table(plan.held_out, partial / LEDGER_FILE, LEDGER)
        info["ledger_sha256"] = hash_file(partial / LEDGER_FILE)
    write_json(partial / CROISSANT_FILE, describe(info, schema, path, table_file(recipe.mode), suffix))
    info["sums_sha256"] = _write_sums(partial, table, recipe.mode)
    info[CONTENT_HASH] = info_hash(info)
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    write_json(partial / INFO_FILE, {**info, "created": created})


def _schema(manifests: Sequence[Manifest], rows: pa.Table, plan: Plan) -> pa.Schema:
    """Return the schema of the release: columns of the manifests, of the planned rows, and of the plan."""
    source = pa.unify_schemas([manifest.rows.schema for manifest in manifests])
    folds = [FOLD] if FOLD.name in plan.table.column_names else []
    fields = [*folds, *(field for field in source if field.name != FOLD.name)]
    names = {field.name for field in fields}
    planned = [field for field in rows.schema if field.name not in names and field.name != FOLD.name]
    return release_schema(pa.schema([*fields, *planned]))


def _iter_rows(
    manifests: Sequence[Manifest], rows: pa.Table, plan: Plan, rendered: Iterable[pa.Table], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the rows of the release, in the parts of `rendered`."""
    available = {*plan.table.column_names, *RENDERED.names, *rows.column_names}
    rest = [name for name in schema.names if name not in available]
    readers = [_SequentialReader(manifest.rows, rest) for manifest in manifests]
    start = 0
    for part in rendered:
        source = rows.take(plan.rows.slice(start, len(part)))
        parts = [source, plan.table.slice(start, len(part)), part]
        start += len(part)
        if rest:
            tables = [reader.take(source["image_id"]) for reader in readers]
            more = pa.concat_tables(tables, promote_options="default")
            # For an image in two manifests: the row of the source that was planned.
            parts.append(more.take(pc.index_in(_key(source), _key(more))))
        columns = {name: table[name] for table in parts for name in table.column_names}
        nulls = pa.nulls(len(source))
        yield pa.table({name: columns.get(name, nulls) for name in schema.names})


def _key(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["image_id"], table["source"], "/")


class _SequentialReader:
    """Reads the rows of a manifest once, front to back, for requests with ascending ids."""

    def __init__(self, rows: Rows, columns: list[str]) -> None:
        names = [name for name in rows.column_names if name in {"image_id", "source", *columns}]
        if isinstance(rows, pa.Table):  # built in memory, in any order
            rows = rows.select(names).sort_by("image_id")
        self._parts = read_parts(rows, names)
        self._buffer = pa.schema([field for field in rows.schema if field.name in names]).empty_table()

    def take(self, ids: pa.ChunkedArray) -> pa.Table:
        """Return the rows of these images, which may be fewer than `ids`."""
        last = ids[-1]
        while not len(self._buffer) or pc.less(self._buffer["image_id"][-1], last).as_py():
            part = next(self._parts, None)
            if part is None:
                break
            self._buffer = pa.concat_tables([self._buffer, part])
        rows = self._buffer.filter(pc.is_in(self._buffer["image_id"], ids.combine_chunks()))
        self._buffer = self._buffer.filter(pc.greater_equal(self._buffer["image_id"], last)).combine_chunks()
        return rows


def _write_split_tables(partial: Path, table: StoredTable, mode: str) -> None:
    used = distinct(table, "split")
    for split in SPLITS:
        if split in used:
            path = partial / split_file(mode, split)
            write_batches(split_metadata(table, split), table.schema, path, METADATA_KIND)
        elif mode == "files":
            (partial / split).rmdir()


def _write_sums(partial: Path, table: StoredTable, mode: str) -> str:
    """Remove leftovers of a killed run, write SHA256SUMS (tables first) and return its hash."""
    candidates = (
        *(table_file(mode), LEDGER_FILE, RECIPE_FILE, CARD_FILE, CROISSANT_FILE),
        *(split_file(mode, split) for split in SPLITS),
    )
    names = [name for name in candidates if (partial / name).is_file()]
    hashes = [hash_file(partial / name) for name in names]
    tables = pa.table([pa.array(names), pa.array(hashes)], names=["file_name", "file_sha256"])

    def iter_files() -> Iterator[pa.Table]:
        yield tables
        if mode == "files":
            yield from read_parts(table, tables.column_names)

    listed = StringHashSet(part["file_name"].to_pylist() for part in iter_files())
    for name in find_unlisted_files(partial, listed):
        (partial / name).unlink()
    for name in reversed(find_empty_folders(partial)):
        (partial / name).rmdir()
    digest = hashlib.sha256()
    with replace_file(partial / SUMS_FILE) as temporary, temporary.open("wb") as file:
        for part in iter_files():
            lines = pc.binary_join_element_wise(part["file_sha256"], part["file_name"], "  ").to_pylist()
            data = "".join(f"{line}\n" for line in lines).encode()
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def _describe(manifests: Sequence[Manifest], rows: pa.Table, plan: Plan, recipe: Recipe) -> dict[str, Any]:
    """Return the fields of release.json about the plan, the recipe and the machine."""
    counts = {row["values"]: row["counts"] for row in plan.table["split"].value_counts().to_pylist()}
    requested = {name: 0 for name in SPLITS[1:] if recipe.needs_split(name)}  # may be empty: too few groups
    copies = pc.sum(pc.greater(plan.table["copy"], 0)).as_py() or 0
    return {
        "schema": SCHEMA,
        "name": recipe.name,
        "mode": recipe.mode,
        "recipe_sha256": recipe.digest,
        "manifests": [
            {"name": manifest.name, "digest": manifest.digest, **part}
            for manifest in manifests
            for part in manifest.parts
        ],
        "terms": _terms(manifests, rows, plan),
        "lexicon": _lexicon(rows, recipe),
        "target": recipe.target,
        "rows": requested | counts,
        "folds": recipe.split.folds if recipe.split != "none" else None,
        "originals": len(plan.table) - copies,
        "copies": copies,
        "balance": plan.summary(),
        "versions": pixel_versions(),
        "render_version": RENDER_VERSION,
        "cpu_features": cv2.getCPUFeaturesLine(),
        "canary_draws": CANARY_DRAWS,
    }


def _lexicon(rows: pa.Table, recipe: Recipe) -> dict[str, Any] | None:
    """Return the lexicon, and the words of it, that the derived columns come from."""
    if recipe.labels is None or recipe.labels.lexicon is None:
        return None
    words = sorted(set().union(*counted_emotions(rows, recipe.labels)))
    return {**recipe.labels.lexicon.model_dump(), "words": words}


def _terms(manifests: Sequence[Manifest], rows: pa.Table, plan: Plan) -> dict[str, Any]:
    """Return the combined terms of all images, from the licences in the rows."""
    licenses = pc.fill_null(rows["license"].take(plan.rows), "not stated")
    images = {row["values"]: row["counts"] for row in licenses.value_counts().to_pylist()}
    redistributable = all(part["redistributable"] for manifest in manifests for part in manifest.parts)
    return combine_terms(images, redistributable)
