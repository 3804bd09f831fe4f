"""`affectdata study`: a grid of settings trained on one release, and the best of them."""

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
from affectdata.cli._study import run_study


@click.command("study")
@click.argument("study", metavar="STUDY.yaml", type=click.Path(path_type=Path))
@click.argument("release_path", metavar="[RELEASE]", required=False, type=click.Path(path_type=Path))
@click.option("--device", metavar="NAME", help="cpu, cuda, … [default: a GPU where there is one]")
@folder_option("--out", "checks", "Folder for the results.")
@roots_option
@workers_option
@common_options
def command(
    study: Path,
    release_path: Path | None,
    device: str | None,
    out: Path,
    roots: tuple[str, ...],
    workers: int | None,
) -> int:
    """Train every combination of settings in STUDY.yaml on RELEASE, and name the best on its val split.

    RELEASE is a folder. [default: the newest in ./releases] Each run is scored on val and test;
    OUT/<release>/studies/<study>/ holds results.csv and study.json. Finished runs are not repeated.
    """
    return run_study(study, release_path, device, out, parse_roots(roots), workers)
