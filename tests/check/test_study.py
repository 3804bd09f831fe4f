"""check.study: every combination once, the best by validation alone, and no run twice."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from affectdata.check.study import Study, load_study, run_study
from affectdata.errors import InputError, MissingError, RecipeError
from affectdata.store.parquet import read_json

GRID: dict[str, Any] = {
    "name": "rates",
    "best": "r2",
    "seeds": [0, 1],
    "settings": {"steps": 10},
    "grid": {"lr": [0.1, 0.2, 0.3], "dropout": [0.0, 0.5]},
}


def score(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Validation is best at a rate of 0.2 without dropout; test, which must not be used, at 0.3."""
    val = 1 - abs(settings["lr"] - 0.2) - settings["dropout"] + 0.01 * settings["seed"]
    return {"val": {"r2": val}, "test": {"r2": settings["lr"]}}


def test_the_best_is_named_on_validation_over_the_seeds(tmp_path: Path) -> None:
    best = run_study(Study(**GRID), score, tmp_path)
    assert best["settings"] == {"steps": 10, "lr": 0.2, "dropout": 0.0}
    assert best["best_on"] == "val.r2"
    assert best["scores"]["val"]["r2"]["mean"] == pytest.approx(1.005)
    assert best["scores"]["test"]["r2"] == {"mean": pytest.approx(0.2), "sd": 0.0}
    assert (best["n_runs"], best["n_compared"]) == (12, 6)
    assert read_json(tmp_path / "study.json") == best


def test_one_lucky_seed_is_not_the_best(tmp_path: Path) -> None:
    def lucky(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
        luck = {0.1: (0.9, 0.1), 0.2: (0.6, 0.6), 0.3: (0.0, 0.0)}
        return {"val": {"r2": luck[settings["lr"]][settings["seed"]]}}

    study = Study(**{**GRID, "grid": {"lr": [0.1, 0.2, 0.3]}})
    assert run_study(study, lucky, tmp_path)["settings"]["lr"] == 0.2


def test_lower_may_be_better(tmp_path: Path) -> None:
    best = run_study(Study(**GRID, lower_is_better=True), score, tmp_path)
    assert best["settings"]["dropout"] == 0.5
    assert best["settings"]["lr"] in (0.1, 0.3)


def test_an_interrupted_study_resumes(tmp_path: Path) -> None:
    ran: list[dict[str, Any]] = []
    power = iter([True] * 5 + [False] + [True] * 7)

    def stops(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
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


def test_a_larger_grid_reuses_the_runs_of_a_smaller_one(tmp_path: Path) -> None:
    run_study(Study(**GRID), score, tmp_path)
    ran: list[float] = []

    def count(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
        ran.append(settings["lr"])
        return score(settings)

    run_study(Study(**{**GRID, "grid": {"lr": [0.1, 0.2, 0.4], "dropout": [0.0, 0.5]}}), count, tmp_path)
    assert ran == [0.4] * 4


def test_a_run_is_repeated_if_its_inputs_besides_the_settings_change(tmp_path: Path) -> None:
    study, ran = Study(**{**GRID, "grid": {"lr": [0.1, 0.2], "dropout": [0.0]}}), []

    def count(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
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
    def fails(settings: dict[str, Any]) -> dict[str, dict[str, float]]:
        if settings["lr"] == 0.2 and settings["seed"] == 1:
            raise InputError("the loss is no finite number")
        if settings["lr"] == 0.3:
            return {"val": {"r2": float("nan")}}
        return score(settings)

    best = run_study(Study(**GRID), fails, tmp_path)
    assert (best["settings"]["lr"], best["n_compared"]) == (0.1, 2)
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
