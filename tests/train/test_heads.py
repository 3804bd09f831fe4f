"""train.heads and check.evaluate: folds keep groups whole, copies are never scored, nothing leaks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from affectdata.check import metrics
from affectdata.check.evaluate import EvaluateSplit, find_classes, most_similar
from affectdata.check.prepare import Split
from affectdata.labels import cut_values
from affectdata.train.heads import (
    GRIDS,
    FrozenHeads,
    fit_classifier,
    fit_regressor,
    inner_folds,
    out_of_fold,
    quiet_threads,
    with_output,
)
from affectdata.train.rows import Rows
from affectdata.workers import map_ordered


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    with quiet_threads():
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
def test_a_head_equals_scikit_learns_grid_search(planted: Callable[..., Rows], head: str) -> None:
    rows, test = planted(copies=2), planted(seed=1)
    dim = rows.features.shape[1]
    plain, grid = {
        "svr": (
            make_pipeline(StandardScaler(), SVR(epsilon=3)),
            {"svr__C": GRIDS["svr"]["C"], "svr__gamma": [gamma / dim for gamma in GRIDS["svr"]["gamma"]]},
        ),
        "ridge": (make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": GRIDS["ridge"]["alpha"]}),
    }[head]
    search = GridSearchCV(
        plain, grid, cv=inner_folds(rows, rows.stratum, 0), scoring="neg_mean_squared_error"
    )
    expected = search.fit(rows.features, rows.target).predict(test.features)
    predictions = fit_regressor(rows, head, 0).model.predict(test.features)
    assert np.abs(predictions - expected).max() < 1e-6
    assert metrics.r2(test.target, predictions) == pytest.approx(r2_score(test.target, expected), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.5, 8.0, 40.0])
def test_the_local_search_finds_the_optimum_of_the_full_grid(
    planted: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    """The best C is far from the middle, on either side of it."""
    grid = {"C": (1.0, 10.0, 100.0, 1000.0, 10000.0), "gamma": (0.05, 0.2, 0.5, 1.0, 2.0)}
    monkeypatch.setitem(GRIDS, "svr", grid)
    rows = planted(copies=2, noise=noise)
    plain = Pipeline([("scale", StandardScaler()), ("svr", SVR(epsilon=3))])
    gammas = [gamma / rows.features.shape[1] for gamma in grid["gamma"]]
    search = GridSearchCV(
        plain,
        {"svr__C": grid["C"], "svr__gamma": gammas},
        cv=inner_folds(rows, rows.stratum, 0),
        scoring="neg_mean_squared_error",
    ).fit(rows.features, rows.target)
    fitted = fit_regressor(rows, "svr", 0)
    assert fitted.chosen == {name.removeprefix("svr__"): value for name, value in search.best_params_.items()}


def test_settings_on_the_edge_of_the_grid_are_named(planted: Callable[..., Rows]) -> None:
    noise = planted(noise=0.0)
    fitted = fit_regressor(noise, "ridge", 0)  # without noise the smallest penalty is the best
    assert fitted.on_edge == ["alpha"]
    assert fitted.report()["alpha"] == GRIDS["ridge"]["alpha"][0]


def test_weights_have_the_effect_of_copies(planted: Callable[..., Rows]) -> None:
    rows = planted(copies=1)
    twice = np.repeat(np.arange(len(rows)), np.where(rows.target > 60, 2, 1))
    weighted = replace(rows, weight=np.where(rows.target > 60, 2.0, 1.0))
    heavy = fit_regressor(weighted, "ridge", 0)
    copied = fit_regressor(replace(rows.take(twice), copy=np.zeros(len(twice))), "ridge", 0)
    plain = fit_regressor(rows, "ridge", 0)
    test = planted(seed=1).features
    to_copied = np.abs(heavy.model.predict(test) - copied.model.predict(test)).max()
    assert to_copied < np.abs(heavy.model.predict(test) - plain.model.predict(test)).max()


def test_outputs_for_the_second_stage_have_not_seen_their_labels(planted: Callable[..., Rows]) -> None:
    """The labels are pure noise, which the features are able to memorise."""
    n_groups = 60
    rows = planted(n=2 * n_groups, copies=2, dim=300)
    noise = np.random.default_rng(3).uniform(0, 100, n_groups)
    rows = replace(rows, target=np.repeat(noise, 4))
    fitted = fit_regressor(rows, "svr", 0)
    chance = 1 / np.sqrt(n_groups)  # standard error of the correlation of unrelated values
    assert metrics.pearson_r(rows.target, fitted.model.predict(rows.features)) > 6 * chance
    assert metrics.pearson_r(rows.target, out_of_fold(fitted, rows, 0)) < 3 * chance


def test_copies_of_an_image_get_outputs_from_one_model(planted: Callable[..., Rows]) -> None:
    rows = planted(copies=2)
    equal = replace(rows, features=np.repeat(rows.features[::2], 2, axis=0))
    outputs = out_of_fold(fit_regressor(equal, "ridge", 0), equal, 0)
    assert (outputs[::2] == outputs[1::2]).all()


def test_the_classifier_is_trained_on_out_of_fold_outputs(
    planted: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch, recipe_of: Callable[..., object]
) -> None:
    train, test = planted(), planted(seed=1)
    marks = np.linspace(0, 100, len(train))
    seen: list[np.ndarray | None] = []
    monkeypatch.setattr("affectdata.train.heads.out_of_fold", lambda *_: marks)

    def spy(rows: Rows, labels: np.ndarray, output: np.ndarray | None, seed: int) -> object:
        seen.append(output)
        return fit_classifier(rows, labels, output, seed)

    monkeypatch.setattr("affectdata.train.heads.fit_classifier", spy)
    classes = find_classes(recipe_of(), None, ["down", "up"])  # type: ignore[arg-type]
    EvaluateSplit(classes, True, FrozenHeads(0))(Split({"release": train, "originals": train}, test))
    # The release arm only, for two sets of classes: without the output, and with it.
    assert [output is None for output in seen] == [True, False] * 2
    assert all((output == marks).all() for output in seen if output is not None)


def test_searches_on_threads_leave_the_warning_filters_alone(planted: Callable[..., Rows]) -> None:
    rows = planted(n=40)
    labels = np.where(rows.target > 50, "high", "low")
    before = list(warnings.filters)

    def fit(seed: int) -> None:
        fit_classifier(rows, labels, rows.target, seed)
        fit_regressor(rows, "ridge", seed)

    with quiet_threads():
        list(map_ordered(fit, range(6), 4))
    assert list(warnings.filters) == before


def test_the_output_is_a_column_of_its_own(planted: Callable[..., Rows]) -> None:
    x = planted().features
    assert with_output(x, None) is x
    assert with_output(x, np.full(len(x), 60.0))[:, -1].tolist() == [5.0] * len(x)


def test_a_useful_output_helps_the_classifier(planted: Callable[..., Rows]) -> None:
    rows = planted(n=120, dim=200)
    labels = np.where(rows.target > 50, "high", "low")
    unseen = planted(n=120, dim=200, seed=1)
    truth = np.where(unseen.target > 50, "high", "low")
    alone = fit_classifier(rows, labels, None, 0).model.predict(unseen.features)
    output = 50 + 15 * rows.features[:, 0]
    both = fit_classifier(rows, labels, output, 0)
    with_help = both.model.predict(with_output(unseen.features, 50 + 15 * unseen.features[:, 0]))
    assert metrics.accuracy(truth, with_help) > metrics.accuracy(truth, alone)


def test_two_groups_are_enough_and_one_takes_the_middle(planted: Callable[..., Rows]) -> None:
    rows = planted(n=8)
    assert len(inner_folds(replace(rows, group=np.repeat(["a", "b"], 4)), rows.stratum, 0)) == 2
    one = replace(rows, group=np.repeat("a", 8))
    assert fit_regressor(one, "ridge", 0).report() == {"alpha": GRIDS["ridge"]["alpha"][3], "on_edge": []}
    assert len(set(out_of_fold(fit_regressor(one, "ridge", 0), one, 0))) == 1


def test_one_class_is_the_answer_to_everything(
    planted: Callable[..., Rows], recipe_of: Callable[..., object]
) -> None:
    train = replace(planted(), subtype=np.repeat("same", 60))
    classes = find_classes(recipe_of(check={"classes": {}}), None, ["other", "same"])  # type: ignore[arg-type]
    result = EvaluateSplit(classes, True, FrozenHeads(0))(
        Split({"release": train, "originals": train}, planted(seed=1))
    )
    assert set(result.arms["release"].labels["subtype"]["both"]) == {"same"}


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


def test_logistic_paths_choose_what_a_plain_search_chooses(planted: Callable[..., Rows]) -> None:
    rows, test = planted(n=90, copies=2, dim=40), planted(n=90, dim=40, seed=1)
    labels = np.digitize(rows.target, [40, 60]).astype(str)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": GRIDS["logistic"]["C"]},
        cv=inner_folds(rows, labels, 0),
        scoring="neg_log_loss",
    ).fit(rows.features, labels)
    fitted = fit_classifier(rows, labels, None, 0)
    assert fitted.chosen["C"] == search.best_params_["logisticregression__C"]
    expected = search.best_estimator_.predict_proba(test.features)
    assert np.abs(fitted.model.predict_proba(test.features) - expected).max() < 1e-3


def test_the_same_row_twice_is_a_row_of_weight_2(planted: Callable[..., Rows]) -> None:
    rows, test = planted(), planted(seed=1)
    weight = np.where(rows.target > 60, 2.0, 1.0)
    twice = rows.take(np.repeat(np.arange(len(rows)), weight.astype(int)))
    for head in ("svr", "ridge"):
        heavy, copied = (fit_regressor(some, head, 0).model for some in (rows.weighted(weight), twice))
        assert np.abs(heavy.predict(test.features) - copied.predict(test.features)).max() < 0.05


def test_the_most_similar_row_is_that_of_the_largest_cosine() -> None:
    x = np.array([[1.0, 0.0], [0.0, 2.0]])
    index, cosine = most_similar(x, np.array([[0.0, 5.0], [3.0, 0.1], [1.0, 1.0]]))
    assert index.tolist() == [1, 0]
    assert cosine == pytest.approx([3 / np.hypot(3, 0.1), 1.0])


def test_arms_of_the_same_rows_and_weights_are_trained_once(
    planted: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example the release of a recipe with weights and no copies, and the arm `weights`."""
    train, test = planted(), planted(seed=1)
    weighted = train.weighted(np.where(train.target > 60, 2.0, 1.0))
    seen: list[str] = []

    def spy(rows: Rows, head: str, seed: int) -> object:
        seen.append(head)
        return fit_regressor(rows, head, seed)

    monkeypatch.setattr("affectdata.train.heads.fit_regressor", spy)
    arms = {"release": weighted, "originals": train, "weights": weighted.weighted(weighted.weight)}
    result = EvaluateSplit([], True, FrozenHeads(0))(Split(arms, test))
    assert sorted(seen) == ["regressor", "regressor", "ridge", "ridge"]
    assert (result.arms["weights"].values["regressor"] == result.arms["release"].values["regressor"]).all()
    assert (result.arms["weights"].values["regressor"] != result.arms["originals"].values["regressor"]).any()


@pytest.mark.slow
def test_labels_are_shuffled_by_image_and_cannot_be_learnt(planted: Callable[..., Rows]) -> None:
    train, test = planted(n=120), planted(n=120, seed=1)
    test = replace(test, image_id=np.array([f"other{number}" for number in range(120)]))
    unseen = EvaluateSplit([], True, FrozenHeads(0))(
        Split({"release": train, "originals": train}, test)
    ).shuffled
    assert unseen is not None
    assert sorted([*unseen[0]]) != sorted(test.target) and set(unseen[0]) <= {*train.target, *test.target}
    assert metrics.r2(*unseen) < 0.1
    # An image on both sides has the same label on both, and is recognised.
    seen = EvaluateSplit([], True, FrozenHeads(0))(
        Split({"release": train, "originals": train}, train)
    ).shuffled
    assert seen is not None
    assert metrics.pearson_r(*seen) > metrics.pearson_r(*unseen) + 0.2


def test_several_networks_get_an_equal_share_of_the_kernel(planted: Callable[..., Rows]) -> None:
    """The SVR is that on the mean over networks of squared distance by number of features that vary."""
    wide, narrow = planted(dim=40, seed=1).features, planted(dim=6, seed=2).features
    dead = np.full((len(wide), 9), 0.5)
    widths = (49, 6)
    rows = replace(planted(), features=np.hstack([wide, dead, narrow]), widths=widths)
    train, test = rows.take(np.arange(40)), rows.take(np.arange(40, 60))
    assert train.widths == Rows.concat([train, test]).widths == widths
    fitted = fit_regressor(train, "svr", 0)
    squares = 0.0
    for part, n_live in ((np.arange(40), 40), (np.arange(49, 55), 6)):
        scale = StandardScaler().fit(train.features[:, part])
        a, b = (scale.transform(side.features[:, part]) for side in (train, test))
        both = np.vstack([a, b])
        squares = squares + cdist(both, a, "sqeuclidean") / n_live / 2
    gamma = fitted.chosen["gamma"] * rows.features.shape[1]
    kernel = np.exp(-gamma * np.asarray(squares))
    plain = SVR(kernel="precomputed", C=fitted.chosen["C"], epsilon=3).fit(kernel[:40], train.target)
    assert fitted.predict(test) == pytest.approx(plain.predict(kernel[40:]), abs=1e-3)
