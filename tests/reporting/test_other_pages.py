"""The pages of a study and of a comparison, from planted results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import affectdata
from affectdata.check import metrics
from affectdata.check.study_results import make_document, write_tables
from affectdata.errors import UsageError
from affectdata.manifest.manifest import Manifest
from affectdata.release.release import Release
from affectdata.reporting.blocks import Figure
from affectdata.reporting.comparison import Side, comparison_sections
from affectdata.reporting.page import make_study
from affectdata.store.sealed import write_sealed

pytest.importorskip("altair")


def plant_study(folder: Path, backbones: Sequence[str] = ("resnet18", "<script>net")) -> Path:
    """Write the results of four runs of networks, with tables, as a study does."""
    runs: list[dict[str, Any]] = []
    for backbone in backbones:
        for seed in (0, 1):
            points = [
                {
                    "step": step,
                    "phase": "all",
                    "loss": 1 / step,
                    "val_loss": 0.5,
                    "accuracy": 0.5 + step / 100,
                }
                for step in (10, 20)
            ]
            people = {"split": "test", "column": "age_group", "measure": "accuracy"}
            runs.append(
                {
                    "settings": {"backbone": backbone, "dropout": 0.5, "seed": seed},
                    "scores": {part: {"accuracy": 0.6, "macro_f1": 0.5} for part in ("train", "val", "test")},
                    "error": None,
                    "curves": [{**point, "val_accuracy": 0.4} for point in points],
                    "confusion": [
                        {"split": "test", "true": true, "predicted": predicted, "n": n}
                        for true, predicted, n in (("a", "a", 3), ("a", "b", 1), ("b", "a", 0), ("b", "b", 4))
                    ],
                    "subgroups": [
                        {**people, "group": "20-29", "n": 40, "mean": 0.7, "low": 0.6, "high": 0.8},
                        {"split": "test", "column": "age_group", "group": "80+", "n": 4},
                    ],
                }
            )
    document = make_document("made", "accuracy", False, runs, lambda _: np.zeros(4))
    baseline = {part: {"accuracy": 0.4, "macro_f1": 0.2} for part in ("train", "val", "test")}
    tables = write_tables(["backbone"], runs, folder)
    document |= {"baseline": baseline, "n_skipped": 0, "tables": tables}
    write_sealed(folder / "study.json", document)
    return folder


@pytest.mark.slow
def test_the_page_of_a_study_has_its_tables_curves_confusion_and_subgroups(tmp_path: Path) -> None:
    page = make_study(plant_study(tmp_path))
    titles = [block.title for block in page.sections[0].blocks if hasattr(block, "title")]
    assert titles[:5] == [
        "2 settings by accuracy",
        "Scores on train",
        "Scores on val",
        "Scores on test",
        "The best over the splits",
    ]
    for words in (
        "loss, resnet18",
        "accuracy, resnet18",
        "Confusion, normalised",
        "accuracy by age group, test",
    ):
        assert words in titles
    assert "0.600 to 0.800" in page.html and "too few to report" in page.html
    assert "No clear best of 2 on val.accuracy" in page.html
    assert "<script>" not in page.html and "&lt;script&gt;net" in page.html
    confusion = next(block for block in page.sections[0].blocks if getattr(block, "name", "") == "confusion")
    assert confusion.data["share"].tolist() == [0.75, 0.25, 0.0, 1.0]  # type: ignore[union-attr]


def test_settings_with_names_of_equal_length_have_curves_of_their_own(tmp_path: Path) -> None:
    page = make_study(plant_study(tmp_path, ("resnet18", "resnet34")))
    names = [block.name for block in page.sections[0].blocks if isinstance(block, Figure)]
    assert len(names) == len(set(names)) and {"loss_1", "loss_2"} <= set(names)


def test_a_study_folder_is_reported(tmp_path: Path) -> None:
    written = affectdata.report(plant_study(tmp_path))
    assert written.path == tmp_path / "report.html" and "Report on a study" in written.path.read_text()


def plant_check(side: Side, noise: float, seed: int) -> pd.DataFrame:
    assert side.info is not None
    rng = np.random.default_rng(seed)
    true = np.linspace(0, 100, 200)
    return pd.DataFrame(
        {
            "image_id": [f"i{number}" for number in range(200)],
            "group_id": [f"g{number}" for number in range(200)],
            "valence": true,
            "crossfit.release.regressor": true + rng.normal(0, noise, 200),
        }
    )


@pytest.mark.slow
def test_checks_on_the_same_images_have_paired_differences(release: Release, checked: Any) -> None:
    sides = []
    for name, noise in (("exact", 5.0), ("noisy", 20.0)):
        side = Side(name, release.info, checked.document, None)
        sides.append(Side(name, release.info, checked.document, plant_check(side, noise, 1)))
    blocks = comparison_sections(*sides)[0].blocks
    (table,) = [block for block in blocks if getattr(block, "title", "") == "Paired differences"]
    rows = dict(table.rows)  # type: ignore[union-attr, arg-type]
    a, b = (side.predictions for side in sides)
    assert a is not None and b is not None
    column = "crossfit.release.regressor"
    gap = metrics.mae(b["valence"], b[column]) - metrics.mae(a["valence"], a[column])
    assert str(rows["MAE"]).startswith(f"{gap:+.3f} (+")
    assert "R²" in rows and "noisy minus exact on the same 200 images" in table.text  # type: ignore[union-attr]
    sides[1] = Side("noisy", release.info, checked.document, None)
    texts = [getattr(block, "text", "") for block in comparison_sections(*sides)[0].blocks]
    assert any("No paired intervals: a check has no predictions file" in text for text in texts)


@pytest.mark.slow
def test_two_releases_are_compared_without_checks(
    publish: Callable[..., Release], release: Release, manifest: Manifest, tmp_path: Path
) -> None:
    other = publish(balance={"max_copies": 1})
    written = affectdata.report(release, other, out=tmp_path)
    page = written.path.read_text()
    assert written.path.parent == tmp_path and written.path.name.endswith(".report.html")
    assert "Train rows by bin" in page and "Change in bins × subtypes" in page
    assert f"There is no check of {release.name}" in page or "no check of" in page
    bins = [
        {each["bin"]: each["n_after"] for each in side.info["balance"]["bins"]} for side in (release, other)
    ]
    for name, n in bins[0].items():
        assert f'<td>{name}</td><td class="n">{n}</td><td class="n">{bins[1][name]}</td>' in page
    with pytest.raises(UsageError, match="only two releases"):
        affectdata.report(manifest, release)
    assert json.dumps(str(tmp_path)) not in page
