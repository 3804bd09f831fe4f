"""Rebuild released images from (source image, pipeline, seed) and compare: the proof of the lineage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import UsageError
from affectdata.hashing import file_hash, hash_ranks
from affectdata.images.decode import decode, pixel_versions
from affectdata.recipe.recipe import parse_recipe
from affectdata.records import Finding
from affectdata.release.release import Release
from affectdata.render.render import RenderSamples, canaries

GREY_LEVELS = 3  # CPUs without AVX2 round warps and blurs by one level; JPEG makes that up to three


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of rebuilding: `exact` says whether this machine must give, and was held to, equal bytes."""

    n_rows: int
    exact: bool
    notes: list[str]
    findings: list[Finding]


def pick_rows(release: Release, n: int, sample_ids: Sequence[str] = ()) -> pa.Table:
    """Return `n` rows of a release, chosen by hash (copies before originals), and those named.

    Raises:
        UsageError: a sample that is named is not in the release.
    """
    table = release.table
    unknown = sorted(set(sample_ids) - set(table["sample_id"].to_pylist()))
    if unknown:
        raise UsageError(f"no sample {', '.join(unknown)} in the release", where=str(release.path))
    chosen = np.array(pc.is_in(table["sample_id"], pa.array(list(sample_ids), pa.string())))
    ranks = hash_ranks(0, table["sample_id"])
    chosen[np.lexsort((ranks, table["copy"].to_numpy() == 0))[:n]] = True
    return table.filter(pa.array(chosen))


def rebuild(release: Release, rows: pa.Table, manifests: Path) -> Rebuilt:
    """Render `rows` anew and compare with the released files; `manifests` notes where the images are.

    The canary goes first: if this machine renders it as the one that made the release did, bytes must be
    equal; if not, pixels may differ by `GREY_LEVELS`.

    Raises:
        ImagesNotFound: the source images are not at hand.
        IntegrityError: a source image is not the one that was ingested.
    """
    recipe = parse_recipe(release.recipe_document)
    notes = _version_notes(release)
    exact = canaries(recipe) == release.info["canaries"]
    if not exact:
        what = "nothing can be compared" if release.is_virtual else "pixels are compared, not bytes"
        notes.append(f"this machine renders the canary differently: {what}")
    render = RenderSamples(release.images(manifests), recipe.image, recipe.pipelines)
    findings = []
    for row, made in zip(rows.to_pylist(), render(rows).to_pylist(), strict=True):
        if release.is_virtual:
            problem = _other_hash(row["file_sha256"], made["data"]) if exact else None
        else:
            problem = _difference(release.read(row["file_name"]), made["data"], exact)
        if problem:
            findings.append(Finding("rebuilt", f"{row['file_name']}: {problem}"))
    return Rebuilt(len(rows), exact, notes, findings)


def _version_notes(release: Release) -> list[str]:
    made_with, here = release.info["versions"], pixel_versions()
    return [
        f"made with {name} {version}, here is {here.get(name)}"
        for name, version in made_with.items()
        if here.get(name) != version
    ]


def _other_hash(released: str, made: bytes) -> str | None:
    return None if file_hash(made) == released else "its rebuilt bytes are not those that were recorded"


def _difference(released: bytes, made: bytes, exact: bool) -> str | None:
    if file_hash(released) == file_hash(made):
        return None
    old, new = decode(released).rgb.astype(np.int16), decode(made).rgb.astype(np.int16)
    if old.shape != new.shape:
        return f"rebuilt as {new.shape[1]} × {new.shape[0]}, released as {old.shape[1]} × {old.shape[0]}"
    most = int(np.abs(old - new).max())
    if exact:
        return f"its rebuilt bytes differ (pixels by up to {most} grey levels)"
    return f"its rebuilt pixels differ by {most} grey levels" if most > GREY_LEVELS else None
