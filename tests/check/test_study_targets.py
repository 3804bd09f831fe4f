"""check.study_targets: points, label sets, shares of raters, and classes with a polarity."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from scipy import stats
from scipy.optimize import minimize
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import average_precision_score, f1_score

from affectdata.check import share_metrics
from affectdata.check.metrics import lower_is_better
from affectdata.check.study import Study
from affectdata.check.trials import study_release
from affectdata.errors import InputError, UsageError
from affectdata.recipe.target import TargetSpec
from affectdata.release.release import Release
from affectdata.train import share_heads
from affectdata.train.losses import polarity_cross_entropy
from affectdata.train.rows import Rows
from affectdata.train.task import Settings

RNG = np.random.default_rng(0)


def make_rows(features: np.ndarray, stratum: np.ndarray | None = None) -> Rows:
    n = len(features)
    names = np.array([str(row) for row in range(n)])
    zeros = np.zeros(n, int)
    codes = zeros if stratum is None else stratum
    return Rows(features, np.zeros(n), names, names, zeros, names, names, codes, np.ones(n), np.arange(n))


def flags_and_probabilities() -> tuple[np.ndarray, np.ndarray]:
    flags = (RNG.random((60, 4)) < (0.5, 0.3, 0.1, 0.6)).astype(int)
    return flags, np.clip(0.5 * flags + RNG.random((60, 4)) * 0.7, 0, 1)


def test_scores_of_label_sets_are_those_of_scikit_learn_and_by_hand() -> None:
    flags, probabilities = flags_and_probabilities()
    found = (probabilities >= 0.5).astype(int)
    hits, wrong, missed = (flags & found).sum(), ((1 - flags) & found).sum(), (flags & (1 - found)).sum()
    assert share_metrics.micro_f1(flags, probabilities) == pytest.approx(
        2 * hits / (2 * hits + wrong + missed)
    )
    by_label = [f1_score(flags[:, at], found[:, at]) for at in range(4)]
    assert share_metrics.sets_macro_f1(flags, probabilities) == pytest.approx(np.mean(by_label))
    precision = [average_precision_score(flags[:, at], probabilities[:, at]) for at in range(4)]
    assert share_metrics.mean_average_precision(flags, probabilities) == pytest.approx(np.mean(precision))
    table = share_metrics.per_label(flags, probabilities, ["a", "b", "c", "d"])
    assert [row["f1"] for row in table] == pytest.approx(by_label)
    assert [row["n"] for row in table] == flags.sum(0).tolist()


def test_a_label_that_never_occurs_has_no_average_precision() -> None:
    flags, probabilities = flags_and_probabilities()
    flags[:, 2] = 0
    kept = [average_precision_score(flags[:, at], probabilities[:, at]) for at in (0, 1, 3)]
    assert share_metrics.mean_average_precision(flags, probabilities) == pytest.approx(np.mean(kept))
    assert share_metrics.per_label(flags, probabilities, list("abcd"))[2]["average_precision"] is None
    assert np.isnan(share_metrics.mean_average_precision(0 * flags, probabilities))


def test_divergences_are_those_of_scipy() -> None:
    true, predicted = RNG.dirichlet([1, 2, 3, 1], 40), RNG.dirichlet([2, 1, 1, 2], 40)
    true[0] = [0, 0, 1, 0]
    pairs = list(zip(true, predicted, strict=True))
    assert share_metrics.kl(true, predicted) == pytest.approx(
        np.mean([stats.entropy(p, q) for p, q in pairs])
    )
    js = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in pairs])
    assert share_metrics.js(true, predicted) == pytest.approx(js)
    places = np.arange(4)
    emd = np.mean([stats.wasserstein_distance(places, places, p, q) for p, q in pairs])
    assert share_metrics.emd(true, predicted) == pytest.approx(emd)
    assert np.isfinite(share_metrics.kl(true, np.eye(4)[np.zeros(40, int)]))
    assert share_metrics.kl(true, true) == pytest.approx(0, abs=1e-5)


def test_the_head_of_shares_minimises_their_cross_entropy() -> None:
    """Against a general optimiser of the same penalised loss, and it recovers the shares of new images."""
    x = RNG.normal(size=(120, 3))
    logits = x @ RNG.normal(size=(3, 4)) * 0.7
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    c = 0.1
    model = share_heads._fit(x, shares, np.ones(120), c, tol=1e-8)

    def loss(flat: np.ndarray) -> float:
        weights, bias = flat[:12].reshape(4, 3), flat[12:]
        z = x @ weights.T + bias
        log = z - np.log(np.exp(z).sum(1, keepdims=True))
        return float(-(shares * log).sum() + (weights**2).sum() / (2 * c))

    best = minimize(loss, np.zeros(16), method="L-BFGS-B")
    flat = np.concatenate([model.coef_.ravel(), model.intercept_])
    assert loss(flat) == pytest.approx(best.fun, rel=1e-5)
    predict = share_heads.fit_shares(make_rows(x[:90]), shares[:90], seed=0)
    found = predict(make_rows(x[90:]))
    assert found.sum(1) == pytest.approx(np.ones(30))
    chance = np.repeat(shares[:90].mean(0)[None], 30, axis=0)
    assert share_metrics.kl(shares[90:], found) < 0.75 * share_metrics.kl(shares[90:], chance)


def test_a_class_without_shares_and_a_label_of_every_image() -> None:
    x = RNG.normal(size=(60, 3))
    shares = np.column_stack([RNG.dirichlet([1, 1], 60), np.zeros(60)])
    assert (share_heads.fit_shares(make_rows(x), shares, 0)(make_rows(x))[:, 2] == 0).all()
    flags = np.column_stack([np.ones(60, int), (x[:, 0] > 0).astype(int), np.zeros(60, int)])
    found = share_heads.fit_label_sets(make_rows(x), flags, 0)(make_rows(x))
    assert (found[:, 0] == 1).all() and (found[:, 2] == 0).all()
    assert average_precision_score(flags[:, 1], found[:, 1]) > 0.95


def test_a_wrong_polarity_costs_twice_the_cross_entropy() -> None:
    outputs = torch.tensor([[2.0, 0.0, 1.0], [2.0, 0.0, 1.0], [0.0, 0.0, 3.0], [2.0, 0.0, 1.0]])
    targets = torch.tensor([0, 1, 1, 2])
    signs = torch.tensor([1.0, -1.0, 0.0])
    plain = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    found = polarity_cross_entropy(outputs, targets, signs=signs)
    # right; positive for negative; neutral for negative; positive for neutral
    assert (found / plain).tolist() == pytest.approx([1, 2, 1, 1])
    with pytest.raises(UsageError, match="polarity_cross_entropy needs class_signs"):
        Settings(loss="polarity_cross_entropy")
    with pytest.raises(UsageError, match="cross_entropy takes no class_signs"):
        Settings(loss="cross_entropy", class_signs=(1.0, -1.0))


def test_errors_are_better_if_lower() -> None:
    assert all(
        lower_is_better(name) for name in ("mae", "rmse_arousal", "kl", "emd", "gender_gap", "distance")
    )
    assert not any(lower_is_better(name) for name in ("r2", "ccc_arousal", "map", "top_class", "accuracy"))
    assert Study(name="a", best="kl").is_lower_better and not Study(name="a", best="map").is_lower_better


@pytest.mark.parametrize(
    "spec", [{}, {"multi": "label", "shares": True}, {"numbers": ["a", "b"], "order": ["a", "b"]}]
)
def test_a_target_is_exactly_one(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"exactly one|order is only for shares"):
        TargetSpec(**spec)


# --- studies ---------------------------------------------------------------------------------------------


def with_columns(release: Release, **columns: Any) -> Release:
    table = release.table
    for name, values in columns.items():
        at = table.column_names.index(name) if name in table.column_names else -1
        values = pa.array(values)
        table = table.set_column(at, name, values) if at >= 0 else table.append_column(name, values)
    return Release(release.path, table, release.info)


def by_image(release: Release, values: Callable[[int], Any]) -> list[Any]:
    """A value that depends on the image alone, the same for its copies."""
    return [values(int(image_id[:4], 16)) for image_id in release.table["image_id"].to_pylist()]


def run(release: Release, folder: Path, **document: Any) -> tuple[dict[str, Any], Path]:
    settings = {"backbone": "small_cnn", "weights": "none", **document.pop("settings", {})}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "made", "settings": settings, **document}), encoding="utf-8")
    return study_release(release, path, folder / "checks", device="cpu")


BOTH = {"grid": {"mode": ["frozen", "finetune"]}, "settings": {"size_px": 32, "steps": 2, "batch": 8}}


@pytest.mark.slow
def test_a_point_on_the_plane(release: Release, tmp_path: Path) -> None:
    target = {"numbers": ["valence", "arousal"]}
    found, _ = run(release, tmp_path, best="distance", target=target, **BOTH)
    names = {"rmse", "distance", "rmse_valence", "rmse_arousal", "ccc_valence", "ccc_arousal"}
    assert len(found["combinations"]) == 2
    for each in found["combinations"]:
        assert set(each["scores"]["val"]) == names
    val = release.split("val").to_pandas()[["valence", "arousal"]].to_numpy()
    train = release.split("train").to_pandas()
    mean = train[train["copy"] == 0][["valence", "arousal"]].to_numpy().mean(0)
    expected = np.linalg.norm(val - mean, axis=1).mean()
    assert found["baseline"]["val"]["distance"] == pytest.approx(expected)
    assert found["lower_is_better"] is True


@pytest.mark.slow
def test_label_sets_with_a_table_by_label(release: Release, tmp_path: Path) -> None:
    sets = ("joy", "joy+awe", "fear", "awe+fear")
    made = with_columns(release, label=by_image(release, lambda n: sets[n % 4]))
    found, folder = run(made, tmp_path, best="micro_f1", target={"multi": "label"}, **BOTH)
    assert set(found["combinations"][1]["scores"]["test"]) == {
        *("micro_f1", "macro_f1", "map", "exact_match", "rmse")
    }
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["split"], row["mode"]) == ("test", "frozen")]
    assert [row["label"] for row in rows] == ["awe", "fear", "joy"]
    test = made.table.filter(pa.array([split == "test" for split in made.table["split"].to_pylist()]))
    for row in rows:
        assert int(row["n"]) == sum(row["label"] in words.split("+") for words in test["label"].to_pylist())


@pytest.mark.slow
def test_shares_of_raters_and_the_mean_distribution(release: Release, tmp_path: Path) -> None:
    first = by_image(release, lambda n: (n % 10) / 20)
    second = by_image(release, lambda n: (n % 7) / 20)
    third = [1 - a - b for a, b in zip(first, second, strict=True)]
    made = with_columns(release, emotion_a=first, emotion_b=second, emotion_c=third)
    target = {"shares": True, "order": ["c", "a", "b"]}
    found, _ = run(made, tmp_path, best="kl", target=target, **BOTH)
    assert set(found["combinations"][0]["scores"]["val"]) == {"kl", "js", "top_class", "emd", "rmse"}
    frame = made.table.to_pandas()
    shares = frame[["emotion_c", "emotion_a", "emotion_b"]].to_numpy()
    mean = shares[(frame["split"] == "train") & (frame["copy"] == 0)].mean(0)
    val = shares[frame["split"] == "val"]
    assert found["baseline"]["val"]["kl"] == pytest.approx(np.mean([stats.entropy(p, mean) for p in val]))
    chosen_several = with_columns(made, emotion_a=[1.0] * len(frame))
    with pytest.raises(InputError, match="do not sum to 1"):
        run(chosen_several, tmp_path, best="kl", target=target)
    names = made.table["image_id"].to_pylist()
    at = next(row for row, name in enumerate(names) if names.count(name) == 1)  # it has no copies
    some = with_columns(made, emotion_a=[None if row == at else share for row, share in enumerate(first)])
    with pytest.raises(InputError, match="emotion_a is null in 1 of"):
        run(some, tmp_path, best="kl", target=target)


@pytest.mark.slow
def test_what_does_not_fit_a_target_is_refused(release: Release, tmp_path: Path) -> None:
    sets = with_columns(release, label=by_image(release, lambda n: ("joy", "fear+joy")[n % 2]))
    for settings, words in (
        ({"loss": "cross_entropy"}, "the loss cross_entropy does not fit the target sets of label"),
        ({"class_weights": "inverse"}, "takes no class_weights"),
        ({"mode": "frozen", "head": "ridge"}, "takes no `head`"),
    ):
        with pytest.raises(InputError, match=words):
            run(sets, tmp_path, best="map", target={"multi": "label"}, settings=settings)
    with pytest.raises(InputError, match="no shares of raters"):
        run(release, tmp_path, best="kl", target={"shares": True})
    with pytest.raises(InputError, match="no column mood"):
        run(release, tmp_path, best="map", target={"multi": "mood"})
    with pytest.raises(InputError, match="subtype cannot be predicted as a number"):
        run(release, tmp_path, best="rmse", target={"numbers": ["valence", "subtype"]})


@pytest.mark.slow
def test_classes_with_a_polarity(publish: Callable[..., Release], tmp_path: Path) -> None:
    release = publish(target="subtype", bins=None, strata=[])
    with pytest.raises(InputError, match="polarity_cross_entropy does not fit the target subtype"):
        run(release, tmp_path, best="accuracy", settings={"loss": "polarity_cross_entropy"})
