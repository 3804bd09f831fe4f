"""check.subtype_aware, outputs, networks and transfer: arms of another head, output or other features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from affectdata.check import metrics
from affectdata.check.networks import predict_network_arms
from affectdata.check.outputs import fit_sources, predict_output_arms
from affectdata.check.subtype_aware import predict_subtype_arms
from affectdata.check.transfer import score_transfer
from affectdata.train.heads import fit_regressor, out_of_fold, quiet_threads
from affectdata.train.rows import Rows


@pytest.fixture(autouse=True)
def _one_blas_thread() -> Iterator[None]:
    with quiet_threads():
        yield


@pytest.fixture
def sides(planted: Callable[..., Rows]) -> tuple[Rows, Rows]:
    return planted(n=80), planted(seed=1)


@pytest.mark.slow
def test_the_subtype_arms_are_deterministic_and_need_subtypes(sides: tuple[Rows, Rows]) -> None:
    train, test = sides
    first, second = (predict_subtype_arms(train, test, 3) for _ in range(2))
    names = ["subtype_aware", "subtype_shuffled", "subtype_clusters", "subtype_alone", "subtype_oracle"]
    assert list(first) == names
    assert all((first[name][0] == second[name][0]).all() for name in names)
    assert {"alpha", "temperature", "on_edge"} <= set(first["subtype_aware"][1])
    for subtypes in (np.full(len(train), ""), train.image_id):  # none, or more than 50
        assert predict_subtype_arms(replace(train, subtype=subtypes), test, 3) == {}


@pytest.mark.slow
def test_no_arm_but_the_oracle_sees_the_subtypes_of_test(sides: tuple[Rows, Rows]) -> None:
    train, test = sides
    other = replace(test, subtype=np.full(len(test), "up"), target=np.zeros(len(test)))
    for name, (values, _) in predict_subtype_arms(train, test, 3).items():
        same = (predict_subtype_arms(train, other, 3)[name][0] == values).all()
        assert same == (name != "subtype_oracle")


def test_output_arms(sides: tuple[Rows, Rows], planted: Callable[..., Rows]) -> None:
    train, test = sides
    regressor = fit_regressor(train, "svr", 0)
    sources = fit_sources({"large": planted(n=300, seed=2, noise=1.0), "small": planted(n=20, seed=3)}, 0)
    assert set(sources) == {"large"}
    arms = predict_output_arms(regressor, out_of_fold(regressor, train, 0), train, test, sources, 0)
    assert set(arms) == {"calibrated", "widened", "stacked:large", "unstacked:large"}
    plain = regressor.predict(test)
    assert arms["widened"][0].std() == pytest.approx(1.1 * plain.std())
    assert arms["widened"][0].mean() == pytest.approx(plain.mean())
    r2 = {name: metrics.r2(test.target, values) for name, (values, _) in arms.items()}
    assert r2["stacked:large"] > r2["unstacked:large"] + 0.01


def test_a_second_network_is_compared_with_the_first_alone_and_with_shuffled_features(
    sides: tuple[Rows, Rows],
) -> None:
    assert predict_network_arms(*sides, 0) == {}
    # The signal is in column 0: of the second network, once the order of the columns is reversed.
    train, test = (replace(rows, features=rows.features[:, ::-1], widths=(6, 6)) for rows in sides)
    arms = predict_network_arms(train, test, 0)
    both = fit_regressor(train, "svr", 0).predict(test)
    r2 = {name: metrics.r2(test.target, values) for name, (values, _) in arms.items()}
    assert set(r2) == {"first_network", "shuffled_network"}
    assert max(r2.values()) < 0.3 < metrics.r2(test.target, both)
    changed = replace(test, features=np.hstack([test.features[:, :6], np.zeros((len(test), 6))]))
    assert (predict_network_arms(train, changed, 0)["first_network"][0] == arms["first_network"][0]).all()


@pytest.mark.slow
def test_transfer_scores_both_heads_on_images_of_another_source(
    sides: tuple[Rows, Rows], planted: Callable[..., Rows]
) -> None:
    train, other = sides[0], planted(n=60, seed=4)
    assert score_transfer(train, {}, 0) == {}
    scored = score_transfer(train, {"other": other}, 0)["other"]
    plain = fit_regressor(train, "svr", 0).predict(other)
    assert scored.n == 60
    assert scored.plain.r2.mean == pytest.approx(metrics.r2(other.target, plain))
    assert scored.plain.r2.low < scored.plain.r2.mean < scored.plain.r2.high  # type: ignore[operator]
    assert scored.subtype_aware is not None
    without = replace(train, subtype=np.full(len(train), ""))
    assert score_transfer(without, {"other": other}, 0)["other"].subtype_aware is None
