"""What a user's type checker sees of the public API."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

import affectdata

SCRIPT = Path(__file__).parent / "typed_api.py"
RESULTS = {
    "check.blocks": ["CheckDocument"],
    "manifest.concat": ["ConcatResult", "Conflict"],
    "manifest.download": ["DownloadResult"],
    "manifest.ingest": ["IngestResult"],
    "manifest.manifest": ["Manifest"],
    "plan.plan": ["Plan", "SplitSummary"],
    "records": ["Finding", "SourceInfo"],
    "release.diff": ["ReleaseDiff"],
    "release.info": ["ReleaseInfo"],
    "release.release": ["Release"],
    "results": ["BalancePlan", "BalanceResult", "CheckResult", "SplitResult", "StudyResult", "VerifyResult"],
}
UNTYPED = {
    # Plain data, as in a file or as --json prints it.
    *("document", "info", "metadata", "recipe_document", "plan.summary", "to_dict"),
    # Arrow tables, whose package has no types.
    *("held_out", "parts", "predictions", "rejects", "rejects_without_junk", "rows", "split", "sql", "table"),
    # Items and transforms of a torch Dataset.
    "dataset",
}


def mypy(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPT.parents[1]).stdout


@pytest.mark.slow
def test_a_script_over_the_whole_api_has_no_any() -> None:
    out = mypy("--disallow-any-expr", SCRIPT)
    assert [line for line in out.splitlines() if SCRIPT.name in line] == [], out


def test_that_script_uses_every_public_name() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(affectdata.__all__) - {"AffectdataError", "Manifest", "Release"} <= used


def attributes(kind: type) -> list[str]:
    """Return the public attributes of a class: fields and methods, without what pydantic adds."""
    names = {name for base in kind.__mro__ if base.__module__.startswith("affectdata") for name in vars(base)}
    if is_dataclass(kind):
        names |= {field.name for field in fields(kind)}
    names |= getattr(kind, "model_fields", {}).keys()
    return sorted(name for name in names if not name.startswith(("_", "model_")))


@pytest.mark.slow
def test_no_attribute_of_a_result_is_any(tmp_path: Path) -> None:
    lines, code = list[str](), list[str]()
    for module, names in RESULTS.items():
        for name in names:
            kind = getattr(import_module(f"affectdata.{module}"), name)
            lines.append(f"from affectdata.{module} import {name}")
            code += [f"def of_{name}({name.lower()}: {name}) -> None:"]
            code += [f"    reveal_type({name.lower()}.{attribute})" for attribute in attributes(kind)]
    script = tmp_path / "attributes.py"
    script.write_text("\n".join([*lines, *code]))
    revealed = re.findall(r"attributes\.py:(\d+): note: Revealed type is \"(.*)\"", mypy(script))
    source = script.read_text().splitlines()
    assert len(revealed) == sum("reveal_type" in line for line in source)
    accessed = [source[int(number) - 1].strip() for number, found in revealed if "Any" in found]
    names = {line.removeprefix("reveal_type(").removesuffix(")") for line in accessed}
    assert {name for name in names if name.split(".")[1] not in UNTYPED and name not in UNTYPED} == set()
