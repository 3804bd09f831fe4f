"""Kept models: heads on a frozen backbone (`FrozenModel`), or fine-tuned networks (`TunedModel`).

A model has a regressor, a classifier, or both; the classifier may take the regressor's prediction.
`model_file` saves and loads models, `predict` applies them to images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from affectdata.config import StrictModel
from affectdata.errors import InputError
from affectdata.train.backbones import Backbone
from affectdata.train.losses import decode_numbers
from affectdata.train.networks import Network
from affectdata.train.plain_heads import PlainHead, plain_head
from affectdata.train.trunks import Normalisation, pool, run_trunk

Stage = Literal["regressor", "classifier"]


class BackboneRef(StrictModel):
    """A backbone by name and weights; `content` is the hash of what determines its features.

    `weights_sha256` is the hash of its weights alone; of a fine-tuned network, of those it started from.
    """

    name: str
    weights: str
    content: str
    weights_sha256: str | None = None  # absent in the form affectdata/model/1


class SourceRef(StrictModel):
    """A collection of images with its terms."""

    title: str
    license: str
    citation: str


class TrainedOn(StrictModel):
    """The release that a model was trained on."""

    name: str
    id: str
    n_train: int
    n_originals: int
    redistributable: bool
    sources: list[SourceRef]


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptModel(ABC):
    """A model. `targets`: what the regressor predicts, POMP; `labels`: the classes.

    With `several_labels` every label has a probability of its own, and an image has a set of them. With
    `are_shares` the probabilities are shares of raters. With `class_signs`, the polarities of the classes,
    the predicted class is the one of least expected cost.
    """

    targets: list[str]
    labels: list[str]
    several_labels: bool = False
    are_shares: bool = False
    class_signs: Sequence[float] | None = None
    trained_on: TrainedOn | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the network."""

    @property
    @abstractmethod
    def normalisation(self) -> Normalisation:
        """The input format."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model runs."""

    @abstractmethod
    def __call__(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Predict values (n, targets), POMP, and logits (n, labels) for normalised images (n, 3, h, w)."""

    def normalise(self, squares: np.ndarray) -> Tensor:
        """Return uint8 images (n, size_px, size_px, 3) as the input tensor, on the model's device."""
        return self.normalisation.apply(torch.from_numpy(squares).to(self.device))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each label."""
        return logits.sigmoid() if self.several_labels else logits.softmax(1)


@dataclass(frozen=True, eq=False, kw_only=True)
class FrozenModel(KeptModel):
    """Heads on a frozen backbone."""

    backbone: Backbone
    heads: Mapping[Stage, PlainHead]

    @property
    def name(self) -> str:
        return self.backbone.name

    @property
    def normalisation(self) -> Normalisation:
        return self.backbone.normalisation

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def __call__(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        features = pool(torch.as_tensor(run_trunk(self.name, self.backbone.module, x)))
        values = self.heads["regressor"](features) if "regressor" in self.heads else None
        output = None if values is None else values[:, 0]
        return values, self.heads["classifier"](features, output) if "classifier" in self.heads else None


@dataclass(frozen=True, eq=False, kw_only=True)
class TunedModel(KeptModel):
    """A fine-tuned network per stage, all of one input format; `start` is what training started from."""

    networks: Mapping[Stage, Network]
    start: BackboneRef

    @property
    def _any(self) -> Network:
        return next(iter(self.networks.values()))

    @property
    def name(self) -> str:
        return self._any.name

    @property
    def normalisation(self) -> Normalisation:
        return self._any.normalisation

    @property
    def device(self) -> torch.device:
        return self._any.device

    def __call__(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        values, logits = None, None
        if "regressor" in self.networks:
            values = decode_numbers(self._run("regressor", x))
        if "classifier" in self.networks:
            logits = self._run("classifier", x, None if values is None else values[:, 0])
        return values, logits

    def _run(self, stage: Stage, x: Tensor, output: Tensor | None = None) -> Tensor:
        return torch.as_tensor(run_trunk(self.name, self.networks[stage].module.eval(), x, output)).float()


def make_model(
    backbone: Backbone,
    regressor: Any = None,
    classifier: Any = None,
    target: str = "valence",
    trained_on: TrainedOn | None = None,
) -> FrozenModel:
    """Make a model from fitted heads (`plain_heads.plain_head`) on the features of a backbone.

    Raises:
        InputError: a model cannot be saved, or there is none.
    """
    models: dict[Stage, Any] = {"regressor": regressor, "classifier": classifier}
    heads = {stage: plain_head(model) for stage, model in models.items() if model is not None}
    if not heads:
        raise no_model(target)
    return FrozenModel(
        targets=[] if regressor is None else [target],
        labels=[] if classifier is None else [str(label) for label in classifier.classes_],
        trained_on=trained_on,
        backbone=backbone,
        heads=heads,
    )


def no_model(target: str) -> InputError:
    """Return the error that there is nothing to predict."""
    return InputError(f"train has only one class of {target}, so there is no model to save")
