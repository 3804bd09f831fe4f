"""What the functions of `affectdata.api` return, as far as the modules below have no type of their own.

Every result is a frozen dataclass with a one-line `repr`; `to_dict` gives the document that the command
prints with --json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from affectdata.check.blocks import CheckDocument
    from affectdata.manifest.manifest import Manifest
    from affectdata.plan.plan import Plan, SplitSummary
    from affectdata.recipe.recipe import Recipe
    from affectdata.records import Finding
    from affectdata.release.release import Release


def _table_html(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table for notebooks."""
    lines = [("th", header), *(("td", row) for row in rows)]
    body = "".join(
        f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>" for tag, cells in lines
    )
    return (f"<p>{escape(title)}</p>" if title else "") + f"<table>{body}</table>"


@dataclass(frozen=True, eq=False)
class BalancePlan:
    """A plan before any image is touched: what `affectdata balance --dry-run` prints.

    `manifests` are all that images come from; `splits` has rows per split and the distance of each split from
    the whole (`describe_splits`); `n_left_out` counts rows that the recipe leaves out (`where`, `labels`,
    conflicts of splits); `lint` lists what looks unwise in the recipe.
    """

    recipe: Recipe = field(repr=False)
    manifests: list[Manifest] = field(repr=False)
    rows: pa.Table = field(repr=False)
    plan: Plan = field(repr=False)
    splits: SplitSummary = field(repr=False)
    n_left_out: int
    lint: list[Finding] = field(repr=False)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name} {n}" for name, n in self.splits.rows.items())
        n_images = self.plan.table.num_rows
        return f"<BalancePlan {self.recipe.name}: {n_images} images to render; originals: {rows}>"

    def _repr_html_(self) -> str:
        header = ("bin", "before", "filled", "after", "short")
        rows = [
            (each.bin, each.n_before, each.n_filled, each.n_after, each.shortfall) for each in self.plan.bins
        ]
        return _table_html(repr(self), header, rows)

    @property
    def empty_splits(self) -> list[str]:
        """The splits that the recipe asks for and that hold no image, as there are too few groups."""
        rows = self.splits.rows
        return [name for name in ("val", "test") if self.recipe.needs_split(name) and not rows.get(name)]

    def to_pandas(self) -> pd.DataFrame:
        """Return the cells of train: bin, stratum, images before, rows after, effective sample size."""
        import pandas as pd

        return pd.DataFrame([asdict(each) for each in self.plan.cells])

    def to_dict(self) -> dict[str, Any]:
        """Return the plan's counts as plain data."""
        return {
            "recipe": self.recipe.name,
            "balance": self.plan.summary(),
            "weighted": self.plan.weighted(),
            "splits": self.splits.to_dict(),
            "left_out": self.n_left_out,
            "lint": [asdict(each) for each in self.lint],
        }


@dataclass(frozen=True, eq=False)
class BalanceResult:
    """A release, the plan that it was rendered from, and whether it is new or was there, and verified."""

    release: Release
    plan: BalancePlan = field(repr=False)
    is_new: bool

    def __repr__(self) -> str:
        return f"<BalanceResult {self.release.path}: {'new' if self.is_new else 'already there, verified'}>"

    def to_dict(self) -> dict[str, Any]:
        """Return what was planned and made as plain data."""
        made = {"release": str(self.release.path), "id": self.release.id, "new": self.is_new}
        return {**self.plan.to_dict(), **made, "drift": self.release.info["drift"]}


@dataclass(frozen=True, eq=False)
class GroupsResult:
    """The images of a manifest that are versions of one image.

    `pairs` have image_id, source and path of both images (`_a`, `_b`), their number of inliers, and whether
    one is mirrored; `path` is the table that `split.groups` of a recipe reads.
    """

    path: Path
    n_groups: int
    pairs: pa.Table = field(repr=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per pair, the surest first."""
        frame: pd.DataFrame = self.pairs.to_pandas()
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Return the groups and pairs as plain data."""
        return {"path": str(self.path), "groups": self.n_groups, "pairs": self.pairs.to_pylist()}


@dataclass(frozen=True, eq=False)
class SplitResult:
    """A manifest whose column `split` was filled; `splits` as in `BalancePlan`."""

    manifest: Manifest
    splits: SplitSummary = field(repr=False)
    n_without: int

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        content = {"manifest": str(self.manifest.path), "digest": self.manifest.digest}
        return {**content, "without_split": self.n_without, **self.splits.to_dict()}


@dataclass(frozen=True, eq=False)
class VerifyResult:
    """Findings about a release (none: every file and every row holds) and how many images were rebuilt."""

    release: Release
    findings: list[Finding]
    n_rebuilt: int
    notes: list[str]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as plain data."""
        return {
            "release": str(self.release.path),
            "id": self.release.id,
            "sound": self.is_sound,
            "rebuilt": self.n_rebuilt,
            "findings": [asdict(each) for each in self.findings],
        }


@dataclass(frozen=True, eq=False)
class CheckResult:
    """What train-check found: `document` as in train-check.json, and where that and other files are."""

    document: CheckDocument = field(repr=False)
    predictions: pa.Table = field(repr=False)
    path: Path
    model: Path | None = None
    maps: list[Path] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        return f"<CheckResult {self.document.release.name}: {self.outcome}>"

    def _repr_html_(self) -> str:
        lines = "".join(f"<li>{escape(line)}</li>" for line in self.document.verdict.summary)
        rules = [(rule.rule, rule.outcome, rule.text) for rule in self.document.verdict.gate]
        open_rules = [rule for rule in rules if rule[1] != "pass"]
        table = _table_html("", ("rule", "outcome", "finding"), open_rules) if open_rules else ""
        return f"<p>{escape(repr(self))}</p><ul>{lines}</ul>{table}"

    @property
    def outcome(self) -> str:
        """`passed`, `failed` (a rule fails), or `inconclusive` (none fails, on too few images)."""
        return self.document.verdict.outcome

    @property
    def passed(self) -> bool:
        """Whether no rule fails, and there are images enough to say so."""
        return self.outcome == "passed"

    @property
    def sentences(self) -> list[str]:
        """The verdict in sentences, the most important first."""
        return self.document.verdict.sentences

    @property
    def advice(self) -> list[str]:
        """What would help more."""
        return self.document.verdict.advice

    @property
    def rules(self) -> pd.DataFrame:
        """A row per rule: rule, outcome, text, figure, low, high, bound."""
        import pandas as pd

        return pd.DataFrame([rule.to_dict() for rule in self.document.verdict.gate])

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per scored original: its labels, fold, and what every arm and head predicted."""
        frame: pd.DataFrame = self.predictions.to_pandas()
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Return the document, with its path."""
        return {**self.document.to_dict(), "path": str(self.path)}


@dataclass(frozen=True, eq=False)
class StudyResult:
    """What a study found: `document` as in study.json; `folder` also holds results.csv, a row per run.

    `model` is the file of the model that was kept.
    """

    document: dict[str, Any] = field(repr=False)
    folder: Path
    model: Path | None = None

    def to_pandas(self) -> pd.DataFrame:
        """Return a row per run: its settings, scores on val and test, and its error if it failed."""
        import pandas as pd

        return pd.read_csv(self.folder / "results.csv")

    def to_dict(self) -> dict[str, Any]:
        """Return the document, with its path."""
        return {**self.document, "path": str(self.folder)}


@dataclass(frozen=True)
class ReportResult:
    """The page that was written, the charts beside it, and whether it holds images not to be passed on."""

    path: Path
    figures: list[Path] = field(repr=False)
    is_private: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the paths as plain data."""
        return {
            "path": str(self.path),
            "figures": [str(path) for path in self.figures],
            "private": self.is_private,
        }
