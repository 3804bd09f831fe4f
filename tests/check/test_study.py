"""check.study: every combination once, the best by validation alone, and no run twice."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from affectdata.check.study import Study, find_study, load_study, run_study
from affectdata.errors import InputError, IntegrityError, MissingError, RecipeError, UsageError
from affectdata.store.sealed import read_kept, read_sealed, write_kept

GRID: dict[str, Any] = {
    "name": "rates",
    "best": "r2",
    "seeds": [0, 1],
    "settings": {"steps": 10},
    "grid": {"lr": [0.1, 0.2, 0.3], "dropout": [0.0, 0.5]},
}


def score(settings: dict[str, Any]) -> dict[str, Any]:
    """Validation is best at a rate of 0.2 without dropout; test, which must not be used, at 0.3."""
    val = 1 - abs(settings["lr"] - 0.2) - settings["dropout"] + 0.01 * settings["seed"]
    return {"scores": {"val": {"r2": val}, "test": {"r2": settings["lr"]}}}


def test_the_best_is_named_on_validation_over_the_seeds(tmp_path: Path) -> None:
    document = run_study(Study(**GRID), score, tmp_path)
    best = document["combinations"][0]
    assert best["settings"] == document["winner"] == {"steps": 10, "lr": 0.2, "dropout": 0.0}
    assert document["best_on"] == "val.r2"
    assert best["scores"]["val"]["r2"]["mean"] == pytest.approx(1.005)
    assert best["scores"]["test"]["r2"] == {"mean": pytest.approx(0.2), "sd": 0.0}
    assert (document["n_runs"], len(document["combinations"])) == (12, 6)
    assert read_sealed(tmp_path / "study.json", "") == document


def test_the_winner_is_clear_of_every_other_combination(tmp_path: Path) -> None:
    """By hand: the standard error over three seeds, and the t quantile of 2 degrees for one comparison."""

    def noisy(settings: dict[str, Any]) -> dict[str, Any]:
        noise = (0.00, 0.06, 0.03)[settings["seed"]] if settings["lr"] == 0.2 else 0.0
        return {"scores": {"val": {"r2": settings["lr"] + noise}}}

    for lr, is_clear in ((0.1, True), (0.19, False)):
        study = Study(**{**GRID, "seeds": [0, 1, 2], "grid": {"lr": [lr, 0.2]}})
        document = run_study(study, noisy, tmp_path / str(lr))
        assert document["combinations"][0]["settings"]["lr"] == 0.2
        assert document["winner"] == (document["combinations"][0]["settings"] if is_clear else None)
        found = document["combinations"][1]["difference"]
        reach = 4.302652729 * np.std([0.0, 0.06, 0.03], ddof=1) / 3**0.5
        mean = 0.2 + 0.03 - lr
        assert (found["low"], found["high"]) == (pytest.approx(mean - reach), pytest.approx(mean + reach))


def test_noise_of_the_images_counts_too_and_is_corrected_for_the_number_of_combinations(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    noise = {lr: rng.normal(0, 0.05, 400) for lr in (0.1, 0.15, 0.3)}

    def one(settings: dict[str, Any]) -> dict[str, Any]:
        return {"scores": {"val": {"r2": settings["lr"]}}}

    study = Study(**{**GRID, "seeds": [0], "grid": {"lr": [0.1, 0.15, 0.3]}})
    found = run_study(
        study, one, tmp_path, resample=lambda run: run["settings"]["lr"] + noise[run["settings"]["lr"]]
    )
    for other in found["combinations"][1:]:
        lr, difference = other["settings"]["lr"], other["difference"]
        reach = stats.norm.ppf(1 - 0.025 / 2) * (noise[0.3] - noise[lr]).std(ddof=1)
        assert difference["high"] - difference["mean"] == pytest.approx(reach)
    assert found["winner"] is None and found["combinations"][2]["difference"]["low"] > 0


def test_one_seed_without_resamples_names_no_winner(tmp_path: Path) -> None:
    document = run_study(Study(**{**GRID, "seeds": [0]}), score, tmp_path)
    assert document["winner"] is None
    assert document["combinations"][1]["difference"]["low"] is None


def test_frozen_runs_have_no_settings_of_networks_and_occur_once() -> None:
    grid = {"mode": ["frozen", "finetune"], "lr_head": [0.1, 0.2], "head": ["ridge"]}
    runs = Study(**{**GRID, "seeds": [0], "grid": grid}).runs()
    assert runs == [
        {"mode": "frozen", "head": "ridge", "seed": 0},
        {"steps": 10, "mode": "finetune", "lr_head": 0.1, "seed": 0},
        {"steps": 10, "mode": "finetune", "lr_head": 0.2, "seed": 0},
    ]


def test_weights_by_backbone() -> None:
    settings = {"weights": {"a": "a.safetensors"}}
    runs = Study(**{**GRID, "seeds": [0], "settings": settings, "grid": {"backbone": ["a", "b"]}}).runs()
    assert [run["weights"] for run in runs] == ["a.safetensors", "DEFAULT"]


def test_random_draws_are_repeatable_and_those_of_a_larger_search_begin_alike() -> None:
    space = {"lr_trunk": {"log": [1e-5, 1e-3]}, "steps": {"uniform": [100, 200]}, "batch": [16, 32]}

    def draws(n: int, **changes: Any) -> list[dict[str, Any]]:
        document = {**GRID, "settings": {}, "seeds": [0], "grid": {}, **changes}
        return Study(**document, random={"n": n, "settings": space}).runs()

    few, many = draws(5), draws(200)
    assert many[:5] == few
    assert {run["batch"] for run in many} == {16, 32} and {type(run["steps"]) for run in many} == {int}
    assert all(100 <= run["steps"] <= 200 and 1e-5 <= run["lr_trunk"] <= 1e-3 for run in many)
    assert 70 < sum(run["lr_trunk"] < 1e-4 for run in many) < 130  # half of the draws in either decade
    assert len(draws(3, grid={"dropout": [0.0, 0.5]})) == 6


def test_settings_of_older_studies_have_their_present_names() -> None:
    study = Study(
        name="old",
        best="ccc",
        settings={"lr_body": 1e-4},
        grid={"dropout": [0.1]},
        random={"n": 1, "settings": {"lr_head": [1e-3]}},
    )
    assert study.settings == {"lr_trunk": 1e-4}
    with pytest.raises(ValidationError, match="lr_trunk: set twice"):
        Study(name="old", best="ccc", settings={"lr_body": 1e-4}, grid={"lr_trunk": [1e-4]})


def test_a_run_without_weights_is_skipped_and_tried_again(tmp_path: Path) -> None:
    study = Study(**{**GRID, "seeds": [0], "settings": {"dropout": 0}, "grid": {"lr": [0.1, 0.2]}})
    missing = MissingError("could not download the weights of a")
    found = run_study(study, score, tmp_path, run_inputs=["a", missing])
    assert (found["n_skipped"], len(found["combinations"])) == (1, 1)
    assert "could not download the weights of a" in (tmp_path / "results.csv").read_text()
    again = run_study(study, score, tmp_path, run_inputs=["a", "b"])
    assert (again["n_skipped"], len(again["combinations"])) == (0, 2)
    with pytest.raises(MissingError):
        run_study(study, score, tmp_path / "none", run_inputs=[missing, missing])


def test_a_study_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_study("gaped_backbones").is_file()
    own = tmp_path / "studies" / "gaped_backbones.yaml"
    own.parent.mkdir()
    own.write_text("name: mine\nbest: r2\n")
    assert find_study("gaped_backbones").resolve() == own
    with pytest.raises(UsageError, match="did you mean 'gaped_backbones'"):
        find_study("gaped_backbone")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("settings: {mode: frozen, steps: 3}", "steps have no effect with mode frozen"),
        ("settings: {head: ridge}", "head have no effect with mode finetune"),
        ("settings: {weights: {vgg: none}, backbone: alexnet}", "weights are given for vgg"),
    ],
)
def test_settings_without_effect_are_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(f"name: rates\nbest: r2\n{text}\n")
    with pytest.raises(UsageError, match=words):
        load_study(path)


def test_one_lucky_seed_is_not_the_best(tmp_path: Path) -> None:
    def lucky(settings: dict[str, Any]) -> dict[str, Any]:
        luck = {0.1: (0.9, 0.1), 0.2: (0.6, 0.6), 0.3: (0.0, 0.0)}
        return {"scores": {"val": {"r2": luck[settings["lr"]][settings["seed"]]}}}

    study = Study(**{**GRID, "grid": {"lr": [0.1, 0.2, 0.3]}})
    assert run_study(study, lucky, tmp_path)["combinations"][0]["settings"]["lr"] == 0.2


def test_lower_may_be_better(tmp_path: Path) -> None:
    best = run_study(Study(**GRID, lower_is_better=True), score, tmp_path)["combinations"][0]
    assert best["settings"]["dropout"] == 0.5
    assert best["settings"]["lr"] in (0.1, 0.3)


def test_an_interrupted_study_resumes(tmp_path: Path) -> None:
    ran: list[dict[str, Any]] = []
    power = iter([True] * 5 + [False] + [True] * 7)

    def stops(settings: dict[str, Any]) -> dict[str, Any]:
        if not next(power):
            raise MissingError("no power")
        ran.append(settings)
        return score(settings)

    with pytest.raises(MissingError):
        run_study(Study(**GRID), stops, tmp_path)
    assert len(ran) == 5
    resumed = run_study(Study(**GRID), stops, tmp_path)
    assert ran == Study(**GRID).runs()
    assert resumed == run_study(Study(**GRID), score, tmp_path / "whole")


def test_a_run_of_another_file_is_refused(tmp_path: Path) -> None:
    run_study(Study(**GRID), score, tmp_path)
    one, other, *_ = sorted((tmp_path / "runs").glob("*.json"))
    shutil.copy(one, other)
    with pytest.raises(IntegrityError, match="was written under another name"):
        run_study(Study(**GRID), score, tmp_path)
    for damaged in ({"scores": None}, {"predictions": []}, {"settings": []}, {"curves": 1}):
        write_kept(other, {**read_kept(one, ""), **damaged})
        with pytest.raises(IntegrityError, match="is not a run of a study"):
            run_study(Study(**GRID), score, tmp_path)


def test_a_larger_grid_reuses_the_runs_of_a_smaller_one(tmp_path: Path) -> None:
    run_study(Study(**GRID), score, tmp_path)
    ran: list[float] = []

    def count(settings: dict[str, Any]) -> dict[str, Any]:
        ran.append(settings["lr"])
        return score(settings)

    run_study(Study(**{**GRID, "grid": {"lr": [0.1, 0.2, 0.4], "dropout": [0.0, 0.5]}}), count, tmp_path)
    assert ran == [0.4] * 4


def test_a_run_is_repeated_if_its_inputs_besides_the_settings_change(tmp_path: Path) -> None:
    study, ran = Study(**{**GRID, "grid": {"lr": [0.1, 0.2], "dropout": [0.0]}}), []

    def count(settings: dict[str, Any]) -> dict[str, Any]:
        ran.append((settings["lr"], settings["seed"]))
        return score(settings)

    run_study(study, count, tmp_path, run_inputs=["a", "b", "c", "d"])
    run_study(study, count, tmp_path, run_inputs=["a", "b", "c", "d"])
    run_study(study, count, tmp_path, run_inputs=["a", "b", "changed", "d"])
    assert ran == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1), (0.2, 0)]


def test_the_table_has_a_row_per_run_and_validation_first(tmp_path: Path) -> None:
    run_study(Study(**GRID), score, tmp_path)
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["lr", "dropout", "seed", "val_r2", "test_r2", "error"]
    assert len(rows) == 12
    assert (rows[0]["lr"], rows[0]["seed"], rows[0]["val_r2"]) == ("0.1", "0", "0.9")


def test_a_run_that_fails_is_kept_with_its_error_and_is_not_the_best(tmp_path: Path) -> None:
    def fails(settings: dict[str, Any]) -> dict[str, Any]:
        if settings["lr"] == 0.2 and settings["seed"] == 1:
            raise InputError("the loss is no finite number")
        if settings["lr"] == 0.3:
            return {"scores": {"val": {"r2": float("nan")}}}
        return score(settings)

    combinations = run_study(Study(**GRID), fails, tmp_path)["combinations"]
    assert (combinations[0]["settings"]["lr"], len(combinations)) == (0.1, 2)
    assert "no finite number" in (tmp_path / "results.csv").read_text()


def test_a_score_that_no_run_has(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"val\.macro_f1"):
        run_study(Study(**{**GRID, "best": "macro_f1"}), score, tmp_path)


def test_a_study_is_read_and_every_problem_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: rates\nbest: r2\ngrid: {lr_head: [0.1, 0.2]}\n")
    assert [run["lr_head"] for run in load_study(path).runs()] == [0.1, 0.2]
    path.write_text("name: rates\nseeds: []\nmore: 1\ngrid: {dropout: []}\n")
    with pytest.raises(RecipeError) as caught:
        load_study(path)
    for words in ("best: missing", "more: unknown key", "grid.dropout", "seeds"):
        assert words in str(caught.value)
    path.write_text("name: rates\nbest: r2\nsettings: {lr: 0.1}\ngrid: {lr: [0.2], seed: [1]}\n")
    with pytest.raises(RecipeError, match="lr, seed: set twice"):
        load_study(path)
    path.write_text("name: rates\nbest: r2\ngrid: {lr_head: [0.1, 1e-3], lr: [0.1]}\n")
    with pytest.raises(RecipeError, match=r"(?s)lr: unknown key"):
        load_study(path)
    path.write_text("name: rates\nbest: r2\nseeds: [0, -1]\n")
    with pytest.raises(RecipeError, match=r"seeds\.1: .*greater than or equal to 0 \(got -1\)"):
        load_study(path)
    path.write_text("name: rates\nbest: r2\ngrid: {lr_head: [0.1, 1e-3]}\n")  # which YAML reads as text
    with pytest.raises(RecipeError, match=r"lr_head: .*number.* \(got '1e-3'\)"):
        load_study(path)
