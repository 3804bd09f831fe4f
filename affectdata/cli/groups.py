"""`affectdata groups`: versions of one image, as groups that a split keeps whole."""

from __future__ import annotations

from functools import partial
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
    show_table,
    workers_option,
)
from affectdata.records import count_text
from affectdata.train.packaged import DEFAULT_BACKBONE

_SHOWN = 20


@click.command("groups")
@click.argument("manifest", type=PathOrAddress())
@click.option(
    "--backbone", default=DEFAULT_BACKBONE, show_default=True, metavar="NAME", help="As in train-check."
)
@click.option("--weights", default="DEFAULT", show_default=True, metavar="FILE|none|DEFAULT")
@click.option("--device", metavar="NAME", help="cpu, cuda, … [default: a GPU where there is one]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The table to write. [default: NAME.groups.csv beside MANIFEST]",
)
@roots_option
@workers_option
@engine_option
@common_options
def command(
    manifest: Path | str,
    backbone: str,
    weights: str,
    device: str | None,
    out: Path | None,
    roots: tuple[str, ...],
    workers: int | None,
    engine: str,
) -> int:
    """Find copies of one image in MANIFEST: cropped, mirrored, framed, slightly rotated or re-encoded.

    The table that is written has a row per image of such a pair: image_id, group, source, path. With `split:
    {groups: FILE}` in a recipe, the images of a group stay in one split; remove a row to take an image out of
    its group. Each image is compared with the five images whose features are most similar; features are
    cached in ./checks.
    """
    from affectdata import api

    aloud = partial(click.echo, err=True)
    with progress() as move:
        found = api.groups(
            manifest,
            backbone=backbone,
            weights=weights,
            device=device,
            out=out,
            roots=parse_roots(roots),
            workers=workers,
            engine=engine,
            announce=aloud,
            progress=move,
        )
    rows = [
        [pair["path_a"], pair["path_b"], pair["inliers"], "mirrored" if pair["mirrored"] else ""]
        for pair in found.pairs.slice(0, _SHOWN).to_pylist()
    ]
    if rows:
        show_table(["image", "the same as", "points that fit", ""], rows, indent="")
    more = len(found.pairs) - len(rows)
    pairs, groups = count_text(len(found.pairs), "pair"), count_text(found.n_groups, "group")
    show(f"{pairs} in {groups}" + (f", {more} not shown" if more else ""))
    show(f"wrote {found.path}")
    document("affectdata/groups/1", found.to_dict())
    return 0
