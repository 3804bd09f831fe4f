"""`affectdata suggest`: which unrated images to rate next."""

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
    show_table,
)
from affectdata.records import count_text

_SHOWN = 10


@click.command("suggest")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--recipe", required=True, metavar="R", help="Recipe whose cells are to be filled.")
@click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path),
    help="File written by `train-check --keep-model` on a release of the recipe.",
)
@click.option("--manifest", multiple=True, type=PathOrAddress(), help="Manifest; repeatable.")
@click.option("--top", type=click.IntRange(1), default=200, show_default=True, help="Number of images.")
@folder_option("--out", "suggestions", "Folder to write to.")
@roots_option
@common_options
def command(
    folder: Path,
    recipe: str,
    model: Path,
    manifest: tuple[Path | str, ...],
    top: int,
    out: Path,
    roots: tuple[str, ...],
) -> int:
    """Rank the unrated images in FOLDER by how well they would fill the short cells of a recipe.

    Writes suggestions.csv, with predictions and their uncertainty, and a rating task without predictions.
    """
    from affectdata import api
    from affectdata.selection.suggestion import SCHEMA

    result = api.suggest(
        folder,
        recipe,
        model=model,
        top=top,
        manifest=manifest,
        out=out,
        roots=parse_roots(roots),
        note=note,
    )
    short = sorted(result.missing.items(), key=lambda item: -item[1])
    show_table(["cell", "images missing"], [list(item) for item in short[:_SHOWN]])
    show()
    header = ["rank", "file", f"predicted_{result.target}", "low", "high", "likely_cell", "gain"]
    show_table(header, result.images[header].head(_SHOWN).to_numpy().tolist())
    originals = count_text(result.n_held_out, "original")
    show(f"RMSE of the model on {originals} of val and test: {result.error:.1f}")
    if result.skipped:
        note(f"note: skipped {count_text(len(result.skipped), 'file')}; suggest.json has the reasons")
    show(f"wrote {out}/suggestions.csv and {out}/rating_task.csv")
    document(SCHEMA, result.to_dict())
    return 0
