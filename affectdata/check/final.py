"""The model of a release: regressor and classifier, or those of its target, on all of its train rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from affectdata.check.arms import CALIBRATED, PLAIN, STACKED, SUBTYPE_AWARE
from affectdata.check.evaluate import find_classes
from affectdata.check.prepare import CheckInput
from affectdata.check.target_model import (
    describe_training,
    fit_target_heads,
    network_of_target,
    start_of,
)
from affectdata.check.tuned import LazyNetwork, TunedNetworks
from affectdata.errors import InputError, UsageError
from affectdata.train.heads import (
    N_FOLDS,
    FittedHead,
    fit_classifier,
    fit_regressor,
    out_of_fold,
    predict_out_of_fold,
    quiet_threads,
)
from affectdata.train.kept import FrozenModel, Stage, TunedModel, make_model, no_model
from affectdata.train.outputs import Calibrated, Stacked, fit_calibrated, fit_stacked
from affectdata.train.rows import Rows
from affectdata.train.subtype_aware import can_fit, fit_subtype_aware


def fit_final(prepared: CheckInput, head: str = PLAIN) -> FrozenModel:
    """Fit regressor and classifier on the release's train rows, or the heads of a target of several values.

    The classifier is that of the recipe's target. A `head` other than the plain one is fitted on the
    originals of these rows, as its arm in the check is.

    Raises:
        InputError: there is nothing to predict: the target is not numeric and has one class; or as in
            `check_head`.
    """
    check_head(prepared, head)
    seed, target = prepared.recipe.seed, prepared.target
    train = prepared.train if head == PLAIN else _own_originals(prepared)
    trained_on = describe_training(prepared.release, len(train), source_of(prepared, head))
    if target:
        return fit_target_heads(target, prepared.backbone, train, None, seed, trained_on)
    regressor, classifier, outputs = None, None, None
    with quiet_threads():
        labels = _labels_of(prepared, train)
        if prepared.numeric:
            fit = _regressor_of(prepared, head)
            regressor = fit(train)
            if len(labels) and head == PLAIN:  # as the check trained its classifier
                outputs = out_of_fold(regressor, train, seed)
            elif len(labels):
                outputs = predict_out_of_fold(fit, train, seed, N_FOLDS)
        if len(labels):
            classifier = fit_classifier(train, labels, outputs, seed)
    return make_model(
        prepared.backbone,
        regressor.model if isinstance(regressor, FittedHead) else regressor,
        classifier and classifier.model,
        prepared.recipe.target,
        trained_on,
    )


def source_of(prepared: CheckInput, head: str) -> list[dict[str, Any]]:
    """Return title, terms and more of the other source that a stacked head is trained on too."""
    return [prepared.terms[head.removeprefix(STACKED)]] if head.startswith(STACKED) else []


def fit_final_networks(prepared: CheckInput, learner: TunedNetworks) -> TunedModel:
    """Fine-tune a network for the target on the release's train rows, and one for its classes.

    Raises:
        InputError: there is nothing to predict: the target is not numeric and has one class.
    """
    train, fitted = prepared.train, dict[Stage, LazyNetwork]()
    start, trained_on = prepared.backbone.weights_sha256, describe_training(prepared.release, len(train))
    if target := prepared.target:
        network = learner.target_network(train, target).trained()
        return network_of_target(target, network, start_of(network, start), trained_on)
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
        trained_on=trained_on,
        networks=networks,
        start=start_of(next(iter(networks.values())), start),
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
        target = prepared.target.name if prepared.target else prepared.recipe.target
        raise InputError(
            f"the head {head} predicts one number, and the target {target} is not one",
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
