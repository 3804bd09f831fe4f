"""Export a release: check it and its terms, write into a hidden folder, rename that at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from affectdata.errors import AffectdataError, InputError, UsageError
from affectdata.exports._job import Exporter, Job, check_names
from affectdata.recipe.recipe import parse_recipe
from affectdata.registry import is_outside, load_plugin
from affectdata.release.card import SPLIT_NAMES, front_matter, sources_and_terms
from affectdata.release.derived import release_terms
from affectdata.release.images import released_reader
from affectdata.release.release import Release
from affectdata.release.verify import require_verified
from affectdata.splits.assign import SPLITS
from affectdata.store.atomic import locked_folder, write_text
from affectdata.store.escape import to_markdown
from affectdata.store.parquet import distinct
from affectdata.workers import THREADS, default_workers

TERMS_FILE = "README.md"


def export_release(
    release: Release,
    to: str,
    out: Path,
    *,
    by: str | None = None,
    may_redistribute: bool = False,
    workers: int | None = None,
    engine: str = THREADS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a release in the format `to` as the folder `out`, atomically.

    A virtual release is rendered, identical to the released bytes. With `may_redistribute`, the user confirms
    that they may redistribute the images although the terms forbid it.

    Raises:
        IntegrityError: `verify` rejects the release.
        UsageError: the terms forbid it, `out` exists, or the format has no classes for `by`.
        ImagesNotFound: the release is virtual, and its source images cannot be found.
    """
    plugin = cast(Exporter, load_plugin("exports", to))
    if by is not None and not plugin.HAS_CLASSES:
        raise UsageError(f"--to {to} does not sort by classes", fix="remove --by")
    workers = workers or default_workers(engine)
    require_verified(release, hash_images=not plugin.HAS_IMAGES, workers=workers, engine=engine)
    check_names(release.rows, SPLITS)
    terms = release_terms(release)
    if plugin.HAS_IMAGES and not may_redistribute:
        _check_terms(release, terms)
    recipe = parse_recipe(release.recipe_document, str(release.path))
    read = None
    if plugin.HAS_IMAGES:
        read = released_reader(release.path, recipe, release.sources_to_render())
    job = Job(release, recipe, read, by, workers, engine, progress)
    out = out.resolve()
    partial = out.with_name(f".{out.name}.partial")
    _check_free(out)
    with locked_folder(partial, wait=False):
        _check_free(out)  # another run may have finished in the meantime
        try:
            _empty(partial)  # remove files of a killed run
            _run(plugin, to, job, partial)
            write_text(partial / TERMS_FILE, _readme(job, to, plugin, terms))
            os.sync()  # flush the files to disk before the rename
            partial.replace(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _run(plugin: Exporter, name: str, job: Job, folder: Path) -> None:
    """Call `export` of a form.

    Raises:
        InputError: a form of another package raised an exception, which is the cause.
    """
    try:
        plugin.export(job, folder)
    except (AffectdataError, MemoryError, OSError):
        raise
    except Exception as error:
        if not is_outside("exports", name):
            raise
        raise InputError(
            f"the export {name} raised {type(error).__name__}: {error}",
            where=str(getattr(plugin, "__file__", name)),
            fix="correct the export module; -vv shows the traceback",
        ) from error


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} already exists", fix="choose another --out, or remove it")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_terms(release: Release, terms: dict[str, Any]) -> None:
    """Validate that the images may be redistributed, by the terms of each source and of all together.

    Raises:
        UsageError: lists the sources and their terms.
    """
    sources = {entry["source"]: entry for entry in release.info["manifests"]}
    used = distinct(release.rows, "source")
    forbidden = [name for name in used if not sources.get(name, {}).get("redistributable")]
    licenses = [sources[name]["license"] if name in sources else "terms unknown" for name in forbidden]
    listed = ", ".join(f"{name} ({license_})" for name, license_ in zip(forbidden, licenses, strict=True))
    problems = [f"the terms of {listed} do not allow redistribution of the images"] if listed else []
    if not listed and not terms["redistributable"]:
        problems = [f"the terms of its sources contradict each other ({'; '.join(terms['share_alike'])})"]
    if release.info["copies"] and not terms["changes"]:
        problems.append(
            f"modified images, such as its copies, must not be redistributed ({'; '.join(terms['pictures'])})"
        )
    if problems:
        own = "; terms of your own images: `license` in the column map" if "not stated" in licenses else ""
        raise UsageError(
            "; ".join(problems),
            where=str(release.path),
            fix=f"--i-may-redistribute, if you have permission or keep the export to yourself{own}",
        )


def _hugging_face(job: Job, plugin: Exporter) -> list[str]:
    """Return the YAML front matter that lists the files of every split, if the format has SPLIT_FILES."""
    files, features = getattr(plugin, "SPLIT_FILES", None), getattr(plugin, "features", None)
    if files is None:
        return []
    patterns = {split: files.format(split=split, name=SPLIT_NAMES[split]) for split in SPLITS}
    return front_matter(job.release.info, patterns, features(job) if features else ())


def _readme(job: Job, to: str, plugin: Exporter, terms: dict[str, Any]) -> str:
    release, notes = job.release, getattr(plugin, "notes", None)
    lines = [
        *_hugging_face(job, plugin),
        f"# {to_markdown(release.info['name'])}, as {to}",
        "",
        f"Exported from the affectdata release `{release.id[:16]}`: {release.info['originals']} images and "
        f"{release.info['copies']} augmented copies of them.",
        "",
        "Only `train` contains augmented copies; val and test contain originals only. Near-duplicate images",
        "are always in the same split.",
        "",
        "## Sources and terms of use",
        "",
        *sources_and_terms({**release.info, "terms": terms}),
        *([*notes(job), ""] if notes else []),
    ]
    return "\n".join(lines)
