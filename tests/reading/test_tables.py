"""Tables as spreadsheets and statistics programs save them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from affectdata.errors import SourceError
from affectdata.reading import tables, workbooks
from affectdata.reading.delimited import find_number_format, parse_number, to_plain
from affectdata.reading.tables import Shape, has_columns, read_table
from affectdata.reading.tree import read_tree

Save = Callable[..., Any]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a table and return its tree."""

    def call(name: str, content: str | bytes) -> Any:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return read_tree(tmp_path)

    return call


def workbook(*sheets: tuple[str, list[list[Any]]], merge: tuple[str, ...] = ()) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    for cells in merge:
        book.active.merge_cells(cells)
    book.save(buffer)
    return buffer.getvalue()


SHAPE = Shape(needed=["file", "V"])
ROWS = [["a.jpg", "3"], ["b.jpg", "4.5"]]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32", "cp1252"])
def test_the_byte_order_mark_decides(encoding: str, save: Save) -> None:
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""
    tree = save("t.csv", f"{mark}file\tV\té\r\na.jpg\t3\tü\r\nb.jpg\t4.5\t\r\n".encode(encoding))
    assert has_columns(tree, "t.csv", SHAPE)
    header, rows = read_table(tree, "t.csv", SHAPE)
    assert (header, list(rows)) == (["file", "V", "é"], [["a.jpg", "3", "ü"], ["b.jpg", "4.5", ""]])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_refused_with_the_key_that_reads_it(encoding: str, save: Save) -> None:
    tree = save("t.csv", "file,V\na.jpg,3\n".encode(encoding))
    assert not has_columns(tree, "t.csv", SHAPE)
    with pytest.raises(SourceError, match="UTF-16 without a byte-order mark") as caught:
        read_table(tree, "t.csv", SHAPE)
    assert f"`encoding: {encoding}`" in caught.value.fix
    assert list(read_table(tree, "t.csv", Shape(encoding=encoding))[1]) == [["a.jpg", "3"]]


def test_cp1252_at_the_very_end_of_a_text(save: Save) -> None:
    assert list(read_table(save("t.csv", "file,n\na,caf\xe9".encode("cp1252")), "t.csv")[1]) == [
        ["a", "café"]
    ]


@pytest.mark.parametrize(
    "text",
    [
        "file    V\na.jpg   3\nb.jpg   4.5\n",
        "  file    V   \n  a.jpg   3  \n  b.jpg 4.5\n",
        "file V\na.jpg 3 \nb.jpg 4.5 \n",
        'file V\n"a.jpg"   3\n"b.jpg"   4.5',
        "file|V\na.jpg|3\nb.jpg|4.5",
        "made in 2008, by hand\n\nfile;V\na.jpg;3\nb.jpg;4.5",
        "sep=;\nfile;V\na.jpg;3\nb.jpg;4.5",
    ],
)
def test_the_delimiter_is_the_one_that_gives_the_columns(text: str, save: Save) -> None:
    header, rows = read_table(save("t.txt", text), "t.txt", SHAPE)
    assert (header, list(rows)) == (["file", "V"], ROWS)


def test_aligned_columns_with_blanks_in_their_names(save: Save) -> None:
    tree = save("t.txt", "file name    mean V   n\nmy cat.jpg   3        4\n")
    header, rows = read_table(tree, "t.txt", Shape(needed=["file name", "mean V"]))
    assert (header, list(rows)) == (["file name", "mean V", "n"], [["my cat.jpg", "3", "4"]])


def test_aligned_columns_as_pandas_writes_them(save: Save) -> None:
    frame = pd.DataFrame(
        {"file": ["a.jpg", "long name.jpg".replace(" ", "_")], "V": [3.25, 10.5], "n": [7, 12]}
    )
    _, rows = read_table(save("t.txt", frame.to_string(index=False)), "t.txt", SHAPE)
    assert [[row[0], float(row[1]), int(row[2])] for row in rows] == frame.to_numpy().tolist()


def test_quoted_thousands_in_a_table_with_semicolons(save: Save) -> None:
    _, rows = read_table(save("t.csv", 'file;V\n"a,1.jpg";"1,234"\n'), "t.csv", SHAPE)
    assert list(rows) == [["a,1.jpg", "1,234"]]


def test_a_row_with_unquoted_decimal_commas_is_explained(save: Save) -> None:
    with pytest.raises(SourceError, match="3 cells, but its header has 2") as caught:
        list(read_table(save("t.csv", "file,V\na.jpg,3,5\n"), "t.csv", SHAPE)[1])
    assert "a.jpg,3,5" in caught.value.where and "quotes" in caught.value.fix


def test_zero_width_characters_are_removed(save: Save) -> None:
    text = "\u200bfile,V\u200d\na\u200b1.jpg,\u2060 3\ufeff\n\u202ab.jpg\u202c,\xa04.5\xa0\n"
    header, rows = read_table(save("t.csv", text), "t.csv", SHAPE)
    assert (header, list(rows)) == (["file", "V"], [["a1.jpg", "3"], ["b.jpg", "4.5"]])
    _, rows = read_table(save("t.xlsx", workbook(("s", [["file", "V"], ["a\u200b1.jpg", 3]]))), "t.xlsx")
    assert list(rows) == [["a1.jpg", "3"]]


TABLE: list[list[Any]] = [["file", "V"], ["a.jpg", 3], ["b.jpg", 4.5]]
README: tuple[str, list[list[Any]]] = ("Read me", [["About"], ["V is valence"]])


def test_the_sheet_with_the_columns_is_read(save: Save) -> None:
    tree = save("t.xlsx", workbook(README, ("Ratings", [["Norms of 2020"], [], *TABLE])))
    assert has_columns(tree, "t.xlsx", SHAPE)
    header, rows = read_table(tree, "t.xlsx", SHAPE)
    assert (header, list(rows)) == (["file", "V"], ROWS)
    assert rows.notes == ("the sheet 'Ratings' is read, the first with these columns",)


def test_several_sheets_with_the_columns_are_named(save: Save) -> None:
    tree = save("t.xlsx", workbook(README, ("Men", TABLE), ("Women", TABLE)))
    _, rows = read_table(tree, "t.xlsx", SHAPE)
    assert rows.notes == ("the sheet 'Men' is read; others with these columns: Women",)
    _, rows = read_table(tree, "t.xlsx", Shape("Women", needed=SHAPE.needed))
    assert rows.notes == ()


def test_a_wrong_sheet_names_the_right_one(save: Save) -> None:
    tree = save("t.xlsx", workbook(README, ("Ratings", TABLE)))
    with pytest.raises(SourceError, match="no sheet 'Norms'") as caught:
        read_table(tree, "t.xlsx", Shape("Norms", needed=SHAPE.needed))
    assert "`sheet: Ratings` has the columns" in caught.value.fix
    _, rows = read_table(tree, "t.xlsx", Shape("Read me", needed=SHAPE.needed))
    assert rows.notes == ("the columns are in the sheet 'Ratings': `sheet: Ratings`",)


def test_merged_cells_hold_for_all_of_their_rows(save: Save) -> None:
    rows = [["file", "V", "kind"], ["a", 1, "x"], ["b", 2], [], ["c", 3], ["d", 4, "y"], ["e", 5]]
    tree = save("t.xlsx", workbook(("s", rows), merge=("C2:C5", "C6:C9")))
    _, lines = read_table(tree, "t.xlsx", SHAPE)
    assert [row[2] for row in lines] == ["x", "x", "x", "y", "y"]
    assert lines.notes == ("2 merged cells hold for all of their rows: x, y",)


def test_merged_titles_are_no_columns(save: Save) -> None:
    rows = [["Norms", None, None], ["file", "valence", None], [None, "V", "SD"], ["a", 1, 2]]
    tree = save("t.xlsx", workbook(("s", rows), merge=("A1:C1", "A2:A3", "B2:C2")))
    header, lines = read_table(tree, "t.xlsx", SHAPE)
    assert (header, list(lines)) == (["file", "V", "SD"], [["a", "1", "2"]])


def edit(book: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    """Replace bytes in the parts of a workbook."""
    made, buffer = zipfile.ZipFile(io.BytesIO(book)), io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as parts:
        for name in made.namelist():
            content = made.read(name)
            for old, new in changes:
                content = content.replace(old, new)
            parts.writestr(name, content)
    return buffer.getvalue()


def test_a_merged_cell_over_a_whole_sheet_takes_no_memory(save: Save) -> None:
    made = workbook(("s", [["file", "V", "k"], ["a", 1, "x"], ["b", 2]]), merge=("C2:C3",))
    tree = save("t.xlsx", edit(made, (b"C2:C3", b"C2:XFD1048576")))
    assert list(read_table(tree, "t.xlsx", SHAPE)[1]) == [["a", "1", "x"], ["b", "2", "x"]]


def test_formulas_without_a_value_are_explained(save: Save) -> None:
    rows = [["file", "V", "note"], ["a", "=1+2", "=A2"], ["b", 4, "=LEFT(A3, 1)"]]
    tree = save("t.xlsx", workbook(("s", rows)))
    with pytest.raises(SourceError, match="3 formulas saved without a value: B2, C2, C3") as caught:
        read_table(tree, "t.xlsx", SHAPE)
    assert "save it again" in caught.value.fix
    _, lines = read_table(tree, "t.xlsx", Shape(needed=["file"]))
    assert lines.notes == ("3 formulas saved without a value: B2, C2, C3",)


def test_formulas_with_a_value_are_numbers(save: Save) -> None:
    made = workbook(("s", [["file", "V"], ["a", "=1+2"]]))
    filled = edit(
        made, *((b"<f>1+2</f>" + empty, b"<f>1+2</f><v>3</v>") for empty in (b"<v />", b"<v/>", b"<v></v>"))
    )
    assert list(read_table(save("t.xlsx", filled), "t.xlsx", SHAPE)[1]) == [["a", "3"]]


@pytest.mark.parametrize(
    ("cell", "decimal", "thousands", "number"),
    [
        ("3,5", ",", None, 3.5),
        ("1.234,5", ",", ".", 1234.5),
        ("1.234.567", ",", ".", 1234567),
        ("1,234.5", ".", ",", 1234.5),
        ("1\xa0234,5", ",", " ", 1234.5),
        ("12 345", ".", " ", 12345),
        ("1'234.5", ".", "'", 1234.5),
        ("-0,25", ",", ".", -0.25),
        ("\N{MINUS SIGN}2", ".", None, -2),
        ("(5,43)", ",", None, 5.43),
        ("1,5e-1", ",", None, 0.15),
        (",5", ",", None, 0.5),
        ("3.5", ",", None, 3.5),  # of a workbook
    ],
)
def test_numbers_of_other_countries(cell: str, decimal: str, thousands: str | None, number: float) -> None:
    assert parse_number(to_plain(cell, decimal, thousands)) == number


@pytest.mark.parametrize(
    ("cell", "decimal", "thousands"),
    [("3.5", ",", "."), ("1.23", ",", "."), ("1,23", ".", ","), ("12,34,567", ".", ","), ("3,5", ".", None)],
)
def test_a_separator_in_the_wrong_place_is_no_number(cell: str, decimal: str, thousands: str | None) -> None:
    with pytest.raises(ValueError):
        parse_number(to_plain(cell, decimal, thousands))


@pytest.mark.parametrize(
    ("cell", "keys"),
    [
        ("3,5", '`decimal: ","`'),
        ("55,5 %", '`decimal: ","`'),
        ("1.234,5", '`decimal: ","` and `thousands: "."`'),
        ("1,234.5", '`thousands: ","`'),
        ("1\xa0234,5", '`thousands: " "` and `decimal: ","`'),
        ("1,234", '`thousands: ","` or, if it is less than 1000, `decimal: ","`'),
        ("five", ""),
    ],
)
def test_the_keys_that_make_a_number_of_a_cell(cell: str, keys: str) -> None:
    assert find_number_format(cell) == keys


def test_a_small_parquet_file_with_very_many_rows_is_refused(save: Save) -> None:
    buffer, schema = io.BytesIO(), pa.schema([("file", pa.string()), ("v", pa.int8())])
    part = pa.table([pa.array(["a.jpg"] * 2_000_000), pa.array(np.ones(2_000_000, np.int8))], schema=schema)
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for _ in range(5):
            writer.write_table(part)
    assert len(buffer.getvalue()) < 200_000
    with pytest.raises(SourceError, match="10000000 rows of 2 columns"):
        read_table(save("r.parquet", buffer.getvalue()), "r.parquet")


def test_a_wide_header_above_short_rows_is_refused(save: Save) -> None:
    text = ",".join(f"c{number}" for number in range(20_000)) + "\n" + "1\n" * 4000
    _, rows = read_table(save("r.csv", text), "r.csv")
    with pytest.raises(SourceError, match="shorter than its header of 20000 cells"):
        for _ in rows:
            pass


def test_columns_inside_of_objects(save: Save) -> None:
    text = '{"img": "a", "valence": {"mean": 3, "by": {"n": 7}}}\n{"img": "b", "valence": {"mean": 4}}\n'
    needed = ["img", "valence.mean", "valence.by.n"]
    header, rows = read_table(save("v.jsonl", text), "v.jsonl", Shape(needed=needed))
    assert [dict(zip(header, row, strict=True)) for row in rows] == [
        {"img": "a", "valence": '{"by": {"n": 7}, "mean": 3}', "valence.mean": "3", "valence.by.n": "7"},
        {"img": "b", "valence": '{"mean": 4}', "valence.mean": "4", "valence.by.n": ""},
    ]
    header, _ = read_table(save("v.jsonl", text), "v.jsonl", Shape(needed=["img", "valence.sd"]))
    assert header == ["img", "valence"]


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet"])
def test_a_table_with_too_many_columns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_COLUMNS", 3)
    frame = pd.DataFrame({letter: [1] for letter in "abcd"})
    write: dict[str, Callable[[Path], Any]] = {
        "a.csv": partial(frame.to_csv, index=False),
        "a.json": partial(frame.to_json, orient="records"),
        "a.parquet": frame.to_parquet,
    }
    write[name](tmp_path / name)
    with pytest.raises(SourceError, match="has 4 columns; the limit is 3"):
        read_table(read_tree(tmp_path), name)


def test_parquet_that_is_too_large_for_the_memory_is_a_memory_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "a.parquet")

    def refuse(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 9 failed")

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(MemoryError, match="malloc"):
        read_table(read_tree(tmp_path), "a.parquet")


def test_records_of_which_each_has_keys_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{f"k{number}": 1} for number in range(9000)]))
    with pytest.raises(SourceError, match="has 9000 rows of 9000 columns"):
        read_table(read_tree(tmp_path), "a.json")


@pytest.mark.parametrize(
    ("bound", "words"), [("_MAX_SHEETS", "it has 4 sheets"), ("_MAX_FOUND", "more than 3 merged cells")]
)
def test_a_workbook_with_very_many_sheets_or_merged_cells(
    bound: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = openpyxl.Workbook()
    for number in range(4):
        book.active.append(["file", number])
        book.active.merge_cells(
            start_row=9 * number + 20, end_row=9 * number + 25, start_column=1, end_column=1
        )
        book.create_sheet() if number else None
    book.save(tmp_path / "a.xlsx")
    read_table(read_tree(tmp_path), "a.xlsx")
    monkeypatch.setattr(workbooks, bound, 3)
    with pytest.raises(SourceError, match=words):
        read_table(read_tree(tmp_path), "a.xlsx")
