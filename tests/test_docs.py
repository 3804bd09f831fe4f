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

from affectdata.cli._commands import COMMANDS
from affectdata.cli._main import run
from affectdata.cli._output import Settings
from affectdata.column_map.columns import MAPPED, ColumnMap
from affectdata.manifest.manifest import load_manifest
from affectdata.registry import find_plugins, load_plugin
from affectdata.release.release import open_release
from affectdata.selection.request import SetRequest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def small_checks() -> Iterator[None]:
    """Two folds, one setting for each head and few resamples: what is tested here is that the text runs."""
    from affectdata.check import final, label_model, prepare, scores
    from affectdata.train import heads

    with pytest.MonkeyPatch.context() as patch:
        for name, grid in heads.GRIDS.items():
            patch.setitem(heads.GRIDS, name, {axis: values[1:2] for axis, values in grid.items()})
        for module in (final, label_model, prepare, heads):
            patch.setattr(module, "N_FOLDS", 2)
        patch.setattr(scores, "N_RESAMPLES", 100)
        yield


_small = pytest.mark.usefixtures("small_checks")
_in_workplace = pytest.mark.xdist_group("readme")  # so that it is made once


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the main job of the README was run, command by command; all of it passes."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["sample", "gaped", "gaped"]) == 0
        (block,) = blocks("bash")
        for line in block.splitlines():
            program, command, *rest = shlex.split(line)
            assert program == "affectdata"
            assert run([command, *rest]) == 0, line
        yield folder


@pytest.mark.slow
@_in_workplace
def test_the_main_job_runs_as_written(workplace: Path) -> None:
    (release,) = (workplace / "releases").glob("valence_bins-*")
    assert (workplace / "checks" / release.name / "train-check.json").is_file()
    assert len(load_manifest(workplace / "manifests" / "gaped.parquet")) == 243
    assert open_release(release).info["rows"]["train"] > 171


@pytest.mark.slow
@_small
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
@_in_workplace
def test_the_python_block_runs_as_written(workplace: Path) -> None:
    (release,) = (workplace / "releases").glob("valence_bins-*")
    block = next(block for block in blocks("python") if "load_manifest" in block)
    block = re.sub(r"releases/[\w-]+", str(release), block)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.slow
@_in_workplace
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


def blocks_of(name: str) -> list[tuple[str, str]]:
    """The blocks of a page with their languages, in order."""
    page = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def run_lines(block: str, *more: str) -> None:
    """Run commands; a check may fail, and gets `more` options."""
    for line in block.splitlines():
        program, command, *rest = shlex.split(line.partition(" #")[0])
        assert program == "affectdata"
        if command == "train-check":
            assert run([command, *rest, *more]) in (0, 1), line
        elif command == "export":
            assert run([command, *rest, "--i-may-redistribute"]) == 0, line
        else:
            assert run([command, *rest]) == 0, line


@pytest.mark.slow
@_small
def test_the_tutorial_runs_from_a_folder_to_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, block in blocks_of("tutorial.md"):
        if language == "python":
            exec(compile(block, "tutorial.md", "exec"), {})
        elif language == "yaml":
            Path("columns.yaml").write_text(block, encoding="utf-8")
        else:
            run_lines(block)
    assert "240 kept, 0 merged" in capsys.readouterr().out
    document = json.loads(Path("checks/current/train-check.json").read_text(encoding="utf-8"))
    assert document["verdict"]["outcome"] in ("passed", "failed")
    assert Path("checks/current/report.html").is_file() and Path("for_hugging_face/README.md").is_file()


PROJECTS = ["gaped", "capd", "fi", "utkface", "wikiart_emotions"]


@pytest.mark.slow
@_small
@pytest.mark.parametrize("at", range(5), ids=PROJECTS)
def test_the_projects_run_on_generated_samples(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = PROJECTS[at]
    assert run(["sample", name, name]) == 0
    if name == "capd":  # its sample has the images beside the table
        monkeypatch.chdir(tmp_path / name)
    (language, block) = blocks_of("projects.md")[at]
    assert language == "bash" and block.startswith("affectdata ingest ")
    run_lines(block, "--backbone", "small_cnn", "--weights", "none", "--no-report")
    assert Path("releases/current/release.json").is_file()


@pytest.mark.slow
@_in_workplace
@pytest.mark.filterwarnings("ignore")  # those of the packages that are shown
def test_releases_are_read_as_the_page_on_other_programs_says(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands, then the snippets of libraries that are installed with the tests."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(workplace / ".home"))
    monkeypatch.chdir(workplace)
    (release,) = (workplace / "releases").glob("valence_bins-*")
    Path("releases/current").symlink_to(release.name)
    page = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    run_lines("\n".join(re.findall(r"^    (affectdata export releases/.*)$", page, re.MULTILINE)))
    snippets = [block for language, block in blocks_of("export.md") if language == "python"]
    run_by_others = [block for block in snippets if re.search("import (keras|lightning|fiftyone)", block)]
    assert len(run_by_others) == 3
    for block in snippets:
        if block not in run_by_others:
            exec(compile(block, "export.md", "exec"), {})


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_the_generated_pages_have_every_command_and_every_key_of_a_recipe() -> None:
    reference = runpy.run_path(str(REPOSITORY / "docs" / "reference.py"))
    for name in reference["PAGES"]:
        page = REPOSITORY / "docs" / name
        assert page.read_text(encoding="utf-8") == reference["render"](name), "run python docs/reference.py"
    assert set(COMMANDS) == {name.replace("_", "-") for name in find_plugins("cli")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_links_to_are_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    assert [
        page.name for page in PAGES if page.parent.name == "docs" and f"docs/{page.name}" not in README
    ] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "plugins.md"], ids=lambda page: page.name
)
def test_the_commands_of_a_page_have_options_that_they_take(page: Path) -> None:
    text = page.read_text(encoding="utf-8").split("<!-- generated")[0]
    found = re.findall(
        r'^ *shell: "(affectdata .*)"$|^ *(?:- run: |cmd: )?(affectdata .*)', text, re.MULTILINE
    )
    for quoted, plain in found:
        line = re.sub(r"\[[^]]*\]| >> .*| #.*", "", quoted or plain)
        for part in line.split("&&"):
            program, name, *arguments = shlex.split(part)
            if program == "affectdata" and name in COMMANDS:
                command = load_plugin("cli", name.replace("-", "_")).command
                command.make_context(name, arguments, obj=Settings())


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


@pytest.mark.slow
def test_the_stimulus_set_of_the_page_is_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (REPOSITORY / "docs" / "select.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    Path("set.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.S)[0], encoding="utf-8")
    assert run(["sample", "gaped", "gaped"]) == 0
    assert run(["ingest", "gaped"]) == 0
    for line in re.findall(r"```bash\n(.*?)```", page, re.S)[0].splitlines():
        assert run(shlex.split(line)[1:]) == 0
    (file,) = Path("selections").glob("negative_positive-*/list.csv")
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1 + 8 * 2 * 2


def test_the_page_on_stimulus_sets_has_every_key() -> None:
    page = (REPOSITORY / "docs" / "select.md").read_text(encoding="utf-8")
    assert [key for key in SetRequest.model_fields if f"`{key}`" not in page] == []
