"""The packaged column maps, on small trees written by hand; what all sources promise is a contract test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.column_map import packaged
from affectdata.column_map.sample import _old_workbook, _workbook
from affectdata.errors import RecipeError, SourceError
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.tree import read_tree
from affectdata.registry import find_plugins, load_plugin

Plant = Callable[..., Path]
Image = Callable[..., bytes]
MAPS = sorted(path.stem for path in (Path(packaged.__file__).parents[1] / "sources" / "maps").glob("*.yaml"))


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_named_as_its_file_and_its_sample_has_its_evidence(name: str) -> None:
    source = load_plugin("sources", name)
    assert source.spec.name == name and name in find_plugins("sources")
    assert source.spec.sample is not None and source.INFO.evidence == source.spec.evidence


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
def test_a_map_works_the_same_from_a_folder_above(
    name: str, take: Callable[..., Any], tmp_path: Path
) -> None:
    load_plugin("sources", name).write_sample(tmp_path / "above" / "tree", np.random.default_rng(0))
    inside, above = take(tmp_path / "above" / "tree"), take(tmp_path / "above")
    assert above.result.info.name == name
    assert above.rows.keys() == {f"tree/{path}" for path in inside.rows}
    for path, row in inside.rows.items():
        assert above.rows[f"tree/{path}"] == {**row, "path": f"tree/{path}"}


NAPS_TABLE = "Valence, arousal and approach-avoidance ratings (Marchewka et al., 2014).xls"
NAPS_HEADER = ["ID", "Category", *["M", "SD"] * 9]


@pytest.mark.parametrize("pack", [_old_workbook, _workbook])
def test_naps_takes_all_raters_wherever_the_images_are(
    pack: Callable[[list[list[str]]], bytes],
    plant: Plant,
    take: Callable[..., Any],
    image: Image,
) -> None:
    numbers = [f"{1 + number / 10}" for number in range(18)]  # M 1.0, 1.2 …; SD 1.1, 1.3 …
    sheet = [["Generated"], ["", "", "women"], NAPS_HEADER, ["Animals_001_h", "Animals", *numbers]]
    name = NAPS_TABLE if pack is _old_workbook else f"{NAPS_TABLE}x"
    root = plant({name: pack(sheet), "a/b/Animals_001_h.JPG": image(1)})
    outcome = take(root)
    row = outcome.rows["a/b/Animals_001_h.JPG"]
    assert (row["source"], row["source_id"]) == ("naps", "Animals_001_h")
    assert (row["valence_raw"], row["arousal_raw"]) == (2.2, 2.6)
    assert (row["valence_sd"], row["arousal_sd"]) == (
        pytest.approx(2.3 / 8 * 100),
        pytest.approx(2.7 / 8 * 100),
    )
    assert json.loads(row["extra"])["M#8"] == "2.4"  # approach-avoidance of all


IAPS_HEADER = "desc\tIAPS\tvalmn\tvalsd\taromn\tarosd\tdom1mn\tdom1sd\tdom2mn\tdom2sd\tset"
IAPS_ROWS = [
    "Snake\t1050\t3.46\t2.15\t6.87\t1.68\t3.08\t2.0\t.\t.\t1",
    "Woman\t2375.1\t2.2\t1.3\t4.88\t2.21\t.\t.\t3.77\t2.1\t9\\",
    "Dog\t1300.0\t3\t1\t6\t2\t4\t2\t.\t.\t2",
    "Dog\t1300\t4\t1\t7\t2\t5\t2\t.\t.\t14",
]


@pytest.mark.parametrize("preamble", ["", "IAPS\n\nAll\tSubjects\n\n\n1-20\n"])
def test_iaps_ids_dots_and_images_rated_twice(
    preamble: str, plant: Plant, take: Callable[..., Any], image: Image
) -> None:
    text = preamble + "\n".join([IAPS_HEADER, *IAPS_ROWS])
    images = {"Images/1050.jpg": image(1), "Images/2375.1.JPG": image(2), "Images/1300.jpg": image(3)}
    outcome = take(plant({"Tech Report/AllSubjects_1-20.txt": text, **images}))
    rows = {row["source_id"]: row for row in outcome.rows.values()}
    assert outcome.result.info.name == "iaps" and not outcome.reasons
    assert rows["1050"]["dominance_raw"] == 3.08
    assert rows["2375.1"]["dominance_raw"] is None
    assert json.loads(rows["2375.1"]["extra"])["dom2mn"] == "3.77"
    dog = rows["1300"]
    assert (dog["valence_raw"], dog["arousal_raw"], dog["dominance_raw"]) == (3.5, 6.5, 4.5)
    assert dog["valence_sd"] == 12.5 and json.loads(dog["extra"])["set"] == "2 | 14"
    assert outcome.findings == ["averaged"]


def test_emotion6_the_folder_is_not_the_label(plant: Plant, take: Callable[..., Any], image: Image) -> None:
    words = ["anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"]
    header = "\t".join(["[image_filename]", "[valence]", "[arousal]", *(f"[prob. {word}]" for word in words)])
    lines = [
        header,
        "disgust/1.jpg\t2.5\t3.8\t0.133333\t0.7\t0\t0.0666667\t0.1\t0\t0",
        "joy/1.jpg\t5\t4\t0\t0\t0\t0.4\t0.2\t0\t0.4",
        "fear/1.jpg\t4\t4\t0\t0\t0\t0\t0\t0\t1",
    ]
    names = ("disgust", "joy", "fear")
    images = {f"images/{name}/1.jpg": image(number) for number, name in enumerate(names)}
    rows = take(plant({"ground_truth.txt": "\n".join(lines), **images})).rows
    first, tied, neutral = (rows[f"images/{name}/1.jpg"] for name in names)
    assert (first["emotion"], first["agreement"], first["emotion_anger"]) == ("disgust", 0.7, 0.133333)
    assert (first["valence"], first["arousal"]) == (18.75, 35.0)
    assert (tied["emotion"], neutral["emotion"]) == (None, "neutral")


def test_artphoto_the_name_is_the_label(plant: Plant, take: Callable[..., Any], image: Image) -> None:
    names = ["amusement_0001", "sad_0002", "awe_0001"]
    files = {f"testImages_artphoto/{name}.jpg": image(number) for number, name in enumerate(names)}
    root = plant(
        {**files, "testImages_artphoto/ReadMe.rtf": "{\\rtf1}", "testImages_artphoto/.DS_Store": b"\0"}
    )
    outcome = take(root)
    emotions = {row["source_id"]: row["emotion"] for row in outcome.rows.values()}
    assert emotions == {"amusement_0001": "amusement", "sad_0002": "sadness", "awe_0001": "awe"}
    assert outcome.result.counts == {"kept": 3, "merged": 0, "annotation": 1, "junk": 1, "rejected": 0}
    files = {"p/joyful_0001.jpg": image(8), "p/nonsense.jpg": image(9), **files}
    outcome = take(plant(files, "with_others"), "artphoto")
    assert outcome.reasons == {"p/joyful_0001.jpg": "bad_rating", "p/nonsense.jpg": "bad_name"}
    assert "'joyful' is not one of amusement" in outcome.details["p/joyful_0001.jpg"]


@pytest.mark.parametrize("extra_file", ["notes.csv", "train.json", "elsewhere/anger_0002.jpg"])
def test_words_in_names_alone_are_not_artphoto(extra_file: str, plant: Plant, image: Image) -> None:
    root = plant({"p/anger_0001.jpg": image(1), "p/sad_0001.jpg": image(2), extra_file: image(3)})
    assert load_plugin("sources", "artphoto").detect(read_tree(root)) is None


def test_findingemo_joins_on_the_last_two_parts(plant: Plant, take: Callable[..., Any], image: Image) -> None:
    table = (
        ",user,image_path,reject,tag,age,valence,arousal,emotion,dec_factors\n"
        '0,u1,/Run_2/Loving toddlers sports/kids.jpg,Keep,x,"Children, Toddlers",3,0,Joy,"Body, Facial"\n'
        "1,u2,/Run_1/Sad seniors/kids.jpg,Keep,x,Adults,-3,6,Grief,x\n"
        "2,u3,/Run_1/Sad seniors/dead link.jpg,Keep,x,Adults,0,3,Fear,x\n"
    )
    images = {"Loving toddlers sports/kids.jpg": image(1), "Run_1/Sad seniors/kids.jpg": image(2)}
    outcome = take(plant({"data/annotations_single.ann": table, **images}))
    first, second = (outcome.rows[path] for path in images)
    assert (first["valence"], first["arousal"], first["emotion"]) == (100.0, 0.0, "joy")
    assert (second["valence"], second["arousal"], second["emotion"]) == (0.0, 100.0, "grief")
    assert json.loads(first["extra"])["age"] == "Children, Toddlers"
    assert list(outcome.reasons.values()) == ["missing_image"]


FINDINGEMO_HEADER = "index,user,image_path,tags,age,valence,arousal,emotion,dec_factors,ambiguity,datetime"


def findingemo(*rows: tuple[str, int]) -> str:
    """A list with a path and a valence per row."""
    lines = [
        f'{number},u{number},{path},x,"Adults,Seniors",{valence},2,Joy,"Context,Body",0,2023-09-01'
        for number, (path, valence) in enumerate(rows)
    ]
    return "\n".join([FINDINGEMO_HEADER, *lines])


@pytest.mark.parametrize("prefix", ["", "images/", "downloaded/images/"])
def test_findingemo_keeps_a_name_that_both_runs_have(
    prefix: str, plant: Plant, take: Callable[..., Any], image: Image
) -> None:
    table = findingemo(("/Run_1/Office/a.jpg", 3), ("/Run_2/Office/a.jpg", -3), ("/Run_2/Office/b.jpg", 0))
    names = ["Run_1/Office/a.jpg", "Run_2/Office/a.JPG", "Run_2/Office/b.jpg"]
    files = {prefix + name: image(number) for number, name in enumerate(names)}
    outcome = take(plant({"data/annotations_single.ann": table, **files}))
    assert [outcome.rows[prefix + name]["valence_raw"] for name in names] == [3, -3, 0]
    assert outcome.reasons == {} and outcome.result.info.evidence == "seen"


def test_findingemo_gives_no_image_the_row_of_the_other_run(
    plant: Plant, take: Callable[..., Any], image: Image
) -> None:
    """The image of one run is gone; without the run in its path the rows contradict each other."""
    table = findingemo(("/Run_1/Office/a.jpg", 3), ("/Run_2/Office/a.jpg", -3))
    outcome = take(plant({"data/annotations_single.ann": table, "images/Run_2/Office/a.jpg": image(1)}))
    assert outcome.rows["images/Run_2/Office/a.jpg"]["valence_raw"] == -3
    assert outcome.reasons == {"data/annotations_single.ann#/Run_1/Office/a.jpg": "missing_image"}
    flat = plant({"data/annotations_single.ann": table, "Office/a.jpg": image(1)}, "flat")
    with pytest.raises(SourceError, match="2 different rows for it"):
        take(flat)


def test_findingemo_downloads_the_image_of_each_run(plant: Plant, image: Image) -> None:
    links = [{"rel_path": f"Run_{run}/Office/a.jpg", "url": f"https://example.org/{run}"} for run in (1, 2)]
    files = {"dataset_urls_exploded.json": json.dumps(links), "images/Run_2/Office/a.jpg": image(1)}
    source = load_plugin("sources", "findingemo")
    found = {link.url[-1]: link.path for link in source.find_links(read_tree(plant(files)), ReadOptions())}
    assert found == {"1": "Run_1/Office/a.jpg", "2": "images/Run_2/Office/a.jpg"}
    flat = {"dataset_urls_exploded.json": json.dumps(links[:1]), "Office/a.jpg": image(1)}
    (link,) = source.find_links(read_tree(plant(flat, "flat")), ReadOptions())
    assert link.path == "Office/a.jpg"


def test_affectnet_minus_two_is_missing_and_one_table_has_no_header(
    plant: Plant, take: Callable[..., Any], image: Image
) -> None:
    header = ",".join(load_plugin("sources", "affectnet").spec.header)
    train = [
        header,
        "1/a.JPG,0,0,9,9,1;2,1,0.5,-0.5",
        "1/b.jpg,0,0,9,9,1;2,9,-2,-2",
        "1/c.jpg,0,0,9,9,1;2,8,0.25,-2",
        "1/d.jpg,0,0,9,9,1;2,11,0,0",
    ]
    files = {
        f"Images/{number}/{name}.jpg": image(ord(name)) for number, name in ("1a", "1b", "1c", "1d", "2e")
    }
    tables = {"lists/training.csv": "\n".join(train), "lists/validation.csv": "2/e.jpg,0,0,9,9,1;2,7,-1,1\n"}
    outcome = take(plant({**tables, **files}))
    a, c, e = (outcome.rows[f"Images/{path}.jpg"] for path in ("1/a", "1/c", "2/e"))
    assert (a["emotion"], a["valence"], a["arousal"], a["split"]) == ("happiness", 75.0, 25.0, "train")
    assert (c["emotion"], c["valence_raw"], c["arousal_raw"]) == (None, 0.25, None)
    assert (e["emotion"], e["valence"], e["arousal"], e["split"]) == ("contempt", 0.0, 100.0, "val")
    assert outcome.reasons == {"Images/1/b.jpg": "missing_rating", "Images/1/d.jpg": "bad_rating"}


def test_rows_that_differ_in_words_are_not_averaged(
    plant: Plant, take: Callable[..., Any], image: Image
) -> None:
    column_map = (
        "{name: n, table: n.csv, key: pic, repeated: mean, scales: {valence: [1, 9]}, "
        "columns: {valence: V, valence_n: N, emotion: E}}"
    )
    lines = ["pic,V,N,E,note", "a,1,3,joy,x", "a,,,joy,x", "a,3,5,joy,y", "b,1,1,joy,x", "b,1,1,fear,x"]
    table = "\n".join([*lines, "c,1,1,joy,x", "c,one,1,joy,x"])
    images = {f"{name}.jpg": image(ord(name)) for name in "abc"}
    outcome = take(plant({"columns.yaml": column_map, "n.csv": table, **images}))
    row = outcome.rows["a.jpg"]
    assert (row["valence_raw"], row["valence_n"], json.loads(row["extra"])) == (2.0, 8, {"note": "x | y"})
    assert outcome.reasons == {"b.jpg": "conflicting_rating", "c.jpg": "conflicting_rating"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: n}", "give `table` and `key`, or a `file`"),
        ("{name: n, table: n.csv}", "give `key`: the column"),
        ("{name: n, table: n.csv, key: k, values: {emotion: {a: b}}}", "emotion is not among `columns`"),
        (
            "{name: n, table: n.csv, key: k, scales: {valence: [1, 9]}, columns: {valence: V}, "
            "values: {valence: {a: b}}}",
            "valence: 'b' is not a number",
        ),
    ],
)
def test_maps_that_do_not_fit_together(
    text: str, message: str, plant: Plant, take: Callable[..., Any], image: Image
) -> None:
    with pytest.raises(RecipeError, match=message):
        take(plant({"columns.yaml": text, "n.csv": "k,V\na,1", "a.jpg": image(1)}))
