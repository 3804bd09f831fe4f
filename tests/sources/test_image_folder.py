"""Folders that label their own images, by class or by metadata; and trees that are none."""

from __future__ import annotations

import io
import json
import textwrap
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
        ("sad/a.jpg", "joy/deep/b.jpg"),
        ("S01/a.jpg", "S02/b.jpg"),  # persons
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


def rows_of(outcome: Any) -> dict[str, tuple[str, str | None]]:
    return {path: (row["emotion"], row["split"]) for path, row in outcome.rows.items()}


@pytest.mark.parametrize("around", ["set", "data/images", "My download (1)/raw"])
def test_folders_around_the_classes_are_looked_through(
    around: str, images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = images(*(f"{around}/{name}" for name in ("train/happy/1.jpg", "train/sad/2.jpg", "val/sad/3.jpg")))
    assert image_folder.detect(read_tree(root)) == "nothing but images in class folders: happy, sad"
    assert rows_of(take(root)) == {
        f"{around}/train/happy/1.jpg": ("happiness", "train"),
        f"{around}/train/sad/2.jpg": ("sadness", "train"),
        f"{around}/val/sad/3.jpg": ("sadness", "val"),
    }


def test_folders_below_splits_are_looked_through(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = images("train/images/happy/1.jpg", "train/images/sad/2.jpg", "test/sad/3.jpg", "train/loose.jpg")
    outcome = take(root, "image_folder")
    assert rows_of(outcome) == {
        "train/images/happy/1.jpg": ("happiness", "train"),
        "train/images/sad/2.jpg": ("sadness", "train"),
        "test/sad/3.jpg": ("sadness", "test"),
    }
    assert outcome.reasons == {"train/loose.jpg": "missing_rating"}


def test_an_image_beside_the_class_folders_is_no_class(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(images("data/cover.jpg", "data/happy/1.jpg", "data/sad/2.jpg"), "image_folder")
    assert rows_of(outcome) == {"data/happy/1.jpg": ("happiness", None), "data/sad/2.jpg": ("sadness", None)}
    assert outcome.reasons == {"data/cover.jpg": "missing_rating"}


def test_folders_of_tools_are_junk(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    junk = [
        ".ipynb_checkpoints/a.jpg",
        "@eaDir/b.jpg",
        "$RECYCLE.BIN/c.jpg",
        "__pycache__/d.jpg",
        "sad/.e.jpg",
    ]
    outcome = take(images("happy/1.jpg", "sad/2.jpg", *junk))
    assert set(outcome.rows) == {"happy/1.jpg", "sad/2.jpg"}
    assert outcome.reasons == dict.fromkeys(junk, "junk")


def test_a_single_class_is_a_finding(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(images("train/happy/1.jpg", "test/happy/2.jpg"), "image_folder")
    assert rows_of(outcome)["test/happy/2.jpg"] == ("happiness", "test")
    (finding,) = (each for each in outcome.result.findings if each.kind == "single_class")
    assert finding.text == "there is only one class, happy (images: 2): test/happy/2.jpg, train/happy/1.jpg"


def test_splits_below_the_classes_are_used_and_reported(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(images("happy/train/1.jpg", "happy/test/2.jpg", "sad/train/3.jpg"))
    assert rows_of(outcome) == {
        "happy/train/1.jpg": ("happiness", "train"),
        "happy/test/2.jpg": ("happiness", "test"),
        "sad/train/3.jpg": ("sadness", "train"),
    }
    (finding,) = (each for each in outcome.result.findings if each.kind == "split_below_class")
    assert "(images: 3): " in finding.text and "happy/test" in finding.text


@pytest.mark.parametrize(
    ("paths", "fix"),
    [
        (
            [f"S{n:02}/{word}/1.jpg" for n in range(3) for word in ("happy", "sad")],
            "{person}/{emotion}/{image}",
        ),
        ([f"S{n:02}/{word}/1.jpg" for n, word in ((1, "happy"), (2, "sad"))], "{person}/{emotion}/{image}"),
        ([f"{p}/{p}{e}S.JPG" for p in ("AF01", "BM02") for e in ("HA", "SA")], "{person:4}{emotion:2}{view}"),
        ([f"subject_{n}/{n}_a.jpg" for n in (1, 2, 13)], "{person}_{emotion}_{number}"),
        ([f"{n:03}/00{n % 4}/frame.jpg" for n in range(12)], "{person}/{emotion}/{image}"),
        ([f"train/seq-{n}/f1.jpg" for n in range(3)], "{person}_{emotion}_{number}"),
        (
            [f"{who}/{e}/1.jpg" for who in ("male", "female") for e in ("happy", "sad")],
            "{group}/{emotion}/{image}",
        ),
        (
            [f"{k}/{e}/1.jpg" for k in ("images", "masks") for e in ("anger", "joy")],
            "{group}/{emotion}/{image}",
        ),
    ],
)
def test_folders_that_cannot_be_classes_are_refused(
    paths: list[str], fix: str, images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    with pytest.raises(SourceError, match="cannot be classes") as caught:
        take(images(*paths), "image_folder")
    assert f'file: "{fix}"' in caught.value.fix and caught.value.exit_code == 3


def test_classes_below_one_of_the_folders_are_refused(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = images("lab/happy/1.jpg", "lab/sad/2.jpg", "web/images/3.jpg", "web/images/4.jpg")
    with pytest.raises(SourceError, match="names of emotions are below them: happy, sad"):
        take(root, "image_folder")


def test_the_column_map_in_the_error_works(
    images: Callable[..., Path], take: Callable[..., Any], tmp_path: Path
) -> None:
    root = images(*(f"S{n:02}/{word}/{n}.jpg" for n in range(3) for word in ("happy", "sad")))
    with pytest.raises(SourceError) as caught:
        take(root, "image_folder")
    (tmp_path / "columns.yaml").write_text(_map_in(caught.value.fix))
    rows = take(root, "table", map_path=tmp_path / "columns.yaml").rows
    assert (rows["S01/sad/1.jpg"]["emotion"], rows["S01/sad/1.jpg"]["subject_id"]) == ("sadness", "S01")


def _map_in(fix: str) -> str:
    return textwrap.dedent("".join(line + "\n" for line in fix.splitlines() if line.startswith("    ")))


@pytest.mark.parametrize(
    ("paths", "kinds"),
    [
        (["class1/a.jpg", "class2/b.jpg", "class3/c.jpg"], []),
        (["0/a.jpg", "1/b.jpg", "2/c.jpg"], ["coded_classes"]),
        (["AF/a.jpg", "SA/b.jpg"], ["coded_classes"]),
        (["0_happy/a.jpg", "1_sad/b.jpg"], []),
        ([f"{e}/{who}/1.jpg" for e in ("happy", "sad") for who in ("S1", "S2", "S3")], ["same_names_below"]),
        (["cats/a.jpg", "dogs/b.jpg"], []),
    ],
)
def test_doubtful_classes_are_findings(
    paths: list[str], kinds: list[str], images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(images(*paths), "image_folder")
    assert outcome.findings == kinds and len(outcome.rows) == len(paths)


FOLDERS = [f"{word}/{n}.jpg" for n in range(4) for word in ("happy", "sad")]


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("file,label\n" + "".join(f"{path},sad\n" for path in FOLDERS), "labels.csv"),
        ("file\tclass\n" + "".join(f"./{path[:-4]}\thappy\n" for path in FOLDERS), "sub/t.tsv"),
        (
            "i,path,expression\n" + "".join(f"{i},{path},{i // 4}\n" for i, path in enumerate(FOLDERS)),
            "x.csv",
        ),
        ("".join(json.dumps({"image": path, "label": "sad"}) + "\n" for path in FOLDERS), "l.jsonl"),
    ],
)
def test_a_table_that_contradicts_the_folders_is_an_error(
    table: str, name: str, images: Callable[..., Path], take: Callable[..., Any], tmp_path: Path
) -> None:
    root = images(*FOLDERS, files={name: table})
    with pytest.raises(SourceError, match=f"{name} contradicts the folders for 4 of 8 images") as caught:
        take(root, "image_folder")
    (tmp_path / "columns.yaml").write_text(_map_in(caught.value.fix))
    assert len(take(root, "table", map_path=tmp_path / "columns.yaml").rows) == 8


@pytest.mark.parametrize(
    "codes",
    [{"happy": "Happy", "sad": "sadness"}, {"happy": "0", "sad": "1"}, {"happy": "heureux", "sad": "x"}],
)
def test_a_table_that_agrees_is_a_finding(
    codes: dict[str, str], images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    table = "file,label\n" + "".join(f"{path},{codes[path.split('/')[0]]}\n" for path in FOLDERS)
    outcome = take(images(*FOLDERS, files={"labels.csv": table, "boxes.json": "{}"}), "image_folder")
    (finding,) = (each for each in outcome.result.findings if each.kind == "unread_table")
    assert finding.text == (
        "not read, as the classes are those of the folders: boxes.json, "
        "labels.csv; labels.csv agrees with the folders on 8 images"
    )


def test_a_table_beside_images_without_classes_is_named(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = images("images/a.jpg", "images/b.jpg", files={"labels.csv": "name,label\na,joy\nb.jpg,sad\n"})
    with pytest.raises(SourceError, match="no image is in a class folder") as caught:
        take(root, "image_folder")
    assert "key: 'name'" in caught.value.fix and "match_parts: 1" in caught.value.fix


def test_the_files_behind_links_count_once(images: Callable[..., Path], take: Callable[..., Any]) -> None:
    root = images("blobs/1.jpg", "blobs/2.jpg", "blobs/3.jpg")
    for number, word in ((1, "happy"), (2, "sad")):
        (root / "snapshots/abc/train" / word).mkdir(parents=True)
        (root / f"snapshots/abc/train/{word}/{number}.jpg").symlink_to(f"../../../../blobs/{number}.jpg")
    (root / "blobs/3.jpg").unlink()
    outcome = take(root, "image_folder")
    assert {row["emotion"] for row in outcome.rows.values()} == {"happiness", "sadness"}
    assert outcome.reasons == {"blobs/1.jpg": "exact_duplicate", "blobs/2.jpg": "exact_duplicate"}
    assert outcome.result.counts["merged"] == 2 and outcome.result.n_seen == 4


@pytest.mark.parametrize("column", ["label", "class", "category", "Label", "emotion"])
def test_the_class_column_of_metadata(
    column: str, images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(
        images("a.jpg", "b.jpg", files={"metadata.csv": f"file_name,{column}\na.jpg,happy\nb.jpg,sad\n"})
    )
    assert {path: row["emotion"] for path, row in outcome.rows.items()} == {
        "a.jpg": "happiness",
        "b.jpg": "sadness",
    }
    texts = [each.text for each in outcome.result.findings]
    assert texts == (
        [] if column == "emotion" else [f"metadata.csv: 2 classes from column '{column}': happy, sad"]
    )


def test_words_are_preferred_to_numbers_as_classes(
    images: Callable[..., Path], take: Callable[..., Any]
) -> None:
    table = "file_name,label,category\na.jpg,0,happy\nb.jpg,1,sad\n"
    outcome = take(images("a.jpg", "b.jpg", files={"metadata.csv": table}))
    assert {row["emotion"] for row in outcome.rows.values()} == {"happiness", "sadness"}
    numbers = take(
        images("a.jpg", "b.jpg", files={"metadata.csv": "file_name,label\na.jpg,0\nb.jpg,1\n"}), name="n"
    )
    assert {row["emotion"] for row in numbers.rows.values()} == {"0", "1"}
    assert "numbers are named by `values`" in numbers.result.findings[0].text


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
