"""The documents that commands print with --json, one model each; `affectdata schema` prints their schemas.

Parts that have a type in the package are that type. The commands do not check what they print; a test runs
every one and compares its document with the schema.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from affectdata.check.blocks import CheckDocument
from affectdata.images.compare import Distance
from affectdata.manifest.merge import Conflict
from affectdata.plan.plan import SplitDistance
from affectdata.recipe.bounds import Check
from affectdata.records import Finding
from affectdata.release.info import Balance, Drift, ReleaseInfo
from affectdata.release.workspace import Problem
from affectdata.selection.request import SetRequest

Counts = dict[str, int]
Row = dict[str, Any]


class Part(BaseModel):
    """A block without further keys."""

    model_config = ConfigDict(extra="forbid")


class Ingest(Part):
    """`affectdata ingest`: what became of every file and rating row."""

    form: Literal["affectdata/ingest/1"] = Field(alias="schema")
    manifest: str
    digest: str = Field(description="hash of the rows")
    source: str
    recognised_by: str
    counts: Counts = Field(description="kept, merged, annotation, junk, rejected: all that was seen")
    reasons: Counts = Field(description="rejects by reason, without junk")
    junk: Counts = Field(description="by kind")
    subtypes: Counts
    emotions: Counts
    valence_histogram: list[int] = Field(description="images in ten bins of valence, 0 to 100")
    findings: list[Finding]


class Plan(Part):
    """`affectdata balance --dry-run`: the plan, before any image is touched."""

    form: Literal["affectdata/plan/1"] = Field(alias="schema")
    recipe: str
    balance: Balance
    weighted: dict[str, float] = Field(description="rows by bin with sampling weights; empty without weights")
    splits: Splits
    left_out: int = Field(description="rows that the recipe leaves out")
    lint: list[Finding]


class Splits(Part):
    """Images per split, the distance of each from the whole, and the same per fold if there are folds."""

    rows: Counts
    distance: SplitDistance
    folds: Splits | None = None


class BalanceRun(Plan):
    """`affectdata balance`: the plan and the release."""

    form: Literal["affectdata/balance/1"] = Field(alias="schema")  # type: ignore[assignment]
    release: str = Field(description="path")
    id: str
    new: bool = Field(description="false if it was there and was verified")
    drift: Drift


class Lint(Part):
    """`affectdata balance --lint`."""

    form: Literal["affectdata/lint/1"] = Field(alias="schema")
    lint: list[Finding]


class RuleText(Part):
    """A rule and when it passes."""

    name: str
    what: str


class Rules(Part):
    """`affectdata train-check --rules`."""

    form: Literal["affectdata/rules/1"] = Field(alias="schema")
    rules: list[RuleText]
    defaults: Check


class Verify(Part):
    """`affectdata verify`."""

    form: Literal["affectdata/verify/1"] = Field(alias="schema")
    release: str
    id: str
    sound: bool
    rebuilt: int = Field(description="images rendered again and compared")
    findings: list[Finding]


class Why(Part):
    """`affectdata verify --why`: an image, what it stays together with, and its rows."""

    form: Literal["affectdata/why/1"] = Field(alias="schema")
    image_id: str
    source: str
    source_id: str
    path: str
    split: str
    cell: str
    group_id: str
    group: list[Row]
    edges: list[Row]
    rows: list[Row]


class Concat(Part):
    """`affectdata concat`."""

    form: Literal["affectdata/concat/2"] = Field(alias="schema")
    manifest: str
    digest: str
    rows: int = Field(description="of all manifests")
    pictures: int = Field(description="images of the result")
    merged: int
    across: Counts = Field(description="pairs of images of two sources: same_pixels, near_duplicate")
    policy: str
    conflicts: list[Conflict]
    findings: list[Finding]


class Split(Splits):
    """`affectdata split`; with --forget `forgotten` in place of the splits."""

    form: Literal["affectdata/split/1"] = Field(alias="schema")
    manifest: str
    digest: str
    rows: Counts = {}
    distance: SplitDistance | None = None  # type: ignore[assignment]
    folds: Splits | None = None
    without_split: int | None = None
    forgotten: int | None = None


class Download(Part):
    """`affectdata download`."""

    form: Literal["affectdata/download/1"] = Field(alias="schema")
    source: str
    notes: str = Field(description="path of download.parquet")
    listed: int
    counts: Counts
    statuses: Counts = Field(description="of what was not fetched")
    may_pass: int = Field(description="failures that may not happen again")


class Init(Part):
    """`affectdata init`: paths."""

    form: Literal["affectdata/init/1"] = Field(alias="schema")
    written: list[str]
    kept: list[str]
    recipes: list[str]


class Query(Part):
    """`affectdata query`."""

    form: Literal["affectdata/query/1"] = Field(alias="schema")
    columns: list[str]
    rows: list[Row]


class Compare(Part):
    """`affectdata compare`."""

    form: Literal["affectdata/compare/1"] = Field(alias="schema")
    first: str
    second: str
    hashes: list[Distance]


class Pair(Part):
    """Two versions of one image."""

    image_id_a: str
    source_a: str
    path_a: str
    image_id_b: str
    source_b: str
    path_b: str
    inliers: int = Field(description="points that fit")
    mirrored: bool


class Groups(Part):
    """`affectdata groups`."""

    form: Literal["affectdata/groups/1"] = Field(alias="schema")
    path: str = Field(description="of the table that `split.groups` reads")
    groups: int
    pairs: list[Pair]


class Select(Part):
    """`affectdata select`, and select.json."""

    form: Literal["affectdata/select/1"] = Field(alias="schema")
    request: SetRequest
    folder: str = ""
    images: int
    candidates: Counts
    left_out: Counts
    optimal: bool
    summary: list[Row]
    means: list[Row]
    comparisons: list[Row]


class Suggest(Part):
    """`affectdata suggest`, and suggest.json."""

    form: Literal["affectdata/suggest/1"] = Field(alias="schema")
    target: str
    images: list[Row] = Field(description="the rows of suggestions.csv")
    missing: Counts = Field(description="images that a cell lacks")
    error: float = Field(description="RMSE on held-out originals")
    held_out: int
    skipped: dict[str, str] = Field(description="reason by file")


class Study(Part):
    """`affectdata study`, and study.json."""

    form: Literal["affectdata/study/2"] = Field(alias="schema")
    name: str
    best_on: str
    lower_is_better: bool
    winner: Row | None = Field(description="settings; null where another one is within the noise")
    combinations: list[Combination]
    baseline: dict[str, Any] | None = None
    errors: list[str]
    n_runs: int
    n_seeds: int
    n_skipped: int
    tables: dict[str, str] = Field(default={}, description="SHA-256 of each table beside study.json")
    content_sha256: str = Field(
        default="", description="only in the file: SHA-256 over the canonical JSON of all other keys"
    )
    path: str = ""


class Combination(Part):
    """Settings, their scores by part and measure, and the difference of the best to them."""

    settings: Row
    scores: dict[str, dict[str, dict[str, float | None]]]
    difference: dict[str, float | None] | None


class Predict(Part):
    """`affectdata predict`: file, prediction and shares by image."""

    form: Literal["affectdata/predict/1"] = Field(alias="schema")
    model: str
    predictions: list[Row]


class Report(Part):
    """`affectdata report`."""

    form: Literal["affectdata/report/1"] = Field(alias="schema")
    path: str
    figures: list[str]
    private: bool


class Export(Part):
    """`affectdata export`."""

    form: Literal["affectdata/export/1"] = Field(alias="schema")
    release: str
    to: str
    out: str


class Diff(Part):
    """`affectdata diff`: sample ids by kind of change."""

    form: Literal["affectdata/diff/1"] = Field(alias="schema")
    added: list[str]
    removed: list[str]
    moved: list[str] = Field(description="to another split or fold")
    relabelled: list[str]
    redrawn: list[str] = Field(description="another file of the same image")
    described: list[str] = Field(description="other columns only")
    cells: dict[str, tuple[int, int]] = Field(description="rows before and after, of cells that changed")
    step: Literal["none", "patch", "minor", "major"]


class Doctor(Part):
    """`affectdata doctor`."""

    form: Literal["affectdata/doctor/1"] = Field(alias="schema")
    findings: list[Problem]


class Publish(Part):
    """`affectdata publish`."""

    form: Literal["affectdata/publish/1"] = Field(alias="schema")
    release: str = Field(description="path of the release or manifest")
    address: str
    new: bool = Field(description="it was not there before")


class Sheet(Part):
    """The data sheet of a source."""

    name: str
    title: str
    license: str
    url: str
    layout: str
    citation: str
    evidence: Literal["seen", "unverified"]


class Plugin(Part):
    """A plugin of another package."""

    name: str
    package: str
    error: str | None


class Sources(Part):
    """`affectdata sources`."""

    form: Literal["affectdata/sources/1"] = Field(alias="schema")
    sources: list[Sheet]
    plugins: list[Plugin]


class Source(Sheet):
    """`affectdata sources NAME`."""

    form: Literal["affectdata/source/1"] = Field(alias="schema")
    bibtex: str
    variants: list[str]
    estimated: list[str]


class Citation(Part):
    """`affectdata sources NAME --cite`."""

    form: Literal["affectdata/citation/1"] = Field(alias="schema")
    name: str
    citation: str
    bibtex: str


class Sample(Part):
    """`affectdata sample`."""

    form: Literal["affectdata/sample/1"] = Field(alias="schema")
    source: str
    folder: str
    seed: int


# By the middle of their form: affectdata/ingest/1.
DOCUMENTS: dict[str, type[BaseModel]] = {
    "balance": BalanceRun,
    "citation": Citation,
    "compare": Compare,
    "concat": Concat,
    "diff": Diff,
    "doctor": Doctor,
    "download": Download,
    "export": Export,
    "groups": Groups,
    "ingest": Ingest,
    "init": Init,
    "lint": Lint,
    "plan": Plan,
    "predict": Predict,
    "publish": Publish,
    "query": Query,
    "release": ReleaseInfo,
    "report": Report,
    "rules": Rules,
    "sample": Sample,
    "select": Select,
    "source": Source,
    "sources": Sources,
    "split": Split,
    "study": Study,
    "suggest": Suggest,
    "train-check": CheckDocument,
    "verify": Verify,
    "why": Why,
}
