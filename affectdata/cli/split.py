"""`affectdata split`: write the splits of a recipe into a manifest, where they stay."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import common_options, document, say, say_splits, split_from_option


@click.command("split")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--recipe", "recipe_name", required=True, metavar="R", help="The recipe whose split is wanted.")
@split_from_option
@common_options
def command(manifest: Path, recipe_name: str, split_from: Path | None) -> int:
    """Fill the column `split` of MANIFEST as a recipe says; splits that are there stay.

    Every later `balance` keeps them, and shares out only what has none yet.
    """
    from affectdata.balance.fit import resolve_strata
    from affectdata.balance.planner import choose_rows, describe_splits, split_rows
    from affectdata.balance.recipe import find_recipe, read_recipe
    from affectdata.lineage import open_sound
    from affectdata.manifest import load_manifest, write_manifest
    from affectdata.split import adopt_splits

    loaded = load_manifest(manifest)
    recipe = resolve_strata(read_recipe(find_recipe(recipe_name)), [loaded])
    earlier = open_sound(split_from).table if split_from else None
    chosen = choose_rows([loaded], recipe)
    rows = split_rows(chosen, recipe, earlier=earlier)
    table = adopt_splits(loaded.table, rows)
    written = write_manifest(table, loaded.metadata, manifest)
    found = describe_splits(rows, recipe)
    say_splits(found)
    without = table["split"].null_count
    if without:
        say(f"{without} rows of the manifest stay without a split")
    say(f"wrote {manifest}")
    content = {"manifest": str(manifest), "digest": written.digest, "without_split": without}
    document("affectdata/split/1", {**content, **found})
    return 0
