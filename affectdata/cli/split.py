"""`affectdata split`: write the splits of a recipe into a manifest, where they stay."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import (
    common_options,
    complete_recipes,
    document,
    show,
    show_splits,
    split_from_option,
)
from affectdata.errors import UsageError
from affectdata.records import count_text


@click.command("split")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option(
    "--recipe",
    "recipe_name",
    metavar="R",
    shell_complete=complete_recipes,
    help="Recipe that defines the split.",
)
@split_from_option
@click.option(
    "--forget", is_flag=True, help="Remove all splits from MANIFEST and its ledger; without --recipe."
)
@common_options
def command(manifest: Path, recipe_name: str | None, split_from: Path | str | None, forget: bool) -> int:
    """Fill the column `split` of MANIFEST according to a recipe; existing and recorded splits are kept.

    Later runs of `balance` keep them and assign only images without a split. NAME.ledger.parquet beside the
    manifest records the split of every image, even while the image is missing.
    """
    from affectdata import api

    if forget:
        if recipe_name or split_from:
            raise UsageError("--forget only removes splits", fix="leave out --recipe and --split-from")
        n_forgotten, digest = api.forget_splits(manifest)
        show(f"forgot the splits of {count_text(n_forgotten, 'image')} of {manifest}")
        document(
            "affectdata/split/1", {"manifest": str(manifest), "digest": digest, "forgotten": n_forgotten}
        )
        return 0
    if not recipe_name:
        raise UsageError("there is no recipe to split by", fix="--recipe R, or --forget to remove all splits")
    result = api.split(manifest, recipe_name, split_from=split_from)
    show_splits(result.splits)
    if result.n_without:
        show(f"without a split: {count_text(result.n_without, 'row')} of the manifest")
    show(f"wrote {manifest}")
    document("affectdata/split/1", result.to_dict())
    return 0
