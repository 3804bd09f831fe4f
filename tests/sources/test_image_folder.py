"""Folders that label their own images, by class or by metadata; and trees that are none."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from affectdata.errors import RecipeError, SourceError
from affectdata.reading.tree import read_tree
from affectdata.registry import load_plugin
from affectdata.sources import image_folder


@pytest.fixture
def images(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant a different image at each path, and the files given."""

    def call(*paths: str, **files: bytes | str) -> Path:
        return plant({**{path: image(at) for at, path in enumerate(paths)}, **files.get("files", {})})

    return call


def test_class_folders(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(images("sad/1.jpg", "Something else/1.jpg", "Joy/x.PNG", files={"README.md": "hello"}))
    rows = outcome.rows
    assert {path: row["emotion"] for path, row in rows.items()} == {
        "sad/1.jpg": "sadness",
        "Something else/1.jpg": "something_else",
        "Joy/x.PNG": "joy",
    }
    assert json.loads(rows["sad/1.jpg"]["extra"]) == {"folder": "sad"}
    assert rows["sad/1.jpg"]["split"] is None
    assert outcome.result.info.name == "tree"  # the folder's name


@pytest.mark.parametrize(
    ("folder", "split"),
    [("train", "train"), ("valid", "val"), ("Validation", "val"), ("val", "val"), ("TEST", "test")],
)
def test_split_folders(
    folder: str, split: str, images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    rows = take(images(f"{folder}/sad/1.jpg", f"{folder}/joy/1.jpg")).rows
    assert {(row["split"], row["emotion"]) for row in rows.values()} == {(split, "sadness"), (split, "joy")}


def test_name_is_slugged(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    root = images("sad/1.jpg", "joy/1.jpg")
    assert take(root, name="Fér 2013!").result.manifest.path.name == "fer_2013.parquet"
    moved = root.rename(root.with_name("日本"))
    assert take(moved).result.info.name == "image_folder"


def test_images_outside_of_classes(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(images("top.jpg", "train/flat.jpg", "joy/a/b/deep.jpg"), "image_folder")
    assert outcome.reasons == {"top.jpg": "missing_rating", "train/flat.jpg": "missing_rating"}
    assert outcome.rows["joy/a/b/deep.jpg"]["emotion"] == "joy"


def test_no_class_folder_at_all(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match="no image is in a class folder"):
        take(images("a.jpg", "b.jpg"), "image_folder")


def test_same_bytes_in_two_classes(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    outcome = take(plant({"awe/1.jpg": image(1), "fear/1.jpg": image(1), "fear/2.jpg": image(2)}))
    assert outcome.reasons == {"fear/1.jpg": "exact_duplicate"}
    assert outcome.findings == ["conflict"]
    assert outcome.result.counts["merged"] == 1


def test_damaged_images_and_junk(
    images: Callable[..., Path], take: Callable[..., Any], damaged: dict[str, tuple[bytes, str]]
) -> None:
    files = {f"sad/{name}.jpg": data for name, (data, _) in damaged.items()}
    outcome = take(images("sad/1.jpg", "joy/1.jpg", files={**files, "sad/Thumbs.db": b"x"}))
    assert outcome.reasons == {
        "sad/Thumbs.db": "junk",
        **{f"sad/{name}.jpg": reason for name, (_, reason) in damaged.items()},
    }


@pytest.mark.parametrize(
    "paths",
    [
        ("images/a.jpg", "images/b.jpg"),  # one folder: images of a table
        ("A/A001.bmp", "Sn/Sn001.bmp"),  # codes
        ("part1/a.jpg", "part2/b.jpg"),  # parts of an archive
        ("train/a.jpg", "test/b.jpg"),  # splits without classes
        ("sad/a.jpg", "joy/b.jpg", "c.jpg"),
        ("set/sad/a.jpg", "set/joy/b.jpg"),
        ("sad/a.jpg", "joy/deep/b.jpg"),
    ],
)
def test_trees_that_are_not_recognised(paths: tuple[str, ...], images: Callable[..., Path]) -> None:
    assert image_folder.detect(read_tree(images(*paths))) is None


@pytest.mark.parametrize("table", ["ratings.csv", "sad.txt", "joy/votes.xlsx", "columns.yaml", "labels.json"])
def test_another_file_prevents_recognition(table: str, images: Callable[..., Path]) -> None:
    paths = ("sad/a.jpg", "joy/b.jpg")
    assert image_folder.detect(read_tree(images(*paths)))
    assert image_folder.detect(read_tree(images(*paths, files={table: b"x"}))) is None


def test_shared_oasis_is_not_claimed(shared_oasis: Path) -> None:
    tree = read_tree(shared_oasis)
    assert image_folder.detect(tree) is None
    assert load_plugin("sources", "table").detect(tree) is None


FRAME = pd.DataFrame(
    {
        "file_name": ["a.jpg", "sub/b.jpg"],
        "valence": [2.0, None],
        "valence_sd": [1.0, None],
        "valence_min": [1, 1],
        "valence_max": [5, 5],
        "emotion": ["Sad", "joy"],
        "emotion_joy": [0.25, 1.0],
        "arousal_n": [7, 8],  # no arousal, so not ours
        "split": ["test", None],
        "camera": ["box", None],
    }
)


def _bytes(frame: pd.DataFrame, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == "csv":
        frame.to_csv(buffer, index=False)
    elif suffix == "jsonl":
        frame.to_json(buffer, orient="records", lines=True)
    else:
        frame.to_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("folder", ["", "train/"])
def test_metadata(folder: str, suffix: str, images: Callable[..., Path], take: Callable[..., Any]) -> None:
    name = f"{folder}metadata.{suffix}"
    root = images(f"{folder}a.jpg", f"{folder}sub/b.jpg", "c.jpg", files={name: _bytes(FRAME, suffix)})
    assert image_folder.detect(read_tree(root)) == f"file names in {name}"
    outcome = take(root)
    a, b = outcome.rows[f"{folder}a.jpg"], outcome.rows[f"{folder}sub/b.jpg"]
    assert (a["valence_raw"], a["valence"], a["valence_sd"]) == (2.0, 25.0, 25.0)
    assert (a["emotion"], a["emotion_joy"], a["split"]) == ("sadness", 0.25, "test")
    assert (b["valence"], b["emotion"], b["agreement"]) == (None, "joy", 1.0)
    assert b["split"] == ("train" if folder else None)
    assert json.loads(a["extra"])["camera"] == "box" and json.loads(a["extra"])["arousal_n"] == "7"
    assert outcome.reasons == {"c.jpg": "missing_rating"}


def test_metadata_rows_without_an_image(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(images("a.jpg", files={"metadata.csv": "file_name,emotion\na.jpg,joy\nno.jpg,joy\n"}))
    assert outcome.reasons == {"metadata.csv#no.jpg": "missing_image"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file_name,valence\na.jpg,3", "no value in column valence_min"),
        ("file_name,valence,valence_min\na.jpg,3,1", "no value in column valence_max"),
        ("file_name,valence,valence_min,valence_max\na.jpg,3,1,5\nb.jpg,3,1,7", "2 different values"),
    ],
)
def test_rating_needs_its_scale(
    table: str, message: str, images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        take(images("a.jpg", files={"metadata.csv": table}))
    assert "valence_min and valence_max" in caught.value.fix and "--map" in caught.value.fix


@pytest.mark.parametrize("ends", ["5,1", "x,5"])
def test_an_invalid_scale(ends: str, images: Callable[..., Path], take: Callable[..., Any]) -> None:
    table = f"file_name,valence,valence_min,valence_max\na.jpg,3,{ends}"
    with pytest.raises((SourceError, RecipeError), match=r"must be lower|scale of valence is unknown"):
        take(images("a.jpg", files={"metadata.csv": table}))


def test_a_table_of_this_package_is_on_0_to_100(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    table = "file_name,valence,valence_raw,valence_min,valence_max\na.jpg,90,8.2,1,9"
    row = take(images("a.jpg", files={"metadata.csv": table})).rows["a.jpg"]
    assert (row["valence"], row["valence_min"], row["valence_max"]) == (90.0, 0.0, 100.0)
    assert json.loads(row["extra"])["valence_raw"] == "8.2"


def test_metadata_on_two_scales(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    head = "file_name,valence,valence_min,valence_max\n"
    files = {"train/metadata.csv": head + "a.jpg,3,1,5", "test/metadata.csv": head + "b.jpg,3,1,7"}
    with pytest.raises(SourceError, match="another scale"):
        take(images("train/a.jpg", "test/b.jpg", files=files))


def test_metadata_without_file_names(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    root = images("sad/a.jpg", "joy/b.jpg", files={"metadata.csv": "id,emotion\n1,joy"})
    assert image_folder.detect(read_tree(root)) is None
    with pytest.raises(SourceError, match="lacks the column 'file_name'"):
        take(root, "image_folder")
