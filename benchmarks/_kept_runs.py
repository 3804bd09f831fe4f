"""Kept runs of check_power.py and check_faults.py: a file per part, with a line of JSON per task.

The name of a file ends with a hash of the code that measures: runs of other code are left where they are and
not used. If a change does not affect the figures, rename the file to the name that is printed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

_DIGITS = 8


class KeptRuns:
    """The results of tasks by name; `add` appends one, which is on the disk when it returns."""

    def __init__(self, folder: Path, part: str, modules: list[ModuleType]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{part}-{code_hash(modules)}.jsonl"
        if not self.path.exists():
            for other in sorted(folder.glob(f"{part}-{'?' * _DIGITS}.jsonl")):
                print(f"{other.name} is of other code, and not used; this code keeps {self.path.name}")
        self.results = dict(map(json.loads, _whole_lines(self.path)))

    def add(self, task: str, result: Any) -> None:
        """Keep the result of a task."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps([task, result])}\n")
        self.results[task] = result


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of a file; half a line at its end, of a run that was killed, is cut off."""
    content = path.read_bytes() if path.exists() else b""
    whole, _, half = content.rpartition(b"\n")
    if half:
        with path.open("r+b") as file:
            file.truncate(len(content) - len(half))
    return whole.decode().splitlines()


def code_hash(modules: list[ModuleType]) -> str:
    """Return a hash of what modules do: neither comments nor docstrings change it."""
    digest = hashlib.sha256()
    for module in modules:
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:_DIGITS]
