"""Publish a release: render its plan into a hidden folder, write the tables, give it its name at once.

An interrupted run leaves the hidden folder with a journal of what it wrote; the same command goes on from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, RecipeError
from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import pixel_versions
from affectdata.manifest.manifest import Images, Manifest
from affectdata.plan.plan import Plan
from affectdata.recipe.recipe import FEATURES, Recipe
from affectdata.release.journal import WriteSamples, render_all
from affectdata.release.release import Release, open_release
from affectdata.release.verify import check_release
from affectdata.release.write import write_release
from affectdata.render.drift import LOOKS, OverBound, changes, look_of, measure_drift, over_bound
from affectdata.render.render import RENDER_VERSION, RenderSamples
from affectdata.store.parquet import in_one_piece, locked_folder, table_digest
from affectdata.workers import default_workers

_BLAME_IMAGES = 16  # on which each transform of a pipeline is tried alone


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
        IntegrityError: a source image is not the one that was ingested, or the release there is damaged.
        UsageError: another run is writing the same release.
    """
    identity = release_id(manifests, recipe, plan)
    target = folder / f"{recipe.name}-{identity[:8]}"
    partial = folder / f".{target.name}.partial"
    if target.exists():
        return _verified(target), False
    table = _with_sources(plan, rows)
    render = RenderSamples(_images(manifests), recipe.image, recipe.pipelines)
    with locked_folder(partial, wait=False):
        if target.exists():  # another run was first
            shutil.rmtree(partial)
            return _verified(target), False
        write = WriteSamples(render, str(partial) if recipe.mode == "files" else None)
        rendered = render_all(table, write, partial, workers or default_workers(), progress)
        drift = measure_drift(table, rendered.read(LOOKS.names))
        try:
            _check_drift(drift, table, render, recipe)
        except RecipeError:
            shutil.rmtree(partial)
            raise
        write_release(partial, manifests, rows, plan, rendered, recipe, {"id": identity, "drift": drift})
        os.sync()  # the images reach the disk before the folder takes its name
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


def _images(manifests: Sequence[Manifest]) -> Images:
    return Images({name: root for each in manifests for name, root in each.images().roots.items()})


def _with_sources(plan: Plan, rows: pa.Table) -> pa.Table:
    """Return the plan with what rendering and drift need of its source rows, as dictionaries: no copy."""
    table = plan.table
    for name in ("source", "path", "subtype"):
        table = table.append_column(name, pa.DictionaryArray.from_arrays(plan.rows, in_one_piece(rows[name])))
    return table


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
    """Name the transform of a pipeline that alone moves a feature most, on some of its images."""
    made = table.filter(pc.equal(table["pipeline"], problem.pipeline)).slice(0, _BLAME_IMAGES)
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
