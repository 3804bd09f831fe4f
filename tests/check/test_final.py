"""check.final: the model of a release is kept, predicts the same as in the check, and has saliency maps."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import affectdata
from affectdata.check.final import fit_final, source_of
from affectdata.check.maps import draw_maps
from affectdata.check.model_card import CardScores, write_card
from affectdata.check.prepare import CheckInput, prepare_check
from affectdata.errors import InputError, UsageError
from affectdata.release.release import Release
from affectdata.train.backbones import Backbone

pytestmark = pytest.mark.slow


def test_a_kept_model_predicts_test_images_as_the_check_did(
    cli: Callable[..., Any], release: Release, tmp_path: Path, sample_gaped: Path
) -> None:
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    path = tmp_path / "model.safetensors"
    ran = cli("train-check", release.path, *options, "--no-crossfit", "--keep-model", path, "--quiet")
    assert ran.code == 1 and f"wrote {path}" in ran.out  # 1: rules that need all images were not run
    test = release.split("test")
    files = [release.path / name for name in test["file_name"].to_pylist()]
    predictions = affectdata.predict(path, files)
    checked = pd.read_parquet(tmp_path / release.name / "predictions.parquet").set_index("image_id")
    expected = checked.loc[test["image_id"].to_pylist(), "heldout.release.regressor"]
    assert np.abs(predictions["valence"].to_numpy() - expected.to_numpy()).max() < 1e-3
    classes = checked.loc[test["image_id"].to_pylist(), "heldout.release.valence_class"]
    assert predictions["class"].tolist() == classes.tolist()


def test_another_head_is_kept_and_predicts_as_its_arm_did(
    cli: Callable[..., Any], release: Release, tmp_path: Path, sample_gaped: Path
) -> None:
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    path = tmp_path / "model.safetensors"
    kept = ("--no-crossfit", "--keep-model", path, "--head", "subtype_aware")
    ran = cli("train-check", release.path, *options, *kept, "--quiet")
    assert ran.code == 1 and f"wrote {path}" in ran.out
    test = release.split("test")
    predictions = affectdata.predict(path, [release.path / name for name in test["file_name"].to_pylist()])
    checked = pd.read_parquet(tmp_path / release.name / "predictions.parquet").set_index("image_id")
    expected = checked.loc[test["image_id"].to_pylist(), "heldout.subtype_aware.regressor"]
    assert np.abs(predictions["valence"].to_numpy() - expected.to_numpy()).max() < 1e-3
    assert "class" in predictions


def test_a_model_names_all_that_it_was_trained_on(prepared: CheckInput, tmp_path: Path) -> None:
    part = {"source": "other", "title": "Other Images", "license": "CC BY 4.0", "citation": "Doe, 2001"}
    closed = {**part, "redistributable": False}
    stacked = replace(prepared, others={"other": prepared.train}, terms={"other": closed})
    model = fit_final(stacked, "stacked:other")
    n_originals = int((prepared.train.copy == 0).sum())
    assert model.trained_on
    assert [each.title for each in model.trained_on.sources][-1] == "Other Images"
    assert (model.trained_on.n_train, model.trained_on.redistributable) == (n_originals, False)
    scores = CardScores("", ("measure", "value"), [])
    info = prepared.release.info
    card = write_card(model, tmp_path / "m.safetensors", info, scores, source_of(stacked, "stacked:other"))
    text = card.read_text()
    assert "**Other Images** (other). Terms: CC BY 4.0" in text
    assert f"{n_originals} rows for training, of {info['rows']['train']} in its train split" in text
    plain = fit_final(prepared)
    assert plain.trained_on and plain.trained_on.n_train == len(prepared.train)
    assert [each.title for each in plain.trained_on.sources] == [each["title"] for each in info["manifests"]]


def test_a_head_that_cannot_be_fitted_is_refused(prepared: CheckInput) -> None:
    with pytest.raises(UsageError, match=r"(?s)unknown head 'best'.*plain, subtype_aware, calibrated"):
        fit_final(prepared, "best")
    with pytest.raises(InputError, match="no images of 'oasis'"):
        fit_final(prepared, "stacked:oasis")
    train = replace(prepared.train, subtype=np.full(len(prepared.train), ""))
    with pytest.raises(InputError, match="needs 2 to 50 subtypes"):
        fit_final(replace(prepared, train=train), "subtype_aware")


def test_a_head_without_a_model_to_keep_has_no_effect(cli: Callable[..., Any], release: Release) -> None:
    ran = cli("train-check", release.path, "--head", "calibrated")
    assert ran.code == 2 and "--head has no effect" in ran.err


def test_an_invalid_model_name_fails_before_training(cli: Callable[..., Any], tmp_path: Path) -> None:
    ran = cli("train-check", "--keep-model", tmp_path / "model.pkl")
    assert ran.code == 2 and ".safetensors" in ran.err


def test_maps_of_the_clearest_and_the_worst_predictions(
    release: Release, backbone: Backbone, checks: Path, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    prepared = prepare_check(release, backbone, None, checks)
    model = fit_final(prepared)
    draw_maps(prepared, model, 2, tmp_path)
    with (tmp_path / "worst" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    errors = [abs(float(row["valence"]) - float(row["true"])) for row in rows]
    assert errors == sorted(errors, reverse=True)
    predictions = affectdata.predict(
        model, [release.path / name for name in release.split("test")["file_name"].to_pylist()]
    )
    truth = release.split("test")["valence"].to_numpy()
    assert errors[0] == pytest.approx(np.abs(predictions["valence"].to_numpy() - truth).max(), abs=1e-6)
    assert len(list((tmp_path / "worst").glob("*.png"))) == 4  # valence and class of each


@pytest.mark.parametrize("lacks", ["a test split", "captum"])
def test_a_missing_requirement_of_maps_fails_before_training(
    lacks: str,
    cli: Callable[..., Any],
    release: Release,
    publish: Callable[..., Release],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, words = 3, "the release has none"
    if lacks == "a test split":
        release = publish(split="none")
    else:
        monkeypatch.setitem(sys.modules, "captum.attr", None)  # as if it were not installed
        code, words = 5, "affectdata[saliency]"
    options = (
        "--backbone",
        "small_cnn",
        "--weights",
        "none",
        "--device",
        "cpu",
        "--out",
        tmp_path / "checks",
    )
    ran = cli("train-check", release.path, *options, "--maps", 1)
    assert ran.code == code and words in ran.err
    assert not (tmp_path / "checks").exists()


def test_a_single_class_makes_no_model(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(target="subtype", bins=None, strata=[], where="subtype = 'P'")
    prepared = prepare_check(release, backbone, release.images(), checks)
    with pytest.raises(InputError, match="one class of subtype"):
        fit_final(prepared)


def test_without_a_test_split_there_is_nothing_to_draw(
    prepared: CheckInput, publish: Any, checks: Path
) -> None:
    release = publish(split="none")
    whole = prepare_check(release, prepared.backbone, release.images(), checks)
    with pytest.raises(InputError, match="test split"):
        draw_maps(whole, fit_final(whole), 1, checks / "maps")
