"""A study: runs of one release with different settings, compared on val, never on test.

    # For the six classes of CAP-D: heads on frozen features beside networks, how fast, with how much dropout.
    name: capd_rates
    best: macro_f1            # of the scores on val, over the mean of the seeds
    seeds: [0, 1, 2]
    settings: {steps: 600, weights: {mobilenet_v1: mobilenet.safetensors}}
    grid: {mode: [frozen, finetune], backbone: [mobilenet_v1, resnet18]}
    random: {n: 10, settings: {lr_trunk: {log: [0.00001, 0.001]}, dropout: {uniform: [0, 0.6]}}}

`mode: frozen` trains heads on the features of the backbone, in seconds; the settings of networks do not apply
to it. `weights` is one value, or values by backbone. `random` draws settings for every combination of the
grid: the first draws are the same for a larger `n`. `study_results` describes what is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from affectdata.check.metrics import lower_is_better
from affectdata.check.study_results import Run, make_document, parse_run, write_tables
from affectdata.check.words import without_nan
from affectdata.config import NAME_PATTERN, StrictModel, parse_model, read_yaml
from affectdata.errors import InputError, MissingError, UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.recipe.target import TargetSpec
from affectdata.registry import find_data, suggest
from affectdata.store.sealed import read_kept, write_kept, write_sealed
from affectdata.train.packaged import DEFAULT_BACKBONE
from affectdata.train.weights import DEFAULT

FROZEN = "frozen"
Outcome = dict[str, Any]  # `scores` by part and measure, and whatever else belongs into the file of a run
RunOne = Callable[[dict[str, Any]], Outcome]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class Trial(StrictModel):
    """The settings of one run. Null ones follow from target and weights: see `tuned.choose_settings`."""

    mode: Literal["frozen", "finetune"] = "finetune"
    backbone: str = DEFAULT_BACKBONE
    weights: str = DEFAULT
    head: Literal["svr", "ridge"] | None = None  # of frozen features, for a numeric target
    size_px: int | None = None
    arm: Literal["release", "originals", "even", "duplicates", "weights"] = "release"
    loss: (
        Literal[
            "squared_error",
            "polarity",
            "cross_entropy",
            "polarity_cross_entropy",
            "binary",
            "distribution",
        ]
        | None
    ) = None
    steps: int | None = None
    head_steps: int | None = None
    epochs: float | None = None
    lr_head: float | None = None
    lr_trunk: float | None = None
    weight_decay: float | None = None
    dropout: float | None = None
    batch: int | None = None
    patience: int | None = None
    class_weights: Literal["inverse"] | None = None
    seed: Seed = 0


_OF_BOTH = {"mode", "backbone", "weights", "arm", "seed"}
_OF_FROZEN = {*_OF_BOTH, "head"}
_OF_NETWORKS = {*Trial.model_fields} - {"head"}
_INTEGERS = {"size_px", "steps", "head_steps", "batch", "patience"}


class Draw(StrictModel):
    """A range to draw from: evenly, or evenly on the scale of logarithms."""

    uniform: Range | None = None
    log: Range | None = None

    @model_validator(mode="after")
    def _one_range(self) -> Draw:
        if (self.uniform is None) == (self.log is None):
            raise ValueError("give exactly one of uniform, log")
        low, high = self.uniform or self.log or [0, 0]
        if low >= high or (self.log and low <= 0):
            raise ValueError("must be [lowest, highest]; of log, above 0")
        return self

    def draw(self, rng: np.random.Generator) -> float:
        if self.log:
            return float(np.exp(rng.uniform(*np.log(self.log))))
        return float(rng.uniform(*(self.uniform or (0, 1))))


def _rename(settings: Any) -> Any:
    """Give settings of older studies their present names."""
    if not isinstance(settings, dict):
        return settings
    return {_FORMER_NAMES.get(name, name): value for name, value in settings.items()}


_FORMER_NAMES = {"lr_body": "lr_trunk"}
_Renamed = BeforeValidator(_rename)


class RandomSearch(StrictModel):
    """`n` random draws of some settings, each from a range or a list."""

    n: Annotated[int, Field(ge=1, le=10_000)]
    seed: Seed = 0
    settings: Annotated[
        dict[str, Draw | Annotated[list[Any], Field(min_length=1)]], Field(min_length=1), _Renamed
    ]

    def draws(self) -> list[dict[str, Any]]:
        """Return the settings of each draw; integers are rounded, other numbers have four digits."""
        rng = np.random.default_rng(self.seed)
        return [
            {name: _draw(name, value, rng) for name, value in self.settings.items()} for _ in range(self.n)
        ]


def _draw(name: str, values: Draw | list[Any], rng: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]
    drawn = values.draw(rng)
    return round(drawn) if name in _INTEGERS else float(f"{drawn:.4g}")


class Study(StrictModel):
    """A study. `settings` are those of every run; `grid` has values to combine, `random` what to draw."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]  # also the name of its folder
    best: str  # measure on val by which runs are compared
    lower_is_better: bool | None = None  # by default `metrics.lower_is_better`
    target: TargetSpec | None = None  # in place of the recipe's
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    settings: Annotated[dict[str, Any], _Renamed] = {}
    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], _Renamed] = {}
    random: RandomSearch | None = None

    @model_validator(mode="after")
    def _every_key_once(self) -> Study:
        given = ["seed", *self.settings, *self.grid, *self._drawn]
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ValueError(
                f"{', '.join(twice)}: set twice; seeds go into `seeds`, any other key into one of settings, "
                "grid and random"
            )
        return self

    @property
    def is_lower_better(self) -> bool:
        """Whether the best has the lowest score."""
        return lower_is_better(self.best) if self.lower_is_better is None else self.lower_is_better

    @property
    def _drawn(self) -> list[str]:
        return list(self.random.settings) if self.random else []

    @property
    def varied(self) -> list[str]:
        """The settings in which the runs differ."""
        return [*self.grid, *self._drawn]

    def runs(self) -> list[dict[str, Any]]:
        """Return the settings of every run, with its `seed`; the last key of the grid changes first.

        A run on frozen features has no settings of networks, and a network no `head`; equal runs are one.
        """
        drawn = self.random.draws() if self.random else [{}]
        runs = [
            self._of_mode(
                {**self.settings, **dict(zip(self.grid, values, strict=True)), **each, "seed": seed}
            )
            for values in itertools.product(*self.grid.values())
            for each in drawn
            for seed in self.seeds
        ]
        return list({canonical_json(run): run for run in runs}.values())

    def _of_mode(self, run: dict[str, Any]) -> dict[str, Any]:
        if isinstance(run.get("weights"), dict):
            run["weights"] = run["weights"].get(run.get("backbone", DEFAULT_BACKBONE), DEFAULT)
        if "mode" not in self.varied:  # what does not apply to any run is an error of `Trial`'s user
            return run
        idle = (_OF_NETWORKS if run["mode"] == FROZEN else _OF_FROZEN) - (
            _OF_FROZEN if run["mode"] == FROZEN else _OF_NETWORKS
        )
        return {name: value for name, value in run.items() if name not in idle}

    def check(self) -> None:
        """Check what depends on several settings.

        Raises:
            UsageError: weights for a backbone that no run has, or settings that no run can use.
        """
        runs = self.runs()
        modes = {run.get("mode", "finetune") for run in runs}
        usable = set[str]().union(*(_OF_FROZEN if mode == FROZEN else _OF_NETWORKS for mode in modes))
        idle = sorted({*self.settings, *self.varied} - usable)
        if idle:
            raise UsageError(
                f"{', '.join(idle)} have no effect with mode {'/'.join(sorted(modes))}", fix="leave them out"
            )
        weights = self.settings.get("weights")
        known = sorted({run.get("backbone", DEFAULT_BACKBONE) for run in runs})
        for name in weights if isinstance(weights, dict) else ():
            if name not in known:
                raise UsageError(
                    f"weights are given for {name}, which no run uses", fix=f"backbones: {', '.join(known)}"
                )


def find_study(name: str) -> Path:
    """Find a study: the path as given, else in `./studies`, else among those of the package.

    Raises:
        UsageError: no study has this name; lists the known ones.
    """
    given = Path(name)
    file = given if given.suffix else given.with_suffix(".yaml")
    folders = [Path("studies"), packaged_studies()]
    for path in (file, *(folder / file.name for folder in folders)):
        if path.is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise UsageError(
        f"no study {name!r}",
        where=", ".join(str(path) for path in (file, *folders)),
        fix=f"{suggest(file.stem, known)}known: {', '.join(known) or 'none'}",
    )


def packaged_studies() -> Path:
    """Return the folder of the packaged studies, installed or in a checkout."""
    return find_data("examples") / "studies"


def load_study(path: Path) -> Study:
    """Read a study, and check that every run is a valid `Trial`.

    Raises:
        RecipeError: naming the problems of the study, else those of the first invalid run.
        UsageError: settings have no effect.
    """
    study = parse_model(Study, read_yaml(path), str(path))
    for run in study.runs():
        parse_model(Trial, run, str(path))
    study.check()
    return study


def run_study(
    study: Study,
    run_one: RunOne,
    folder: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
    run_inputs: Sequence[Any] | None = None,
    resample: Callable[[Run], np.ndarray | None] = lambda _: None,
    more: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the combinations that have no result yet, and return the document of `study.json`.

    `run_one` trains with the given settings and returns the scores; `run_inputs` is plain data for each of
    `study.runs()`: everything besides the settings that determines its scores, or the MissingError that
    prevents it. A run that ends in an InputError (a diverged loss) is kept with its error, and cannot be the
    best; one that lacks weights is skipped and tried again by the next call. `resample` returns the score
    of a run that decides, on resamples of val that are the same for every run. `more` is added to the
    document.

    Raises:
        MissingError: every run is skipped.
        InputError: no combination has the score by which the best is chosen.
    """
    wanted = study.runs()
    inputs = list(run_inputs or [None] * len(wanted))
    missing = [each for each in inputs if isinstance(each, MissingError)]
    if len(missing) == len(wanted):
        raise missing[0]
    runs: list[Run] = []
    for number, (settings, key) in enumerate(zip(wanted, inputs, strict=True), 1):
        path = (
            folder
            / "runs"
            / f"{file_hash(canonical_json(_run_key(study, settings, key)).encode())[:16]}.json"
        )
        if isinstance(key, MissingError):
            runs.append(
                {
                    "settings": settings,
                    "scores": {},
                    "error": f"skipped: {settings.get('backbone', DEFAULT_BACKBONE)}: {key.what}",
                }
            )
        elif not path.exists():
            write_kept(path, _try(run_one, settings))
        if not isinstance(key, MissingError):
            fix = f"remove {path} and run the same study again"
            runs.append({**parse_run(path, read_kept(path, fix), fix), "settings": settings})
        progress(number, len(wanted))
    tables = write_tables(study.varied, runs, folder)
    document = make_document(study.name, study.best, study.is_lower_better, runs, resample)
    document |= {**(more or {}), "n_skipped": len(missing), "tables": tables}
    write_sealed(folder / "study.json", document)
    return document


def _run_key(study: Study, settings: dict[str, Any], key: Any) -> list[Any]:
    target = [study.target.model_dump()] if study.target else []
    return [settings, None if isinstance(key, MissingError) else key, *target]


def _try(run_one: RunOne, settings: dict[str, Any]) -> Run:
    try:
        outcome = run_one(dict(settings))
    except InputError as error:
        return {"settings": settings, "scores": {}, "error": str(error)}
    return {"settings": settings, "error": None, **without_nan(outcome)}
