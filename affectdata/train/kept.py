"""Kept models: what `predict` needs, in one safetensors file and no pickle.

A model has a regressor, a classifier, or both; the classifier may take what the regressor says. They are
heads on a frozen backbone (`FrozenModel`) or trained networks (`TrainedModel`). The file has their tensors,
named `regressor.…` and `classifier.…`, and in its header, under the key `affectdata`, the JSON of a `Header`.
A frozen backbone is not in it, only its name, the name of its weights and their hash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from affectdata.config import StrictModel, parse_model
from affectdata.errors import InputError, IntegrityError, UsageError
from affectdata.hashing import canonical_json
from affectdata.tables import replace_file
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.bodies import Normalisation, Say, pool, run_body
from affectdata.train.finetune import Fitted
from affectdata.train.losses import find_loss
from affectdata.train.networks import build_network
from affectdata.train.plain_heads import PlainHead, plain_head
from affectdata.train.task import Settings
from affectdata.train.weights import DEFAULT, NONE, fit_state

SCHEMA: Literal["affectdata/model/1"] = "affectdata/model/1"
_KEY = "affectdata"
_SUFFIX = ".safetensors"
Stages = Literal["regressor", "classifier"]


class Frozen(StrictModel):
    """A backbone by name and weights; `content` is the hash of what decides its features."""

    name: str
    weights: str
    content: str


class Trained(StrictModel):
    """A network as `build_network` builds it again; `code` is the hash of a user's file."""

    name: str
    n_outputs: int
    size_px: int
    takes_output: bool
    code: str
    loss: str


class Header(StrictModel):
    """What a file says beside its tensors; `heads` are the kinds of a frozen model's heads."""

    form: Literal["affectdata/model/1"]
    targets: list[str]
    labels: list[str]
    backbone: Frozen | None = None
    heads: dict[Stages, str] = {}
    networks: dict[Stages, Trained] = {}


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of n pictures: values (n, targets), POMP; scores (n, labels), and shares of them."""

    values: Tensor | None = None
    scores: Tensor | None = None
    shares: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FrozenModel:
    """Heads on a frozen backbone. `targets`: what the regressor predicts; `labels`: of the classifier."""

    backbone: Backbone
    heads: dict[Stages, PlainHead]
    targets: list[str]
    labels: list[str]

    @property
    def normalisation(self) -> Normalisation:
        return self.backbone.normalisation

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    def body(self, stage: Stages) -> nn.Module:
        """Return the network that a stage looks through."""
        return self.backbone.module

    def __call__(self, x: Tensor) -> Outputs:
        """Say what is in normalised pictures (n, 3, height, width)."""
        features = pool(torch.as_tensor(run_body(self.backbone.name, self.backbone.module, x)))
        values = self.heads["regressor"](features) if "regressor" in self.heads else None
        if "classifier" not in self.heads:
            return Outputs(values)
        scores = self.heads["classifier"](features, None if values is None else values[:, 0])
        return Outputs(values, scores, scores.softmax(1))


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """Trained networks, which take pictures in the same form. `targets` and `labels` as above."""

    fitted: dict[Stages, Fitted]
    targets: list[str]
    labels: list[str]

    @property
    def normalisation(self) -> Normalisation:
        return next(iter(self.fitted.values())).network.normalisation

    @property
    def device(self) -> torch.device:
        return next(iter(self.fitted.values())).network.device

    def body(self, stage: Stages) -> nn.Module:
        """Return the network that a stage looks through."""
        return self.fitted[stage].network.module.body

    def __call__(self, x: Tensor) -> Outputs:
        """Say what is in normalised pictures (n, 3, height, width)."""
        values, told = None, None
        if "regressor" in self.fitted:
            values = self._decode("regressor", self._run("regressor", x, None))
            told = values[:, 0]
        if "classifier" not in self.fitted:
            return Outputs(values)
        scores = self._run("classifier", x, told)
        return Outputs(values, scores, self._decode("classifier", scores))

    def _run(self, stage: Stages, x: Tensor, told: Tensor | None) -> Tensor:
        return torch.as_tensor(self.fitted[stage].network.module.eval()(x, told)).float()

    def _decode(self, stage: Stages, outputs: Tensor) -> Tensor:
        return find_loss(self.fitted[stage].settings.loss).decode(outputs)


KeptModel = FrozenModel | TrainedModel


def freeze_model(
    backbone: Backbone, regressor: Any | None, classifier: Any | None, target: str = "valence"
) -> FrozenModel:
    """Make a model of fitted pipelines of `heads` on the features of a backbone.

    Raises:
        InputError: a pipeline is another one than `heads` fits.
    """
    found: dict[Stages, Any] = {"regressor": regressor, "classifier": classifier}
    heads = {stage: plain_head(pipeline) for stage, pipeline in found.items() if pipeline is not None}
    labels = [] if classifier is None else [str(label) for label in classifier.classes_]
    return FrozenModel(backbone, heads, [] if regressor is None else [target], labels)


def check_name(path: Path) -> None:
    """Check that a model may be written to this path, before any time is spent on it.

    Raises:
        UsageError: it does not end in .safetensors.
    """
    if path.suffix != _SUFFIX:
        raise UsageError(f"{path.name} is no name of a model", fix=f"let it end in {_SUFFIX}")


def keep_model(model: KeptModel, path: Path) -> None:
    """Write a model, whole or not at all.

    Raises:
        UsageError: `path` does not end in .safetensors.
        InputError: the stages do not go together, or the folder cannot be written.
    """
    check_name(path)
    if isinstance(model, FrozenModel):
        parts: dict[Stages, dict[str, Tensor]] = {name: head.arrays for name, head in model.heads.items()}
        backbone = model.backbone
        said: dict[str, Any] = {
            "backbone": Frozen(name=backbone.name, weights=backbone.weights, content=backbone.content),
            "heads": {name: head.kind for name, head in model.heads.items()},
        }
    else:
        parts = {name: fitted.network.module.state_dict() for name, fitted in model.fitted.items()}
        said = {"networks": {name: _describe(fitted) for name, fitted in model.fitted.items()}}
    header = Header(form=SCHEMA, targets=model.targets, labels=model.labels, **said)
    _check(model, header)
    tensors = {
        f"{stage}.{name}": value.detach().cpu().contiguous()
        for stage, part in parts.items()
        for name, value in part.items()
    }
    with replace_file(path) as temporary:
        save_file(tensors, temporary, {_KEY: canonical_json(header.model_dump(mode="json"))})


def _describe(fitted: Fitted) -> Trained:
    return Trained(**fitted.network.spec(), code=fitted.network.code, loss=fitted.settings.loss)


def _check(model: KeptModel, header: Header) -> None:
    """Check that there are names for what the stages give, and one form of pictures for all of them."""
    stages = set(header.heads) | set(header.networks)
    problems = {
        "neither regressor nor classifier": not stages,
        "a regressor without targets, or targets without one": ("regressor" in stages) != bool(model.targets),
        "a classifier without labels, or labels without one": ("classifier" in stages) != bool(model.labels),
    }
    if isinstance(model, TrainedModel):
        names = {"regressor": model.targets, "classifier": model.labels}
        networks = {stage: fitted.network for stage, fitted in model.fitted.items()}
        problems |= {
            f"{len(names[stage])} names for the {network.n_outputs} outputs of the {stage}": len(names[stage])
            != network.n_outputs
            for stage, network in networks.items()
        }
        problems["networks that take pictures in another form"] = (
            len({network.normalisation for network in networks.values()}) > 1
        )
    found = [problem for problem, is_there in problems.items() if is_there]
    if found:
        raise InputError(f"no model to keep: {'; '.join(found)}")


def load_model(
    path: str | Path,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    say: Say = lambda _: None,
) -> KeptModel:
    """Read a model. `backbone` and `weights` say where a class's file and the weights lie now, if not there.

    Raises:
        MissingError: the weights of its backbone, or the device, are not there.
        InputError: the file is no kept model, or its tensors are not what its header says.
        IntegrityError: a backbone or a class is not the one that it was kept with.
    """
    file = Path(path)
    tensors, header = _read(file)
    if header.backbone:
        found = load_backbone(
            backbone or header.backbone.name, weights or header.backbone.weights, device, say
        )
        _same(found.content, header.backbone.content, f"the backbone {header.backbone.name}", file)
        heads = {name: PlainHead(kind, _part(tensors, name)) for name, kind in header.heads.items()}
        return FrozenModel(found, heads, header.targets, header.labels)
    fitted = {}
    for name, said in header.networks.items():
        network = build_network(
            backbone or said.name,
            said.n_outputs,
            DEFAULT if ".py:" in said.name else NONE,
            size_px=said.size_px,
            takes_output=said.takes_output,
            device=device,
        )
        _same(network.code, said.code, f"the class {said.name}", file)
        fit_state(network.module, _part(tensors, name), str(file))
        fitted[name] = Fitted(network, Settings(loss=said.loss), [])
    return TrainedModel(fitted, header.targets, header.labels)


def _part(tensors: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
    prefix = f"{stage}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _same(found: str, expected: str, what: str, path: Path) -> None:
    if found != expected:
        raise IntegrityError(
            f"{what} is not the one that the model was kept with",
            where=str(path),
            fix="give the file that it was kept with, by backbone= or weights=",
        )


def _read(path: Path) -> tuple[dict[str, Tensor], Header]:
    fix = "give a file that `keep_model` wrote"
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get(_KEY, "null"))
        tensors = load_file(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise InputError(f"{path.name} is no kept model: {error}", where=str(path), fix=fix) from error
    if not isinstance(said, dict) or said.get("form") != SCHEMA:
        raise InputError(f"{path.name} is not of the form {SCHEMA}", where=str(path), fix=fix)
    return tensors, parse_model(Header, said, str(path))
