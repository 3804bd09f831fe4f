"""The README and the examples run as they are written, on a generated tree."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from affectdata.cli._main import run
from affectdata.column_map.columns import MAPPED, ColumnMap
from affectdata.manifest.manifest import load_manifest
from affectdata.registry import find_plugins
from affectdata.release.release import open_release

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the main job of the README was run, command by command."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["sample", "gaped", "gaped"]) == 0
        (block,) = blocks("bash")
        for line in block.splitlines():
            program, command, *rest = shlex.split(line)
            assert program == "affectdata"
            code = run([command, *rest])
            assert code in ((0, 1) if command == "train-check" else (0,)), line
        yield folder


@pytest.mark.slow
def test_the_main_job_runs_as_written(workplace: Path) -> None:
    (release,) = (workplace / "releases").glob("valence_bins-*")
    assert (workplace / "checks" / release.name / "train-check.json").is_file()
    assert len(load_manifest(workplace / "manifests" / "gaped.parquet")) == 243
    assert open_release(release).info["rows"]["train"] > 171


@pytest.mark.slow
def test_the_notebook_runs_from_ingest_to_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs, and what it ends with can be shown as HTML or text."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((REPOSITORY / "examples" / "05_notebook.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), "notebook", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "notebook", "eval"), names)
                shown.append(value._repr_html_() if hasattr(value, "_repr_html_") else repr(value))
            else:
                exec(compile(ast.Module([last], []), "notebook", "exec"), names)
    assert sum("<table" in each for each in shown) >= 3
    assert "On 37 images" in shown[4] or "inconclusive" in shown[4]
    assert (tmp_path / "checks" / names["release"].name / "report.html").is_file()


@pytest.mark.slow
def test_the_python_block_runs_as_written(workplace: Path) -> None:
    (release,) = (workplace / "releases").glob("valence_bins-*")
    block = next(block for block in blocks("python") if "load_manifest" in block)
    block = re.sub(r"releases/[\w-]+", str(release), block)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", sorted((REPOSITORY / "examples").glob("[0-9]*.py")), ids=lambda path: path.stem
)
def test_every_example_runs(
    workplace: Path, script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (release,) = (workplace / "releases").glob("valence_bins-*")
    wants_manifest = f"{script.name} manifests/gaped.parquet" in script.read_text(encoding="utf-8")
    argument = workplace / "manifests" / "gaped.parquet" if wants_manifest else release
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", [str(script), str(argument)])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out


def test_the_readme_names_every_command() -> None:
    missing = [name for name in find_plugins("cli") if f"affectdata {name.replace('_', '-')}" not in README]
    assert not missing


def test_the_files_that_the_readme_links_to_are_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_the_column_map_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["sample", "image_folder", str(tmp_path / "pictures")]) == 0
    images = sorted((tmp_path / "pictures").rglob("*.jpg"))[:3]
    root = tmp_path / "my_pictures"
    root.mkdir()
    rows = ["file,val_mean,val_sd,aro_mean,category"]
    for number, image in enumerate(images):
        (root / f"p{number}.jpg").write_bytes(image.read_bytes())
        rows.append(f"p{number}.jpg,{number + 2},1.5,4,beach")
    (root / "ratings.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "columns.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["ingest", "my_pictures/", "--source", "table", "--map", "columns.yaml"]) == 0
    table = load_manifest("manifests/my_pictures.parquet").table
    assert sorted(table["valence"].to_pylist()) == [12.5, 25.0, 37.5]
    assert table["subtype"].to_pylist() == ["beach"] * 3


def test_the_page_on_column_maps_has_every_key() -> None:
    page = (REPOSITORY / "docs" / "column_map.md").read_text(encoding="utf-8")
    missing = [key for key in ColumnMap.model_fields if not re.search(rf"`{key}[`:]", page)]
    assert missing == []
    known = [name for name in MAPPED if not re.search(rf"\b{name}\b", page)]
    assert known == [f"{name}_{part}" for name in ("arousal", "dominance") for part in ("sd", "n")]


def test_the_column_map_of_a_survey_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["sample", "image_folder", str(tmp_path / "pictures")]) == 0
    root = tmp_path / "survey"
    root.mkdir()
    (root / "a.jpg").write_bytes(next((tmp_path / "pictures").rglob("*.jpg")).read_bytes())
    page = (REPOSITORY / "docs" / "column_map.md").read_text(encoding="utf-8")
    (root / "columns.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.S)[0], encoding="utf-8")
    answers = "file,user,valence,word\na,u1,3,joy\na,u2,7,joy\na,u3,5,awe"
    (root / "answers.csv").write_text(answers, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["ingest", "survey"]) == 0
    (row,) = load_manifest("manifests/my_survey.parquet").table.to_pylist()
    assert (row["valence"], row["valence_sd"], row["valence_n"], row["emotion"]) == (50, 25, 3, "joy")
