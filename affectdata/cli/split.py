"""`affectdata split`: write the splits of a recipe into a manifest, where they stay."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import common_options, document, say, say_splits, split_from_option
from affectdata.errors import UsageError


@click.command("split")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--recipe", "recipe_name", metavar="R", help="The recipe whose split is wanted.")
@split_from_option
@click.option(
    "--forget", is_flag=True, help="Remove every split from MANIFEST and from its ledger; takes no --recipe."
)
@common_options
def command(manifest: Path, recipe_name: str | None, split_from: Path | None, forget: bool) -> int:
    """Fill the column `split` of MANIFEST as a recipe says; splits that are there or were there stay.

    Every later `balance` keeps them, and shares out only what has none yet. NAME.ledger.parquet beside the
    manifest remembers the split of every image, also of one that is gone for a while.
    """
    from affectdata.balance.fit import resolve_strata
    from affectdata.balance.planner import choose_rows, describe_splits, split_rows
    from affectdata.balance.recipe import find_recipe, read_recipe
    from affectdata.ledger import forget_splits, read_ledger, recall, splits_of, write_ledger
    from affectdata.manifest import load_manifest, write_manifest
    from affectdata.release import open_release
    from affectdata.split import adopt_splits

    if forget:
        if recipe_name or split_from:
            raise UsageError("--forget only removes splits", fix="leave out --recipe and --split-from")
        n_forgotten, digest = forget_splits(manifest)
        say(f"forgot the splits of {n_forgotten} images of {manifest}")
        document(
            "affectdata/split/1", {"manifest": str(manifest), "digest": digest, "forgotten": n_forgotten}
        )
        return 0
    if not recipe_name:
        raise UsageError("there is no recipe to split by", fix="--recipe R, or --forget to remove all splits")
    loaded = load_manifest(manifest)
    recipe = resolve_strata(read_recipe(find_recipe(recipe_name)), [loaded])
    memory = recall([loaded], open_release(split_from).table if split_from else None)
    chosen = choose_rows([loaded], recipe, memory)
    rows = split_rows(chosen, recipe, memory=memory)
    table = adopt_splits(loaded.table, rows)
    write_ledger([splits_of(table), read_ledger(manifest)], manifest)
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
