"""`affectdata verify`: is a release what was published, and does it keep its promises?"""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import common_options, document, folder_option, progress, say

INTEGRITY = 4


@click.command("verify")
@click.argument("release", required=False, type=click.Path(path_type=Path))
@folder_option("--releases", "releases", "Folder in which the newest is taken if none is named.")
@common_options
def command(release: Path | None, releases: Path) -> int:
    """Re-hash the files of RELEASE (default: the newest) and check its lineage; exit 4 if anything is off."""
    from affectdata.release import check_release, newest_release, open_release

    opened = open_release(release or newest_release(releases))
    with progress("verify") as move:
        findings = check_release(opened, move)
    for finding in findings:
        say(f"{finding.kind}: {finding.text}")
    state = f"{len(findings)} findings" if findings else "every file and every row holds"
    say(f"{opened.path}: {opened.table.num_rows} pictures, {state}")
    document(
        "affectdata/verify/1",
        {
            "release": str(opened.path),
            "id": opened.id,
            "sound": not findings,
            "findings": [{"kind": each.kind, "text": each.text} for each in findings],
        },
    )
    return INTEGRITY if findings else 0
