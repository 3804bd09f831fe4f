"""Rebuild released images from (source image, pipeline, seed) and compare them with the released ones."""

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

GREY_LEVELS = 3  # CPUs without AVX2 round warps and blurs differently by one level, up to three after JPEG


@dataclass(frozen=True, slots=True)
class RebuildResult:
    """The outcome of rebuilding; `exact` is true if bytes were compared, false if pixels with a tolerance."""

    n_rows: int
    exact: bool
    notes: list[str]
    findings: list[Finding]


def pick_rows(release: Release, n: int, sample_ids: Sequence[str] = ()) -> pa.Table:
    """Return `n` rows of a release, chosen by hash (copies before originals), and those of `sample_ids`.

    Raises:
        UsageError: one of `sample_ids` is not in the release.
    """
    table = release.table
    unknown = sorted(set(sample_ids) - set(table["sample_id"].to_pylist()))
    if unknown:
        raise UsageError(f"no sample {', '.join(unknown)} in the release", where=str(release.path))
    chosen = np.array(pc.is_in(table["sample_id"], pa.array(list(sample_ids), pa.string())))
    ranks = hash_ranks(0, table["sample_id"])
    chosen[np.lexsort((ranks, table["copy"].to_numpy() == 0))[:n]] = True
    return table.filter(pa.array(chosen))


def rebuild(release: Release, rows: pa.Table, manifests: Path) -> RebuildResult:
    """Render `rows` again and compare with the released files; `manifests` is the folder of the manifests.

    If this machine renders the canary exactly as the one that made the release did, bytes must be equal;
    otherwise pixels may differ by up to `GREY_LEVELS`.

    Raises:
        ImagesNotFound: the source images cannot be found.
        IntegrityError: a source image changed since it was ingested.
    """
    recipe = parse_recipe(release.recipe_document)
    notes = _version_notes(release)
    exact = canaries(recipe.pipelines, release.info.get("canary_draws", 1)) == release.info["canaries"]
    if not exact:
        effect = "nothing can be compared" if release.is_virtual else "pixels are compared, not bytes"
        notes.append(f"this machine renders the canary differently: {effect}")
    render = RenderSamples(release.images(manifests), recipe.image, recipe.pipelines)
    findings = []
    for row, rendered in zip(rows.to_pylist(), render(rows).to_pylist(), strict=True):
        if release.is_virtual:
            problem = _compare_hash(row["file_sha256"], rendered["data"]) if exact else None
        else:
            problem = _compare_image(release.read(row["file_name"]), rendered["data"], exact)
        if problem:
            findings.append(Finding("rebuilt", f"{row['file_name']}: {problem}"))
    return RebuildResult(len(rows), exact, notes, findings)


def _version_notes(release: Release) -> list[str]:
    released_with, installed = release.info["versions"], pixel_versions()
    return [
        f"released with {name} {version}, installed is {installed.get(name)}"
        for name, version in released_with.items()
        if installed.get(name) != version
    ]


def _compare_hash(released: str, data: bytes) -> str | None:
    return None if file_hash(data) == released else "the rebuilt bytes do not match the recorded hash"


def _compare_image(released: bytes, data: bytes, exact: bool) -> str | None:
    if file_hash(released) == file_hash(data):
        return None
    old, new = decode(released).rgb.astype(np.int16), decode(data).rgb.astype(np.int16)
    if old.shape != new.shape:
        return f"rebuilt as {new.shape[1]} × {new.shape[0]}, released as {old.shape[1]} × {old.shape[0]}"
    max_difference = int(np.abs(old - new).max())
    if exact:
        return f"the rebuilt bytes differ (pixels by up to {max_difference} grey levels)"
    if max_difference > GREY_LEVELS:
        return f"the rebuilt pixels differ by {max_difference} grey levels"
    return None
