"""train.subtype_aware and train.outputs: equal to scikit-learn, trained out of fold, group-safe, kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.compose import TransformedTargetRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import affectdata
from affectdata.check import metrics
from affectdata.errors import InputError
from affectdata.train import subtype_aware
from affectdata.train.backbones import Backbone
from affectdata.train.heads import fit_regressor, inner_folds, out_of_fold, quiet_threads
from affectdata.train.kept import make_model
from affectdata.train.model_file import keep_model
from affectdata.train.outputs import fit_calibrated, fit_stacked
from affectdata.train.plain_heads import PlainHead, plain_head
from affectdata.train.rows import Rows
from affectdata.train.subtype_aware import (
    KERNEL_GRID,
    STACK_ALPHAS,
    TEMPERATURES,
    SubtypeAwareFits,
    can_fit,
    fit_subtype_aware,
    one_hot,
)

NAMES = np.array(["A", "N", "P"])
MEANS = {"A": 20.0, "N": 50.0, "P": 80.0}


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    with quiet_threads():
        yield


def by_subtype(n: int = 150, seed: int = 0, dim: int = 8, signal: float = 1.5) -> Rows:
    """Rows whose target is nearly the mean of their subtype, which follows from the features."""
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 3, n)
    centres = np.random.default_rng(99).normal(size=(3, dim))
    x = signal * centres[code] + rng.normal(size=(n, dim))
    subtype = NAMES[code]
    y = np.array([MEANS[name] for name in subtype]) + rng.normal(0, 4, n)
    names = np.array([f"image{number:04d}-{seed}" for number in range(n)])
    return Rows(
        features=x,
        target=y,
        image_id=names,
        group=names[np.arange(n) // 2 * 2],
        copy=np.zeros(n, int),
        subtype=subtype,
        source=np.full(n, "made"),
        stratum=np.digitize(y, [35, 65]),
        weight=np.ones(n),
        pool_index=np.arange(n),
    )


def in_plain_scikit_learn(rows: Rows, test: Rows, seed: int) -> np.ndarray:
    """The same head from scikit-learn's searches; only the folds are those of the package."""
    folds, dim = inner_folds(rows, rows.stratum, seed), rows.features.shape[1]
    grid = {
        "regressor__kernelridge__alpha": KERNEL_GRID["alpha"],
        "regressor__kernelridge__gamma": [gamma / dim for gamma in KERNEL_GRID["gamma"]],
    }

    def fit(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        plain = make_pipeline(StandardScaler(), KernelRidge(kernel="rbf"))
        centred = TransformedTargetRegressor(plain, transformer=StandardScaler(with_std=False))
        search = GridSearchCV(centred, grid, cv=folds, scoring="neg_mean_squared_error")
        best = search.fit(rows.features, targets).best_estimator_
        return cross_val_predict(best, rows.features, targets, cv=folds), best.predict(test.features)

    values, scores = fit(rows.target), fit(one_hot(rows.subtype, NAMES))
    order = np.concatenate([side for _, side in folds])
    ordered = rows.take(order)
    stack_folds = inner_folds(ordered, ordered.stratum, seed + 3)

    def columns(side: int, temperature: float) -> np.ndarray:
        value, share = values[side][:, None] - 50, softmax(scores[side] / temperature, axis=1)
        return np.hstack([value, share, value * share])

    errors = {
        (temperature, alpha): -cross_val_score(
            make_pipeline(StandardScaler(), Ridge(alpha=alpha)),
            columns(0, temperature)[order],
            ordered.target,
            cv=stack_folds,
            scoring="neg_mean_squared_error",
        ).mean()
        for temperature in TEMPERATURES
        for alpha in STACK_ALPHAS
    }
    temperature, alpha = min(errors, key=lambda setting: errors[setting])
    stack = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(
        columns(0, temperature)[order], ordered.target
    )
    return np.clip(stack.predict(columns(1, temperature)), rows.target.min(), rows.target.max())


@pytest.mark.slow
@pytest.mark.parametrize("signal", [0.5, 1.5])
def test_the_head_equals_plain_scikit_learn(signal: float) -> None:
    rows, test = by_subtype(signal=signal), by_subtype(seed=1, signal=signal)
    predicted, expected = fit_subtype_aware(rows, 7).predict(test), in_plain_scikit_learn(rows, test, 7)
    assert predicted == pytest.approx(expected, abs=1e-6)
    assert metrics.r2(test.target, predicted) == pytest.approx(metrics.r2(test.target, expected), abs=1e-4)


def test_it_gains_by_the_subtypes_and_not_by_shuffled_ones() -> None:
    rows, test = by_subtype(), by_subtype(seed=1)
    shuffled = np.random.default_rng(5).permutation(rows.subtype)
    fits = SubtypeAwareFits(rows, {"true": rows.subtype, "shuffled": shuffled}, 0)
    squares = subtype_aware.squared_distances(fits.scaler.transform(test.features), fits.vectors)
    plain = metrics.r2(test.target, fits.value(squares)[:, 0])
    aware, control = (metrics.r2(test.target, fits.fit(name).predict(test)) for name in ("true", "shuffled"))
    oracle = fits.fit_oracle("true")
    bound = metrics.r2(test.target, oracle.predict(test, one_hot(test.subtype, oracle.labels)))
    assert aware > plain + 0.03
    assert abs(control - plain) < 0.03
    assert bound > max(aware, 0.9)


def test_a_class_of_one_image_does_not_make_predictions_explode() -> None:
    rows, test = by_subtype(), by_subtype(seed=1)
    labels = rows.subtype.copy()
    labels[0] = "rare"
    far = replace(rows, features=np.vstack([50 + rows.features[:1], rows.features[1:]]), subtype=labels)
    odd = replace(test, features=np.vstack([50 + test.features[:1], test.features[1:]]))
    predicted = fit_subtype_aware(far, 0).predict(odd)
    assert rows.target.min() <= predicted.min() and predicted.max() <= rows.target.max()
    assert metrics.r2(test.target[1:], predicted[1:]) > 0.5


def test_labels_do_not_change_each_others_heads() -> None:
    rows, test = by_subtype(), by_subtype(seed=1)
    shuffled = np.random.default_rng(5).permutation(rows.subtype)
    together = SubtypeAwareFits(rows, {"shuffled": shuffled, "true": rows.subtype}, 0).fit("true")
    assert together.predict(test) == pytest.approx(fit_subtype_aware(rows, 0).predict(test), abs=1e-9)


def test_the_last_step_is_trained_out_of_fold() -> None:
    """The features are noise that is able to memorise the subtypes: nothing can be known of new images."""
    rows, test = by_subtype(dim=300, signal=0.0), by_subtype(seed=1, dim=300, signal=0.0)
    head = fit_subtype_aware(rows, 0)
    assert metrics.r2(test.target, head.predict(test)) > -0.1
    assert head.predict(rows).std() < 0.5 * rows.target.std()  # in fold, the subtypes look certain


def test_folds_keep_groups_whole_and_score_originals_only() -> None:
    rows = by_subtype()
    copies = replace(rows.take(np.repeat(np.arange(len(rows)), 2)), copy=np.tile([0, 1], len(rows)))
    fits = SubtypeAwareFits(copies, {"subtype": copies.subtype}, 0)
    assert (copies.copy[fits.covered] == 0).all() and len(fits.covered) == len(rows)
    for train, test in fits.folds:
        assert not set(copies.group[train]) & set(copies.group[test])


def test_it_needs_two_subtypes_and_a_few_groups() -> None:
    rows = by_subtype()
    assert can_fit(rows)
    assert not can_fit(replace(rows, subtype=np.full(len(rows), "")))
    assert not can_fit(replace(rows, group=np.full(len(rows), "one")))


def test_calibration_widens_half_way_to_the_targets() -> None:
    rows, test = by_subtype(signal=0.5), by_subtype(seed=1, signal=0.5)
    regressor = fit_regressor(rows, "svr", 0)
    outputs = out_of_fold(regressor, rows, 0)
    calibrated = fit_calibrated(regressor, outputs, rows)
    plain, wider = regressor.predict(test), calibrated.predict(test)
    assert (np.diff(wider[np.argsort(plain)]) >= 0).all()
    middle = (np.quantile(outputs, 0.25) + np.quantile(rows.target, 0.25)) / 2
    knots = np.array([np.quantile(outputs, 0.25)])
    mapped = np.interp(knots, calibrated.predicted, calibrated.true)
    assert (knots + mapped) / 2 == pytest.approx(middle, abs=1e-9)
    assert plain.std() < wider.std() < rows.target.std()


@pytest.mark.slow
def test_a_stack_uses_a_model_of_other_images_that_knows_more() -> None:
    rows, test = by_subtype(n=40), by_subtype(seed=1)
    regressor, source = fit_regressor(rows, "svr", 0), fit_regressor(by_subtype(n=400, seed=2), "svr", 0)
    stacked = fit_stacked(regressor, source, out_of_fold(regressor, rows, 0), rows, 0)
    better, plain = (metrics.r2(test.target, model.predict(test)) for model in (stacked, regressor))
    assert better > plain + 0.02


# Kept.


def heads(dim: int, rows: Rows) -> dict[str, Any]:
    regressor = fit_regressor(rows, "svr", 0)
    outputs = out_of_fold(regressor, rows, 0)
    source = fit_regressor(by_subtype(seed=2, dim=dim), "svr", 0)
    return {
        "subtype_aware": fit_subtype_aware(rows, 0),
        "calibrated": fit_calibrated(regressor, outputs, rows),
        "stacked": fit_stacked(regressor, source, outputs, rows, 0),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["subtype_aware", "calibrated", "stacked"])
def test_a_head_as_arrays_predicts_the_same(kind: str) -> None:
    rows, test = by_subtype(), by_subtype(seed=1)
    head = heads(8, rows)[kind]
    plain = plain_head(head)
    assert plain.kind == kind
    features = torch.from_numpy(test.features).requires_grad_()
    values = plain(features)
    assert values.shape == (len(test), 1)
    assert values[:, 0].detach().numpy() == pytest.approx(head.predict(test), abs=1e-8)
    values.sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None and features.grad.abs().sum() > 0  # for saliency maps


def test_arrays_of_inconsistent_shapes_are_rejected() -> None:
    plain = plain_head(fit_subtype_aware(by_subtype(), 0))
    for name in ("coef", "subtype_dual", "temperature"):
        changed = {**plain.arrays, name: torch.zeros(5)}
        with pytest.raises(InputError, match="inconsistent shapes"):
            PlainHead("subtype_aware", changed)


def test_a_kept_head_comes_back(backbone: Backbone, planted: Callable[..., Rows], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = np.clip(rng.normal(rng.uniform(40, 200, (24, 1, 1, 3)), 30, (24, 64, 64, 3)), 0, 255)
    images = images.astype(np.uint8)
    light = images.mean((1, 2, 3)) / 2.55
    size_px = backbone.normalisation.size_px
    large = np.repeat(np.repeat(images, size_px // 64, 1), size_px // 64, 2)
    x = backbone.features(large).astype(np.float64)
    rows = replace(planted(24), features=x, target=light, stratum=(light > 50).astype(int))
    head = fit_subtype_aware(replace(rows, subtype=np.where(light > 50, "up", "down")), 0)
    keep_model(make_model(backbone, head), tmp_path / "model.safetensors")
    predictions = affectdata.predict(tmp_path / "model.safetensors", list(large))
    assert predictions["valence"].to_numpy() == pytest.approx(head.predict(rows), abs=1e-3)
