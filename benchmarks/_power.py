"""Kept features of real images for check_power.py: every original, and its copies by the recipe.

A data set is ingested, balanced without writing images, and passed through the backbone once; a second run
reads the features from the folder of kept ones.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.svm import SVR

from affectdata import api
from affectdata.check import metrics
from affectdata.check.arms import EVEN, ORIGINALS, spread_evenly
from affectdata.check.blocks import Interval
from affectdata.check.image_pool import (
    Originals,
    fill_image_pool,
    find_originals,
    plan_image_pool,
    replan,
)
from affectdata.check.influence import grouped_variance, influence_ccc, influence_r2, pooled_interval
from affectdata.check.label_rules import folders_in_order, move_ratings, permute_within
from affectdata.check.prepare import CACHE
from affectdata.config import read_yaml
from affectdata.recipe.recipe import Recipe, parse_recipe
from affectdata.splits.folds import deal_folds
from affectdata.store.atomic import write_json
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.features import FeatureCache
from affectdata.train.heads import N_FOLDS
from affectdata.train.rows import Rows

_C, _GAMMA = 100.0, 0.5  # gamma in units of 1 / number of features
RECIPE = Path(__file__).parents[1] / "recipes" / "valence_bins.yaml"


@dataclass(frozen=True, eq=False)
class KeptFeatures:
    """A data set's originals, and the features of these and of some copies of each, image by image."""

    name: str
    backbone: Backbone
    originals: Originals
    recipe: Recipe
    rows: Rows

    @cached_property
    def plain(self) -> Rows:
        """The originals alone, in the order of the manifest."""
        return self.rows.take(self.rows.copy == 0)

    def with_copies(self, train: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> Rows:
        """Return originals with so many copies each, drawn from the kept ones of their image."""
        chosen = [self._of[row][:1] for row in train]
        chosen += [rng.choice(self._of[row][1:], n) for row, n in zip(train, copies, strict=True) if n]
        return self._light.take(np.concatenate(chosen))

    @cached_property
    def kernel(self) -> np.ndarray:
        """The kernel of all kept images, by their place in the pool; standardised by the originals."""
        plain, order = self.plain.features, np.argsort(self.rows.pool_index)
        scaled = (self.rows.features[order] - plain.mean(0)) / np.maximum(plain.std(0), 1e-9)
        squares = (scaled**2).sum(1)[:, None] + (scaled**2).sum(1) - 2 * scaled @ scaled.T
        return np.asarray(np.exp(-_GAMMA / scaled.shape[1] * np.maximum(squares, 0)))

    @cached_property
    def pool_features(self) -> np.ndarray:
        """The features of all kept images, by their place in the pool."""
        return np.asarray(self.rows.features[np.argsort(self.rows.pool_index)])

    @cached_property
    def _light(self) -> Rows:
        """The rows without features, which the kernel stands for."""
        return replace(self.rows, features=np.empty((len(self.rows), 0)))

    @cached_property
    def _of(self) -> list[np.ndarray]:
        """The kept rows of each original, itself first."""
        image = self.originals.find(self.rows.image_id)
        return np.split(np.arange(len(image)), np.flatnonzero(np.diff(image)) + 1)

    @cached_property
    def path(self) -> np.ndarray:
        """The path of each original."""
        return self.originals.column("path")


def keep_features(
    name: str, root: Path, folder: Path, backbone: str, weights: str, *, copies: bool = True
) -> KeptFeatures:
    """Return the features of a data set (`name`: gaped or oasis), computed now if they are not kept."""
    manifest = api.ingest(root, out=folder / "manifests").manifest
    document = {**read_yaml(RECIPE), "name": f"power_{name}", "sources": [name], "mode": "virtual"}
    if name == "oasis":
        document["subtypes"] = {"default": {"pipeline": "upright"}}
    recipe, recipe_path = parse_recipe(document), folder / f"power_{name}.yaml"
    write_json(recipe_path, document)  # JSON is YAML
    release = api.balance(recipe_path, manifest=[manifest.path], out=folder / "releases").release
    network = load_backbone(backbone, weights, "cpu")
    originals = find_originals(release, recipe)
    everything = np.ones(len(originals.table), bool)
    planned = replan(originals, everything, recipe)  # as many copies as levelling all originals takes
    even = spread_evenly(originals.table["image_id"], originals.table["subtype"], 2 * len(everything), recipe)
    plans = [originals.plain(everything), *([planned, even] if copies else [])]
    pool = plan_image_pool(release, originals, plans, recipe, manifest.images())
    cache = FeatureCache(folder / CACHE, network)
    pool = fill_image_pool(pool, network, cache, 2, _progress)
    kept = pool.wanted
    rows = pool.rows(kept)
    order = np.lexsort((rows.copy, originals.find(rows.image_id)))
    return KeptFeatures(name, network, originals, recipe, rows.take(order))


def _progress(done: int, of: int) -> None:
    if done % 512 == 0 or done == of:
        print(f"features: {done} of {of}", flush=True)


CLEAN = "clean"
LABEL_FAULTS = (
    *(f"{share} % shuffled" for share in (5, 10, 25, 50, 100)),
    "shuffled inside subtypes",
    *(f"every folder {offset:+d} rows off" for offset in (1, 2)),
    "one folder +1 rows off",
    *(f"a line lost at {share} %" for share in (25, 50, 75)),
    *(f"two subtypes {share} % exchanged" for share in (20, 50, 100)),
    *(f"one subtype {points:+d}" for points in (5, 10)),
    "reversed",
    *(f"{share} % single errors" for share in (2, 5)),
)
PAIR_FAULTS = (
    *(f"copies' labels {points:+d}" for points in (5, 10, 20)),
    *(f"copies' labels {share} % shuffled" for share in (25, 50)),
    *(f"copies' labels stretched by {share} %" for share in (15, 30)),
    "noise of SD 15 on copies' labels",
)


def plant_in_labels(fault: str, rows: Rows, paths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the ratings with a fault of `LABEL_FAULTS`."""
    number = abs(int(re.sub(r"[^-\d]", "", fault) or 0))
    target = rows.target.copy()
    if fault.endswith("% shuffled"):
        return _shuffle(target, number / 100, rng)
    if fault == "shuffled inside subtypes":
        return permute_within(target, rows.subtype, 1, int(rng.integers(1 << 30)))[:, 0]
    if "rows off" in fault:
        folders = folders_in_order(paths)
        moved = folders if fault.startswith("every") else [folders[int(rng.integers(len(folders)))]]
        return move_ratings(target, moved, number)
    if "line lost" in fault:
        place, folders = np.zeros(len(target)), folders_in_order(paths)
        for inside in folders:
            place[inside] = np.arange(len(inside)) / len(inside)
        return np.where(place >= number / 100, move_ratings(target, folders, -1), target)
    if "exchanged" in fault:
        return _exchange(target, rows.subtype, number / 100, rng)
    if fault.startswith("one subtype"):
        subtype = rng.choice(np.unique(rows.subtype))
        return np.clip(target + np.where(rows.subtype == subtype, number, 0), 0, 100)
    if fault == "reversed":
        return 100 - target
    wrong = rng.random(len(target)) < number / 100
    return np.where(wrong, rng.permutation(target), target)


def _shuffle(target: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    chosen = np.flatnonzero(rng.random(len(target)) < share)
    shuffled = target.copy()
    shuffled[chosen] = target[rng.permutation(chosen)]
    return shuffled


def _exchange(target: np.ndarray, subtypes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Exchange ratings between the subtype of the highest mean and a random other one."""
    names = np.unique(subtypes)
    first = names[np.argmax([target[subtypes == name].mean() for name in names])]
    second = rng.choice(names[names != first])
    sides = [rng.permutation(np.flatnonzero(subtypes == name)) for name in (first, second)]
    n = round(share * min(len(side) for side in sides))
    left, right = (side[:n] for side in sides)
    exchanged = target.copy()
    exchanged[left], exchanged[right] = target[right], target[left]
    return exchanged


def plant_in_copies(fault: str, rows: Rows, rng: np.random.Generator) -> np.ndarray:
    """Return the labels of train rows with a fault of `PAIR_FAULTS` in those of copies."""
    number, copy = int(re.sub(r"[^\d]", "", fault)), rows.copy > 0
    target = rows.target.copy()
    if "shuffled" in fault:
        target[copy] = _shuffle(target[copy], number / 100, rng)
    elif "stretched" in fault:
        target[copy] = 50 + (1 + number / 100) * (target[copy] - 50)
    else:
        target[copy] += rng.normal(0, number, copy.sum()) if "noise" in fault else number
    return np.clip(target, 0, 100)


Pair = tuple[str, str]  # baseline, measure


def compare_arms(kept: KeptFeatures, seed: int) -> dict[str, dict[Pair, Interval]]:
    """Train release, originals and even copies on two assignments to folds, as train-check does.

    Returns the differences as they are ("clean"), and with each of `PAIR_FAULTS` in the labels of copies of
    the release; the two baselines are the same. A recipe seed decides folds and copies. The SVR has fixed
    settings, near those that the inner search chooses, and features standardised once. Copies are drawn from
    the kept ones of their image.
    """
    estimates: dict[str, dict[Pair, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    originals, own, rng = kept.originals, kept.plain, np.random.default_rng([3, seed])
    recipe, cases = kept.recipe.model_copy(update={"seed": seed}), (CLEAN, *PAIR_FAULTS)
    for assignment in range(2):
        fold = deal_folds(own.group, [own.stratum], seed + assignment, N_FOLDS)
        predicted = {arm: np.zeros(len(own)) for arm in (*cases, ORIGINALS, EVEN)}
        for number in range(N_FOLDS):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            planned = replan(originals, fold != number, recipe)
            copies = Counter(planned["image_id"].to_pylist())
            released = np.array([copies[image_id] - 1 for image_id in own.image_id[train].tolist()])
            n_even, rest = divmod(int(released.sum()), len(train))
            even = n_even + (rng.permutation(len(train)) < rest)
            scored = kept.with_copies(test, np.zeros(len(test), int), rng)
            rows = kept.with_copies(train, released, rng)
            targets = {CLEAN: rows.target} | {
                fault: plant_in_copies(fault, rows, rng) for fault in PAIR_FAULTS
            }
            found = _fit_predict(kept.kernel, rows, {CLEAN: rows.target, **targets}, scored)
            for arm, plan in ((ORIGINALS, np.zeros(len(train), int)), (EVEN, even)):
                rows = kept.with_copies(train, plan, rng)
                found |= _fit_predict(kept.kernel, rows, {arm: rows.target}, scored)
            for arm, values in found.items():
                predicted[arm][test] = values
        for case in cases:
            for baseline in (ORIGINALS, EVEN):
                for measure in ("r2", "ccc"):
                    estimate = _estimate(own, predicted[case], predicted[baseline], measure)
                    estimates[case][baseline, measure].append(estimate)
    return {
        case: {key: pooled_interval(values) for key, values in found.items()}
        for case, found in estimates.items()
    }


def _fit_predict(
    kernel: np.ndarray, rows: Rows, targets: dict[str, np.ndarray], test: Rows
) -> dict[str, np.ndarray]:
    inside = kernel[np.ix_(rows.pool_index, rows.pool_index)]
    outside = kernel[np.ix_(test.pool_index, rows.pool_index)]
    model = SVR(kernel="precomputed", C=_C, epsilon=3.0, tol=1e-2)
    return {name: model.fit(inside, target).predict(outside) for name, target in targets.items()}


def _estimate(own: Rows, left: np.ndarray, right: np.ndarray, measure: str) -> tuple[float, float]:
    influence = {"r2": influence_r2, "ccc": influence_ccc}[measure]
    score = getattr(metrics, measure)
    values = influence(own.target, left) - influence(own.target, right)
    return score(own.target, left) - score(own.target, right), grouped_variance(values, own.group)
