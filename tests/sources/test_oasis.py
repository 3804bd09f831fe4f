"""OASIS: three shapes of table, themes with spaces, files renamed by those who passed them on."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.errors import SourceError
from affectdata.reading.tree import read_tree
from affectdata.records import Rating
from affectdata.sources import oasis

HEADER = ["", "Theme", "Category", "Source", "Valence_mean", "Valence_SD", "Valence_N"]
HEADER += ["Arousal_mean", "Arousal_SD", "Arousal_N"]
ACORNS = ["I1", "Acorns 1", "Object", "Pixabay", "4.5", "1.25", "101", "2", "1.5", "100"]
WAR = ["I7", "War 2 ", "Scenery", "Flickr/A, B", "1.75", "0.5", "103", "5.5", "2", "104"]


def _csv(*rows: list[str], end: str = "\r", quoting: Any = csv.QUOTE_MINIMAL) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=end, quoting=quoting).writerows(rows)
    return buffer.getvalue().removesuffix(end)


@pytest.fixture
def grow(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant two images and a table; `files` are added."""

    def call(table: str, **files: Any) -> Path:
        images = {"images/Acorns 1.jpg": image(1), "images/War 2.jpg": image(2)}
        return plant({"OASIS.csv": table, **images, **files.get("files", {})})

    return call


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_every_form_of_the_table_gives_the_same_rows(
    end: str, quoting: Any, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow(_csv(HEADER, ACORNS, WAR, end=end, quoting=quoting)))
    row = outcome.rows["images/War 2.jpg"]
    assert (row["source_id"], row["theme"], row["subtype"]) == ("I7", "War", "Scenery")
    assert (row["valence_raw"], row["valence"], row["valence_sd"]) == (1.75, 12.5, round(0.5 / 6 * 100, 6))
    assert (row["valence_n"], row["arousal"], row["arousal_n"]) == (103, 75.0, 104)
    assert row["attribution"] == "Flickr/A, B"
    assert json.loads(row["extra"]) == {"Theme": "War 2", "Category": "Scenery"}
    assert not outcome.reasons


@pytest.mark.parametrize("name", ["Acorns_1.jpg", "Acorns1.jpg", "ACORNS 1.JPG", "acorns-1.png"])
def test_renamed_files_are_found(
    name: str, plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    outcome = take(plant({"ratings.csv": _csv(HEADER, ACORNS), f"images/{name}": image(1)}))
    assert list(outcome.rows) == [f"images/{name}"]
    assert outcome.rows[f"images/{name}"]["theme"] == "Acorns"


def test_exact_name_wins_over_a_renamed_twin(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    outcome = take(grow(_csv(HEADER, ACORNS, WAR), files={"images/Acorns_1.jpg": image(3)}))
    assert outcome.rows["images/Acorns 1.jpg"]["source_id"] == "I1"
    assert outcome.reasons == {"images/Acorns_1.jpg": "missing_rating"}


def test_two_renamed_twins_are_ambiguous(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    second = ["I2", "Beach 1", *ACORNS[2:]]
    tree = {"OASIS.csv": _csv(HEADER, ACORNS, second), "Acorns_1.jpg": image(1), "Acorns1.jpg": image(2)}
    outcome = take(plant({**tree, "Beach 1.jpg": image(3)}))
    assert outcome.reasons == {
        "OASIS.csv#I1": "bad_name",
        "Acorns_1.jpg": "missing_rating",
        "Acorns1.jpg": "missing_rating",
    }


def test_one_theme_is_one_group(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    names = ["Angry face 1", "Angry face 4", "Angry pose 1"]
    table = _csv(HEADER, *[[f"I{at}", name, *ACORNS[2:]] for at, name in enumerate(names)])
    rows = take(plant({"OASIS.csv": table, **{f"{n}.jpg": image(i) for i, n in enumerate(names)}})).rows
    group = {name: rows[f"{name}.jpg"]["group_id"] for name in names}
    assert group["Angry face 1"] == group["Angry face 4"] != group["Angry pose 1"]


def _by_gender() -> str:
    header = HEADER[:4] + [
        f"{measure}_{part}_{gender}"
        for measure in ("Valence", "Arousal")
        for gender in ("men", "women")
        for part in ("mean", "SD", "N")
    ]
    numbers = ["2", "1", "10", "5", "1", "30", "3", "1", "20", "3", "1", "20"]
    return _csv(header, ["I1", "Acorns 1", "2", "Pixabay", *numbers], ["I7", "War 2 ", "4", "x", *numbers])


def test_table_by_gender_is_pooled(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    row = take(grow(_by_gender())).rows["images/Acorns 1.jpg"]
    assert row["subtype"] == "Object"
    assert (row["valence_raw"], row["valence_n"]) == (4.25, 40)  # (2 × 10 + 5 × 30) / 40
    assert row["valence_sd"] == pytest.approx(math.sqrt((9 + 29 + 67.5) / 39) / 6 * 100, abs=1e-6)
    assert (row["arousal_raw"], row["arousal_n"]) == (3.0, 40)
    extra = json.loads(row["extra"])
    assert (extra["Category"], extra["Valence_mean_women"], extra["Arousal_N_men"]) == ("2", "5", "20")


def test_overall_table_goes_before_the_one_by_gender(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    table = _csv(HEADER, ACORNS, WAR)
    outcome = take(grow(table, files={"A_bygender.csv": _by_gender()}))
    assert outcome.rows["images/Acorns 1.jpg"]["valence_raw"] == 4.5
    assert outcome.findings == ["unread_table"]
    assert outcome.result.counts["annotation"] == 2


SEVERAL = st.lists(st.floats(1, 7), min_size=2, max_size=30)


@given(SEVERAL, SEVERAL)
def test_pooling_equals_rating_all_at_once(men: list[float], women: list[float]) -> None:
    groups = [
        Rating(float(np.mean(group)), float(np.std(group, ddof=1)), len(group)) for group in (men, women)
    ]
    pooled = oasis.pool_ratings(*groups)
    everyone = men + women
    assert pooled.n == len(everyone)
    assert pooled.mean == pytest.approx(np.mean(everyone), abs=1e-8)
    assert pooled.sd == pytest.approx(np.std(everyone, ddof=1), abs=1e-7)


@pytest.mark.parametrize(
    ("column", "cell", "reason", "detail"),
    [
        ("Valence_mean", "", "bad_rating", "OASIS.csv#I1, Valence"),
        ("Arousal_mean", "high", "bad_rating", "'high'"),
        ("Arousal_SD", "-1", "bad_rating", "'-1' is negative"),
        ("Valence_N", "10.5", "bad_rating", "'10.5' is not a whole number"),
        ("Valence_mean", "7.01", "rating_out_of_range", "7.01"),
        ("Arousal_mean", "0.99", "rating_out_of_range", "0.99"),
    ],
)
def test_bad_cell_rejects_the_image(
    column: str, cell: str, reason: str, detail: str, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    row = [cell if name == column else was for name, was in zip(HEADER, ACORNS, strict=True)]
    outcome = take(grow(_csv(HEADER, row, WAR)))
    assert outcome.reasons == {"images/Acorns 1.jpg": reason}
    assert detail in outcome.details["images/Acorns 1.jpg"]
    assert list(outcome.rows) == ["images/War 2.jpg"]


def test_missing_spread_is_null(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    row = [*ACORNS[:5], "", "", *ACORNS[7:]]
    read = take(grow(_csv(HEADER, row, WAR))).rows["images/Acorns 1.jpg"]
    assert (read["valence_sd"], read["valence_n"], read["arousal_n"]) == (None, None, 100)


def test_repeated_rows(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow(_csv(HEADER, ACORNS, ACORNS, WAR)))
    assert len(outcome.rows) == 2 and outcome.findings == ["repeated_row"]
    different = [*ACORNS[:4], "4.6", *ACORNS[5:]]
    outcome = take(grow(_csv(HEADER, ACORNS, different, WAR)))
    assert outcome.reasons == {"images/Acorns 1.jpg": "conflicting_rating"}


def test_rows_without_images_are_named_one_by_one(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    rows = [[f"I{at}", f"Yarn {at}", *ACORNS[2:]] for at in (20, 21)]
    outcome = take(grow(_csv(HEADER, ACORNS, WAR, *rows)))
    assert outcome.reasons == {"OASIS.csv#I20": "missing_image", "OASIS.csv#I21": "missing_image"}
    assert outcome.result.n_seen == 3 + 2


def test_damaged_and_unrated_images(
    grow: Callable[..., Path],
    take: Callable[..., Any],
    image: Callable[..., bytes],
    damaged: dict[str, tuple[bytes, str]],
) -> None:
    rows = [[f"I{at}", f"{name} 1", *ACORNS[2:]] for at, name in enumerate(damaged, 50)]
    files = {f"images/{name} 1.jpg": data for name, (data, _) in damaged.items()}
    outcome = take(grow(_csv(HEADER, ACORNS, WAR, *rows), files={**files, "images/Zoo 3.jpg": image(5)}))
    expected = {f"images/{name} 1.jpg": reason for name, (_, reason) in damaged.items()}
    assert outcome.reasons == {**expected, "images/Zoo 3.jpg": "missing_rating"}


def test_missing_column_and_missing_table(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    cut = _csv(HEADER[:-1], ACORNS[:-1])
    root = plant({"OASIS.csv": cut, "images/Acorns 1.jpg": image(1)})
    assert oasis.detect(read_tree(root)) is None
    with pytest.raises(SourceError, match="lacks the column 'Arousal_N'"):
        take(root, "oasis")
    (root / "OASIS.csv").unlink()
    with pytest.raises(SourceError, match="no table of OASIS"):
        take(root, "oasis")


def test_unknown_category(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match="'5' is not a category"):
        take(grow(_csv(HEADER, [*ACORNS[:2], "5", *ACORNS[3:]])))


def test_sample_holds_the_quirks(tmp_path: Path, take: Callable[..., Any]) -> None:
    oasis.write_sample(tmp_path / "s", np.random.default_rng(0))
    table = (tmp_path / "s" / "OASIS.csv").read_bytes()
    assert b"\n" not in table and b"Marsh 3 ," in table and not table.endswith(b"\r")
    outcome = take(tmp_path / "s")
    assert outcome.reasons == {"OASIS.csv#I30": "missing_image"}
    assert outcome.rows["images/Newt 4.jpg"]["format"] == "png"
    assert "images/Marsh 3.jpg" in outcome.rows


@pytest.mark.slow
def test_real_images(shared_oasis: Path, take: Callable[..., Any]) -> None:
    outcome = take(shared_oasis)
    assert outcome.result.counts == {"kept": 497, "merged": 0, "annotation": 1, "junk": 0, "rejected": 403}
    assert set(outcome.reasons.values()) == {"missing_image"}
    text = (shared_oasis / "OASIS.csv").read_bytes().decode("ascii").replace("\r", "\n")
    stems = {path.stem for path in (shared_oasis / "images").iterdir()}
    table = list(csv.DictReader(io.StringIO(text)))
    missing = {f"OASIS.csv#{row['']}" for row in table if row["Theme"].strip() not in stems}
    assert set(outcome.reasons) == missing
    for row in table:
        read = outcome.rows.get(f"images/{row['Theme'].strip()}.jpg")
        if read:
            assert read["valence_raw"] == float(row["Valence_mean"])
            assert read["arousal_n"] == int(row["Arousal_N"])
            assert (read["source_id"], read["subtype"]) == (row[""], row["Category"])


@pytest.mark.slow
def test_real_table_with_quotes_and_line_feeds(
    shared_oasis: Path, tmp_path: Path, take: Callable[..., Any]
) -> None:
    text = (shared_oasis / "OASIS.csv").read_bytes().decode("ascii").replace("\r", "\n")
    rows = [line for line in csv.reader(io.StringIO(text)) if "War" in line[1] or "Acorns" in line[1]]
    (tmp_path / "t").mkdir()
    for row in rows:
        image = shared_oasis / "images" / f"{row[1].strip()}.jpg"
        if image.exists():
            shutil.copy(image, tmp_path / "t")
    table = _csv(HEADER, *rows, end="\n", quoting=csv.QUOTE_ALL)
    (tmp_path / "t" / "OASIS B.csv").write_text(table, newline="")
    quoted, plain = take(tmp_path / "t").rows, take(shared_oasis, "oasis").rows
    assert quoted
    for path, row in quoted.items():
        same = plain[f"images/{path}"]
        assert {**row, "path": "", "group_id": ""} == {**same, "path": "", "group_id": ""}
