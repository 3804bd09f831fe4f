"""Whole checks of GAPED with planted faults: the table at the end of docs/check.md.

    python benchmarks/check_faults.py [FAULT ...]        # or, with the power of the rules: make check-power

Each fault is planted in a copy of the tree at AFFECTDATA_GAPED_ROOT (links, so the same disk), which then
passes through `ingest`, `balance` and `train-check`, the commands, in a folder of its own. Features are kept
in AFFECTDATA_POWER_FOLDER, as are the results: what was run is not run again. The recipe makes no copies and
heads have the settings in the middle of their grids and one assignment to folds: no rule about either is
tried here. In the last faults the labels of copies are changed in the release, and all hashes renewed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
from _faults import FAULTS, copy_tree
from _kept_runs import KeptRuns
from _power import RECIPE
from check_power import note

from affectdata import check
from affectdata.check import prepare
from affectdata.check.prepare import CACHE
from affectdata.cli._main import run
from affectdata.config import read_yaml
from affectdata.store.atomic import write_json
from affectdata.train import heads, subtype_aware

sys.path.append(str(Path(__file__).parents[1]))
from tests.made import forge


def _forged(fault: str) -> Callable[[list[dict[str, Any]]], None]:
    """Return the change of a release's rows: in the labels of test, or of copies."""

    def change(rows: list[dict[str, Any]]) -> None:
        if "test" in fault:
            rng = np.random.default_rng(0)
            for row in rows:
                if row["split"] == "test":
                    noisy = round(float(np.clip(row["valence"] + rng.normal(0, 20), 0, 100)), 6)
                    row["valence"] = row["valence_raw"] = noisy
            return
        copies = [row for row in rows if row["copy"] > 0]
        values = [row["valence"] for row in copies]
        for row, value in zip(copies, values[::-1], strict=True):
            row["valence"] = row["valence_raw"] = value if "exchanged" in fault else row["valence"] + 5

    return change


def run_whole(fault: str, source: Path, kept: Path) -> dict[str, Any]:
    """Plant a fault, run the three commands, and return the exit code and what did not pass."""
    forges = "renewed" in fault
    document = {**read_yaml(RECIPE), "name": "planted", "mode": "files" if forges else "virtual"}
    if not forges:
        document["balance"] = {**document["balance"], "max_copies": 1}
    with tempfile.TemporaryDirectory(dir=kept) as temporary:
        folder = Path(temporary)
        copy_tree(source, folder / "gaped")
        FAULTS[fault](folder / "gaped")
        recipe, manifests, checks = folder / "recipe.yaml", folder / "manifests", folder / "checks"
        write_json(recipe, document)  # JSON is YAML
        checks.mkdir()
        (kept / CACHE).mkdir(exist_ok=True)
        (checks / CACHE).symlink_to(kept / CACHE)
        commands: list[list[str | Path]] = [
            ["ingest", folder / "gaped", "--out", manifests],
            [
                "balance",
                "--recipe",
                recipe,
                "--manifest",
                manifests / "gaped.parquet",
                "--out",
                folder / "releases",
            ],
        ]
        printed = StringIO()
        for command in commands:
            with redirect_stdout(printed), redirect_stderr(printed):
                code = run([*map(str, command)])
            if code:
                failed = {"fault": fault, "command": str(command[0]), "code": code}
                return {**failed, "rules": [], "printed": _lines(printed)}
        (release,) = (path for path in (folder / "releases").iterdir() if path.is_dir())
        if forges:
            forge(release, _forged(fault))
        places = ["--out", str(checks), "--root", f"gaped={folder / 'gaped'}"]
        code = run(["train-check", str(release), *places, "--no-report", "--workers", "1"])
        found = [*checks.glob("*/train-check.json")]
        gate = json.loads(found[0].read_text())["verdict"]["gate"] if found else []
    rules = [[rule["rule"], rule["outcome"], rule["text"]] for rule in gate if rule["outcome"] != "pass"]
    found_by = {"fault": fault, "command": "train-check", "code": code, "n": len(gate), "rules": rules}
    return {**found_by, "printed": _lines(printed)}


def _lines(printed: StringIO) -> list[str]:
    """Return what ingest and balance printed."""
    return printed.getvalue().splitlines()


def _middle(grid: dict[str, Any], *_: object) -> tuple[dict[str, float], list[str]]:
    return {name: axis[len(axis) // 2] for name, axis in grid.items()}, []


def _line(result: dict[str, Any]) -> str:
    by_outcome: dict[str, list[str]] = {"fail": [], "undecided": [], "notice": []}
    for rule, outcome, _ in result["rules"]:
        by_outcome[outcome].append(f"`{rule}`")
    cells = [", ".join(names) or "–" for names in by_outcome.values()]
    return f"| {result['fault']} | {result['command']}: {result['code']} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faults", nargs="*", help="; ".join(FAULTS).replace("%", "%%"))
    parser.add_argument("--runs", type=int, help="a trial: the first faults only; no document is changed")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the table of what was run")
    options = parser.parse_args()
    root = os.environ.get("AFFECTDATA_GAPED_ROOT")
    if not root:
        sys.exit("give a folder of real images: AFFECTDATA_GAPED_ROOT=PATH")
    kept = Path(os.environ.get("AFFECTDATA_POWER_FOLDER", Path(__file__).parent / ".power")).resolve()
    modules = [import_module(f"affectdata.check.{each.name}") for each in iter_modules(check.__path__)]
    runs = KeptRuns(kept / "runs", "faults", modules)
    heads.choose = subtype_aware.choose = _middle  # type: ignore[assignment]
    prepare.N_ASSIGNMENTS = 1
    os.chdir(kept)  # where no manifest or release lies
    for fault in () if options.tables else (options.faults or [*FAULTS])[: options.runs]:
        if fault not in runs.results:
            runs.add(fault, run_whole(fault, Path(root).resolve(), kept))
    table = [_line(runs.results[fault]) for fault in FAULTS if fault in runs.results]
    header = ["| fault | exit code | fail | undecided | notice |", "|---|---|---|---|---|"]
    note("faults", [*header, *table], is_trial=bool(options.runs))


if __name__ == "__main__":
    main()
