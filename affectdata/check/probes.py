"""Images that are asked about: test originals through a pipeline, or through one transform alone.

Nothing is scored on them. How far a prediction moves tells what a model makes of the look of copies, and what
each transform does to affect.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from affectdata.check.arms import Arms, draw
from affectdata.check.image_pool import Originals
from affectdata.hashing import hash_ranks
from affectdata.recipe.recipe import Recipe
from affectdata.recipe.transforms import Step
from affectdata.release.release import Release

DRAW, EFFECT, FLIP = "draw:", "effect:", "effect:flip"
_MOST_DRAWN = 800  # images that are sent through each pipeline
_MOST_EFFECTS = 120  # images that each single transform is tried on


def plan_probes(originals: Originals, release: Release, recipe: Recipe) -> Arms:
    """Return plans of images that are asked about: a draw of every pipeline, each transform on its own."""
    own = _level_sample(originals, originals.own, _MOST_DRAWN)
    used = sorted(set(release.table["pipeline"].unique().to_pylist()) - {""})
    probes = {DRAW + name: (name, own) for name in used}
    for name, step in _steps(recipe).items():
        probes[name] = name, _level_sample(originals, _rows_through(step, originals, recipe), _MOST_EFFECTS)
    tried = {each for name in probes if name.startswith(EFFECT) for each in probes[name][1]}
    probes[FLIP] = FLIP, sorted(tried)
    return {
        plan: draw(pa.array(image_ids), pipeline, 1, recipe.seed)
        for plan, (pipeline, image_ids) in probes.items()
        if image_ids
    }


def _rows_through(step: Step, originals: Originals, recipe: Recipe) -> np.ndarray:
    """Return the own images whose copies go through a transform."""
    pipelines = {name for name, steps in recipe.pipelines.items() if step in map(_always, steps)}
    subtypes = originals.column("subtype")
    rules = {each: recipe.rule_for(each or None) for each in set(subtypes.tolist())}
    through = [each for each, rule in rules.items() if rule and rule.pipeline in pipelines]
    return np.asarray(originals.own & np.isin(subtypes, through))


def _always(step: Step) -> Step:
    """Return a step as it is when it is applied for sure."""
    return {name: {**arguments, "p": 1.0} for name, arguments in step.items()}


def _steps(recipe: Recipe) -> dict[str, Step]:
    """Return every transform of the recipe once, by the name of its effect."""
    found: dict[str, Step] = {}
    for steps in recipe.pipelines.values():
        for step in map(_always, steps):
            if step not in found.values() and "HorizontalFlip" not in step:
                name = EFFECT + next(iter(step))
                found[name if name not in found else f"{name} {len(found)}"] = step
    return found


def with_effects(recipe: Recipe) -> Recipe:
    """Return the recipe with a pipeline for each single transform."""
    single = {name: [step] for name, step in _steps(recipe).items()}
    pipelines = {**recipe.pipelines, **single, FLIP: [{"HorizontalFlip": {"p": 1.0}}]}
    return recipe.model_copy(update={"pipelines": pipelines})


def _level_sample(originals: Originals, rows: np.ndarray, most: int) -> list[str]:
    """Return at most so many of the images, in the order of their ids: of every bin in turn, by hash."""
    at = np.flatnonzero(rows)
    image_ids = originals.column("image_id")[at]
    rank = np.argsort(np.argsort(hash_ranks(originals.seed, image_ids.tolist())))
    order = np.lexsort((rank, originals.bin[at]))
    bins = originals.bin[at][order]
    turn = np.arange(len(at)) - np.searchsorted(bins, bins)
    return sorted(image_ids[order[np.lexsort((bins, turn))][:most]].tolist())
