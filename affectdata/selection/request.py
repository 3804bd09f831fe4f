"""The request for a stimulus set, SET.yaml: strict YAML; all problems are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from affectdata.config import NAME_PATTERN, StrictModel, parse_model, read_yaml
from affectdata.recipe.recipe import LABEL, Labels

Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Levels: TypeAlias = Literal["all"] | list[str] | dict[str, Interval]


class SetRequest(StrictModel):
    """What to select. The cells of the design are all combinations of the levels of `cells`."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="of the set")
    seed: int = Field(default=0, ge=0, lt=2**63, description="another seed, another selection")
    where: str | None = Field(
        default=None, description="SQL condition over the manifest's columns, such as bounds of SD and n"
    )
    labels: Labels | None = Field(
        default=None, description="how to derive the column `label`, as in recipes of balance"
    )
    cells: Annotated[dict[str, Levels], Field(min_length=1)] = Field(
        description="column: {level: [low, high]}, [values], or all (every value that occurs)"
    )
    n: int = Field(ge=2, le=10_000, description="images per cell of a list")
    lists: int = Field(default=1, ge=1, le=20, description="equivalent lists without a common image")
    match: list[str] = Field(default=[], description="numeric columns to match between cells and lists")
    max_difference: Annotated[float, Field(gt=0)] = Field(
        default=0.2, description="largest difference of means between two cells, in SD of the candidates"
    )
    equivalence: Annotated[float, Field(gt=0)] = Field(
        default=0.5, description="bound of the equivalence tests, in SD of the candidates"
    )
    groups: list[str] = Field(
        default=[], description="columns; of images that are equal in one of them, at most one is selected"
    )

    @field_validator("cells")
    @classmethod
    def _check_levels(cls, cells: dict[str, Levels]) -> dict[str, Levels]:
        problems = [text for column, levels in cells.items() for text in _level_problems(column, levels)]
        if problems:
            raise ValueError("; ".join(problems))
        return cells

    @model_validator(mode="after")
    def _check_columns(self) -> SetRequest:
        numeric = {name for name, levels in self.cells.items() if isinstance(levels, dict)}
        if twice := sorted(numeric & set(self.match)):
            raise ValueError(f"match: {', '.join(twice)} cannot be matched between cells that it separates")
        if LABEL in self.cells and self.labels is None:
            raise ValueError("labels: missing, but the column label is used")
        return self


def _level_problems(column: str, levels: Levels) -> list[str]:
    if levels == "all":
        return []
    if not levels or len(set(levels)) != len(levels):
        return [f"{column}: give at least one level, each once"]
    if not isinstance(levels, Mapping):
        return []
    problems = [
        f"{column}.{name}: must be [low, high]" for name, (low, high) in levels.items() if low >= high
    ]
    ordered = sorted(levels.items(), key=lambda item: item[1][0])
    problems += [
        f"{column}: {first} and {second} overlap"
        for (first, (_, high)), (second, (low, _)) in pairwise(ordered)
        if low < high
    ]
    return problems


def read_request(path: Path) -> SetRequest:
    """Read a request from its file.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or is not a valid request.
    """
    return parse_model(SetRequest, read_yaml(path), str(path), path.parent)
