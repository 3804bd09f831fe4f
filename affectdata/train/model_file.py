"""Kept models in one safetensors file, without pickle.

The file contains the tensors of every stage, named `regressor.…` and `classifier.…`, and in its header, under
the key `affectdata`, the JSON of a `Header`. Of heads on a frozen backbone it does not contain the backbone,
only its name, weights name and hash; fine-tuned networks are in it as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from affectdata.config import StrictModel, parse_model
from affectdata.errors import InputError, IntegrityError, UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.store.atomic import replace_file
from affectdata.store.files import check_regular
from affectdata.train.backbones import content_hash, load_backbone
from affectdata.train.kept import BackboneRef, FrozenModel, KeptModel, Stage, TrainedOn, TunedModel
from affectdata.train.networks import Network, build_network
from affectdata.train.plain_heads import PlainHead
from affectdata.train.trunks import Note
from affectdata.train.weights import NONE, is_class, load_strict, tensors_hash

SCHEMA: Literal["affectdata/model/2"] = "affectdata/model/2"
NETWORK = "network"  # kind of head of a fine-tuned network
SUFFIX = ".safetensors"
_KEY = "affectdata"
_FORMS = ("affectdata/model/1", SCHEMA)
_FORMER_FIELDS = {"form", "targets", "labels", "backbone", "heads"}


class Preprocessing(StrictModel):
    """What an image passes through: its centre square, resized; then mean and std of values from 0 to 1."""

    size_px: int
    mean: list[float]
    std: list[float]


class Header(StrictModel):
    """The metadata of a model file; `heads` maps stages to kinds of head.

    `ranges` are the scales of the targets. `content_sha256` is the hash of this header without it, and of the
    tensors. All after `heads` are absent in the form affectdata/model/1; the last two are there only if set.
    """

    form: Literal["affectdata/model/1", "affectdata/model/2"]
    targets: list[str]
    labels: list[str]
    backbone: BackboneRef
    heads: dict[Stage, str]
    several_labels: bool = False
    ranges: dict[str, list[float]] = {}
    preprocessing: Preprocessing | None = None
    trained_on: TrainedOn | None = None
    content_sha256: str | None = None
    are_shares: bool = False
    class_signs: list[float] | None = None

    def document(self) -> dict[str, Any]:
        """Return the header as it is written."""
        unset = {name for name in ("are_shares", "class_signs") if not getattr(self, name)}
        return self.model_dump(mode="json", exclude=unset)


def check_name(path: Path) -> None:
    """Check the file name of a model, before time is spent on training it.

    Raises:
        UsageError: the name does not end in .safetensors.
    """
    if path.suffix != SUFFIX:
        raise UsageError(f"invalid model file name {path.name!r}", fix=f"use a name ending in {SUFFIX}")


def keep_model(model: KeptModel, path: Path) -> None:
    """Write a model to a file atomically.

    Raises:
        UsageError: `path` does not end in .safetensors.
        InputError: the folder is not writable.
    """
    check_name(path)
    heads, parts, backbone = _parts_of(model)
    tensors = {
        f"{stage}.{name}": value.detach().cpu().contiguous().clone()
        for stage, part in parts.items()
        for name, value in part.items()
    }
    normalisation = model.normalisation
    header = Header(
        form=SCHEMA,
        targets=model.targets,
        labels=model.labels,
        backbone=backbone,
        heads=heads,
        several_labels=model.several_labels,
        are_shares=model.are_shares,
        class_signs=None if model.class_signs is None else list(model.class_signs),
        ranges={target: [0.0, 100.0] for target in model.targets},
        preprocessing=Preprocessing(
            size_px=normalisation.size_px, mean=list(normalisation.mean), std=list(normalisation.std)
        ),
        trained_on=model.trained_on,
    )
    content = _content_hash(header.document(), tensors)
    header = header.model_copy(update={"content_sha256": content})
    with replace_file(path) as temporary:
        save_file(tensors, temporary, {_KEY: canonical_json(header.document())})


def _parts_of(model: KeptModel) -> tuple[dict[Stage, str], dict[Stage, Mapping[str, Tensor]], BackboneRef]:
    """Return the kinds of head, the tensors by stage, and the backbone of a model."""
    if isinstance(model, TunedModel):
        networks = model.networks
        states: dict[Stage, Mapping[str, Tensor]] = {
            stage: network.module.state_dict() for stage, network in networks.items()
        }
        return dict.fromkeys(networks, NETWORK), states, model.start
    if not isinstance(model, FrozenModel):
        raise TypeError(f"cannot save a {type(model).__name__}")
    network = model.backbone
    backbone = BackboneRef(
        name=network.name,
        weights=network.weights,
        content=network.content,
        weights_sha256=network.weights_sha256,
    )
    kinds = {stage: head.kind for stage, head in model.heads.items()}
    return kinds, {stage: head.arrays for stage, head in model.heads.items()}, backbone


def _content_hash(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over a header as it is written, without this hash, and the tensors."""
    known = {**header, "content_sha256": None}
    return file_hash((canonical_json(known) + tensors_hash(tensors)).encode())


def load_model(
    path: str | Path,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    note: Note = lambda _: None,
) -> KeptModel:
    """Read a model. `weights`: the current path of its backbone's weights, if they were moved.

    If the backbone is a class in a Python file, the caller must name it by `backbone`: a model file alone
    never runs code.

    Raises:
        MissingError: the weights of the backbone, or the device, are not available.
        InputError: the file is not a kept model, its tensors do not match its header, or its backbone is a
            class and `backbone` is not given.
        IntegrityError: the backbone differs from the one that the model was saved with, or the file from the
            one that was written.
    """
    tensors, written = _read(Path(path))
    header = parse_model(Header, written, str(path))
    name = backbone or header.backbone.name
    if backbone is None and is_class(name):
        raise InputError(
            f"the model's backbone is a class in a file, {name}, and a model file alone runs no code",
            where=str(path),
            fix=f"if you trust the file, use affectdata.train.model_file.load_model(…, backbone={name!r})",
        )
    if header.class_signs and len(header.class_signs) != len(header.labels):
        raise _wrong(path, f"has {len(header.class_signs)} signs for {len(header.labels)} labels")
    parts: dict[Stage, dict[str, Tensor]] = {}
    for stage in header.heads:
        prefix = f"{stage}."
        parts[stage] = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
    common: dict[str, Any] = {
        "targets": header.targets,
        "labels": header.labels,
        "several_labels": header.several_labels,
        "are_shares": header.are_shares,
        "class_signs": header.class_signs,
        "trained_on": header.trained_on,
    }
    model: KeptModel
    if NETWORK in header.heads.values():
        networks = {stage: _build(stage, parts, header, name, device, str(path)) for stage in header.heads}
        model = TunedModel(**common, networks=networks, start=header.backbone)
    else:
        heads = {stage: PlainHead(kind, parts[stage]) for stage, kind in header.heads.items()}
        outputs = {"regressor": header.targets, "classifier": header.labels}
        for stage, head in heads.items():
            if len(head.arrays["intercept"]) != len(outputs[stage]):
                raise _wrong(path, f"has {len(outputs[stage])} outputs for a {stage} of another number")
        network = load_backbone(name, weights or header.backbone.weights, device, note)
        if network.content != header.backbone.content:
            raise _other_backbone(path, header)
        model = FrozenModel(**common, backbone=network, heads=heads)
    _check_hash(path, header, written, tensors)
    return model


def _check_hash(
    path: str | Path, header: Header, written: dict[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    if header.form == _FORMS[0]:  # it has no hash, and no field that came with it
        if later := sorted({*written} - _FORMER_FIELDS):
            raise _wrong(path, f"has fields that {header.form} does not have: {', '.join(later)}")
    elif header.content_sha256 != _content_hash(written, tensors):
        raise IntegrityError(
            f"{Path(path).name} is not the file that was written: its contents do not match their hash",
            where=str(path),
            fix="copy it again, or keep the model again",
        )


def _build(
    stage: Stage,
    parts: Mapping[Stage, dict[str, Tensor]],
    header: Header,
    name: str,
    device: str | None,
    where: str,
) -> Network:
    """Build the network of one stage, with its tensors."""
    if header.preprocessing is None or header.heads[stage] != NETWORK:
        raise _wrong(Path(where), "mixes networks and heads, or lacks their preprocessing")
    is_second = stage == "classifier" and "regressor" in parts
    network = build_network(
        name,
        len(header.labels if stage == "classifier" else header.targets),
        NONE,
        size_px=header.preprocessing.size_px,
        takes_output=is_second,
        device=device,
    )
    if content_hash(network.normalisation, network.code, header.backbone.weights_sha256 or "") != (
        header.backbone.content
    ):
        raise _other_backbone(where, header)
    load_strict(network.module, parts[stage], where)
    network.module.requires_grad_(False).eval()
    return network


def _wrong(path: str | Path, what: str) -> InputError:
    return InputError(f"{Path(path).name} {what}", where=str(path), fix="pass a file written by --keep-model")


def _other_backbone(path: str | Path, header: Header) -> IntegrityError:
    return IntegrityError(
        f"the backbone {header.backbone.name} differs from the one that the model was saved with",
        where=str(path),
        fix="pass the original file by backbone= or weights=",
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "null"))
        tensors = load_file(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise _wrong(path, f"is not a kept model: {error}") from error
    if not isinstance(header, dict) or header.get("form") not in _FORMS:
        raise _wrong(path, f"does not have the form {' or '.join(_FORMS)}")
    return tensors, header
