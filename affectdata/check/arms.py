"""Arms: the training sets to compare, which separate the effect of balancing from its side effects.

release     the recipe, planned on the training images
originals   the same images, unbalanced
even        the originals, and as many copies as the release has, spread evenly over them
duplicates  the originals, each weighted by its rows in the release: balanced, without augmentation
weights     the originals, weighted by the inverse size of their cell, as by `weights: {by: inverse}`
with:NAME   the originals, and images of another manifest that fill the thin bins

`stretched` is not trained: the predictions of `originals`, scaled around their mean to the SD of those of
`release`. It shows what a larger spread alone gains.

Arms of another head or output, on the originals, are in `subtype_aware` and `outputs`, those of other
features in `networks`.
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
SUBTYPE_AWARE, SUBTYPE_SHUFFLED, SUBTYPE_CLUSTERS = "subtype_aware", "subtype_shuffled", "subtype_clusters"
SUBTYPE_ALONE, SUBTYPE_ORACLE = "subtype_alone", "subtype_oracle"
FIRST_NETWORK, SHUFFLED_NETWORK = "first_network", "shuffled_network"
PLAIN = "plain"  # the head that every arm has: an SVR
CALIBRATED, WIDENED, STACKED, UNSTACKED = "calibrated", "widened", "stacked:", "unstacked:"
Arms = dict[str, pa.Table]


def make_arms(release: pa.Table, originals: pa.Table, cells: tuple[np.ndarray, np.ndarray]) -> Arms:
    """Return the plans of all arms but `even`, from a release's train rows and its unchanged originals.

    `cells` are the bin codes and the cell codes of the originals.
    """
    arms = {RELEASE: release, ORIGINALS: _weighted(originals, np.ones(len(originals)))}
    if has_copies(release):
        arms[DUPLICATES] = _weighted(originals, _released_weights(release, originals))
    bins, cell = cells
    weight = row_weights(bins, cell, int(bins.max(initial=0)) + 1, Weights(by="inverse"))
    return {**arms, WEIGHTS: _weighted(originals, weight)}


def has_copies(plan: pa.Table) -> bool:
    """Return whether any row is a copy."""
    return bool(pc.any(pc.greater(plan["copy"], 0)).as_py())


def _weighted(plan: pa.Table, weight: np.ndarray) -> pa.Table:
    return plan.set_column(plan.column_names.index("weight"), PLAN.field("weight"), pa.array(weight))


def _released_weights(release: pa.Table, originals: pa.Table) -> np.ndarray:
    """Return the total weight of each original's rows in the release; about 0 for one that was left out."""
    counts: Counter[str] = Counter()
    for image_id, weight in zip(release["image_id"].to_pylist(), release["weight"].to_pylist(), strict=True):
        counts[image_id] += weight
    # A learner rejects a weight of 0; a row of this weight has no effect.
    return np.array([counts[image_id] or 1e-9 for image_id in originals["image_id"].to_pylist()], float)


def spread_evenly(
    image_ids: pa.ChunkedArray, subtypes: pa.ChunkedArray, n_rows: int, recipe: Recipe
) -> pa.Table:
    """Return originals with copies, `n_rows` in all; extra copies go to the smallest ranks, as in a plan."""
    n = len(image_ids)
    n_copies, n_extra = divmod(max(0, n_rows - n), max(1, n))
    extra = np.argsort(id_ranks(recipe.seed, id_keys(id_heads(image_ids))))[:n_extra]
    rows = np.concatenate([np.tile(np.arange(n), n_copies + 1), np.sort(extra)])
    copies = np.arange(len(rows)) // max(1, n)
    rules = [recipe.rule_for(subtype) for subtype in subtypes.to_pylist()]
    pipelines = np.array([rule.pipeline if rule else "" for rule in rules], object)[rows]
    return plan_copies(image_ids.take(pa.array(rows)), np.where(copies, pipelines, ""), copies, recipe.seed)


def plan_copies(
    image_ids: pa.Array | pa.ChunkedArray, pipelines: np.ndarray | str, copies: np.ndarray | int, seed: int
) -> pa.Table:
    """Return train rows of a plan: the given copy of each image by a pipeline; 0 and "" is the original."""
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
    """Scale the originals' predictions around their mean to the SD of the release's; no label is used."""
    sd = originals.std()
    factor = release.std() / sd if sd > 0 else 1.0
    return np.asarray(originals.mean() + factor * (originals - originals.mean()))
