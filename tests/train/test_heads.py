"""train.heads, evaluate, compare: folds keep groups whole, copies are never scored, nothing leaks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from affectdata import metrics
from affectdata.labels import cut_values
from affectdata.train.compare import compare_arms, draw_weights
from affectdata.train.evaluate import find_classes, predict_arm, score_values
from affectdata.train.heads import (
    GRIDS,
    Rows,
    cores,
    fit_classifier,
    fit_regressor,
    inner_folds,
    out_of_fold,
    with_output,
)


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    with cores(2):
        yield


def test_inner_folds_score_originals_only_and_split_no_group(planted: Callable[..., Rows]) -> None:
    rows = planted(copies=3)
    folds = inner_folds(rows, rows.stratum, 0)
    assert len(folds) == 5
    for train, test in folds:
        assert (rows.copy[test] == 0).all()
        assert not set(rows.group[train]) & set(rows.group[test])
        assert set(rows.copy[train]) == {0, 1, 2}
    assert sorted(np.concatenate([test for _, test in folds])) == np.flatnonzero(rows.copy == 0).tolist()


@pytest.mark.parametrize("head", ["svr", "ridge"])
def test_a_head_is_plain_scikit_learn(planted: Callable[..., Rows], head: str) -> None:
    rows, test = planted(copies=2), planted(seed=1)
    dim = rows.x.shape[1]
    plain, grid = {
        "svr": (
            make_pipeline(StandardScaler(), SVR(epsilon=3)),
            {"svr__C": GRIDS["svr"]["C"], "svr__gamma": [each / dim for each in GRIDS["svr"]["gamma"]]},
        ),
        "ridge": (make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": GRIDS["ridge"]["alpha"]}),
    }[head]
    search = GridSearchCV(
        plain, grid, cv=inner_folds(rows, rows.stratum, 0), scoring="neg_mean_squared_error"
    )
    expected = search.fit(rows.x, rows.y).predict(test.x)
    found = fit_regressor(rows, head, 0).model.predict(test.x)
    assert np.abs(found - expected).max() < 1e-6
    assert metrics.r2(test.y, found) == pytest.approx(r2_score(test.y, expected), abs=1e-6)


def test_what_lies_on_the_edge_of_the_grid_is_named(planted: Callable[..., Rows]) -> None:
    noise = planted(noise=0.0)
    fitted = fit_regressor(noise, "ridge", 0)  # without noise the smallest penalty is the best
    assert fitted.on_edge == ["alpha"]
    assert fitted.report()["alpha"] == GRIDS["ridge"]["alpha"][0]


def test_weights_do_what_copies_do(planted: Callable[..., Rows]) -> None:
    rows = planted(copies=1)
    twice = np.repeat(np.arange(len(rows)), np.where(rows.y > 60, 2, 1))
    weighted = replace(rows, weight=np.where(rows.y > 60, 2.0, 1.0))
    heavy = fit_regressor(weighted, "ridge", 0)
    copied = fit_regressor(replace(rows.take(twice), copy=np.zeros(len(twice))), "ridge", 0)
    plain = fit_regressor(rows, "ridge", 0)
    test = planted(seed=1).x
    to_copied = np.abs(heavy.model.predict(test) - copied.model.predict(test)).max()
    assert to_copied < np.abs(heavy.model.predict(test) - plain.model.predict(test)).max()


def test_outputs_for_the_second_stage_have_not_seen_their_labels(planted: Callable[..., Rows]) -> None:
    """Plant labels that are pure noise, on features that can hold them by heart."""
    n_groups = 60
    rows = planted(n=2 * n_groups, copies=2, dim=300)
    noise = np.random.default_rng(3).uniform(0, 100, n_groups)
    rows = replace(rows, y=np.repeat(noise, 4))
    fitted = fit_regressor(rows, "svr", 0)
    chance = 1 / np.sqrt(n_groups)  # standard error of a correlation of nothing with nothing
    assert metrics.pearson_r(rows.y, fitted.model.predict(rows.x)) > 6 * chance
    assert metrics.pearson_r(rows.y, out_of_fold(fitted, rows, 0)) < 3 * chance


def test_copies_of_a_picture_get_outputs_from_one_model(planted: Callable[..., Rows]) -> None:
    rows = planted(copies=2)
    equal = replace(rows, x=np.repeat(rows.x[::2], 2, axis=0))
    outputs = out_of_fold(fit_regressor(equal, "ridge", 0), equal, 0)
    assert (outputs[::2] == outputs[1::2]).all()


def test_the_classifier_trains_on_what_out_of_fold_gave(
    planted: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch, recipe_of: Callable[..., object]
) -> None:
    train, test = planted(), planted(seed=1)
    marks = np.linspace(0, 100, len(train))
    seen: list[np.ndarray | None] = []
    monkeypatch.setattr("affectdata.train.evaluate.out_of_fold", lambda *_: marks)

    def spy(rows: Rows, labels: np.ndarray, output: np.ndarray | None, seed: int) -> object:
        seen.append(output)
        return fit_classifier(rows, labels, output, seed)

    monkeypatch.setattr("affectdata.train.evaluate.fit_classifier", spy)
    classes = find_classes(recipe_of(), None, ["down", "up"])  # type: ignore[arg-type]
    predict_arm(train, test, classes, True, 0)
    assert [output is marks for output in seen] == [False, True] * 2
    assert seen[0] is None


def test_searches_on_threads_leave_the_warning_filters_alone(planted: Callable[..., Rows]) -> None:
    rows = planted(n=40)
    labels = np.where(rows.y > 50, "high", "low")
    before = list(warnings.filters)
    with cores(4):
        for seed in range(6):
            fit_classifier(rows, labels, rows.y, seed)
            fit_regressor(rows, "ridge", seed)
    assert list(warnings.filters) == before


def test_the_output_is_a_column_of_its_own(planted: Callable[..., Rows]) -> None:
    x = planted().x
    assert with_output(x, None) is x
    assert with_output(x, np.full(len(x), 60.0))[:, -1].tolist() == [5.0] * len(x)


def test_a_useful_output_helps_the_classifier(planted: Callable[..., Rows]) -> None:
    rows = planted(n=120, dim=200)
    labels = np.where(rows.y > 50, "high", "low")
    unseen = planted(n=120, dim=200, seed=1)
    truth = np.where(unseen.y > 50, "high", "low")
    alone = fit_classifier(rows, labels, None, 0).model.predict(unseen.x)
    output = 50 + 15 * rows.x[:, 0]
    both = fit_classifier(rows, labels, output, 0)
    told = both.model.predict(with_output(unseen.x, 50 + 15 * unseen.x[:, 0]))
    assert metrics.accuracy(truth, told) > metrics.accuracy(truth, alone)


def test_two_groups_are_enough_and_one_takes_the_middle(planted: Callable[..., Rows]) -> None:
    rows = planted(n=8)
    assert len(inner_folds(replace(rows, group=np.repeat(["a", "b"], 4)), rows.stratum, 0)) == 2
    one = replace(rows, group=np.repeat("a", 8))
    assert fit_regressor(one, "ridge", 0).report() == {"alpha": GRIDS["ridge"]["alpha"][4], "on_edge": []}
    assert len(set(out_of_fold(fit_regressor(one, "ridge", 0), one, 0))) == 1


def test_one_class_is_the_answer_to_everything(
    planted: Callable[..., Rows], recipe_of: Callable[..., object]
) -> None:
    train = replace(planted(), part=np.repeat("same", 60))
    classes = find_classes(recipe_of(check={"classes": {}}), None, ["other", "same"])  # type: ignore[arg-type]
    found = predict_arm(train, planted(seed=1), classes, True, 0).labels["subtype"]
    assert set(found["both"]) == {"same"}


def test_thresholds_belong_to_neutral() -> None:
    names = ["negative", "neutral", "positive"]
    assert cut_values(np.array([39.999, 40, 60, 60.001]), [40, 60], names).tolist() == [
        "negative",
        "neutral",
        "neutral",
        "positive",
    ]
    assert cut_values(np.array([50, 50.1]), [50], ["negative", "positive"]).tolist() == [
        "negative",
        "positive",
    ]


def test_a_collapsed_head_is_named(planted: Callable[..., Rows]) -> None:
    rows = planted()
    flat = rows.y.mean() + 0.1 * (rows.y - rows.y.mean())
    assert score_values(rows, flat, [0, 50, 100], None)["mean_collapse"]
    assert not score_values(rows, rows.y, [0, 50, 100], None)["mean_collapse"]


def test_resamples_draw_groups_and_keep_the_size_of_bins() -> None:
    group = np.array(["a", "a", "b", "c", "d", "e"])
    bins = np.array([0, 0, 0, 1, 1, 1])
    drawn = draw_weights(group, bins, 200, np.random.default_rng(0))
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 3:].sum(1) == 3).all()
    assert (drawn[:, 1] + drawn[:, 2] == 2).all()
    assert drawn.mean() == pytest.approx(1, abs=0.1)


def test_a_comparison_has_the_plain_differences_and_an_interval_around_them() -> None:
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 100, 300)
    good, bad = y + rng.normal(0, 10, 300), y + rng.normal(0, 20, 300)
    edges = [0, 25, 50, 75, 100]
    found = compare_arms(y, good, bad, np.arange(300).astype(str), edges, 0, 500)
    for name in ("r2", "ccc", "mae"):
        measure = getattr(metrics, name)
        assert found[name]["difference"] == pytest.approx(measure(y, good) - measure(y, bad))
    expected = metrics.macro_mae(y, good, edges) - metrics.macro_mae(y, bad, edges)
    assert found["macro_mae"]["difference"] == pytest.approx(expected)
    for each in found.values():
        assert each["low"] < each["difference"] < each["high"]
    assert found["r2"]["low"] > 0 and found["macro_mae"]["high"] < 0
    same = compare_arms(y, good, good, np.arange(300).astype(str), edges, 0, 100)
    assert all(set(each.values()) == {0.0} for each in same.values())
    assert compare_arms(y, good, bad, np.arange(300).astype(str), edges, 0, 500) == found
