"""Publish a release: render its plan into a hidden folder, write the tables, rename the folder at the end.

An interrupted run leaves the hidden folder and a journal of the written images; the same command resumes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
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
from affectdata.render.drift import (
    LOOKS,
    ExcessDrift,
    feature_changes,
    find_excess_drift,
    measure_drift,
    measure_look,
)
from affectdata.render.render import RENDER_VERSION, RenderSamples, canaries
from affectdata.store.atomic import locked_folder
from affectdata.store.chunks import as_one_array
from affectdata.store.digest import table_digest
from affectdata.workers import THREADS, default_workers

_ATTRIBUTION_IMAGES = 16  # on which each transform of a pipeline is tried alone


def release_id(manifests: Sequence[Manifest], recipe: Recipe, plan: Plan, drawn: Mapping[str, str]) -> str:
    """Return the SHA-256 over everything that determines a release's content.

    The plan follows from manifests and recipe, except for splits taken from an earlier release. numpy has no
    part in pixels but its random streams, which the canaries show (`drawn`): its version is left out.
    """
    held_out = {"held_out": table_digest(plan.held_out)} if len(plan.held_out) else {}
    versions = {name: version for name, version in pixel_versions().items() if name != "numpy"}
    parts = {
        "manifests": sorted(manifest.digest for manifest in manifests),
        "recipe": recipe.document(),
        "plan": table_digest(plan.table),
        "pixels": versions,
        "canaries": drawn,
        "render": RENDER_VERSION,
        **held_out,
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
    engine: str = THREADS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Release, bool]:
    """Render a plan into `folder/<recipe>-<first 8 of the id>`; return the release and whether it is new.

    `rows` are the manifests' rows that the plan was made from. An interrupted run is resumed; an existing
    release is verified and returned.

    Raises:
        IntegrityError: a source image changed since it was ingested, or the existing release is damaged.
        UsageError: another run is writing the same release.
    """
    drawn = canaries(recipe.pipelines)
    id_ = release_id(manifests, recipe, plan, drawn)
    target = folder / f"{recipe.name}-{id_[:8]}"
    partial, journal = folder / f".{target.name}.partial", folder / f".{target.name}.journal"
    if target.exists():
        shutil.rmtree(journal, ignore_errors=True)  # of a run killed after the rename
        return _open_verified(target), False
    table = _with_sources(plan, rows)
    render = RenderSamples(_images(manifests), recipe.image, recipe.pipelines)
    with locked_folder(partial, wait=False):
        if target.exists():  # another run has finished in the meantime
            shutil.rmtree(partial)
            return _open_verified(target), False
        write = WriteSamples(render, str(partial) if recipe.mode == "files" else None)
        n_workers = workers or default_workers(engine)
        rendered = render_all(table, write, partial, journal, n_workers, progress, engine)
        drift = measure_drift(table, rendered.read(LOOKS.names))
        try:
            _check_drift(drift, table, render, recipe)
        except RecipeError:
            shutil.rmtree(partial)
            shutil.rmtree(journal, ignore_errors=True)
            raise
        known = {"id": id_, "drift": drift, "canaries": drawn}
        write_release(partial, manifests, rows, plan, rendered, recipe, known)
        os.sync()  # flush the images to disk before the rename
        partial.replace(target)
        shutil.rmtree(journal, ignore_errors=True)  # last: until here a killed run resumes from it
    return open_release(target), True


def _open_verified(target: Path) -> Release:
    release = open_release(target)
    findings = check_release(release)
    if findings:
        raise IntegrityError(
            "the existing release is damaged:\n  " + "\n  ".join(finding.text for finding in findings),
            where=str(target),
            fix="remove the folder and run the same command again",
        )
    return release


def _images(manifests: Sequence[Manifest]) -> Images:
    return Images({name: root for manifest in manifests for name, root in manifest.images().roots.items()})


def _with_sources(plan: Plan, rows: pa.Table) -> pa.Table:
    """Return the plan with the columns that rendering and drift need, dictionary-encoded without a copy."""
    table = plan.table
    for name in ("source", "path", "subtype"):
        table = table.append_column(name, pa.DictionaryArray.from_arrays(plan.rows, as_one_array(rows[name])))
    return table


def _check_drift(drift: dict[str, Any], table: pa.Table, render: RenderSamples, recipe: Recipe) -> None:
    """Refuse a release whose copies changed more than `max_drift` allows.

    Raises:
        RecipeError: names feature, pipeline and the transform with the largest effect.
    """
    excesses = find_excess_drift(drift, recipe.max_drift)
    if not excesses:
        return
    lines = [f"{excess.text}, mostly because of {_main_cause(excess, table, render)}" for excess in excesses]
    raise RecipeError(
        "copies changed more than the recipe allows:\n  " + "\n  ".join(lines),
        where="max_drift",
        fix="weaken this transform, or raise the bound",
    )


def _main_cause(excess: ExcessDrift, table: pa.Table, render: RenderSamples) -> str:
    """Return the transform of the pipeline that changes the feature most on its own, on some images."""
    copies = table.filter(pc.equal(table["pipeline"], excess.pipeline)).slice(0, _ATTRIBUTION_IMAGES)
    originals = copies.set_column(copies.column_names.index("pipeline"), "pipeline", [[""] * len(copies)])
    before = _features(render, originals)
    effects = {}
    for step in render.pipelines[excess.pipeline]:
        single = replace(render, pipelines={excess.pipeline: [step]})
        change = feature_changes(_features(single, copies), before)[:, excess.feature_index]
        effects[next(iter(step))] = float(np.abs(change).mean())
    return max(effects, key=lambda name: effects[name])


def _features(render: RenderSamples, batch: pa.Table) -> np.ndarray:
    return np.array([measure_look(rgb)[: len(FEATURES)] for _, rgb in render.iter_pixels(batch)], float)
