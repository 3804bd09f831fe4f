"""training.not_worse for check_power.py: clean recipe seeds, then faults in the labels of copies."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from _power import (
    CLEAN,
    C,
    Case,
    KeptFeatures,
    Record,
    Run,
    Tasks,
    outcome_share,
    share_text,
    spread_text,
)
from _power_labels import shuffle
from _power_rules import pair_outcomes
from sklearn.svm import SVR

from affectdata.check import arms, image_pool, influence, metrics
from affectdata.check.arms import EVEN, ORIGINALS
from affectdata.check.blocks import Interval
from affectdata.check.gate import BETWEEN_COPIES
from affectdata.check.image_pool import (
    replan,
)
from affectdata.check.influence import grouped_variance, influence_ccc, influence_r2, pooled_interval
from affectdata.recipe.bounds import Check
from affectdata.splits.folds import deal_folds
from affectdata.train.heads import N_FOLDS
from affectdata.train.rows import Rows

MEASURES = (arms, image_pool, influence, metrics)
PAIR_FAULTS = (
    *(f"copies' labels {points:+d}" for points in (5, 10, 20)),
    *(f"copies' labels {share} % shuffled" for share in (25, 50)),
    *(f"copies' labels stretched by {share} %" for share in (15, 30)),
    "noise of SD 15 on copies' labels",
)
Pair = tuple[str, str]  # baseline, measure


def plant_in_copies(fault: str, rows: Rows, rng: np.random.Generator) -> np.ndarray:
    """Return the labels of train rows with a fault of `PAIR_FAULTS` in those of copies."""
    number, copy = int(re.sub(r"[^\d]", "", fault)), rows.copy > 0
    target = rows.target.copy()
    if "shuffled" in fault:
        target[copy] = shuffle(target[copy], number / 100, rng)
    elif "stretched" in fault:
        target[copy] = 50 + (1 + number / 100) * (target[copy] - 50)
    else:
        target[copy] += rng.normal(0, number, copy.sum()) if "noise" in fault else number
    return np.clip(target, 0, 100)


def compare_arms(kept: KeptFeatures, seed: int) -> dict[str, dict[Pair, Interval]]:
    """Train release, originals and even copies on two assignments to folds, as train-check does.

    Returns the differences as they are ("clean"), and with each of `PAIR_FAULTS` in the labels of copies of
    the release; the two baselines are the same. A recipe seed decides folds and copies. The SVR has fixed
    settings, near those that the inner search chooses, and features standardised once. Copies are drawn from
    the kept ones of their image.
    """
    estimates: dict[str, dict[Pair, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    originals, own, rng = kept.originals, kept.plain, np.random.default_rng([3, seed])
    recipe, cases = kept.recipe.model_copy(update={"seed": seed}), (CLEAN, *PAIR_FAULTS)
    for assignment in range(2):
        fold = deal_folds(own.group, [own.stratum], seed + assignment, N_FOLDS)
        predicted = {arm: np.zeros(len(own)) for arm in (*cases, ORIGINALS, EVEN)}
        for number in range(N_FOLDS):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            planned = replan(originals, fold != number, recipe)
            copies = Counter(planned["image_id"].to_pylist())
            released = np.array([copies[image_id] - 1 for image_id in own.image_id[train].tolist()])
            n_even, rest = divmod(int(released.sum()), len(train))
            even = n_even + (rng.permutation(len(train)) < rest)
            scored = kept.with_copies(test, np.zeros(len(test), int), rng)
            rows = kept.with_copies(train, released, rng)
            targets = {CLEAN: rows.target} | {
                fault: plant_in_copies(fault, rows, rng) for fault in PAIR_FAULTS
            }
            found = fit_predict(kept.kernel, rows, {CLEAN: rows.target, **targets}, scored)
            for arm, plan in ((ORIGINALS, np.zeros(len(train), int)), (EVEN, even)):
                rows = kept.with_copies(train, plan, rng)
                found |= fit_predict(kept.kernel, rows, {arm: rows.target}, scored)
            for arm, values in found.items():
                predicted[arm][test] = values
        for case in cases:
            for baseline in (ORIGINALS, EVEN):
                for measure in ("r2", "ccc"):
                    estimate = _estimate(own, predicted[case], predicted[baseline], measure)
                    estimates[case][baseline, measure].append(estimate)
    return {
        case: {key: pooled_interval(values) for key, values in found.items()}
        for case, found in estimates.items()
    }


def fit_predict(
    kernel: np.ndarray, rows: Rows, targets: dict[str, np.ndarray], test: Rows
) -> dict[str, np.ndarray]:
    inside = kernel[np.ix_(rows.pool_index, rows.pool_index)]
    outside = kernel[np.ix_(test.pool_index, rows.pool_index)]
    model = SVR(kernel="precomputed", C=C, epsilon=3.0, tol=1e-2)
    return {name: model.fit(inside, target).predict(outside) for name, target in targets.items()}


def _estimate(own: Rows, left: np.ndarray, right: np.ndarray, measure: str) -> tuple[float, float]:
    influence = {"r2": influence_r2, "ccc": influence_ccc}[measure]
    score = getattr(metrics, measure)
    values = influence(own.target, left) - influence(own.target, right)
    return score(own.target, left) - score(own.target, right), grouped_variance(values, own.group)


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure the rule: each recipe seed with the labels of copies as they are, and with each fault."""

    def compare(seed: int) -> Iterator[Case]:
        for case, found in compare_arms(kept, seed).items():
            yield case, {" ".join(key): interval.to_dict() for key, interval in found.items()}

    tasks: Tasks = {f"seed {seed}": partial(compare, seed) for seed in range(options.seeds)}
    yield from _pair_table(kept, run(tasks))


def _pair_table(kept: KeptFeatures, runs: dict[str, list[Record]]) -> Iterator[str]:
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, SVR with C 100 and gamma .5:\n"
    yield (
        "| | runs | R² to originals | half-width | lowest end | open | fails | R² to even | half-width | "
        "lowest end | open | fails | CCC to originals | fails | any fails |\n|" + "---|" * 15
    )
    for name, results in runs.items():
        found, cells = [pair_outcomes(_differences(result)) for result in results], list[str]()
        for baseline, measure in (("originals", "r2"), ("even", "r2"), ("originals", "ccc"), ("even", "ccc")):
            figures = [result[f"{baseline} {measure}"] for result in results]
            mean, low = (np.array([figure[key] for figure in figures]) for key in ("mean", "low"))
            fails = share_text(outcome_share(found, f"training.not_worse.{baseline}.{measure}"))
            if measure == "r2":
                cells += [spread_text(mean), f"{np.mean(mean - low):.4f}", f"{low.min():+.4f}"]
                is_open = float((low < -_tolerance(baseline)).mean())
                cells += [share_text(is_open), fails]
            elif baseline == "originals":
                cells += [spread_text(mean), fails]
        cells.append(share_text(float(np.mean(["fail" in each.values() for each in found]))))
        yield f"| {name} | {len(results)} | " + " | ".join(cells) + " |"


def _tolerance(baseline: str) -> float:
    tolerance = Check().not_worse.r2
    return tolerance * BETWEEN_COPIES if baseline == EVEN else tolerance


def _differences(result: Record) -> Record:
    return {key: figure for key, figure in result.items() if key not in ("task", "case")}
