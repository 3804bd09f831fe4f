"""Plugins are found by file name, imported when asked for, and may come from another package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from affectdata import registry
from affectdata.errors import SourceError, UsageError
from affectdata.registry import find_data, find_plugins, load_plugin


def test_every_module_without_an_underscore_and_every_map_is_a_plugin() -> None:
    folder = Path(registry.__file__).parent / "sources"
    files = {path.stem for path in folder.glob("*.py") if not path.name.startswith("_")}
    maps = {path.stem for path in (folder / "maps").glob("*.yaml")}
    assert find_plugins("sources") == sorted(files | maps) and not files & maps
    assert "gaped" in files


def test_finding_imports_nothing() -> None:
    code = (
        "import sys\nfrom affectdata.registry import find_plugins\n"
        "found = find_plugins('sources') + find_plugins('cli')\n"
        "loaded = [m for m in sys.modules if m.startswith(('affectdata.sources', 'affectdata.cli'))]\n"
        "assert 'gaped' in found and not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_gives_the_module() -> None:
    assert load_plugin("sources", "gaped").__name__ == "affectdata.sources.gaped"


def test_an_unknown_name_suggests_the_closest_and_lists_all() -> None:
    with pytest.raises(UsageError, match="no source is called 'gapde'") as caught:
        load_plugin("sources", "gapde")
    assert "did you mean 'gaped'?" in caught.value.fix and "gaped" in caught.value.fix.split("known:")[1]
    with pytest.raises(UsageError) as caught:
        load_plugin("sources", "zzzzzz")
    assert "did you mean" not in caught.value.fix


@pytest.mark.parametrize("name", ["_sample", "_protocol", "../errors", "", "gaped.INFO"])
def test_private_modules_and_odd_names_are_no_plugins(name: str) -> None:
    with pytest.raises(UsageError, match="no source is called"):
        load_plugin("sources", name)


def test_a_socket_without_a_folder_is_empty() -> None:
    assert find_plugins("no_such_socket") == []


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A package beside ours with entry points; the mapping is the name and value of each."""
    (tmp_path / "elsewhere.py").write_text(
        "from types import SimpleNamespace\nINFO = SimpleNamespace(name='mine')\n"
        "def detect(tree): ...\nread = write_sample = detect\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points: dict[str, str] = {"mine": "elsewhere", "gaped": "elsewhere", "attribute": "elsewhere:INFO"}

    def entry_points(group: str) -> list[EntryPoint]:
        there = points if group == "affectdata.sources" else {}
        return [EntryPoint(name, value, group) for name, value in there.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._outside.cache_clear()
    yield points
    registry._outside.cache_clear()


def test_an_entry_point_is_a_plugin(outside: dict[str, str]) -> None:
    assert "mine" in find_plugins("sources") and "mine" not in find_plugins("cli")
    assert load_plugin("sources", "mine").__name__ == "elsewhere"


def test_a_built_in_plugin_wins(outside: dict[str, str]) -> None:
    assert find_plugins("sources").count("gaped") == 1
    assert load_plugin("sources", "gaped").__name__ == "affectdata.sources.gaped"


def test_an_entry_point_that_is_no_module_is_refused(outside: dict[str, str]) -> None:
    with pytest.raises(SourceError, match="'attribute' is not a module") as caught:
        load_plugin("sources", "attribute")
    assert "elsewhere:INFO" in caught.value.where


def test_data_lie_in_the_checkout_or_in_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (find_data("manifests/index") / "gaped.csv").is_file()
    assert (find_data("examples") / "studies" / "gaped_networks.yaml").is_file()
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path / "affectdata")
    assert find_data("manifests/index") == tmp_path / "manifests" / "index"
    (tmp_path / "affectdata" / "_data" / "index").mkdir(parents=True)
    assert find_data("manifests/index") == tmp_path / "affectdata" / "_data" / "index"


def test_a_source_that_cannot_be_imported_is_an_error_that_names_it(
    outside: dict[str, str], tmp_path: Path, cli: Any
) -> None:
    (tmp_path / "broken.py").write_text("INFO = undefined\n")
    outside["broken"] = "broken"
    ran = cli("sources", "broken")
    assert ran.code == 3 and "the source broken cannot be imported: NameError" in ran.err
    assert "where: broken" in ran.err and "Traceback" not in ran.err


def test_a_sample_that_cannot_be_written_is_an_error_that_names_the_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Any
) -> None:
    def write_sample(root: Path, rng: object) -> None:
        raise KeyError("valence")

    monkeypatch.setattr("affectdata.sources.gaped.write_sample", write_sample)
    ran = cli("sample", "gaped", tmp_path / "gaped")
    assert (
        ran.code == 3 and "the source gaped raised KeyError: 'valence'" in ran.err and "gaped.py" in ran.err
    )
