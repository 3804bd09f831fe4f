"""FER2013 without FER+: both public forms of its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError
from affectdata.manifest.ingest import recognise
from affectdata.reading.tree import read_tree
from affectdata.sources import fer2013

USES = ("Training", "PublicTest", "PrivateTest")
EMOTIONS = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
Plant, Take = Callable[..., Path], Callable[..., Any]


def table(header: str, labels: list[str] | None = None) -> str:
    """Faces with a number as label and seed, and the columns of a header."""
    lines = [header]
    for number, label in enumerate(labels or [str(number) for number in range(7)]):
        pixels = " ".join(map(str, np.random.default_rng(number).integers(0, 256, 48 * 48)))
        cells = {"emotion": label, "pixels": f'"{pixels}"', "Usage": USES[number % 3]}
        lines.append(",".join(cells[name.strip()] for name in header.split(",")))
    return "\r\n".join(lines)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("fer2013.csv", "emotion,pixels,Usage"),
        ("fer2013.csv", "Usage,emotion,pixels"),
        ("data/icml_face_data.csv", "emotion, Usage, pixels"),
        ("renamed.csv", "emotion,Usage,pixels"),
    ],
)
def test_seven_classes_and_three_splits(name: str, header: str, plant: Plant, take: Take) -> None:
    outcome = take(plant({name: table(header)}))
    assert outcome.result.info.name == "fer2013"
    rows = [outcome.rows[f"{name}#{number}"] for number in range(7)]
    assert [row["emotion"] for row in rows] == EMOTIONS
    assert [row["split"] for row in rows] == ["train", "val", "test", "train", "val", "test", "train"]
    assert {(row["width_px"], row["height_px"]) for row in rows} == {(48, 48)}
    assert outcome.result.counts == {"kept": 7, "merged": 0, "annotation": 1, "junk": 0, "rejected": 0}


def test_both_forms_together_are_the_same_faces(plant: Plant, take: Take) -> None:
    files = {
        "a/fer2013.csv": table("emotion,pixels,Usage"),
        "b/icml_face_data.csv": table("emotion, Usage, pixels"),
    }
    counts = take(plant(files)).result.counts
    assert (counts["kept"], counts["merged"], counts["annotation"]) == (7, 7, 2)


def test_a_table_without_usage_has_no_split_and_counts_only_alone(plant: Plant, take: Take) -> None:
    files = {"train.csv": table("emotion,pixels"), "test.csv": "pixels\n1 2 3 4\n"}
    outcome = take(plant(files))
    assert {row["split"] for row in outcome.rows.values()} == {None}
    assert outcome.reasons == {"test.csv": "junk"}
    outcome = take(plant({**files, "icml_face_data.csv": table("emotion, Usage, pixels")}, "contest"))
    assert len(outcome.rows) == 7 and outcome.reasons == {"test.csv": "junk", "train.csv": "junk"}


def test_wrong_codes_are_rejects_and_wrong_uses_are_errors(plant: Plant, take: Take) -> None:
    outcome = take(plant({"fer2013.csv": table("emotion,pixels,Usage", ["3", "7", "", "happy", "-1"])}))
    assert set(outcome.reasons.values()) == {"bad_rating"} and len(outcome.reasons) == 4
    text = table("emotion,pixels,Usage").replace("PublicTest", "Public")
    with pytest.raises(SourceError, match="'Public' is not one of Training"):
        take(plant({"fer2013.csv": text}, "other"))


def test_votes_beside_it_make_it_fer_plus(plant: Plant) -> None:
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    root = plant({"icml_face_data.csv": table("emotion, Usage, pixels"), "fer2013new.csv": header})
    assert recognise(read_tree(root))[0] == "ferplus"
    with pytest.raises(SourceError, match="no table of labelled pixels"):
        fer2013.read(read_tree(plant({"a.csv": "pixels"}, "none")), fer2013.ReadOptions())
