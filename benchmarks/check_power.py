"""False alarms and power of the rules of train-check, measured on real images: the tables of docs/check.md.

    make check-power AFFECTDATA_GAPED_ROOT=GAPED AFFECTDATA_OASIS_ROOT=oasis [AFFECTDATA_POWER_WEIGHTS=FILE]

Features and the figures of every run are kept in benchmarks/.power (AFFECTDATA_POWER_FOLDER): what was run is
not run again. Faults are planted in memory, and no file is changed. `labels` measures the rules labels.*,
`pairs` training.not_worse, `scores` leak.nearest, .too_good, .shuffled, learns, training.score and cascade,
`targets` the rules of targets of several values on OASIS, `marks` shortcut.pattern, .scalars and .looks,
`copies` leak.same_image, `looks` leak.looks; all by default.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from _power import CLEAN, LABEL_FAULTS, KeptFeatures, compare_arms, keep_features, plant_in_labels
from _power_images import (
    COPIES,
    MARKS,
    SHARES,
    KeptImages,
    clean_pairs,
    clean_subset,
    failing,
    hashed_copies,
    planted_copies,
    planted_mark,
    random_groups,
)
from _power_scores import (
    IN_FOLD,
    LEAKS,
    OUT_OF_FOLD,
    outcomes,
    score_clean,
    score_leak,
)
from _power_targets import KINDS, faults_of, measure_target
from threadpoolctl import threadpool_limits

from affectdata.check import label_gate
from affectdata.check.blocks import LabelFigures
from affectdata.check.gate import LIKELY
from affectdata.check.label_rules import (
    EXPECTED_R2,
    N_ASSIGNMENTS,
    describe_fit,
    label_columns,
    predict_by,
    predict_by_assignment,
)
from affectdata.images.hamming import MAX_BITS
from affectdata.manifest.manifest import Images
from affectdata.recipe.bounds import Check
from affectdata.registry import load_plugin
from affectdata.train.packaged import DEFAULT_BACKBONE

Record = dict[str, Any]
Case = tuple[str, Record]
Tasks = dict[str, Callable[[], Iterator[Case]]]
DOCUMENT = Path(__file__).parents[1] / "docs" / "check.md"
_HALF = "50 % shuffled"
_WITHOUT_SHEET = ("labels.order", "labels.r2", "labels.within")  # rules that need no data sheet
_SUBSETS = (("subsets of 500, ", 500), ("subsets of 250, ", 250))
_TOLERANCES = {"originals": 0.02, "even": 0.025}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(_PARTS), help=", ".join(_PARTS))
    parser.add_argument("--seeds", type=int, default=100, help="dealings, subsets and recipe seeds")
    parser.add_argument("--faults", type=int, default=100, help="seeds per planted fault")
    parser.add_argument("--marks", type=int, default=100, help="seeds per planted mark and share")
    parser.add_argument("--cascades", type=int, default=20, help="seeds for the cascade")
    parser.add_argument("--copies", type=int, default=100, help="images per planted change")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables of what was run")
    options = parser.parse_args()
    kept = list(_kept(copies={"pairs", "scores", "targets"} & {*options.parts} != set()))
    with threadpool_limits(1):
        for name, measure in _PARTS.items():
            if name in options.parts:
                found = [one for one in kept if not options.tables or _runs(one, name).exists()]
                note(name, [line for one in found for line in measure(one, kept, options)])


def _folder() -> Path:
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
            yield keep_features(name, Path(root), _folder(), backbone, weights, copies=copies)


def _runs(kept: KeptFeatures, part: str) -> Path:
    return _folder() / "runs" / f"{kept.name}-{part}-{kept.backbone.content[:12]}.jsonl"


def _run(kept: KeptFeatures, part: str, tasks: Tasks, options: Any) -> dict[str, list[Record]]:
    """Run what was not run before, keep every record as a line of a file, and return them by case."""
    path = _runs(kept, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    done = {record["task"] for record in records}
    with path.open("a", encoding="utf-8") as file:
        for name, task in tasks.items():
            if name in done or options.tables:
                continue
            new = [{"task": name, "case": case, **figures} for case, figures in task()]
            file.write("".join(f"{json.dumps(record)}\n" for record in new))
            file.flush()
            records += new
    by_case: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_case[record["case"]].append(record)
    return by_case


def _label_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure the rules labels.*: clean dealings and subsets, then each fault on dealings of its own."""
    rows, counts = kept.plain, _counts(kept)
    others = [other for other in every if other is not kept]
    predictions = {other.name: predict_by(other.plain, rows) for other in others}

    def measure(name: str, part: np.ndarray, targets: dict[str, np.ndarray], seed: int) -> Iterator[Case]:
        some, paths = rows.take(part), kept.path[part]
        columns = [label_columns(target, some.subtype, paths, seed) for target in targets.values()]
        predicted = predict_by_assignment(some, np.hstack(columns), N_ASSIGNMENTS * seed)
        predicted = np.split(predicted, len(targets), axis=2)
        anchors = {key: (values[part], 0) for key, values in predictions.items()}
        for (fault, target), own, fitted in zip(targets.items(), columns, predicted, strict=True):
            faulty = replace(some, target=target)
            found = describe_fit(own, fitted, faulty, paths, anchors, counts, None)
            yield name + fault, {"labels": found.to_dict()}

    def clean(seed: int) -> Iterator[Case]:
        yield from measure("", np.arange(len(rows)), {CLEAN: rows.target}, seed)
        rng = np.random.default_rng([1, seed])
        for name, n in (("subsets of 4/5, ", round(0.8 * len(rows))), *_SUBSETS):
            part = np.sort(rng.permutation(len(rows))[:n])
            halved = plant_in_labels(_HALF, rows.take(part), kept.path[part], rng)
            yield from measure(name, part, {CLEAN: rows.target[part], _HALF: halved}, seed)

    def faults(seed: int) -> Iterator[Case]:
        rng = np.random.default_rng([2, seed])
        planted = {fault: plant_in_labels(fault, rows, kept.path, rng) for fault in LABEL_FAULTS}
        yield from measure("", np.arange(len(rows)), planted, 1000 + seed)

    tasks: Tasks = {f"clean {seed}": partial(clean, seed) for seed in range(options.seeds)}
    tasks |= {f"faults {seed}": partial(faults, seed) for seed in range(options.faults)}
    yield from _label_table(kept, _run(kept, "labels", tasks, options))


def _label_table(kept: KeptFeatures, by_case: dict[str, list[Record]]) -> Iterator[str]:
    figures = {case: [_figures(kept, run) for run in runs] for case, runs in by_case.items()}
    outcomes = {case: [_worst(run) for run in runs] for case, runs in figures.items()}
    rules = list(outcomes[CLEAN][0])
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}:\n"
    yield "| | runs | " + " | ".join(f"`{rule}`" for rule in rules) + " | any | any without a data sheet |"
    yield "|---|---|" + "---|" * (len(rules) + 2)
    for name, runs in outcomes.items():
        shares = [np.mean([run[rule] == "fail" for run in runs]) for rule in rules]
        shares.append(np.mean(["fail" in run.values() for run in runs]))
        shares.append(np.mean(["fail" in {run[rule] for rule in _WITHOUT_SHEET} for run in runs]))
        yield f"| {name} | {len(runs)} | " + " | ".join(_share(share) for share in shares) + " |"
    yield "\n| | R² | lower end | r within | z | margin | anchor's r | listed |\n|" + "---|" * 8
    for name, runs in figures.items():
        anchors = [figure.mean or 0.0 for run in runs for figure in run.anchor.values()]
        columns = [
            [run.r2.mean or 0.0 for run in runs],
            [run.r2.low or 0.0 for run in runs],
            [run.r_within or 0.0 for run in runs],
            [run.z or 0.0 for run in runs],
            [run.margin or 0.0 for run in runs],
            anchors,
            [float(len(run.suspicious)) for run in runs],
        ]
        yield f"| {name} | " + " | ".join(_range(values) for values in columns) + " |"


def _worst(labels: LabelFigures) -> dict[str, str]:
    """Return the worst outcome by rule; `labels.r2.expected` stands for itself."""
    order, worst = ["pass", "notice", "undecided", "fail"], dict[str, str]()
    labels = labels.model_copy(update={"n": max(labels.n, label_gate.LEAST_IMAGES)})
    document: Any = SimpleNamespace(labels={"": labels})
    for rule, evaluate in label_gate.RULES.items():
        for name, result in evaluate(document, Check()):
            key = f"{rule}.expected" if name.endswith("expected") else rule
            worst[key] = max(worst.get(key, "pass"), str(result.outcome), key=order.index)
    worst.setdefault("labels.r2.expected", "pass")
    del worst["labels.suspicious"]
    return dict(sorted(worst.items()))


def _counts(kept: KeptFeatures) -> dict[str, np.ndarray]:
    subtypes = load_plugin("sources", kept.name).INFO.subtypes
    return {name: np.array(subtype.counts["valence"]) for name, subtype in subtypes.items()}


def _expected(kept: KeptFeatures) -> float | None:
    return EXPECTED_R2.get((kept.name, "valence", kept.backbone.content[:12]))


def _figures(kept: KeptFeatures, record: Record) -> LabelFigures:
    """Return the figures of a run, with the expected R² of the whole data set."""
    found = LabelFigures.model_validate(record["labels"])
    is_whole = found.n == len(kept.plain)
    return found.model_copy(update={"expected_r2": _expected(kept) if is_whole else None})


def _pair_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure training.not_worse: clean recipe seeds, then faults in the copies."""

    def compare(seed: int) -> Iterator[Case]:
        for case, found in compare_arms(kept, seed).items():
            yield case, {" ".join(key): interval.to_dict() for key, interval in found.items()}

    tasks: Tasks = {f"seed {seed}": partial(compare, seed) for seed in range(options.seeds)}
    yield from _pair_table(kept, _run(kept, "pairs", tasks, options))


def _pair_table(kept: KeptFeatures, runs: dict[str, list[Record]]) -> Iterator[str]:
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, SVR with C 100 and gamma .5:\n"
    yield (
        "| | runs | R² to originals | half-width | lowest end | open | fails | R² to even | half-width | "
        "lowest end | open | fails | CCC to originals | fails | any fails |\n|" + "---|" * 15
    )
    for name, results in runs.items():
        cells, failed = [], np.zeros(len(results), bool)
        for baseline, measure in (("originals", "r2"), ("even", "r2"), ("originals", "ccc"), ("even", "ccc")):
            figures = [result[f"{baseline} {measure}"] for result in results]
            mean, low = (np.array([figure[key] for figure in figures]) for key in ("mean", "low"))
            tolerance = _TOLERANCES[baseline]
            is_open = low < -tolerance
            fails = is_open & (mean < -LIKELY * tolerance)
            failed |= fails
            if measure == "r2":
                cells += [_spread(mean), f"{np.mean(mean - low):.4f}", f"{low.min():+.4f}"]
                cells += [_share(is_open.mean()), _share(fails.mean())]
            elif baseline == "originals":
                cells += [_spread(mean), _share(fails.mean())]
        yield f"| {name} | {len(results)} | " + " | ".join([*cells, _share(failed.mean())]) + " |"


def _score_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure leak.nearest, .too_good, .shuffled, training.score, learns.above_shuffled and cascade."""

    def one(case: str, measure: Callable[[], Record]) -> Iterator[Case]:
        yield case, {"figures": measure()}

    tasks: Tasks = {}
    for seed, share in itertools.product(range(options.faults), LEAKS):  # the cheaper ones first
        case = f"{share} % of the images twice"
        tasks[f"{case} {seed}"] = partial(one, case, partial(score_leak, kept, seed, share))
    for seed in range(options.seeds):
        tasks[f"{CLEAN} {seed}"] = partial(one, CLEAN, partial(score_clean, kept, seed))
    for seed, kind in itertools.product(range(options.cascades), (OUT_OF_FOLD, IN_FOLD)):
        case = f"cascade, outputs {kind}"
        tasks[f"{case} {seed}"] = partial(one, case, partial(score_clean, kept, seed, kind))
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, SVR with C 100 and gamma .5:\n"
    yield "| | runs | rule | figure | lower end | upper end | undecided | fails |\n|" + "---|" * 8
    for case, runs in sorted(_run(kept, "scores", tasks, options).items()):
        found = [outcomes(run["figures"]) for run in runs]
        for rule in found[0]:
            ends = [[run["figures"][rule][key] for run in runs] for key in ("mean", "low", "high")]
            cells = [_range([value for value in end if value is not None]) for end in ends]
            cells += [
                _share(float(np.mean([each[rule] == name for each in found])))
                for name in ("undecided", "fail")
            ]
            yield f"| {case} | {len(runs)} | `{rule}` | " + " | ".join(cells) + " |"


def _target_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure the rules of points, label sets, shares and polarity, which need ratings of arousal."""
    if kept.name != "oasis":
        return

    def one(kind: str, fault: str, seed: int) -> Iterator[Case]:
        yield f"{kind}, {fault}", measure_target(kept, kind, fault, seed)

    planned = [(kind, CLEAN, seed) for seed in range(options.seeds) for kind in KINDS]
    planned += [
        (kind, fault, seed) for seed in range(options.faults) for kind in KINDS for fault in faults_of(kind)
    ]
    tasks: Tasks = {" ".join(map(str, each)): partial(one, *each) for each in planned}
    runs = _run(kept, "targets", tasks, options)
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, heads with fixed settings:\n"
    names = ("learns.above_shuffled", "leak.nearest", "leak.too_good", "leak.shuffled")
    rules = (*names, "labels.order", "labels.within", "labels.r2")
    yield "| | runs | skill | " + " | ".join(f"`{rule}`" for rule in rules) + " | any |"
    yield "|---|" + "---|" * (len(rules) + 3)
    for case in (f"{kind}, {fault}" for kind in KINDS for fault in (CLEAN, *faults_of(kind))):
        found = [_target_outcomes(case, run) for run in runs.get(case, [])]
        if not found:
            continue
        skills = [run["figures"]["learns.above_shuffled"]["mean"] for run in runs[case]]
        cells = [
            _share(float(np.mean([each[rule] == "fail" for each in found]))) if rule in found[0] else "–"
            for rule in rules
        ]
        failed = _share(float(np.mean(["fail" in each.values() for each in found])))
        yield f"| {case} | {len(found)} | {_range(skills)} | " + " | ".join(cells) + f" | {failed} |"


def _target_outcomes(case: str, run: Record) -> dict[str, str]:
    """Return the outcome of each rule: the worst over the columns of points."""
    found = outcomes(run["figures"], None if case.startswith("numbers") else 0.0, decides=False)
    for figures in run["labels"].values():
        of_labels = _worst(LabelFigures.model_validate(figures))
        found |= {
            rule: "fail" if "fail" in (found.get(rule), of_labels[rule]) else of_labels[rule]
            for rule in _WITHOUT_SHEET
        }
    return found


def _mark_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure shortcut.pattern, .scalars and .looks: clean subsets and groups, then each mark."""
    images = _images(kept)

    def clean(case: str, measure: Callable[[KeptImages, int], Record]) -> Iterator[Case]:
        for seed in range(options.seeds):
            yield case, measure(images, seed)

    def planted(mark: str) -> Iterator[Case]:
        marked = images.marked(mark)
        for share, seed in itertools.product(SHARES, range(options.marks)):
            yield f"{mark}, {share:.0%} of a subtype", planted_mark(images, marked, share, seed)

    cases = {"subsets of 4/5, clean": clean_subset, "random groups, clean": random_groups}
    tasks: Tasks = {case: partial(clean, case, measure) for case, measure in cases.items()}
    tasks |= {mark: partial(planted, mark) for mark in MARKS}
    runs = _run(kept, "marks", tasks, options)
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}:\n"
    yield "| | runs | centre | corners | AUC | rise | `pattern` | `scalars` | `looks` |"
    yield "|---|" + "---|" * 8
    for name, found in runs.items():
        cells = [_middle([run[key] for run in found if key in run]) for key in _MARK_FIGURES]
        fails = [failing(run) for run in found]
        cells += [_share(float(np.mean([run[key] for run in fails]))) for key in ("pattern", "auc", "rise")]
        yield f"| {name} | {len(found)} | " + " | ".join(cells) + " |"


def _copy_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure leak.same_image: pairs of the data set as it is, then changed images."""
    images = _images(kept)

    def clean() -> Iterator[Case]:
        yield CLEAN, {**clean_pairs(images)}

    def planted(copy: str) -> Iterator[Case]:
        for record in planted_copies(images, copy, options.copies, 0):
            yield copy, {**record}

    tasks: Tasks = {CLEAN: clean, **{copy: partial(planted, copy) for copy in COPIES}}
    runs = _run(kept, "copies", tasks, options)
    (whole,) = runs.pop(CLEAN)
    yield (
        f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}: of {whole['pairs']} pairs of "
        f"neighbours in different groups, {whole['same']:.0f} are the same image; the next has "
        f"{whole['next']:.0f} inliers.\n"
    )
    yield (
        "| | images | original among the five nearest | inliers: least, median | found | crop-resistant "
        "hash: found, of other images |\n" + "---".join("|" * 7)
    )
    for name, (hashes, *found) in runs.items():
        inliers = np.array([run["inliers"] for run in found])
        near, is_found = (_share(float(np.mean([run[key] for run in found]))) for key in ("near", "found"))
        middle = f"{inliers.min():.0f}, {np.median(inliers):.0f}"
        hashed = f"{_share(hashes['hashed'])}, {_share(round(hashes['hashed_falsely'], 3))}"
        yield f"| {name} | {len(found)} | {near} | {middle} | {is_found} | {hashed} |"


def _look_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any) -> Iterable[str]:
    """Measure leak.looks: distances between the images of the data set, and to changed ones."""
    tasks: Tasks = {CLEAN: partial(hashed_copies, _images(kept), options.copies)}
    yield f"\n{kept.name}, {len(kept.plain)} images:\n"
    yield "| | images | bits: least, median, most | found |\n|---|---|---|---|"
    for name, runs in _run(kept, "looks", tasks, options).items():
        bits = np.array([run["bits"] for run in runs])
        found = _share(float((bits <= MAX_BITS).mean()))
        spread = f"{bits.min():.0f}, {np.median(bits):.0f}, {bits.max():.0f}"
        yield f"| {name} | {len(bits)} | {spread} | {found} |"


_MARK_FIGURES = ("centre", "corners", "auc", "rise")


def _images(kept: KeptFeatures) -> KeptImages:
    root = os.environ[f"AFFECTDATA_{kept.name.upper()}_ROOT"]
    return KeptImages(kept, Images({kept.name: Path(root)}))


def _middle(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({np.min(values):.3g} to {np.max(values):.3g})" if values else "–"


def _share(value: float) -> str:
    return f"{value:.2f}".lstrip("0") if 0 < value < 1 else f"{value:.0f}"


def _range(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.3g} ({np.min(values):.3g} to {np.max(values):.3g})"


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():+.4f} (SD {values.std():.4f})"


def note(name: str, lines: list[str]) -> None:
    """Replace the part of the document between its two marks."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(start)
    body = "\n".join(lines).strip("\n")
    DOCUMENT.write_text(f"{before}{start}\n\n{body}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")
    print(body)


_PARTS = {
    "labels": _label_tables,
    "pairs": _pair_tables,
    "scores": _score_tables,
    "targets": _target_tables,
    "marks": _mark_tables,
    "copies": _copy_tables,
    "looks": _look_tables,
}

if __name__ == "__main__":
    main()
