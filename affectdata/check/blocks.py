"""The blocks of train-check.json, one model each: what is written, read again and described by the schema.

A key is one line here, with its description; `affectdata schema train-check` prints them all. A field that is
not set is left out of the file; a figure that is not defined (a bin without images, R² of one image) is null.
Arms, pipelines, measures and heads are keys of their own: nothing here changes when one is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    model_validator,
)

from affectdata.errors import InputError
from affectdata.recipe.bounds import Check
from affectdata.store.sealed import read_sealed

SCHEMA = "affectdata/train-check/3"
_FORMER = ("affectdata/train-check/1", "affectdata/train-check/2")
Value = TypeVar("Value")
ScoringName = Literal["crossfit", "heldout"]


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _interval(value: Any) -> Any:
    """Accept null, which stands for an interval in the second form."""
    return Interval(mean=None, low=None, high=None) if value is None else value


Number = Annotated[int | float | None, BeforeValidator(_defined)]  # NaN and infinity become null


class Block(BaseModel):
    """A frozen block; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the block as plain data, as it is in the file."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class OpenBlock(Block):
    """A block with further keys, all of one type; each class says which."""

    model_config = ConfigDict(extra="allow")


class Interval(Block):
    """A figure with its 95 % interval; null if it has none."""

    mean: Number
    low: Number
    high: Number


class Figure(Interval):
    """A measure of an arm: mean over the splits with its interval corrected for shared training images."""

    splits: Sequence[Number] = Field(description="per split")
    pooled: Number = Field(description="over every original once")


class ByScoring(Block, Generic[Value]):
    """A value per scoring; null if the arm was not scored in it."""

    crossfit: Value | None = Field(
        description="ten splits: two assignments of all originals to five folds, groups kept together, every "
        "arm planned on four of five (networks: one assignment, five splits or fewer)"
    )
    heldout: Value | None = Field(description="the test split of the release")

    def on(self, scoring: ScoringName) -> Value | None:
        """Return the value of one scoring."""
        return self.crossfit if scoring == "crossfit" else self.heldout


class ReleaseBlock(Block):
    """The release that was checked."""

    id: str
    name: str
    recipe: str
    target: str


class CheckSettings(Block):
    """What the scores depend on, beside the release."""

    backbone: str = Field(description="the names of several networks are joined by ` + `, as in the next two")
    weights: str = Field(description="name of the file, `none`, or the published weights")
    backbone_key: str = Field(description="name and beginning of the hash of the network's code and weights")
    weights_sha256: list[str] = Field(
        default=[], description="per network; checks that differ in it are not comparable"
    )
    device: str
    seed: int
    n_splits: int = Field(description="of crossfit")
    n_deals: int = Field(description="assignments of all originals to folds")
    n_images: int = Field(
        validation_alias=AliasChoices("n_images", "n_pictures"), description="originals in the check"
    )
    n_images_of: int = Field(
        validation_alias=AliasChoices("n_images_of", "n_pictures_of"), description="originals in the release"
    )
    check: Check = Field(description="the bounds of the rules")
    mode: Literal["frozen", "finetune"]
    grids: dict[str, dict[str, list[float]]] = Field(default={}, description="frozen: of the heads")
    size_px: int | None = Field(
        default=None, description="finetune: of the images; here and below `task.Settings`"
    )
    steps: int | None = None
    head_steps: int | None = None
    epochs: float | None = None
    lr_head: float | None = None
    lr_trunk: float | None = Field(default=None, validation_alias=AliasChoices("lr_trunk", "lr_body"))
    weight_decay: float | None = None
    dropout: float | None = None
    batch: int | None = None
    class_weights: tuple[float, ...] | None = None
    patience: int | None = None
    every: int | None = None

    @field_serializer("check")
    def _with_defaults(self, check: Check) -> dict[str, Any]:
        return check.model_dump(mode="json")


class TargetBlock(Block):
    """What is predicted in place of the recipe's target."""

    kind: Literal["numbers", "multi", "shares", "polarity"]
    name: str
    outputs: list[str] = Field(description="columns, or labels")
    skill: str = Field(
        description="what `skill` is: 0 if a prediction does not depend on the image, at most 1"
    )


class Bins(Block):
    """The bins of the target, or its classes."""

    edges: list[float] | None = Field(description="POMP units; null if the target is not numeric")
    labels: list[str]
    tail: list[bool] = Field(description="whether a bin is thin; empty if the target is not numeric")
    n: ByScoring[list[int]] = Field(description="scored originals per bin")


class StructureCheck(Block):
    """An exact check of a promise."""

    problems: list[str]
    text: str = Field(description="what holds if there is no problem")


class Chosen(OpenBlock):
    """Hyperparameters chosen for one split; networks have none."""

    __pydantic_extra__: dict[str, Number] = Field(init=False)
    on_edge: list[str] = Field(default=[], description="names of those on the edge of the grid")


class SourceScores(OpenBlock):
    """Measures of one source, means over the splits."""

    __pydantic_extra__: dict[str, Number] = Field(init=False)
    n: int = Field(description="scored originals")

    def __getitem__(self, measure: str) -> float | None:
        return (self.__pydantic_extra__ or {})[measure]


class HeadScores(OpenBlock):
    """Scores of an arm's predictions: every measure of `metrics.MEASURES` by name, and these."""

    __pydantic_extra__: dict[str, Figure] = Field(init=False)
    mean_collapse: bool = Field(description="whether sd_ratio (its mean) is below min_sd_ratio")
    mae_per_bin: Sequence[Number] = Field(description="over every original once")
    mae_per_subtype: Mapping[str, Number] = Field(description="over every original once")
    per_source: dict[str, SourceScores]

    @property
    def measures(self) -> dict[str, Figure]:
        """The measures by name."""
        return self.__pydantic_extra__ or {}

    def __getitem__(self, measure: str) -> Figure:
        return self.measures[measure]


class Head(ByScoring[HeadScores]):
    """A regressor of an arm: its scores by scoring."""

    head: str = Field(description="svr, ridge, network, or the arm whose constant it predicts")
    chosen: ByScoring[list[Chosen | None]] = Field(description="per split; null of an arm without training")


class LabelScores(OpenBlock):
    """Measures of predicted labels, means over the splits."""

    __pydantic_extra__: dict[str, Number] = Field(init=False)
    accuracy_per_source: Mapping[str, Number]
    confusion: list[list[int]] = Field(description="over every original once; rows: true")
    confusion_normalised: list[list[Number]] = Field(description="the same as shares of the rows")
    calibration_error: Number = Field(
        default=None, description="if there are probabilities; over every original once"
    )

    def __getitem__(self, measure: str) -> float | None:
        return (self.__pydantic_extra__ or {})[measure]


class ClassScores(Block):
    """Scores of an arm's classifier by what it is given."""

    labels: list[str]
    n: list[int] = Field(description="originals of each class")
    majority: LabelScores = Field(
        description="the class that most originals of a split have; measures over every scored original once"
    )
    regressor: LabelScores | None = Field(
        default=None, description="the regressor's output, cut at the thresholds"
    )
    image: LabelScores | None = Field(default=None, description="features alone")
    both: LabelScores | None = Field(
        default=None, description="features and the regressor's output, which is out of fold"
    )
    interval: dict[str, Interval] = Field(
        default={}, description="of both, or of the image alone; by measure"
    )
    chance: Mapping[str, Number] = Field(
        description="of guessing, by measure: 1 / number of classes that occur among the scored originals"
    )

    @property
    def inputs(self) -> dict[str, LabelScores]:
        """The scores by input, the one that knows most first."""
        scores = {name: getattr(self, name) for name in ("both", "image", "regressor", "majority")}
        return {name: each for name, each in scores.items() if each is not None}


class LabelOfSets(Block):
    """A label of label sets, over every original once."""

    label: str
    n: int = Field(description="images that have it")
    n_predicted: int
    precision: Number
    recall: Number
    f1: Number
    average_precision: Number = Field(description="null if no image has it")


class TargetScores(OpenBlock):
    """Scores of an arm for a target of several values: its measures by name, `skill` first."""

    __pydantic_extra__: dict[str, Figure] = Field(init=False)
    per_source: dict[str, SourceScores]
    labels: list[LabelOfSets] | None = Field(default=None, description="of label sets")
    confusion: list[list[int]] | None = Field(
        default=None, description="of classes, over every original once; rows: true"
    )

    @property
    def measures(self) -> dict[str, Figure]:
        """The measures by name."""
        return self.__pydantic_extra__ or {}

    def __getitem__(self, measure: str) -> Figure:
        return self.measures[measure]


class Arm(OpenBlock):
    """A training set and the models trained on it (`arms`): its heads by name, and these.

    `regressor` is an SVR (RBF) on frozen features, a network, or the arm's constant; `ridge` is there for
    release and originals (frozen). `mean` and `subtype_mean` predict the mean of train, of all or by subtype.
    """

    __pydantic_extra__: dict[str, Head] = Field(init=False)
    n_train: ByScoring[float] = Field(description="rows trained on, mean over the splits")
    classifier: dict[str, ByScoring[ClassScores]] = Field(
        default={},
        description="by classes: `<target>_class` (check.classes of the recipe), the target, `subtype`",
    )
    target: ByScoring[TargetScores] | None = Field(
        default=None, description="if `target` of the document is given; `mean` predicts the mean of train"
    )

    @property
    def heads(self) -> dict[str, Head]:
        """The regressors by name."""
        return self.__pydantic_extra__ or {}


class Cascade(OpenBlock):
    """What the regressor's output adds to the classifier: the difference in each measure of labels."""

    __pydantic_extra__: dict[str, Interval] = Field(init=False)
    second_stage: Number = Field(description="R² of that output for the classifier's training images")
    on_new: Number = Field(description="R² of that output for new images")
    second_stage_excess: Number = Field(description="second_stage - on_new")

    def __getitem__(self, measure: str) -> Interval:
        return (self.__pydantic_extra__ or {})[measure]


class Pair(Block):
    """A scored and a training original, as `source: path`."""

    scored: str
    trained_on: str
    bits: int | None = Field(default=None, description="of 64 that differ")
    cosine: float | None = None


class Looks(Block):
    """The nearest training original of each scored one by pHash, over eight views."""

    least_bits: int
    median_bits: float
    counts: dict[str, int] = Field(description="pairs that differ in at most so many bits")
    pairs: list[Pair] = Field(description="the first ten")


class FeaturePairs(Block):
    """The most similar training original of each scored one by features."""

    bound: float
    n_over: int = Field(description="pairs with a larger cosine")
    largest: float
    typical: float = Field(description="of any two images; above the bound, features are not informative")
    pairs: list[Pair] = Field(description="the first ten above the bound")


class SameImage(Pair):
    """A scored and a training original that are one image in two forms."""

    inliers: int = Field(description="points that fit one similarity transform")
    mirrored: bool


class SameImages(Block):
    """Pairs across a split that are the same image: cropped, mirrored, framed, rotated or recoded."""

    n_compared: int = Field(description="pairs: the five most similar training originals of each scored one")
    n_same: int = Field(description="pairs with 10 inliers or more")
    pairs: list[SameImage] = Field(description="the first ten")


class Leak(Block):
    """Tests for images on both sides of a split."""

    looks: Looks
    features: FeaturePairs
    same_images: SameImages | None = Field(default=None, description="null in a former form")
    nearest: Interval = Field(
        description="R² of copying the label of the most similar training image; classes: "
        "(balanced accuracy - chance) / (1 - chance); else skill"
    )
    shuffled: Annotated[Interval, BeforeValidator(_interval)] = Field(
        description="R² (classes: balanced accuracy; else skill) of the originals' arm after training on "
        "shuffled labels"
    )


class Pattern(Block):
    """Where the mean pattern of a group of images differs most from that of the rest."""

    ratio: float = Field(description="squared difference / what chance gives")
    place: Literal["centre", "corners"] = Field(description="of the central square, or of the four corners")
    row: int = Field(description="of the cell, from 0")
    column: int
    n_cells: int = Field(description="per side")


class Shortcuts(Block):
    """Marks by which a network could tell a subtype; `affectdata.check.shortcuts` explains them."""

    missing: str | None = Field(description="why nothing was measured")
    from_sources: bool = Field(default=False, description="whether images were read as their source has them")
    patterns: dict[str, Pattern] = Field(default={}, description="by `subtype NAME` and `source NAME`")
    scalars: dict[str, dict[str, float]] = Field(default={}, description="AUC by scalar, then as in patterns")
    looks: dict[str, dict[str, float]] = Field(
        default={}, description="by look and subtype: rise of its score (0–100) on images of other subtypes"
    )
    looks_missing: str | None = Field(default=None, description="why no look was tried")


class Shift(Block):
    """How far a pipeline shifts predictions relative to the originals' model; POMP units."""

    all: Interval
    low: Interval = Field(description="images below the middle of the scale")
    high: Interval = Field(description="images from the middle on")
    per_bin: Sequence[Number]
    mean_abs: Number


class Effect(Block):
    """How far a transform shifts the predictions of the originals' model."""

    n: int = Field(description="images")
    mean_abs: Number = Field(description="POMP units")
    of_flip: Interval = Field(
        description="mean_abs / that of a horizontal flip; interval over groups of images"
    )
    low: Number = Field(description="signed, images below the middle of the scale")
    high: Number = Field(description="signed, images from the middle on")


class Probe(Block):
    """How well a linear probe separates copies from originals."""

    auc: float
    low: float
    high: float


class Subgroup(Block):
    """One value of a column."""

    n: int
    mae: Number = Field(default=None, description="of a numeric target")
    bias: Number = Field(default=None, description="mean of prediction - target")
    accuracy: Number = Field(default=None, description="of a target of classes")
    distance: Number = Field(default=None, description="of points, mean")
    exact_match: Number = Field(default=None, description="of label sets")
    kl: Number = Field(default=None, description="of shares, mean")
    interval: Interval | None = Field(
        default=None, description="of the figure, over groups of images; null in a former form"
    )


class Subgroups(Block):
    """Errors of the release's model per value of a column, over every original once."""

    measure: Literal["mae", "accuracy", "distance", "exact_match", "kl"]
    groups: dict[str, Subgroup]
    gap: Number = Field(description="between the largest and the smallest figure")
    too_few: dict[str, int] = Field(
        default={}, description="groups that are too small to report, with their sizes"
    )
    estimated: list[str] = Field(default=[], description="sources in which a machine filled in the column")


class CurvePoint(Block):
    """A point of a training curve."""

    step: int
    phase: str
    loss: float
    accuracy: Number = Field(default=None, description="on the training rows, of classes")
    val_loss: float | None = None
    val_accuracy: Number = None


class HeadTransfer(Block):
    """Scores of a head on another source; intervals over its groups of images."""

    r2: Interval
    pearson_r: Interval


class Transfer(Block):
    """Heads trained on all originals, scored on another source."""

    n: int = Field(description="images of the other source")
    plain: HeadTransfer
    subtype_aware: HeadTransfer | None = Field(default=None, description="if there are subtypes")


class AdviceRow(Block):
    """An option, compared with the originals; the figures are null if it was not run."""

    option: str
    arm: str
    measure: str = Field(description="that decides, fixed in advance")
    change: Interval | None = Field(
        description="difference in the measure to the originals (second backbone: to the first alone)"
    )
    control: str = Field(description="arm of the control")
    over_control: Interval | None = Field(description="difference in the measure to the control")
    outcome: Literal["helps", "harms", "undecided", "not clearly better than its control", "not run"]
    enable: str = Field(description="the option, or line of the recipe, that enables it")
    reason: str | None = Field(default=None, description="why it was not run")


class Advice(Block):
    """What would help: options in a fixed order, with intervals that hold for all of them together."""

    level: float = Field(description="of the intervals")
    quantile: Number = Field(description="of the largest |z| of the changes of all rows")
    rows: list[AdviceRow]


class Curve(Block):
    """The training curve of a network."""

    scoring: ScoringName
    split: int
    arm: str
    model: str = Field(description="a head, or `<classes>.<input>`")
    points: list[CurvePoint]


class RuleOutcome(Block):
    """What a rule found."""

    rule: str
    outcome: Literal["pass", "fail", "undecided", "notice"]
    text: str
    figure: Number
    low: Number
    high: Number
    bound: Number


class Verdict(Block):
    """The result of the rules, and findings and advice as sentences."""

    outcome: Literal["passed", "failed", "inconclusive"] = Field(
        description="failed: a rule fails (exit code 1); inconclusive: none fails, but fewer than 200 "
        "originals are scored"
    )
    passed: bool = Field(description="whether the outcome is `passed`")
    summary: list[str] = Field(default=[], description="at most five lines, for a reader who is new to this")
    gate: list[RuleOutcome]
    sentences: list[str]
    advice: list[str]

    @model_validator(mode="before")
    @classmethod
    def _of_a_former_form(cls, data: Any) -> Any:
        if isinstance(data, dict) and "outcome" not in data:
            return {**data, "outcome": "passed" if data.get("passed") else "failed"}
        return data


class PublishedDistance(Block):
    """How far the ratings of a subtype are from the published ones."""

    distance: float = Field(description="largest distance of the two cumulative distributions")
    missing: float = Field(description="share of images that one of the two lacks")
    n: int


class Anchor(Interval):
    """R of the ratings with the predictions of a model that was trained on another source."""

    n: int = Field(description="images that the model was trained on")


class SuspiciousRating(Block):
    """An image whose rating is unusual for its subtype and its look."""

    path: str
    rating: float
    score: float = Field(description="geometric mean of two deviations, in robust standard deviations")


class LabelFigures(Block):
    """Whether the ratings of a source belong to its images; `affectdata.check.label_rules` explains them."""

    n: int
    outputs: int = Field(default=1, description="values per image that are judged together")
    r2: Interval = Field(description="of a kernel ridge, out of fold")
    r_within: Number
    null_sd: Number = Field(description="SD of r_within with ratings permuted inside the subtypes")
    z: Number = Field(description="r_within / null_sd")
    r_within_by_offset: dict[str, Number] = Field(description="with the ratings moved by so many rows")
    best_offset: int
    margin: Number = Field(description="(r_within of the best offset - r_within) / null_sd")
    expected_r2: float | None = Field(description="of these images and this network, if it is known")
    wrong_side: dict[str, float] = Field(description="share of images, by subtype with a published side")
    published: dict[str, PublishedDistance] = Field(description="by subtype")
    anchor: dict[str, Anchor] = Field(description="by other source")
    suspicious: list[SuspiciousRating] = Field(description="worst first, at most 50")


class CheckFigures(Block):
    """Everything that was measured: the document without its verdict."""

    form: str = Field(default=SCHEMA, alias="schema")
    path: str | None = Field(default=None, description="of this file; in the output of the command only")
    release: ReleaseBlock
    settings: CheckSettings
    versions: dict[str, str] = Field(description="of the libraries that decide the numbers")
    numeric: bool = Field(description="whether the target is numeric")
    target: TargetBlock | None = Field(
        default=None, description="if it is not the recipe's; `numeric` is then false"
    )
    copies: int = Field(description="number of copies in train")
    bins: Bins
    crossfit_missing: str | None = Field(description="why there is only the held-out score")
    structure: dict[str, StructureCheck] = Field(
        description="exact checks; a release with a broken lineage is refused before training"
    )
    arms: dict[str, Arm] = Field(description="`affectdata.check.arms` explains them")
    labels: dict[str, LabelFigures] = Field(
        default={},
        description="by source, if the recipe's target is numeric; `<source>.<column>`, `<source>.sets` and "
        "`<source>.shares` of a target of several values",
    )
    comparison: dict[str, dict[str, Interval]] = Field(
        description='"<arm> - <arm>": difference in each measure on the same images'
    )
    pooled_differences: bool = Field(
        default=False,
        description="whether intervals of `comparison` are pooled over an assignment to folds (heads, "
        "numeric target); otherwise they are corrected for shared training images",
    )
    on_edge: list[str] = Field(
        description="arms whose setting is on the edge of its grid in more than a quarter of the splits"
    )
    cascade: Cascade | None
    leak: Leak
    shortcuts: Shortcuts | None = Field(default=None, description="null in a former form")
    shift: dict[str, Shift] | None = Field(description="by pipeline")
    effects: dict[str, Effect] | None = Field(description="by transform")
    affect_of_look: dict[str, float] = Field(
        description="by pipeline: how far luminance and saturation of its copies shift pleasure, POMP units"
    )
    probe: Probe | None = Field(description="of copies against originals, from release.json")
    copies_and_target: Number = Field(description='correlation of "is a copy" with the target')
    ceiling: Number = Field(description="the highest R² that the raters' noise allows, if SD and N are known")
    subgroups: dict[str, Subgroups] = Field(description="by column")
    regrouped: dict[str, Interval] = Field(
        description="R² (skill) of the originals with undeclared groups kept together, by column"
    )
    not_offered: dict[str, str] = Field(
        description="manifests that could not be tried for the thin bins, and the reason"
    )
    transfer: dict[str, Transfer] = Field(default={}, description="by other source (frozen)")
    advice: Advice | None = Field(
        default=None, description="what would help; null in finetune, and if the target is not one number"
    )
    curves: list[Curve] = Field(description="of networks")

    @property
    def has_ratings(self) -> bool:
        """Whether the recipe's target is numeric, whatever is predicted."""
        return self.numeric or bool(self.labels)

    @property
    def has_skill(self) -> bool:
        """Whether predictions are scored by R², or by the skill of a target of several values."""
        return self.numeric or self.target is not None


class CheckDocument(CheckFigures):
    """train-check.json: the training, the scores, the comparisons and the verdict."""

    verdict: Verdict
    predictions_digest: str | None = Field(
        default=None, description="only in the file: the digest of the rows of predictions.parquet"
    )
    content_sha256: str | None = Field(
        default=None, description="only in the file: SHA-256 over the canonical JSON of all other keys"
    )


def read_document(path: Path) -> CheckDocument:
    """Read train-check.json, of this form or a former one.

    Raises:
        InputError: the file is not such a document.
        IntegrityError: the document is not the one that was written.
        ManifestError: the file does not exist or is not JSON.
    """
    data = read_sealed(path, "run `affectdata train-check` again")
    form = data.get("schema") if isinstance(data, dict) else None
    if form not in (SCHEMA, *_FORMER):
        raise InputError(f"{path.name} does not have the form {SCHEMA} or a former one", where=str(path))
    try:
        return CheckDocument.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path.name} is not as its form says: {error}", where=str(path)) from error
