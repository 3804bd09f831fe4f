"""`affectdata balance`: manifests and a recipe become a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectdata.cli._output import (
    DROP_TRAIN,
    common_options,
    document,
    folder_option,
    note,
    parse_roots,
    progress,
    roots_option,
    say,
    say_table,
    split_options,
    workers_option,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from affectdata.plan import Plan

_THIN_CELLS = 3  # cells worth least per row that are named


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
@split_options
@click.option("--dry-run", is_flag=True, help="Print what would be made; touch no picture.")
@roots_option
@workers_option
@common_options
def command(
    recipe_name: str,
    manifests: tuple[Path, ...],
    out: Path,
    split_from: Path | None,
    on_conflict: str,
    dry_run: bool,
    roots: tuple[str, ...],
    workers: int | None,
) -> int:
    """Split, level and render the pictures of a manifest as a recipe says.

    The release is a folder that never changes: OUT/<recipe>-<id>. The same inputs give the same release.
    """
    from affectdata.balance.lint import lint_recipe
    from affectdata.balance.planner import plan_release
    from affectdata.balance.publish import publish_release
    from affectdata.balance.recipe import find_recipe, read_recipe
    from affectdata.manifest import choose_manifests, load_manifest
    from affectdata.release import open_release

    recipe = read_recipe(find_recipe(recipe_name))
    given = parse_roots(roots)
    chosen = choose_manifests(manifests, recipe.sources, Path("manifests"), given)
    others = [
        load_manifest(Path("manifests") / f"{name}.parquet", given) for name in recipe.balance.fill_from
    ]
    earlier = open_release(split_from).table if split_from else None
    drop_train = on_conflict == DROP_TRAIN
    rows, plan = plan_release(chosen, others, recipe, earlier=earlier, drop_train=drop_train)
    n_left_out = sum(map(len, chosen)) + sum(each.n_filled for each in plan.bins) - rows.num_rows
    _say_plan(plan, rows, recipe.target, n_left_out)
    remarks = lint_recipe(recipe)
    for remark in remarks:
        note(f"lint: {remark.text}")
    content: dict[str, Any] = {"balance": plan.summary(), "left_out": n_left_out, "recipe": recipe.name}
    content["lint"] = [{"kind": remark.kind, "text": remark.text} for remark in remarks]
    if dry_run:
        say("\ndry run: nothing was written")
        document("affectdata/plan/1", content)
        return 0
    with progress("render") as move:
        release, is_new = publish_release(
            [*chosen, *others], rows, plan, recipe, out, workers=workers, progress=move
        )
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
        table.append([each.bin, each.n_before, each.n_filled, each.n_after, each.shortfall or None, *shown])
    say_table([target, "before", "filled", "after", "short", *strata], table)
    _say_worth(plan)


def _say_worth(plan: Plan) -> None:
    summary = plan.summary()
    for name, words in (
        ("imbalance_ratio", "largest over smallest bin"),
        ("entropy", "entropy (1 is level)"),
    ):
        before, after = summary[name]["before"], summary[name]["after"]
        say(f"{words}: {before:.4g} before, {after:.4g} after")
    for each in plan.bins:
        have = each.n_before + each.n_filled
        if not have:
            say(f"{each.bin} has no picture in train: nothing can level it")
        elif each.shortfall:
            say(
                f"{each.bin} ends {each.shortfall} short of {each.target}: its {have} pictures are "
                "copied as often as balance.max_copies allows"
            )
    grown = [cell for cell in plan.cells if cell.n_after > cell.n_before]
    for cell in sorted(grown, key=lambda cell: cell.n_eff / cell.n_after)[:_THIN_CELLS]:
        say(f"{cell.cell}: {cell.n_after} rows are worth {cell.n_eff:.1f} pictures (n_eff)")
    copies = plan.table.group_by("image_id").aggregate([([], "count_all")])["count_all"].to_pylist()
    if max(copies) > 1:
        say(f"most copied: {copies.count(max(copies))} pictures stand {max(copies)} times in train")
