"""benchmarks/_kept_runs: what was run is not run again, unless the code that measures has changed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kept_runs = _load(BENCHMARKS / "_kept_runs.py")


def _measure(folder: Path, text: str) -> ModuleType:
    path = folder / f"measure{len(list(folder.iterdir()))}.py"
    path.write_text(text)
    module: ModuleType = _load(path)
    return module


def test_half_a_line_of_a_killed_run_is_run_again(tmp_path: Path) -> None:
    runs = kept_runs.KeptRuns(tmp_path, "part", [])
    runs.add("first", [["clean", {"r2": 0.5}]])
    with runs.path.open("a") as file:
        file.write('["second", [["clean", {"r2"')
    again = kept_runs.KeptRuns(tmp_path, "part", [])
    assert list(again.results) == ["first"]
    again.add("second", [])
    assert [json.loads(line)[0] for line in again.path.read_text().splitlines()] == ["first", "second"]


def test_runs_of_other_code_are_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, kept = tmp_path / "code", tmp_path / "kept"
    code.mkdir()
    first = _measure(code, "def figure(x):\n    return 2 * x\n")
    kept_runs.KeptRuns(kept, "part", [first]).add("task", 1)
    same = _measure(code, 'def figure(x):\n    """Return twice x."""\n    return 2 * x  # doubled\n')
    assert kept_runs.KeptRuns(kept, "part", [same]).results == {"task": 1}
    other = _measure(code, "def figure(x):\n    return 3 * x\n")
    runs = kept_runs.KeptRuns(kept, "part", [other])
    assert runs.results == {} and "is of other code" in capsys.readouterr().out
