"""Tables in JSON: every form that labels are shipped in, and those that are refused with a way out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from affectdata.errors import SourceError
from affectdata.reading.json_tables import read_records

ROWS = [{"file": "a.jpg", "v": 3}, {"file": "b.jpg", "v": 5}]
NEEDED = ["file", "v"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        "\n".join(map(json.dumps, ROWS)) + "\n\n",
        json.dumps({"a.jpg": {"v": 3}, "b.jpg": {"v": 5}}),
        json.dumps({"a.jpg": 3, "b.jpg": 5}),
        json.dumps({"file": ["a.jpg", "b.jpg"], "v": [3, 5]}),
        json.dumps({"file": {"0": "a.jpg", "1": "b.jpg"}, "v": {"0": 3, "1": 5}}),
        json.dumps({"version": 1, "authors": [{"name": "x"}], "data": ROWS}),
    ],
    ids=["list", "lines", "keyed", "keyed values", "columns", "as pandas writes", "wrapped"],
)
def test_every_form_gives_the_same_rows(text: str) -> None:
    assert read_records(text, "t.json", NEEDED) == ROWS


def test_a_table_keyed_by_file_name_has_a_column_of_its_own() -> None:
    keyed = {"a.jpg": {"file": "elsewhere", "v": 1}}
    assert read_records(json.dumps(keyed), "t.json", NEEDED) == [
        {"key": "a.jpg", "file": "elsewhere", "v": 1}
    ]
    assert read_records('{"a.jpg": "joy"}', "t.json") == [{"key": "a.jpg", "value": "joy"}]
    assert read_records('{"a.jpg": [1, 2]}', "t.json", ["file", "w"]) == [{"file": "a.jpg", "w": [1, 2]}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3", "is a single value"),
        ("[1, 2]", "a list with items that are not objects"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ('{"a": 1}\n{"a": 2', "is not one JSON object per line"),
        ('{"a.jpg": 1, "a.jpg": 2}', "the key 'a.jpg' occurs several times"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_table(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_records(text, "t.json", NEEDED)


HALVES = ["\\ud83d", "\\uDE00 x", "\\ud83d.\\ude00"]


@pytest.mark.parametrize("half", HALVES)
def test_half_of_a_character_is_refused(half: str) -> None:
    """JSON allows the escape of a lone surrogate; UTF-8, and so a manifest, cannot hold it."""
    for text in (f'[{{"file": "a.jpg", "v": "é{half}"}}]', f'{{"x{half}": 3}}\n{{"x": 3}}'):
        with pytest.raises(SourceError, match=r"the escape \\ud[8e]\w+ after .* is half of a character"):
            read_records(text, "t.json")


def test_whole_characters_and_backslashes_are_read() -> None:
    assert read_records(r'[{"v": "\ud83d\ude00"}, {"v": "\\ud83d"}]', "t.json") == [
        {"v": "😀"},
        {"v": r"\ud83d"},
    ]


def coco(**changes: Any) -> str:
    document = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)],
        "categories": [{"id": 1, "name": "happy"}, {"id": 2, "name": "sad"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [0, 0, 1, 1], "attributes": {"valence": 3}},
            {"id": 1, "image_id": 1, "category_id": 2},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2]},
            {"id": 3, "image_id": 2, "category_id": 1},
            {"id": 4, "image_id": 2, "category_id": 2},
        ],
    }
    return json.dumps(document | changes)


def test_coco_has_a_row_per_image_with_its_categories() -> None:
    rows = read_records(coco(), "t.json", ["file_name", "category"])
    assert [row["category"] for row in rows] == ["happy", "sad", ["happy", "sad"], None]
    assert rows[0] == {"category": "happy", "valence": 3, "id": 0, "file_name": "0.jpg"}
    with pytest.raises(SourceError, match="COCO annotations without 'arousal'") as caught:
        read_records(coco(), "t.json", ["file_name", "arousal"])
    assert "emotion: category" in caught.value.fix and "valence" in caught.value.where
    with pytest.raises(SourceError, match="looks like COCO"):
        read_records(coco(categories=[]), "t.json", ["file_name"])


TASKS = [{"id": 1, "data": {"image": "/data/a.jpg"}, "annotations": [{"result": [{"value": {}}]}]}]


def test_label_studio_is_refused_with_the_way_out() -> None:
    with pytest.raises(SourceError, match="export of Label Studio") as caught:
        read_records(json.dumps(TASKS), "t.json", NEEDED)
    assert "JSON-MIN or CSV" in caught.value.fix
