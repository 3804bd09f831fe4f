"""Publish a release: render its plan into a hidden folder, write the tables, give it its name at once.

An interrupted run leaves the hidden folder with a journal of what it wrote; the same command goes on from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from affectdata.balance.card import data_card
from affectdata.balance.drift import FEATURES, LOOKS, OverBound, changes, look_of, measure_drift, over_bound
from affectdata.balance.recipe import Recipe
from affectdata.balance.render import RENDER_VERSION, RenderSamples, canaries
from affectdata.errors import IntegrityError, ManifestError, RecipeError
from affectdata.hashing import canonical_json, file_hash
from affectdata.imaging import pixel_versions
from affectdata.manifest import Manifest, Pictures
from affectdata.plan import Plan
from affectdata.release import (
    CARD_FILE,
    INFO_FILE,
    KIND,
    METADATA_FILE,
    METADATA_KIND,
    RECIPE_FILE,
    SCHEMA,
    SUMS_FILE,
    TABLE_FILE,
    Release,
    check_release,
    open_release,
    split_metadata,
)
from affectdata.schema import RENDERED, release_schema
from affectdata.split import SPLITS
from affectdata.tables import locked_folder, read_table, table_digest, write_json, write_table, write_text
from affectdata.terms import combine_terms
from affectdata.workers import default_workers, map_ordered

_BATCH = 24  # rows rendered per call
_JOURNAL = ".journal"
_BLAME_PICTURES = 16  # on which each transform of a pipeline is tried alone
_WRITTEN = pa.schema([*RENDERED, *LOOKS])


@dataclass(frozen=True, slots=True)
class WriteSamples:
    """Render a batch and write its files under `folder`; returns `schema.RENDERED` and the look of each.

    Without a folder nothing is written: a virtual release only notes what its pictures are.
    """

    render: RenderSamples
    folder: str | None

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for row, rgb in self.render.draw(batch):
            data = self.render.encode(rgb)
            name = f"{row['split']}/{row['sample_id']}{self.render.image.suffix}"
            if self.folder is not None:
                Path(self.folder, name).write_bytes(data)
            file = (name, file_hash(data), len(data), rgb.shape[1], rgb.shape[0])
            rows.append((row["sample_id"], *file, *look_of(rgb)))
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=_WRITTEN)


def release_id(manifests: Sequence[Manifest], recipe: Recipe, plan: Plan) -> str:
    """Return the SHA-256 over everything that decides a release's content.

    The plan follows from manifests and recipe, unless splits were taken over from an earlier release.
    """
    parts = {
        "manifests": sorted(manifest.digest for manifest in manifests),
        "recipe": recipe.document(),
        "plan": table_digest(plan.table),
        "pixels": pixel_versions(),
        "render": RENDER_VERSION,
    }
    return file_hash(canonical_json(parts).encode())


def publish_release(
    manifests: Sequence[Manifest],
    rows: pa.Table,
    plan: Plan,
    recipe: Recipe,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Release, bool]:
    """Render a plan into `folder/<recipe>-<first 8 of the id>` and return the release, and if it is new.

    `rows` are the manifests' rows that the plan was made from. An interrupted run goes on where it stopped; a
    release that is there already is verified and returned.

    Raises:
        IntegrityError: a source picture is not the one that was ingested, or the release there is damaged.
        UsageError: another run is writing the same release.
    """
    identity = release_id(manifests, recipe, plan)
    target = folder / f"{recipe.name}-{identity[:8]}"
    partial = folder / f".{target.name}.partial"
    if target.exists():
        return _verified(target), False
    table = _joined(plan, rows)
    render = RenderSamples(_pictures(manifests), recipe.image, recipe.pipelines)
    with locked_folder(partial, wait=False):
        if target.exists():  # another run was first
            shutil.rmtree(partial)
            return _verified(target), False
        write = WriteSamples(render, str(partial) if recipe.mode == "files" else None)
        rendered = _render_all(table, write, partial, workers or default_workers(), progress)
        drift = measure_drift(table, rendered.select(LOOKS.names))
        try:
            _check_drift(drift, table, render, recipe)
        except RecipeError:
            shutil.rmtree(partial)
            raise
        _write_tables(partial, table, rendered, manifests, plan, recipe, identity, drift)
        os.sync()  # the pictures reach the disk before the folder takes its name
        partial.replace(target)
    return open_release(target), True


def _verified(target: Path) -> Release:
    release = open_release(target)
    findings = check_release(release)
    if findings:
        raise IntegrityError(
            "the release that is there already is damaged:\n  " + "\n  ".join(each.text for each in findings),
            where=str(target),
            fix="remove the folder and run the same command again",
        )
    return release


def _pictures(manifests: Sequence[Manifest]) -> Pictures:
    return Pictures({name: root for each in manifests for name, root in each.pictures().roots.items()})


def _joined(plan: Plan, rows: pa.Table) -> pa.Table:
    """Return the plan with every column of its source rows, in the plan's order, as dictionaries: no copy."""
    joined, row = plan.table, plan.rows
    for name in rows.column_names:
        if name not in joined.column_names:
            column = pa.DictionaryArray.from_arrays(row, rows[name].combine_chunks())
            joined = joined.append_column(rows.schema.field(name).with_type(column.type), column)
    return joined


def _render_all(
    table: pa.Table,
    write: WriteSamples,
    partial: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> pa.Table:
    """Render what an earlier run has not; each batch is noted in a journal when its files are written."""
    journal = partial / _JOURNAL
    if write.folder is not None:
        for split in SPLITS:
            (partial / split).mkdir(exist_ok=True)
    done = _read_journal(journal, write.folder)
    names = ["sample_id", "image_id", "source", "path", "split", "pipeline", "seed"]
    todo = table.select(names).filter(pc.invert(pc.is_in(table["sample_id"], done["sample_id"])))
    batches = (todo.slice(start, _BATCH) for start in range(0, len(todo), _BATCH))
    parts, n_done = [done], len(done)
    for number, part in enumerate(map_ordered(write, batches, workers)):
        write_table(part, journal / f"{len(done)}-{number}.parquet", "journal")
        parts.append(part)
        n_done += len(part)
        if progress:
            progress(n_done, len(table))
    rendered = pa.concat_tables(parts)
    return rendered.take(pc.index_in(table["sample_id"], rendered["sample_id"]))


def _read_journal(journal: Path, folder: str | None) -> pa.Table:
    """Return what an interrupted run rendered, of which the files are still as it wrote them."""
    noted = pa.concat_tables([_WRITTEN.empty_table(), *_journal_parts(journal)])
    if folder is None:
        return noted
    partial = Path(folder)
    intact = [
        (partial / name).is_file() and file_hash((partial / name).read_bytes()) == expected
        for name, expected in zip(
            noted["file_name"].to_pylist(), noted["file_sha256"].to_pylist(), strict=True
        )
    ]
    return noted.filter(pa.array(intact, pa.bool_()))


def _journal_parts(journal: Path) -> Iterator[pa.Table]:
    for path in sorted(journal.glob("*.parquet")):
        try:
            part, _ = read_table(path, "journal")
        except (ManifestError, IntegrityError):  # damaged: its pictures are rendered again
            continue
        if part.schema.equals(_WRITTEN):
            yield part


def _write_tables(
    partial: Path,
    table: pa.Table,
    rendered: pa.Table,
    manifests: Sequence[Manifest],
    plan: Plan,
    recipe: Recipe,
    identity: str,
    drift: dict[str, Any],
) -> None:
    """Write everything but the pictures; release.json comes last."""
    for field in list(RENDERED)[1:]:
        table = table.append_column(field, rendered[field.name])
    table = table.select(release_schema(table.schema).names)
    info = {**release_info(manifests, table, plan, recipe, identity), "drift": drift}
    write_table(table, partial / TABLE_FILE, KIND, {"release": identity})
    files = dict(zip(table["file_name"].to_pylist(), table["file_sha256"].to_pylist(), strict=True))
    if recipe.mode == "files":
        _write_split_tables(partial, table)
    document = yaml.safe_dump(recipe.document(), sort_keys=False, allow_unicode=True)
    write_text(partial / RECIPE_FILE, document)
    write_text(partial / CARD_FILE, data_card(info))
    sums = _sums(partial, files if recipe.mode == "files" else {})
    write_text(partial / SUMS_FILE, sums)
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    write_json(partial / INFO_FILE, {**info, "created": created, "sums_sha256": file_hash(sums.encode())})


def _write_split_tables(partial: Path, table: pa.Table) -> None:
    for split in SPLITS:
        part = split_metadata(table, split)
        if len(part):
            write_table(part, partial / split / METADATA_FILE, METADATA_KIND)
        else:
            (partial / split).rmdir()


def _check_drift(drift: dict[str, Any], table: pa.Table, render: RenderSamples, recipe: Recipe) -> None:
    """Refuse a release whose copies changed more than `max_drift` allows; nothing is redrawn."""
    problems = over_bound(drift, recipe.max_drift)
    if not problems:
        return
    lines = [f"{each.text}, most of it by {_blame(each, table, render)}" for each in problems]
    raise RecipeError(
        "copies changed more than the recipe allows:\n  " + "\n  ".join(lines),
        where="max_drift",
        fix="weaken the transform that does it, or raise the bound",
    )


def _blame(problem: OverBound, table: pa.Table, render: RenderSamples) -> str:
    """Name the transform of a pipeline that alone moves a feature most, on some of its pictures."""
    made = table.filter(pc.equal(table["pipeline"], problem.pipeline)).slice(0, _BLAME_PICTURES)
    plain = made.set_column(made.column_names.index("pipeline"), "pipeline", [[""] * len(made)])
    before = _features(render, plain)
    moved = {}
    for step in render.pipelines[problem.pipeline]:
        alone = replace(render, pipelines={problem.pipeline: [step]})
        change = changes(_features(alone, made), before)[:, problem.feature_index]
        moved[next(iter(step))] = float(np.abs(change).mean())
    return max(moved, key=lambda name: moved[name])


def _features(render: RenderSamples, batch: pa.Table) -> np.ndarray:
    return np.array([look_of(rgb)[: len(FEATURES)] for _, rgb in render.draw(batch)], float)


def _sums(partial: Path, pictures: dict[str, str]) -> str:
    """Return the text of SHA256SUMS; what a killed run left behind is removed."""
    shutil.rmtree(partial / _JOURNAL, ignore_errors=True)
    tables = {TABLE_FILE, RECIPE_FILE, CARD_FILE, *(f"{split}/{METADATA_FILE}" for split in SPLITS)}
    sums = dict(pictures)
    for path in (path for path in partial.rglob("*") if path.is_file()):
        name = path.relative_to(partial).as_posix()
        if name in tables:
            sums[name] = file_hash(path.read_bytes())
        elif name not in pictures:
            path.unlink()
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def release_info(
    manifests: Sequence[Manifest], table: pa.Table, plan: Plan, recipe: Recipe, identity: str
) -> dict[str, Any]:
    """Return what release.json says, but for its time and the hash of SHA256SUMS."""
    splits = table.group_by("split").aggregate([([], "count_all")]).to_pylist()
    copies = pc.sum(pc.greater(table["copy"], 0)).as_py() or 0
    return {
        "schema": SCHEMA,
        "id": identity,
        "name": recipe.name,
        "mode": recipe.mode,
        "recipe_sha256": recipe.digest,
        "manifests": [
            {"name": each.name, "digest": each.digest, **part} for each in manifests for part in each.parts
        ],
        "terms": _terms(manifests, table),
        "target": recipe.target,
        "rows": {row["split"]: row["count_all"] for row in splits},
        "folds": recipe.split.folds if recipe.split != "none" else None,
        "originals": len(table) - copies,
        "copies": copies,
        "balance": plan.summary(),
        "versions": pixel_versions(),
        "render_version": RENDER_VERSION,
        "cpu_features": cv2.getCPUFeaturesLine(),
        "canaries": canaries(recipe),
    }


def _terms(manifests: Sequence[Manifest], table: pa.Table) -> dict[str, Any]:
    """Return the terms of all pictures together, as their rows state them."""
    counts = pc.value_counts(pc.fill_null(table["license"], "not stated")).to_pylist()
    pictures = {row["values"]: row["counts"] for row in counts}
    return combine_terms(pictures, all(part["redistributable"] for each in manifests for part in each.parts))
