"""What is predicted in place of the recipe's target: several values per image, or classes with a polarity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from affectdata.config import StrictModel


def _check_distinct(names: list[str]) -> list[str]:
    if len({*names}) < len(names):
        raise ValueError("give each name once")
    return names


_Names = Annotated[list[str], Field(min_length=2), AfterValidator(_check_distinct)]


class TargetSpec(StrictModel):
    """What is predicted in place of the recipe's target: exactly one of these."""

    numbers: _Names | None = Field(default=None, description="columns, such as [valence, arousal]: a point")
    multi: str | None = Field(default=None, min_length=1, description="a column of label sets, joined by +")
    shares: Literal[True] | _Names | None = Field(
        default=None, description="shares of raters, of all emotions (true) or of those of a list"
    )
    order: _Names | None = Field(default=None, description="of the classes of shares, for the distance")
    polarity: Literal[True] | None = Field(
        default=None, description="the recipe's classes; one of the opposite polarity costs twice"
    )

    @model_validator(mode="after")
    def _one_target(self) -> TargetSpec:
        given = (self.numbers, self.multi, self.shares, self.polarity)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of numbers, multi, shares, polarity")
        if self.order and not self.shares:
            raise ValueError("order is only for shares")
        return self
