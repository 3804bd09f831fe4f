"""`affectdata balance`: manifests and a recipe become a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectdata.cli._output import (
    common_options,
    document,
    folder_option,
    parse_roots,
    progress,
    roots_option,
    say,
    say_table,
    workers_option,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from affectdata.plan import Plan


@click.command("balance")
@click.option(
    "--recipe", "recipe_name", required=True, metavar="R", help="A YAML file, or the name of a packaged one."
)
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Manifest to use; repeatable. [default: the recipe's sources, else the only one]",
)
@folder_option("--out", "releases", "Folder for the release.")
@click.option("--dry-run", is_flag=True, help="Print what would be made; touch no picture.")
@roots_option
@workers_option
@common_options
def command(
    recipe_name: str,
    manifests: tuple[Path, ...],
    out: Path,
    dry_run: bool,
    roots: tuple[str, ...],
    workers: int | None,
) -> int:
    """Split, level and render the pictures of a manifest as a recipe says.

    The release is a folder that never changes: OUT/<recipe>-<id>. The same inputs give the same release.
    """
    from affectdata.balance.planner import check_upright, choose_rows, plan_rows, split_rows, upright_of
    from affectdata.balance.recipe import find_recipe, read_recipe
    from affectdata.balance.render import publish_release
    from affectdata.manifest import choose_manifests

    recipe = read_recipe(find_recipe(recipe_name))
    chosen = choose_manifests(manifests, recipe.sources, Path("manifests"), parse_roots(roots))
    check_upright(recipe, upright_of(chosen))
    rows = split_rows(choose_rows(chosen, recipe), recipe)
    plan = plan_rows(rows, recipe)
    n_left_out = sum(map(len, chosen)) - rows.num_rows
    _say_plan(plan, rows, recipe.target, n_left_out)
    content: dict[str, Any] = {"balance": plan.summary(), "left_out": n_left_out, "recipe": recipe.name}
    if dry_run:
        say("\ndry run: nothing was written")
        document("affectdata/plan/1", content)
        return 0
    with progress("render") as move:
        release, is_new = publish_release(chosen, rows, plan, recipe, out, workers=workers, progress=move)
    say(f"\n{'wrote' if is_new else 'already there, verified:'} {release.path}")
    document(
        "affectdata/balance/1", {**content, "release": str(release.path), "id": release.id, "new": is_new}
    )
    return 0


def _say_plan(plan: Plan, rows: pa.Table, target: str, n_left_out: int) -> None:
    splits = {each["values"]: each["counts"] for each in rows["split"].value_counts().to_pylist()}
    say("originals: " + ", ".join(f"{splits.get(name, 0)} {name}" for name in ("train", "val", "test")))
    if n_left_out:
        say(f"left out by `where`: {n_left_out}")
    say(f"train grows from {splits.get('train', 0)} to {sum(each.n_after for each in plan.bins)}\n")
    strata = list(dict.fromkeys(sorted(cell.stratum for cell in plan.cells)))
    cells = {(cell.bin, cell.stratum): cell for cell in plan.cells}
    table = []
    for each in plan.bins:
        row = [cells.get((each.bin, stratum)) for stratum in strata]
        shown = [f"{cell.n_before}→{cell.n_after}" if cell else "" for cell in row]
        table.append([each.bin, each.n_before, each.n_after, each.shortfall or None, *shown])
    say_table([target, "before", "after", "short", *strata], table)
    _say_worth(plan)


def _say_worth(plan: Plan) -> None:
    ratio = plan.summary()["imbalance_ratio"]
    say(f"\nlargest over smallest bin: {ratio['before']:g} before, {ratio['after']:g} after")
    for each in plan.bins:
        if each.shortfall and each.n_before:
            say(
                f"{each.bin} ends {each.shortfall} short of {each.target}: its {each.n_before} pictures are "
                "copied as often as balance.max_copies allows"
            )
        elif not each.n_before:
            say(f"{each.bin} has no picture in train: nothing can fill it")
    thin = sorted(plan.cells, key=lambda cell: cell.n_eff / cell.n_after)[:3]
    for cell in thin:
        if cell.n_after > cell.n_before:
            say(f"{cell.cell}: {cell.n_after} rows are worth {cell.n_eff:.1f} pictures (n_eff)")
