"""`affectdata concat`: several manifests become one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from affectdata.cli._output import (
    PathOrAddress,
    common_options,
    document,
    engine_option,
    folder_option,
    note,
    plain_findings,
    show,
    workers_option,
)
from affectdata.records import count_text

_FIRST_CONFLICTS = 10


@click.command("concat")
@click.argument("manifests", nargs=-1, required=True, type=PathOrAddress())
@click.option("--name", help="Name of the new manifest. [default: all names, joined by _]")
@folder_option("--out", "manifests", "Folder to write to.")
@click.option(
    "--on-conflict",
    metavar="POLICY",
    default="error",
    show_default=True,
    help="If labels of one image differ: error, first, mean, or prefer:NAME.",
)
@workers_option
@engine_option
@common_options
def command(
    manifests: tuple[Path | str, ...],
    name: str | None,
    out: Path,
    on_conflict: str,
    workers: int | None,
    engine: str,
) -> int:
    """Write the rows of several MANIFESTS as one, a row per image; their rejects and edges are skipped.

    Images with the same bytes become one row, look-alikes across sources form one group, and existing splits
    are kept. To add a source, name the earlier result too: concat all.parquet fi.parquet --name all.
    """
    from affectdata import api
    from affectdata.manifest.manifest import is_beside_manifest
    from affectdata.manifest.merge import describe_conflict

    besides = [path for path in manifests if isinstance(path, Path) and is_beside_manifest(path)]
    if besides:  # manifests/*.parquet names them too
        note(f"note: skipped, because they are not manifests: {', '.join(path.name for path in besides)}")
    named = [path for path in manifests if path not in besides]
    result = api.concat(named, name=name, out=out, on_conflict=on_conflict, workers=workers, engine=engine)
    across, path = result.n_across, result.manifest.path
    rows, images = count_text(result.n_rows, "row"), count_text(len(result.manifest), "image")
    show(f"{rows}: {images}, {result.n_merged} merged")
    show(
        f"across sources: {count_text(across['same_pixels'], 'pair')} of the same pixels, "
        f"{count_text(across['near_duplicate'], 'near-duplicate')}"
    )
    if result.conflicts:
        show(f"\n{count_text(len(result.conflicts), 'label')} differed, resolved by {on_conflict}")
        for each in result.conflicts[:_FIRST_CONFLICTS]:
            show(f"  {describe_conflict(each)}")
        if len(result.conflicts) > _FIRST_CONFLICTS:
            show(f"  … and {len(result.conflicts) - _FIRST_CONFLICTS} more (--json lists all)")
    if result.findings:
        show("\nfindings")
        for finding in result.findings:
            show(f"  {finding.text}")
    show(f"\nwrote {path}")
    document(
        "affectdata/concat/2",
        {
            "manifest": str(path),
            "digest": result.manifest.digest,
            "rows": result.n_rows,
            "pictures": len(result.manifest),
            "merged": result.n_merged,
            "across": across,
            "policy": on_conflict,
            "conflicts": [asdict(each) for each in result.conflicts],
            "findings": plain_findings(result.findings),
        },
    )
    return 0
