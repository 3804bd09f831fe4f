"""The bounds of `train-check`: the block `check:` of a recipe, or a YAML file of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from affectdata.config import StrictModel
from affectdata.recipe.target import TargetSpec


class NotWorse(StrictModel):
    """Tolerances: by how much a release may score below the arm that it is compared with."""

    r2: float = Field(default=0.02, ge=0, description="difference in R²")
    ccc: float = Field(default=0.02, ge=0, description="difference in CCC")
    balanced_accuracy: float = Field(
        default=0.03, ge=0, description="difference in balanced accuracy; of label sets in 2 AUC - 1"
    )


class Check(StrictModel):
    """The bounds of `train-check`; `train-check --rules` explains each of them."""

    target: TargetSpec | None = Field(
        default=None, description="what is predicted, in place of the recipe's target"
    )
    classes: dict[str, Annotated[list[float], Field(min_length=1)]] = Field(
        default={"valence": [40.0, 60.0]},
        description="thresholds of the target for negative, neutral, positive",
    )
    undecided: Literal["pass", "fail"] = Field(
        default="pass", description="what a rule counts as whose interval contains its bound"
    )
    min_r2: float = Field(default=0.0, description="of the release")
    min_r2_low: float = Field(default=0.1, ge=0, lt=1, description="for the lower end of the interval of R²")
    not_worse: NotWorse = Field(default=NotWorse(), description="than the originals, and than even copies")
    min_sd_ratio: float = Field(default=0.25, ge=0, lt=1, description="SD of predictions / SD of targets")
    max_r2: float = Field(default=0.65, gt=0, description="of the originals; more looks like a leak")
    max_nearest: float = Field(
        default=0.5, gt=0, le=1, description="score of copying the label of the most similar training image"
    )
    max_shuffled: float = Field(default=0.05, ge=0, description="R² after training on shuffled labels")
    max_cosine: float = Field(default=0.98, gt=0, le=1, description="of features; pairs above it are listed")
    max_excess_shift: float = Field(default=1.0, gt=0, description="POMP units")
    max_transform: float = Field(default=4.0, gt=0, description="as a multiple of a flip")
    max_affect_shift: float = Field(default=5.0, gt=0, description="POMP units")
    max_second_stage: float = Field(default=0.2, gt=0, description="R²")
    max_pictures: int = Field(default=5000, ge=20, description="sample this many if there are more")

    @model_serializer(mode="wrap")
    def _without_an_empty_target(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not given: recipes without it keep the hash that they have had."""
        document: dict[str, Any] = handler(self)
        target = {
            key: value for key, value in (document.pop("target", None) or {}).items() if value is not None
        }
        return {"target": target, **document} if target else document
