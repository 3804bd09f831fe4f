"""Run a study and print its result, a table of all runs and the best: `study`, and `train-check --study`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from affectdata import api
from affectdata.cli._output import document, progress, show, show_table


def run_study(
    study: Path,
    release: Path | None,
    device: str | None,
    out: Path,
    roots: dict[str, str | Path],
    workers: int | None,
) -> int:
    """Run a study with the options of the command and print its result; return the exit code."""
    with progress() as move:
        result = api.study(
            study,
            release,
            device=device,
            out=out,
            roots=roots,
            workers=workers,
            note=partial(click.echo, err=True),  # what goes to the network is printed even with --quiet
            progress=move,
        )
    return _print_study(result.document, result.folder)


def _print_study(study: dict[str, Any], folder: Path) -> int:
    """Print every run of a study and the best; return the exit code."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    show_table(header, [[_parse_cell(cell) for cell in row] for row in rows])
    show(f"\nbest {study['best_on']}, mean over the seeds: {_pairs_text(study['settings'])}")
    for part, scores in study["scores"].items():
        known = {name: score["mean"] for name, score in scores.items() if score["mean"] is not None}
        show(f"  {part}: {_pairs_text(known)}")
    show(f"\nwrote {folder}")
    document(study["schema"], {**study, "path": str(folder)})
    return 0


def _parse_cell(cell: str) -> float | str | None:
    try:
        return float(cell)
    except ValueError:
        return cell.partition("\n")[0] or None


def _pairs_text(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
