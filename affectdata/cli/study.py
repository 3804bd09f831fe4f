"""`affectdata study`: many settings trained on one release, and compared on its val split."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import (
    common_options,
    folder_option,
    parse_roots,
    roots_option,
    workers_option,
)
from affectdata.cli._report import no_report_option
from affectdata.cli._study import run_study


@click.command("study")
@click.argument("study", metavar="STUDY", type=click.Path(path_type=Path))
@click.argument("release_path", metavar="[RELEASE]", required=False, type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME", help="cpu, cuda, … [default: a GPU where there is one]")
@click.option(
    "--keep-model",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Train the best combination again with its first seed, and save it as a .safetensors file, with a "
    "model card beside it.",
)
@folder_option("--out", "checks", "Folder for the results.")
@no_report_option
@roots_option
@workers_option
@common_options
def command(
    study: Path,
    release_path: Path | None,
    device: str | None,
    keep_model: Path | None,
    out: Path,
    no_report: bool,
    roots: tuple[str, ...],
    workers: int | None,
) -> int:
    """Train every combination of settings in STUDY on RELEASE, and compare them on its val split.

    STUDY is a file, or a name: a file in ./studies, or a study of the package. RELEASE is a folder.
    [default: the newest in ./releases] Each run is scored on train, val and test;
    OUT/<release>/studies/<study>/ holds study.json and tables: results, curves, subgroups, confusion.
    Finished runs are not repeated.
    """
    return run_study(study, release_path, device, keep_model, no_report, out, parse_roots(roots), workers)
