"""The table source: any container, any names, through a column map."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from affectdata.errors import RecipeError, SourceError, UsageError
from affectdata.reading.delimited import parse_count, parse_number, parse_share, parse_spread
from affectdata.reading.join import Row, join_rows
from affectdata.reading.tables import read_table
from affectdata.reading.tree import read_tree
from affectdata.records import Finding, Reason, Reject

MAP: dict[str, Any] = {
    "name": "norms",
    "table": "norms.csv",
    "key": "pic",
    "file": "images/{key}.jpg",
    "scales": {"valence": [1, 9]},
    "columns": {"valence": "V", "valence_sd": "SD", "valence_n": "N"},
}


@pytest.fixture
def grow(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant images a, b and 2000, a table and a map that `changes` differs in."""

    def call(text: str | bytes, files: dict[str, bytes | str] | None = None, **changes: Any) -> Path:
        column_map = {**MAP, **changes}
        images = {"images/a.jpg": image(1), "images/b.PNG": image(2, "PNG"), "images/2000.jpg": image(3)}
        texts = {column_map["table"]: text, "columns.yaml": yaml.safe_dump(column_map, sort_keys=False)}
        return plant({**images, **texts, **(files or {})})

    return call


def test_map_at_the_root_is_used(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    table = "pic,V,SD,N,note\na,9,0.8,30,fine\nb.jpg,1,,,\n2000.0,5,1,3.0,x\n"
    outcome = take(grow(table, {"README.txt": "hello"}))
    rows = outcome.rows
    assert (rows["images/a.jpg"]["valence"], rows["images/a.jpg"]["valence_sd"]) == (100.0, 10.0)
    assert rows["images/a.jpg"]["valence_n"] == 30
    assert (rows["images/b.PNG"]["valence"], rows["images/b.PNG"]["valence_sd"]) == (0.0, None)
    assert (rows["images/2000.jpg"]["source_id"], rows["images/2000.jpg"]["valence_n"]) == ("2000", 3)
    assert json.loads(rows["images/a.jpg"]["extra"]) == {"note": "fine"}
    assert (outcome.result.info.name, outcome.result.counts["annotation"]) == ("norms", 3)
    assert not outcome.reasons


def test_map_elsewhere_and_another_name(
    grow: Callable[..., Path], take: Callable[..., Any], tmp_path: Path
) -> None:
    root = grow("pic,V,SD,N\na,5,,\nb,5,,\n2000,5,,")
    (root / "columns.yaml").rename(tmp_path / "elsewhere.yaml")
    outcome = take(root, "table", map_path=tmp_path / "elsewhere.yaml", name="My Norms (2024)")
    assert outcome.result.manifest.name == "my_norms_2024"
    assert len(outcome.rows) == 3


def test_without_a_map(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    root = grow("pic,V\na,5")
    (root / "columns.yaml").unlink()
    with pytest.raises(UsageError, match="needs a column map") as caught:
        take(root, "table")
    assert "--map" in caught.value.fix and "scales: {valence: [1, 9]}" in caught.value.fix


def test_every_mistake_in_a_map_is_reported(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    root = grow(
        "pic,V\na,5",
        name="No Good",
        skip_rows=-1,
        colour="red",
        encoding="utf-99",
        scales={"valence": [9, 1], "joy": [0, 1]},
        columns={"arousal_sd": "SD", "mood": "M"},
        emotions={"Sad": "sad"},
    )
    with pytest.raises(RecipeError) as caught:
        take(root)
    message = str(caught.value)
    for text in (
        *("name:", "skip_rows:", "colour: unknown key", "encoding: unknown encoding", "columns.yaml"),
        *("valence: the first value must be lower", "joy is not a rating", "arousal_sd without arousal"),
        *("mood is unknown", "write Sad as sadness"),
    ):
        assert text in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"scales": {}}, "valence needs its scale"), ({"groups": ["theme"]}, "theme is not among `columns`")],
)
def test_parts_of_a_map_must_fit_together(
    changes: dict[str, Any], message: str, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    with pytest.raises(RecipeError, match=message):
        take(grow("pic,V,SD,N\na,5,,", **changes))


def _workbook(rows: list[list[Any]]) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    book.create_sheet("Ratings")
    for row in rows:
        book["Ratings"].append(row)
    book.save(buffer)
    return buffer.getvalue()


def _parquet(rows: list[list[Any]]) -> bytes:
    buffer = io.BytesIO()
    columns = [list(column) for column in zip(*rows[1:], strict=True)]
    pq.write_table(pa.table(dict(zip(rows[0], columns, strict=True))), buffer)
    return buffer.getvalue()


CELLS: list[list[Any]] = [["pic", "V", "SD", "N"], [2000.0, 6.5, 1.0, 20], [2375.1, 3.0, None, None]]


@pytest.mark.parametrize(
    ("name", "content", "changes"),
    [
        ("n.csv", "pic,V,SD,N\n2000.0,6.5,1.0,20\n2375.1,3.0,,\n", {}),
        ("n.csv", "pic;V;SD;N\r\n2000;6.5;1;20\r\n2375.1;3;;", {}),
        ("n.txt", "pic\tV\tSD\tN\r2000\t6.5\t1\t20\r2375.1\t3\t.\t.", {"na": ["."]}),
        (
            "n.txt",
            "made in 2008\n\npic|V|SD|N\n2000|6.5|1|20\n2375.1|3||",
            {"skip_rows": 2, "delimiter": "|"},
        ),
        ("n.csv", "pic,V,SD,N\n2000,6.5,1,20\n2375.1,3,,".encode("utf-16"), {"encoding": "utf-16"}),
        ("n.xlsx", _workbook([["made"], *CELLS]), {"sheet": "Ratings", "skip_rows": 1}),
        ("n.parquet", _parquet(CELLS), {}),
        ("n.jsonl", "\n".join(json.dumps(dict(zip(CELLS[0], row, strict=True))) for row in CELLS[1:]), {}),
    ],
)
def test_every_file_format_gives_the_same_rows(
    name: str,
    content: str | bytes,
    changes: dict[str, Any],
    grow: Callable[..., Path],
    take: Callable[..., Any],
    image: Callable[..., bytes],
) -> None:
    rows = take(grow(content, {"images/2375.1.JPG": image(9)}, table=name, **changes)).rows
    assert set(rows) == {"images/2000.jpg", "images/2375.1.JPG"}
    first, second = rows["images/2000.jpg"], rows["images/2375.1.JPG"]
    assert (first["valence_raw"], first["valence_sd"], first["valence_n"]) == (6.5, 12.5, 20)
    assert (second["source_id"], second["valence_raw"], second["valence_sd"]) == ("2375.1", 3.0, None)
    assert (first["valence_min"], first["valence_max"]) == (1.0, 9.0)


@pytest.mark.parametrize(
    ("name", "content", "changes", "message"),
    [
        ("n.xlsx", b"PK no workbook", {}, "cannot be read as a workbook"),
        ("n.xlsx", _workbook(CELLS), {"sheet": "Noten"}, "no sheet 'Noten'"),
        ("n.parquet", b"PAR1 no parquet", {}, "cannot be read as Parquet"),
        ("n.jsonl", b'{"pic": "a"}\nnot json', {}, "not one JSON object per line"),
        ("n.sav", b"$FL2", {}, r"\.sav files are not supported"),
        ("n.xls", b"<html><table></table></html>", {}, "cannot be read as a workbook"),
        ("n.npy", b"\x93NUMPY\x01" + bytes(90), {}, "but a NumPy array"),
        ("n.csv.gz", b"\x1f\x8b\x08\x00" + bytes(90), {}, "but compressed with gzip"),
        ("n.html", b"<!DOCTYPE html>\n<table></table>", {}, "but a web page"),
        ("n.arff", b"@RELATION norms\n@DATA\na,5,1,2", {}, "but an ARFF table"),
        (
            "n.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            {},
            "pointer of Git LFS",
        ),
        (
            "n.csv",
            b'pic,V,SD,N\na,5,1,2\nb,"6,1,2\nc,7,1,2\n',
            {},
            "not closed in the row that begins with 'b,6",
        ),
        ("n.csv", b"\xff\xfe\xfa", {"encoding": "utf-8"}, "is not utf-8"),
        ("n.csv", b"", {}, "n.csv is empty"),
        ("n.csv", b",,\n1,2,3", {}, "has no header"),
        ("n.csv", b"pic,V,SD,N\na,5,1,2,3", {}, "5 cells, but its header has 4"),
        ("n.csv", b"pic,Val,SD,N\na,5,1,2", {}, "lacks the column 'V'"),
    ],
)
def test_tables_that_cannot_be_read(
    name: str,
    content: bytes,
    changes: dict[str, Any],
    message: str,
    grow: Callable[..., Path],
    take: Callable[..., Any],
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        take(grow(content, table=name, **changes))
    if name not in ("n.parquet", "n.jsonl"):
        assert caught.value.fix


def test_a_missing_column_is_reported_with_the_header(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    with pytest.raises(SourceError, match="lacks the columns 'SD', 'N'") as caught:
        take(grow("pic,V,Other\na,5,1"))
    assert "'Other'" in caught.value.where and "column map" in caught.value.fix


def test_a_missing_table_is_reported_with_the_others(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = grow("pic,V,SD,N\na,5,,", {"other.tsv": "x"})
    (root / "norms.csv").unlink()
    with pytest.raises(SourceError, match=r"no table 'norms\.csv'") as caught:
        take(root)
    assert "other.tsv" in caught.value.where


@pytest.mark.parametrize(
    ("cells", "reason", "detail"),
    [
        ("five,1,2", "bad_rating", "norms.csv#a, V"),
        ("nan,1,2", "missing_rating", "no value in V"),
        (",1,2", "missing_rating", "no value in V"),
        ("5,-1,2", "bad_rating", "norms.csv#a, SD"),
        ("5,1,2.5", "bad_rating", "norms.csv#a, N"),
        ("5,1,99999999999", "bad_rating", "norms.csv#a, N"),
        ("9.5,1,2", "rating_out_of_range", "9.5"),
    ],
)
def test_bad_cells(
    cells: str, reason: str, detail: str, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow(f"pic,V,SD,N\na,{cells}\nb,5,,\n2000,5,,"))
    assert outcome.reasons == {"images/a.jpg": reason}
    assert detail in outcome.details["images/a.jpg"]


def test_rows_without_an_image_and_images_without_a_row(
    grow: Callable[..., Path],
    take: Callable[..., Any],
    image: Callable[..., bytes],
    damaged: dict[str, tuple[bytes, str]],
) -> None:
    lines = ["pic,V,SD,N", "a,5,,", "b,5,,", "2000,5,,", "gone,5,,", "../../secret,5,,", ",5,,"]
    files = {"images/unrated.jpg": image(7), **{f"images/{n}.jpg": data for n, (data, _) in damaged.items()}}
    outcome = take(grow("\n".join([*lines, *(f"{name},5,," for name in damaged)]), files))
    assert outcome.reasons == {
        "norms.csv#gone": "missing_image",
        "norms.csv#../../secret": "missing_image",
        "norms.csv#row 6": "missing_image",
        "images/unrated.jpg": "missing_rating",
        **{f"images/{name}.jpg": reason for name, (_, reason) in damaged.items()},
    }


def test_repeated_and_conflicting_rows(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow("pic,V,SD,N\na,5,,\na,5,,\nb,5,,\nb,6,,\n2000,5,,"))
    assert outcome.reasons == {"images/b.PNG": "conflicting_rating"}
    assert outcome.findings == ["repeated_row"]
    assert set(outcome.rows) == {"images/a.jpg", "images/2000.jpg"}


def test_two_files_for_one_row(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    twins = {"images/b.tif": image(8, "TIFF")}
    outcome = take(grow("pic,V,SD,N\na,5,,\nb,5,,\n2000,5,,", twins))
    assert outcome.reasons["norms.csv#b"] == "bad_name"
    assert {"images/b.tif", "images/b.PNG"} <= outcome.reasons.keys()
    outcome = take(grow("pic,V,SD,N\na,5,,\nb.tif,5,,\n2000,5,,", twins, file="images/{key}"))
    assert "images/b.tif" in outcome.rows
    assert outcome.reasons == {"images/b.PNG": "missing_rating"}


def test_emotions_as_shares(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    table = "pic,Joy,Sad\na,13 %,80\nb,50,50\n2000,120,0\n"
    outcome = take(
        grow(table, columns={}, scales={}, percent=True, emotions={"joy": "Joy", "sadness": "Sad"})
    )
    row, tied = outcome.rows["images/a.jpg"], outcome.rows["images/b.PNG"]
    assert (row["emotion_joy"], row["emotion_sadness"]) == (0.13, 0.8)
    assert (row["emotion"], row["agreement"]) == ("sadness", 0.8)
    assert (tied["emotion"], tied["agreement"]) == (None, None)
    assert outcome.reasons == {"images/2000.jpg": "bad_rating"}


@given(st.integers(0, 10_000))
def test_percentages_are_shares(basis_points: int) -> None:
    text = f"{basis_points / 100:.2f}"
    assert parse_share(f"{text} %") == parse_share(text, percent=True) == basis_points / 10_000


@pytest.mark.parametrize("cell", ["1.5", "-0.1", "101 %", "%", "nan", "0_1", "0.1_5 %"])
def test_a_cell_that_is_not_a_share(cell: str) -> None:
    with pytest.raises(ValueError):
        parse_share(cell)


@pytest.mark.parametrize(
    "cell", ["3_5", "(3_5)", "1_000", "inf", "-Infinity", "nan", "1e999", "0x10", "", "5,5"]
)
def test_a_cell_that_is_not_a_number(cell: str) -> None:
    for parse in (parse_number, parse_count, parse_spread):
        with pytest.raises(ValueError):
            parse(cell)


def test_every_other_field(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    columns = {
        "subtype": "kind",
        "subject_id": "who",
        "age": "years",
        "gender": "sex",
        "split": "part",
        "emotion": "word",
        "agreement": "share",
        "theme": "scene",
        "license": "terms",
        "url": "link",
    }
    outcome = take(
        grow(
            "pic,kind,who,years,sex,part,word,share,scene,terms,link\n"
            "a,X,p1,34.0,f,Training,Sad,90%,lake,CC0,http://a\n"
            "b,Y,p2,151,m,test,Joy,1,lake,,\n"
            "2000,Y,p3,,m,valid,Joy,1,lake,,\n",
            scales={},
            columns=columns,
            subtypes={"X": {"name": "snakes", "sign": -1, "upright": False, "tags": ["snakes"]}},
            groups=["theme"],
            license="CC BY 4.0",
        )
    )
    first, second = outcome.rows["images/a.jpg"], outcome.rows["images/2000.jpg"]
    expected = {"subtype": "X", "subject_id": "p1", "age": 34, "gender": "f", "split": "train"}
    expected |= {"emotion": "sadness", "agreement": 0.9, "theme": "lake", "license": "CC0", "url": "http://a"}
    assert {name: first[name] for name in expected} == expected
    assert first["content_tags"] == "snakes" and second["content_tags"] is None
    assert (second["split"], second["age"], second["license"]) == ("val", None, "CC BY 4.0")
    assert first["group_id"] == second["group_id"]
    assert outcome.reasons == {"images/b.PNG": "bad_rating"}
    assert outcome.result.info.subtypes["X"].upright is False


def test_unknown_split(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match="'fold1' is not a split"):
        take(grow("pic,part\na,fold1", scales={}, columns={"split": "part"}))


def test_several_tables_and_a_pattern_of_columns(
    grow: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    files = {
        "r/one.csv": "pic,dir,V\na,images,5\n",
        "r/two.csv": "pic,V,dir\n/x,7,art/wide\n",
        "art/wide/x.jpg": image(5),
    }
    root = grow("", files, table="r/*.csv", file="{dir}/{key}", columns={"valence": "V"})
    (root / "r" / "*.csv").unlink()
    rows = take(root).rows
    assert {path: row["valence"] for path, row in rows.items()} == {"images/a.jpg": 50, "art/wide/x.jpg": 75}


def test_rows_of_two_tables_for_one_image(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    tables = {"r1.csv": "pic,V,SD,N\na,5,,\nb,5,,", "r2.csv": "pic,V,SD,N\na,5,,\nb,6,,\n2000,5,,"}
    root = grow("", tables, table="r?.csv")
    (root / "r?.csv").unlink()
    outcome = take(root)
    assert set(outcome.rows) == {"images/a.jpg", "images/2000.jpg"}
    assert outcome.reasons == {"images/b.PNG": "conflicting_rating"}
    assert "r1.csv#b, r2.csv#b" in outcome.details["images/b.PNG"]


def test_names_composed_in_two_ways(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    texts = {"norms.csv": f"pic,V,SD,N\n{composed},5,,", "columns.yaml": yaml.safe_dump(MAP)}
    outcome = take(plant({f"images/{decomposed}.jpg": image(1), **texts}))
    assert list(outcome.rows) == [f"images/{decomposed}.jpg"]


def test_cells_as_text(plant: Callable[..., Path]) -> None:
    table = pa.table({"a": [3.0, 2.5, None], "b": [True, False, None], "c": [[1, 2], [], None]})
    root = plant({"x.csv": "a"})
    pq.write_table(table, root / "x.parquet")
    _, rows = read_table(read_tree(root), "x.parquet")
    assert list(rows) == [["3", "True", "[1, 2]"], ["2.5", "False", "[]"]]


def test_a_stray_cell_far_away_takes_no_memory(plant: Callable[..., Path]) -> None:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["a", "b"])
    book.active.append([1, 2])
    book.active["XFD150"] = "x"
    book.save(buffer)
    tree = read_tree(plant({"x.xlsx": buffer.getvalue()}))
    tracemalloc.start()
    header, lines = read_table(tree, "x.xlsx")
    rows = list(lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    assert (header[:3], len(header)) == (["a", "b", "#3"], 16384)
    assert [[cell for cell in row if cell] for row in rows] == [["1", "2"], ["x"]]
    assert {len(row) for row in rows} == {16384}


def test_empty_cells_beside_and_below_a_table_are_ignored(plant: Callable[..., Path]) -> None:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for row in (["a", "b"], [1], [None, 2]):
        book.active.append(row)
    book.active["H9"].number_format = "0.00"
    book.save(buffer)
    header, rows = read_table(read_tree(plant({"x.xlsx": buffer.getvalue()})), "x.xlsx")
    assert (header, list(rows)) == (["a", "b"], [["1", ""], ["", "2"]])


def _with_sheet(sheet: str) -> bytes:
    """A workbook the sheet of which is this XML."""
    made, buffer = zipfile.ZipFile(io.BytesIO(_workbook([]))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as parts:
        for name in made.namelist():
            is_sheet = name == "xl/worksheets/sheet1.xml"
            parts.writestr(name, sheet if is_sheet else made.read(name))
    return buffer.getvalue()


_SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    "<sheetData>%s</sheetData></worksheet>"
)
_FAR = '<row r="1"><c><v>1</v></c></row><row r="1999999999"><c><v>1</v></c></row>'


@pytest.mark.parametrize(
    ("sheet", "bounds", "message"),
    [
        ("<row/>", {"_MAX_BYTES": 1000}, "unpacks to"),
        ("<row><c/></row>" * (1 << 21), {}, "unpacks to 30 MiB"),
        (_FAR, {"_MAX_ROWS": 1000}, "cells up to row 1001, column 1"),
        (
            "<row>" + "<c><v>1</v></c>" * 4 + "</row><row/><row><c><v>1</v></c></row>",
            {"MAX_CELLS": 7},
            "cells up to row 3, column 4",
        ),
    ],
)
def test_workbooks_that_are_too_large(
    sheet: str,
    bounds: dict[str, int],
    message: str,
    plant: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = plant({"x.xlsx": _with_sheet(_SHEET % sheet)})
    for name, value in bounds.items():
        monkeypatch.setattr(f"affectdata.reading.workbooks.{name}", value)
    with pytest.raises(SourceError, match=message):
        read_table(read_tree(root), "x.xlsx")


def test_repeated_header_names(plant: Callable[..., Path]) -> None:
    root = plant({"n.csv": "id,M,SD,,M,SD,M\n1,2,3,,4,5,6\n,,,,,,\n"})
    header, rows = read_table(read_tree(root), "n.csv")
    assert header == ["id", "M", "SD", "#4", "M#2", "SD#2", "M#3"]
    assert list(rows) == [["1", "2", "3", "", "4", "5", "6"]]


@given(st.lists(st.sampled_from(["M", "SD", "", "M#2", "#3"]), min_size=1, max_size=8))
def test_header_names_become_unique(header: list[str]) -> None:
    from affectdata.reading.tables import unique_names

    names = unique_names(header)
    assert len(set(names)) == len(names) == len(header)
    assert all(name.startswith(title) for name, title in zip(names, header, strict=True))


def test_rows_of_one_image_may_be_far_apart() -> None:
    images = [f"{number}.jpg" for number in range(40)]
    rows = [Row("t.csv", str(at), str(at % 40), {"v": str(at % 40 == 7 and at)}) for at in range(80)]
    items = [*rows[:50], Reject("x", Reason.JUNK, ""), *rows[50:], Row("t.csv", "k", "gone", {})]
    joined = list(join_rows(items, images, lambda path: path.removesuffix(".jpg")))
    assert joined[0] == items[50]  # not a row: passed through at once
    pairs = [item for item in joined if isinstance(item, tuple)]
    assert [path for _, path in pairs] == [f"{number}.jpg" for number in range(40) if number != 7]
    assert [row.key for row, _ in pairs[:3]] == ["0", "1", "2"]
    rejects = [item for item in joined[1:] if isinstance(item, Reject)]
    assert [(reject.path, reject.reason) for reject in rejects] == [
        ("7.jpg", Reason.CONFLICTING_RATING),
        ("t.csv#k", Reason.MISSING_IMAGE),
    ]
    assert "t.csv#7, t.csv#47" in rejects[0].detail
    assert sum(isinstance(item, Finding) for item in joined) == 39


KDEF = [
    f"{who}/{who}{code}{view}.JPG"
    for who in ("AF01", "BM12")
    for code in ("HA", "SA")
    for view in ("S", "FL")
]


@pytest.mark.parametrize(
    "file",
    [
        "{session:1}{person:3}{emotion:2}{view}",
        "{session:1}{person:3}{emotion:2}{view}.jpg",
        "{session:[AB]}{person:[FM][0-9]{2}}{emotion:AF|AN|HA|SA}{view:S|[FH][LR]}",
        r"{session:\w}{person:\w\d+}{emotion:2}{view:.+}",
    ],
)
def test_fixed_width_names(
    file: str, plant: Callable[..., Path], image: Callable[..., bytes], take: Callable[..., Any]
) -> None:
    column_map = {
        "name": "kdef",
        "file": file,
        "columns": {"emotion": "emotion", "subject_id": "person"},
        "values": {"emotion": {"HA": "happy", "SA": "sad"}},
    }
    images = {path: image(number) for number, path in enumerate([*KDEF, "odd.JPG"])}
    outcome = take(plant({**images, "columns.yaml": yaml.safe_dump(column_map)}))
    assert {path: (row["emotion"], row["subject_id"]) for path, row in outcome.rows.items()} == {
        path: ("happiness" if "HA" in path else "sadness", path[1:4]) for path in KDEF
    }
    assert json.loads(outcome.rows[KDEF[1]]["extra"]) == {"session": "A", "view": "FL"}
    assert outcome.reasons == {"odd.JPG": "bad_name"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "{emotion:(}"}, "not a valid pattern"),
        ({"file": "{key:2}", "table": "t.csv", "key": "k"}, "for labels in file names"),
    ],
)
def test_widths_and_expressions_that_cannot_be_used(
    changes: dict[str, str], message: str, plant: Callable[..., Path], take: Callable[..., Any]
) -> None:
    root = plant({"columns.yaml": yaml.safe_dump({"name": "t", **changes}), "a.jpg": b""})
    with pytest.raises(RecipeError, match=message):
        take(root)


def test_what_a_row_names_is_never_missing_if_it_exists(
    plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    files: dict[str, bytes | str] = {
        "a.avif": image(1, "AVIF"),
        "b.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200),
        "c.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "d.jp2": image(2, "JPEG2000"),
        "e.jpeg_large": image(3),
        "f.docx": "text",
        "g.svg": "<svg></svg>",
    }
    names = [*files, "h.jpg"]
    table = "\n".join(["file,v", *(f"{name},5" for name in names)])
    spec = "{name: t, table: r.csv, key: file, scales: {valence: [1, 9]}, columns: {valence: v}}"
    outcome = take(plant({**files, "r.csv": table, "columns.yaml": spec}))
    formats = {path: row["format"] for path, row in outcome.rows.items()}
    assert formats == {"a.avif": "avif", "d.jp2": "jpeg2000", "e.jpeg_large": "jpeg"}
    assert outcome.reasons == {
        "b.heic": "unsupported_format",
        "c.eps": "unsupported_format",
        "g.svg": "unsupported_format",
        "r.csv#f.docx": "unreadable",
        "f.docx": "junk",
        "r.csv#h.jpg": "missing_image",
    }
    assert outcome.details["b.heic"] == "images in the format HEIF are not read: convert it to PNG or JPEG"


@pytest.mark.parametrize(
    ("table", "spec"),
    [
        ({"a.jpg": {"v": 3}, "b.jpg": {"v": 9}}, "key: image, columns: {valence: v}"),
        (
            {
                "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "x/b.jpg"}],
                "categories": [{"id": 7, "name": "3"}, {"id": 8, "name": "9"}],
                "annotations": [{"image_id": 1, "category_id": 7}, {"image_id": 2, "category_id": 8}],
            },
            "key: file_name, match_parts: 1, columns: {valence: category}",
        ),
    ],
    ids=["keyed by file name", "COCO"],
)
def test_labels_in_json(
    table: Any, spec: str, plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    column_map = f"{{name: t, table: labels.json, scales: {{valence: [1, 9]}}, {spec}}}"
    files = {
        "a.jpg": image(1),
        "b.jpg": image(2),
        "labels.json": json.dumps(table),
        "columns.yaml": column_map,
    }
    outcome = take(plant(files))
    assert {path: row["valence"] for path, row in outcome.rows.items()} == {"a.jpg": 25.0, "b.jpg": 100.0}
