"""plan.groups: a table of groups in a recipe keeps its images in one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectdata.config import read_yaml
from affectdata.errors import RecipeError
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import parse_recipe, read_recipe
from affectdata.store.atomic import write_json
from tests.made import image_id, make_manifest, make_rows, recipe_document

ROWS: list[dict[str, Any]] = [
    {"key": str(n), "valence": float(n % 100), "theme": f"t{n // 4}"} for n in range(80)
]


def _write(folder: Path, groups: Any, lines: list[str]) -> Path:
    (folder / "same.csv").write_text("\n".join(["image_id,group,path", *lines, ""]), encoding="utf-8")
    path = folder / "recipe.yaml"
    write_json(path, recipe_document(strata=[], split={"val": 0.3, "test": 0.3, "groups": groups}))
    return path


def _split_of(path: Path) -> dict[str, str]:
    rows, _ = plan_release([make_manifest(make_rows(ROWS))], [], read_recipe(path))
    return dict(zip(rows["image_id"].to_pylist(), rows["split"].to_pylist(), strict=True))


PAIRS = [(n, n + 41) for n in range(0, 36, 3)]
LINES = [f"{image_id(str(n))},group {a},{n}.png" for a, b in PAIRS for n in (a, b)]


@pytest.mark.parametrize("groups", ["same.csv", ["same.csv"], ["theme", "same.csv"]])
def test_images_of_a_group_stay_in_one_split(tmp_path: Path, groups: Any) -> None:
    split = _split_of(_write(tmp_path, groups, LINES))
    assert all(split[image_id(str(a))] == split[image_id(str(b))] for a, b in PAIRS)
    assert len(set(split.values())) == 3
    if "theme" in groups:
        themes = {row["key"]: row["theme"] for row in ROWS}
        of_theme: dict[str, set[str]] = {}
        for key, theme in themes.items():
            of_theme.setdefault(theme, set()).add(split[image_id(key)])
        assert all(len(splits) == 1 for splits in of_theme.values())
    apart = _split_of(_write(tmp_path, [], []))
    assert any(apart[image_id(str(a))] != apart[image_id(str(b))] for a, b in PAIRS)


def test_a_resolved_recipe_has_the_hash_and_needs_no_file(tmp_path: Path) -> None:
    recipe = read_recipe(_write(tmp_path, "same.csv", LINES))
    document = recipe.document()
    (entry,) = document["split"]["groups"]
    assert entry["file"] == "same.csv" and len(entry["sha256"]) == 64
    (tmp_path / "same.csv").unlink()
    assert parse_recipe(document).document() == document


def test_without_a_table_the_document_is_as_before(tmp_path: Path) -> None:
    assert read_recipe(_write(tmp_path, ["theme"], [])).document()["split"]["groups"] == ["theme"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0" * 64 + ",g,x.png"], "no image of same.csv is in the manifest"),
        ([f"{image_id('0')},,x.png"], "without image_id or group"),
        ([f"{image_id('0')},a,x.png", f"{image_id('0')},b,x.png"], "in two groups"),
    ],
)
def test_a_table_that_does_not_fit_is_an_error(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _split_of(_write(tmp_path, "same.csv", lines))


def test_other_columns_or_no_file_are_errors(tmp_path: Path) -> None:
    path = _write(tmp_path, "same.csv", [])
    (tmp_path / "same.csv").write_text("image,group\na,b\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="needs the columns image_id and group"):
        _split_of(path)
    (tmp_path / "same.csv").unlink()
    with pytest.raises(RecipeError, match=r"split\.groups.*cannot read the table .*same\.csv"):
        read_recipe(path)
    assert read_yaml(path)["split"]["groups"] == "same.csv"
