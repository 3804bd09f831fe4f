"""Prepare a check: assign originals to folds, plan every arm of each split, compute all features."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.check.arms import EVEN, ORIGINALS, WITH, Arms, has_copies, make_arms, spread_evenly
from affectdata.check.image_pool import (
    ImagePool,
    Originals,
    add_images,
    fill_image_pool,
    find_originals,
    plan_image_pool,
    replan,
)
from affectdata.check.probes import plan_probes, with_effects
from affectdata.check.stored import ReadOriginal
from affectdata.check.study_targets import StudyTarget, find_target
from affectdata.errors import InputError, RecipeError
from affectdata.images.duplicates import assign_groups
from affectdata.manifest.ledger import read_memory
from affectdata.manifest.manifest import Images, Manifest
from affectdata.plan.fill import fill_rows
from affectdata.recipe.bounds import Check
from affectdata.recipe.recipe import Recipe, parse_recipe
from affectdata.release.lineage import validate_release
from affectdata.release.release import Release
from affectdata.schema import EDGES, PLAN
from affectdata.splits.folds import deal_folds
from affectdata.train.backbones import Backbone
from affectdata.train.features import FeatureCache
from affectdata.train.heads import N_FOLDS
from affectdata.train.images import Progress
from affectdata.train.rows import Rows
from affectdata.workers import THREADS

CACHE = ".features"  # folder below that of the checks
N_ASSIGNMENTS = 2  # assignments to N_FOLDS folds: ten splits, in which every original is scored twice
GROUPING = ("theme", "artist")  # columns that may define groups which the recipe did not declare


@dataclass(frozen=True, eq=False)
class Split:
    """One split: train rows by arm, the originals to score, and probe images by name.

    `probes` are test originals passed through a pipeline of the recipe (`draw:NAME`) or a single transform
    (`effect:NAME`). They are not scored: they measure prediction shift.
    """

    arms: dict[str, Rows]
    test: Rows
    probes: dict[str, Rows] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CheckInput:
    """Everything that the training needs.

    `fold_assignments` are arrays with the fold of each original (-1: never scored), one per assignment;
    `crossfit` are their splits, in that order; `train` are the release's own train rows. `regrouped`
    has, by undeclared column, splits in which equal values of it are kept together too. `not_offered` has the
    manifests that could not be tried for the thin bins, and the reason; `others`, by source, all images of
    other manifests that have the target and are independent of the originals. `more_backbones` are networks
    whose features stand beside those of `backbone`. `cache` is the folder of features; `images` reads those
    of the sources, if they are at hand. `target` is what is predicted, if it is not the recipe's. `terms`
    has, for each of `others`, its title, licence, citation and more, as a manifest states them.
    """

    release: Release
    recipe: Recipe
    backbone: Backbone
    originals: Originals
    image_pool: ImagePool
    train: Rows
    fold_assignments: list[np.ndarray]
    heldout: Split | None
    crossfit: list[Split]
    crossfit_missing: str | None
    regrouped: dict[str, list[Split]]
    not_offered: dict[str, str]
    others: dict[str, Rows]
    more_backbones: Sequence[Backbone] = ()
    cache: Path = Path(CACHE)
    images: Images | None = None
    target: StudyTarget | None = None
    terms: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def read_original(self) -> ReadOriginal:
        """The reader of the originals' files."""
        return ReadOriginal(self.release, self.recipe, self.originals, self.images)

    @property
    def numeric(self) -> bool:
        """Whether one number is predicted."""
        return self.originals.edges is not None and self.target is None

    @property
    def n_first(self) -> int:
        """How many splits of `crossfit` belong to the first assignment to folds."""
        return len(self.crossfit) // max(1, len(self.fold_assignments))


def prepare_check(
    release: Release,
    backbone: Backbone,
    images: Images | None,
    checks: Path,
    *,
    more_backbones: Sequence[Backbone] = (),
    others: Sequence[Manifest] = (),
    check: Check | None = None,
    why_none: str = "the source images are not available",
    workers: int = 1,
    engine: str = THREADS,
    progress: Progress | None = None,
) -> CheckInput:
    """Plan every split and compute the features of all images that any of them needs.

    Without `images` there is only the held-out score, and `why_none` is the reason given. `others` are
    manifests whose images are tried for the thin bins; `check` replaces the recipe's. Features, those of
    `more_backbones` beside those of `backbone`, are cached in `checks/.features`.

    Raises:
        IntegrityError: the lineage of the release is broken, or an image differs from the recorded one.
        InputError: there is nothing to train on, or no split to score without the source images, or the
            release lacks the columns of the target.
    """
    validate_release(release)
    recipe = parse_recipe(release.recipe_document, str(release.path / "recipe.yaml"))
    recipe = recipe.model_copy(update={"check": check}) if check else recipe
    originals = find_originals(release, recipe)
    target = find_target(originals, recipe.target, recipe.predicts) if recipe.predicts else None
    if target:
        others = ()  # they need not have all of its columns
    n_groups = len(set(originals.column("group_id")[originals.own]))
    if images and n_groups < 2:
        images, why_none = None, f"folds need at least 2 groups of images, and there is {n_groups}"
    not_offered: dict[str, str] = {}
    if images:
        originals, not_offered = _offer(originals, others, recipe)
    probes = plan_probes(originals, release, recipe) if images and not target else {}
    planner = _SplitPlanner(originals, recipe, probes)
    fold_assignments = (
        [planner.folds(recipe.seed + number, planner.group) for number in range(N_ASSIGNMENTS)]
        if images
        else []
    )
    crossfit = [split for folds in fold_assignments for split in planner.splits(folds)]
    regrouped = {
        name: planner.regrouped(name) for name in GROUPING if images and planner.has_undeclared_groups(name)
    }
    heldout = _heldout(release, originals, recipe, with_images=images is not None)
    if not heldout and not crossfit:
        raise InputError(
            f"nothing to score: the release has no test split, and {why_none}",
            where=str(release.path),
            fix="give the folder of the source images: --root SOURCE=PATH",
        )
    planned = [*crossfit, *itertools.chain(*regrouped.values()), *([heldout] if heldout else [])]
    plans = [plan for split in planned for plan in (*split.arms.values(), split.test, *split.probes.values())]
    others_plans = planner.others()
    plans += [*others_plans.values(), released_rows(release, originals, "train")]
    image_pool = plan_image_pool(release, originals, plans, with_effects(recipe), images)
    for network in (backbone, *more_backbones):
        cache = FeatureCache(checks / CACHE, network)
        report = progress or (lambda *_: None)
        image_pool = fill_image_pool(image_pool, network, cache, workers, report, engine)
    return CheckInput(
        release,
        recipe,
        backbone,
        originals,
        image_pool,
        image_pool.rows(plans[-1]),
        fold_assignments,
        heldout.read(image_pool) if heldout else None,
        [split.read(image_pool) for split in crossfit],
        None if images else why_none,
        {name: [split.read(image_pool) for split in splits] for name, splits in regrouped.items()},
        not_offered,
        {name: image_pool.rows(plan) for name, plan in others_plans.items()},
        more_backbones,
        checks / CACHE,
        images,
        target,
        {part["source"]: part for manifest in others for part in manifest.parts},
    )


@dataclass(frozen=True, eq=False)
class _SplitPlan:
    """A split as plan rows, before features are computed."""

    arms: Arms
    test: pa.Table
    probes: Arms = field(default_factory=dict)

    def read(self, image_pool: ImagePool) -> Split:
        rows = {name: image_pool.rows(plan) for name, plan in self.arms.items()}
        probes = {name: image_pool.rows(plan) for name, plan in self.probes.items()}
        return Split(rows, image_pool.rows(self.test), probes)


class _SplitPlanner:
    """Assigns originals to folds and plans the arms of each split."""

    def __init__(self, originals: Originals, recipe: Recipe, probes: Arms) -> None:
        self.originals, self.recipe, self.probes = originals, recipe, probes
        self.group = originals.column("group_id")

    def folds(self, seed: int, group: np.ndarray) -> np.ndarray:
        """Return the fold of each image, stratified by bin; -1 for images that are never scored."""
        own = self.originals.own
        fold = np.full(len(own), -1)
        fold[own] = deal_folds(group[own], [self.originals.bin[own]], seed, N_FOLDS)
        return fold

    def splits(self, folds: np.ndarray) -> list[_SplitPlan]:
        """Return the splits of one assignment to folds, every arm planned on its train side."""
        return [self._split(folds == fold) for fold in np.unique(folds[self.originals.own])]

    def _split(self, scored: np.ndarray) -> _SplitPlan:
        originals = self.originals
        train, test = originals.own & ~scored, originals.plain(scored)
        base = originals.plain(train)
        arms = _arms_of(originals, train, replan(originals, ~scored, self.recipe), base, self.recipe)
        offered = np.where(originals.kind == "offered", originals.column("source"), "")
        for name in sorted({*offered} - {""}):
            arms[WITH + name] = pa.concat_tables([base, originals.plain(offered == name)])
        probes = {
            name: plan.filter(pc.is_in(plan["image_id"], test["image_id"].combine_chunks()))
            for name, plan in self.probes.items()
        }
        return _SplitPlan(arms, test, {name: plan for name, plan in probes.items() if len(plan)})

    def others(self) -> Arms:
        """Return all images of other manifests, by source."""
        sources = np.where(self.originals.released, "", self.originals.column("source"))
        return {name: self.originals.plain(sources == name) for name in sorted({*sources.tolist()} - {""})}

    def has_undeclared_groups(self, column: str) -> bool:
        """Return whether images with one value of a column are in several groups."""
        values = self.originals.column(column)
        own = self.originals.own & (values != "")
        pairs = set(zip(values[own], self.group[own], strict=True))
        return 1 < len({value for value, _ in pairs}) < len(pairs)

    def regrouped(self, column: str) -> list[_SplitPlan]:
        """Return splits of the arm `originals`, with groups and equal values of a column kept together."""
        originals = self.originals
        linked = assign_groups(originals.table, EDGES.empty_table(), [column, "group_id"])
        folds = self.folds(self.recipe.seed, np.array(linked["group_id"].to_pylist(), str))
        return [
            _SplitPlan(
                {ORIGINALS: originals.plain(originals.own & (folds != fold))}, originals.plain(folds == fold)
            )
            for fold in np.unique(folds[originals.own])
        ]


def released_rows(release: Release, originals: Originals, split: str) -> pa.Table:
    """Return the plan rows of a release's own split, for the images in the check."""
    plan = release.split(split).select(PLAN.names)
    return plan.filter(pc.is_in(plan["image_id"], originals.table["image_id"].combine_chunks()))


def _heldout(
    release: Release, originals: Originals, recipe: Recipe, *, with_images: bool
) -> _SplitPlan | None:
    """Return the release's own train and test split; None without one."""
    train, test = (released_rows(release, originals, name) for name in ("train", "test"))
    if not len(train) or not len(test):
        return None
    return _SplitPlan(released_arms(release, originals, recipe, with_images=with_images), test)


def released_arms(release: Release, originals: Originals, recipe: Recipe, *, with_images: bool) -> Arms:
    """Return the arms of a release's own train split; `even` needs images that the release lacks."""
    train = released_rows(release, originals, "train")
    rows = originals.own & (originals.column("split") == "train")
    base = originals.plain(rows)
    if not with_images and recipe.originals == "drawn":  # their plain form is not in the release
        known = base["image_id"].combine_chunks()
        base = train.filter(pc.equal(train["copy"], 0)).sort_by("image_id")
        base = base.filter(pc.is_in(base["image_id"], known))
    return _arms_of(originals, rows, train, base, recipe, with_even=with_images)


def _arms_of(
    originals: Originals,
    rows: np.ndarray,
    planned: pa.Table,
    base: pa.Table,
    recipe: Recipe,
    *,
    with_even: bool = True,
) -> Arms:
    """Return the arms of some train rows: `planned` by the recipe, and `base`, the unchanged originals."""
    arms = make_arms(planned, base, (originals.bin[rows], originals.cell[rows]))
    if with_even and has_copies(planned):
        table = originals.table.filter(pa.array(rows))
        arms[EVEN] = spread_evenly(table["image_id"], table["subtype"], len(planned), recipe)
    return arms


def _offer(
    originals: Originals, others: Sequence[Manifest], recipe: Recipe
) -> tuple[Originals, dict[str, str]]:
    """Add images of other manifests; return the manifests without any for the thin bins, with the reason.

    Of each at most `check.max_pictures` are added, as evenly over the bins as possible.
    """
    added: list[tuple[str, pa.Table]] = []
    refused: dict[str, str] = {}
    own = originals.table.filter(pa.array(originals.own))
    own = own.set_column(own.column_names.index("split"), "split", pa.array(["train"] * len(own)))
    for manifest in others if originals.edges else ():
        sources = sorted(manifest.table["source"].unique().to_pylist())
        memory, taken = read_memory([manifest]), []
        per_bin = -(-recipe.check.max_pictures // len(originals.labels))  # rounded up
        try:
            for level in (recipe.balance.level, per_bin):
                balance = recipe.balance.model_copy(update={"fill_from": sources, "level": level})
                spec = recipe.model_copy(update={"balance": balance})
                filled = fill_rows(own, manifest.table, spec, memory)
                taken.append(filled.filter(pc.is_in(filled["source"], pa.array(sources))))
        except RecipeError as error:
            refused[manifest.path.stem] = error.what
            continue
        if not len(taken[0]):
            refused[manifest.path.stem] = "it has no image in the thin bins"
        added += zip(("offered", "other"), taken, strict=True)
    for kind, images in sorted(added, key=lambda each: each[0]):  # those offered first
        originals = add_images(originals, images, recipe.target, kind)
    return originals, refused
