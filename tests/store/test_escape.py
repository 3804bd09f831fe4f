"""Text of others in CSV for spreadsheets, in Markdown, and as folder names."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.store.escape import folder_names, to_csv, to_markdown

FORMULAS = ("=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "=cmd|' /C calc'!A0")
AWKWARD = (
    "CON",
    "con.txt",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a:b",
    "x.",
    "x ",
    " x",
    ".x",
    "@x",
    "$x",
    "__x",
    "~x",
)
UNICODE = ("\u00e9", "e\u0301", "E\u0301", "\ufb01", "fi", "\u200bx", "\u202ex", "\U0001f600" * 80)
text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
names = st.one_of(text, st.sampled_from([*FORMULAS, *AWKWARD, *UNICODE, "x" * 300, "A", "a", "%", "a%2Fb"]))


@given(st.lists(st.lists(st.one_of(names, st.integers(), st.floats(), st.none()), min_size=2, max_size=2)))
def test_no_cell_is_a_formula_and_all_text_is_there(rows: list[list[object]]) -> None:
    read = list(csv.reader(io.StringIO(to_csv(["=a", "b"], rows), newline="")))
    assert read[0] == ["'=a", "b"] and len(read) == len(rows) + 1
    for row, found in zip(rows, read[1:], strict=True):
        for value, cell in zip(row, found, strict=True):
            if isinstance(value, str):
                assert cell in (value, f"'{value}") and not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            elif value is not None and value == value:
                assert cell == str(value)


@pytest.mark.parametrize("value", FORMULAS)
def test_formulas_are_quoted(value: str) -> None:
    assert next(csv.reader(io.StringIO(to_csv([value], []), newline=""))) == [f"'{value}"]


@given(names)
def test_markdown_is_one_line_without_markup(value: str) -> None:
    shown = to_markdown(value)
    assert "\n" not in shown and "\r" not in shown
    for mark in ("|", "`", "*", "~", "](", "<a", "</", "<!"):
        assert shown.count(mark) == shown.count(f"\\{mark}")
    assert to_markdown("[0,10) a_b http://x.y/z_w (x)") == "[0,10) a_b http://x.y/z_w (x)"


def test_markdown_of_hostile_text() -> None:
    value = "![x](http://e.vil) <img src=x> **b** _i_ | `c` ~~d~~"
    expected = r"![x\](http://e.vil) \<img src=x> \*\*b\*\* \_i\_ \| \`c\` \~\~d\~\~"
    assert to_markdown(value) == expected


@given(st.lists(names, unique=True, max_size=12))
def test_folder_names_are_safe_and_differ(given_names: list[str]) -> None:
    found = folder_names(given_names, taken=["metadata.parquet"])
    folded = [unicodedata.normalize("NFC", name.casefold()) for name in [*found, "metadata.parquet"]]
    assert len(set(folded)) == len(folded)
    for name in found:
        assert 0 < len(name.encode()) <= 255 and name == Path(name).name
        assert not name.startswith((".", "@", "$", "__")) and not name.endswith((".", " "))
        assert not set(name) & set('<>:"/\\|?*\0')
        assert name.split(".")[0].casefold() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert folder_names(given_names, taken=["metadata.parquet"]) == found


def test_plain_names_stay_as_they_are() -> None:
    plain = ["happy", "Sn", "very sad", "müde", "喜", "a+b", "x_1", "100%"]
    assert folder_names(plain) == plain


def test_folder_names_are_made_on_disk(tmp_path: Path) -> None:
    for name in folder_names([*FORMULAS, *AWKWARD, *UNICODE, "x" * 300]):
        (tmp_path / name).mkdir()
