"""train-check: can a model learn the target from this release, and did balancing help or harm?

In: a release, a backbone, and the source images if available. Out: one document, written to
`checks/<release>/train-check.json` (see `document`), and `predictions.parquet`: for each original its fold,
its target, and the prediction of every arm and head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from affectdata.check import metrics
from affectdata.check.blocks import CheckDocument, ScoringName, Verdict
from affectdata.check.document import Results, describe
from affectdata.check.evaluate import EvaluateSplit, Learner, SplitEvaluation, find_classes
from affectdata.check.gate import evaluate_rules, find_outcome
from affectdata.check.label_rules import find_label_figures
from affectdata.check.look_alikes import find_same_images
from affectdata.check.outputs import fit_sources
from affectdata.check.prepare import CheckInput, Split
from affectdata.check.resume import SplitStore
from affectdata.check.scores import Scoring
from affectdata.check.shortcuts import find_shortcuts
from affectdata.check.summary import summarize
from affectdata.check.target_arms import EvaluateTarget
from affectdata.check.transfer import score_transfer
from affectdata.check.tuned import TunedNetworks
from affectdata.check.verdict import advise, make_sentences
from affectdata.store.parquet import write_table
from affectdata.store.sealed import write_sealed
from affectdata.train.heads import FrozenHeads, quiet_threads
from affectdata.train.images import Progress
from affectdata.workers import map_ordered

_Task = tuple[Split, EvaluateSplit | EvaluateTarget]


@dataclass(frozen=True, eq=False)
class CheckOutput:
    """The document of a check, and the predictions that it was computed from."""

    document: CheckDocument
    predictions: pa.Table

    def write(self, folder: Path) -> Path:
        """Write both to `folder/<release>/`, networks to `finetune/` in it; return the document's path."""
        target = folder / self.document.release.name
        if self.document.settings.mode == "finetune":
            target /= "finetune"
        digest = write_table(self.predictions, target / "predictions.parquet", "predictions")
        document = self.document.model_copy(update={"predictions_digest": digest})
        write_sealed(target / "train-check.json", document.to_dict())
        return target / "train-check.json"


def run_check(
    prepared: CheckInput,
    learner: Learner | None = None,
    *,
    store: SplitStore | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> CheckOutput:
    """Train all arms on all splits, score and compare them, and evaluate the rules: a pure function.

    `learner` is what is trained [default: heads on frozen features]; `store` keeps finished splits, so that
    a killed check resumes.
    """
    recipe = prepared.recipe
    results = _train(prepared, learner or FrozenHeads(recipe.seed), store, workers, progress)
    figures = describe(results)
    gate = evaluate_rules(figures, recipe.check)
    outcome = find_outcome(figures, gate, recipe.check)
    advice = advise(figures, prepared.release.info)
    verdict = Verdict(
        outcome=outcome,
        passed=outcome == "passed",
        summary=summarize(figures, gate, advice),
        gate=gate,
        sentences=make_sentences(figures, recipe),
        advice=advice,
    )
    return CheckOutput(CheckDocument(**dict(figures), verdict=verdict), _predictions(results))


def _train(
    prepared: CheckInput,
    learner: Learner,
    store: SplitStore | None,
    workers: int,
    progress: Progress | None,
) -> Results:
    """Train all arms of all splits, and collect their predictions by scoring."""
    labels = find_label_figures(prepared)
    same_images, shortcuts = find_same_images(prepared, workers), find_shortcuts(prepared, workers)
    originals, recipe, n_first = prepared.originals, prepared.recipe, prepared.n_first
    subtypes = sorted(set(originals.column("subtype")[originals.own].tolist()))
    target = prepared.target
    classes = find_classes(recipe, None if prepared.numeric else originals.labels, subtypes)
    classes = [] if target else classes
    classes = classes[:1] if learner.is_costly else classes
    heldout = [prepared.heldout] if prepared.heldout else []
    sources, transfer = {}, {}
    if prepared.numeric and not learner.is_costly and prepared.others:
        with quiet_threads():
            sources = fit_sources(prepared.others, recipe.seed)
            every = prepared.image_pool.rows(originals.plain(originals.own))
            transfer = score_transfer(every, {name: prepared.others[name] for name in sources}, recipe.seed)
    # Splits that take long come first, so that no thread is left with one at the end.
    by_name = {"heldout": heldout, "crossfit": prepared.crossfit, **prepared.regrouped}
    # The subtype classifier is scored on every original once, so it is trained on the first splits only.
    n_all = {"crossfit": n_first, "heldout": 1}
    fit = learner.fit_target if isinstance(learner, TunedNetworks) else None
    tasks: list[_Task] = [
        (
            split,
            EvaluateTarget(target, learner, fit)
            if target
            else EvaluateSplit(
                classes if number < n_all.get(name, 0) else classes[:1], prepared.numeric, learner, sources
            ),
        )
        for name, splits in by_name.items()
        for number, split in enumerate(splits)
    ]
    evaluations = _evaluate(tasks, learner, store, workers, progress)
    edges = originals.edges or [0.0, 100.0]
    n_bins = len(edges) - 1
    tail = metrics.tail_bins(np.bincount(originals.bin[originals.own], minlength=n_bins))[:n_bins]
    scorings: dict[str, Scoring] = {}
    for name, splits in by_name.items():
        own = [next(evaluations) for _ in splits]
        n = n_first if name == "crossfit" else len(splits)
        scorings[name] = Scoring(splits, own, n, edges, tail, recipe.seed, recipe.check.min_sd_ratio, target)
    main: dict[ScoringName, Scoring] = {name: scorings.pop(name) for name in ("crossfit", "heldout")}
    scored = {name: scoring if scoring.splits else None for name, scoring in main.items()}
    return Results(prepared, learner, classes, scored, scorings, transfer, labels, same_images, shortcuts)


def _evaluate(
    tasks: Sequence[_Task],
    learner: Learner,
    store: SplitStore | None,
    workers: int,
    progress: Progress | None,
) -> Iterator[SplitEvaluation]:
    """Evaluate every split, heads on several threads at once; networks use all cores for one split."""
    evaluations = []

    def evaluate(task: _Task) -> SplitEvaluation:
        split, function = task
        return store.evaluate(split, function) if store else function(split)

    with nullcontext() if learner.is_costly else quiet_threads():
        results = map_ordered(evaluate, tasks, 1 if learner.is_costly else workers)
        for done, result in enumerate(results, 1):
            evaluations.append(result)
            if progress:
                progress(done, len(tasks))
    return iter(evaluations)


def _predictions(results: Results) -> pa.Table:
    """Return one row per original, with the prediction of every arm and head (null if not scored)."""
    prepared = results.prepared
    table = prepared.originals.table
    names = ["image_id", "source", "path", "subtype", "group_id"]
    out = table.select([*names, *({prepared.recipe.target} - set(names))])
    for name, values in prepared.target.columns() if prepared.target else ():
        out = out.append_column(f"true.{name}", pa.array(values))
    folds = prepared.fold_assignments[0].tolist() if prepared.fold_assignments else [-1] * len(table)
    out = out.append_column("fold", pa.array([fold if fold >= 0 else None for fold in folds], pa.int32()))
    for name, values, rows in _columns(results):
        column = np.full(len(table), None, object)
        column[rows] = values.tolist()
        kind = pa.string() if values.dtype.kind in "UO" else pa.float64()
        out = out.append_column(name, pa.array(column, kind))
    return out


def _columns(results: Results) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, values and rows of each column: `<scoring>.<arm>.<head, classes or output>`."""
    for scored_on, scoring in results.scorings.items():
        if scoring is None:
            continue
        rows = results.prepared.originals.find(scoring.tests().image_id)
        known = {arm: result for arm, result in scoring.evaluations[0].arms.items() if scoring.has(arm)}
        for arm, result in known.items():
            for head in result.values if results.prepared.numeric else ():
                yield f"{scored_on}.{arm}.{head}", scoring.values(arm, head), rows
            for number, output in enumerate(scoring.target.outputs if scoring.target else ()):
                yield f"{scored_on}.{arm}.{output}", scoring.values(arm)[:, number], rows
            for classes, predictions in result.labels.items():
                name = "both" if "both" in predictions else "image"
                yield f"{scored_on}.{arm}.{classes}", scoring.labels(arm, classes, name), rows
