"""Which images to rate next: the shortage of cells, the ranking, and a rating task without predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

import affectdata
from affectdata.cli._main import run
from affectdata.errors import InputError, RecipeError, UsageError
from affectdata.selection.shortage import bin_probabilities, count_missing, rank_images
from affectdata.train.backbones import load_backbone
from affectdata.train.heads import fit_regressor
from affectdata.train.kept import FrozenModel, make_model
from affectdata.train.model_file import keep_model
from affectdata.train.predict import compute_features
from affectdata.train.rows import Rows


def test_bins_are_raised_to_the_level_and_strata_evenly() -> None:
    counts = np.array([[4, 0, 2], [5, 5, 5], [9, 1, 1]])
    missing = count_missing(counts, "max")
    assert (counts + missing).sum(1).tolist() == [15, 15, 15]
    assert (counts + missing)[0].tolist() == [5, 5, 5]
    assert missing[1].tolist() == [0, 0, 0]
    assert (counts + missing)[2].tolist() == [9, 3, 3]
    assert count_missing(counts, 6).sum(1).tolist() == [0, 0, 0]


def test_probabilities_of_bins_are_those_of_normal_errors() -> None:
    shares = bin_probabilities(np.array([50.0, 140.0]), 10.0, [0, 40, 60, 100])
    assert shares.sum(1) == pytest.approx([1, 1])
    assert shares[0].tolist() == pytest.approx([0.1587, 0.6827, 0.1587], abs=1e-4)
    assert shares[1, 2] == pytest.approx(1)  # beyond the scale: in the last bin


def test_the_ranking_fills_the_shortest_cell_and_then_others() -> None:
    certain = np.eye(3)[[0, 0, 0, 1, 2]]
    order, gains = rank_images(certain, np.array([0, 2, 1]), 5)
    assert order[:2].tolist() == [3, 4]
    assert gains.tolist() == pytest.approx([1, 0.5, 0, 0, 0])
    two = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert rank_images(two, np.array([2, 2]), 3)[0].tolist() in ([0, 2, 1], [2, 0, 1])


def keep_small_model(file: str) -> None:
    """Keep a regressor on an untrained network, fitted to the train images of the recipe."""
    plan = affectdata.plan_balance("valence_bins")
    rows = plan.rows.filter(pc.equal(plan.rows["split"], "train"))
    backbone = load_backbone("small_cnn", "none", "cpu")
    paths = [Path("gaped") / path for path in rows["path"].to_pylist()]
    n = len(rows)
    features = compute_features(FrozenModel(backbone=backbone, heads={}, targets=[], labels=[]), paths)
    none = np.full(n, "")
    train = Rows(
        features=features,
        target=rows["valence"].to_numpy(),
        image_id=np.array(rows["image_id"].to_pylist()),
        group=np.array(rows["group_id"].to_pylist()),
        copy=np.zeros(n, int),
        subtype=none,
        source=none,
        stratum=np.zeros(n, int),
        weight=np.ones(n),
        pool_index=np.arange(n),
    )
    keep_model(make_model(backbone, fit_regressor(train, "svr", 0).model), Path(file))


@pytest.mark.slow
def test_images_of_a_folder_are_ranked_and_a_rating_task_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    affectdata.sample("gaped", "gaped")
    affectdata.ingest("gaped")
    keep_small_model("m.safetensors")
    affectdata.sample("gaped", "other", seed=7)
    folder = Path("new")
    folder.mkdir()
    images = sorted(Path("other").rglob("*.bmp"))[:12]
    for number, image in enumerate(images):
        (folder / f"n{number:02d}.bmp").write_bytes(image.read_bytes())
    known = next(Path("gaped").rglob("*.bmp"))
    (folder / "known.bmp").write_bytes(known.read_bytes())
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    options = ["--recipe", "valence_bins", "--model", "m.safetensors"]
    assert run(["suggest", "new", *options, "--top", "5"]) == 0
    assert "RMSE" in capsys.readouterr().out
    found = pd.read_csv("suggestions/suggestions.csv")
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert (found["low"] <= found["high"]).all()
    assert found["gain"].iloc[0] == found["gain"].max() > 0
    document = json.loads(Path("suggestions/suggest.json").read_text(encoding="utf-8"))
    assert {"new/known.bmp", "new/notes.txt"} <= set(document["skipped"])
    task = pd.read_csv("suggestions/rating_task.csv")
    assert task[["valence", "arousal", "subtype", "rater"]].isna().all(axis=None)
    assert set(task["file"]) == {Path(file).name for file in found["file"]}
    studio = json.loads(Path("suggestions/label_studio.json").read_text(encoding="utf-8"))
    assert studio[0].keys() == {"data"}
    # Filled in, the task is ingested with the column map beside it.
    for column in ("valence", "arousal"):
        task[column] = range(1, 6)
    task.assign(rater="r1", subtype="A").to_csv(folder / "rating_task.csv", index=False)
    (folder / "columns.yaml").write_bytes(Path("suggestions/columns.yaml").read_bytes())
    assert len(affectdata.ingest("new", source="table").manifest) == 5

    with pytest.raises(UsageError, match="no files"):
        affectdata.suggest("nowhere", "valence_bins", model="m.safetensors")
    for changes, error in (
        ({"strata": "[arousal: {width: 50}]"}, RecipeError),
        ({"split": "none"}, RecipeError),
        ({"target": "arousal"}, InputError),
    ):
        document = {
            "name": "r",
            "sources": "[gaped]",
            "target": "valence",
            "bins": "{width: 25}",
            "balance": "{max_copies: 1}",
            **changes,
        }
        Path("r.yaml").write_text("".join(f"{key}: {value}\n" for key, value in document.items()))
        with pytest.raises(error):
            affectdata.suggest("new", "r.yaml", model="m.safetensors")
