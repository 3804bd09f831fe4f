"""Probe images: test originals passed through each pipeline, or one transform, to measure prediction shift.

They are not scored. The shift shows whether a model reacts to the look of copies, and how each transform
changes the predicted affect.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from affectdata.check.arms import Arms, plan_copies
from affectdata.check.image_pool import Originals
from affectdata.hashing import hash_ranks
from affectdata.recipe.recipe import Recipe
from affectdata.recipe.transforms import Step
from affectdata.release.release import Release

DRAW, EFFECT, FLIP = "draw:", "effect:", "effect:flip"
_MOST_DRAWN = 800  # images passed through each pipeline
_MOST_EFFECTS = 120  # images passed through each single transform


def plan_probes(originals: Originals, release: Release, recipe: Recipe) -> Arms:
    """Return the plans of the probe images: one copy by every pipeline, and one by each single transform."""
    own = _level_sample(originals, originals.own, _MOST_DRAWN)
    used = sorted(set(release.table["pipeline"].unique().to_pylist()) - {""})
    probes = {DRAW + name: (name, own) for name in used}
    for name, step in _steps(recipe).items():
        probes[name] = name, _level_sample(originals, _rows_through(step, originals, recipe), _MOST_EFFECTS)
    flipped = {image_id for name in probes if name.startswith(EFFECT) for image_id in probes[name][1]}
    probes[FLIP] = FLIP, sorted(flipped)
    return {
        plan: plan_copies(pa.array(image_ids), pipeline, 1, recipe.seed)
        for plan, (pipeline, image_ids) in probes.items()
        if image_ids
    }


def _rows_through(step: Step, originals: Originals, recipe: Recipe) -> np.ndarray:
    """Return which own images have a pipeline with this transform, as booleans."""
    pipelines = {name for name, steps in recipe.pipelines.items() if step in map(_always, steps)}
    subtypes = originals.column("subtype")
    rules = {subtype: recipe.rule_for(subtype or None) for subtype in set(subtypes.tolist())}
    matching = [subtype for subtype, rule in rules.items() if rule and rule.pipeline in pipelines]
    return np.asarray(originals.own & np.isin(subtypes, matching))


def _always(step: Step) -> Step:
    """Return a step with probability 1."""
    return {name: {**arguments, "p": 1.0} for name, arguments in step.items()}


def _steps(recipe: Recipe) -> dict[str, Step]:
    """Return every transform of the recipe once, by the name of its effect."""
    by_name: dict[str, Step] = {}
    for steps in recipe.pipelines.values():
        for step in map(_always, steps):
            if step not in by_name.values() and "HorizontalFlip" not in step:
                name = EFFECT + next(iter(step))
                by_name[name if name not in by_name else f"{name} {len(by_name)}"] = step
    return by_name


def with_effects(recipe: Recipe) -> Recipe:
    """Return the recipe with a pipeline for each single transform."""
    single = {name: [step] for name, step in _steps(recipe).items()}
    pipelines = {**recipe.pipelines, **single, FLIP: [{"HorizontalFlip": {"p": 1.0}}]}
    return recipe.model_copy(update={"pipelines": pipelines})


def _level_sample(originals: Originals, rows: np.ndarray, most: int) -> list[str]:
    """Return up to `most` image ids, sorted: taken from every bin in turn, in the order of their hash."""
    index = np.flatnonzero(rows)
    image_ids = originals.column("image_id")[index]
    rank = np.argsort(np.argsort(hash_ranks(originals.seed, image_ids.tolist())))
    order = np.lexsort((rank, originals.bin[index]))
    bins = originals.bin[index][order]
    turn = np.arange(len(index)) - np.searchsorted(bins, bins)
    return sorted(image_ids[order[np.lexsort((bins, turn))][:most]].tolist())
