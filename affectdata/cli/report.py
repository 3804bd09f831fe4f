"""`affectdata report`: a manifest or a release and its check as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import (
    PathOrAddress,
    common_options,
    document,
    folder_option,
    note,
    parse_roots,
    roots_option,
    show,
)
from affectdata.records import count_text


@click.command("report")
@click.argument("subject", metavar="[RELEASE|MANIFEST|STUDY]", required=False, type=PathOrAddress())
@click.argument("other", metavar="[OTHER]", required=False, type=PathOrAddress())
@click.option(
    "--images",
    is_flag=True,
    help="Also show images that must not be passed on; the page is named `-private.html`.",
)
@click.option(
    "--figures", type=click.Path(path_type=Path), metavar="DIR", help="Also write the charts as SVG and PDF."
)
@folder_option("--out", "checks", "Folder of checks; the page is written there.")
@roots_option
@common_options
def command(
    subject: Path | str | None,
    other: Path | str | None,
    images: bool,
    figures: Path | None,
    out: Path,
    roots: tuple[str, ...],
) -> int:
    """Write one self-contained HTML page about a release (default: the newest) and its check, or a manifest.

    The page requests nothing from the network. Images whose terms forbid passing them on are left out
    unless --images is given. STUDY is the folder of a study. With OTHER, another release, the page shows what
    changed from the first to the second: counts, bins and subtypes, scores. Both may be train-check.json
    files.
    Needs the extra `report`.
    """
    from affectdata import api

    result = api.report(subject, other, images=images, figures=figures, out=out, roots=parse_roots(roots))
    show(f"wrote {result.path}")
    if result.figures:
        show(f"wrote {count_text(len(result.figures), 'figure')} to {figures}")
    if result.is_private:
        note(f"note: {result.path.name} holds images that their owners do not allow to be passed on")
    document("affectdata/report/1", result.to_dict())
    return 0
