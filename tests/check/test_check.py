"""train-check as a whole: sound and broken releases, and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from affectdata.check import gate
from affectdata.check.blocks import CheckDocument, read_document
from affectdata.check.check import CheckOutput, run_check
from affectdata.check.gate import RULES
from affectdata.check.image_pool import fill_image_pool, plan_image_pool
from affectdata.check.metrics import MEASURES
from affectdata.check.prepare import CheckInput, Split, prepare_check
from affectdata.errors import InputError, IntegrityError
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Images, Manifest
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import Check, Recipe
from affectdata.release.publish import publish_release
from affectdata.release.release import Release, open_release
from affectdata.schema import PLAN
from affectdata.sources.oasis import write_sample
from affectdata.store.parquet import read_table
from affectdata.train import trunks
from affectdata.train.backbones import Backbone
from affectdata.train.features import FeatureCache
from affectdata.train.heads import GRIDS, inner_folds
from affectdata.train.packaged import DEFAULT_BACKBONE
from affectdata.train.rows import Rows
from tests.made import forge

pytestmark = pytest.mark.slow  # most of the time is for what the tests share

ARMS = {"release", "originals", "even", "duplicates", "weights", "stretched", "mean", "subtype_mean"} | {
    *("subtype_aware", "subtype_shuffled", "subtype_clusters", "subtype_alone", "subtype_oracle"),
    *("calibrated", "widened"),
}


@pytest.fixture(scope="session")
def document(checked: CheckOutput) -> dict[str, Any]:
    return checked.document.to_dict()


def test_the_document_is_strict_json(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(document["arms"]) == ARMS
    for arm, found in document["arms"].items():
        for head in {"regressor", "ridge"} & set(found):
            for scored_on in ("crossfit", "heldout"):
                assert set(found[head][scored_on]) >= set(MEASURES)
                assert set(found[head][scored_on]["r2"]) == {"mean", "low", "high", "splits", "pooled"}
        assert ("ridge" in found) == (arm in ("release", "originals"))
        assert ("classifier" in found) == (arm == "release")


def test_documents_are_as_their_schema_says(
    document: dict[str, Any], publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    validator = Draft202012Validator(CheckDocument.model_json_schema())
    release = publish(target="subtype", bins=None, strata=[])
    classes = run_check(prepare_check(release, backbone, None, checks), workers=2).document.to_dict()
    for each in (document, classes):
        assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(each)] == []
    assert list(validator.iter_errors({**document, "unknown": 1}))


def test_the_advice_has_a_row_per_option_and_the_first_sentence_is_of_the_plain_head(
    document: dict[str, Any],
) -> None:
    rows = {row["option"]: row for row in document["advice"]["rows"]}
    assert next(iter(rows)) == "subtype-aware head"
    not_run = {name for name, row in rows.items() if row["outcome"] == "not run"}
    assert not_run == {"second backbone", *(name for name in rows if name.startswith("another source"))}
    gain = rows["subtype-aware head"]["change"]
    compared = document["comparison"]["subtype_aware - originals"]["r2"]
    assert gain["mean"] == compared["mean"]
    assert gain["low"] < compared["low"] and gain["high"] > compared["high"]  # for all rows together
    first = document["verdict"]["sentences"][0]
    assert f"R² {document['arms']['release']['regressor']['crossfit']['r2']['mean']:.3f} (" in first


def test_the_r2_of_the_release_is_plausible(document: dict[str, Any]) -> None:
    r2 = document["arms"]["release"]["regressor"]["crossfit"]["r2"]
    assert 0.1 < r2["mean"] < 0.9  # the generated images carry some valence
    assert len(r2["splits"]) == 10
    assert r2["mean"] == pytest.approx(np.mean(r2["splits"]))
    assert r2["low"] < r2["mean"] < r2["high"]
    assert abs(document["arms"]["mean"]["regressor"]["crossfit"]["r2"]["pooled"]) < 0.05


@pytest.mark.parametrize("head", ["regressor", "ridge"])
def test_the_same_features_and_splits_in_plain_scikit_learn(
    prepared: CheckInput, checked: CheckOutput, head: str
) -> None:
    dim = prepared.crossfit[0].test.features.shape[1]
    gammas = [gamma / dim for gamma in GRIDS["svr"]["gamma"]]
    plain, grid = {
        "regressor": (SVR(epsilon=3), {"svr__C": GRIDS["svr"]["C"], "svr__gamma": gammas}),
        "ridge": (Ridge(), {"ridge__alpha": GRIDS["ridge"]["alpha"]}),
    }[head]
    for arm in ("release", "originals"):
        scores = []
        for split in prepared.crossfit[:2]:
            rows, test = split.arms[arm], split.test
            search = GridSearchCV(
                make_pipeline(StandardScaler(), plain),
                grid,
                cv=inner_folds(rows, rows.stratum, prepared.recipe.seed),
                scoring="neg_mean_squared_error",
            )
            scores.append(
                r2_score(test.target, search.fit(rows.features, rows.target).predict(test.features))
            )
        found = checked.document.to_dict()["arms"][arm][head]["crossfit"]["r2"]["splits"][:2]
        # libsvm stops within 1e-3 of the optimum, and where depends on the rounding of the kernel
        assert found == pytest.approx(scores, abs=1e-5 if head == "regressor" else 1e-6)


def test_splits_keep_groups_together_and_each_assignment_scores_every_original_once(
    prepared: CheckInput, release: Release
) -> None:
    everything = sorted(set(release.table["image_id"].to_pylist()))
    for splits in (prepared.crossfit[:5], prepared.crossfit[5:]):
        assert sorted(np.concatenate([split.test.image_id for split in splits])) == everything
    for split in prepared.crossfit:
        assert (split.test.copy == 0).all()
        for rows in split.arms.values():
            assert not set(rows.group) & set(split.test.group)
        assert (split.arms["originals"].copy == 0).all()
        assert split.arms["release"].copy.max() == 1
        assert len(split.arms["even"]) == len(split.arms["release"])


def test_the_two_assignments_to_folds_differ(prepared: CheckInput) -> None:
    first, second = prepared.fold_assignments
    assert (first != second).mean() > 0.5


def test_a_split_is_planned_by_the_recipe(prepared: CheckInput) -> None:
    for split in prepared.crossfit:
        counts = np.bincount(split.arms["release"].stratum)
        plain = np.bincount(split.arms["originals"].stratum)
        assert counts.tolist() == np.minimum(plain.max(), 2 * plain).tolist()


def test_a_copy_has_one_row_of_features_in_all_splits_and_arms(prepared: CheckInput) -> None:
    seen: dict[tuple[str, int], np.ndarray] = {}
    for split in prepared.crossfit:
        for arm in ("release", "even"):
            rows = split.arms[arm]
            for image_id, copy, x in zip(rows.image_id, rows.copy, rows.features, strict=True):
                assert (seen.setdefault((image_id, int(copy)), x) == x).all()


def test_a_rendered_image_has_the_features_of_the_released_one(
    prepared: CheckInput, backbone: Backbone, release: Release, tmp_path: Path
) -> None:
    """Images that are not in the release are made by the same code as those that are."""
    table = release.table
    renamed = table.set_column(
        table.column_names.index("sample_id"),
        table.schema.field("sample_id"),
        pa.array([f"{sample_id}x" for sample_id in table["sample_id"].to_pylist()]),
    )
    wanted = table.select(PLAN.names)
    planned = plan_image_pool(
        replace(release, rows=renamed.slice(0, 1)),
        prepared.originals,
        [wanted],
        prepared.recipe,
        release.images(),
    )
    image_pool = fill_image_pool(
        planned, backbone, FeatureCache(tmp_path, backbone), 2, lambda _done, _of: None
    )
    assert np.abs(image_pool.rows(wanted).features - prepared.image_pool.rows(wanted).features).max() < 1e-4


def test_a_second_run_computes_no_features_and_gives_the_same_result(
    release: Release, backbone: Backbone, checks: Path, checked: CheckOutput
) -> None:
    again = prepare_check(release, backbone, release.images(), checks, workers=1)
    assert again.image_pool.n_new == 0
    second = run_check(again, workers=1)
    assert second.document == checked.document
    assert second.predictions.equals(checked.predictions)


def test_the_written_files(checked: CheckOutput, tmp_path: Path, release: Release) -> None:
    path = checked.write(tmp_path)
    assert path == tmp_path / release.name / "train-check.json"
    assert json.loads(path.read_text()).keys() - checked.document.to_dict().keys() == {
        "content_sha256",
        "predictions_digest",
    }
    read = read_document(path)
    assert read.model_copy(update={"predictions_digest": None}) == checked.document
    table, _ = read_table(path.parent / "predictions.parquet", "predictions")
    assert pq.read_table(path.parent / "predictions.parquet").num_rows == len(table)
    predicted = table["crossfit.release.regressor"].to_numpy()
    assert r2_score(table["valence"].to_numpy(), predicted) == pytest.approx(
        checked.document.to_dict()["arms"]["release"]["regressor"]["crossfit"]["r2"]["pooled"]
    )
    assert table["heldout.release.regressor"].null_count == len(table) - len(release.split("test"))


def test_without_the_source_images_only_the_held_out_score(
    release: Release, backbone: Backbone, checks: Path
) -> None:
    prepared = prepare_check(release, backbone, None, checks, why_none="they were moved")
    document = run_check(prepared, workers=2).document.to_dict()
    assert document["arms"]["release"]["regressor"]["crossfit"] is None
    assert document["arms"]["release"]["regressor"]["heldout"]["r2"]["mean"] is not None
    assert "Only the held-out score: they were moved." in " ".join(document["verdict"]["sentences"])
    failed = [rule["rule"] for rule in document["verdict"]["gate"] if rule["outcome"] == "fail"]
    assert failed == ["shortcut.shift", "transforms.effect", "training.not_worse.even"]
    assert document["comparison"]["release - originals"]["r2"]["low"] is not None  # a bootstrap


def test_nothing_to_score(publish: Callable[..., Release], backbone: Backbone, checks: Path) -> None:
    release = publish(split="none")
    with pytest.raises(InputError, match="no test split"):
        prepare_check(release, backbone, None, checks)
    prepared = prepare_check(release, backbone, release.images(), checks)
    assert prepared.heldout is None and len(prepared.crossfit) == 10


def test_thin_bins_and_a_single_class_are_reported(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(
        where="subtype = 'P' AND valence > 60",
        bins={"edges": [0.0, 50.0, 75.0, 80.0, 100.0]},
        check={"classes": {"valence": [40.0, 60.0]}},
    )
    prepared = prepare_check(release, backbone, release.images(), checks)
    document = run_check(prepared, workers=2).document.to_dict()
    text = " ".join(document["verdict"]["sentences"])
    assert "every scored image is 'positive'" in text
    assert "Fewer than 5 scored images in [0,50) (0)" in text
    assert "There are no two subtypes" in text
    assert document["arms"]["release"]["regressor"]["crossfit"]["mae_per_bin"][0] is None


def test_a_categorical_target_has_a_classifier_only(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(target="subtype", bins=None, strata=[])
    document = run_check(
        prepare_check(release, backbone, release.images(), checks), workers=2
    ).document.to_dict()
    assert "regressor" not in document["arms"]["release"]
    assert set(document["arms"]["release"]["classifier"]) == {"subtype"}
    assert set(document["arms"]["even"]["classifier"]) == {"subtype"}
    assert set(document["comparison"]["release - originals"]) == {"accuracy", "balanced_accuracy", "macro_f1"}
    rules = {rule["rule"]: rule for rule in document["verdict"]["gate"]}
    assert rules["training.score.above_chance"]["bound"] == pytest.approx(1 / 6)
    assert rules["leak.nearest"]["outcome"] == "pass"
    assert "training.not_worse.even.balanced_accuracy" in rules
    assert {"learns.above_shuffled", "learns.above_shuffled.release"} <= set(rules)
    assert_one_value(document, "subtype")


def test_a_number_has_one_value_wherever_it_is_printed(document: dict[str, Any]) -> None:
    assert_one_value(document, "valence_class")
    assert_one_value(document, "subtype")
    found = document["arms"]["release"]["regressor"]["crossfit"]
    rules = {rule["rule"]: rule for rule in document["verdict"]["gate"]}
    sentences = " ".join(document["verdict"]["sentences"])
    for name, measure in {"score.r2": "r2", "score.collapse": "sd_ratio"}.items():
        assert rules[f"training.{name}"]["figure"] == found[measure]["mean"]
    assert f"R² {found['r2']['mean']:.3f} (" in sentences
    assert f"the model's r is {found['r_within']['mean']:.3f} (" in sentences


def assert_one_value(document: dict[str, Any], classes: str) -> None:
    """Check that sentence, table and rule have one value, and baselines are counted over originals."""
    found = document["arms"]["release"]["classifier"][classes]["crossfit"]
    best = found["both" if "both" in found else "image"]
    interval = {name: figure["mean"] for name, figure in found["interval"].items()}
    assert interval == {name: pytest.approx(best[name]) for name in interval}
    (sentence,) = (
        text for text in document["verdict"]["sentences"] if f"classes of {classes}: balanced" in text
    )
    most, balanced = max(found["n"]) / sum(found["n"]), best["balanced_accuracy"]
    assert (
        f"balanced accuracy {balanced:.3f} (" in sentence
        and f", accuracy {best['accuracy']:.3f} (" in sentence
    )
    assert f"always the most frequent: accuracy {most:.3f})" in sentence
    assert found["majority"]["accuracy"] == pytest.approx(most)
    assert found["majority"]["balanced_accuracy"] == pytest.approx(found["chance"]["balanced_accuracy"])
    assert found["chance"]["balanced_accuracy"] == pytest.approx(1 / np.count_nonzero(found["n"]))
    for rule in document["verdict"]["gate"]:
        by_accuracy = rule["rule"] in ("training.score.above_chance", "learns.above_shuffled.release")
        if by_accuracy and not document["numeric"]:
            assert rule["figure"] == interval["balanced_accuracy"] and f"{balanced:.3f} (" in rule["text"]


def test_weights_and_drawn_originals(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(weights={"by": "inverse"}, originals="drawn")
    prepared = prepare_check(release, backbone, release.images(), checks)
    assert prepared.heldout is not None
    arms = prepared.heldout.arms
    assert len(set(arms["release"].weight)) > 1
    assert set(arms["originals"].weight) == {1.0}
    drawn, plain = arms["release"], arms["originals"]
    first = drawn.features[(drawn.image_id == plain.image_id[0]) & (drawn.copy == 0)]
    assert not np.allclose(
        first, plain.features[0]
    )  # originals of the release are flipped, those of `originals` are not


def test_a_copy_in_the_test_split_is_an_integrity_error(
    release: Release, backbone: Backbone, checks: Path
) -> None:
    table = release.table
    split = table["split"].to_pylist()
    copy = table["copy"].to_pylist().index(1)
    split[copy] = "test"
    moved = table.set_column(table.column_names.index("split"), table.schema.field("split"), pa.array(split))
    with pytest.raises(IntegrityError):
        prepare_check(replace(release, rows=moved), backbone, release.images(), checks)


@pytest.mark.parametrize("change", ["raised", "exchanged"])
def test_changed_labels_of_copies_exit_with_4_also_when_signed_anew(
    cli: Callable[..., Any], publish: Callable[..., Release], tmp_path: Path, change: str
) -> None:
    def change_labels(rows: list[dict[str, Any]]) -> None:
        copies = [row for row in rows if row["copy"] > 0]
        values = [row["valence"] for row in copies]
        new = [min(100.0, value + 5) for value in values] if change == "raised" else values[::-1]
        for row, value in zip(copies, new, strict=True):
            row["valence"] = row["valence_raw"] = value

    release = forge(publish().path, change_labels)
    ran = cli("train-check", release.path, "--backbone", "small_cnn", "--weights", "none", "--out", tmp_path)
    assert ran.code == 4
    assert "copies have other labels than the original" in ran.err
    assert not list(tmp_path.iterdir())


def test_the_command(cli: Callable[..., Any], release: Release, tmp_path: Path, sample_gaped: Path) -> None:
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    ran = cli("train-check", release.path, *options, "--root", f"gaped={sample_gaped}", "--json")
    failed = [rule["rule"] for rule in ran.document["verdict"]["gate"] if rule["outcome"] == "fail"]
    assert (ran.code, failed) == (0, [])
    assert ran.document["verdict"]["outcome"] == "inconclusive" and not ran.document["verdict"]["passed"]
    assert ran.document["schema"] == "affectdata/train-check/3"
    assert Path(ran.document["path"]).is_file()
    text = cli("train-check", release.path, *options, "--no-crossfit", "--quiet", "-v")
    assert text.code == 1  # rules that were not run
    assert "held-out test" in text.out and "splits of the originals" not in text.out
    assert "Only the held-out score: --no-crossfit was given." in text.out
    assert text.err == ""


def test_the_command_exits_with_1_if_the_gate_fails(
    cli: Callable[..., Any],
    publish: Callable[..., Release],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gate, "_LEAST_SCORED", 20)  # the release has 29 test images
    release = publish(check={"min_r2": 0.999})
    options = ("--backbone", "small_cnn", "--weights", "none", "--out", tmp_path, "--no-crossfit")
    ran = cli("train-check", release.path, *options)
    assert ran.code == 1
    assert "fail       training.score.r2" in ran.out and "the check FAILED" in ran.out


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_the_command_without_weights(
    cli: Callable[..., Any], release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ran = cli("train-check", release.path, "--backbone", "mobilenet_v3_large", "--out", tmp_path / "checks")
    assert ran.code == 5
    assert ran.out == ""
    assert "fetching the weights of mobilenet_v3_large: 21 MB from https://" in ran.err
    assert "--weights FILE" in ran.err and "the default of --backbone" in ran.err
    assert not (tmp_path / "checks").exists()


def test_several_networks_and_what_takes_one(
    cli: Callable[..., Any], release: Release, tmp_path: Path, sample_gaped: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Conv2d):\n"
        "    size_px = 16\n"
        "    def __init__(self):\n"
        "        super().__init__(3, 5, 3)\n"
    )
    mine = f"{tmp_path / 'mine.py'}:Mine"
    both = ("--backbone", "small_cnn", "--weights", "none", "--backbone", mine, "--weights", "none")
    options = ("--device", "cpu", "--out", tmp_path, "--no-crossfit")
    settings = cli("train-check", release.path, *both, *options, "--json").document["settings"]
    assert settings["backbone"] == f"small_cnn + {mine}"
    assert len(set(settings["weights_sha256"])) == 2
    one = cli("train-check", release.path, *both[:4], *options, "--json").document["settings"]
    assert one["weights_sha256"] == settings["weights_sha256"][:1]
    for extra, words in {
        ("--keep-model", tmp_path / "m.safetensors"): "--keep-model cannot be used with several networks",
        ("--mode", "finetune"): "--mode finetune cannot be used with several networks",
        ("--weights", "none"): "2 of --backbone, but 3 of --weights",
        ("--backbone", "small_cnn", "--weights", "none"): "must name different networks",
    }.items():
        ran = cli("train-check", release.path, *both, *options, *extra)
        assert (ran.code, words in ran.err) == (2, True), ran.err


def test_the_newest_release_and_none(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("train-check", "--backbone", "small_cnn", "--weights", "none")
    assert ran.code == 2
    assert "no release in releases/" in ran.err


def test_the_rules_are_listed_with_their_defaults(cli: Callable[..., Any]) -> None:
    ran = cli("train-check", "--rules")
    assert ran.code == 0
    for rule in RULES:
        assert rule.name in ran.out
    found = cli("train-check", "--rules", "--json").document
    assert found["defaults"] == Check().model_dump(mode="json")
    bounds = {name for name in found["defaults"] if name.startswith(("max_", "min_"))} - {"max_pictures"}
    for name in bounds:
        assert any(f"`{name}`" in rule["what"] for rule in found["rules"]), name


def test_the_help_names_every_kind_of_network(cli: Callable[..., Any]) -> None:
    found = " ".join(cli("train-check", "--help").out.split())
    assert f"torchvision model, {trunks._OTHERS}." in found
    assert f"[default: {DEFAULT_BACKBONE}]" in found


def test_bounds_may_come_from_a_file(
    cli: Callable[..., Any], release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_LEAST_SCORED", 20)  # the release has 29 test images
    bounds = tmp_path / "bounds.yaml"
    bounds.write_text("min_r2: 0.999\n")
    options = ("--backbone", "small_cnn", "--weights", "none", "--out", tmp_path, "--no-crossfit", "--json")
    ran = cli("train-check", release.path, *options, "--check", bounds)
    assert ran.document["settings"]["check"]["min_r2"] == 0.999
    rules = {rule["rule"]: rule["outcome"] for rule in ran.document["verdict"]["gate"]}
    assert rules["training.score.r2"] == "fail"
    bounds.write_text("min_rr: 0.999\n")
    assert "min_rr: unknown key" in cli("train-check", release.path, *options, "--check", bounds).err


def test_a_release_that_was_filled_from_another_source(
    manifest: Manifest, backbone: Backbone, checks: Path, tmp_path: Path, recipe_of: Callable[..., Recipe]
) -> None:
    """Images that fill thin bins have other categories; they are trained on, never scored."""
    write_sample(tmp_path / "oasis", np.random.default_rng(0))
    other = ingest(tmp_path / "oasis", out=tmp_path / "manifests", workers=2).manifest
    recipe = recipe_of(where=None, balance={"level": "max", "max_copies": 2, "fill_from": ["oasis"]})
    rows, plan = plan_release([manifest], [other], recipe)
    published, _ = publish_release([manifest, other], rows, plan, recipe, tmp_path / "releases", workers=2)
    roots = {**manifest.images().roots, **other.images().roots}
    release = open_release(published.path, roots)
    document = run_check(
        prepare_check(release, backbone, release.images(), checks), workers=2
    ).document.to_dict()
    filled = set(rows.filter(pc.equal(rows["source"], "oasis"))["subtype"].to_pylist())
    scored = document["arms"]["release"]["classifier"]["subtype"]["crossfit"]
    assert filled and not filled & set(scored["labels"])
    assert set(document["arms"]["release"]["regressor"]["crossfit"]["per_source"]) == {"gaped"}


def _of_sources(rows: Rows) -> Rows:
    """Return rows of two sources that differ by 40 points; the features encode the source and nothing else.

    A third source only fills bins: its ratings are among its features.
    """
    number = np.array([int(group[:8], 16) for group in rows.group])
    chance = np.array([int(image_id[:8], 16) for image_id in rows.image_id]) / 2**32
    kind = number % 5 % 3
    y = np.where(kind == 2, 80 * chance, np.where(kind, 60, 20) + 20 * chance)
    noise = np.random.default_rng(0).normal(size=(8, 6))[number // 5 % 8]
    x = np.column_stack([8 * np.eye(3)[kind], np.where(kind == 2, chance, 0), noise])
    return replace(
        rows, features=x, target=y, source=np.array(["a", "b", "fills"])[kind], stratum=(y > 40).astype(int)
    )


def test_a_model_that_only_recognises_the_source_has_no_leak(
    prepared: CheckInput, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These rows have features of their own, not those of a network that could be given other images.
    monkeypatch.setattr("affectdata.check.shortcuts._try_looks", lambda *_: ({}, "the features are made"))
    originals = prepared.originals
    everything = _of_sources(prepared.image_pool.rows(originals.plain(originals.own)))
    table = originals.table
    for name, values in {
        "source": pa.array(everything.source.tolist()),
        "valence_sd": pa.array(np.full(len(table), 10.0)),
        "valence_n": pa.array(np.full(len(table), 5), pa.int32()),
        "valence": pa.array(everything.target),
    }.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
    kind = np.where(everything.source == "fills", "filled", "own")

    def mixed(split: Split) -> Split:
        arms = {name: _of_sources(rows) for name, rows in split.arms.items()}
        test = _of_sources(split.test)
        arms["originals"] = arms["originals"].take(arms["originals"].source != "fills")
        return Split(arms, test.take(test.source != "fills"))

    several = replace(
        prepared,
        originals=replace(
            originals, table=table, kind=kind, target=everything.target, bin=everything.stratum
        ),
        fold_assignments=prepared.fold_assignments[:1],
        crossfit=[mixed(split) for split in prepared.crossfit[:5]],
        heldout=None,
        regrouped={},
        images=Images(dict.fromkeys(("a", "b", "fills"), release.images().roots["gaped"])),
    )
    document = run_check(several, workers=2).document.to_dict()
    rules = {rule["rule"]: rule for rule in document["verdict"]["gate"]}
    for name in ("leak.nearest", "cascade.out_of_fold"):
        assert rules[name]["outcome"] == "pass", rules[name]["text"]
    assert document["leak"]["nearest"]["mean"] < 0 and document["cascade"]["second_stage"] < 0.1
    within = [everything.target[everything.source == name].var() for name in ("a", "b")]
    assert document["ceiling"] == pytest.approx(np.mean([1 - 20 / variance for variance in within]))
