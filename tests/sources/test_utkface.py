"""UTKFace: labels in file names, incomplete names, and additional folders of emotions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.check.scores import estimated_in
from affectdata.manifest.ingest import recognise
from affectdata.manifest.manifest import load_manifest
from affectdata.plan.planner import plan_release
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.tree import Tree, read_tree
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.records import Record
from affectdata.sources import utkface
from tests.made import publish

Plant, Take, Image = Callable[..., Path], Callable[..., Any], Callable[..., bytes]
NAME = "26_1_3_20170116174525125.jpg.chip.jpg"
KNOWN_BAD = [  # five of the aligned faces, four in the wild
    "61_1_20170109142408075.jpg.chip.jpg",
    "61_1_20170109150557335.jpg.chip.jpg",
    "39_1_20170116174525125.jpg.chip.jpg",
    "24_0_1_20170116220224657 .jpg.chip.jpg",
    "55_0_0_20170116232725357jpg.chip.jpg",
    "61_3_20170109150557335.jpg",
    "61_1_20170109142408075.jpg",
    "39_1_20170116174525125.jpg",
    "53__0_20170116184028385.jpg",
]


@pytest.mark.parametrize("time", ["2017011022340900", "201701161846515488"])
def test_a_time_of_another_length_is_accepted(time: str, plant: Plant, take: Take, image: Image) -> None:
    """Three of the aligned faces have one."""
    (row,) = take(plant({f"38_0_1_{time}.jpg.chip.jpg": image(1)})).rows.values()
    assert (row["age"], row["gender"], row["ethnicity"]) == (38, "male", "Black")


def test_as_many_faces_as_published() -> None:
    """23,708 aligned faces: five bad names, the others as a listing of the real files has them."""
    counts = {"0_0": 5476, "0_1": 2317, "0_2": 1575, "0_3": 2261, "0_4": 760}  # men
    counts |= {"1_0": 4601, "1_1": 2208, "1_2": 1859, "1_3": 1714, "1_4": 932}
    names = [f"{n % 117}_{code}_{at:017d}.jpg.chip.jpg" for code, n in counts.items() for at in range(n)]
    tree = Tree(Path("UTKFace"), tuple(sorted([*names, *KNOWN_BAD[:5]])))
    assert utkface.detect(tree)
    items = list(utkface.read(tree, ReadOptions()).items)
    faces = [item for item in items if isinstance(item, Record)]
    assert (len(tree.files), len(items), len(faces)) == (23_708, 23_708, 23_703)
    assert Counter(face.gender for face in faces) == {"male": 12_389, "female": 11_314}
    assert Counter(face.ethnicity for face in faces)["White"] == 10_077


def test_that_a_machine_estimated_reaches_release_and_card(tmp_path: Path) -> None:
    utkface.write_sample(tmp_path / "tree", np.random.default_rng(0))
    bins = {"target": "gender", "bins": None, "strata": [{"age": {"edges": [0, 40, 116]}}], "mode": "virtual"}
    release = publish(tmp_path / "tree", tmp_path, **bins)
    (source,) = release.info["manifests"]
    assert source["estimated"] == ["age", "age_group", "gender", "ethnicity"]
    card = (release.path / "README.md").read_text()
    assert "These columns were estimated automatically: age, age_group, gender, ethnicity." in card
    assert [estimated_in(release.info, name) for name in ("gender", "emotion")] == [["utkface"], []]


@pytest.mark.parametrize("bad", [*KNOWN_BAD, "117_0_0_20170116184028385.jpg", "26_2_0_20170116184028385.jpg"])
def test_an_incomplete_name_is_rejected_not_repaired(
    bad: str, plant: Plant, take: Take, image: Image
) -> None:
    outcome = take(plant({f"part1/{bad}": image(1), f"part1/{NAME}": image(2)}), source="utkface")
    assert outcome.reasons == {f"part1/{bad}": "bad_name"}
    assert list(outcome.rows) == [f"part1/{NAME}"]


def test_the_name_gives_age_gender_and_ethnicity(plant: Plant, take: Take, image: Image) -> None:
    row = take(plant({NAME: image(1)})).rows[NAME]
    assert (row["age"], row["age_group"], row["gender"], row["ethnicity"]) == (
        26,
        "20-39",
        "female",
        "Indian",
    )
    assert json.loads(row["extra"]) == {"time": "20170116174525125"}
    assert (row["emotion"], row["split"]) == (None, None)


@pytest.mark.parametrize(
    ("age", "group"),
    [
        (0, "0-12"),
        (12, "0-12"),
        (13, "13-19"),
        (20, "20-39"),
        (40, "40-59"),
        (59, "40-59"),
        (60, "60+"),
        (116, "60+"),
    ],
)
def test_age_groups(age: int, group: str, plant: Plant, take: Take, image: Image) -> None:
    (row,) = take(plant({f"{age}_0_4_20170116174525125.jpg": image(1)})).rows.values()
    assert (row["age_group"], row["gender"], row["ethnicity"]) == (group, "male", "Others")


def test_folders_of_emotions_and_splits_on_top(plant: Plant, take: Take, image: Image) -> None:
    names = [f"{20 + number}_0_0_2017011617452512{number}.jpg" for number in range(4)]
    folders = ["happy", "test/neutral", "part1", "test"]
    files = {
        f"{folder}/{name}": image(at) for at, (folder, name) in enumerate(zip(folders, names, strict=True))
    }
    root = plant(files)
    assert recognise(read_tree(root))[0] == "utkface"  # not image_folder
    rows = take(root).rows
    assert [(rows[path]["emotion"], rows[path]["split"]) for path in files] == [
        ("happiness", None),
        ("neutral", "test"),
        (None, None),
        (None, "test"),
    ]


def test_a_copy_in_a_folder_of_emotions_labels_the_face_wherever_it_lies(
    plant: Plant, take: Take, image: Image
) -> None:
    stem = NAME.partition(".")[0]
    files = {f"UTKFace/{NAME}": image(1), f"test/happy/{NAME}": image(1), f"part1/{stem}.jpg": image(2)}
    outcome = take(plant(files))
    assert {(row["emotion"], row["split"]) for row in outcome.rows.values()} == {("happiness", "test")}
    assert outcome.reasons == {f"test/happy/{NAME}": "exact_duplicate"}
    assert outcome.findings == []  # one label, so no conflict
    assert {row["subject_id"] for row in outcome.rows.values()} == {stem}
    assert len({row["group_id"] for row in outcome.rows.values()}) == 1


def test_a_face_under_two_emotions_is_rejected(plant: Plant, take: Take, image: Image) -> None:
    second = NAME.replace("26", "27")
    outcome = take(
        plant({f"happy/{NAME}": image(1), f"neutral/{NAME}": image(2), f"happy/{second}": image(3)})
    )
    assert set(outcome.reasons.values()) == {"conflicting_rating"} and len(outcome.reasons) == 2
    assert "happiness and neutral" in outcome.details[f"happy/{NAME}"]


def test_unread_landmarks_are_reported(plant: Plant, take: Take, image: Image) -> None:
    outcome = take(plant({f"part1/{NAME}": image(1), "landmark_list_part1.txt": "1 2 3\n"}))
    assert outcome.findings == ["unread_table"]
    assert outcome.result.counts["annotation"] == 1


def test_a_few_such_names_among_many_others_are_not_utkface(plant: Plant, image: Image) -> None:
    tree = plant({NAME: image(1), "a.jpg": image(2), "b.jpg": image(3)})
    assert utkface.detect(read_tree(tree)) is None


def test_the_packaged_recipe_plans_the_sample(tmp_path: Path, take: Take) -> None:
    utkface.write_sample(tmp_path / "tree", np.random.default_rng(0))
    outcome = take(tmp_path / "tree")
    assert Counter(outcome.reasons.values()) == {"bad_name": 2}
    manifest = load_manifest(outcome.result.manifest.path)
    rows, plan = plan_release([manifest], [], read_recipe(packaged_recipes() / "utkface_fair.yaml"))
    assert Counter(rows["emotion"].to_pylist()) == {"happiness": 15, "neutral": 15}
    kept = {row["path"] for row in rows.to_pylist() if row["split"] == "test"}
    assert {path for path in outcome.rows if path.startswith("test/")} <= kept
    assert [row.n_after for row in plan.bins] == [20 * row.n_before for row in plan.bins]  # far from 6,300
