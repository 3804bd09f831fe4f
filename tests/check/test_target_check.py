"""train-check for other targets: points, label sets, shares of raters, classes with a polarity."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, r2_score, roc_auc_score

import affectdata
from affectdata.check import share_metrics
from affectdata.check.blocks import CheckFigures
from affectdata.check.check import CheckOutput, run_check
from affectdata.check.final import fit_final, fit_final_networks
from affectdata.check.gate import _tolerances, evaluate_rules
from affectdata.check.maps import draw_maps
from affectdata.check.model_card import check_scores, write_card
from affectdata.check.prepare import CheckInput, prepare_check
from affectdata.check.study_targets import _fit_polarity
from affectdata.check.target_arms import EvaluateTarget
from affectdata.check.tuned import TunedNetworks, limit_splits
from affectdata.check.verdict import make_sentences
from affectdata.errors import InputError
from affectdata.recipe.bounds import Check
from affectdata.recipe.recipe import Labels, parse_recipe
from affectdata.recipe.target import TargetSpec
from affectdata.release.release import Release
from affectdata.train.backbones import Backbone
from affectdata.train.heads import FrozenHeads
from affectdata.train.images import store_images
from affectdata.train.model_file import keep_model, load_model
from affectdata.train.rows import Rows
from tests.check.test_study_targets import by_image, with_columns
from tests.fixtures import make_recipe

ARMS = {"release", "originals", "even", "duplicates", "weights", "mean"}
SETS = ("joy", "joy+awe", "fear", "awe+fear")
TARGETS: dict[str, dict[str, Any]] = {
    "numbers": {"numbers": ["valence", "arousal"]},
    "multi": {"multi": "label"},
    "shares": {"shares": True, "order": ["fear", "awe", "joy"]},
}


@pytest.fixture(scope="session")
def several(release: Release) -> Release:
    shares = {
        name: by_image(release, lambda n, at=at: float(np.random.default_rng(n).dirichlet([1, 2, 3])[at]))
        for at, name in enumerate(("emotion_joy", "emotion_awe", "emotion_fear"))
    }
    return with_columns(release, label=by_image(release, lambda n: SETS[n % 4]), **shares)


@pytest.fixture(scope="session")
def prepare(several: Release, backbone: Backbone, checks: Path) -> Callable[..., CheckInput]:
    def call(kind: str, release: Release = several) -> CheckInput:
        target = TargetSpec(**TARGETS.get(kind, {"polarity": True}))
        return prepare_check(release, backbone, None, checks, check=Check(target=target), workers=2)

    return call


@pytest.fixture(scope="session")
def with_images(release: Release, backbone: Backbone, checks: Path) -> CheckInput:
    target = TargetSpec(**TARGETS["numbers"])
    return prepare_check(release, backbone, release.images(), checks, check=Check(target=target), workers=2)


@pytest.fixture(scope="session")
def points(with_images: CheckInput) -> CheckOutput:
    return run_check(with_images, workers=2)


def true_and_predicted(checked: CheckOutput, where: str, arm: str) -> tuple[np.ndarray, np.ndarray]:
    target = checked.document.target
    assert target
    frame = checked.predictions.to_pandas()
    frame = frame[frame[f"{where}.{arm}.{target.outputs[0]}"].notna()]
    pair = (frame[[f"{prefix}.{name}" for name in target.outputs]] for prefix in ("true", f"{where}.{arm}"))
    true, predicted = (each.to_numpy(float) for each in pair)
    return true, predicted


@pytest.mark.slow
def test_points_have_every_arm_and_the_scores_of_scikit_learn(points: CheckOutput) -> None:
    document = points.document
    assert (document.numeric, document.target and document.target.kind) == (False, "numbers")
    assert set(document.arms) == ARMS
    for arm in ("release", "originals", "mean"):
        true, predicted = true_and_predicted(points, "crossfit", arm)
        found = document.arms[arm].target
        assert found and found.crossfit and found.heldout
        pooled = {name: figure.pooled for name, figure in found.crossfit.measures.items()}
        assert pooled["skill"] == pytest.approx(r2_score(true, predicted, multioutput="variance_weighted"))
        assert pooled["distance"] == pytest.approx(np.linalg.norm(true - predicted, axis=1).mean())
        assert pooled["rmse_arousal"] == pytest.approx(np.sqrt(((true - predicted)[:, 1] ** 2).mean()))
        assert len(found.crossfit["skill"].splits) == document.settings.n_splits == 10
        assert found.crossfit["skill"].low is not None
    mean = document.arms["mean"].target
    assert mean and mean.crossfit and (mean.crossfit["skill"].mean or 0) <= 0
    assert set(document.comparison) >= {"release - originals", "release - even", "weights - originals"}
    assert set(document.comparison["release - originals"]) == set(
        document.arms["release"].target.crossfit.measures
    )  # type: ignore[union-attr]


@pytest.mark.slow
def test_rules_fit_the_target_or_say_that_they_do_not_apply(points: CheckOutput) -> None:
    rules = {rule.rule: rule for rule in points.document.verdict.gate}
    for column in ("", ".arousal"):  # of valence, over which the release is levelled, and of the other column
        assert rules[f"labels.within{column}"].figure is not None
    for name in ("shortcut.shift", "transforms.effect"):
        assert (rules[name].outcome, rules[name].text) == ("pass", "the target is not one number")
    for name in ("leak.nearest", "leak.shuffled", "leak.too_good", "training.score.skill"):
        assert rules[name].figure is not None and "R²" in rules[name].text
    assert "R²" in rules["training.not_worse.originals.skill"].text
    assert rules["cascade"].outcome == "pass"
    assert points.document.advice is None and points.document.on_edge == []
    first = points.document.verdict.sentences[0]
    assert first.startswith("Frozen small_cnn features, valence and arousal, over 10 splits of")
    assert "the model of valence and arousal reaches R²" in points.document.verdict.summary[0]


def changed(document: CheckFigures, low: float, shuffled: float) -> dict[str, str]:
    """Outcomes of the rules of a document of 300 images with other intervals of skill and shuffled skill."""
    figures = document.model_dump(by_alias=True, exclude_unset=True, exclude={"verdict"})
    for arm in ("release", "originals"):
        figures["arms"][arm]["target"]["crossfit"]["skill"] |= {"mean": low + 0.1, "low": low, "high": 0.5}
    figures["leak"]["shuffled"] = {"mean": shuffled, "low": shuffled, "high": shuffled}
    figures["bins"]["n"]["crossfit"] = [300]
    made = CheckFigures.model_validate(figures)
    return {rule.rule: rule.outcome for rule in evaluate_rules(made, Check())}


@pytest.mark.slow
def test_a_skill_that_shuffled_labels_reach_too_fails(points: CheckOutput) -> None:
    for low, shuffled, outcome in ((0.2, -0.1, "pass"), (0.05, -0.1, "fail"), (0.2, 0.25, "fail")):
        rules = changed(points.document, low, shuffled)
        assert rules["learns.above_shuffled"] == rules["learns.above_shuffled.release"] == outcome
    assert changed(points.document, 0.2, 0.25)["leak.shuffled"] == "fail"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multi", "shares", "polarity"])
def test_measures_are_those_of_scikit_learn_and_scipy(
    kind: str, prepare: Callable[..., CheckInput], publish: Callable[..., Release]
) -> None:
    if kind == "polarity":
        made = publish(target="subtype", bins=None, strata=[])
        signs = ("negative", "neutral", "positive")
        made = with_columns(made, subtype=by_image(made, lambda n: signs[n % 3]))
        checked = run_check(prepare(kind, made), workers=2)
    else:
        checked = run_check(prepare(kind), workers=2)
    document = checked.document
    scored = document.arms["release"].target
    assert scored and scored.heldout and not scored.crossfit
    true, predicted = true_and_predicted(checked, "heldout", "release")
    pooled = {name: figure.pooled for name, figure in scored.heldout.measures.items()}
    if kind == "multi":
        varies = true.any(0) & ~true.all(0)
        assert pooled["map"] == pytest.approx(
            average_precision_score(true[:, true.any(0)], predicted[:, true.any(0)])
        )
        assert pooled["skill"] == pytest.approx(2 * roc_auc_score(true[:, varies], predicted[:, varies]) - 1)
        assert [row.label for row in scored.heldout.labels or ()] == ["awe", "fear", "joy"]
        assert [row.n for row in scored.heldout.labels or ()] == true.sum(0).tolist()
    elif kind == "shares":
        divergences = [stats.entropy(p, q) for p, q in zip(true, predicted, strict=True)]
        assert pooled["kl"] == pytest.approx(np.mean(divergences))
        places = np.arange(3)
        moved = [
            stats.wasserstein_distance(places, places, p, q) for p, q in zip(true, predicted, strict=True)
        ]
        assert pooled["emd"] == pytest.approx(np.mean(moved))
        assert document.target and document.target.outputs == ["fear", "awe", "joy"]
        assert pooled["skill"] == pytest.approx(r2_score(true, predicted, multioutput="variance_weighted"))
    else:
        balanced = balanced_accuracy_score(true.argmax(1), predicted.argmax(1))
        chance = 1 / len(np.unique(true.argmax(1)))
        assert pooled["balanced_accuracy"] == pytest.approx(balanced)
        assert pooled["skill"] == pytest.approx((balanced - chance) / (1 - chance))
        assert np.sum(scored.heldout.confusion) == len(true)
    baseline = document.arms["mean"].target
    assert baseline and baseline.heldout and (baseline.heldout["skill"].mean or 0) <= 1e-9
    rules = {rule.rule: rule for rule in document.verdict.gate}
    assert rules["leak.too_good"].text == "the target is not numeric"
    judged = {"multi": {"", ".sets"}, "shares": {"", ".shares"}, "polarity": {""}}[kind]
    assert {name.removeprefix("labels.order") for name in rules if name[:12] == "labels.order"} == judged


@pytest.mark.slow
def test_the_skill_is_r2_of_all_columns_and_2_auc_minus_1() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(50, 3)) * (1, 5, 2), rng.normal(size=(50, 3))
    expected = r2_score(true, predicted, multioutput="variance_weighted")
    assert share_metrics.r2(true, predicted) == pytest.approx(expected)
    assert share_metrics.r2(true, np.tile(true.mean(0), (50, 1))) == pytest.approx(0)
    assert np.isnan(share_metrics.r2(np.ones((5, 2)), np.ones((5, 2))))
    flags = np.column_stack([true[:, 0] > 0, true[:, 1] > 0, np.ones(50)]).astype(int)
    by_label = [roc_auc_score(flags[:, at], predicted[:, at]) for at in (0, 1)]
    found = share_metrics.auc_above_chance(flags, predicted)
    assert found == pytest.approx(2 * np.mean(by_label) - 1)
    assert np.isnan(share_metrics.auc_above_chance(np.ones((5, 2)), np.ones((5, 2))))


def test_a_head_of_classes_avoids_the_wrong_polarity(planted: Callable[..., Rows]) -> None:
    """Two positive classes at .32 each, a negative one at .36: a positive one has the least expected cost."""
    rows = planted(n=200)
    codes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [64, 64, 72]))
    predict = _fit_polarity(np.array([1.0, 1.0, -1.0]), rows, np.eye(3)[codes], None, 0)
    found = predict(rows)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found.argmax(1) < 2).mean() > 0.8  # by the probabilities alone it would be the third
    one = _fit_polarity(np.array([1.0, 1.0, -1.0]), rows, np.eye(3)[np.zeros(200, int)], None, 0)
    assert (one(rows).argmax(1) == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "multi", "shares"])
def test_networks_are_trained_with_the_loss_of_the_target(
    kind: str, prepare: Callable[..., CheckInput], tmp_path: Path
) -> None:
    few = limit_splits(prepare(kind), 1)
    images = store_images(few.image_pool.parts, 32, tmp_path, 2)
    losses: list[str] = []
    learner = TunedNetworks(few, images, 2, tmp_path / "runs", losses.append)
    checked = run_check(few, learner)
    loss = {"numbers": "squared_error", "multi": "binary", "shares": "distribution"}[kind]
    assert losses and all(line.startswith(f"{loss}, ") for line in losses)
    assert {(curve.arm, curve.model) for curve in checked.document.curves} >= {("release", "regressor")}
    true, predicted = true_and_predicted(checked, "heldout", "release")
    if kind == "shares":
        assert predicted.sum(1) == pytest.approx(np.ones(len(true)), abs=1e-5)
    assert checked.document.verdict.sentences[0].startswith("small_cnn fine-tuned for 2 steps at 32 px")
    with_signs = replace(
        few.target, kind="polarity", losses=("polarity_cross_entropy",), signs=(1.0, -1.0, 0.0)
    )  # type: ignore[type-var]
    if kind == "multi":
        fitted = learner.fit_target(few.train, replace(with_signs, encode=lambda values: values.argmax(1)))
        assert fitted.predict(few.train).shape == (len(few.train), 3)
        assert losses[-1].startswith("polarity_cross_entropy, ")


@pytest.mark.slow
def test_what_cannot_be_predicted_or_kept_is_refused(
    prepare: Callable[..., CheckInput], release: Release, backbone: Backbone, checks: Path
) -> None:
    def refused(words: str, **target: Any) -> None:
        check = Check(target=TargetSpec(**target))
        with pytest.raises(InputError, match=words):
            prepare_check(release, backbone, None, checks, check=check)

    refused("no column mood", multi="mood")
    refused("no shares of raters", shares=True)
    refused("source_id, valence_raw cannot be predicted as a number", numbers=["source_id", "valence_raw"])
    refused("valence has no labels: its type is double", multi="valence")
    refused("valence does not have both positive and negative classes", polarity=True)
    with pytest.raises(InputError, match="one number, and the target valence and arousal is not one"):
        fit_final(prepare("numbers"), "calibrated")


@pytest.mark.slow
def test_a_kept_split_is_of_its_target(prepare: Callable[..., CheckInput]) -> None:
    found = [
        EvaluateTarget(each.target, FrozenHeads(0)).settings
        for each in (prepare("numbers"), prepare("multi"))
        if each.target
    ]
    assert repr(found[0]) != repr(found[1])
    assert "numpy" not in repr(found) and "array" not in repr(found)


@pytest.mark.parametrize(
    "target", [{"numbers": ["valence", "valence"]}, {"shares": ["joy", "joy"]}, {"multi": ""}]
)
def test_names_of_a_target_are_given_once(target: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give each name once|at least 1 character"):
        TargetSpec(**target)


@pytest.mark.slow
def test_classes_with_a_polarity_have_the_tolerance_of_classes(points: CheckOutput) -> None:
    polarity = points.document.model_copy(deep=True)
    assert polarity.target
    polarity = polarity.model_copy(update={"target": polarity.target.model_copy(update={"kind": "polarity"})})
    assert _tolerances(polarity, Check()) == {"balanced_accuracy": Check().not_worse.balanced_accuracy}


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["distance", "exact_match"])
def test_subgroups_are_described_by_every_measure(points: CheckOutput, measure: str) -> None:
    figures = points.document.model_dump(by_alias=True, exclude_unset=True, exclude={"verdict"})
    group = {"n": 40, "interval": {"mean": 0.5, "low": 0.4, "high": 0.6}}
    groups = {"a": {**group, measure: 0.5}, "b": {**group, measure: 0.7}}
    scored = {"measure": measure, "groups": groups, "gap": 0.2, "too_few": {}, "estimated": []}
    made = CheckFigures.model_validate({**figures, "subgroups": {"gender": scored}})
    sentence = next(each for each in make_sentences(made, make_recipe()) if each.startswith("By gender"))
    assert f"{measure.replace('_', ' ')} ranges from 0.500" in sentence


def test_recipes_without_a_target_have_the_document_that_they_had() -> None:
    plain = make_recipe()
    assert "target" not in plain.document()["check"] and plain.predicts is None
    document = plain.document() | {"check": {"target": {"numbers": ["valence", "arousal"]}}}
    found = parse_recipe(document)
    assert found.document()["check"]["target"] == {"numbers": ["valence", "arousal"]}
    assert parse_recipe(found.document()) == found and found.digest != plain.digest
    assert "multi" not in Labels(at_least=0.4).model_dump()
    sets = make_recipe(target="label", bins=None, strata=[], labels={"at_least": 0.4, "multi": True})
    assert sets.predicts == TargetSpec(multi="label")
    with pytest.raises(ValueError, match="multi needs at_least"):
        Labels(multi=True)


@pytest.mark.slow
def test_the_command_and_the_report(
    cli: Callable[..., Any], release: Release, tmp_path: Path, sample_gaped: Path
) -> None:
    file = tmp_path / "plane.yaml"
    file.write_text("target: {numbers: [valence, arousal]}\n", encoding="utf-8")
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    ran = cli("train-check", release.path, *options, "--no-crossfit", "--check", file)
    assert "valence and arousal" in ran.out and "ccc arousal" in ran.out.lower()
    assert {"skill", "RMSE", "distance"} <= set(ran.out.split())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "multi", "shares", "polarity"])
def test_a_kept_model_predicts_test_images_as_the_check_did(
    kind: str,
    prepare: Callable[..., CheckInput],
    publish: Callable[..., Release],
    tmp_path: Path,
) -> None:
    made = None
    if kind == "polarity":
        made = publish(target="subtype", bins=None, strata=[])
        signs = ("negative", "positive", "neutral")
        made = with_columns(made, subtype=by_image(made, lambda n: signs[n % 3]))
    prepared = prepare(kind, *([made] if made else []))
    checked, path = run_check(prepared, workers=2), tmp_path / "model.safetensors"
    keep_model(fit_final(prepared), path)
    write_card(load_model(path), path, prepared.release.info, check_scores(checked.document, "plain"))
    release, target = prepared.release, checked.document.target
    assert target
    test = release.split("test")
    predicted = affectdata.predict(path, [release.path / name for name in test["file_name"].to_pylist()])
    frame = checked.predictions.to_pandas().set_index("image_id").loc[test["image_id"].to_pylist()]
    expected = frame[[f"heldout.release.{name}" for name in target.outputs]].to_numpy()
    columns = [name if kind == "numbers" else f"p_{name}" for name in target.outputs]
    if kind == "polarity":  # the check keeps scores of the classes, the model their probabilities
        chosen = np.array(target.outputs)[expected.argmax(1)]
        assert predicted["class"].tolist() == chosen.tolist()
        assert predicted[columns].sum(axis=1).to_numpy() == pytest.approx(np.ones(len(test)))
    else:
        assert predicted[columns].to_numpy() == pytest.approx(expected, abs=1e-3)
    card = path.with_suffix(".md").read_text()
    assert "| " + {"numbers": "RMSE", "multi": "mAP", "shares": "KL"}.get(kind, "accuracy") in card
    words = {"numbers": "valence, from 0 to 100; arousal", "multi": "probabilities of labels: awe"}
    assert words.get(kind, "shares of raters: fear" if kind == "shares" else "a class: ") in card


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "multi", "shares"])
def test_a_kept_network_predicts_as_the_check_did(
    kind: str, prepare: Callable[..., CheckInput], tmp_path: Path
) -> None:
    few = limit_splits(prepare(kind), 1)
    images = store_images(few.image_pool.parts, 32, tmp_path, 2)
    learner = TunedNetworks(few, images, 2, tmp_path / "runs")
    checked, path = run_check(few, learner), tmp_path / "model.safetensors"
    keep_model(fit_final_networks(few, learner), path)
    assert few.target
    test = few.release.split("test")
    predicted = affectdata.predict(path, [few.release.path / name for name in test["file_name"].to_pylist()])
    frame = checked.predictions.to_pandas().set_index("image_id").loc[test["image_id"].to_pylist()]
    columns = [name if kind == "numbers" else f"p_{name}" for name in few.target.outputs]
    expected = frame[[f"heldout.release.{name}" for name in few.target.outputs]].to_numpy()
    assert predicted[columns].to_numpy() == pytest.approx(expected, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numbers", "multi", "shares"])
def test_maps_of_a_target_have_its_true_and_predicted_values(
    kind: str, prepare: Callable[..., CheckInput], tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    prepared = prepare(kind)
    drawn = draw_maps(prepared, fit_final(prepared), 1, tmp_path)
    with (tmp_path / "worst" / "index.csv").open() as file:
        (row,) = csv.DictReader(file)
    names = [path.stem for path in drawn if path.parent.name == "worst"]
    assert len(names) == (2 if kind == "numbers" else 1)  # a map per column, or of the likeliest label
    true = row["true"].replace(" ", "-").replace("+", "-")
    assert all(f"true-{true}_predicted-" in name for name in names)
    if kind == "numbers":
        valence, arousal = (int(value) for value in row["true"].split())
        assert {valence, arousal} <= set(range(101))
