"""Kept models: heads on a frozen backbone, in one safetensors file and no pickle.

A model has a regressor, a classifier, or both; the classifier may take what the regressor says. The file has
the heads' tensors, named `regressor.…` and `classifier.…`, and in its header, under the key `affectdata`, the
JSON of a `Header`. The backbone is not in it, only its name, the name of its weights and their hash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from affectdata.config import StrictModel, parse_model
from affectdata.errors import InputError, IntegrityError, UsageError
from affectdata.hashing import canonical_json
from affectdata.store.files import check_regular
from affectdata.store.parquet import replace_file
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.plain_heads import PlainHead, plain_head
from affectdata.train.trunks import Say, pool, run_body
from affectdata.train.weights import is_class

SCHEMA: Literal["affectdata/model/1"] = "affectdata/model/1"
_KEY = "affectdata"
_SUFFIX = ".safetensors"
Stages = Literal["regressor", "classifier"]


class Frozen(StrictModel):
    """A backbone by name and weights; `content` is the hash of what decides its features."""

    name: str
    weights: str
    content: str


class Header(StrictModel):
    """What a file says beside its tensors; `heads` are the kinds of the heads."""

    form: Literal["affectdata/model/1"]
    targets: list[str]
    labels: list[str]
    backbone: Frozen
    heads: dict[Stages, str]


@dataclass(frozen=True, eq=False)
class KeptModel:
    """Heads on a frozen backbone. `targets`: what the regressor predicts; `labels`: of the classifier."""

    backbone: Backbone
    heads: dict[Stages, PlainHead]
    targets: list[str]
    labels: list[str]

    def __call__(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Say what is in normalised pictures (n, 3, height, width): values (n, 1), POMP, and class scores."""
        features = pool(torch.as_tensor(run_body(self.backbone.name, self.backbone.module, x)))
        values = self.heads["regressor"](features) if "regressor" in self.heads else None
        told = None if values is None else values[:, 0]
        return values, self.heads["classifier"](features, told) if "classifier" in self.heads else None


def make_model(
    backbone: Backbone, regressor: Any = None, classifier: Any = None, target: str = "valence"
) -> KeptModel:
    """Make a model of fitted pipelines of `heads` on the features of a backbone.

    Raises:
        InputError: a pipeline is another one than `heads` fits, or there is none.
    """
    found: dict[Stages, Any] = {"regressor": regressor, "classifier": classifier}
    heads = {stage: plain_head(pipeline) for stage, pipeline in found.items() if pipeline is not None}
    if not heads:
        raise InputError(f"one class of {target} in train: there is no model to keep")
    labels = [] if classifier is None else [str(label) for label in classifier.classes_]
    return KeptModel(backbone, heads, [] if regressor is None else [target], labels)


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
        InputError: the folder cannot be written.
    """
    check_name(path)
    backbone = model.backbone
    header = Header(
        form=SCHEMA,
        targets=model.targets,
        labels=model.labels,
        backbone=Frozen(name=backbone.name, weights=backbone.weights, content=backbone.content),
        heads={stage: head.kind for stage, head in model.heads.items()},
    )
    tensors = {
        f"{stage}.{name}": value.contiguous()
        for stage, head in model.heads.items()
        for name, value in head.arrays.items()
    }
    with replace_file(path) as temporary:
        save_file(tensors, temporary, {_KEY: canonical_json(header.model_dump(mode="json"))})


def load_model(
    path: str | Path,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    say: Say = lambda _: None,
) -> KeptModel:
    """Read a model. `weights` says where those of its backbone lie now, if not there.

    A backbone that is a class of a Python file is named by `backbone`: a model's word alone runs no code.

    Raises:
        MissingError: the weights of its backbone, or the device, are not there.
        InputError: the file is no kept model, its tensors are not what its header says, or its backbone is a
            class and no `backbone` is given.
        IntegrityError: the backbone is not the one that it was kept with.
    """
    tensors, header = _read(Path(path))
    kept = header.backbone
    if backbone is None and is_class(kept.name):
        raise InputError(
            f"the model's backbone is a class, {kept.name}, and a model runs no code on its own",
            where=str(path),
            fix=f"if you trust it: predict of affectdata.train.kept.load_model(…, backbone={kept.name!r})",
        )
    found = load_backbone(backbone or kept.name, weights or kept.weights, device, say)
    if found.content != kept.content:
        raise IntegrityError(
            f"the backbone {kept.name} is not the one that the model was kept with",
            where=str(path),
            fix="give the file that it was kept with, by backbone= or weights=",
        )
    heads = {}
    for stage, kind in header.heads.items():
        own = {key.partition(".")[2]: value for key, value in tensors.items() if key.startswith(f"{stage}.")}
        heads[stage] = PlainHead(kind, own)
    return KeptModel(found, heads, header.targets, header.labels)


def _read(path: Path) -> tuple[dict[str, Tensor], Header]:
    fix = "give a file that `keep_model` wrote"
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get(_KEY, "null"))
        tensors = load_file(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise InputError(f"{path.name} is no kept model: {error}", where=str(path), fix=fix) from error
    if not isinstance(said, dict) or said.get("form") != SCHEMA:
        raise InputError(f"{path.name} is not of the form {SCHEMA}", where=str(path), fix=fix)
    return tensors, parse_model(Header, said, str(path))
