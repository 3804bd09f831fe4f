"""Lint of a recipe: what is allowed and yet seldom meant. Needs no data and touches no picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from affectdata.balance.recipe import Recipe
from affectdata.balance.transforms import Step
from affectdata.records import Finding

_MAY_DO_NOTHING = frozenset({"D4", "RandomRotate90"})  # the identity is one of their draws
_LEAVES_MARGINS = frozenset({"Affine", "Rotate", "Perspective"})
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
    if not any(_always_changes(name, arguments) for name, arguments in named):
        share = 1.0
        for name, arguments in named:
            share *= 1 - arguments["p"] * (0.875 if name == "D4" else 0.75 if name == "RandomRotate90" else 1)
        yield "identity", f"{share:.0%} of the draws leave the picture as it is, a copy equal to its parent"
    for name, arguments in named:
        if name in _LEAVES_MARGINS and arguments.get("border_mode", "constant") == "constant":
            yield "border", f"{name} leaves black margins, which move predictions; border_mode: reflect_101"
        lost = _most_cropped(name, arguments)
        if lost > _MOST_CROPPED:
            yield "crop", f"{name} can cut away {lost:.0%} of the picture, and the subject with it"


def _always_changes(name: str, arguments: dict[str, Any]) -> bool:
    return bool(arguments["p"] == 1) and name not in _MAY_DO_NOTHING


def _most_cropped(name: str, arguments: dict[str, Any]) -> float:
    """Return the largest share of the area that a crop can cut away."""
    if name == "RandomCropFromBorders":
        sides = {side: arguments.get(f"crop_{side}", 0.1) for side in ("left", "right", "top", "bottom")}
        return float(1 - (1 - sides["left"] - sides["right"]) * (1 - sides["top"] - sides["bottom"]))
    if name == "RandomResizedCrop":
        return float(1 - arguments.get("scale", [0.08, 1.0])[0])
    return 0.0
