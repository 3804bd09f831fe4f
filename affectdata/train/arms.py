"""Arms: the rows that a model is trained on, to tell what levelling earns from what comes with it.

release     the recipe, planned on the training pictures
originals   the same pictures, unbalanced
even        the originals, and as many copies as the release has, spread evenly over them
duplicates  the originals, each as heavy as its rows in the release: levelled, without augmentation
weights     the originals, weighted by the inverse of their cell: what `weights: {by: inverse}` does
with:NAME   the originals, and pictures of another manifest that fill the thin bins

`stretched` is no training: what `originals` says, stretched around its mean to the spread of what `release`
says. It is what a louder model gains without knowing more.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.balance.recipe import Recipe, Weights
from affectdata.balance.weights import row_weights
from affectdata.hashing import hash_ranks
from affectdata.plan import copy_seed, sample_id
from affectdata.schema import PLAN

RELEASE, ORIGINALS, EVEN, DUPLICATES, WEIGHTS = "release", "originals", "even", "duplicates", "weights"
STRETCHED, WITH = "stretched", "with:"
MEAN, SUBTYPE_MEAN = "mean", "subtype_mean"
Arms = dict[str, pa.Table]


def make_arms(release: pa.Table, originals: pa.Table, cells: tuple[np.ndarray, np.ndarray]) -> Arms:
    """Return the plans of the arms but `even`: from a release's train rows and its originals, as they are.

    `cells` are the bin and the cell of each of the originals.
    """
    arms = {RELEASE: release, ORIGINALS: _weighted(originals, np.ones(len(originals)))}
    if has_copies(release):
        arms[DUPLICATES] = _weighted(originals, _rows_of_each(release, originals))
    bins, cell = cells
    weights = row_weights(bins, cell, int(bins.max(initial=0)) + 1, Weights(by="inverse"))
    return {**arms, WEIGHTS: _weighted(originals, weights)}


def has_copies(plan: pa.Table) -> bool:
    """Whether some row is a copy."""
    return bool(pc.any(pc.greater(plan["copy"], 0)).as_py())


def _weighted(plan: pa.Table, weight: np.ndarray) -> pa.Table:
    return plan.set_column(plan.column_names.index("weight"), PLAN.field("weight"), pa.array(weight))


def _rows_of_each(release: pa.Table, originals: pa.Table) -> np.ndarray:
    """Return how much each original's rows weigh in the release; one that was left out weighs nothing."""
    counts: Counter[str] = Counter()
    for image_id, weight in zip(release["image_id"].to_pylist(), release["weight"].to_pylist(), strict=True):
        counts[image_id] += weight
    # A learner takes no weight of 0; a row of this weight has no say.
    return np.array([counts[each] or 1e-9 for each in originals["image_id"].to_pylist()], float)


def spread_evenly(originals: pa.Table, subtypes: list[str | None], n_rows: int, recipe: Recipe) -> pa.Table:
    """Return the originals with copies up to `n_rows` rows; odd ones go to the smallest hashes."""
    n_copies, n_odd = divmod(max(0, n_rows - len(originals)), max(1, len(originals)))
    image_ids = originals["image_id"].to_pylist()
    ranks = np.argsort(np.argsort(hash_ranks(recipe.seed, image_ids)))
    parts = [_weighted(originals, np.ones(len(originals)))]
    for copy in range(1, n_copies + 2):
        chosen = np.flatnonzero(ranks < n_odd) if copy == n_copies + 1 else np.arange(len(originals))
        pipelines = [_pipeline_of(subtypes[row], recipe) for row in chosen]
        parts.append(draw_copies(originals.take(pa.array(chosen)), pipelines, copy, recipe))
    return pa.concat_tables(parts)


def _pipeline_of(subtype: str | None, recipe: Recipe) -> str:
    rule = recipe.rule_for(subtype)
    return rule.pipeline if rule else ""


def draw_copies(originals: pa.Table, pipelines: list[str], copy: int, recipe: Recipe) -> pa.Table:
    """Return plan rows of copy number `copy` of some originals, each by its pipeline."""
    image_ids = originals["image_id"].to_pylist()
    drawn = {
        **{name: originals[name] for name in PLAN.names},
        "sample_id": [sample_id(each, copy) for each in image_ids],
        "copy": [copy] * len(image_ids),
        "pipeline": pipelines,
        "seed": [copy_seed(recipe.seed, each, copy) for each in image_ids],
        "weight": [1.0] * len(image_ids),
    }
    return pa.table([drawn[name] for name in PLAN.names], schema=PLAN)


def stretch(originals: np.ndarray, release: np.ndarray) -> np.ndarray:
    """Stretch what one arm says around its mean to the spread of what another says; no label is looked at."""
    spread = originals.std()
    factor = release.std() / spread if spread > 0 else 1.0
    return np.asarray(originals.mean() + factor * (originals - originals.mean()))
