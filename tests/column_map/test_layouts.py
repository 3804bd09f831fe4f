"""Column maps on tables as they are shipped, and what becomes of raw votes in later steps."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest

from affectdata.errors import SourceError
from affectdata.manifest.concat import concat
from affectdata.manifest.manifest import load_manifest
from affectdata.manifest.overlay import overlay
from affectdata.reading.protocol import ReadOptions

ReadVotes = Callable[..., tuple[Any, pd.DataFrame]]
VALENCE: dict[str, Any] = {"scales": {"valence": [1, 9]}, "columns": {"valence": "V"}}


def texts(result: Any) -> list[str]:
    return [finding.text for finding in result.findings]


def test_lost_leading_zeros_are_joined_where_one_image_is_alike(read_votes: ReadVotes) -> None:
    table = "file,V\n7,3\n005,4\nimg_12,5\n100,6\n8,7\n9,1\n09,2"
    images = ["007.jpg", "5.jpg", "IMG_012.jpg", "100.jpg", "08.jpg", "0008.jpg", "009.jpg"]
    result, rows = read_votes(table, images, **VALENCE)
    expected = {"007.jpg": 3, "5.jpg": 4, "IMG_012.jpg": 5, "100.jpg": 6}
    assert rows["valence_raw"].to_dict() == expected
    assert result.reasons() == {"missing_image": 3, "missing_rating": 3}
    (text,) = texts(result)
    assert text.startswith("3 names are joined in spite of leading zeros: '7' with '007.jpg'")


def test_zeros_of_an_image_that_another_row_names_are_left(read_votes: ReadVotes) -> None:
    result, rows = read_votes("file,V\n7,3\n007,4\n1.05,5", ["007.jpg", "1.5.jpg"], **VALENCE)
    assert rows["valence_raw"].to_dict() == {"007.jpg": 4}
    assert result.reasons() == {"missing_image": 2, "missing_rating": 1}


def test_numbers_of_other_countries_in_every_kind_of_column(read_votes: ReadVotes) -> None:
    keys: dict[str, Any] = {
        "scales": {"valence": [0, 2000]},
        "columns": {"valence": "V", "valence_sd": "SD", "valence_n": "N", "agreement": "A"},
        "emotions": {"joy": "J", "fear": "F"},
        "decimal": ",",
        "thousands": ".",
    }
    _, rows = read_votes("file;V;SD;N;A;J;F\na.jpg;1.234,5;2,5;1.000;55,5 %;0,25;0,75", ["a.jpg"], **keys)
    found = rows[["valence_raw", "valence_n", "agreement", "emotion_joy", "emotion_fear"]].iloc[0]
    assert found.tolist() == [1234.5, 1000, 0.555, 0.25, 0.75]


def test_a_percent_sign_of_a_rating_is_dropped(read_votes: ReadVotes) -> None:
    keys = {"scales": {"valence": [0, 100]}, "columns": {"valence": "V", "valence_sd": "SD"}, "decimal": ","}
    _, rows = read_votes("file;V;SD\na.jpg;80,6 %;12 %", ["a.jpg"], **keys)
    assert rows[["valence_raw", "valence_sd"]].iloc[0].tolist() == [80.6, 12]


def test_a_decimal_comma_names_the_key_that_reads_it(read_votes: ReadVotes) -> None:
    with pytest.raises(SourceError, match="'3,5' is not a number; in the column map: `decimal: \",\"`"):
        read_votes("file;V\na.jpg;3,5", ["a.jpg"], **VALENCE)


def test_a_number_that_became_a_date_is_explained(read_votes: ReadVotes) -> None:
    result, _ = read_votes("file,V\na.jpg,3-May\nb.jpg,4", ["a.jpg", "b.jpg"], **VALENCE)
    assert "'3-May' is a date" in result.rejects.to_pylist()[0]["detail"]


def test_a_repeated_column_is_a_finding_unless_the_map_chooses(read_votes: ReadVotes) -> None:
    result, rows = read_votes("file,V,V\na.jpg,3,4", ["a.jpg"], **VALENCE)
    assert rows["valence_raw"].item() == 3
    assert texts(result) == ["votes.csv: 2 columns are called 'V'; the first is used (next: 'V#2')"]
    result, rows = read_votes("file,V,V\na.jpg,3,4", ["a.jpg"], **{**VALENCE, "columns": {"valence": "V#2"}})
    assert (rows["valence_raw"].item(), texts(result)) == (4, [])


def test_what_a_workbook_needs_to_be_read_is_a_finding(read_votes: ReadVotes) -> None:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["About these norms"])
    sheet = book.create_sheet("Ratings")
    for row in (["file", "V", "kind"], ["a.jpg", 3, "snakes"], ["b.jpg", 4]):
        sheet.append(row)
    sheet.merge_cells("C2:C3")
    book.save(buffer)
    columns = {"valence": "V", "subtype": "kind"}
    result, rows = read_votes(
        buffer.getvalue(), ["a.jpg", "b.jpg"], "votes.xlsx", scales=VALENCE["scales"], columns=columns
    )
    assert rows["subtype"].tolist() == ["snakes", "snakes"]
    assert any("'Ratings' is read" in text for text in texts(result))
    assert any("1 merged cells hold" in text for text in texts(result))
    with pytest.raises(SourceError, match="lacks the columns") as caught:
        read_votes(buffer.getvalue(), ["a.jpg"], "votes.xlsx", sheet="Sheet", **VALENCE)
    assert "`sheet: Ratings`" in caught.value.fix


WORDS: dict[str, Any] = {"rows": "rater", "columns": {"emotion": "w"}}


def test_concat_keeps_votes_and_intensities(read_votes: ReadVotes, tmp_path: Path) -> None:
    one, _ = read_votes("file,w\na.jpg,joy\na.jpg,joy\na.jpg,awe\nb.jpg,awe", ["a.jpg", "b.jpg"], **WORDS)
    graded = {"scales": {"intensity": [0, 4]}, "intensities": {"joy": "J"}, "name": "graded"}
    two, _ = read_votes("file,J\na.jpg,3\nb.jpg,1", ["a.jpg", "b.jpg"], **graded)
    merged = concat([one.manifest, two.manifest], "both", tmp_path / "both", "error").manifest
    rows = load_manifest(merged.path).table.sort_by("path").to_pylist()
    names = ["agreement_n", "intensity_joy", "emotion_joy"]
    assert [[row[name] for name in names] for row in rows] == [[3, 75, 0.666666667], [1, 25, 0]]


def test_a_conflict_of_intensities_is_listed(read_votes: ReadVotes, tmp_path: Path) -> None:
    graded: dict[str, Any] = {"scales": {"intensity": [0, 4]}, "intensities": {"joy": "J"}}
    one, _ = read_votes("file,J\na.jpg,3", ["a.jpg"], **graded)
    two, _ = read_votes("file,J\na.jpg,1", ["a.jpg"], name="two", **graded)
    result = concat([one.manifest, two.manifest], "both", tmp_path / "both", "mean")
    assert [conflict.column for conflict in result.conflicts] == ["intensity_joy"]
    assert result.manifest.table["intensity_joy"].to_pylist() == [50]


def test_raw_votes_go_onto_images_of_others(read_votes: ReadVotes, tmp_path: Path) -> None:
    base, _ = read_votes("file,V\na.jpg,3\nb.jpg,4", ["a.jpg", "b.jpg"], **VALENCE)
    (tmp_path / "labels.csv").write_text("pic,w\na,joy\na,awe\na,joy\nb,awe\n", encoding="utf-8")
    column_map = {"name": "words", "table": "labels.csv", "key": "pic", "file": "votes/{key}", **WORDS}
    (tmp_path / "map.yaml").write_text(json.dumps(column_map), encoding="utf-8")
    options = ReadOptions(map_path=tmp_path / "map.yaml")
    result = overlay(
        tmp_path / "labels.csv", [base.manifest], source="table", options=options, out=tmp_path / "over"
    )
    rows = result.manifest.table.sort_by("path").to_pylist()
    names = ["valence_raw", "agreement_n", "emotion_joy", "emotion_awe"]
    assert [[row[name] for name in names] for row in rows] == [[3, 3, 0.666666667, 0.333333333], [4, 1, 0, 1]]
