"""Lint of a recipe: what is allowed and yet seldom meant. Needs no data and touches no image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from affectdata.recipe.recipe import Recipe
from affectdata.recipe.transforms import Step, numbers_in
from affectdata.records import Finding

_CHANGES = {"D4": 7 / 8, "RandomRotate90": 3 / 4}  # the identity is one of their draws
_STILL = {"scale": 1, "translate_percent": 0, "translate_px": 0, "rotate": 0, "shear": 0}  # moves nothing
_LEAVES_MARGINS = frozenset({"Affine", "Rotate", "SafeRotate", "ElasticTransform", "GridDistortion"})
_MOST_CROPPED = 0.5  # share of the area beyond which a crop can lose the subject


def lint_recipe(recipe: Recipe) -> list[Finding]:
    """Return what a person should look at in a recipe's pipelines."""
    return [
        Finding(kind, f"pipelines.{name}: {text}")
        for name, steps in recipe.pipelines.items()
        for kind, text in _lint_steps(steps)
    ]


def _lint_steps(steps: list[Step]) -> Iterator[tuple[str, str]]:
    named = [next(iter(step.items())) for step in steps]
    same = math.prod(1 - _change_chance(name, arguments) for name, arguments in named)
    if same:
        yield "identity", f"{same:.0%} of the draws leave the image as it is, a copy equal to its parent"
    for name, arguments in named:
        if _leaves_margins(name, arguments):
            yield "border", f"{name} leaves black margins, which move predictions; border_mode: reflect_101"
        lost = _most_cropped(name, arguments)
        if lost > _MOST_CROPPED:
            yield "crop", f"{name} can cut away {lost:.0%} of the image, and the subject with it"


def _change_chance(name: str, arguments: dict[str, Any]) -> float:
    """Return the chance that a draw changes the image."""
    found = [(number, still) for key, still in _STILL.items() for number in numbers_in(arguments.get(key))]
    if name == "Affine" and all(number == still for number, still in found):
        return 0.0
    return float(arguments["p"] * _CHANGES.get(name, 1.0))


def _leaves_margins(name: str, arguments: dict[str, Any]) -> bool:
    reaches_out = name in _LEAVES_MARGINS or (name == "Perspective" and arguments.get("fit_output", False))
    return bool(reaches_out and arguments.get("border_mode", "constant") == "constant")


def _most_cropped(name: str, arguments: dict[str, Any]) -> float:
    """Return the largest share of the area that a crop can cut away."""
    if name == "RandomCropFromBorders":
        sides = {side: arguments.get(f"crop_{side}", 0.1) for side in ("left", "right", "top", "bottom")}
        return float(1 - (1 - sides["left"] - sides["right"]) * (1 - sides["top"] - sides["bottom"]))
    if name == "RandomResizedCrop":
        return float(1 - arguments.get("scale", [0.08, 1.0])[0])
    return 0.0
