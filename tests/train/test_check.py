"""train-check as a whole: what it says of a release, of broken ones, and through the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from affectdata.balance.recipe import Recipe
from affectdata.errors import InputError, IntegrityError
from affectdata.release import Release
from affectdata.schema import PLAN
from affectdata.tables import read_table
from affectdata.train import check as check_module
from affectdata.train.backbones import Backbone
from affectdata.train.bank import fill_bank
from affectdata.train.check import Checked, run_check
from affectdata.train.features import FeatureCache
from affectdata.train.heads import GRIDS, inner_folds
from affectdata.train.prepare import Prepared, prepare_check
from affectdata.train.verdict import judge

MEASURES = {
    "r2", "mse", "rmse", "mae", "macro_mae", "ccc", "pearson_r", "sd_ratio", "r_within", "r2_within",
}  # fmt: skip


@pytest.fixture(scope="session")
def document(checked: Checked) -> dict[str, Any]:
    return checked.document


def test_the_document_is_strict_json_with_the_documented_keys(document: dict[str, Any]) -> None:
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    documented = set(re.findall(r"^    (\w+)", check_module.__doc__ or "", re.M)) | {"schema", "arms"}
    assert set(document) <= documented
    assert set(document["arms"]) == {"release", "originals", "mean", "subtype_mean"}
    for arm, found in document["arms"].items():
        for head in {"regressor", "ridge"} & set(found):
            for scored_on in ("crossfit", "heldout"):
                assert set(found[head][scored_on]) > MEASURES
                assert set(found[head][scored_on]["r2"]) >= {"mean", "sd"}
        assert ("ridge" in found) == ("classifier" in found) == (arm in ("release", "originals"))


def test_the_first_figure_lies_where_it_should(document: dict[str, Any]) -> None:
    r2 = document["arms"]["release"]["regressor"]["crossfit"]["r2"]
    assert 0.2 < r2["mean"] < 1  # the generated pictures carry some valence
    assert len(r2["folds"]) == 5
    assert r2["sd"] == pytest.approx(np.std(r2["folds"], ddof=1))
    assert abs(document["arms"]["mean"]["regressor"]["crossfit"]["r2"]["mean"]) < 0.05


@pytest.mark.slow
def test_the_same_features_and_folds_in_plain_scikit_learn(prepared: Prepared, checked: Checked) -> None:
    for arm in ("release", "originals"):
        table = checked.predictions
        y, fold = table["valence"].to_numpy(), table["fold"].to_numpy()
        predicted = np.empty(len(table))
        for number, (arms, test) in enumerate(prepared.crossfit):
            rows = arms[arm]
            search = GridSearchCV(
                make_pipeline(StandardScaler(), Ridge()),
                {"ridge__alpha": GRIDS["ridge"]["alpha"]},
                cv=inner_folds(rows, rows.stratum, prepared.recipe.seed),
                scoring="neg_mean_squared_error",
            )
            predicted[fold == number] = search.fit(rows.x, rows.y).predict(test.x)
        expected = r2_score(y, predicted)
        found = checked.document["arms"][arm]["ridge"]["crossfit"]["r2"]["mean"]
        assert found == pytest.approx(expected, abs=1e-6)


def test_folds_are_group_safe_and_score_every_original_once(prepared: Prepared, release: Release) -> None:
    scored = np.concatenate([test.image_id for _, test in prepared.crossfit])
    assert sorted(scored) == sorted(set(release.table["image_id"].to_pylist()))
    for arms, test in prepared.crossfit:
        assert (test.copy == 0).all()
        for rows in arms.values():
            assert not set(rows.group) & set(test.group)
        assert (arms["originals"].copy == 0).all()
        assert arms["release"].copy.max() == 1


def test_a_fold_is_the_recipe_planned_anew(prepared: Prepared) -> None:
    for arms, _ in prepared.crossfit:
        counts = np.bincount(arms["release"].stratum)
        plain = np.bincount(arms["originals"].stratum)
        assert counts.tolist() == np.minimum(plain.max(), 2 * plain).tolist()


def test_a_copy_has_one_row_of_features_in_all_folds(prepared: Prepared) -> None:
    seen: dict[tuple[str, int], np.ndarray] = {}
    for arms, _ in prepared.crossfit:
        rows = arms["release"]
        for image_id, copy, x in zip(rows.image_id, rows.copy, rows.x, strict=True):
            assert (seen.setdefault((image_id, int(copy)), x) == x).all()


def test_a_picture_rendered_anew_has_the_features_of_the_released_one(
    prepared: Prepared, backbone: Backbone, release: Release, tmp_path: Path
) -> None:
    """What the release does not hold is made by the same path as what it holds."""
    table = release.table
    none_named = table.set_column(
        table.column_names.index("sample_id"),
        table.schema.field("sample_id"),
        pa.array([f"{each}x" for each in table["sample_id"].to_pylist()]),
    )
    wanted = table.select(PLAN.names)
    bank = fill_bank(
        replace(release, table=none_named.slice(0, 1)),
        prepared.originals,
        [wanted],
        prepared.recipe,
        backbone,
        FeatureCache(tmp_path, backbone),
        release.pictures(),
        2,
        lambda _done, _of: None,
    )
    y = np.zeros(len(prepared.originals.table))
    assert np.abs(bank.rows(wanted, y).x - prepared.bank.rows(wanted, y).x).max() < 1e-4


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_says_the_same(
    release: Release, backbone: Backbone, checks: Path, checked: Checked
) -> None:
    again = prepare_check(release, backbone, release.pictures(), checks, workers=1)
    assert again.bank.n_new == 0
    second = run_check(again, workers=1)
    assert second.document == checked.document
    assert second.predictions.equals(checked.predictions)


def test_the_files_written(checked: Checked, tmp_path: Path, release: Release) -> None:
    path = checked.write(tmp_path)
    assert path == tmp_path / release.name / "train-check.json"
    assert json.loads(path.read_text()) == checked.document
    table, _ = read_table(path.parent / "predictions.parquet", "predictions")
    assert pq.read_table(path.parent / "predictions.parquet").num_rows == len(table)
    predicted = table["crossfit.release.regressor"].to_numpy()
    assert r2_score(table["valence"].to_numpy(), predicted) == pytest.approx(
        checked.document["arms"]["release"]["regressor"]["crossfit"]["r2"]["mean"]
    )
    assert table["heldout.release.regressor"].null_count == len(table) - len(release.split("test"))


def test_the_verdict_speaks_of_valence_subtype_balance_and_classes(document: dict[str, Any]) -> None:
    text = " ".join(document["verdict"]["sentences"])
    assert "subtype and nothing else gives R²" in text
    assert "against the unbalanced originals" in text and "95 % interval" in text
    assert "image alone" in text and "chance 0.333" in text
    assert document["verdict"]["passed"]
    assert [rule["rule"] for rule in document["verdict"]["gate"]] == [
        "structure",
        "min_r2",
        "not_worse.r2",
        "not_worse.ccc",
    ]


def _altered(document: dict[str, Any], **scores: float) -> dict[str, Any]:
    copy = json.loads(json.dumps(document))
    crossfit = copy["arms"]["release"]["regressor"]["crossfit"]
    for name, value in scores.items():
        crossfit[name]["mean"] = value
    return dict(copy)


def test_what_is_known_is_said_plainly(document: dict[str, Any], recipe_of: Callable[..., Recipe]) -> None:
    def sentences(**scores: float) -> str:
        return " ".join(judge(_altered(document, **scores), recipe_of())["sentences"])

    assert "knows valence, not only the subtype" in sentences(r2=0.6, r_within=0.5)
    assert "mostly knows the subtype" in sentences(r2=0.5, r_within=0.18)
    assert "knows only the subtype" in sentences(r2=0.5, r_within=0.02)
    assert "knows neither" in sentences(r2=-0.19, r_within=0.02)


def test_a_collapse_and_an_edge_are_named(document: dict[str, Any], recipe_of: Callable[..., Recipe]) -> None:
    altered = _altered(document, sd_ratio=0.1)
    crossfit = altered["arms"]["release"]["regressor"]["crossfit"]
    crossfit["mean_collapse"] = True
    crossfit["chosen"] = {"folds": [{"C": 3000.0, "on_edge": ["C"]}] * 2 + [{"C": 30.0, "on_edge": []}] * 3}
    text = " ".join(judge(altered, recipe_of())["sentences"])
    assert "Mean collapse: the SVR of the release arm" in text
    assert re.search("edge of its grid for [^:]*SVR of the release arm", text)


@pytest.mark.parametrize(("high", "passed"), [(-0.021, False), (-0.019, True), (0.01, True), (None, True)])
def test_worse_for_sure_fails(
    document: dict[str, Any], recipe_of: Callable[..., Recipe], high: float | None, passed: bool
) -> None:
    altered = _altered(document)
    altered["comparison"]["regressor"]["r2"] = {"difference": -0.1, "low": -0.2, "high": high}
    assert judge(altered, recipe_of())["passed"] is passed


def test_too_low_an_r2_fails(document: dict[str, Any], recipe_of: Callable[..., Recipe]) -> None:
    verdict = judge(document, recipe_of(check={"min_r2": 0.99}))
    assert not verdict["passed"]
    assert "at least 0.99 is asked for" in verdict["gate"][1]["text"]


def test_without_the_source_pictures_only_the_held_out_score(
    release: Release, backbone: Backbone, checks: Path
) -> None:
    prepared = prepare_check(release, backbone, None, checks, why_none="they were moved")
    document = run_check(prepared, workers=2).document
    assert document["arms"]["release"]["regressor"]["crossfit"] is None
    assert document["arms"]["release"]["regressor"]["heldout"]["r2"]["mean"] is not None
    assert document["comparison"]["scored_on"] == "heldout"
    assert "Only the held-out score: they were moved." in " ".join(document["verdict"]["sentences"])


def test_nothing_to_score(publish: Callable[..., Release], backbone: Backbone, checks: Path) -> None:
    release = publish(split="none")
    with pytest.raises(InputError, match="no test split"):
        prepare_check(release, backbone, None, checks)
    prepared = prepare_check(release, backbone, release.pictures(), checks)
    assert prepared.heldout is None and len(prepared.crossfit) == 5


def test_thin_bins_and_one_class_are_said(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(
        where="subtype = 'P' AND valence > 60",
        bins={"edges": [0.0, 50.0, 75.0, 80.0, 100.0]},
        check={"classes": {"valence": [40.0, 60.0]}},
    )
    prepared = prepare_check(release, backbone, release.pictures(), checks)
    document = run_check(prepared, workers=2).document
    text = " ".join(document["verdict"]["sentences"])
    assert "every picture scored is 'positive'" in text
    assert "Fewer than 5 scored pictures in [0,50) (0)" in text
    assert "no subtypes to tell" in text
    assert document["arms"]["release"]["regressor"]["crossfit"]["mae_per_bin"][0] is None


def test_a_target_of_words_has_a_classifier_only(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(target="subtype", bins=None, strata=[])
    document = run_check(prepare_check(release, backbone, release.pictures(), checks), workers=2).document
    assert "regressor" not in document["arms"]["release"]
    assert set(document["arms"]["release"]["classifier"]) == {"subtype"}
    assert document["comparison"] is None
    assert document["verdict"]["gate"][1]["rule"] == "above_chance"


def test_weights_and_drawn_originals(
    publish: Callable[..., Release], backbone: Backbone, checks: Path
) -> None:
    release = publish(weights={"by": "inverse"}, originals="drawn")
    prepared = prepare_check(release, backbone, release.pictures(), checks)
    assert prepared.heldout is not None
    arms, _ = prepared.heldout
    assert len(set(arms["release"].weight)) > 1
    assert set(arms["originals"].weight) == {1.0}
    drawn, plain = arms["release"], arms["originals"]
    first = drawn.x[(drawn.image_id == plain.image_id[0]) & (drawn.copy == 0)]
    assert not np.allclose(first, plain.x[0])  # train's originals are flipped, the other arm's are not


def test_a_copy_in_the_test_split_is_an_integrity_error(
    release: Release, backbone: Backbone, checks: Path
) -> None:
    table = release.table
    split = table["split"].to_pylist()
    copy = table["copy"].to_pylist().index(1)
    split[copy] = "test"
    moved = table.set_column(table.column_names.index("split"), table.schema.field("split"), pa.array(split))
    with pytest.raises(IntegrityError):
        prepare_check(replace(release, table=moved), backbone, release.pictures(), checks)


@pytest.mark.slow
def test_the_command(cli: Callable[..., Any], release: Release, tmp_path: Path, sample_gaped: Path) -> None:
    options = ("--backbone", "small_cnn", "--weights", "none", "--device", "cpu", "--out", tmp_path)
    ran = cli("train-check", release.path, *options, "--root", f"gaped={sample_gaped}", "--json")
    assert ran.code == 0
    assert ran.document["schema"] == "affectdata/train-check/1"
    assert Path(ran.document["path"]).is_file()
    text = cli("train-check", release.path, *options, "--no-crossfit", "--quiet")
    assert text.code == 0
    assert "held-out test" in text.out and "cross-fitted over the originals" not in text.out
    assert "Only the held-out score: --no-crossfit was asked for." in text.out
    assert text.err == ""


def test_the_command_fails_with_1_when_the_gate_does(
    cli: Callable[..., Any], publish: Callable[..., Release], tmp_path: Path
) -> None:
    release = publish(check={"min_r2": 0.999})
    options = ("--backbone", "small_cnn", "--weights", "none", "--out", tmp_path, "--no-crossfit")
    ran = cli("train-check", release.path, *options)
    assert ran.code == 1
    assert "FAIL  min_r2" in ran.out and "the check FAILED" in ran.out


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_the_command_without_weights(
    cli: Callable[..., Any], release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    ran = cli("train-check", release.path, "--out", tmp_path / "checks")
    assert ran.code == 5
    assert ran.out == ""
    assert "fetching the weights of mobilenet_v3_large: 21 MB from https://" in ran.err
    assert "--weights FILE" in ran.err and "--backbone small_cnn --weights none" in ran.err
    assert not (tmp_path / "checks").exists()


def test_the_newest_release_and_none(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("train-check", "--backbone", "small_cnn", "--weights", "none")
    assert ran.code == 2
    assert "no release in releases/" in ran.err
