"""The recipe: what to balance, how to split, how to make copies. Strict YAML; all problems reported at once.

The models below document every key. The first line of a packaged recipe is a comment on its purpose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from affectdata.config import NAME_PATTERN, StrictModel, parse_model, read_yaml
from affectdata.errors import UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.recipe.bounds import Check
from affectdata.recipe.target import TargetSpec
from affectdata.registry import find_data, suggest
from affectdata.store.files import read_regular

FEATURES = ("luminance", "contrast", "saturation", "hue", "edges", "sharpness", "entropy")

RATED = ("valence", "arousal", "dominance")  # targets in POMP units, 0–100
LEXICON = ("lexicon_valence", "lexicon_arousal")  # columns derived by `labels.lexicon`, in POMP units
NUMERIC = (*RATED, *LEXICON)  # targets that need bins
DEFAULT = "default"
LABEL = "label"  # the column derived by `labels`
BY_RATINGS = "valence_arousal"  # the map from ratings, not emotions, to mood quadrants
Step = dict[str, dict[str, Any]]  # {TransformName: {argument: value}}, as in `transforms`


def _validate_steps(steps: list[Step], info: ValidationInfo) -> list[Step]:
    from affectdata.recipe.transforms import check_steps

    problems = list(check_steps(steps, (info.data or {}).get("allow", {})))
    if problems:
        raise ValueError("; ".join(problems))
    return steps


Steps = Annotated[list[Step], Field(min_length=1), AfterValidator(_validate_steps)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Bins(StrictModel):
    """The bins of a numeric target: intervals [a, b), the last one closed. Give exactly one of the keys."""

    width: Annotated[float, Field(ge=0.1, le=100)] | None = Field(
        default=None, description="bin width, from 0 to 100"
    )
    edges: list[float] | None = Field(default=None, description="POMP units, ascending")
    quantiles: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None, description="number of bins with equal image counts"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Bins:
        if sum(value is not None for value in (self.width, self.edges, self.quantiles)) != 1:
            raise ValueError("give exactly one of width, edges, quantiles")
        if self.edges is not None and (len(self.edges) < 2 or sorted(set(self.edges)) != self.edges):
            raise ValueError("edges must be at least two ascending numbers")
        return self


class HashedFile(StrictModel):
    """A table of the user. A resolved recipe has its name, without the path, and its SHA-256."""

    kind: ClassVar[str] = "table"
    file: str = Field(description="path relative to the recipe's folder")
    sha256: str = Field(default="", validate_default=True, description="filled in when the recipe is read")

    @field_validator("file")
    @classmethod
    def _resolve_path(cls, file: str, info: ValidationInfo) -> str:
        return str((info.context or {}).get("folder", Path()) / file)

    @field_validator("sha256")
    @classmethod
    def _hash_file(cls, sha256: str, info: ValidationInfo) -> str:
        if sha256 or "file" not in info.data:
            return sha256
        try:
            return file_hash(read_regular(info.data["file"]))
        except OSError as error:
            raise ValueError(f"cannot read the {cls.kind} {info.data['file']}: {error.strerror}") from None

    @field_serializer("file")
    def _name(self, file: str) -> str:
        return Path(file).name


class Lexicon(HashedFile):
    """The user's table of words (columns word, valence, arousal); `scale`: its lowest and highest value."""

    kind: ClassVar[str] = "lexicon"
    scale: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        description="lowest and highest value"
    )

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: list[float]) -> list[float]:
        if scale[0] >= scale[1]:
            raise ValueError("must be [lowest, highest]")
        return scale


class Labels(StrictModel):
    """How to derive classes from emotions, in the column `label`; rows without a class are excluded.

    The class of a row is its dominant `emotion`, or with `at_least` every emotion chosen by at least this
    share of raters; several emotions form one class, joined by "+" (a label set). A `map` of `labels.MAPS`
    maps emotions to fewer classes and drops emotions that it lacks; `valence_arousal` uses the mood quadrant
    of the ratings instead.

    A `lexicon` adds the mean coordinates of these emotions (with `at_least`, weighted by their shares) as the
    columns `lexicon_valence` and `lexicon_arousal`: possible targets, derived from words, not ratings.
    """

    map: Literal["mood_quadrants", "polarity", "plutchik8", "ekman6", "valence_arousal"] | None = Field(
        default=None, description="from emotions, or with valence_arousal from ratings, to fewer classes"
    )
    at_least: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="share of raters: every emotion with at least this share counts"
    )
    multi: bool = Field(
        default=False, description="with at_least: train-check and studies predict each emotion, yes or no"
    )
    agreement_over: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        default=None, description="share of raters on the dominant emotion"
    )
    merge: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        default={}, description="class: emotions, or classes of the map; others keep their name"
    )
    drop: list[str] = Field(default=[], description="excluded classes")
    top: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="keep only this many of the largest classes"
    )
    min_count: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="keep only classes with at least this many images"
    )
    lexicon: Lexicon | None = Field(default=None, description="words with valence and arousal")

    @model_validator(mode="after")
    def _check_combinations(self) -> Labels:
        if self.at_least is not None and self.agreement_over is not None:
            raise ValueError(
                "at_least uses every emotion, agreement_over only the dominant one: give one of them"
            )
        if self.multi and self.at_least is None:
            raise ValueError("multi needs at_least: without it an image has one emotion")
        if self.map == BY_RATINGS and (self.at_least, self.agreement_over) != (None, None):
            raise ValueError(
                "the map valence_arousal does not use emotions: remove at_least and agreement_over"
            )
        if self.map is not None and self.lexicon is not None:
            raise ValueError("a map derives classes, a lexicon derives coordinates: give one of them")
        return self

    @model_serializer(mode="wrap")
    def _without_multi(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `multi` if it is not set: recipes without it keep the hash that they have had."""
        document: dict[str, Any] = handler(self)
        return {key: value for key, value in document.items() if key != "multi" or value}


class Split(StrictModel):
    """Shares of val and test; train is the rest. Rows equal in a column of `groups` stay together.

    An entry of `groups` that ends in `.csv` is a table with the columns `image_id` and `group`, as written by
    `affectdata groups`: images of one group stay together. A single entry needs no list.

    Rows that already have a split keep it and count towards its share: a source's own test set grows only if
    it is smaller than the share, and with `grow: false` never: a share then applies if the manifest's column
    `split` does not have val or test at all.

    `folds` divides train into this many parts for cross-validation, stratified over bins and cells. Train on
    all folds but one, with their copies, and evaluate on the originals of that one:
    `release.dataset("train", fold=0)` and `("val", fold=0)`. Train is balanced as a whole: leaving out a fold
    also leaves out its copies.
    """

    val: Share = Field(default=0.0, description="share of images")
    test: Share = Field(default=0.0, description="share of images")
    folds: Annotated[int, Field(ge=2, le=1000)] | None = Field(
        default=None, description="parts of train for cross-validation"
    )
    groups: list[str | HashedFile] = Field(
        default=[], description="columns, or tables of groups; rows with equal values in one stay together"
    )
    grow: bool = Field(
        default=True, description="whether val and test that are smaller than their shares get more images"
    )

    @model_serializer(mode="wrap")
    def _without_the_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `grow: true`: recipes without the key keep their hash, and releases their ids."""
        document: dict[str, Any] = handler(self)
        if self.grow:
            document.pop("grow", None)
        return document

    @field_validator("groups", mode="before")
    @classmethod
    def _find_tables(cls, groups: Any) -> Any:
        entries = [groups] if isinstance(groups, str) else groups
        if not isinstance(entries, list):
            return entries
        return [
            {"file": each} if isinstance(each, str) and each.endswith(".csv") else each for each in entries
        ]

    @property
    def group_columns(self) -> list[str]:
        """The entries of `groups` that are columns."""
        return [each for each in self.groups if isinstance(each, str)]

    @property
    def group_tables(self) -> list[HashedFile]:
        """The entries of `groups` that are tables."""
        return [each for each in self.groups if isinstance(each, HashedFile)]

    @model_validator(mode="after")
    def _check_sum(self) -> Split:
        if self.val + self.test >= 1:
            raise ValueError("val and test must sum to less than 1: the rest is train")
        return self

    @property
    def fractions(self) -> dict[str, float]:
        """The shares of val and test."""
        return {"val": self.val, "test": self.test}

    def open_fractions(self, declared: Collection[str | None]) -> dict[str, float]:
        """Return the shares of val and test that new images may go to; `declared` are splits that exist."""
        return {
            name: 0.0 if name in declared and not self.grow else share
            for name, share in self.fractions.items()
        }


class Balance(StrictModel):
    """How to balance the bins. `max_copies` includes the original: 1 makes no copies."""

    level: Literal["max", "median"] | Annotated[int, Field(ge=1)] = Field(
        default="max", description="rows per bin after balancing: the largest bin, the median, or a number"
    )
    max_copies: int = Field(default=8, ge=1, le=1000, description="per image, including the original")
    undersample: bool = Field(default=False, description="drop images of bins above the level")
    fill_from: list[str] = Field(
        default=[], description="manifests whose images fill rare bins before copies are made"
    )
    min_n_eff: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="min effective sample size of cells with copies"
    )


class Weights(StrictModel):
    """Sampling weights of the train rows, mean 1, from the number of rows in their cell after balancing.

    `inverse` 1/n; `effective_number` (1 - β) / (1 - βⁿ) (Cui et al. 2019); both are divided by the number of
    cells in the bin, so that bins with many subtypes weigh no more than others. `smoothed` 1 / density of the
    target's bins under a Gaussian of `sigma` bins (label-distribution smoothing, Yang et al. 2021).
    """

    by: Literal["inverse", "effective_number", "smoothed"] = Field(
        description="from the number of rows in a cell"
    )
    beta: float = Field(default=0.999, gt=0, lt=1, description="of effective_number")
    sigma: float = Field(default=1.0, gt=0, description="of smoothed, in bins")
    max: float = Field(default=20.0, ge=1, description="upper bound, before scaling to mean 1")


class ImageSpec(StrictModel):
    """Size and file format of every released image, originals and copies alike."""

    short_side_px: Annotated[int, Field(ge=8, le=8192)] | None = Field(
        default=None, description="keeps the shape; instead of size_px"
    )
    size_px: (
        Annotated[list[Annotated[int, Field(ge=8, le=8192)]], Field(min_length=2, max_length=2)] | None
    ) = Field(default=None, description="width and height; instead of short_side_px")
    fit: Literal["crop", "pad", "stretch"] = Field(
        default="crop", description="how an image of another shape becomes size_px"
    )
    format: Literal["jpeg", "png"] = Field(default="jpeg", description="of the files")
    quality: int = Field(default=95, ge=1, le=100, description="of JPEG files")

    @model_validator(mode="after")
    def _one_size(self) -> ImageSpec:
        if (self.short_side_px is None) == (self.size_px is None):
            raise ValueError("give exactly one of short_side_px, size_px")
        return self

    @property
    def suffix(self) -> str:
        """The suffix of file names."""
        return ".jpg" if self.format == "jpeg" else ".png"


class SubtypeRule(StrictModel):
    """The augmentation pipeline of a subtype; `upright` overrides the source's data sheet."""

    pipeline: str = Field(description="a key of `pipelines`")
    upright: bool | None = Field(
        default=None, description="whether images may not be turned; overrides the source's data sheet"
    )


class Recipe(StrictModel):
    """A recipe as read from its file."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="also of its releases")
    sources: list[str] = Field(
        default=[], description="names of manifests; may be omitted if there is only one"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="of splits and copies")
    mode: Literal["files", "virtual"] = Field(
        default="files", description="virtual: write no images, render them on reading"
    )
    where: str | None = Field(
        default=None, description="SQL condition over the manifest's columns; other rows are excluded"
    )
    labels: Labels | None = Field(default=None, description="how to derive the column `label`")
    target: str = Field(default="valence", description="column to balance and to predict")
    bins: Bins | None = Field(default=None, description="of a numeric target")
    strata: list[str | Annotated[dict[str, Bins], Field(min_length=1, max_length=1)]] = Field(
        default=[],
        description="columns or {column: bins}; with several sources `source` is added, unless set to []",
    )
    split: Split | Literal["none"] = Field(
        default=Split(val=0.15, test=0.15), description="none: what has no split yet goes to train"
    )
    balance: Balance = Field(default=Balance(), description="how to balance train")
    weights: Weights | None = Field(default=None, description="of the train rows; without them all are 1")
    originals: Literal["resized", "drawn"] = Field(
        default="resized", description="drawn: augment the originals of train too"
    )
    allow: dict[Literal["photometric", "colour"], Annotated[float, Field(gt=0, le=1)]] = Field(
        default={}, description="max strength of transforms of a kind that no recipe may use otherwise"
    )
    max_drift: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="max mean absolute change, by feature"
    )
    image: ImageSpec = Field(default=ImageSpec(short_side_px=256), description="size and format")
    # Validated with `allow`, which must be declared before it.
    pipelines: dict[str, Steps] = Field(default={}, description="transforms of albumentations, in order")
    subtypes: dict[str, SubtypeRule] = Field(default={}, description="by subtype, or `default`")
    check: Check = Field(default=Check(), description="bounds of train-check")

    @model_validator(mode="after")
    def _check_consistency(self) -> Recipe:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        yield from self._target_problems()
        yield from self._pipeline_problems()
        yield from self._fold_problems()
        for name in sorted(set(self.max_drift) - set(FEATURES)):
            yield f"max_drift: no feature {name!r}; known: {', '.join(FEATURES)}"

    def _fold_problems(self) -> Iterator[str]:
        if self.split != "none" and self.split.folds and self.originals == "drawn":
            yield "split.folds: `originals: drawn` leaves no unaugmented images to evaluate a fold on"

    def _target_problems(self) -> Iterator[str]:
        if self.target in NUMERIC and self.bins is None:
            yield f"bins: the numeric target {self.target} needs bins"
        edges = self.bins.edges if self.bins else None
        if self.target in NUMERIC and edges and not 0 <= edges[0] < edges[-1] <= 100:
            yield f"bins.edges: {edges[0]:g}–{edges[-1]:g} is outside the POMP scale, 0–100"
        if self.weights and self.weights.by == "smoothed" and self.target not in NUMERIC:
            yield f"weights.by: smoothing needs a numeric target, {self.target} is not numeric"
        if self.target in self.strata_bins:
            yield f"strata: {self.target} is already the target"
        if LABEL in (self.target, *self.strata_bins) and self.labels is None:
            yield "labels: missing, but the column label is used"
        if {*LEXICON} & {self.target, *self.strata_bins} and not (self.labels and self.labels.lexicon):
            yield "labels.lexicon: missing, but its columns are used"

    def _pipeline_problems(self) -> Iterator[str]:
        for subtype, rule in self.subtypes.items():
            if rule.pipeline not in self.pipelines:
                yield f"subtypes.{subtype}.pipeline: no pipeline {rule.pipeline!r}"
        if DEFAULT not in self.subtypes and self.balance.max_copies > 1:
            yield "subtypes.default: missing; balance.max_copies > 1 needs a pipeline for the copies"
        if DEFAULT not in self.subtypes and self.originals == "drawn":
            yield "subtypes.default: missing; `originals: drawn` needs a pipeline"

    @property
    def strata_bins(self) -> dict[str, Bins | None]:
        """The columns of the strata, with the bins of numeric ones."""
        pairs = [(item, None) if isinstance(item, str) else next(iter(item.items())) for item in self.strata]
        return dict(pairs)

    @property
    def group_columns(self) -> list[str]:
        """The columns whose equal values keep images in one split."""
        return [] if self.split == "none" else self.split.group_columns

    @property
    def predicts(self) -> TargetSpec | None:
        """What train-check and studies predict in place of the target; None for the target itself."""
        return self.check.target or (TargetSpec(multi=LABEL) if self.labels and self.labels.multi else None)

    def needs_split(self, split: str) -> bool:
        """Whether the recipe requests a share of images for val or test."""
        return self.split != "none" and self.split.fractions[split] > 0

    def rule_for(self, subtype: str | None) -> SubtypeRule | None:
        """Return the rule of a subtype, or the default rule; None if no copies are made."""
        return self.subtypes.get(subtype or DEFAULT, self.subtypes.get(DEFAULT))

    def document(self) -> dict[str, Any]:
        """Return the recipe as plain data, with every default filled in."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """SHA-256 of the resolved recipe."""
        return file_hash(canonical_json(self.document()).encode())


def parse_recipe(document: Any, where: str = "recipe") -> Recipe:
    """Build a recipe from plain data.

    Raises:
        RecipeError: lists every problem with its YAML path.
    """
    return parse_model(Recipe, document, where)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or is not a valid recipe.
    """
    return parse_model(Recipe, read_yaml(path), str(path), path.parent)


def find_recipe(name: str) -> Path:
    """Find a recipe: the path as given, else in `./recipes`, else among the packaged recipes.

    Raises:
        UsageError: lists the places searched and the available recipes.
    """
    given = Path(name)
    file = given if given.suffix else given.with_suffix(".yaml")
    folders = [Path("recipes"), packaged_recipes()]
    for path in (file, *(folder / file.name for folder in folders)):
        if path.is_file():
            return path
    names = sorted({path.name for folder in folders if folder.is_dir() for path in folder.glob("*.yaml")})
    raise UsageError(
        f"no recipe {name!r}",
        where=", ".join(str(path) for path in (file, *folders)),
        fix=f"{suggest(file.name, names)}known: {', '.join(names) or 'none'}",
    )


def packaged_recipes() -> Path:
    """Return the folder of the packaged recipes, installed or in a checkout."""

    return find_data("recipes")
