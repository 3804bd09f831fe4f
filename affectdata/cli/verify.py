"""`affectdata verify`: is a release what was published, and does it keep its promises?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectdata.cli._output import (
    PathOrAddress,
    common_options,
    document,
    engine_option,
    folder_option,
    note,
    parse_roots,
    progress,
    roots_option,
    show,
    show_table,
    workers_option,
)
from affectdata.records import count_text

if TYPE_CHECKING:
    from affectdata.results import VerifyResult

INTEGRITY = 4
_MANIFESTS = Path("manifests")


@click.command("verify")
@click.argument("release", required=False, type=PathOrAddress())
@folder_option("--releases", "releases", "Folder of releases; the newest is used if none is given.")
@click.option(
    "--rebuild",
    "n_rebuild",
    type=click.IntRange(1),
    metavar="N",
    help="Also render N images again and compare.",
)
@click.option(
    "--sample",
    "samples",
    multiple=True,
    metavar="SAMPLE_ID",
    help="Also render this image again; repeatable.",
)
@click.option("--why", metavar="IMAGE_ID", help="Only show an image's group, split, cell and copies.")
@roots_option
@workers_option
@engine_option
@common_options
def command(
    release: Path | str | None,
    releases: Path,
    n_rebuild: int | None,
    samples: tuple[str, ...],
    why: str | None,
    roots: tuple[str, ...],
    workers: int | None,
    engine: str,
) -> int:
    """Re-hash the files of RELEASE (default: the newest) and check its lineage; exit 4 on findings."""
    from affectdata import api
    from affectdata.release.explain import explain_image
    from affectdata.release.release import newest_release, open_release

    opened = open_release(release or newest_release(releases), parse_roots(roots), again=not why)
    if why:
        _print_why(explain_image(opened, why, _MANIFESTS))
        return 0
    with progress() as move:
        result = api.verify(
            opened, rebuild=n_rebuild or 0, sample=samples, workers=workers, engine=engine, progress=move
        )
    for remark in result.notes:
        note(f"note: {remark}")
    _print_findings(result)
    return 0 if result.is_sound else INTEGRITY


def _print_findings(result: VerifyResult) -> None:
    for finding in result.findings:
        show(f"{finding.kind}: {finding.text}")
    state = (
        "every file and every row holds" if result.is_sound else count_text(len(result.findings), "finding")
    )
    show(f"{result.release.path}: {count_text(len(result.release.rows), 'image')}, {state}")
    if result.n_rebuilt and result.is_sound:
        show(f"{result.n_rebuilt} rebuilt from their source images: the same")
    document("affectdata/verify/1", result.to_dict())


def _print_why(found: dict[str, Any]) -> None:
    show(f"{found['source']} {found['source_id']}: {found['path']}")
    show(f"image_id {found['image_id']}\nsplit    {found['split']}\ncell     {found['cell']}")
    show(f"\ngroup {found['group_id'][:16]}: {count_text(len(found['group']), 'image')} kept together")
    show_table(
        ["image", "split", "path"],
        [[row["image_id"][:16], row["split"], row["path"]] for row in found["group"]],
    )
    if found["edges"]:
        rows = [
            [e["image_id_a"][:16], e["image_id_b"][:16], e["kind"], e["distance_bits"], e["view"]]
            for e in found["edges"]
        ]
        show_table(["image", "and", "are", "bits apart", "as"], rows)
    show("\nin the release")
    rows = [[row["sample_id"], row["pipeline"] or "–", row["file_name"]] for row in found["rows"]]
    show_table(["sample", "pipeline", "file"], rows)
    document("affectdata/why/1", found)
