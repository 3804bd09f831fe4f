"""Warn about valid but rarely intended settings of a recipe. Needs no data and opens no image."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from affectdata.recipe.recipe import Recipe
from affectdata.recipe.transforms import Step, flatten_numbers
from affectdata.records import Finding

_CHANGE_CHANCE = {"D4": 7 / 8, "RandomRotate90": 3 / 4}  # the identity is one of their outcomes
_IDENTITY = {"scale": 1, "translate_percent": 0, "translate_px": 0, "rotate": 0, "shear": 0}  # of Affine
_LEAVES_MARGINS = frozenset({"Affine", "Rotate", "SafeRotate", "ElasticTransform", "GridDistortion"})
_MAX_CROPPED = 0.5  # share of the area; a larger crop can lose the subject


def lint_recipe(recipe: Recipe) -> list[Finding]:
    """Return warnings about the pipelines of a recipe."""
    return [
        Finding(kind, f"pipelines.{name}: {text}")
        for name, steps in recipe.pipelines.items()
        for kind, text in _lint_steps(steps)
    ]


def _lint_steps(steps: list[Step]) -> Iterator[tuple[str, str]]:
    transforms = [next(iter(step.items())) for step in steps]
    unchanged = math.prod(1 - _change_chance(name, arguments) for name, arguments in transforms)
    if unchanged:
        yield (
            "identity",
            f"{unchanged:.0%} of the draws leave the image unchanged: a copy equal to its original",
        )
    for name, arguments in transforms:
        if _leaves_margins(name, arguments):
            yield (
                "border",
                f"{name} leaves black margins, which shift predictions; use border_mode: reflect_101",
            )
        cropped = _max_cropped(name, arguments)
        if cropped > _MAX_CROPPED:
            yield "crop", f"{name} can remove {cropped:.0%} of the image, possibly the subject"


def _change_chance(name: str, arguments: dict[str, Any]) -> float:
    """Return the probability that a draw changes the image."""
    pairs = [
        (number, neutral)
        for key, neutral in _IDENTITY.items()
        for number in flatten_numbers(arguments.get(key))
    ]
    if name == "Affine" and all(number == neutral for number, neutral in pairs):
        return 0.0
    return float(arguments["p"] * _CHANGE_CHANCE.get(name, 1.0))


def _leaves_margins(name: str, arguments: dict[str, Any]) -> bool:
    has_margins = name in _LEAVES_MARGINS or (name == "Perspective" and arguments.get("fit_output", False))
    return bool(has_margins and arguments.get("border_mode", "constant") == "constant")


def _max_cropped(name: str, arguments: dict[str, Any]) -> float:
    """Return the largest share of the area that a crop can remove."""

    if name == "RandomCropFromBorders":
        sides = {side: arguments.get(f"crop_{side}", 0.1) for side in ("left", "right", "top", "bottom")}
        return float(1 - (1 - sides["left"] - sides["right"]) * (1 - sides["top"] - sides["bottom"]))
    if name == "RandomResizedCrop":
        return float(1 - arguments.get("scale", [0.08, 1.0])[0])
    return 0.0
