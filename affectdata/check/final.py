"""The model of a release: regressor and classifier on all of its train rows, and saliency maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from affectdata.check.arms import CALIBRATED, STACKED, SUBTYPE_AWARE
from affectdata.check.evaluate import find_classes
from affectdata.check.prepare import CheckInput
from affectdata.check.tuned import LazyNetwork, TunedNetworks
from affectdata.errors import InputError, UsageError
from affectdata.images.decode import decode
from affectdata.release.images import Read, released_reader
from affectdata.release.release import Release
from affectdata.store.atomic import write_text
from affectdata.store.escape import frame_to_csv
from affectdata.train.backbones import content_hash
from affectdata.train.heads import (
    N_FOLDS,
    FittedHead,
    fit_classifier,
    fit_regressor,
    out_of_fold,
    predict_out_of_fold,
    quiet_threads,
)
from affectdata.train.kept import (
    BackboneRef,
    FrozenModel,
    KeptModel,
    SourceRef,
    Stage,
    TrainedOn,
    TunedModel,
    make_model,
    no_model,
)
from affectdata.train.networks import Network
from affectdata.train.outputs import Calibrated, Stacked, fit_calibrated, fit_stacked
from affectdata.train.predict import predict
from affectdata.train.rows import Rows
from affectdata.train.saliency import save_maps
from affectdata.train.subtype_aware import can_fit, fit_subtype_aware
from affectdata.train.trunks import load_extra

PLAIN = "plain"  # the head that every arm has: an SVR
_CLEAR = 0.8  # certainty above which a prediction is clear
CLEAREST = "clearest"
_BATCH = 64


def fit_final(prepared: CheckInput, head: str = PLAIN) -> FrozenModel:
    """Fit regressor and classifier on the release's train rows; the classifier is that of the target.

    A `head` other than the plain one is fitted on the originals of these rows, as its arm in the check is.

    Raises:
        InputError: there is nothing to predict: the target is not numeric and has one class; or as in
            `check_head`.
    """
    check_head(prepared, head)
    seed = prepared.recipe.seed
    train = prepared.train if head == PLAIN else _own_originals(prepared)
    regressor, classifier, outputs = None, None, None
    with quiet_threads():
        labels = _labels_of(prepared, train)
        if prepared.numeric:
            fit = _regressor_of(prepared, head)
            regressor = fit(train)
            if len(labels):
                outputs = predict_out_of_fold(fit, train, seed, N_FOLDS)
        if len(labels):
            classifier = fit_classifier(train, labels, outputs, seed)
    return make_model(
        prepared.backbone,
        regressor.model if isinstance(regressor, FittedHead) else regressor,
        classifier and classifier.model,
        prepared.recipe.target,
        describe_training(prepared.release),
    )


def check_kept(prepared: CheckInput, *wanted: object) -> None:
    """Check that a model of the target can be kept, if anything of it is wanted.

    Raises:
        InputError: the target is not the recipe's.
    """
    if prepared.target and any(wanted):
        raise InputError(
            f"a model of {prepared.target.name} cannot be kept, and has no maps",
            where=str(prepared.release.path),
            fix="leave out --keep-model and --maps, or the recipe's `check: {target: …}`",
        )


def fit_final_networks(prepared: CheckInput, learner: TunedNetworks) -> TunedModel:
    """Fine-tune a network for the target on the release's train rows, and one for its classes.

    Raises:
        InputError: there is nothing to predict: the target is not numeric and has one class.
    """
    train, fitted = prepared.train, dict[Stage, LazyNetwork]()
    outputs = None
    if prepared.numeric:
        fitted["regressor"] = learner.fit_regressor(train, "")
    labels = _labels_of(prepared, train)
    if len(labels):
        if "regressor" in fitted:
            outputs = learner.out_of_fold(fitted["regressor"], train)
        fitted["classifier"] = learner.fit_classifier(train, labels, outputs)
    if not fitted:
        raise no_model(prepared.recipe.target)
    networks = {stage: each.trained() for stage, each in fitted.items()}
    return TunedModel(
        targets=[prepared.recipe.target] if prepared.numeric else [],
        labels=[str(label) for label in np.unique(labels)],
        trained_on=describe_training(prepared.release),
        networks=networks,
        start=start_of(next(iter(networks.values())), prepared.backbone.weights_sha256),
    )


def start_of(network: Network, weights_sha256: str) -> BackboneRef:
    """Return the reference to what a network's training started from."""
    return BackboneRef(
        name=network.name,
        weights=network.weights,
        content=content_hash(network.normalisation, network.code, weights_sha256),
        weights_sha256=weights_sha256,
    )


def describe_training(release: Release) -> TrainedOn:
    """Return what a model file says about the release that its model was trained on."""
    info = release.info
    return TrainedOn(
        name=release.name,
        id=release.id,
        n_train=info["rows"]["train"],
        n_originals=info["originals"],
        redistributable=bool(info.get("terms", {}).get("redistributable")),
        sources=[
            SourceRef(**{name: str(each[name] or "") for name in SourceRef.model_fields})
            for each in info["manifests"]
        ],
    )


def _labels_of(prepared: CheckInput, train: Rows) -> np.ndarray:
    """Return the class of each row that the classifier learns; empty if there are fewer than two."""
    classes = find_classes(prepared.recipe, None if prepared.numeric else prepared.originals.labels, [])
    labels = classes[0].of(train) if classes else np.empty(0)
    return labels if len(np.unique(labels)) > 1 else np.empty(0)


def check_head(prepared: CheckInput, head: str) -> None:
    """Check that a head can be fitted, before anything is trained.

    Raises:
        UsageError: no head has this name.
        InputError: the release or the other manifests lack what the head needs.
    """
    known = [PLAIN, SUBTYPE_AWARE, CALIBRATED, *(STACKED + name for name in prepared.others)]
    where = str(prepared.release.path)
    if head not in known and not head.startswith(STACKED):
        raise UsageError(f"unknown head {head!r}", fix=f"known: {', '.join(known)}")
    if head not in known:
        raise InputError(
            f"there are no images of {head.removeprefix(STACKED)!r} to train the head {head} on",
            where=where,
            fix=f"ingest them into the folder of manifests, or use one of {', '.join(known)}",
        )
    if head != PLAIN and not prepared.numeric:
        raise InputError(
            f"the head {head} predicts numbers, and the target {prepared.recipe.target} has classes",
            where=where,
            fix="leave out --head",
        )
    if head == SUBTYPE_AWARE and not can_fit(_own_originals(prepared)):
        raise InputError(
            f"the head {head} needs 2 to 50 subtypes and four groups of train images",
            where=where,
            fix="leave out --head",
        )


def _own_originals(prepared: CheckInput) -> Rows:
    """Return the unweighted originals of the release's train rows, without those that fill its thin bins."""
    train, originals = prepared.train, prepared.originals
    own = train.take((train.copy == 0) & originals.own[originals.find(train.image_id)])
    return own.weighted(np.ones(len(own)))


def _regressor_of(prepared: CheckInput, head: str) -> Callable[[Rows], Any]:
    """Return the function that fits a head on some rows."""
    seed = prepared.recipe.seed
    if head == SUBTYPE_AWARE:
        return lambda rows: fit_subtype_aware(rows, seed)
    if head == PLAIN:
        return lambda rows: fit_regressor(rows, "svr", seed)
    name = head.removeprefix(STACKED)
    source = None if head == CALIBRATED else fit_regressor(prepared.others[name], "svr", seed)

    def fit(rows: Rows) -> Calibrated | Stacked:
        plain = fit_regressor(rows, "svr", seed)
        outputs = out_of_fold(plain, rows, seed)
        if source is None:
            return fit_calibrated(plain, outputs, rows)
        return fit_stacked(plain, source, outputs, rows, seed)

    return fit


def check_maps(release: Release) -> None:
    """Check that maps can be drawn, before a model is trained.

    Raises:
        MissingError: captum is not installed.
        InputError: the release has no test split.
    """
    if not len(release.split("test")):
        raise InputError(
            "maps are drawn of the test split, and the release has none",
            where=str(release.path),
            fix="leave out --maps, or balance by a recipe with `split: {test: 0.2}`",
        )
    load_extra("captum.attr", "saliency")


def draw_maps(prepared: CheckInput, model: KeptModel, n_maps: int, folder: Path) -> list[Path]:
    """Write maps of the clearest and the worst predictions on test originals, which were not trained on.

    `clearest` are predictions with more than 80 % certainty (there may be none); `worst` have the largest
    error, or the highest certainty of a wrong class. Both folders have an `index.csv` that lists the images;
    the names of the files have the true and the predicted value or class.

    Raises:
        MissingError, InputError: as in `check_maps`.
    """
    check_maps(prepared.release)
    table = prepared.release.split("test")
    read = released_reader(prepared.release.path, prepared.recipe, prepared.release.sources_to_render())
    batches = [table.slice(start, _BATCH) for start in range(0, len(table), _BATCH)]
    predictions = pd.concat([predict(model, _images(read, batch)) for batch in batches], ignore_index=True)
    predictions["image"] = [
        f"{row['source']}: {row['path']}" for row in table.select(["source", "path"]).to_pylist()
    ]
    predictions["true"] = table[prepared.recipe.target].to_pylist()
    certainty = (
        predictions.filter(regex="^p_").max(axis=1)
        if "class" in predictions
        else pd.Series(0.0, predictions.index)
    )
    error = _errors(predictions, certainty, prepared)
    written = []
    for name, ordered in (
        (CLEAREST, certainty[certainty > _CLEAR].sort_values(ascending=False, kind="stable").index),
        ("worst", error[error > 0].sort_values(ascending=False, kind="stable").index),
    ):
        chosen = ordered[:n_maps]
        images = _images(read, table.take(pa.array(chosen, pa.int64())))
        written += save_maps(model, images, folder / name, _captions(predictions.loc[chosen], prepared))
        listed = predictions.loc[chosen]
        write_text(folder / name / "index.csv", frame_to_csv(listed))
    return written


def explain_no_clearest(model: KeptModel, drawn: list[Path]) -> str | None:
    """Return why `draw_maps` wrote no map of clear predictions; None if it did."""
    if any(each.parent.name == CLEAREST for each in drawn):
        return None
    if not model.labels:
        return "the model predicts no classes, so no prediction has a certainty and maps/clearest is empty"
    return f"no prediction on test is more than {_CLEAR:.0%} certain, so maps/clearest is empty"


def _captions(predictions: pd.DataFrame, prepared: CheckInput) -> list[str]:
    """Return true and predicted value or class of each image, as a part of a file name."""
    predicted = predictions[prepared.recipe.target if prepared.numeric else "class"]
    return [
        "_".join(
            f"{name}-{value:.0f}" if prepared.numeric else f"{name}-{_safe_name(str(value))}"
            for name, value in (("true", true), ("predicted", value))
        )
        for true, value in zip(predictions["true"], predicted, strict=True)
    ]


def _safe_name(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text)[:40]


def _images(read: Read, table: pa.Table) -> list[np.ndarray]:
    return [decode(data).rgb for data in read(table)] if len(table) else []


def _errors(predictions: pd.DataFrame, certainty: pd.Series, prepared: CheckInput) -> pd.Series:
    """Return how wrong each prediction is: in POMP units, or the certainty of a wrong class."""
    if prepared.numeric:
        return (predictions[prepared.recipe.target] - predictions["true"]).abs()
    return certainty.where(predictions["class"] != predictions["true"], 0.0)
