"""Print the result of `affectdata train-check --study`: a table of all runs, and the best."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affectdata.cli._output import document, show, show_table


def print_study(study: dict[str, Any], folder: Path) -> int:
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
