"""False alarms and power of the rules of train-check, measured on real images: the tables of docs/check.md.

    make check-power AFFECTDATA_GAPED_ROOT=GAPED AFFECTDATA_OASIS_ROOT=oasis [AFFECTDATA_POWER_WEIGHTS=FILE]

Features and the figures of every run are kept in benchmarks/.power (AFFECTDATA_POWER_FOLDER): what was run
by the same code is not run again. Faults are planted in memory, and no file is changed. The parts, all by
default:

labels   labels.*
pairs    training.not_worse
scores   leak.nearest, .too_good, .shuffled, learns, training.score and cascade
targets  the rules of targets of several values, on OASIS
marks    shortcut.pattern, .scalars and .looks
shift    shortcut.shift, transforms.*
copies   leak.same_image
looks    leak.looks
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import _power
import _power_copies
import _power_images
import _power_labels
import _power_marks
import _power_pairs
import _power_scores
import _power_shift
import _power_targets
from _kept_runs import KeptRuns
from _power import KeptFeatures, Record, Tasks, keep_features
from threadpoolctl import threadpool_limits

from affectdata.train.packaged import DEFAULT_BACKBONE

DOCUMENT = Path(__file__).parents[1] / "docs" / "check.md"
_NUMBERS = {
    "seeds": (100, "assignments to folds, subsets and recipe seeds"),
    "faults": (100, "seeds per planted fault"),
    "marks": (100, "seeds per planted mark and share"),
    "cascades": (20, "seeds for the cascade"),
    "copies": (100, "images per planted change"),
}
_IMAGES = (_power_images, _power_copies)
_PARTS: dict[str, tuple[Any, tuple[ModuleType, ...]]] = {
    "labels": (_power_labels.tables, (_power_labels, *_power_labels.MEASURES)),
    "pairs": (_power_pairs.tables, (_power_pairs, *_power_pairs.MEASURES)),
    "scores": (_power_scores.tables, (_power_scores, *_power_scores.MEASURES)),
    "targets": (_power_targets.tables, (_power_targets, _power_scores, *_power_targets.MEASURES)),
    "marks": (_power_marks.tables, (_power_images, _power_marks, *_power_marks.MEASURES)),
    "shift": (_power_shift.tables, (_power_shift, *_power_shift.MEASURES)),
    "copies": (_power_copies.tables, (*_IMAGES, *_power_copies.MEASURES)),
    "looks": (_power_copies.look_tables, (*_IMAGES, *_power_copies.LOOK_MEASURES)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(_PARTS), help=", ".join(_PARTS))
    for name, (number, what) in _NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=number, help=f"{what} [{number}]")
    parser.add_argument("--runs", type=int, help="a trial with so many of each; docs/check.md is not changed")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables of what was run")
    options = parser.parse_args()
    if options.runs:
        vars(options).update(dict.fromkeys(_NUMBERS, options.runs))
    if unknown := {*options.parts} - {*_PARTS}:
        parser.error(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(_PARTS)}")
    kept = list(_kept(copies={"pairs", "scores", "targets", "shift"} & {*options.parts} != set()))
    with threadpool_limits(1):
        for name in _PARTS:
            if name in options.parts:
                lines = [line for one in kept for line in _tables(name, one, kept, options)]
                note(name, lines, is_trial=bool(options.runs))


def folder() -> Path:
    """Return the folder of kept features and runs."""
    return Path(os.environ.get("AFFECTDATA_POWER_FOLDER", Path(__file__).parent / ".power"))


def _kept(*, copies: bool) -> Iterator[KeptFeatures]:
    """Yield the features of the data sets that were given."""
    backbone = os.environ.get("AFFECTDATA_POWER_BACKBONE", DEFAULT_BACKBONE)
    weights = os.environ.get("AFFECTDATA_POWER_WEIGHTS", "DEFAULT")
    roots = {name: os.environ.get(f"AFFECTDATA_{name.upper()}_ROOT") for name in ("gaped", "oasis")}
    if not any(roots.values()):
        sys.exit("give a folder of real images: AFFECTDATA_GAPED_ROOT=PATH, AFFECTDATA_OASIS_ROOT=PATH")
    for name, root in roots.items():
        if root:
            yield keep_features(name, Path(root), folder(), backbone, weights, copies=copies)


def _tables(part: str, kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterator[str]:
    """Yield the lines of the tables of a part for a data set."""
    measure, modules = _PARTS[part]
    name = f"{kept.name}-{part}-{kept.backbone.content[:12]}"
    runs = KeptRuns(folder() / "runs", name, [_power, *modules])
    if runs.results or not options.tables:
        yield from measure(kept, every, options, partial(_run, runs, options))


def _run(runs: KeptRuns, options: Any, tasks: Tasks) -> dict[str, list[Record]]:
    """Run what was not run before, and return the figures of every run by case."""
    for name, task in tasks.items():
        if name not in runs.results and not options.tables:
            runs.add(name, list(task()))
    by_case: dict[str, list[Record]] = defaultdict(list)
    for cases in runs.results.values():
        for case, figures in cases:
            by_case[case].append(figures)
    return by_case


def note(name: str, lines: list[str], *, is_trial: bool = False) -> None:
    """Print lines, and replace the part of the document between its two marks by them."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    body = "\n".join(lines).strip("\n")
    print(body, flush=True)
    if not body or is_trial:
        return
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(start)
    DOCUMENT.write_text(f"{before}{start}\n\n{body}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
