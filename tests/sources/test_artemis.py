"""ArtEmis: annotations become works, names find files in spite of their letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import SourceError

HEADER = "art_style,painting,emotion,utterance,repetition\n"
TABLE = "artemis_dataset_release_v0.csv"


def test_annotations_are_shares_of_a_work(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    lines = (
        'Baroque,a-painter_night(1),awe,"So, ""dark"",\nso deep",4\n'
        "Baroque,a-painter_night(1),fear,Cold,4\n"
        "Baroque,b_tied,awe,x,2\n"
        "Baroque,a-painter_night(1),something else,Hm,4\n"
        "Baroque,a-painter_night(1),awe,Wide,4\n"
        "Baroque,b_tied,fear,y,2\n"
        "Baroque,c_gone,fear,y,1\n"
    )
    images = {
        f"wikiart/Baroque/{name}.jpg": image(len(name))
        for name in ("a-painter_night(1)", "b_tied", "unrated")
    }
    outcome = take(plant({TABLE: HEADER + lines, **images}))
    row, tied = (outcome.rows[f"wikiart/Baroque/{name}.jpg"] for name in ("a-painter_night(1)", "b_tied"))
    assert (row["emotion"], row["agreement"]) == ("awe", 0.5)
    assert (row["emotion_fear"], row["emotion_something_else"]) == (0.25, 0.25)
    assert (row["artist"], row["theme"], row["source_id"]) == (
        "a-painter",
        "Baroque",
        "Baroque/a-painter_night(1)",
    )
    extra = json.loads(row["extra"])
    assert extra["n_annotations"] == "4"
    assert sorted(json.loads(extra["utterances"])) == ["Cold", "Hm", 'So, "dark",\nso deep', "Wide"]
    assert (tied["emotion"], tied["emotion_awe"]) == (None, 0.5)
    assert outcome.reasons == {
        "wikiart/Baroque/unrated.jpg": "missing_rating",
        f"{TABLE}#Baroque/c_gone": "missing_image",
    }


def test_letters_that_were_lost_on_disk(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    lines = "Art_Nouveau,eugã¨ne-grasset_l'été-1900,awe,x,1\nRococo,eugène-grasset_l'été-1900,fear,x,1\n"
    images = {
        'Art_Nouveau/euga"ne-grasset_lt-1900.jpg': image(1),
        "Art_Nouveau/eugne-grasset_lt-1900.jpg": image(2),
        "Rococo/eugne-grasset_l-t-1900.jpg": image(3),
    }
    outcome = take(plant({TABLE: HEADER + lines, **images}))
    assert outcome.rows.keys() == {"Art_Nouveau/eugne-grasset_lt-1900.jpg"}
    assert outcome.reasons[f"{TABLE}#Rococo/eugène-grasset_l'été-1900"] == "missing_image"


def test_two_tables(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    line = "Baroque,a,awe,x,1\n"
    files = {TABLE: HEADER + line, "artemis_copy.csv": HEADER + line, "Baroque/a.jpg": image(1)}
    with pytest.raises(SourceError, match="2 tables of annotations"):
        take(plant(files))
