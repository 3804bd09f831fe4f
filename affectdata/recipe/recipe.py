"""The recipe: what to level, how to split, how copies are made. Strict YAML; every problem named at once.

The shape is documented by the models below; a recipe's first line is a comment that says for whom it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_serializer, field_validator, model_validator

from affectdata.config import StrictModel, parse_model, read_yaml
from affectdata.errors import UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.recipe.transforms import Step, check_steps
from affectdata.registry import find_data
from affectdata.store.files import read_regular

FEATURES = ("luminance", "contrast", "saturation", "hue", "edges", "sharpness", "entropy")

RATED = ("valence", "arousal", "dominance")  # targets in POMP units, 0–100
LEXICON = ("lexicon_valence", "lexicon_arousal")  # the columns that `labels.lexicon` derives, in POMP units
NUMERIC = (*RATED, *LEXICON)  # targets that need bins
DEFAULT = "default"
LABEL = "label"  # the column that `labels` derives
BY_RATINGS = "valence_arousal"  # the map that takes ratings to mood quadrants, not emotions


def _checked(steps: list[Step], info: ValidationInfo) -> list[Step]:
    problems = list(check_steps(steps, (info.data or {}).get("allow", {})))
    if problems:
        raise ValueError("; ".join(problems))
    return steps


Steps = Annotated[list[Step], Field(min_length=1), AfterValidator(_checked)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Bins(StrictModel):
    """How a numeric target is cut: bins are [a, b), the last one closed. Exactly one of the three."""

    width: Annotated[float, Field(ge=0.1, le=100)] | None = None  # from 0 to 100 in steps of this
    edges: list[float] | None = None  # POMP units, ascending
    quantiles: Annotated[int, Field(ge=2, le=100)] | None = None  # this many bins of equally many images

    @model_validator(mode="after")
    def _one_way(self) -> Bins:
        if sum(way is not None for way in (self.width, self.edges, self.quantiles)) != 1:
            raise ValueError("give exactly one of width, edges, quantiles")
        if self.edges is not None and (len(self.edges) < 2 or sorted(set(self.edges)) != self.edges):
            raise ValueError("edges must ascend, and be two at least")
        return self


class Lexicon(StrictModel):
    """A table of words with their valence and arousal, such as a user has; `scale` is from where to where.

    A recipe that was resolved knows the file by its name and its SHA-256.
    """

    file: str  # columns word, valence, arousal; its path goes from the recipe's folder
    scale: Annotated[list[float], Field(min_length=2, max_length=2)]
    sha256: Annotated[str, Field(validate_default=True)] = ""  # filled in when the recipe is read

    @field_validator("file")
    @classmethod
    def _from_the_recipe(cls, file: str, info: ValidationInfo) -> str:
        return str((info.context or {}).get("folder", Path()) / file)

    @field_validator("scale")
    @classmethod
    def _ascends(cls, scale: list[float]) -> list[float]:
        if scale[0] >= scale[1]:
            raise ValueError("it goes from low to high")
        return scale

    @field_validator("sha256")
    @classmethod
    def _of_the_file(cls, sha256: str, info: ValidationInfo) -> str:
        if sha256 or "file" not in info.data:
            return sha256
        try:
            return file_hash(read_regular(info.data["file"]))
        except OSError as error:
            raise ValueError(f"cannot read the lexicon {info.data['file']}: {error.strerror}") from None

    @field_serializer("file")
    def _name(self, file: str) -> str:
        return Path(file).name


class Labels(StrictModel):
    """How emotions become classes, in the column `label`; rows without a class are left out.

    A row's classes are its dominant `emotion`, or with `at_least` every emotion that this share of raters
    chose; several make one class of their own, joined by "+" (a label set). A `map` of `labels.MAPS` takes
    emotions to fewer classes, and leaves out those that it does not place; `valence_arousal` takes the mood
    quadrant of the ratings instead.

    A `lexicon` puts the mean place of these emotions (with `at_least`, weighted by their shares) into the
    columns `lexicon_valence` and `lexicon_arousal`: something to level, derived from words, and no rating.
    """

    map: Literal["mood_quadrants", "polarity", "plutchik8", "ekman6", "valence_arousal"] | None = None
    at_least: Annotated[float, Field(gt=0, le=1)] | None = None
    agreement_over: Annotated[float, Field(ge=0, lt=1)] | None = None  # of the dominant emotion
    merge: dict[
        str, Annotated[list[str], Field(min_length=1)]
    ] = {}  # class: emotions, or classes of the map; others keep their name
    drop: list[str] = []  # classes that do not count
    top: Annotated[int, Field(ge=1)] | None = None  # only the largest classes
    min_count: Annotated[int, Field(ge=1)] | None = None  # only classes of this many images
    lexicon: Lexicon | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Labels:
        if self.at_least is not None and self.agreement_over is not None:
            raise ValueError(
                "at_least takes every emotion, agreement_over the dominant one: give one of the two"
            )
        if self.map == BY_RATINGS and (self.at_least, self.agreement_over) != (None, None):
            raise ValueError(
                "the map valence_arousal reads no emotion: leave out at_least and agreement_over"
            )
        if self.map is not None and self.lexicon is not None:
            raise ValueError("a map makes classes of emotions, a lexicon a place: give one of the two")
        return self


class Split(StrictModel):
    """Shares of val and test; train is the rest. `groups` are columns whose equal values stay together.

    Rows that come with a split keep it and count towards its share: a test set of the source's own grows only
    if it is smaller than that.

    `folds` deals train into that many parts for cross-validation, level over bins and cells. Train on all but
    one, copies too, and score the originals of that one: `release.dataset("train", fold=0)` and
    `("val", fold=0)`. Train is levelled as a whole: a fold that is left out takes its copies with it.
    """

    val: Share = 0.0
    test: Share = 0.0
    folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    groups: list[str] = []

    @model_validator(mode="after")
    def _leaves_train(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError("val and test leave nothing to train on")
        return self

    @property
    def fractions(self) -> dict[str, float]:
        """The shares of val and test."""
        return {"val": self.val, "test": self.test}


class Balance(StrictModel):
    """How far bins are levelled. `max_copies` counts the original: 1 makes no copies."""

    level: Literal["max", "median"] | Annotated[int, Field(ge=1)] = "max"
    max_copies: Annotated[int, Field(ge=1, le=1000)] = 8
    undersample: bool = False
    fill_from: list[str] = []  # manifests whose images fill thin bins before copies do
    min_n_eff: Annotated[float, Field(gt=0)] | None = None  # refuse a cell with copies that is worth less


class Weights(StrictModel):
    """Sampling weights of the train rows, mean 1, by the rows of their cell after levelling.

    `inverse` 1/n; `effective_number` (1 - β) / (1 - βⁿ) (Cui et al. 2019); `smoothed` 1 / density of the
    target's bins under a Gaussian of `sigma` bins (label-distribution smoothing, Yang et al. 2021).
    """

    by: Literal["inverse", "effective_number", "smoothed"]
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.999
    sigma: Annotated[float, Field(gt=0)] = 1.0
    max: Annotated[float, Field(ge=1)] = 20.0  # no row weighs more than this before weights are scaled


class ImageSpec(StrictModel):
    """Size and file format of every released image, originals and copies alike."""

    short_side_px: Annotated[int, Field(ge=8, le=8192)] | None = None
    size_px: (
        Annotated[list[Annotated[int, Field(ge=8, le=8192)]], Field(min_length=2, max_length=2)] | None
    ) = None
    fit: Literal["crop", "pad", "stretch"] = "crop"
    format: Literal["jpeg", "png"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 95

    @model_validator(mode="after")
    def _one_size(self) -> ImageSpec:
        if (self.short_side_px is None) == (self.size_px is None):
            raise ValueError("give exactly one of short_side_px, size_px")
        return self

    @property
    def suffix(self) -> str:
        """The ending of the files' names."""
        return ".jpg" if self.format == "jpeg" else ".png"


class SubtypeRule(StrictModel):
    """Which pipeline a subtype's copies go through; `upright` overrides the source's data sheet."""

    pipeline: str
    upright: bool | None = None


class NotWorse(StrictModel):
    """By how much a release may be worse than what it is compared with before the check fails."""

    r2: Annotated[float, Field(ge=0)] = 0.02
    ccc: Annotated[float, Field(ge=0)] = 0.02
    balanced_accuracy: Annotated[float, Field(ge=0)] = 0.03


class Check(StrictModel):
    """What `train-check` asks of the release; `train-check --rules` says what each bound is for."""

    classes: dict[str, Annotated[list[float], Field(min_length=1)]] = {
        "valence": [40.0, 60.0]
    }  # cuts the target into negative, neutral, positive
    undecided: Literal["pass", "fail"] = "pass"
    min_r2: float = 0.0
    min_r2_low: Annotated[float, Field(ge=0, lt=1)] = 0.1  # below the interval of R²: a model that learns
    not_worse: NotWorse = NotWorse()
    min_sd_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.25
    max_r2: Annotated[float, Field(gt=0)] = 0.65
    max_nearest: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_shuffled: Annotated[float, Field(ge=0)] = 0.05
    max_cosine: Annotated[float, Field(gt=0, le=1)] = 0.98
    max_excess_shift: Annotated[float, Field(gt=0)] = 1.0  # POMP units
    max_transform: Annotated[float, Field(gt=0)] = 4.0  # times a flip
    max_affect_shift: Annotated[float, Field(gt=0)] = 5.0  # POMP units
    max_second_stage: Annotated[float, Field(gt=0)] = 0.2  # R²
    max_pictures: Annotated[int, Field(ge=20)] = 5000  # more are sampled


class Recipe(StrictModel):
    """One recipe, as read; `RecipeError` names every key that is wrong."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,63}$")]
    sources: list[str] = []  # names of manifests; without it, the only one there is
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    mode: Literal["files", "virtual"] = "files"  # virtual: write no image, render each when it is read
    where: str | None = None  # SQL condition over the manifest's columns; the other rows are left out
    labels: Labels | None = None
    target: str = "valence"
    bins: Bins | None = None
    strata: list[
        str | Annotated[dict[str, Bins], Field(min_length=1, max_length=1)]
    ] = []  # words, or {column: bins}; of several sources, `source` too, unless it says [] here
    split: Split | Literal["none"] = Split(val=0.15, test=0.15)
    balance: Balance = Balance()
    weights: Weights | None = None
    originals: Literal["resized", "drawn"] = (
        "resized"  # drawn: train's originals take a draw of their pipeline
    )
    allow: dict[Literal["photometric", "colour"], Annotated[float, Field(gt=0, le=1)]] = {}  # by strength
    max_drift: dict[str, Annotated[float, Field(gt=0)]] = {}  # mean change against the parent, by feature
    image: ImageSpec = ImageSpec(short_side_px=256)
    pipelines: dict[str, Steps] = {}  # checked against `allow`, which comes before
    subtypes: dict[str, SubtypeRule] = {}
    check: Check = Check()

    @model_validator(mode="after")
    def _hangs_together(self) -> Recipe:
        problems = list(self._contradictions())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        yield from self._target_problems()
        yield from self._pipeline_problems()
        yield from self._fold_problems()
        for name in sorted(set(self.max_drift) - set(FEATURES)):
            yield f"max_drift: no feature {name!r}; known: {', '.join(FEATURES)}"

    def _fold_problems(self) -> Iterator[str]:
        if self.split != "none" and self.split.folds and self.originals == "drawn":
            yield "split.folds: with `originals: drawn` train has no untouched image to score a fold on"

    def _target_problems(self) -> Iterator[str]:
        if self.target in NUMERIC and self.bins is None:
            yield f"bins: the target {self.target} is a number and needs bins"
        edges = self.bins.edges if self.bins else None
        if self.target in NUMERIC and edges and not 0 <= edges[0] < edges[-1] <= 100:
            yield f"bins.edges: {edges[0]:g}–{edges[-1]:g} leaves the scale; POMP units go from 0 to 100"
        if self.weights and self.weights.by == "smoothed" and self.target not in NUMERIC:
            yield f"weights.by: smoothing needs a numeric target, and {self.target} is none"
        if self.target in self.strata_bins:
            yield f"strata: {self.target} is the target already"
        if LABEL in (self.target, *self.strata_bins) and self.labels is None:
            yield "labels: the column label is used, but nothing says how it is made"
        if {*LEXICON} & {self.target, *self.strata_bins} and not (self.labels and self.labels.lexicon):
            yield "labels.lexicon: its columns are used, but no lexicon is given"

    def _pipeline_problems(self) -> Iterator[str]:
        for subtype, rule in self.subtypes.items():
            if rule.pipeline not in self.pipelines:
                yield f"subtypes.{subtype}.pipeline: no pipeline is called {rule.pipeline!r}"
        if DEFAULT not in self.subtypes and self.balance.max_copies > 1:
            yield "subtypes.default: balance.max_copies > 1 makes copies, but no pipeline is named for them"
        if DEFAULT not in self.subtypes and self.originals == "drawn":
            yield "subtypes.default: `originals: drawn` needs a pipeline to draw from"

    @property
    def strata_bins(self) -> dict[str, Bins | None]:
        """The columns of the strata, and how those that hold numbers are cut."""
        pairs = [(each, None) if isinstance(each, str) else next(iter(each.items())) for each in self.strata]
        return dict(pairs)

    def asks_for(self, split: str) -> bool:
        """Whether val or test is to have a share of the images."""
        return self.split != "none" and self.split.fractions[split] > 0

    def rule_for(self, subtype: str | None) -> SubtypeRule | None:
        """Return the rule of a subtype, else the default one; None where no copies are made."""
        return self.subtypes.get(subtype or DEFAULT, self.subtypes.get(DEFAULT))

    def document(self) -> dict[str, Any]:
        """Return the recipe with every default written out, as plain data."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return file_hash(canonical_json(self.document()).encode())


def parse_recipe(document: Any, where: str = "recipe") -> Recipe:
    """Build a recipe from plain data.

    Raises:
        RecipeError: naming every problem with its YAML path.
    """
    return parse_model(Recipe, document, where)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: it cannot be read, is not YAML, or is no recipe.
    """
    return parse_model(Recipe, read_yaml(path), str(path), path.parent)


def find_recipe(name: str) -> Path:
    """Find a recipe: the path as given, else in `./recipes`, else among those that come with the package.

    Raises:
        UsageError: naming the places and the recipes that are there.
    """
    given = Path(name)
    file = given if given.suffix else given.with_suffix(".yaml")
    folders = [Path("recipes"), packaged_recipes()]
    for path in (file, *(folder / file.name for folder in folders)):
        if path.is_file():
            return path
    there = sorted({path.name for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})
    raise UsageError(
        f"no recipe {name!r}",
        where=", ".join(str(place) for place in (file, *folders)),
        fix=f"known: {', '.join(there) or 'none'}",
    )


def packaged_recipes() -> Path:
    """Return the folder of the recipes that come with the package, installed or in a checkout."""
    return find_data("recipes")
