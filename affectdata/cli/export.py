"""`affectdata export`: a release in the form that another program reads."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import (
    PathOrAddress,
    common_options,
    document,
    engine_option,
    parse_roots,
    progress,
    roots_option,
    show,
    workers_option,
)
from affectdata.registry import check_outside, find_plugins


class _Export(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the forms of other packages, with the error of one that cannot be imported."""
        outside = check_outside("exports")
        if outside:
            with formatter.section("Forms of other packages"):
                formatter.write_dl([(each.name, each.error or each.package) for each in outside])
        super().format_epilog(ctx, formatter)


@click.command("export", cls=_Export)
@click.argument("release", type=PathOrAddress())
@click.option("--to", required=True, type=click.Choice(find_plugins("exports")), help="Output format.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Output folder. [default: exports/<release>-<format>]",
)
@click.option("--by", metavar="COLUMN", help="Column of the classes. [default: the recipe's target]")
@click.option(
    "--i-may-redistribute",
    "may_redistribute",
    is_flag=True,
    help="Export images whose terms forbid redistribution: you have permission, or keep them private.",
)
@roots_option
@workers_option
@engine_option
@common_options
def command(
    release: Path | str,
    to: str,
    out: Path | None,
    by: str | None,
    may_redistribute: bool,
    roots: tuple[str, ...],
    workers: int | None,
    engine: str,
) -> int:
    """Write RELEASE for other programs: a folder per class, Parquet or tar shards, Croissant, and others.

    folders: <split>/<class>/, for torchvision and Keras. hf: Parquet shards with images, for Hugging Face.
    webdataset: tar shards, also for timm. fiftyone: a FiftyOneDataset folder. label_studio: tasks for rating
    the images again. croissant: metadata and the table of labels, without images.

    The images are those of the release, byte for byte; those of a virtual release are rendered.
    """
    from affectdata import api
    from affectdata.release.release import open_release

    opened = open_release(release, parse_roots(roots))
    with progress() as move:
        folder = api.export(
            opened,
            to,
            out=out,
            by=by,
            i_may_redistribute=may_redistribute,
            workers=workers,
            engine=engine,
            progress=move,
        )
    show(f"wrote {folder}")
    document("affectdata/export/1", {"release": str(opened.path), "to": to, "out": str(folder)})
    return 0
