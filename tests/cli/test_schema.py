"""`affectdata schema`: the printed schemas hold for real files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from jsonschema import Draft202012Validator

from affectdata.check.blocks import read_document
from affectdata.cli._commands import COMMANDS
from affectdata.cli._documents import DOCUMENTS
from affectdata.errors import InputError, IntegrityError
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import load_manifest
from affectdata.recipe.recipe import packaged_recipes
from affectdata.schema import SCHEMA_VERSION, manifest_schema
from tests.documents import name_of
from tests.documents import problems as problems_of
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
    with pytest.raises((InputError, IntegrityError), match="train-check"):
        read_document(path)


def test_another_form_is_a_usage_error(cli: Cli) -> None:
    ran = cli("schema", "releas")
    assert ran.code == 2 and "did you mean 'release'?" in ran.err


def test_every_document_has_a_schema_that_is_listed(cli: Cli) -> None:
    listed = cli("schema").out.split()
    assert set(listed) == {*DOCUMENTS, "manifest", "recipe"}
    for name in DOCUMENTS:
        Draft202012Validator.check_schema(cli("schema", name).document)
        stated = DOCUMENTS[name].model_fields["form"].annotation
        assert stated is str or get_args(stated)[0].split("/")[1] == name


STUDY = """
name: small
best: ccc
settings: {mode: frozen, backbone: small_cnn, weights: none}
grid: {head: [svr, ridge]}
"""
MODEL = "model.safetensors"
NETWORK = ("--backbone", "small_cnn", "--weights", "none")
JOB = [  # every command, in an order in which it has what it needs, with the document that it prints
    ("sources", "sources"),
    ("source", "sources", "gaped"),
    ("citation", "sources", "gaped", "--cite"),
    ("sample", "sample", "gaped", "gaped"),
    ("sample", "sample", "oasis", "oasis"),
    ("ingest", "ingest", "gaped"),
    ("ingest", "ingest", "oasis"),
    ("init", "init", "."),
    ("query", "query", "SELECT subtype, avg(valence) FROM gaped GROUP BY 1"),
    ("concat", "concat", "manifests/gaped.parquet", "manifests/oasis.parquet", "--name", "both"),
    ("groups", "groups", "manifests/oasis.parquet", *NETWORK),
    ("split", "split", "manifests/both.parquet", "--recipe", "valence_bins_oasis"),
    ("split", "split", "manifests/both.parquet", "--forget"),
    ("select", "select", "manifests/gaped.parquet", "--recipe", "set.yaml"),
    ("lint", "balance", "--recipe", "valence_bins", "--lint"),
    ("plan", "balance", "--recipe", "valence_bins", "--dry-run"),
    ("balance", "balance", "--recipe", "valence_bins", "--link", "releases/first"),
    ("balance", "balance", "--recipe", "gaped", "--link", "releases/second"),
    ("verify", "verify", "releases/first", "--rebuild", "1"),
    ("doctor", "doctor", "."),
    ("diff", "diff", "releases/first", "releases/second"),
    ("rules", "train-check", "--rules"),
    ("train-check", "train-check", "releases/first", *NETWORK, "--keep-model", MODEL),
    ("study", "study", "study.yaml", "releases/first"),
    ("predict", "predict", MODEL, "gaped/A/A001.bmp"),
    ("suggest", "suggest", "oasis/images", "--recipe", "valence_bins", "--model", MODEL),
    ("report", "report", "manifests/gaped.parquet"),
    ("export", "export", "releases/first", "--to", "croissant"),
]


@pytest.mark.slow
def test_every_command_prints_what_its_schema_says(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "select.md").read_text(encoding="utf-8")
    Path("set.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.S)[0], encoding="utf-8")
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    for name, *arguments in JOB:
        ran = cli(*arguments, "--json", "--quiet")
        assert ran.out, f"{arguments}: {ran.err}"
        assert name_of(ran.document) == name
    image = load_manifest("manifests/gaped.parquet").table["image_id"][0].as_py()
    assert name_of(cli("verify", "releases/first", "--why", image, "--json").document) == "why"
    (first,) = (path for path in Path("gaped/A").iterdir() if path.name == "A001.bmp")
    assert name_of(cli("compare", first, first, "--json").document) == "compare"
    for path in ("releases/first/release.json", "checks/first/train-check.json"):
        document = json.loads(Path(path).resolve().read_text(encoding="utf-8"))
        assert name_of(document) in DOCUMENTS and problems_of(document) == []
    others = {"why", "compare", "release", "download", "publish"}  # test_download.py, test_objects.py
    assert {name for name, *_ in JOB} | others == set(DOCUMENTS)
    assert {command for _, command, *_ in JOB} | {"compare", "download", "publish", "schema"} == set(COMMANDS)
