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
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _power import RECIPE
from _power_images import COPIES, MARKS
from check_power import note

from affectdata.check import prepare
from affectdata.check.prepare import CACHE
from affectdata.cli._main import run
from affectdata.config import read_yaml
from affectdata.images.decode import decode
from affectdata.store.atomic import write_json
from affectdata.train import heads, subtype_aware

sys.path.append(str(Path(__file__).parents[1]))
from tests.made import forge

SUBTYPES = ("A", "H", "N", "P", "Sn", "Sp")
Table = list[list[str]]  # a line per image: its name, valence, arousal, …
Plant = Callable[[Path], None]


def copy_tree(source: Path, root: Path) -> None:
    """Link the images of GAPED, and copy its tables."""
    for name in SUBTYPES:
        (root / name).mkdir(parents=True)
        for path in (source / name).iterdir():
            os.link(path, root / name / path.name)
        shutil.copyfile(source / f"{name}.txt", root / f"{name}.txt")


def read_table(root: Path, subtype: str) -> tuple[list[str], Table]:
    """Return the lines before the first image, and the cells of the others."""
    lines = (root / f"{subtype}.txt").read_text(encoding="latin-1").splitlines()
    n_head = 0 if re.match(r"\w+\.", lines[0]) else 1
    return lines[:n_head], [line.split("\t") for line in lines[n_head:] if line.strip()]


def write_table(root: Path, subtype: str, head: list[str], rows: Table) -> None:
    text = "\r\n".join([*head, *map("\t".join, rows), ""])
    (root / f"{subtype}.txt").write_text(text, encoding="latin-1", newline="")


def images_of(root: Path, subtype: str) -> list[Path]:
    """Return the images of a subtype that have a rating."""
    rated = {row[0].split(".")[0] for row in read_table(root, subtype)[1]}
    return sorted(path for path in (root / subtype).iterdir() if path.stem in rated)


def read_image(path: Path) -> np.ndarray:
    return decode(path.read_bytes()).rgb


def write_image(path: Path, rgb: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))


def marked(subtype: str, mark: str, share: float = 1.0) -> Plant:
    """Return a fault: every image of a subtype, or a share of them, is changed."""

    def plant(root: Path) -> None:
        paths = images_of(root, subtype)
        for number in np.random.default_rng(0).permutation(len(paths))[: round(share * len(paths))]:
            write_image(paths[number], MARKS[mark](read_image(paths[number])))

    return plant


def move_rows(root: Path) -> None:
    for name in SUBTYPES:
        head, rows = read_table(root, name)
        values = [row[1:] for row in rows]
        write_table(
            root, name, head, [[row[0], *new] for row, new in zip(rows, values[-1:] + values, strict=False)]
        )


def exchange_half(root: Path) -> None:
    tables = {name: read_table(root, name) for name in SUBTYPES}
    rows = [row for _, table in tables.values() for row in table]
    chosen = np.random.default_rng(0).permutation(len(rows))[: len(rows) // 2]
    values = [rows[number][1:] for number in np.random.default_rng(1).permutation(chosen)]
    for number, new in zip(chosen, values, strict=True):
        rows[number][1:] = new
    for name, (head, table) in tables.items():
        write_table(root, name, head, table)


def reverse(*subtypes: str) -> Plant:
    def plant(root: Path) -> None:
        for name in subtypes:
            head, rows = read_table(root, name)
            write_table(root, name, head, [[row[0], f"{100 - float(row[1]):.3f}", *row[2:]] for row in rows])

    return plant


def exchange_subtypes(first: str, second: str, share: float) -> Plant:
    """Return a fault: images of two subtypes change folder, table and name; their ratings stay theirs."""

    def plant(root: Path) -> None:
        tables = [read_table(root, name) for name in (first, second)]
        n = round(share * min(len(rows) for _, rows in tables))
        for left, right in zip(tables[0][1][:n], tables[1][1][:n], strict=True):
            left[1:], right[1:] = right[1:], left[1:]
            paths = [
                next((root / name).glob(f"{row[0].split('.')[0]}.*"))
                for name, row in ((first, left), (second, right))
            ]
            aside = paths[0].with_suffix(".aside")
            paths[0].rename(aside)
            paths[1].rename(paths[0])
            aside.rename(paths[1])
        for name, table in zip((first, second), tables, strict=True):
            write_table(root, name, *table)

    return plant


def added(copy: str, *, other_labels: bool) -> Plant:
    """Return a fault: a fifth of the images is there again, changed; with labels of another subtype."""

    def plant(root: Path) -> None:
        rng, tables = np.random.default_rng(0), {name: read_table(root, name) for name in SUBTYPES}
        before = {name: [list(row) for row in rows] for name, (_, rows) in tables.items()}
        for number, (name, (head, rows)) in enumerate(tables.items()):
            label_of = {row[0].split(".")[0]: row[1:] for row in before[name]}
            others = before[SUBTYPES[(number + 3) % len(SUBTYPES)]]
            for at, path in enumerate(images_of(root, name)[::5]):
                again = path.with_name(f"{name}9{path.stem[len(name) :]}.bmp")
                write_image(again, COPIES[copy](read_image(path), rng))
                labels = others[at % len(others)][1:] if other_labels else label_of[path.stem]
                rows.append([f"{again.stem}.jpg", *labels])
            write_table(root, name, head, rows)

    return plant


def _as_it_is(root: Path) -> None:
    pass


FAULTS: dict[str, Plant] = {
    "none": _as_it_is,
    "every rating table one row off": move_rows,
    "half of the ratings exchanged": exchange_half,
    "scale reversed": reverse(*SUBTYPES),
    "scale of one subtype (P) reversed": reverse("P"),
    "subtypes P and Sn exchanged, ratings right": exchange_subtypes("P", "Sn", 1.0),
    "a fifth of the subtypes A and H exchanged, ratings right": exchange_subtypes("A", "H", 0.2),
    "watermark of 40 % on P": marked("P", "watermark (40 %)"),
    "frame of 4 px on N": marked("N", "frame of 4 px"),
    "frame of 4 px on a quarter of N": marked("N", "frame of 4 px", 0.25),
    "JPEG 30 on A": marked("A", "JPEG 30 of the stored image"),
    "JPEG 60 on A": marked("A", "JPEG 60 of the stored image"),
    "blur of 1 px at 224 on H": marked("H", "blur"),
    "colour cast (+10, 0, -6) on P": marked("P", "colour cast"),
    "colour cast (+30, 0, -20) on P": marked("P", "strong colour cast"),
    "crops of .8, mirrored, of a fifth of the images": added("crop of .8, mirrored", other_labels=False),
    "the same, with labels of another subtype": added("crop of .8, mirrored", other_labels=True),
    "near-duplicates of a fifth, with labels of another subtype": added("dark, JPEG 30", other_labels=True),
    "labels of copies +5 in the release, hashes renewed": _as_it_is,
    "labels of copies exchanged in the release, hashes renewed": _as_it_is,
}


def _forged(fault: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
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
        for command in commands:
            code = run([*map(str, command)])
            if code:
                return {"fault": fault, "command": str(command[0]), "code": code, "rules": []}
        (release,) = (path for path in (folder / "releases").iterdir() if path.is_dir())
        if forges:
            forge(release, _forged(fault))
        places = ["--out", str(checks), "--root", f"gaped={folder / 'gaped'}"]
        code = run(["train-check", str(release), *places, "--no-report", "--workers", "1"])
        found = [*checks.glob("*/train-check.json")]
        gate = json.loads(found[0].read_text())["verdict"]["gate"] if found else []
    rules = [[rule["rule"], rule["outcome"], rule["text"]] for rule in gate if rule["outcome"] != "pass"]
    return {"fault": fault, "command": "train-check", "code": code, "n": len(gate), "rules": rules}


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
    parser.add_argument("faults", nargs="*", help="; ".join(FAULTS))
    parser.add_argument("--tables", action="store_true", help="run nothing, write the table of what was run")
    options = parser.parse_args()
    root = os.environ.get("AFFECTDATA_GAPED_ROOT")
    if not root:
        sys.exit("give a folder of real images: AFFECTDATA_GAPED_ROOT=PATH")
    kept = Path(os.environ.get("AFFECTDATA_POWER_FOLDER", Path(__file__).parent / ".power")).resolve()
    kept.mkdir(exist_ok=True)
    path = kept / "runs" / "faults.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    results = {result["fault"]: result for result in map(json.loads, lines)}
    heads.choose = subtype_aware.choose = _middle  # type: ignore[assignment]
    prepare.N_ASSIGNMENTS = 1
    os.chdir(kept)  # where no manifest or release lies
    for fault in () if options.tables else options.faults or FAULTS:
        if fault not in results:
            results[fault] = run_whole(fault, Path(root).resolve(), kept)
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(results[fault])}\n")
    table = [_line(results[fault]) for fault in FAULTS if fault in results]
    note("faults", ["| fault | exit code | fail | undecided | notice |", "|---|---|---|---|---|", *table])


if __name__ == "__main__":
    main()
