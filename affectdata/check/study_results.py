"""What a study writes: the document `study.json` (schema ``affectdata/study/2``) and its tables.

    study.json      every combination: mean and SD of its scores, and its difference to the best on val
    results.csv     one row per run: settings, seed, scores on train, val and test, error
    curves.csv      training curves of networks
    subgroups.csv   scores by subgroup of val and test, with intervals
    confusion.csv   counts of true and predicted classes
    labels.csv      of label sets: precision, recall, F1 and average precision by label
    runs/<key>.json one file per run; the key is a hash of everything that determines its scores

The best combination is the one with the best mean on val. It is the `winner` only if its difference to
every other one is clear: an interval over resampled images of val, the same for both, and over the seeds, at
a level corrected (Bonferroni) for the number of combinations. With one seed the interval leaves out the
variation between trainings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import stats

from affectdata.errors import InputError, IntegrityError
from affectdata.hashing import canonical_json, file_hash
from affectdata.store.atomic import write_text
from affectdata.store.escape import to_csv

SCHEMA = "affectdata/study/2"
TRAIN, VAL, TEST = "train", "val", "test"
PARTS = (TRAIN, VAL, TEST)
_LEVEL = 0.95
Run = dict[
    str, Any
]  # settings, scores by part and measure, error; and curve, confusion, subgroups, predictions


class _Run(BaseModel):
    model_config = ConfigDict(extra="allow")

    settings: dict[str, Any]
    scores: dict[str, dict[str, float | None]]
    error: str | None
    curves: list[dict[str, Any]] = []
    subgroups: list[dict[str, Any]] = []
    confusion: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    predictions: dict[str, list[Any]] = {}


def parse_run(path: Path, data: dict[str, Any], fix: str) -> Run:
    """Return a run that was read from a file.

    Raises:
        IntegrityError: it is not what a study writes.
    """
    try:
        _Run.model_validate(data)
    except ValidationError as error:
        raise IntegrityError(f"{path.name} is not a run of a study", where=str(path), fix=fix) from error
    return data


def make_document(
    name: str,
    best: str,
    lower_is_better: bool,
    runs: list[Run],
    resample: Callable[[Run], np.ndarray | None],
) -> dict[str, Any]:
    """Return the document of a study: its combinations, the best first, and the winner if there is one.

    A combination is excluded if one of its seeds failed: its mean would be that of the lucky seeds.

    Raises:
        InputError: no combination has the score by which the best is chosen.
    """
    by_settings: dict[str, list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in run["settings"].items() if key != "seed"}
        by_settings.setdefault(canonical_json(settings), []).append(run)
    means = {key: _over_seeds(group, VAL, best)["mean"] for key, group in by_settings.items()}
    known = {key: mean for key, mean in means.items() if mean is not None}
    if not known:
        raise InputError(
            f"no combination of {name} has {VAL}.{best} for every seed",
            fix="set `best` to a score on val; results.csv has the scores and errors of every run",
        )
    order = sorted(known, key=lambda key: known[key] if lower_is_better else -known[key])
    resampled = {key: [resample(run) for run in by_settings[key]] for key in order} if len(order) > 1 else {}
    combinations = []
    for key in order:
        group = by_settings[key]
        scores = {
            part: {measure: _over_seeds(group, part, measure) for measure in measures}
            for part, measures in group[0]["scores"].items()
        }
        combination: dict[str, Any] = {"settings": json.loads(key), "scores": scores, "difference": None}
        if key != order[0]:
            first, other = (
                (np.array([run["scores"][VAL][best] for run in by_settings[each]]), resampled[each])
                for each in (order[0], key)
            )
            combination["difference"] = _difference(first, other, len(order) - 1)
        combinations.append(combination)
    clear = all(_is_clear(each["difference"], lower_is_better) for each in combinations[1:])
    return {
        "schema": SCHEMA,
        "name": name,
        "best_on": f"{VAL}.{best}",
        "lower_is_better": lower_is_better,
        "winner": combinations[0]["settings"] if clear else None,
        "combinations": combinations,
        "errors": _errors(runs),
        "n_runs": len(runs),
        "n_seeds": max(len(group) for group in by_settings.values()),
    }


def _errors(runs: list[Run]) -> list[str]:
    """Return the errors of runs, once each, with their number and the first line only."""
    lines = Counter(run["error"].partition("\n")[0] for run in runs if run["error"])
    return [f"{n} {'run' if n == 1 else 'runs'}: {line}" for line, n in lines.items()]


_OneSide = tuple[np.ndarray, list[np.ndarray | None]]


def _difference(first: _OneSide, other: _OneSide, n_compared: int) -> dict[str, float | None]:
    """Return the difference (best - other) in the deciding score, and its interval; null if unknown.

    Its variance is that over the resampled images plus, with several seeds, that of a mean over the seeds;
    the degrees of freedom are Satterthwaite's.
    """
    pairs = first[0] - other[0]
    mean = float(pairs.mean())
    rows = [a - b for a, b in zip(first[1], other[1], strict=True) if a is not None and b is not None]
    n_seeds = len(pairs)
    of_rows = float(np.nanvar(np.mean(rows, axis=0), ddof=1)) if len(rows) == n_seeds else None
    of_seeds = float(pairs.var(ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    if of_rows is None and n_seeds == 1:
        return {"mean": mean, "low": None, "high": None}
    variance = (of_rows or 0.0) + of_seeds
    freedom = variance**2 / (of_seeds**2 / (n_seeds - 1)) if of_seeds > 0 else np.inf
    reach = float(stats.t.ppf(1 - (1 - _LEVEL) / 2 / n_compared, freedom)) * variance**0.5
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def _is_clear(difference: dict[str, float | None], lower_is_better: bool) -> bool:
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return False
    return high < 0 if lower_is_better else low > 0


def _over_seeds(group: list[Run], part: str, name: str) -> dict[str, float | None]:
    values = [run["scores"].get(part, {}).get(name) for run in group]
    if any(value is None for value in values):
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def write_tables(varied: Sequence[str], runs: list[Run], folder: Path) -> dict[str, str]:
    """Write the tables of a study; of those that would be empty only `results.csv`. Return their SHA-256."""
    names = [*varied, "seed"]
    of_runs = [[run["settings"].get(name) for name in names] for run in runs]
    scores = sorted(
        {(part, name) for run in runs for part, values in run["scores"].items() for name in values}
    )
    scores.sort(key=lambda each: (VAL, TEST, TRAIN).index(each[0]))
    results = [
        [*own, *(run["scores"].get(part, {}).get(name) for part, name in scores), run["error"]]
        for own, run in zip(of_runs, runs, strict=True)
    ]
    header = [*names, *(f"{part}_{name}" for part, name in scores), "error"]
    written = {"results.csv": to_csv(header, results)}
    for table, columns in {
        "curves": ["step", "phase", "loss", "val_loss", "accuracy", "val_accuracy"],
        "subgroups": ["split", "column", "group", "n", "measure", "mean", "low", "high"],
        "confusion": ["split", "true", "predicted", "n"],
        "labels": ["split", "label", "n", "n_predicted", "precision", "recall", "f1", "average_precision"],
    }.items():
        rows = [
            [*own, *(row.get(column) for column in columns)]
            for own, run in zip(of_runs, runs, strict=True)
            for row in run.get(table, [])
        ]
        if rows:
            written[f"{table}.csv"] = to_csv([*names, *columns], rows)
        else:
            (folder / f"{table}.csv").unlink(missing_ok=True)
    for name, text in written.items():
        write_text(folder / name, text)
    return {name: file_hash(text.encode()) for name, text in written.items()}
