"""GAPED: two tables per kind, .jpg in the tables and .bmp on disk, spacer columns, rows of tabs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError
from affectdata.reading.tree import read_tree
from affectdata.sources import gaped

MEANS = "\tValence\tArousal\tInternal norms\tExternal norms\r\n"
SPREADS = (
    "\tValence\t(SD)\t\tArousal\t(SD)\t\tInternal norms\t(SD)\t\tExternal norms\t(SD)\r\n"
    "A001.jpg\t12.5\t(5.43)\t\t60.25\t(7.5)\t\t10.1\t(1)\t\t20.2\t(2)\r\n" + "\t" * 11 + "\r\n"
)
ROW = "A001.jpg\t12.500\t60.250\t10.123456\t20.234567"


@pytest.fixture
def grow(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant a GAPED tree of one kind; `rows` follow the header, `files` are added.

    With `spare` there is one more image, so that at least one row is kept.
    """

    def call(*rows: str, spare: bool = False, **files: Any) -> Path:
        if spare:
            rows = (*rows, ROW.replace("A001", "A900"))
        tree = {"A.txt": MEANS + "\r\n".join(rows), "A/A001.bmp": image(1, "BMP")}
        if spare:
            tree["A/A900.bmp"] = image(900, "BMP")
        return plant({**tree, **files.get("files", {})})

    return call


def test_means_and_spreads_come_from_their_tables(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow(ROW, files={"A_with SD.txt": SPREADS}))
    row = outcome.rows["A/A001.bmp"]
    assert (row["valence"], row["valence_sd"], row["arousal"], row["arousal_sd"]) == (12.5, 5.43, 60.25, 7.5)
    assert (row["source_id"], row["subtype"], row["content_tags"]) == ("A001", "A", "animal_cruelty")
    assert json.loads(row["extra"]) == {
        "Internal norms": "10.123456",
        "External norms": "20.234567",
        "Internal norms (SD)": "(1)",
        "External norms (SD)": "(2)",
    }
    assert row["valence_n"] is None


def test_palette_bitmap_is_read(plant: Callable[..., Path], take: Callable[..., Any], tmp_path: Path) -> None:
    gaped.save_image(tmp_path / "p.bmp", np.full((6, 8, 3), 200, np.uint8), "BMP", palette=True)
    tree = {"N.txt": "\tValence\tArousal\nN001.jpg\t50\t20", "N/N001.bmp": (tmp_path / "p.bmp").read_bytes()}
    assert take(plant(tree)).rows["N/N001.bmp"]["format"] == "bmp"


def test_images_in_one_folder_or_under_other_names(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    spiders = "\tValence\tArousal\nSp001.jpg\t5\t9\n"
    snakes = spiders.replace("Sp", "Sn")
    files = {"all/a001.bmp": image(1, "BMP"), "Spiders/Sp001.jpg": image(2), "all/Sn001.png": image(3, "PNG")}
    outcome = take(plant({**files, "A.txt": MEANS + ROW, "Sn.txt": snakes, "Sp.txt": spiders}))
    rows = {path: (row["subtype"], row["valence"]) for path, row in outcome.rows.items()}
    assert rows == {
        "all/a001.bmp": ("A", 12.5),
        "Spiders/Sp001.jpg": ("Sp", 5.0),
        "all/Sn001.png": ("Sn", 5.0),
    }


def test_text_in_a_table_named_like_gapeds_is_not_gaped(
    plant: Callable[..., Path], image: Callable[..., bytes]
) -> None:
    assert gaped.detect(read_tree(plant({"A.txt": "a\tb\n", "A001.bmp": image(1, "BMP")}))) is None


def test_gaps_in_the_numbering_are_not_missing_files(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    root = grow(ROW, "A009.jpg\t20\t30\t1\t1", files={"A/A009.bmp": image(9, "BMP")})
    outcome = take(root)
    assert set(outcome.rows) == {"A/A001.bmp", "A/A009.bmp"}
    assert not outcome.reasons


def test_each_row_without_image_is_named(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow(ROW, "A002.jpg\t1\t2\t3\t4", "A003.jpg\t1\t2\t3\t4"))
    assert outcome.reasons == {"A.txt#A002": "missing_image", "A.txt#A003": "missing_image"}


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ("A001.jpg\tn/a\t60\t1\t1", "bad_rating", "Valence"),
        ("A001.jpg\t50\tinf\t1\t1", "bad_rating", "Arousal"),
        ("A001.jpg\t\t60\t1\t1", "bad_rating", "A.txt#A001"),
        ("A001.jpg\t100.5\t60\t1\t1", "rating_out_of_range", "100.5"),
    ],
)
def test_bad_rating_rejects_the_image(
    row: str, reason: str, detail: str, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow(row, spare=True))
    assert outcome.reasons == {"A/A001.bmp": reason}
    assert detail in outcome.details["A/A001.bmp"]


def test_unrated_image_is_rejected(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    outcome = take(grow(ROW, files={"A/A777.bmp": image(7, "BMP")}))
    assert outcome.reasons == {"A/A777.bmp": "missing_rating"}


def test_damaged_images_are_rejected(
    grow: Callable[..., Path], take: Callable[..., Any], damaged: dict[str, tuple[bytes, str]]
) -> None:
    rows = [f"{name}.jpg\t50\t50\t1\t1" for name in damaged]
    outcome = take(grow(ROW, *rows, files={f"A/{name}.bmp": data for name, (data, _) in damaged.items()}))
    assert outcome.reasons == {f"A/{name}.bmp": reason for name, (_, reason) in damaged.items()}
    assert set(outcome.rows) == {"A/A001.bmp"}


def test_two_files_of_one_name(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    outcome = take(grow(ROW, spare=True, files={"A/A001.png": image(2, "PNG")}))
    unrated = {"A/A001.bmp": "missing_rating", "A/A001.png": "missing_rating"}
    assert outcome.reasons == {"A.txt#A001": "bad_name", **unrated}


def test_equal_rows_count_once_and_different_ones_are_rejected(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    assert list(take(grow(ROW, ROW)).rows) == ["A/A001.bmp"]
    outcome = take(grow(ROW, ROW.replace("12.500", "13.500"), spare=True))
    assert outcome.reasons == {"A/A001.bmp": "conflicting_rating"}


def test_a_missing_column_is_reported_with_the_header(
    plant: Callable[..., Path], image: Callable[..., bytes]
) -> None:
    root = plant({"A.txt": "\tValence\tExcitement\nA001.jpg\t1\t2", "A/A001.bmp": image(1, "BMP")})
    with pytest.raises(SourceError, match="lacks the column 'Arousal'") as caught:
        list(gaped.read(read_tree(root), gaped.ReadOptions()).items)
    assert "'Excitement'" in caught.value.where


def test_images_without_their_table(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    root = grow(ROW, files={"Sn/Sn001.bmp": image(3, "BMP")})
    with pytest.raises(SourceError, match=r"no table Sn\.txt"):
        take(root)


def test_images_that_share_a_picture_are_one_group(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    names = ("N068", "N076", "N077")
    rows = "\r\n".join(ROW.replace("A001", name) for name in names)
    files = {f"N/{name}.bmp": image(number, "BMP") for number, name in enumerate(names)}
    found = take(plant({"N.txt": MEANS + rows, **files})).rows
    first, second, other = (found[f"N/{name}.bmp"]["group_id"] for name in names)
    assert first == second != other
