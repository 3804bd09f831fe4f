"""Make a check ready: find the originals, deal the folds, plan each one, compute every picture's features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.balance.recipe import Recipe, parse_recipe
from affectdata.errors import InputError
from affectdata.manifest import Pictures
from affectdata.release import Release, require_sound
from affectdata.train.backbones import Backbone
from affectdata.train.bank import Bank, Originals, fill_bank, find_originals, fold_originals, plan_fold
from affectdata.train.evaluate import Split
from affectdata.train.features import FeatureCache, Progress

CACHE = ".features"  # folder below that of the checks


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that the training needs; `folds` has a number per original, None without cross-fitting."""

    release: Release
    recipe: Recipe
    backbone: Backbone
    originals: Originals
    bank: Bank
    folds: np.ndarray | None
    heldout: Split | None
    crossfit: list[Split]
    crossfit_missing: str | None

    @property
    def numeric(self) -> bool:
        """Whether the target is a number."""
        return self.originals.edges is not None


def _nothing(done: int, of_all: int) -> None:
    """Show no progress."""


def prepare_check(
    release: Release,
    backbone: Backbone,
    pictures: Pictures | None,
    checks: Path,
    *,
    why_none: str = "the source pictures are not at hand",
    workers: int = 1,
    progress: Progress | None = None,
) -> Prepared:
    """Plan every fold and compute the features of all pictures that any of them needs.

    Without `pictures` there is only the held-out score; `why_none` is the reason given. Features are kept in
    `checks/.features`.

    Raises:
        IntegrityError: the release breaks its promises (lineage), or a picture is not the recorded one.
        InputError: there is nothing to train on, or no split to score without the source pictures.
    """
    require_sound(release)
    recipe = parse_recipe(release.recipe_document, str(release.path / "recipe.yaml"))
    originals = find_originals(release, recipe)
    n_groups = len(set(pc.filter(originals.table["group_id"], pa.array(originals.own)).to_pylist()))
    if pictures and n_groups < 2:
        pictures, why_none = None, f"there is {n_groups} group of pictures; two at least make folds"
    folds = fold_originals(originals, recipe.seed) if pictures else None
    plain = originals.plain()
    plans = [plan_fold(originals, np.asarray(folds != each), recipe) for each in _numbers(folds)]
    cache = FeatureCache(checks / CACHE, backbone)
    wanted = [*plans, plain] if pictures else []
    bank = fill_bank(
        release, originals, wanted, recipe, backbone, cache, pictures, workers, progress or _nothing
    )
    y = _targets(originals, recipe)
    heldout = _heldout(release, originals, bank, y, plain if pictures else None)
    crossfit = [
        _fold(bank, plan, plain, originals, y, folds, each)
        for plan, each in zip(plans, _numbers(folds), strict=True)
    ]
    if not heldout and not crossfit:
        raise InputError(
            f"nothing to score: the release has no test split, and {why_none}",
            where=str(release.path),
            fix="--root SOURCE=PATH says where the source pictures are",
        )
    missing = None if pictures else why_none
    return Prepared(release, recipe, backbone, originals, bank, folds, heldout, crossfit, missing)


def _numbers(folds: np.ndarray | None) -> list[int]:
    return [] if folds is None else [int(each) for each in np.unique(folds) if each >= 0]


def _targets(originals: Originals, recipe: Recipe) -> np.ndarray:
    if originals.edges is None:
        return np.zeros(len(originals.table))
    return np.asarray(originals.table[recipe.target].to_numpy(), float)


def _heldout(
    release: Release, originals: Originals, bank: Bank, y: np.ndarray, plain: pa.Table | None
) -> Split | None:
    """Return the release's own train and test split; None without one."""
    train, test = release.split("train"), release.split("test")
    if not len(train) or not len(test):
        return None
    own = originals.table["image_id"].filter(pa.array(originals.own))
    base = release.table.filter(pc.equal(release.table["copy"], 0)) if plain is None else plain
    base = base.filter(pc.and_(pc.equal(base["split"], "train"), pc.is_in(base["image_id"], own)))
    arms = {"release": bank.rows(train, y), "originals": bank.rows(base, y).unweighted()}
    return arms, bank.rows(test, y)


def _fold(
    bank: Bank,
    plan: pa.Table,
    plain: pa.Table,
    originals: Originals,
    y: np.ndarray,
    folds: np.ndarray | None,
    number: int,
) -> Split:
    scored = np.asarray(folds == number)
    rest = plain.filter(pa.array(originals.own & ~scored))
    arms = {"release": bank.rows(plan, y), "originals": bank.rows(rest, y).unweighted()}
    return arms, bank.rows(plain.filter(pa.array(scored)), y)
