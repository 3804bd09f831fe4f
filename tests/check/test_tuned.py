"""check.tuned: networks as the learner of a check, with equal training for every arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import affectdata
from affectdata.check import tuned
from affectdata.check.check import CheckOutput, run_check
from affectdata.check.evaluate import EvaluateSplit, find_classes
from affectdata.check.prepare import CheckInput
from affectdata.check.tuned import TunedNetworks, choose_settings, limit_splits
from affectdata.errors import UsageError
from affectdata.release.release import Release
from affectdata.train.finetune import finetune
from affectdata.train.images import store_images
from affectdata.train.model_file import load_model
from affectdata.train.networks import build_network
from affectdata.train.rows import Rows
from affectdata.train.task import Examples

pytestmark = pytest.mark.slow

SIZE, STEPS = 32, 2
ARMS = {"release", "originals", "even", "duplicates", "weights", "stretched", "mean", "subtype_mean"}


@pytest.fixture(scope="module")
def images(prepared: CheckInput, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    folder = tmp_path_factory.mktemp("images")
    return store_images(prepared.image_pool.parts, SIZE, folder, 2)


@pytest.fixture(scope="module")
def few(prepared: CheckInput) -> CheckInput:
    return limit_splits(prepared, 2)


@pytest.fixture(scope="module")
def checked(few: CheckInput, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> CheckOutput:
    return run_check(few, TunedNetworks(few, images, STEPS, tmp_path_factory.mktemp("runs")))


def test_the_document_is_that_of_networks(checked: CheckOutput) -> None:
    document = checked.document.to_dict()
    settings = document["settings"]
    names = ("mode", "steps", "size_px", "n_splits")
    assert tuple(settings[name] for name in names) == ("finetune", STEPS, SIZE, 2)
    assert set(document["arms"]) == ARMS
    for arm in ("release", "originals", "even", "duplicates", "weights"):
        found = document["arms"][arm]
        assert found["regressor"]["head"] == "network" and "ridge" not in found
        assert found["regressor"]["chosen"] == {"crossfit": [{}, {}], "heldout": [{}]}
    assert set(document["arms"]["release"]["classifier"]) == {"valence_class"}
    assert document["on_edge"] == []
    assert document["effects"] == {} and document["shift"]["flip"]["all"]["mean"] is not None
    assert document["leak"]["shuffled"]["mean"] is not None  # by a head on frozen features
    first = document["verdict"]["sentences"][0]
    assert first.startswith(f"small_cnn fine-tuned for {STEPS} steps at {SIZE} px, over 2 splits")
    assert set(checked.predictions.column_names) >= {
        "crossfit.even.regressor",
        "heldout.release.valence_class",
    }


def test_every_network_takes_the_same_number_of_steps(checked: CheckOutput) -> None:
    curves = checked.document.to_dict()["curves"]
    assert {curve["points"][-1]["step"] for curve in curves} == {STEPS}
    models = {(curve["arm"], curve["model"]) for curve in curves if curve["scoring"] == "crossfit"}
    regressors = {(arm, "regressor") for arm in ("release", "originals", "even", "duplicates", "weights")}
    assert models == regressors | {("release", "valence_class.image"), ("release", "valence_class.both")}


def test_an_interrupted_check_resumes(
    few: CheckInput,
    images: np.ndarray,
    checked: CheckOutput,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classes = find_classes(few.recipe, None, [])
    evaluate = EvaluateSplit(classes, True, TunedNetworks(few, images, STEPS, tmp_path))
    ran = 0

    def stops(*arguments: Any, **options: Any) -> Any:
        nonlocal ran
        ran += 1
        if ran == 5:
            raise KeyboardInterrupt
        return finetune(*arguments, **options)

    monkeypatch.setattr(tuned, "finetune", stops)
    split = few.crossfit[1]
    with pytest.raises(KeyboardInterrupt):
        evaluate(split)
    result = evaluate(split)
    assert ran == 1 + 5 + 2 + 2  # arms, folds, and the classifier with the output and without
    row_of = {image_id: row for row, image_id in enumerate(checked.predictions["image_id"].to_pylist())}
    rows = [row_of[image_id] for image_id in split.test.image_id]
    for arm in ("release", "originals", "even"):
        expected = checked.predictions[f"crossfit.{arm}.regressor"].to_numpy()[rows]
        assert (result.arms[arm].values["regressor"] == expected).all()
    assert result.arms["release"].curves == evaluate(split).arms["release"].curves
    assert ran == 10
    assert {path.suffix for path in tmp_path.rglob("*")} == {".json"}  # no network is left


def test_the_classifier_is_trained_on_outputs_out_of_fold(
    prepared: CheckInput, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = TunedNetworks(prepared, images, STEPS, tmp_path)
    train = prepared.crossfit[0].arms["release"]
    seen: list[set[str]] = []

    class Recorded:
        def __init__(self, rows: Rows) -> None:
            self.groups = set(rows.group)

        def predict(self, rows: Rows) -> np.ndarray:
            assert not self.groups & set(rows.group)
            seen.append(set(rows.group))
            return np.full(len(rows), 10.0 * len(seen))

    monkeypatch.setattr(learner, "fit_regressor", lambda rows, _head: Recorded(rows))
    outputs = learner.out_of_fold(None, train)  # type: ignore[arg-type]
    assert len(seen) == 2 and seen[0] | seen[1] == set(train.group)
    assert set(outputs) == {10.0, 20.0}
    classifier = learner.fit_classifier(train, train.subtype, outputs)
    assert classifier.network.module.takes_output
    shares = classifier.shares(train.take(np.arange(5)), outputs[:5])
    assert shares.shape == (5, len(set(train.subtype))) and shares.sum(1) == pytest.approx(1)


def test_valence_is_learnt_and_weights_have_an_effect(planted: Callable[..., Rows], tmp_path: Path) -> None:
    rows = planted(n=80)
    noise = np.random.default_rng(1).normal(0, 15, (80, 24, 24, 3))
    images = np.clip(noise + 2.5 * rows.target[:, None, None, None], 0, 255).astype(np.uint8)
    prepared: Any = SimpleNamespace(
        backbone=SimpleNamespace(name="small_cnn", weights="none", device="cpu"),
        recipe=SimpleNamespace(seed=0),
    )
    learner = TunedNetworks(prepared, images, 60, tmp_path)
    half = np.arange(80) < 40
    wrong = replace(rows, target=np.where(half, rows.target, 100 - rows.target)).weighted(
        np.where(half, 2.0, 1e-9)
    )
    predicted = learner.fit_regressor(wrong, "regressor").predict(rows.take(~half))
    assert np.corrcoef(predicted, rows.target[~half])[0, 1] > 0.9


def test_only_splits_of_the_first_assignment_and_no_other_manifests(prepared: CheckInput) -> None:
    other = replace(prepared.crossfit[0], arms={**prepared.crossfit[0].arms, "with:oasis": Examples})  # type: ignore[dict-item]
    several = replace(prepared, crossfit=[other, *prepared.crossfit[1:]], regrouped={"theme": []})
    few = limit_splits(several, 9)
    assert len(few.crossfit) == 5 and len(few.fold_assignments) == 1 and few.regrouped == {}
    assert set(few.crossfit[0].arms) == set(prepared.crossfit[0].arms)
    assert len(limit_splits(several, 2).crossfit) == 2


def test_missing_settings_follow_from_the_weights(tmp_path: Path) -> None:
    random = build_network("small_cnn", 1, "none", size_px=SIZE, device="cpu")
    settings = choose_settings(random, 100, steps=60, lr_head=0.01)
    assert (settings.head_steps, settings.lr_trunk) == (0, 0.01)
    learnt = replace(random, weights="learnt.safetensors")
    settings = choose_settings(learnt, 100, steps=60, dropout=None)
    assert (settings.head_steps, settings.lr_trunk) == (10, 1e-4)
    assert choose_settings(learnt, 320, epochs=6).head_steps == 10
    assert choose_settings(learnt, 100, steps=60, head_steps=3).head_steps == 3
    file = tmp_path / "mine.safetensors"
    of_a_class = replace(random, weights="DEFAULT", code="hash")
    assert choose_settings(of_a_class, 100).head_steps == 0
    file.touch()
    assert choose_settings(replace(of_a_class, weights=str(file)), 100).head_steps == 100
    with pytest.raises(UsageError):
        choose_settings(random, 100, steps=0)


def test_the_command(cli: Callable[..., Any], release: Release, tmp_path: Path) -> None:
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    few = ("--mode", "finetune", "--steps", STEPS, "--size", SIZE, "--no-crossfit")
    ran = cli("train-check", release.path, *options, *few, "--json")
    assert ran.code in (0, 1)
    assert ran.document["settings"]["mode"] == "finetune"
    assert Path(ran.document["path"]) == tmp_path / release.name / "finetune" / "train-check.json"
    assert "squared_error, " in ran.err and "cross_entropy, " in ran.err
    assert len([*(tmp_path / ".images").iterdir()]) == 1
    again = cli("train-check", release.path, *options, *few, "-v")
    assert f"small_cnn fine-tuned for {STEPS} steps at {SIZE} px" in again.out
    assert "network" in again.out and "rows: loss" not in again.err  # predictions are kept
    assert cli("train-check", release.path, *options, "--steps", 2).code == 2


def test_a_fine_tuned_model_is_kept_with_its_card_and_maps(
    cli: Callable[..., Any], release: Release, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    few = ("--mode", "finetune", "--steps", STEPS, "--size", SIZE, "--no-crossfit")
    path = tmp_path / "model.safetensors"
    ran = cli("train-check", release.path, *options, *few, "--keep-model", path, "--maps", 1, "--quiet")
    assert ran.code in (0, 1) and f"wrote {path}" in ran.out
    test = release.split("test")
    files = [release.path / name for name in test["file_name"].to_pylist()]
    predicted = affectdata.predict(path, files)
    checked = pd.read_parquet(tmp_path / release.name / "finetune" / "predictions.parquet")
    expected = checked.set_index("image_id").loc[test["image_id"].to_pylist()]
    regressed = expected["heldout.release.regressor"].to_numpy()
    assert predicted["valence"].to_numpy() == pytest.approx(regressed, abs=1e-3)
    assert predicted["class"].tolist() == expected["heldout.release.valence_class"].tolist()
    loaded = load_model(path, device="cpu")
    assert loaded.trained_on and loaded.trained_on.id == release.id
    card = path.with_suffix(".md").read_text()
    for words in (release.id[:16], "GAPED", "small_cnn, fine-tuned", "| R² |", "must not be redistributed"):
        assert words in card
    assert len(list((tmp_path / release.name / "finetune" / "maps" / "worst").glob("*.png"))) == 2
    page, maps = tmp_path / "page.html", tmp_path / "maps"
    ran = cli("predict", path, files[0], "--html", page, "--maps", maps, "--csv")
    assert ran.code == 0 and len(list(maps.glob("*.png"))) == 2
    assert f"{predicted['valence'][0]:.1f}" in page.read_text()
