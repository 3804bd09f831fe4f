"""What `affectdata train-check --study` prints: one table of the scores of every run, and the best."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affectdata.cli._output import document, say, say_table


def print_study(found: dict[str, Any], folder: Path) -> int:
    """Print every run of a study and the best; return the exit code."""
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
