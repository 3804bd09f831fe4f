"""A recipe beside the manifests that it is for: names resolved, and what does not fit refused.

In: a recipe and manifests. Out: the recipe with the codes of subtypes, and `source` as a stratum of several.
"""

from __future__ import annotations

from collections.abc import Sequence

from affectdata.errors import RecipeError
from affectdata.manifest.manifest import Manifest
from affectdata.recipe.recipe import DEFAULT, Recipe
from affectdata.recipe.transforms import steps_that_overturn
from affectdata.registry import suggest
from affectdata.store.parquet import distinct


def check_subtypes(recipe: Recipe, manifests: Sequence[Manifest]) -> None:
    """Refuse rules for subtypes that neither the manifests nor the data sheets of their sources know.

    Raises:
        RecipeError: naming them, and those that there are.
    """
    known = {code for manifest in manifests for code in manifest.metadata["subtypes"]}
    for manifest in manifests:
        known |= set(distinct(manifest.rows, "subtype"))
    unknown = sorted(set(recipe.subtypes) - known - {DEFAULT})
    if unknown:
        there = sorted(known)
        raise RecipeError(
            f"no image has the subtype {', '.join(map(repr, unknown))}",
            where="subtypes",
            fix=f"{suggest(unknown[0], there)}subtypes of the manifests: {', '.join(there) or 'none'}",
        )


def resolve_subtypes(recipe: Recipe, manifests: Sequence[Manifest]) -> Recipe:
    """Return the recipe with the data sheets' long names of subtypes ("snakes") replaced by their codes.

    Raises:
        RecipeError: a subtype is named twice, by code and by name.
    """
    codes = {
        subtype["name"]: code
        for manifest in manifests
        for code, subtype in manifest.metadata["subtypes"].items()
    }
    resolved = {codes.get(name, name): rule for name, rule in recipe.subtypes.items()}
    if len(resolved) < len(recipe.subtypes):
        raise RecipeError("a subtype is there twice, by its code and by its name", where="subtypes")
    return recipe.model_copy(update={"subtypes": resolved})


def resolve_strata(recipe: Recipe, manifests: Sequence[Manifest]) -> Recipe:
    """Return the recipe with `source` as its first stratum, where the images are of several sources.

    Ratings on one scale are comparable in unit, not in meaning. A recipe that names `source` itself, or says
    `strata: []`, stays as it is.
    """
    sources = {source for manifest in manifests for source in manifest.sources}
    pooled = not recipe.strata and "strata" in recipe.model_fields_set
    if len(sources) < 2 or pooled or "source" in (recipe.target, *recipe.strata_bins):
        return recipe
    return recipe.model_copy(update={"strata": ["source", *recipe.strata]})


def upright_of(manifests: Sequence[Manifest]) -> dict[str, bool]:
    """Return which subtypes stand upright, as the data sheets say; if any source says so, it does."""
    upright: dict[str, bool] = {}
    for manifest in manifests:
        for code, subtype in manifest.metadata["subtypes"].items():
            upright[code] = upright.get(code, False) or subtype["upright"]
    return upright


def check_upright(recipe: Recipe, upright: dict[str, bool]) -> None:
    """Refuse pipelines that would turn over what stands upright; `upright` is the data sheets' word.

    A subtype that the data sheet does not know counts as upright.

    Raises:
        RecipeError: naming subtype, pipeline and step.
    """
    problems = []
    for subtype in sorted({*recipe.subtypes, *upright}):
        rule = recipe.rule_for(subtype)
        if rule is None:
            continue
        stands = rule.upright if rule.upright is not None else upright.get(subtype, True)
        overturning = steps_that_overturn(recipe.pipelines[rule.pipeline])
        if stands and overturning:
            problems.append(f"{subtype}: pipeline {rule.pipeline} turns it over ({', '.join(overturning)})")
    if problems:
        raise RecipeError(
            "subtypes that stand upright would be turned over:\n  " + "\n  ".join(problems),
            where="subtypes",
            fix="give them a pipeline that keeps their up, or say `upright: false` if they have none",
        )
