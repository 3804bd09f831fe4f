"""`affectdata compare`: how alike two images are, by several hashes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from affectdata.cli._output import common_options, document, show_table


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--hash",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="average, difference, wavelet, colour or crop_resistant; repeatable. [default: all]",
)
@common_options
def command(first: Path, second: Path, kinds: tuple[str, ...]) -> int:
    """Print the distance between the images FIRST and SECOND by pHash and by other hashes.

    `ingest` groups images by their pHash alone, in eight views. Other hashes show why two images are
    look-alikes or not; crop_resistant finds parts of one image in another.
    """
    from affectdata import api

    found = api.compare(first, second, hash=kinds)
    rows = [[each.kind, each.apart, each.of, each.meaning] for each in found]
    show_table(["hash", "apart", "of", ""], rows)
    listed = [asdict(each) for each in found]
    document("affectdata/compare/1", {"first": str(first), "second": str(second), "hashes": listed})
    return 0
