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
from collections.abc import Sequence

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
    weight = row_weights(bins, cell, int(bins.max(initial=0)) + 1, Weights(by="inverse"))
    return {**arms, WEIGHTS: _weighted(originals, weight)}


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


def spread_evenly(image_ids: list[str], subtypes: list[str | None], n_rows: int, recipe: Recipe) -> pa.Table:
    """Return originals with copies up to `n_rows` rows; odd ones go to the smallest hashes."""
    n_copies, n_odd = divmod(max(0, n_rows - len(image_ids)), max(1, len(image_ids)))
    ranks = np.argsort(np.argsort(hash_ranks(recipe.seed, image_ids)))
    rules = [recipe.rule_for(each) for each in subtypes]
    parts = [draw(image_ids, [""] * len(image_ids), 0, recipe.seed)]
    for copy in range(1, n_copies + 2):
        rows = np.flatnonzero(ranks < n_odd) if copy == n_copies + 1 else np.arange(len(image_ids))
        pipelines = [rule.pipeline if rule else "" for rule in (rules[row] for row in rows)]
        parts.append(draw([image_ids[row] for row in rows], pipelines, copy, recipe.seed))
    return pa.concat_tables(parts)


def draw(image_ids: Sequence[str], pipelines: Sequence[str], copy: int, seed: int) -> pa.Table:
    """Return plan rows of some pictures: copy number `copy` by their pipelines; 0 and "" is as they are."""
    rows = {
        "sample_id": [sample_id(each, copy) for each in image_ids],
        "image_id": image_ids,
        "split": ["train"] * len(image_ids),
        "cell": [""] * len(image_ids),
        "copy": [copy] * len(image_ids),
        "pipeline": pipelines,
        "seed": [copy_seed(seed, each, copy) for each in image_ids],
        "weight": [1.0] * len(image_ids),
    }
    return pa.table([rows[name] for name in PLAN.names], schema=PLAN)


def stretch(originals: np.ndarray, release: np.ndarray) -> np.ndarray:
    """Stretch what one arm says around its mean to the spread of what another says; no label is looked at."""
    spread = originals.std()
    factor = release.std() / spread if spread > 0 else 1.0
    return np.asarray(originals.mean() + factor * (originals - originals.mean()))
