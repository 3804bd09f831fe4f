"""The example of a package with plugins works, and a broken plugin is named where plugins are listed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from affectdata import list_sources, registry
from affectdata.errors import PluginWarning
from affectdata.release.release import open_release
from tests.made import publish

PLUGIN = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, str]]]:
    """The entry points of the example, as if it were installed; more can be added."""
    points: dict[str, dict[str, str]] = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"][
        "entry-points"
    ]
    monkeypatch.syspath_prepend(PLUGIN)

    def entry_points(group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in points.get(group, {}).items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._outside.cache_clear()
    sys.modules.pop("affectdata.cli.export", None)  # it lists the forms when it is imported
    yield points
    registry._outside.cache_clear()
    sys.modules.pop("affectdata.cli.export", None)


def test_the_source_of_the_example_is_recognised_and_loses_nothing(
    installed: dict[str, dict[str, str]], cli: Callable[..., Any], tmp_path: Path
) -> None:
    assert cli("sample", "diary", tmp_path / "mine").code == 0
    ran = cli("ingest", tmp_path / "mine", "--out", tmp_path / "manifests", "--json")
    assert ran.document["recognised_by"] == "the table diary.txt"
    assert ran.document["counts"] == {"kept": 11, "merged": 0, "annotation": 1, "junk": 0, "rejected": 2}


def test_the_export_of_the_example_has_a_line_per_image(
    installed: dict[str, dict[str, str]], small_gaped: Path, tmp_path: Path
) -> None:
    from affectdata.exports._write import export_release

    release = open_release(publish(small_gaped, tmp_path).path)
    export_release(release, "lines", tmp_path / "out")
    for split in set(release.table["split"].to_pylist()):
        lines = [json.loads(line) for line in (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines()]
        assert [line["file"] for line in lines] == release.split(split)["file_name"].to_pylist()


def test_the_plugins_of_the_documentation_work(
    installed: dict[str, dict[str, str]],
    cli: Callable[..., Any],
    small_gaped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from affectdata.exports._write import export_release

    page = (PLUGIN.parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    for group, name, text in zip(
        ("sources", "exports"),
        ("moods", "valences"),
        re.findall(r"```python\n(.*?)```", page, re.S),
        strict=True,
    ):
        (tmp_path / f"{name}.py").write_text(text)
        installed[f"affectdata.{group}"][name] = name
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    registry._outside.cache_clear()
    assert cli("sample", "moods", tmp_path / "mine").code == 0
    (tmp_path / "mine" / "7.png").rename(tmp_path / "mine" / "8.png")
    ran = cli("ingest", tmp_path / "mine", "--out", tmp_path / "manifests", "--json")
    assert ran.document["counts"] == {"kept": 6, "merged": 0, "annotation": 1, "junk": 0, "rejected": 2}
    assert ran.document["reasons"] == {"missing_image": 1, "missing_rating": 1}
    release = open_release(publish(small_gaped, tmp_path).path)
    export_release(release, "valences", tmp_path / "out", may_redistribute=True)
    lines = (tmp_path / "out" / "valence.jsonl").read_text().splitlines()
    assert [json.loads(line)["valence"] for line in lines] == release.table["valence"].to_pylist()
    assert len(list((tmp_path / "out").glob("*.*"))) == len(lines) + 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def export(job:", "the export bad cannot be imported: SyntaxError"),
        (
            "HAS_IMAGES = HAS_CLASSES = False\ndef export(job, folder): return {}['x']",
            "the export bad raised KeyError",
        ),
    ],
)
def test_a_broken_export_is_an_error_that_names_it(
    text: str,
    message: str,
    installed: dict[str, dict[str, str]],
    small_gaped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from affectdata.errors import InputError
    from affectdata.exports._write import export_release

    (tmp_path / "bad_export.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_export", raising=False)
    installed["affectdata.exports"]["bad"] = "bad_export"
    registry._outside.cache_clear()
    with pytest.raises(InputError, match=message) as caught:
        export_release(open_release(publish(small_gaped, tmp_path).path), "bad", tmp_path / "out")
    assert "bad_export" in str(caught.value.where) and not (tmp_path / "out").exists()


_SOURCE = """
from affectdata_example.diary import INFO, read, write_sample
from dataclasses import replace
INFO = replace(INFO, name="bad")
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def detect(tree:", "the source bad cannot be imported: SyntaxError"),
        (_SOURCE, "the source bad lacks detect"),
        (_SOURCE + "def detect(tree): return {}['x']", "the source bad raised KeyError: 'x'"),
        ("from affectdata_example.diary import *", "the source bad has the INFO.name 'diary'"),
    ],
)
def test_a_broken_source_is_skipped_with_a_warning_unless_it_is_asked_for(
    text: str,
    message: str,
    installed: dict[str, dict[str, str]],
    cli: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bad_source.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_source", raising=False)
    installed["affectdata.sources"]["bad"] = "bad_source"
    registry._outside.cache_clear()
    assert cli("sample", "diary", tmp_path / "mine").code == 0
    with pytest.warns(PluginWarning, match="skipped a plugin of bad_source: the source bad") as warned:
        ran = cli("ingest", tmp_path / "mine", "--out", tmp_path / "first", "--json")
        names = {info.name for info in list_sources()}
    assert message in str(warned[0].message) and ran.document["source"] == "diary" and "gaped" in names
    ran = cli("ingest", tmp_path / "mine", "--source", "bad", "--out", tmp_path / "other")
    if "detect" in text.partition("def ")[2] and "KeyError" in message:  # --source does not detect
        assert ran.code == 0
    else:
        assert ran.code == 3 and message in ran.err and "bad_source" in ran.err


@pytest.mark.slow
def test_the_warning_about_a_broken_source_is_one_line(tmp_path: Path, small_gaped: Path) -> None:
    package = tmp_path / "bad-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[affectdata.sources]\nbad = no_such_module\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = "from affectdata.cli._main import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", command, "ingest", small_gaped, "--out", tmp_path / "manifests"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0 and ran.stderr == (
        "warning: skipped a plugin of bad 1.0: the source bad cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'\n"
    )


def test_plugins_are_listed_and_a_broken_one_has_its_error(
    installed: dict[str, dict[str, str]], cli: Callable[..., Any]
) -> None:
    installed["affectdata.sources"]["broken"] = "no_such_module"
    installed["affectdata.exports"]["broken"] = "no_such_module"
    registry._outside.cache_clear()
    sys.modules.pop("affectdata.cli.export", None)
    ran = cli("sources")
    assert ran.code == 0 and "diary: A photo diary" in ran.out and "gaped: " in ran.out
    assert "broken: cannot be used" in ran.out and "No module named 'no_such_module'" in ran.out
    plugins = {each["name"]: each for each in cli("sources", "--json").document["plugins"]}
    assert plugins["diary"]["error"] is None and "no_such_module" in plugins["broken"]["error"]
    forms = cli("export", "--help").out.split("Forms of other packages:")[1]
    assert "lines" in forms and "No module named 'no_such_module'" in " ".join(forms.split())
