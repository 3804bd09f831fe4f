"""`affectdata schema`: the printed schemas hold for real files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from affectdata.check.blocks import read_document
from affectdata.errors import InputError
from affectdata.manifest.ingest import ingest
from affectdata.recipe.recipe import packaged_recipes
from affectdata.schema import SCHEMA_VERSION, manifest_schema
from tests.golden.test_formats import earlier  # noqa: F401

Cli = Callable[..., Any]


def problems(schema: dict[str, Any], document: Any) -> list[str]:
    Draft202012Validator.check_schema(schema)
    return [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(document)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(packaged_recipes().glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_as_their_schema_says(path: Path, cli: Cli) -> None:
    schema, recipe = cli("schema", "recipe").document, yaml.safe_load(path.read_text(encoding="utf-8"))
    assert problems(schema, recipe) == []
    assert problems(schema, {**recipe, "tagret": "valence"}) and problems(schema, {**recipe, "seed": "1"})


def keys(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of every block, with what the schema says of it."""
    for name, block in [("", schema), *schema["$defs"].items()]:
        yield from ((f"{name}.{key}", found) for key, found in block.get("properties", {}).items())


def test_every_key_of_a_recipe_is_described(cli: Cli) -> None:
    schema = cli("schema", "recipe").document
    assert [name for name, key in keys(schema) if not key.get("description")] == []


def test_the_columns_of_a_manifest_are_described(cli: Cli, small_gaped: Path, tmp_path: Path) -> None:
    found = cli("schema", "manifest").document
    assert found["schema_version"] == SCHEMA_VERSION
    columns = {column["name"]: column for column in found["columns"]}
    table = ingest(small_gaped, out=tmp_path, workers=1).manifest.table
    for field in table.schema:
        column = columns[field.name]
        assert column["type"] == str(field.type) and column["required"] == (not field.nullable)
        assert column["description"]
    assert set(manifest_schema(["NAME"], folds=True).names) == set(columns)
    assert columns["valence"]["unit"] == columns["valence_sd"]["unit"] == "POMP, 0–100"
    assert {name for name, column in columns.items() if column["unit"] == "px"} == {"width_px", "height_px"}


def test_a_check_of_a_former_form_is_read(earlier: Path) -> None:  # noqa: F811
    (path,) = earlier.glob("checks/*/train-check.json")
    document = read_document(path)
    assert document.form == "affectdata/train-check/2" and document.verdict.outcome == "failed"
    assert 0.9 < (document.arms["release"].heads["regressor"].crossfit or {})["r2"].mean < 1
    again = document.to_dict()
    del again["verdict"]["outcome"], again["settings"]["check"]["min_r2_low"]  # which the former form lacks
    former = json.loads(path.read_text(encoding="utf-8"))
    for name in ("n_images", "n_images_of"):
        former["settings"][name] = former["settings"].pop(name.replace("images", "pictures"))
    assert again == former


@pytest.mark.parametrize(
    "text", ['{"schema": "affectdata/train-check/9"}', "[]", '{"schema": "affectdata/train-check/3"}']
)
def test_what_is_no_check_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "train-check.json"
    path.write_text(text)
    with pytest.raises(InputError, match="train-check"):
        read_document(path)


def test_another_form_is_a_usage_error(cli: Cli) -> None:
    ran = cli("schema", "release")
    assert ran.code == 2 and "train-check" in ran.err
