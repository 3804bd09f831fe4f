"""From a plan to a release: render every row, write the tables, publish the folder at once.

decode → augment at source size → one area resize → encode; originals take the same path without the
augmentation. A picture is a function of (source picture, pipeline, seed, image spec) and library versions.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from affectdata.balance.card import data_card
from affectdata.balance.recipe import ImageSpec, Recipe
from affectdata.balance.transforms import Pipeline, Step
from affectdata.errors import InputError, IntegrityError, UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.imaging import decode, encode, pixel_versions, resize
from affectdata.manifest import Manifest, Pictures
from affectdata.plan import Plan
from affectdata.release import (
    CARD_FILE,
    INFO_FILE,
    KIND,
    METADATA_FILE,
    RECIPE_FILE,
    SUMS_FILE,
    TABLE_FILE,
    Release,
    check_release,
    open_release,
)
from affectdata.schema import RENDERED, release_schema
from affectdata.split import SPLITS
from affectdata.tables import read_table, write_json, write_table, write_text
from affectdata.workers import default_workers, map_ordered

RENDER_VERSION = 1  # part of every release id; raised whenever the same plan would give other pixels
_BATCH = 24  # rows rendered per call
_JOURNAL = ".journal"
_HALVE_ABOVE = 4  # a picture this many times the output is first halved

SAMPLES = pa.schema(
    [
        RENDERED.field("sample_id"),
        pa.field("data", pa.binary(), nullable=False),
        RENDERED.field("out_width_px"),
        RENDERED.field("out_height_px"),
    ]
)


@dataclass(frozen=True, slots=True)
class RenderSamples:
    """Render the rows of a batch in memory: plan columns with `source` and `path` in, `SAMPLES` out.

    Rows of one picture that follow each other share its decoding.
    """

    pictures: Pictures
    image: ImageSpec
    pipelines: dict[str, list[Step]]

    def __call__(self, batch: pa.Table) -> pa.Table:
        pipelines = {name: Pipeline(steps) for name, steps in self.pipelines.items()}
        rows, last, rgb = [], "", np.empty((0, 0, 3), np.uint8)
        for row in batch.to_pylist():
            if row["image_id"] != last:
                last = row["image_id"]
                rgb = _bounded(decode(self.pictures.read(row["source"], row["path"], last)).rgb, self.image)
            drawn = pipelines[row["pipeline"]].apply(rgb, row["seed"]) if row["pipeline"] else rgb
            out = fit(drawn, self.image)
            data = encode(out, self.image.format, self.image.quality)
            rows.append((row["sample_id"], data, out.shape[1], out.shape[0]))
        return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * 4, schema=SAMPLES)


@dataclass(frozen=True, slots=True)
class WriteSamples:
    """Render a batch and write its files under `folder`; returns `schema.RENDERED`."""

    render: RenderSamples
    folder: str

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for split, sample in zip(batch["split"].to_pylist(), self.render(batch).to_pylist(), strict=True):
            name = f"{split}/{sample['sample_id']}{self.render.image.suffix}"
            Path(self.folder, name).write_bytes(sample["data"])
            hashed, size = file_hash(sample["data"]), len(sample["data"])
            rows.append(
                (sample["sample_id"], name, hashed, size, sample["out_width_px"], sample["out_height_px"])
            )
        return pa.table([list(column) for column in zip(*rows, strict=True)], schema=RENDERED)


def _bounded(rgb: np.ndarray, image: ImageSpec) -> np.ndarray:
    short = image.short_side_px or min(image.size_px or [1])
    while min(rgb.shape[:2]) > _HALVE_ABOVE * short:
        rgb = resize(rgb, rgb.shape[1] // 2, rgb.shape[0] // 2)
    return rgb


def fit(rgb: np.ndarray, image: ImageSpec) -> np.ndarray:
    """Bring a picture to the size that the recipe asks for, with one resize."""
    height, width = rgb.shape[:2]
    if image.short_side_px is not None:
        scale = image.short_side_px / min(width, height)
        return resize(rgb, max(1, round(width * scale)), max(1, round(height * scale)))
    out_width, out_height = image.size_px or [width, height]
    if image.fit == "stretch":
        return resize(rgb, out_width, out_height)
    by_width, by_height = out_width / width, out_height / height
    scale = max(by_width, by_height) if image.fit == "crop" else min(by_width, by_height)
    rgb = resize(rgb, max(1, round(width * scale)), max(1, round(height * scale)))
    across, down = out_width - rgb.shape[1], out_height - rgb.shape[0]
    if image.fit == "crop":
        top, left = -down // 2, -across // 2
        return np.ascontiguousarray(rgb[top : top + out_height, left : left + out_width])
    # Black borders move predictions (and tell copies apart), so the picture is mirrored into the margin.
    sides = (down // 2, down - down // 2, across // 2, across - across // 2)
    return cv2.copyMakeBorder(rgb, *sides, cv2.BORDER_REFLECT_101)


def release_id(manifests: Sequence[Manifest], recipe: Recipe) -> str:
    """Return the SHA-256 over everything that decides a release's content."""
    parts = {
        "manifests": sorted(manifest.digest for manifest in manifests),
        "recipe": recipe.document(),
        "pixels": pixel_versions(),
        "render": RENDER_VERSION,
    }
    return file_hash(canonical_json(parts).encode())


def canaries(recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of a small generated picture through every pipeline, to tell CPUs apart."""
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (96, 72), interpolation=cv2.INTER_LINEAR)
    found = {"": file_hash(encode(picture, "jpeg", 95))}
    for name, steps in recipe.pipelines.items():
        found[name] = file_hash(encode(Pipeline(steps).apply(picture, 1), "png", 0))
    return found


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
    identity = release_id(manifests, recipe)
    target = folder / f"{recipe.name}-{identity[:8]}"
    partial = folder / f".{target.name}.partial"
    if target.exists():
        return _verified(target), False
    table = _joined(plan, rows)
    render = RenderSamples(_pictures(manifests), recipe.image, recipe.pipelines)
    with _locked(partial):
        rendered = _render_all(table, render, partial, workers or default_workers(), progress)
        _write_tables(partial, table, rendered, manifests, plan, recipe, identity)
        os.sync()  # the pictures reach the disk before the folder takes its name
        partial.replace(target)
    return open_release(target), True


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Hold the right to write in a folder; the lock goes with the process, however it ends."""
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise InputError(
            f"cannot write to {partial.parent}: {error.strerror}", fix="choose another --out"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another run is writing {partial}", fix="wait for it to end") from error
        yield
    finally:
        os.close(handle)


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
    """Return the plan with every column of its source rows, in the plan's order."""
    source = rows.take(pc.index_in(plan.table["image_id"], rows["image_id"]))
    joined = plan.table
    for field in source.schema:
        if field.name not in joined.column_names:
            joined = joined.append_column(field, source[field.name])
    return joined


def _render_all(
    table: pa.Table,
    render: RenderSamples,
    partial: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> pa.Table:
    """Render what an earlier run has not; each batch is noted in a journal when its files are written."""
    journal = partial / _JOURNAL
    for split in SPLITS:
        (partial / split).mkdir(exist_ok=True)
    done = _read_journal(journal, partial)
    names = ["sample_id", "image_id", "source", "path", "split", "pipeline", "seed"]
    todo = table.select(names).filter(pc.invert(pc.is_in(table["sample_id"], done["sample_id"])))
    batches = (todo.slice(start, _BATCH) for start in range(0, len(todo), _BATCH))
    parts, n_done = [done], len(done)
    for number, part in enumerate(map_ordered(WriteSamples(render, str(partial)), batches, workers)):
        write_table(part, journal / f"{len(done)}-{number}.parquet", "journal")
        parts.append(part)
        n_done += len(part)
        if progress:
            progress(n_done, len(table))
    rendered = pa.concat_tables(parts)
    return rendered.take(pc.index_in(table["sample_id"], rendered["sample_id"]))


def _read_journal(journal: Path, partial: Path) -> pa.Table:
    """Return what an interrupted run rendered, of which the files are still as it wrote them."""
    parts = [read_table(path, "journal")[0] for path in sorted(journal.glob("*.parquet"))]
    noted = pa.concat_tables([RENDERED.empty_table(), *parts])
    intact = [
        (partial / name).is_file() and file_hash((partial / name).read_bytes()) == expected
        for name, expected in zip(
            noted["file_name"].to_pylist(), noted["file_sha256"].to_pylist(), strict=True
        )
    ]
    return noted.filter(pa.array(intact, pa.bool_()))


def _write_tables(
    partial: Path,
    table: pa.Table,
    rendered: pa.Table,
    manifests: Sequence[Manifest],
    plan: Plan,
    recipe: Recipe,
    identity: str,
) -> None:
    """Write everything but the pictures; release.json comes last."""
    for name in rendered.column_names[1:]:
        table = table.append_column(rendered.schema.field(name), rendered[name])
    manifest_schema = pa.unify_schemas([manifest.table.schema for manifest in manifests])
    table = table.select(release_schema(manifest_schema).names)
    info = release_info(manifests, table, plan, recipe, identity)
    write_table(table, partial / TABLE_FILE, KIND, {"release": identity})
    for split in SPLITS:
        part = table.filter(pc.equal(table["split"], split))
        if not len(part):
            (partial / split).rmdir()
            continue
        bare = pc.replace_substring_regex(part["file_name"], "^[^/]*/", "")
        at = part.column_names.index("file_name")
        write_table(part.set_column(at, "file_name", bare), partial / split / METADATA_FILE, "metadata")
    document = yaml.safe_dump(recipe.document(), sort_keys=False, allow_unicode=True)
    write_text(partial / RECIPE_FILE, document)
    write_text(partial / CARD_FILE, data_card(info))
    sums = _sums(
        partial, dict(zip(table["file_name"].to_pylist(), table["file_sha256"].to_pylist(), strict=True))
    )
    write_text(partial / SUMS_FILE, sums)
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    write_json(partial / INFO_FILE, {**info, "created": created, "sums_sha256": file_hash(sums.encode())})


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
    terms = ("source", "title", "license", "citation", "url", "redistributable", "evidence")
    return {
        "schema": "affectdata/release/1",
        "id": identity,
        "name": recipe.name,
        "recipe_sha256": recipe.digest,
        "manifests": [
            {"name": each.name, "digest": each.digest, **{key: each.metadata[key] for key in terms}}
            for each in manifests
        ],
        "target": recipe.target,
        "rows": {row["split"]: row["count_all"] for row in splits},
        "originals": len(table) - copies,
        "copies": copies,
        "balance": plan.summary(),
        "versions": pixel_versions(),
        "render_version": RENDER_VERSION,
        "cpu_features": cv2.getCPUFeaturesLine(),
        "canaries": canaries(recipe),
    }
