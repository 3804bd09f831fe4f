"""`affectdata balance`: manifests and a recipe become a release."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectdata.cli._output import (
    DROP_TRAIN,
    PathOrAddress,
    common_options,
    complete_recipes,
    document,
    engine_option,
    folder_option,
    note,
    on_conflict_option,
    parse_roots,
    plain_findings,
    progress,
    roots_option,
    show,
    show_splits,
    show_table,
    split_from_option,
    workers_option,
)
from affectdata.cli._report import no_report_option, write_report
from affectdata.records import count_text

if TYPE_CHECKING:
    from affectdata.plan.plan import Plan
    from affectdata.records import Finding

_THIN_CELLS = 3  # cells worth least per row that are named
_MOST_STRATA = 12  # that fit beside each other


@click.command("balance")
@click.option(
    "--recipe",
    "recipe_name",
    required=True,
    metavar="R",
    shell_complete=complete_recipes,
    help="A YAML file, or the name of a packaged one.",
)
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    type=PathOrAddress(),
    help="Manifest to use; repeatable. [default: the recipe's sources, else the only one]",
)
@folder_option("--out", "releases", "Folder for the release.")
@split_from_option
@on_conflict_option
@click.option("--dry-run", is_flag=True, help="Print the plan without opening any image.")
@click.option(
    "--lint", "only_lint", is_flag=True, help="Only list what looks unwise in the recipe; needs no data."
)
@click.option(
    "--link",
    type=click.Path(path_type=Path),
    help="Symbolic link to point to the release, for DVC or Snakemake, such as releases/current.",
)
@no_report_option
@roots_option
@workers_option
@engine_option
@common_options
def command(
    recipe_name: str,
    manifests: tuple[Path | str, ...],
    out: Path,
    split_from: Path | str | None,
    on_conflict: str,
    dry_run: bool,
    only_lint: bool,
    link: Path | None,
    no_report: bool,
    roots: tuple[str, ...],
    workers: int | None,
    engine: str,
) -> int:
    """Split, balance and render the images of a manifest according to a recipe.

    The release is a folder that never changes: OUT/<recipe>-<id>. The same inputs give the same release.
    """
    from affectdata import api

    if only_lint:
        return _print_lint(api.lint(recipe_name))
    planned = api.plan_balance(
        recipe_name,
        manifest=manifests,
        split_from=split_from,
        on_conflict="drop-train" if on_conflict == DROP_TRAIN else "error",
        roots=parse_roots(roots),
        workers=workers,
        engine=engine,
    )
    show_splits(planned.splits)
    _print_plan(planned.plan, planned.recipe.target, planned.n_left_out)
    if empty := planned.empty_splits:
        note(f"note: no images in {' and '.join(empty)} (too few groups for their share)")
    for remark in planned.lint:
        note(f"lint: {remark.text}")
    if dry_run:
        show("\ndry run: nothing was written\nnext: the same command without --dry-run")
        document("affectdata/plan/1", planned.to_dict())
        return 0
    with progress() as move:
        result = api.balance(planned, out=out, link=link, workers=workers, engine=engine, progress=move)
    _print_drift(result.release.info["drift"])
    show(f"\n{'wrote' if result.is_new else 'already there, verified:'} {result.release.path}")
    if link:
        show(f"linked {link}")
    write_report(api.report, result.release.path, Path("checks"), parse_roots(roots), no_report)
    show(f"next: affectdata train-check {shlex.quote(str(link or result.release.path))}")
    document("affectdata/balance/1", result.to_dict())
    return 0


def _print_lint(remarks: list[Finding]) -> int:
    for remark in remarks:
        show(remark.text)
    show(count_text(len(remarks), "remark") if remarks else "nothing to remark")
    document("affectdata/lint/1", {"lint": plain_findings(remarks)})
    return 1 if remarks else 0


def _print_plan(plan: Plan, target: str, n_left_out: int) -> None:
    if n_left_out:
        show(f"left out (`where`, `labels`, conflicts): {n_left_out}")
    own, filled, after = (
        sum(getattr(each, name) for each in plan.bins) for name in ("n_before", "n_filled", "n_after")
    )
    grown = after - own - filled
    what = count_text(own, "image") + f", {filled} filled in" * bool(filled)
    copies = f", {grown} {'copy' if grown == 1 else 'copies'}" * (grown > 0)
    show(f"train: {what}{copies}, {count_text(after, 'row')}\n")
    strata = sorted({cell.stratum for cell in plan.cells})
    shown_strata = strata if len(strata) <= _MOST_STRATA else []
    cells = {(cell.bin, cell.stratum): cell for cell in plan.cells}
    table, weighted = [], plan.weighted()
    for each in plan.bins:
        row = [cells.get((each.bin, stratum)) for stratum in shown_strata]
        shown = [f"{cell.n_before}→{cell.n_after}" if cell else "" for cell in row]
        missing = round(weighted[each.bin], 1) if weighted else each.shortfall or None
        table.append([each.bin, each.n_before, each.n_filled, each.n_after, missing, *shown])
    last = "weighted" if weighted else "short"
    show_table([target, "before", "filled", "after", last, *shown_strata], table)
    if len(strata) > len(shown_strata):
        show(f"  level over {len(strata)} strata; --json lists all {len(plan.cells)} cells")
    _print_worth(plan)


def _print_drift(drift: dict[str, Any]) -> None:
    if not drift["copies"]:
        return
    changes = ", ".join(f"{name} {found['mean_abs']:.2g}" for name, found in drift["all"].items())
    show(f"\ncopies changed on average, against their originals: {changes}")
    show(
        f"{drift['near_copies']} of {drift['copies']} copies nearly identical to their original or each other"
    )
    probe = drift["probe"]
    if probe:
        interval = f"{probe['low']:.2f} to {probe['high']:.2f}"
        show(f"probe for copies against originals: AUC {probe['auc']:.2f} ({interval}; .5 is chance)")


def _print_worth(plan: Plan) -> None:
    titles = {
        "imbalance_ratio": "largest over smallest bin, empty ones left out",
        "entropy": "entropy (1 is level)",
    }
    words = {"before": "before", "after": "after", "weighted": "with the sampling weights"}
    for name, found in plan.worth().items():
        figures = ", ".join(
            f"{value:.4g} {words[when]}" for when, value in found.items() if value is not None
        )
        show(f"{titles[name]}: {figures}")
    for each in plan.bins:
        have = each.n_before + each.n_filled
        if not have:
            show(f"{each.bin} has no image in train: nothing can level it")
        elif each.shortfall and each.n_after > have:
            images = count_text(have, "image", "are")
            show(
                f"{each.bin} ends {each.shortfall} short of {each.target}: its {images} copied as often as "
                "balance.max_copies allows"
            )
    grown = [cell for cell in plan.cells if cell.n_after > cell.n_before]
    for cell in sorted(grown, key=lambda cell: cell.n_eff / cell.n_after)[:_THIN_CELLS]:
        rows, images = count_text(cell.n_after, "row"), count_text(cell.n_before, "image")
        show(f"{cell.cell}: {rows} of {images}, worth {cell.n_eff:.1f} (n_eff)")
    often = {
        row["values"]: row["counts"] for row in plan.rows.value_counts().field(1).value_counts().to_pylist()
    }
    if max(often) > 1:
        show(f"most copied: {count_text(often[max(often)], 'image', 'occur')} {max(often)} times in train")
