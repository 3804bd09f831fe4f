"""Models of a target that can be kept: heads on frozen features, or a fine-tuned network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from affectdata.check.study_targets import StudyTarget
from affectdata.release.release import Release
from affectdata.train.backbones import Backbone, content_hash
from affectdata.train.heads import quiet_threads
from affectdata.train.kept import (
    BackboneRef,
    FrozenModel,
    SourceRef,
    TrainedOn,
    TunedModel,
    make_model,
)
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network
from affectdata.train.rows import Rows


def fit_target_heads(
    target: StudyTarget, backbone: Backbone, train: Rows, head: str | None, seed: int, trained_on: TrainedOn
) -> FrozenModel:
    """Fit the heads of a target on training rows with features.

    Raises:
        InputError: all rows have the same labels, or the head cannot be saved.
    """
    with quiet_threads():
        regressor, classifier = target.fit_heads(train, target.true(train), head, seed)
    model = make_model(backbone, regressor, classifier, target.name, trained_on)
    codes = [int(code) for code in model.labels]
    signs = target.signs if target.kind == "polarity" else None
    return replace(
        model,
        targets=[] if regressor is None else list(target.outputs),
        labels=[target.outputs[code] for code in codes],
        several_labels=target.kind == "multi",
        are_shares=target.kind == "shares",
        class_signs=signs and [signs[code] for code in codes],
    )


def network_of_target(
    target: StudyTarget, network: Network, start: BackboneRef, trained_on: TrainedOn
) -> TunedModel:
    """Return a network that was trained for a target as a model."""
    has_labels = find_loss(target.losses[0]).has_classes
    return TunedModel(
        targets=[] if has_labels else list(target.outputs),
        labels=list(target.outputs) if has_labels else [],
        several_labels=target.kind == "multi",
        are_shares=target.kind == "shares",
        trained_on=trained_on,
        networks={"classifier" if has_labels else "regressor": network},
        start=start,
    )


def start_of(network: Network, weights_sha256: str) -> BackboneRef:
    """Return the reference to what a network's training started from."""
    return BackboneRef(
        name=network.name,
        weights=network.weights,
        content=content_hash(network.normalisation, network.code, weights_sha256),
        weights_sha256=weights_sha256,
    )


def describe_training(release: Release, n_train: int, more: Sequence[Mapping[str, Any]] = ()) -> TrainedOn:
    """Return what a model file says about the release that its model was trained on, with `n_train` rows.

    `more` are sources of other images that it was trained on, as manifests state them.
    """
    info = release.info
    may_redistribute = [
        info.get("terms", {}).get("redistributable"),
        *(each["redistributable"] for each in more),
    ]
    return TrainedOn(
        name=release.name,
        id=release.id,
        n_train=n_train,
        n_originals=info["originals"],
        redistributable=all(may_redistribute),
        sources=[
            SourceRef(**{name: str(each[name] or "") for name in SourceRef.model_fields})
            for each in [*info["manifests"], *more]
        ],
    )
