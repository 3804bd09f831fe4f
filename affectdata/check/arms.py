"""Arms: the rows that a model is trained on, to tell what levelling earns from what comes with it.

release     the recipe, planned on the training images
originals   the same images, unbalanced
even        the originals, and as many copies as the release has, spread evenly over them
duplicates  the originals, each as heavy as its rows in the release: levelled, without augmentation
weights     the originals, weighted by the inverse of their cell: what `weights: {by: inverse}` does
with:NAME   the originals, and images of another manifest that fill the thin bins

`stretched` is no training: what `originals` says, stretched around its mean to the spread of what `release`
says. It is what a louder model gains without knowing more.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.plan.plan import sample_ids
from affectdata.plan.weights import row_weights
from affectdata.recipe.recipe import Recipe, Weights
from affectdata.schema import PLAN
from affectdata.splits.seeds import copy_seeds, id_heads, id_keys, id_ranks

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
    # A learner takes no weight of 0; a row of this weight has no effect.
    return np.array([counts[each] or 1e-9 for each in originals["image_id"].to_pylist()], float)


def spread_evenly(
    image_ids: pa.ChunkedArray, subtypes: pa.ChunkedArray, n_rows: int, recipe: Recipe
) -> pa.Table:
    """Return originals with copies up to `n_rows` rows; odd ones go to the smallest ranks, as in a plan."""
    n = len(image_ids)
    n_copies, n_odd = divmod(max(0, n_rows - n), max(1, n))
    odd = np.argsort(id_ranks(recipe.seed, id_keys(id_heads(image_ids))))[:n_odd]
    rows = np.concatenate([np.tile(np.arange(n), n_copies + 1), np.sort(odd)])
    copies = np.arange(len(rows)) // max(1, n)
    rules = [recipe.rule_for(each) for each in subtypes.to_pylist()]
    pipelines = np.array([rule.pipeline if rule else "" for rule in rules], object)[rows]
    return draw(image_ids.take(pa.array(rows)), np.where(copies, pipelines, ""), copies, recipe.seed)


def draw(
    image_ids: pa.Array | pa.ChunkedArray, pipelines: np.ndarray | str, copies: np.ndarray | int, seed: int
) -> pa.Table:
    """Return plan rows of some images: these copies by these pipelines; 0 and "" is as they are."""
    heads = id_heads(image_ids)
    copies = np.broadcast_to(np.asarray(copies, np.int32), len(heads))
    columns = {
        "sample_id": sample_ids(heads, copies),
        "image_id": image_ids,
        "split": pa.repeat("train", len(heads)),
        "cell": pa.repeat("", len(heads)),
        "copy": copies,
        "pipeline": np.broadcast_to(np.asarray(pipelines, object), len(heads)),
        "seed": copy_seeds(seed, id_keys(heads), copies),
        "weight": np.ones(len(heads)),
    }
    return pa.table([columns[name] for name in PLAN.names], schema=PLAN)


def stretch(originals: np.ndarray, release: np.ndarray) -> np.ndarray:
    """Stretch what one arm says around its mean to the spread of what another says; no label is looked at."""
    spread = originals.std()
    factor = release.std() / spread if spread > 0 else 1.0
    return np.asarray(originals.mean() + factor * (originals - originals.mean()))
