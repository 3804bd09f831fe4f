"""Export a release: check it and its terms, write into a hidden folder, give that its name at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from affectdata.errors import UsageError
from affectdata.exports._job import Exporter, Job, check_names
from affectdata.recipe.recipe import parse_recipe
from affectdata.registry import load_plugin
from affectdata.release.card import front_matter, sources_and_terms
from affectdata.release.derived import release_terms
from affectdata.release.images import released_reader
from affectdata.release.lineage import require_sound
from affectdata.release.release import Release
from affectdata.splits.assign import SPLITS
from affectdata.store.parquet import distinct, locked_folder, write_text
from affectdata.workers import default_workers

TERMS_FILE = "README.md"


def export_release(
    release: Release,
    to: str,
    out: Path,
    *,
    by: str | None = None,
    may_redistribute: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a release in the format `to` as the folder `out`, whole or not at all.

    A virtual release is rendered, bit for bit as it was released. `may_redistribute` is the user's word that
    images whose terms forbid it may be passed on.

    Raises:
        IntegrityError: the release breaks its promises, or an image is not the one that was released.
        UsageError: the terms forbid it, `out` is taken, or the format has no classes for `by`.
        ImagesNotFound: the release is virtual, and its source images are not at hand.
    """
    plugin = cast(Exporter, load_plugin("exports", to))
    if by is not None and not plugin.HAS_CLASSES:
        raise UsageError(f"--to {to} does not sort by classes", fix="leave --by out")
    require_sound(release)
    check_names(release.rows, SPLITS)
    if plugin.HAS_IMAGES and not may_redistribute:
        _check_terms(release)
    recipe = parse_recipe(release.recipe_document, str(release.path))
    read = None
    if plugin.HAS_IMAGES:
        read = released_reader(release.path, recipe, release.sources_to_render())
    job = Job(release, recipe, read, by, workers or default_workers(), progress)
    out = out.resolve()
    partial = out.with_name(f".{out.name}.partial")
    _check_free(out)
    with locked_folder(partial, wait=False):
        _check_free(out)  # another run may have been first
        try:
            _empty(partial)  # what a killed run left
            plugin.export(job, partial)
            write_text(partial / TERMS_FILE, _readme(job, to, plugin))
            os.sync()  # the files reach the disk before the folder takes its name
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already", fix="choose another --out, or remove it")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_terms(release: Release) -> None:
    """Refuse to export images that must not be passed on: by a source's terms, or by all of them together.

    Raises:
        UsageError: naming the sources and their terms.
    """
    sources, terms = {each["source"]: each for each in release.info["manifests"]}, release_terms(release)
    used = distinct(release.rows, "source")
    forbidden = [name for name in used if not sources.get(name, {}).get("redistributable")]
    licenses = [sources[name]["license"] if name in sources else "terms unknown" for name in forbidden]
    named = ", ".join(f"{name} ({said})" for name, said in zip(forbidden, licenses, strict=True))
    said = [f"the terms of {named} do not let its images be passed on"] if named else []
    if not named and not terms["redistributable"]:
        said = [f"the terms of its sources go against each other ({'; '.join(terms['share_alike'])})"]
    if release.info["copies"] and not terms["changes"]:
        said.append(
            f"changed images, as its copies are, must not be passed on ({'; '.join(terms['pictures'])})"
        )
    if said:
        raise UsageError(
            "; ".join(said),
            where=str(release.path),
            fix="--i-may-redistribute, if you may, or if the export stays with you",
        )


def _hugging_face(job: Job, plugin: Exporter) -> list[str]:
    """Return the YAML that names the files of every split, where the format has some for each."""
    files, features = getattr(plugin, "SPLIT_FILES", None), getattr(plugin, "features", None)
    if files is None:
        return []
    patterns = {split: files.format(split=split) for split in SPLITS}
    more: dict[str, Any] = {"dataset_info": {"features": features(job)}} if features else {}
    return front_matter(job.release.info, patterns, more)


def _readme(job: Job, to: str, plugin: Exporter) -> str:
    release = job.release
    lines = [
        *_hugging_face(job, plugin),
        f"# {release.info['name']}, as {to}",
        "",
        f"Exported from the affectdata release `{release.id[:16]}`: {release.info['originals']} images and "
        f"{release.info['copies']} augmented copies of them.",
        "",
        "Only `train` holds copies; val and test are originals. Images that look alike share a split.",
        "",
        "## Sources and terms",
        "",
        *sources_and_terms({**release.info, "terms": release_terms(release)}),
    ]
    return "\n".join(lines)
