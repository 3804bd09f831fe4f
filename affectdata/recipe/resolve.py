"""Resolve a recipe against its manifests.

In: a recipe and manifests. Out: the recipe with subtype codes in place of names, and `source` as a stratum if
there are several sources. A recipe that does not match the manifests is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

from affectdata.errors import RecipeError
from affectdata.manifest.manifest import Manifest
from affectdata.recipe.recipe import DEFAULT, Recipe
from affectdata.recipe.transforms import find_inverting_steps
from affectdata.registry import suggest
from affectdata.store.parquet import distinct


def check_subtypes(recipe: Recipe, manifests: Sequence[Manifest]) -> None:
    """Validate that every subtype of the recipe is in the manifests or the data sheets of their sources.

    Raises:
        RecipeError: lists the unknown and the known subtypes.
    """
    known = {code for manifest in manifests for code in manifest.metadata["subtypes"]}
    for manifest in manifests:
        known |= set(distinct(manifest.rows, "subtype"))
    unknown = sorted(set(recipe.subtypes) - known - {DEFAULT})
    if unknown:
        available = sorted(known)
        raise RecipeError(
            f"no image has the subtype {', '.join(map(repr, unknown))}",
            where="subtypes",
            fix=f"{suggest(unknown[0], available)}known subtypes: {', '.join(available) or 'none'}",
        )


def resolve_subtypes(recipe: Recipe, manifests: Sequence[Manifest]) -> Recipe:
    """Return the recipe with the data sheets' long subtype names ("snakes") replaced by their codes.

    Raises:
        RecipeError: a subtype is given twice, by code and by name.
    """
    codes = {
        subtype["name"]: code
        for manifest in manifests
        for code, subtype in manifest.metadata["subtypes"].items()
    }
    resolved = {codes.get(name, name): rule for name, rule in recipe.subtypes.items()}
    if len(resolved) < len(recipe.subtypes):
        raise RecipeError("a subtype is given twice, by its code and by its name", where="subtypes")
    return recipe.model_copy(update={"subtypes": resolved})


def resolve_strata(recipe: Recipe, manifests: Sequence[Manifest]) -> Recipe:
    """Return the recipe with `source` as its first stratum if there are several sources.

    Ratings on one scale have comparable units, but not the same meaning in every source. A recipe that uses
    `source` itself, or sets `strata: []`, is returned unchanged.
    """
    sources = {source for manifest in manifests for source in manifest.sources}
    pooled = not recipe.strata and "strata" in recipe.model_fields_set
    if len(sources) < 2 or pooled or "source" in (recipe.target, *recipe.strata_bins):
        return recipe
    return recipe.model_copy(update={"strata": ["source", *recipe.strata]})


def upright_subtypes(manifests: Sequence[Manifest]) -> dict[str, bool]:
    """Return per subtype whether its images must stay upright, by the data sheet of any source."""
    upright: dict[str, bool] = {}
    for manifest in manifests:
        for code, subtype in manifest.metadata["subtypes"].items():
            upright[code] = upright.get(code, False) or subtype["upright"]
    return upright


def check_upright(recipe: Recipe, upright: dict[str, bool]) -> None:
    """Validate that no pipeline turns images upside down that must stay upright.

    `upright` comes from the data sheets (`upright_subtypes`); a subtype that it lacks counts as upright.

    Raises:
        RecipeError: lists subtype, pipeline and step.
    """
    problems = []
    for subtype in sorted({*recipe.subtypes, *upright}):
        rule = recipe.rule_for(subtype)
        if rule is None:
            continue
        must_stay = rule.upright if rule.upright is not None else upright.get(subtype, True)
        steps = find_inverting_steps(recipe.pipelines[rule.pipeline])
        if must_stay and steps:
            problems.append(f"{subtype}: pipeline {rule.pipeline} turns it upside down ({', '.join(steps)})")
    if problems:
        raise RecipeError(
            "images that must stay upright would be turned upside down:\n  " + "\n  ".join(problems),
            where="subtypes",
            fix="use a pipeline without these steps, or set `upright: false` for subtypes without an up side",
        )
