"""train.kept: a kept model predicts what the fitted one did; only files of its own form load."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.linear_model import Lasso
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

import affectdata
from affectdata.errors import InputError, IntegrityError, MissingError, UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.train.backbones import Backbone, content_hash, load_backbone
from affectdata.train.heads import fit_classifier, fit_regressor, with_output
from affectdata.train.kept import BackboneRef, FrozenModel, TunedModel, make_model
from affectdata.train.model_file import keep_model, load_model
from affectdata.train.networks import build_network
from affectdata.train.plain_heads import plain_head
from affectdata.train.predict import labels_text
from affectdata.train.rows import Rows
from affectdata.train.share_heads import fit_label_sets, fit_points, fit_shares
from affectdata.train.weights import tensors_hash

SIZE = 128  # input size of the backbone of these tests


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(3)
    light = rng.uniform(40, 200, (24, 1, 1, 3))
    return np.clip(rng.normal(light, 30, (24, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def rows(images: np.ndarray, backbone: Backbone, planted: Callable[..., Rows]) -> Rows:
    y = images.mean((1, 2, 3)) / 2.55
    x = backbone.features(images).astype(np.float64)
    return replace(planted(len(x)), features=x, target=y, stratum=(y > 50).astype(int))


def labels_of(rows: Rows, n: int) -> np.ndarray:
    words = np.array(["negative", "neutral", "positive"][:n])
    return words[np.searchsorted(np.quantile(rows.target, np.linspace(0, 1, n + 1)[1:-1]), rows.target)]


@pytest.fixture(scope="module")
def fitted(rows: Rows) -> tuple[Any, Any]:
    """A regressor, and a classifier that takes its output."""
    regressor = fit_regressor(rows, "svr", 0).model
    classifier = fit_classifier(rows, labels_of(rows, 3), regressor.predict(rows.features), 0).model
    return regressor, classifier


@pytest.fixture(scope="module")
def frozen(backbone: Backbone, fitted: tuple[Any, Any]) -> FrozenModel:
    return make_model(backbone, *fitted)


# Heads as arrays.


def test_a_regressor_predicts_what_scikit_learns_does(planted: Callable[..., Rows]) -> None:
    rows = planted()
    model = fit_regressor(rows, "svr", 0).model
    values = plain_head(model)(torch.from_numpy(rows.features))
    assert values.shape == (len(rows), 1)
    assert values[:, 0].numpy() == pytest.approx(model.predict(rows.features), abs=1e-9)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("takes_output", [True, False])
def test_a_classifier_predicts_what_scikit_learns_does(
    n_classes: int, takes_output: bool, planted: Callable[..., Rows]
) -> None:
    rows = planted()
    output = np.random.default_rng(0).uniform(0, 100, len(rows)) if takes_output else None
    model = fit_classifier(rows, labels_of(rows, n_classes), output, 0).model
    logits = plain_head(model)(
        torch.from_numpy(rows.features), torch.from_numpy(rows.target if output is None else output)
    )
    expected = model.predict_proba(with_output(rows.features, output))
    assert logits.softmax(1).numpy() == pytest.approx(expected, abs=1e-9)


def test_other_models_cannot_be_saved() -> None:
    x, y = np.random.default_rng(0).normal(size=(9, 2)), np.arange(9.0)
    for model in (Lasso(), SVR(kernel="rbf")):
        with pytest.raises(InputError, match="cannot be saved"):
            plain_head(make_pipeline(StandardScaler(), model).fit(x, y))


def test_a_head_without_its_output_column_is_an_error(fitted: tuple[Any, Any], rows: Rows) -> None:
    with pytest.raises(InputError, match=r"takes \d+ columns, got"):
        plain_head(fitted[1])(torch.from_numpy(rows.features))


def test_points_sets_and_shares_predict_as_their_heads(planted: Callable[..., Rows], tmp_path: Path) -> None:
    """Also of a label that every training row has, or none, and of a class without any share."""
    rows, rng = planted(n=60), np.random.default_rng(0)
    features = torch.from_numpy(rows.features)
    points = fit_points(rows, np.column_stack([rows.target, 100 - rows.target**2 / 100]), "svr", 0)
    assert plain_head(points)(features).numpy() == pytest.approx(points(rows), abs=1e-8)
    flags = np.column_stack([rows.target > 50, np.ones(60), np.zeros(60), rng.random(60) > 0.5]).astype(int)
    sets = fit_label_sets(rows, flags, 0)
    assert plain_head(sets)(features).sigmoid().numpy() == pytest.approx(sets(rows), abs=1e-8)
    shares = np.insert(rng.dirichlet([1, 2, 3], 60), 1, 0, axis=1)
    fitted = fit_shares(rows, shares, 0)
    assert plain_head(fitted)(features).softmax(1).numpy() == pytest.approx(fitted(rows), abs=1e-8)
    for constant in (fit_label_sets(rows, flags[:, 1:3], 0), fit_shares(rows, np.eye(2)[[0] * 60], 0)):
        assert constant(rows).tolist() == [constant(rows)[0].tolist()] * 60
        with pytest.raises(InputError, match="there is no model to save"):
            plain_head(constant)


def test_a_prediction_in_words(frozen: FrozenModel) -> None:
    labels = ["awe", "joy", "fear", "rage"]
    row = pd.Series({"class": "awe+joy", "p_awe": 0.6, "p_joy": 0.7, "p_fear": 0.1, "p_rage": 0.2})
    sets = replace(frozen, labels=labels, several_labels=True)
    assert labels_text(sets, row) == "joy 70%, awe 60%"
    assert (
        labels_text(sets, pd.Series({**row, "class": "", "p_joy": 0.4})) == "no label from 50 % on; awe 60%"
    )
    shares = replace(frozen, labels=labels, are_shares=True)
    assert labels_text(shares, pd.Series({**row, "class": "joy"})) == "joy 70%, awe 60%, rage 20%"
    assert labels_text(replace(frozen, labels=labels), pd.Series({**row, "class": "joy"})) == "joy (70%)"


# Saving and loading.


def test_a_frozen_model_comes_back(
    frozen: FrozenModel, fitted: tuple[Any, Any], rows: Rows, images: np.ndarray, tmp_path: Path
) -> None:
    keep_model(frozen, tmp_path / "model.safetensors")
    predictions = affectdata.predict(tmp_path / "model.safetensors", list(images))
    valence = fitted[0].predict(rows.features)
    shares = fitted[1].predict_proba(with_output(rows.features, valence))
    assert list(predictions) == ["image", "valence", "class", "p_negative", "p_neutral", "p_positive"]
    assert predictions["image"].tolist() == list(range(len(images)))
    assert predictions["valence"].to_numpy() == pytest.approx(valence, abs=1e-3)  # features are float32
    assert predictions[["p_negative", "p_neutral", "p_positive"]].to_numpy() == pytest.approx(
        shares, abs=1e-3
    )
    assert predictions["class"].tolist() == fitted[1].classes_[shares.argmax(1)].tolist()


def test_one_stage_is_enough(frozen: FrozenModel, fitted: tuple[Any, Any], images: np.ndarray) -> None:
    only = make_model(frozen.backbone, fitted[0])
    assert list(affectdata.predict(only, images[:1])) == ["image", "valence"]
    assert len(affectdata.predict(frozen, [])) == 0
    assert list(affectdata.predict(frozen, [])) == list(affectdata.predict(frozen, images[:1]))


def test_files_are_cropped_as_in_training(
    frozen: FrozenModel, images: np.ndarray, as_bytes: Callable[..., bytes], tmp_path: Path
) -> None:
    wide = np.pad(images[0], ((0, 0), (40, 40), (0, 0)))
    (tmp_path / "wide.png").write_bytes(as_bytes(wide, "PNG"))
    predictions = affectdata.predict(frozen, tmp_path / "wide.png")
    assert predictions["image"].tolist() == [str(tmp_path / "wide.png")]
    assert predictions["valence"][0] == pytest.approx(affectdata.predict(frozen, [images[0]])["valence"][0])


# Errors.


def test_an_image_that_cannot_be_read_is_named(frozen: FrozenModel, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("text.jpg", "absent.jpg"):
        with pytest.raises(InputError, match=name):
            affectdata.predict(frozen, [tmp_path / name])
    for wrong in (np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)):
        with pytest.raises(InputError, match="an image array must be uint8"):
            affectdata.predict(frozen, [wrong])


def test_a_pickle_is_rejected_without_running_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "was_run",)

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="not a kept model"):
        load_model(path)
    torch.save({"a": Evil()}, path)
    with pytest.raises(InputError, match="not a kept model"):
        load_model(path)
    assert not (tmp_path / "was_run").exists()


def test_files_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="not a kept model"):
        load_model(path)
    for metadata in (None, {"affectdata": "[1"}, {"affectdata": '{"form": "affectdata/model/9"}'}):
        save_file({"a": torch.zeros(1)}, path, metadata)
        with pytest.raises(
            InputError,
            match=r"not a kept model|does not have the form affectdata/model/",
        ):
            load_model(path)


def forge(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change header and tensors of a kept model."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["affectdata"])
    tensors = load_file(path)
    change(header, tensors)
    save_file(tensors, path, {"affectdata": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header, tensors: tensors.pop("regressor.gamma"), "do not belong to a head of kind 'svr'"),
        (lambda header, tensors: tensors.update({"regressor.mean": torch.zeros(3)}), "inconsistent shapes"),
        (lambda header, tensors: header["heads"].update(regressor="tree"), "head of kind 'tree'"),
        (lambda header, tensors: header.update(more=1), "more: unknown key"),
        (lambda header, tensors: header.pop("labels"), "labels: missing"),
        (lambda header, tensors: header["targets"].append("arousal"), "2 outputs for a regressor of another"),
        (lambda header, tensors: header.update(class_signs=[1.0]), "1 signs for 3 labels"),
    ],
)
def test_a_changed_file_is_rejected(
    change: Callable[..., Any], words: str, frozen: FrozenModel, tmp_path: Path
) -> None:
    keep_model(frozen, tmp_path / "model.safetensors")
    forge(tmp_path / "model.safetensors", change)
    with pytest.raises(InputError, match=words):
        load_model(tmp_path / "model.safetensors", device="cpu")


def test_a_header_without_a_later_field_is_still_that_of_its_file(
    frozen: FrozenModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    keep_model(frozen, path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["affectdata"])
    assert {"are_shares", "class_signs"}.isdisjoint(header)
    tensors = load_file(path)
    del header["trained_on"]  # as a version would write it that does not know this field
    known = canonical_json({**header, "content_sha256": None}) + tensors_hash(tensors)
    header["content_sha256"] = file_hash(known.encode())
    save_file(tensors, path, {"affectdata": canonical_json(header)})
    assert load_model(path, device="cpu").trained_on is None


def test_a_hash_cannot_be_left_out(frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    keep_model(frozen, path)
    forge(path, lambda header, tensors: header.pop("content_sha256"))
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        load_model(path, device="cpu")


def test_a_backbone_with_other_weights(frozen: FrozenModel, tmp_path: Path) -> None:
    keep_model(frozen, tmp_path / "model.safetensors")
    state = frozen.backbone.module.state_dict()
    save_file({key: (value + 1).contiguous() for key, value in state.items()}, tmp_path / "other.safetensors")
    with pytest.raises(IntegrityError, match="the backbone small_cnn differs from the one"):
        load_model(tmp_path / "model.safetensors", weights=str(tmp_path / "other.safetensors"), device="cpu")
    with pytest.raises(MissingError, match="weights file not found"):
        load_model(tmp_path / "model.safetensors", weights=str(tmp_path / "absent.pt"), device="cpu")


def test_a_users_class_that_changed(fitted: tuple[Any, Any], tmp_path: Path) -> None:
    code = "from affectdata.train.trunks import SmallCnn\nclass Mine(SmallCnn):\n    size_px = 32\n"
    (tmp_path / "mine.py").write_text(code)
    backbone = load_backbone(f"{tmp_path / 'mine.py'}:Mine", "none", "cpu")
    model = tmp_path / "model.safetensors"
    keep_model(make_model(backbone, *fitted), model)
    (tmp_path / "mine.py").rename(tmp_path / "moved.py")
    load_model(model, backbone=f"{tmp_path / 'moved.py'}:Mine", device="cpu")
    (tmp_path / "moved.py").write_text(code + "# changed\n")
    with pytest.raises(IntegrityError, match="the backbone"):
        load_model(model, backbone=f"{tmp_path / 'moved.py'}:Mine", device="cpu")


def test_a_model_runs_no_code_that_its_header_names(frozen: FrozenModel, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'was_run')!r}).touch()\n"
    (tmp_path / "evil.py").write_text(code)
    model = tmp_path / "model.safetensors"
    keep_model(frozen, model)
    forge(model, lambda header, _: header["backbone"].update(name=f"{tmp_path / 'evil.py'}:Evil"))
    for read in (load_model, lambda path: affectdata.predict(path, [])):
        with pytest.raises(InputError, match=r"is a class.*evil\.py:Evil.*runs no code"):
            read(model)
    assert not (tmp_path / "was_run").exists()
    with pytest.raises(UsageError, match=r"no torch\.nn\.Module named 'Evil'"):
        load_model(model, backbone=f"{tmp_path / 'evil.py'}:Evil", device="cpu")
    assert (tmp_path / "was_run").exists()  # allowed by the caller


def test_a_model_without_heads_and_a_wrong_file_name(frozen: FrozenModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model to save"):
        make_model(frozen.backbone)
    with pytest.raises(UsageError, match=r"model\.pt"):
        keep_model(frozen, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_first_form_is_still_read(
    frozen: FrozenModel, images: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    keep_model(frozen, path)

    def age(header: dict[str, Any], _: object) -> None:
        header["form"] = "affectdata/model/1"
        for name in ("several_labels", "ranges", "preprocessing", "trained_on", "content_sha256"):
            del header[name]
        del header["backbone"]["weights_sha256"]

    forge(path, lambda header, tensors: header.update(form="affectdata/model/1", content_sha256=None))
    with pytest.raises(InputError, match="has fields that affectdata/model/1 does not have"):
        load_model(path, device="cpu")
    forge(path, age)
    pd.testing.assert_frame_equal(
        affectdata.predict(path, images[:3]), affectdata.predict(frozen, images[:3])
    )


# Fine-tuned networks.


def tuned(several: bool = False) -> TunedModel:
    """A regressor with random weights, and a classifier that takes its output."""
    size = {"size_px": 32, "device": "cpu"}
    networks: dict[Any, Any] = {
        "regressor": build_network("small_cnn", 2, "none", seed=1, **size),
        "classifier": build_network("small_cnn", 3, "none", takes_output=True, seed=2, **size),
    }
    start = BackboneRef(
        name="small_cnn",
        weights="none",
        content=content_hash(networks["regressor"].normalisation, "", "0" * 64),
        weights_sha256="0" * 64,
    )
    labels = ["awe", "joy", "fear"]
    return TunedModel(
        targets=["valence", "arousal"], labels=labels, several_labels=several, networks=networks, start=start
    )


@pytest.mark.parametrize("several", [False, True])
def test_fine_tuned_networks_come_back(several: bool, images: np.ndarray, tmp_path: Path) -> None:
    model, path = tuned(several), tmp_path / "model.safetensors"
    keep_model(model, path)
    before, after = (affectdata.predict(each, images[:5]) for each in (model, path))
    numbers = ["valence", "arousal", "p_awe", "p_joy", "p_fear"]
    assert list(after) == ["image", "valence", "arousal", "class", *numbers[2:]]
    assert after[numbers].to_numpy() == pytest.approx(before[numbers].to_numpy(), abs=1e-5)
    assert after["class"].tolist() == before["class"].tolist()
    sums = after[numbers[2:]].sum(axis=1).to_numpy()
    assert (np.abs(sums - 1) < 1e-5).all() != several
    for sets, shares in zip(after["class"], after[numbers[2:]].to_numpy(), strict=True):
        likely = [label for label, share in zip(model.labels, shares, strict=True) if share >= 0.5]
        assert sets == ("+".join(likely) if several else model.labels[shares.argmax()])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda header, tensors: tensors.pop("regressor.head.bias"), InputError, "missing: head.bias"),
        (lambda header, tensors: header["labels"].append("rage"), InputError, "shape: head"),
        (lambda header, tensors: header.update(preprocessing=None), InputError, "lacks their preprocessing"),
        (lambda header, tensors: header["labels"].reverse(), IntegrityError, "do not match their hash"),
        (
            lambda header, tensors: tensors["regressor.head.bias"].add_(1),
            IntegrityError,
            "do not match their hash",
        ),
        (lambda header, tensors: header["preprocessing"].update(size_px=64), IntegrityError, "differs from"),
    ],
)
def test_changed_networks_are_rejected(
    change: Callable[..., Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    keep_model(tuned(), tmp_path / "model.safetensors")
    forge(tmp_path / "model.safetensors", change)
    with pytest.raises(error, match=words):
        load_model(tmp_path / "model.safetensors", device="cpu")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(InputError, match="not a kept model"):
        load_model(tmp_path / "cut.safetensors", device="cpu")
