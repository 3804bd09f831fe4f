"""YAML and strict models: nothing unknown passes, every problem is reported at once with its path."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from affectdata.check.study import Study
from affectdata.column_map.columns import ColumnMap
from affectdata.config import StrictModel, parse_model, read_yaml
from affectdata.errors import RecipeError
from affectdata.recipe.recipe import Recipe
from affectdata.selection.request import SetRequest


class Inner(StrictModel):
    copies: int = Field(8, ge=1)
    level: float = 1.0


class Outer(StrictModel):
    name: str
    inner: Inner = Inner()
    ways: dict[str, list[Inner]] = {}


def problems(data: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_model(Outer, data, "recipes/r.yaml")
    assert caught.value.where == "recipes/r.yaml"
    return caught.value.what.splitlines()


def yaml_error(tmp_path: Path, text: str | bytes) -> RecipeError:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        read_yaml(path)
    assert caught.value.where == str(path)
    return caught.value


def test_all_problems_are_listed_with_their_path() -> None:
    data = {"inner": {"copies": 0, "copeis": 3}, "ways": {"up": [{}, {"level": "high"}]}, "nmae": "x"}
    assert problems(data) == [
        "5 problems in r.yaml:",
        "  name: missing",
        "  inner.copies: Input should be greater than or equal to 1 (got 0)",
        "  inner.copeis: unknown key",
        "  ways.up.1.level: Input should be a valid number (got 'high')",
        "  nmae: unknown key",
    ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"name": 7}, "  name: Input should be a valid string (got 7)"),
        (
            {"name": "r", "inner": {"copies": "8"}},
            "  inner.copies: Input should be a valid integer (got '8')",
        ),
        (
            {"name": "r", "inner": {"copies": True}},
            "  inner.copies: Input should be a valid integer (got True)",
        ),
        (
            {"name": "r", "inner": {"level": float("nan")}},
            "  inner.level: Input should be a finite number (got nan)",
        ),
    ],
)
def test_values_of_another_type_are_refused(data: dict[str, Any], line: str) -> None:
    assert problems(data) == ["1 problem in r.yaml:", line]


@pytest.mark.parametrize("data", [None, [], "text", 3])
def test_a_document_that_is_not_a_mapping(data: Any) -> None:
    assert problems(data)[1].startswith("  (top level): ")


@pytest.mark.parametrize(
    ("model", "name", "rule"),
    [
        (Recipe, "My set", "use 1 to 64 of the characters a-z, 0-9 and _, the first not _"),
        (Study, "a" * 65, "use 1 to 64 of the characters"),
        (SetRequest, "_a", "use 1 to 64 of the characters"),
        (ColumnMap, "", "use the characters a-z, 0-9 and _, the first not _"),
    ],
)
def test_the_characters_of_a_name_are_explained(model: type[BaseModel], name: str, rule: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_model(model, {"name": name}, "r.yaml")
    assert f"  name: {rule}" in caught.value.what and "pattern" not in caught.value.what


def test_a_good_document() -> None:
    model = parse_model(Outer, {"name": "r", "inner": {"copies": 3}}, "r.yaml")
    assert model == Outer(name="r", inner=Inner(copies=3))
    with pytest.raises(ValueError, match="frozen"):
        model.name = "other"  # type: ignore[misc]


def test_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("# ü\na: [1, 2.5]\nb: {c: null}\n", encoding="utf-8")
    assert read_yaml(path) == {"a": [1, 2.5], "b": {"c": None}}


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x:\n  a: 1\n  'a': 3\n", "- {a: 1, a: 2}\n"])
def test_a_duplicate_key_is_an_error(tmp_path: Path, text: str) -> None:
    error = yaml_error(tmp_path, text)
    assert "duplicate key 'a'" in error.what and "line" in error.what


def test_an_alias_is_refused(tmp_path: Path) -> None:
    """A few bytes could expand to any number of values."""
    error = yaml_error(tmp_path, "base: &base {p: 1}\nsame: *base\n")
    assert "aliases are not allowed (*base)" in error.what and "line 2, column 7" in error.what
    yaml_error(tmp_path, "base: &base {p: 1}\nsame: {<<: *base}\n")
    lines = ["a: &a [x, x]", *(f"{new}: &{new} [*{old}, *{old}]" for old, new in pairwise("abcdefghi"))]
    assert len(yaml_error(tmp_path, "\n".join(lines)).what) < 200


def test_a_long_value_is_shortened() -> None:
    (_, line) = problems({"name": ["x" * 10_000] * 10_000})
    assert line.startswith("  name: Input should be a valid string (got ['xxx") and len(line) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: !!python/object/apply:os.system ['true']",
        "a: 2023-13-45",
        "a: 1\n---\nb: 2",
        "a: \x00",
        b"a: \xff\xfe\xfa",
        "[" * 5000,
        "a: {[1]: 2}",
        "a: 0x" + "f" * 20_000,
        "a: " + "59:" * 20_000 + "59",
        "a: " + "59:" * 20_000 + "59.5",
        "a: !!int ''",
        "a: !!bool x",
        "a: !!timestamp x",
    ],
    ids=[
        "unclosed",
        "python object",
        "no such date",
        "two documents",
        "NUL",
        "no UTF-8",
        "deep",
        "list as key",
        "long number in base 16",
        "long number in base 60",
        "long fraction in base 60",
        "empty number",
        "no truth value",
        "no time",
    ],
)
def test_invalid_yaml_is_refused(tmp_path: Path, text: str | bytes) -> None:
    assert "r.yaml is not valid YAML" in yaml_error(tmp_path, text).what


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read none\.yaml: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="Is a directory"):
        read_yaml(tmp_path)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    assert "the limit is 1048576" in yaml_error(tmp_path, "name: " + "x" * (1 << 20)).what


@pytest.mark.parametrize("text", ["[" * 500_000, "{a: " * 100_000, "- " * 200_000, "? " * 100_000])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not valid YAML" in yaml_error(tmp_path, text).what
