"""EmoSet: both forms of its lists, attributes that may be absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import SourceError

SHORT = ["awe", "image/awe/awe_00001.jpg", "annotation/awe/awe_00001.json"]
LONG = ["sad", "sad_00002", "image/sad/sad_00002.jpg", "annotation/sad/sad_00002.json"]


@pytest.fixture
def grow(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant two images with annotations and lists; `files` replace or add to them."""

    def call(files: dict[str, Any]) -> Path:
        documents = {
            "train.json": [SHORT],
            "test.json": [LONG],
            "info.json": {},
            "annotation/awe/awe_00001.json": {"image_id": "awe_00001", "emotion": "awe", "object": ["Tree"]},
            "annotation/sad/sad_00002.json": {"brightness": 0.3, "scene": "bakery/shop"},
            **files,
        }
        names = ("awe/awe_00001", "sad/sad_00002", "awe/x")
        images = {f"image/{name}.jpg": image(at) for at, name in enumerate(names)}
        texts = {
            path: value if isinstance(value, str) else json.dumps(value) for path, value in documents.items()
        }
        return plant({**images, **texts})

    return call


def test_both_forms_of_a_list(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow({}))
    first, second = (outcome.rows[path] for path in (SHORT[1], LONG[2]))
    assert outcome.result.info.name == "emoset"
    assert (first["emotion"], first["split"], first["source_id"]) == ("awe", "train", "awe_00001")
    assert json.loads(first["extra"]) == {"object": '["Tree"]'}
    assert (second["emotion"], second["split"]) == ("sadness", "test")
    assert json.loads(second["extra"]) == {"brightness": "0.3", "scene": '"bakery/shop"'}
    assert outcome.reasons == {"image/awe/x.jpg": "missing_rating"}
    assert outcome.result.counts["annotation"] == 5


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"val.json": [SHORT]}, "conflicting_rating"),  # in two splits
        ({"annotation/awe/awe_00001.json": {"emotion": "fear"}}, "conflicting_rating"),
        ({"annotation/awe/awe_00001.json": [1]}, "bad_rating"),
        ({"train.json": [[*SHORT[:2], "annotation/awe/gone.json"]]}, "missing_rating"),
    ],
)
def test_what_makes_an_image_no_row(
    files: dict[str, Any], reason: str, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow(files))
    assert outcome.reasons[SHORT[1]] == reason and LONG[2] in outcome.rows


@pytest.mark.parametrize("entry", [["awe"], "awe", ["awe", 3, SHORT[1]], [*SHORT, SHORT[1]], [1, *SHORT[1:]]])
def test_an_entry_of_neither_form(entry: Any, grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match="an entry is not") as caught:
        take(grow({"train.json": [SHORT, entry]}))
    assert caught.value.where == "train.json, entry 1"


def test_broken_json(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match=r"train\.json is not JSON"):
        take(grow({"train.json": "[[["}))
    with pytest.raises(SourceError, match="is not JSON"):
        take(grow({"train.json": "[" * 100_000}))
    with pytest.raises(SourceError, match="is half of a character"):
        take(grow({"train.json": r'[["awe", "image/\ud83d.jpg", "a.json"]]'}))


def test_a_listed_image_that_is_not_there(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow({"train.json": [SHORT, ["awe", "image/../../../etc/x.jpg", SHORT[2]]]}))
    assert outcome.reasons["train.json#x"] == "missing_image"
