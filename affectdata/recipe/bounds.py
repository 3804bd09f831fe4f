"""The bounds of `train-check`: the block `check:` of a recipe, or a YAML file of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from affectdata.config import StrictModel


class NotWorse(StrictModel):
    """Tolerances: by how much a release may score below the arm that it is compared with."""

    r2: Annotated[float, Field(ge=0)] = 0.02
    ccc: Annotated[float, Field(ge=0)] = 0.02
    balanced_accuracy: Annotated[float, Field(ge=0)] = 0.03


class Check(StrictModel):
    """The bounds of `train-check`; `train-check --rules` explains each of them."""

    classes: dict[str, Annotated[list[float], Field(min_length=1)]] = {
        "valence": [40.0, 60.0]
    }  # thresholds of the target for negative, neutral, positive
    undecided: Literal["pass", "fail"] = "pass"
    min_r2: float = 0.0
    min_r2_low: Annotated[float, Field(ge=0, lt=1)] = 0.1  # for the lower end of the interval of R²
    not_worse: NotWorse = NotWorse()
    min_sd_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.25
    max_r2: Annotated[float, Field(gt=0)] = 0.65
    max_nearest: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_shuffled: Annotated[float, Field(ge=0)] = 0.05
    max_cosine: Annotated[float, Field(gt=0, le=1)] = 0.98
    max_excess_shift: Annotated[float, Field(gt=0)] = 1.0  # POMP units
    max_transform: Annotated[float, Field(gt=0)] = 4.0  # as a multiple of a flip
    max_affect_shift: Annotated[float, Field(gt=0)] = 5.0  # POMP units
    max_second_stage: Annotated[float, Field(gt=0)] = 0.2  # R²
    max_pictures: Annotated[int, Field(ge=20)] = 5000  # sample this many if there are more
