"""A study: run every combination of a grid of settings; the best is chosen on validation, never on test.

    # For the six classes of CAP-D: how fast, with how much dropout.
    name: capd_rates
    best: macro_f1            # of the scores on validation, over the mean of the seeds
    seeds: [0, 1, 2]
    settings: {loss: cross_entropy, steps: 600}
    grid: {lr_body: [0.0001, 0.0003], dropout: [0.0, 0.5]}

In a folder: `runs/<key>.json`, one file per run, so that an interrupted study can be resumed; `results.csv`,
one row per run; `study.json` (schema ``affectdata/study/1``), the best settings and their scores. The key is
a hash of everything that determines a run's scores: if the network's code or weights change, it is run again.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from affectdata.check.words import without_nan
from affectdata.config import StrictModel, parse_model, read_yaml
from affectdata.errors import InputError
from affectdata.hashing import canonical_json, file_hash
from affectdata.store.parquet import read_json, write_json, write_text
from affectdata.train.packaged import DEFAULT_BACKBONE
from affectdata.train.weights import DEFAULT

SCHEMA = "affectdata/study/1"
VAL, TEST = "val", "test"
Scores = dict[str, dict[str, float]]  # by part (`val`, `test`), then by measure
RunOne = Callable[[dict[str, Any]], Scores]
Run = dict[str, Any]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Trial(StrictModel):
    """The settings of one run. Null ones follow from target and weights: see `tuned.choose_settings`."""

    backbone: str = DEFAULT_BACKBONE
    weights: str = DEFAULT
    size_px: int | None = None
    arm: Literal["release", "originals", "even", "duplicates", "weights"] = "release"
    loss: Literal["squared_error", "polarity", "cross_entropy"] | None = None
    steps: int | None = None
    head_steps: int | None = None
    epochs: float | None = None
    lr_head: float | None = None
    lr_body: float | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    batch: int | None = None
    patience: int | None = None
    class_weights: Literal["inverse"] | None = None
    seed: Seed = 0


class Study(StrictModel):
    """A study. `settings` are those of every run; `grid` has the values to combine."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]  # also the name of its folder
    best: str  # measure on validation by which the best is chosen
    lower_is_better: bool = False
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    settings: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    @model_validator(mode="after")
    def _every_key_once(self) -> Study:
        twice = sorted({"seed", *self.settings} & set(self.grid) | {"seed"} & set(self.settings))
        if twice:
            raise ValueError(
                f"{', '.join(twice)}: set twice; seeds go into `seeds`, any other key into settings or grid"
            )
        return self

    def runs(self) -> list[dict[str, Any]]:
        """Return the settings of every run, with its `seed`; the last key of the grid changes first."""
        return [
            {**self.settings, **dict(zip(self.grid, values, strict=True)), "seed": seed}
            for values in itertools.product(*self.grid.values())
            for seed in self.seeds
        ]


def load_study(path: Path) -> Study:
    """Read a study, and check that every run is a valid `Trial`.

    Raises:
        RecipeError: naming the problems of the study, else those of the first invalid run.
    """
    study = parse_model(Study, read_yaml(path), str(path))
    for run in study.runs():
        parse_model(Trial, run, str(path))
    return study


def run_study(
    study: Study,
    run_one: RunOne,
    folder: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
    run_inputs: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Run the combinations that have no result yet, and return the document of `study.json`.

    `run_one` trains with the given settings and returns the scores; `run_inputs` is plain data for each of
    `study.runs()`: everything besides the settings that determines its scores. A run that ends in an
    InputError (a diverged loss) is kept with its error, and cannot be the best.

    Raises:
        InputError: no combination has the score by which the best is chosen.
    """
    wanted = study.runs()
    runs = []
    for number, key in enumerate(zip(wanted, run_inputs or [None] * len(wanted), strict=True), 1):
        settings, _ = key
        path = folder / "runs" / f"{file_hash(canonical_json(key).encode())[:16]}.json"
        if not path.exists():
            write_json(path, _try(run_one, settings))
        runs.append(read_json(path))
        progress(number, len(wanted))
    write_text(folder / "results.csv", _as_csv(study, runs))
    document = {"schema": SCHEMA, "name": study.name, "best_on": f"{VAL}.{study.best}", **_best(study, runs)}
    write_json(folder / "study.json", document)
    return document


def _try(run_one: RunOne, settings: dict[str, Any]) -> Run:
    try:
        scores = run_one(dict(settings))
    except InputError as error:
        return {"settings": settings, "scores": {}, "error": str(error)}
    return {"settings": settings, "scores": without_nan(scores), "error": None}


def _best(study: Study, runs: list[Run]) -> dict[str, Any]:
    """Return settings and scores of the combination with the best mean over the seeds on validation.

    A combination is excluded if one of its seeds failed: its mean would be that of the lucky seeds.
    """
    combinations: dict[str, list[Run]] = {}
    for run in runs:
        settings = {name: value for name, value in run["settings"].items() if name != "seed"}
        combinations.setdefault(canonical_json(settings), []).append(run)
    deciding = {key: _over_seeds(group, VAL, study.best)["mean"] for key, group in combinations.items()}
    means = {key: mean for key, mean in deciding.items() if mean is not None}
    if not means:
        raise InputError(
            f"no combination of {study.name} has {VAL}.{study.best} for every seed",
            fix="set `best` to a score on validation; results.csv has the scores and errors of every run",
        )
    key = (min if study.lower_is_better else max)(means, key=lambda combination: means[combination])
    group = combinations[key]
    scores = {
        part: {name: _over_seeds(group, part, name) for name in measures}
        for part, measures in group[0]["scores"].items()
    }
    return {"settings": json.loads(key), "scores": scores, "n_runs": len(runs), "n_compared": len(means)}


def _over_seeds(group: list[Run], part: str, name: str) -> dict[str, float | None]:
    values = [run["scores"].get(part, {}).get(name) for run in group]
    if any(value is None for value in values):
        return {"mean": None, "sd": None}
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def _as_csv(study: Study, runs: list[Run]) -> str:
    """Format one row per run: the values from the grid, the seed, every score, the error."""
    scores = sorted({(p, n) for run in runs for p, values in run["scores"].items() for n in values})
    scores.sort(key=lambda part_and_name: part_and_name[0] == TEST)  # validation first
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*study.grid, "seed", *(f"{part}_{name}" for part, name in scores), "error"])
    for run in runs:
        values = [run["scores"].get(part, {}).get(name) for part, name in scores]
        writer.writerow([*(run["settings"][name] for name in [*study.grid, "seed"]), *values, run["error"]])
    return text.getvalue()
