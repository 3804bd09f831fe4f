"""check.trials: studies on a release, and those of the five projects in examples/studies."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
import yaml
from safetensors.torch import save_file
from sklearn.metrics import r2_score, root_mean_squared_error

import affectdata
from affectdata.check import scores, trials
from affectdata.check.study import Study, load_study
from affectdata.check.trials import study_release
from affectdata.config import read_yaml
from affectdata.errors import InputError, RecipeError, UsageError
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Manifest
from affectdata.manifest.overlay import overlay
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import packaged_recipes, parse_recipe
from affectdata.registry import load_plugin
from affectdata.release.info import CONTENT_HASH, info_hash
from affectdata.release.publish import publish_release
from affectdata.release.release import Release, open_release
from affectdata.store.atomic import read_json
from affectdata.train.finetune import finetune
from affectdata.train.packaged import PACKAGED
from affectdata.train.trunks import SmallCnn

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
STUDIES = {  # by the name of the file: source, recipe, and changes to it
    "gaped_networks": ("gaped", "valence_bins", {}),
    "gaped_backbones": ("gaped", "valence_bins", {}),
    "capd_inception": ("capd", "capd_top6", {}),
    "capd_shares": ("capd", "capd_shares", {}),
    "emotion6_shares": ("emotion6", "emotion6_shares", {}),
    "fi_resnet": ("fi", "fi_mikels8", {}),
    "fi_sets": ("fi", "fi_sets", {}),
    "oasis_plane": ("oasis", "oasis_va", {"split": {"val": 0.2, "test": 0.2}}),
    "wikiart_moods": ("wikiart_emotions", "wikiart_quadrants", {}),
    "fi_polarity": ("fi", "fi_mikels8", {}),
    "utkface_separable": ("utkface", "utkface_fair", {}),
    "wikiart_lenet_alexnet": ("wikiart_emotions", "wikiart_quadrants", {}),
}
QUICK = {"image": {"short_side_px": 64}}
SMALL: dict[str, Any] = {"backbone": "small_cnn", "weights": "none", "size_px": 32, "steps": 2, "batch": 8}


def write_study(path: Path, **changes: Any) -> Path:
    document = {"name": "made", "best": "ccc", "settings": SMALL, **changes}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_arms_are_trained_and_scored_on_val_and_test(release: Release, tmp_path: Path) -> None:
    arms = ["release", "originals", "even", "duplicates", "weights"]
    path = write_study(tmp_path / "study.yaml", grid={"arm": arms})
    found, folder = study_release(release, path, tmp_path / "checks")
    assert folder == tmp_path / "checks" / release.name / "studies" / "made"
    rows = rows_of(folder)
    assert [row["arm"] for row in rows] == arms and {row["error"] for row in rows} == {""}
    assert len({row["val_mae"] for row in rows}) == len(arms)  # each arm has rows or weights of its own
    measures = {"r2", "ccc", "mae", "rmse", "macro_mae", "sd_ratio"}
    scored = found["combinations"][0]["scores"]
    assert set(scored) == {"train", "val", "test"}
    assert set(scored["train"]) == set(scored["val"]) == set(scored["test"]) == measures
    assert set(found["baseline"]) == {"train", "val", "test"} and found["baseline"]["train"]["r2"] == 0
    curves = (folder / "curves.csv").read_text().splitlines()
    assert curves[0] == "arm,seed,step,phase,loss,val_loss,accuracy,val_accuracy" and len(curves) >= 1 + len(
        arms
    )
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".csv"}  # no network


def test_the_scores_are_over_originals_of_val_and_test(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of train, predicted for every image, has the expected error on each split."""
    by_split = {
        name: release.split(name).filter(release.split(name)["copy"].to_numpy() == 0)["valence"].to_numpy()
        for name in ("train", "val", "test")
    }
    mean = by_split["train"].mean()

    def constant(*arguments: Any, **options: Any) -> Any:
        fitted = finetune(*arguments, **options)
        monkeypatch.setattr(type(fitted), "predict", lambda _, __, rows: np.full((len(rows), 1), mean))
        return fitted

    monkeypatch.setattr(trials, "finetune", constant)
    path = write_study(tmp_path / "study.yaml", best="mae")
    found, _ = study_release(release, path, tmp_path / "checks")
    for name in ("val", "test"):
        expected = np.abs(by_split[name] - mean).mean()
        assert found["combinations"][0]["scores"][name]["mae"]["mean"] == pytest.approx(expected)


def test_frozen_heads_beside_networks_score_like_scikit_learn(release: Release, tmp_path: Path) -> None:
    weights = tmp_path / "small.safetensors"
    save_file(SmallCnn().state_dict(), weights)
    settings = {**SMALL, "weights": {"small_cnn": str(weights)}}
    grid = {"mode": ["frozen", "finetune"], "head": ["svr", "ridge"]}
    path = write_study(tmp_path / "study.yaml", settings=settings, grid=grid)
    _, folder = study_release(release, path, tmp_path / "checks")
    runs = {(row["mode"], row["head"]) for row in rows_of(folder)}
    assert runs == {("frozen", "svr"), ("frozen", "ridge"), ("finetune", "")}
    val = release.split("val")["valence"].to_numpy()
    val = val[np.argsort(release.split("val")["image_id"].to_pylist())]
    for run in (read_json(path) for path in (folder / "runs").iterdir()):
        predicted = np.array(run["predictions"]["val"])
        assert sorted(val) == sorted(release.split("val")["valence"].to_pylist())
        assert run["scores"]["val"]["rmse"] == pytest.approx(root_mean_squared_error(val, predicted))
        assert run["scores"]["val"]["r2"] == pytest.approx(r2_score(val, predicted))


def test_a_network_that_cannot_be_fetched_is_skipped_and_named(
    release: Release, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    grid = {"backbone": ["small_cnn", "mobilenet_v1"], "mode": ["frozen"]}  # neither has published weights
    settings = {"weights": {"small_cnn": "none"}}
    path = write_study(tmp_path / "study.yaml", settings=settings, grid=grid, seeds=[0, 1])
    ran = cli("study", path, release.path, "--out", tmp_path, "--device", "cpu")
    assert ran.code == 0
    assert ran.err.count("skipped: mobilenet_v1, mobilenet_v1 has no published weights") == 1
    assert "  2 runs: skipped: mobilenet_v1: mobilenet_v1 has no published weights\n" in ran.out
    path = write_study(tmp_path / "study.yaml", settings={}, grid={**grid, "backbone": ["mobilenet_v1"]})
    assert cli("study", path, release.path, "--out", tmp_path, "--device", "cpu").code == 5


def test_a_categorical_target_has_the_gap_between_subgroups(
    publish: Callable[..., Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(target="subtype", bins=None, strata=[])
    table = release.table
    half = ["a" if int(image_id[:2], 16) % 2 else "b" for image_id in table["image_id"].to_pylist()]
    column = table.column_names.index("gender")
    grouped = Release(
        release.path, table.set_column(column, table.schema.field("gender"), [half]), release.info
    )
    monkeypatch.setattr(scores, "LEAST_SUBGROUP", 1)
    grid = {"class_weights": [None, "inverse"]}
    path = write_study(tmp_path / "study.yaml", best="accuracy", grid=grid)
    found, folder = study_release(grouped, path, tmp_path / "checks")
    measures = {"accuracy", "balanced_accuracy", "macro_f1", "gender_gap"}
    scored = found["combinations"][0]["scores"]
    assert set(scored["val"]) == set(scored["test"]) == measures
    for path in (folder / "runs").iterdir():
        run = read_json(path)
        assert 0 <= run["scores"]["test"]["gender_gap"] <= 1
        groups = [each for each in run["subgroups"] if each["split"] == "test"]
        assert [each["group"] for each in groups] == ["a", "b"]
        assert all(each["low"] <= each["mean"] <= each["high"] for each in groups)
        n = sum(each["n"] for each in groups)
        share = sum(each["n"] * each["mean"] for each in groups) / n
        assert share == pytest.approx(run["scores"]["test"]["accuracy"])
        counts = [each for each in run["confusion"] if each["split"] == "test"]
        assert sum(each["n"] for each in counts) == n
        right = sum(each["n"] for each in counts if each["true"] == each["predicted"])
        assert right / n == pytest.approx(run["scores"]["test"]["accuracy"])


def test_a_run_is_repeated_if_code_weights_or_release_change(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = 0

    def count(*arguments: Any, **options: Any) -> Any:
        nonlocal ran
        ran += 1
        return finetune(*arguments, **options)

    monkeypatch.setattr(trials, "finetune", count)
    network, weights = tmp_path / "mine.py", tmp_path / "mine.safetensors"
    network.write_text("from affectdata.train.trunks import SmallCnn\nclass Mine(SmallCnn): pass\n")
    save_file(SmallCnn().state_dict(), weights)
    settings = {**SMALL, "backbone": f"{network}:Mine", "weights": str(weights)}
    path = write_study(tmp_path / "study.yaml", settings=settings)

    def count_runs(release: Release) -> int:
        before = ran
        study_release(release, path, tmp_path / "checks")
        return ran - before

    assert [count_runs(release), count_runs(release)] == [1, 0]
    network.write_text(network.read_text() + "# as it is now\n")
    assert [count_runs(release), count_runs(release)] == [1, 0]
    save_file({name: value + 0.1 for name, value in SmallCnn().state_dict().items()}, weights)
    assert [count_runs(release), count_runs(release)] == [1, 0]
    # A release folder has only the first digits of the id in its name.
    info = {**release.info, "id": release.id[:8] + "0" * 56}
    other = Release(release.path, release.rows, info | {CONTENT_HASH: info_hash(info)})
    assert [count_runs(other), count_runs(other)] == [1, 0]
    monkeypatch.setattr(trials, "version", lambda name: "0.0.1")
    assert count_runs(release) == 1


def test_inverse_weights_have_a_mean_of_1_over_the_rows(
    publish: Callable[..., Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(target="subtype", bins=None, strata=[])
    seen: list[Any] = []

    def spy(network: Any, images: Any, examples: Any, settings: Any, **options: Any) -> Any:
        seen.append((examples, np.array(settings.class_weights)))
        return finetune(network, images, examples, settings, **options)

    monkeypatch.setattr(trials, "finetune", spy)
    settings = {**SMALL, "class_weights": "inverse", "arm": "originals"}
    path = write_study(tmp_path / "study.yaml", best="accuracy", settings=settings)
    study_release(release, path, tmp_path / "checks")
    ((examples, weights),) = seen
    counts = np.bincount(examples.targets)
    assert weights[examples.targets].mean() == pytest.approx(1)
    assert weights * counts == pytest.approx([len(examples.targets) / len(counts)] * len(counts))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"settings": {**SMALL, "stepps": 3}}, RecipeError, "stepps: unknown key"),
        ({"grid": {"rate": [0.1]}}, RecipeError, "rate: unknown key"),
        ({"grid": {"arm": ["release", "levelled"]}}, RecipeError, "arm: "),
        ({"grid": {"lr_head": [0.1, "fast"]}}, RecipeError, "lr_head: "),
        ({"grid": {"dropout": [0.0, 1.5]}}, UsageError, "dropout must be >= 0"),
        (
            {"grid": {"loss": ["squared_error", "cross_entropy"]}},
            InputError,
            "does not fit the target valence",
        ),
        ({"settings": {**SMALL, "class_weights": "inverse"}}, InputError, "takes no class_weights"),
        ({"settings": SMALL, "name": "../made"}, RecipeError, "name"),
        ({"settings": {"weights": "none"}, "grid": {"backbone": ["vgg"]}}, UsageError, "unknown backbone"),
    ],
)
def test_invalid_settings_fail_before_training(
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
    release: Release,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "finetune", None)  # a call would be an error
    with pytest.raises(error, match=words.replace(".", r"\.")):
        study_release(release, write_study(tmp_path / "study.yaml", **changes), tmp_path / "checks")


def test_a_release_without_val_or_without_the_arm(publish: Callable[..., Release], tmp_path: Path) -> None:
    path = write_study(tmp_path / "study.yaml")
    with pytest.raises(InputError, match="has no val split"):
        study_release(publish(split={"val": 0.0, "test": 0.2}), path, tmp_path / "checks")
    path = write_study(tmp_path / "study.yaml", settings={**SMALL, "arm": "even"})
    with pytest.raises(InputError, match="no arm even: it has no copies"):
        study_release(publish(balance={"max_copies": 1}), path, tmp_path / "checks")


def test_the_command_prints_every_run_and_the_best(
    cli: Callable[..., Any], release: Release, tmp_path: Path
) -> None:
    path = write_study(tmp_path / "study.yaml", grid={"dropout": [0.0, 0.5]}, seeds=[0, 1])
    ran = cli("study", path, release.path, "--out", tmp_path, "--device", "cpu")
    assert ran.code == 0 and ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0].split()[:4] == ["dropout", "val_ccc", "test_ccc", "train_ccc"] and len(lines[1:3]) == 2
    assert lines[5].startswith(("no clear best on val.ccc: 2 of 2", "best val.ccc, mean over the seeds"))
    for words in ("  val: ", "  test: ", "  train: ", "  baseline, test: ", "on val over 2 seeds"):
        assert words in ran.out
    again = cli("train-check", release.path, "--study", path, "--out", tmp_path, "--json")
    assert again.document["schema"] == "affectdata/study/2" and "a command of its own" in again.err
    for options in (["--backbone", "small_cnn"], ["--steps", 3], ["--mode", "frozen"], ["--no-crossfit"]):
        ran = cli("train-check", release.path, "--study", path, *options)
        assert ran.code == 2 and f"{options[0]} has no effect with --study" in ran.err


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_the_best_model_of_a_study_is_kept_and_predicts_as_its_run_did(
    mode: str, cli: Callable[..., Any], release: Release, tmp_path: Path
) -> None:
    settings = SMALL if mode == "finetune" else {"backbone": "small_cnn", "weights": "none"}
    study = write_study(tmp_path / "study.yaml", settings={**settings, "mode": mode}, seeds=[3])
    path = tmp_path / "model.safetensors"
    ran = cli("study", study, release.path, "--out", tmp_path, "--device", "cpu", "--keep-model", path)
    assert ran.code == 0 and f"wrote {path}" in ran.out
    (run,) = (tmp_path / release.name / "studies" / "made" / "runs").glob("*.json")
    val = release.split("val")
    predicted = affectdata.predict(path, [release.path / name for name in val["file_name"].to_pylist()])
    assert sorted(predicted["valence"]) == pytest.approx(
        sorted(read_json(run)["predictions"]["val"]), abs=1e-3
    )
    card = path.with_suffix(".md").read_text()
    assert "The best of 1 setting on val.ccc, mean over 1 seed." in card and "| CCC |" in card


def test_heads_of_points_are_kept_and_ridge_is_refused(
    cli: Callable[..., Any], release: Release, tmp_path: Path
) -> None:
    settings = {"backbone": "small_cnn", "weights": "none", "mode": "frozen"}
    target = {"numbers": ["valence", "arousal"]}
    study = write_study(tmp_path / "study.yaml", settings=settings, target=target, best="rmse")
    options = ("--out", tmp_path, "--device", "cpu", "--keep-model", tmp_path / "model.safetensors")
    ran = cli("study", study, release.path, *options)
    assert ran.code == 0 and list(affectdata.predict(tmp_path / "model.safetensors", [])) == [
        "image",
        "valence",
        "arousal",
    ]
    write_study(study, name="ridge", settings={**settings, "head": "ridge"}, target=target, best="rmse")
    ran = cli("study", study, release.path, *options)
    assert ran.code == 3 and "the head ridge cannot be kept" in ran.err
    assert not (tmp_path / release.name / "studies" / "ridge").exists()  # before any run


# --- the studies of the five projects --------------------------------------------------------------------


def make_manifest(source: str, gaped: Manifest, folder: Path) -> Manifest:
    """Ingest a source's generated sample; CAP-D's categories go onto the images of GAPED."""
    if source == "gaped":
        return gaped
    load_plugin("sources", source).write_sample(folder / source, np.random.default_rng(0))
    if source == "capd":
        (table,) = (folder / source).glob("capd*")
        return overlay(table, [gaped], out=folder / "manifests").manifest
    return ingest(folder / source, out=folder / "manifests", workers=2).manifest


def shrink(study: Study) -> dict[str, Any]:
    """Return a study as plain data with a small network in place of torchvision's, for two steps."""
    document = study.model_dump(exclude={"random"})
    settings, grid = document["settings"], document["grid"]
    settings |= {"weights": "none"}
    if settings.get("mode") != "frozen":
        settings |= {"steps": 2, "batch": 8, "epochs": None}
    if "backbone" in settings and ".py:" not in settings["backbone"]:
        settings |= {"backbone": "small_cnn", "size_px": 32}
    if "backbone" in grid:
        names = [name if ".py:" in name else "small_cnn" for name in grid["backbone"]]
        grid["backbone"] = list(dict.fromkeys(names))
    if "head_steps" in grid:
        grid["head_steps"] = [1, 2]
    return {**document, "seeds": [0]}


def test_every_study_names_its_purpose_and_existing_networks() -> None:
    files = {path.stem: path for path in (REPOSITORY / "examples" / "studies").glob("*.yaml")}
    assert set(files) == set(STUDIES)
    for name, path in files.items():
        study = load_study(path)
        assert study.name == name
        assert path.read_text(encoding="utf-8").startswith("# For ")
        assert STUDIES[name][1] in path.read_text(encoding="utf-8").splitlines()[0]
        for run in study.runs():
            known = (REPOSITORY / run["backbone"].partition(".py:")[0]).with_suffix(".py").is_file()
            assert known or run["backbone"] in (*torchvision.models.list_models(), *PACKAGED)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_on_a_release_of_its_recipe(
    name: str, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, recipe_name, changes = STUDIES[name]
    roots = manifest.images().roots
    manifest = make_manifest(source, manifest, tmp_path)
    roots = roots if source in ("gaped", "capd") else manifest.images().roots
    document = {**read_yaml(packaged_recipes() / f"{recipe_name}.yaml"), **changes, **QUICK}
    recipe = parse_recipe({**document, "sources": []})
    rows, plan = plan_release([manifest], [], recipe)
    sources = [Manifest(manifest.table, manifest.metadata, manifest.path, roots)]
    release, _ = publish_release(sources, rows, plan, recipe, tmp_path / "releases", workers=2)
    study = load_study(REPOSITORY / "examples" / "studies" / f"{name}.yaml")
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(shrink(study)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # the networks of the examples are found from any folder
    found, folder = study_release(open_release(release.path, roots), path, tmp_path / "checks", device="cpu")
    assert {row["error"] for row in rows_of(folder)} == {""}
    assert found["combinations"][0]["scores"]["val"][study.best]["mean"] is not None
