"""Kept features of real images for check_power.py: every original, and its copies by the recipe.

A data set is ingested, balanced without writing images, and passed through the backbone once; a second run
reads the features from the folder of kept ones. Also what the parts of check_power.py share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from affectdata import api
from affectdata.check.arms import spread_evenly
from affectdata.check.image_pool import (
    Originals,
    fill_image_pool,
    find_originals,
    plan_image_pool,
    replan,
)
from affectdata.check.prepare import CACHE
from affectdata.config import read_yaml
from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import Recipe, parse_recipe
from affectdata.release.release import Release
from affectdata.store.atomic import write_json
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.features import FeatureCache
from affectdata.train.rows import Rows

C, GAMMA = 100.0, 0.5  # of the SVR; gamma in units of 1 / number of features
RECIPE = Path(__file__).parents[1] / "recipes" / "valence_bins.yaml"
CLEAN = "clean"
Record = dict[str, Any]
Case = tuple[str, Record]
Tasks = dict[str, Callable[[], Iterator[Case]]]
Run = Callable[[Tasks], dict[str, list[Record]]]  # what was not run before; returns all records by case


@dataclass(frozen=True, eq=False)
class KeptFeatures:
    """A data set's originals, and the features of these and of some copies of each, image by image."""

    name: str
    backbone: Backbone
    originals: Originals
    recipe: Recipe
    rows: Rows
    release: Release
    images: Images
    folder: Path

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
        return np.asarray(np.exp(-GAMMA / scaled.shape[1] * np.maximum(squares, 0)))

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
    return KeptFeatures(
        name, network, originals, recipe, rows.take(order), release, manifest.images(), folder
    )


def _progress(done: int, of: int) -> None:
    if done % 512 == 0 or done == of:
        print(f"features: {done} of {of}", flush=True)


def share_text(value: float | None) -> str:
    """Format a share of runs; None if it was not measured."""
    if value is None:
        return "–"
    return f"{value:.2f}".lstrip("0") if 0 < value < 1 else f"{value:.0f}"


def outcome_share(outcomes: Iterable[Mapping[str, str]], rule: str, outcome: str = "fail") -> float | None:
    """Return the share of runs in which a rule has an outcome; None if some run did not measure it."""
    found = [by_rule.get(rule) for by_rule in outcomes]
    return None if None in found else float(np.mean([each == outcome for each in found]))


def range_text(values: Sequence[float], centre: Callable[[Sequence[float]], Any] = np.mean) -> str:
    """Format the mean (or another centre) of the figures of runs, with the least and the largest."""
    return f"{centre(values):.3g} ({np.min(values):.3g} to {np.max(values):.3g})" if len(values) else "–"


def spread_text(values: np.ndarray) -> str:
    """Format the mean and the standard deviation of differences."""
    return f"{values.mean():+.4f} (SD {values.std():.4f})"
