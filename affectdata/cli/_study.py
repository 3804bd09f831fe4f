"""Run a study and print its combinations and the best: `study`, and `train-check --study`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from affectdata import api
from affectdata.check.words import varied_settings
from affectdata.cli._output import document, progress, show, show_table
from affectdata.cli._report import may_report
from affectdata.records import count_text

_PARTS = ("val", "test", "train")


def run_study(
    study: Path,
    release: Path | str | None,
    device: str | None,
    keep_model: Path | None,
    no_report: bool,
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
            keep_model=keep_model,
            out=out,
            roots=roots,
            workers=workers,
            note=partial(click.echo, err=True),  # what goes to the network is printed even with --quiet
            progress=move,
        )
    code = _print_study(result.document, result.folder, result.model)
    if may_report(no_report):
        show(f"wrote {api.report(result.folder).path}")
    return code


def _print_study(study: dict[str, Any], folder: Path, model: Path | None) -> int:
    """Print the combinations of a study, the best first, and its errors; return the exit code."""
    combinations, measure = study["combinations"], study["best_on"].partition(".")[2]
    varied = varied_settings([each["settings"] for each in combinations])
    rows = [
        [
            *(each["settings"].get(name) for name in varied),
            *(each["scores"].get(part, {}).get(measure, {}).get("mean") for part in _PARTS),
            each["scores"][_PARTS[0]][measure]["sd"],
            _interval(each["difference"]) if each["difference"] else "",
        ]
        for each in combinations
    ]
    show_table([*varied, *(f"{part}_{measure}" for part in _PARTS), "sd", "best - it"], rows)
    show(
        f"mean and SD on val over {count_text(study['n_seeds'], 'seed')}; intervals hold for all rows "
        f"together{_of_seeds(study)}"
    )
    for error in study["errors"]:
        show(f"  {error}")
    show("")
    first, *others = combinations
    if study["winner"] or not others:
        show(f"best {study['best_on']}, mean over the seeds: {_pairs_text(first['settings'])}")
    else:
        near = sum(not _is_clear(each["difference"]) for each in others) + 1
        show(
            f"no clear best on {study['best_on']}: {near} of {len(combinations)} combinations are within the "
            f"noise; the highest of them: {_pairs_text(first['settings'])}"
        )
    for part, scores in {**first["scores"], **_of_baseline(study)}.items():
        known = {name: score["mean"] for name, score in scores.items() if score["mean"] is not None}
        show(f"  {part}: {_pairs_text(known)}")
    show(f"\nwrote {folder}")
    if model:
        show(f"wrote {model}")
    document(study["schema"], {**study, "path": str(folder)})
    return 0


def _of_baseline(study: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of the baseline on test, or on val, in the form of the other scores."""
    part = "test" if "test" in study["baseline"] else "val"
    scores = study["baseline"][part]
    return {f"baseline, {part}": {name: {"mean": value} for name, value in scores.items()}}


def _of_seeds(study: dict[str, Any]) -> str:
    return "" if study["n_seeds"] > 1 else ", without the variation between trainings"


def _is_clear(difference: dict[str, float | None]) -> bool:
    low, high = difference["low"], difference["high"]
    return low is not None and high is not None and not low <= 0 <= high


def _interval(difference: dict[str, float | None]) -> str:
    low, high = difference["low"], difference["high"]
    interval = f" ({low:+.3f} to {high:+.3f})" if low is not None and high is not None else ", no interval"
    return f"{difference['mean']:+.3f}{interval}"


def _pairs_text(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
