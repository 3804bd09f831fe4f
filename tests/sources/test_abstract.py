"""Abstract paintings: single-quoted votes as shares, ties without a dominant emotion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import SourceError
from affectdata.reading.tree import read_tree
from affectdata.sources import abstract

Plant, Take, Image = Callable[..., Path], Callable[..., Any], Callable[..., bytes]
NAMES = ("", "Amusement", "Anger", "Awe", "Content", "Disgust", "Excitement", "Fear", "Sad")
TABLE = "ABSTRACT_groundTruth.csv"


def line(*cells: object, quote: str = "'") -> str:
    return ",".join(f"{quote}{cell}{quote}" for cell in cells) + "\n"


def file_name(number: int) -> str:
    return f"abstract_{number:04d}.jpg"


@pytest.mark.parametrize("quote", ["'", '"', ""])
def test_votes_become_shares_and_stay_in_extra(quote: str, plant: Plant, take: Take, image: Image) -> None:
    rows = line(*NAMES, quote=quote) + line(file_name(1), 0, 1, 2, 8, 0, 1, 0, 4, quote=quote)
    row = take(plant({TABLE: rows, f"testImages_abstract/{file_name(1)}": image(1)})).rows[
        f"testImages_abstract/{file_name(1)}"
    ]
    assert (row["emotion"], row["agreement"], row["emotion_sadness"]) == ("contentment", 0.5, 0.25)
    assert (
        sum(row[f"emotion_{name}"] for name in ("anger", "awe", "contentment", "excitement", "sadness")) == 1
    )
    assert json.loads(row["extra"])["Content"] == "8"
    assert row["source_id"] == file_name(1)


def test_ties_have_no_emotion_and_bad_votes_are_rejected(plant: Plant, take: Take, image: Image) -> None:
    votes = [(0, 3, 3, 0, 0, 0, 0, 1), (0,) * 8, (1, 2, 3, "x", 0, 0, 0, 0), (1, 0, 0, 0, 0, 0, 0, 0)]
    table = line(*NAMES) + "".join(line(file_name(number), *counts) for number, counts in enumerate(votes))
    outcome = take(plant({TABLE: table, **{file_name(at): image(at) for at in range(3)}}))
    assert outcome.reasons == {
        file_name(1): "missing_rating",
        file_name(2): "bad_rating",
        f"{TABLE}#{file_name(3)}": "missing_image",
    }
    assert outcome.rows[file_name(0)]["emotion"] is None
    assert outcome.rows[file_name(0)]["emotion_anger"] == round(3 / 7, 9)
    assert outcome.findings == ["undecided"]


def test_a_missing_table_of_votes_is_reported(plant: Plant, image: Image) -> None:
    with pytest.raises(SourceError, match="no table of votes"):
        abstract.read(read_tree(plant({file_name(1): image(1)})), abstract.ReadOptions())
