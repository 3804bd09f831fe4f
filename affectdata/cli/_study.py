"""`affectdata train-check --study`: several trainings on one release, one table of their scores."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from affectdata.cli._output import document, progress, say, say_table

if TYPE_CHECKING:
    from affectdata.release import Release


def run_study(release: Release, path: Path, out: Path, device: str | None, workers: int) -> int:
    """Run a study, print every run and the best; return the exit code."""
    from affectdata.train.trials import study_release

    with progress("runs") as move:
        found, folder = study_release(
            release,
            path,
            out,
            device=device,
            workers=workers,
            say=lambda text: click.echo(text, err=True),
            progress=move,
        )
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    say_table(header, [[_number(cell) for cell in row] for row in rows])
    say(f"\nbest {found['best_on']}, mean over the seeds: {_words(found['settings'])}")
    for part, scores in found["scores"].items():
        known = {name: each["mean"] for name, each in scores.items() if each["mean"] is not None}
        say(f"  {part}: {_words(known)}")
    say(f"\nwrote {folder}")
    document(found["schema"], {**found, "path": str(folder)})
    return 0


def _number(cell: str) -> float | str | None:
    try:
        return float(cell)
    except ValueError:
        return cell.partition("\n")[0] or None


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
