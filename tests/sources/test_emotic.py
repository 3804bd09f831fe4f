"""EMOTIC: people and annotators of an image become one row."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import io as matlab

from affectdata.errors import SourceError
from affectdata.sources.emotic import _structs

PATH = "emotic/mscoco/images/{}.jpg"


def person(marks: list[list[str]], rated: list[tuple[float, float, float]], **more: Any) -> dict[str, Any]:
    names = ("valence", "arousal", "dominance")
    return {
        "body_bbox": np.array([-1, 2, 3, 4.5]),
        "annotations_categories": _structs([{"categories": np.array(words, object)} for words in marks]),
        "annotations_continuous": _structs([dict(zip(names, numbers, strict=True)) for numbers in rated]),
        "gender": "Male",
        "age": "Kid",
        **more,
    }


def image(name: str, people: list[dict[str, Any]]) -> dict[str, Any]:
    origin = {"name": "mscoco", "info": {"image_id": 1}}
    entry = {"filename": f"{name}.jpg", "folder": "mscoco/images", "original_database": origin}
    return {**entry, "person": _structs(people)}


@pytest.fixture
def grow(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant a MAT file of the splits given, and an image for each entry."""

    def call(**splits: list[dict[str, Any]]) -> Path:
        packed = io.BytesIO()
        matlab.savemat(packed, {split: _structs(listed) for split, listed in splits.items()})
        names = dict.fromkeys(entry["filename"][:-4] for listed in splits.values() for entry in listed)
        images = {PATH.format(name): image(number) for number, name in enumerate(names)}
        return plant({"Annotations/Annotations.mat": packed.getvalue(), **images})

    return call


def test_one_person_one_annotator(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow(train=[image("a", [person([["Fear", "Doubt/Confusion"]], [(1, 10, 5.5)])])]))
    row = outcome.rows[PATH.format("a")]
    assert (row["valence"], row["arousal"], row["dominance"]) == (0.0, 100.0, 50.0)
    assert (
        row["emotion_fear"],
        row["emotion_doubt_confusion"],
        row["emotion_joy" if 0 else "emotion_pain"],
    ) == (
        1.0,
        1.0,
        0.0,
    )
    assert (row["emotion"], row["split"], row["gender"], row["age_group"]) == (None, "train", "Male", "Kid")
    (annotated,) = json.loads(json.loads(row["extra"])["people"])
    assert annotated["box"] == [-1.0, 2.0, 3.0, 4.5] and annotated["categories"] == [
        ["Fear", "Doubt/Confusion"]
    ]


def test_a_single_word_is_not_split_into_letters(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    row = take(grow(val=[image("a", [person([["Peace"]], [(5, 5, 5)])])])).rows[PATH.format("a")]
    assert (row["emotion"], row["agreement"], row["emotion_peace"]) == ("peace", 1.0, 1.0)


def test_people_have_equal_weight_whatever_the_number_of_annotators(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    crowd = person(
        [["Fear"], ["Fear", "Pain"], ["Pain"], ["Fear"]], [(2, 2, 2), (4, 2, math.nan), (3, 2, 2), (3, 2, 2)]
    )
    alone = person([["Peace"]], [(9, math.nan, 4)])
    row = take(grow(test=[image("a", [crowd, alone])])).rows[PATH.format("a")]
    assert (row["emotion_fear"], row["emotion_pain"], row["emotion_peace"]) == (0.375, 0.25, 0.5)
    assert (row["valence_raw"], row["arousal_raw"], row["dominance_raw"]) == (6.0, 2.0, 3.0)
    assert (row["emotion"], row["gender"], row["split"]) == ("peace", None, "test")
    people = json.loads(json.loads(row["extra"])["people"])
    assert people[0]["continuous"]["dominance"] == [2.0, None, 2.0, 2.0]


def test_an_entry_per_person_is_one_image(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    people = [person([["Fear"]], [(2, 2, 2)]), person([["Pain"]], [(4, 4, 4)])]
    outcome = take(grow(train=[image("a", [person_]) for person_ in people]))
    assert outcome.rows[PATH.format("a")]["valence_raw"] == 3.0
    assert "repeated_row" in outcome.findings


def test_what_makes_an_image_no_row(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    nothing = person([[]], [(math.nan, math.nan, math.nan)])
    entries = [
        image("fine", [person([["Fear"]], [(2, 2, 2)])]),
        image("nothing", [nothing]),
        image("odd", [person([["Boredom"]], [(2, 2, 2)])]),
        image("far", [person([["Fear"]], [(11, 2, 2)])]),
        image("both", [person([["Fear"]], [(2, 2, 2)])]),
    ]
    outcome = take(grow(train=entries, val=entries[-1:]))
    assert outcome.reasons == {
        PATH.format("nothing"): "missing_rating",
        PATH.format("odd"): "bad_rating",
        PATH.format("far"): "rating_out_of_range",
        PATH.format("both"): "conflicting_rating",
    }
    assert "'Boredom' is not one of the 26" in outcome.details[PATH.format("odd")]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"MATLAB 5.0 no such thing", "cannot be read as a MAT file"), (None, "none of train, val, test")],
)
def test_a_file_of_another_kind(
    data: bytes | None, message: str, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = grow(Annotations=[image("a", [person([["Fear"]], [(2, 2, 2)])])])
    if data:
        (root / "Annotations" / "Annotations.mat").write_bytes(data)
    with pytest.raises(SourceError, match=message):
        take(root)
