"""train-check: can a model learn the target from this release, and did balancing help or harm?

In: a release, a backbone, and the source images where they are at hand. Out: one document, written to
`checks/<release>/train-check.json` (see `document`), and the predictions behind it (`predictions.parquet`:
per original its fold, target, and what every arm and head said of it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.check import metrics
from affectdata.check.document import Results, describe
from affectdata.check.evaluate import EvaluateSplit, Learner, SplitEvaluation, find_classes
from affectdata.check.gate import evaluate_rules, find_outcome
from affectdata.check.prepare import CheckInput, Split
from affectdata.check.scores import Scoring
from affectdata.check.verdict import advise, make_sentences
from affectdata.check.words import without_nan
from affectdata.store.parquet import write_json, write_table
from affectdata.train.heads import FrozenHeads, quiet_threads
from affectdata.train.images import Progress
from affectdata.workers import map_ordered


@dataclass(frozen=True, eq=False)
class CheckOutput:
    """The document of a check, and the predictions behind it."""

    document: dict[str, Any]
    predictions: pa.Table

    @property
    def passed(self) -> bool:
        """Whether no rule of the gate fails, and there are images enough to say so."""
        return bool(self.document["verdict"]["passed"])

    @property
    def failed(self) -> bool:
        """Whether a rule of the gate fails."""
        return bool(self.document["verdict"]["outcome"] == "failed")

    def write(self, folder: Path) -> Path:
        """Write both to `folder/<release>/`, of networks to `finetune/` in it; return the document's path."""
        own = folder / str(self.document["release"]["name"])
        own = own / "finetune" if self.document["settings"]["mode"] == "finetune" else own
        write_table(self.predictions, own / "predictions.parquet", "predictions")
        write_json(own / "train-check.json", self.document)
        return own / "train-check.json"


def run_check(
    prepared: CheckInput,
    learner: Learner | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> CheckOutput:
    """Train all arms on all splits, score, compare and judge; a pure function of what was prepared.

    `learner` is what is trained [default: heads on frozen features].
    """
    recipe = prepared.recipe
    results = _train(prepared, learner or FrozenHeads(recipe.seed), workers, progress)
    document = without_nan(describe(results))
    gate = evaluate_rules(document, recipe.check)
    outcome = find_outcome(document, gate, recipe.check)
    document["verdict"] = {
        "outcome": outcome,
        "passed": outcome == "passed",
        "gate": gate,
        "sentences": make_sentences(document, recipe),
        "advice": advise(document, prepared.release.info),
    }
    return CheckOutput(document, _predictions(results))


def _train(prepared: CheckInput, learner: Learner, workers: int, progress: Progress | None) -> Results:
    """Train all arms of all splits, and put what they said together by scoring."""
    originals, recipe, n_first = prepared.originals, prepared.recipe, prepared.n_first
    subtypes = sorted(set(originals.column("subtype")[originals.own].tolist()))
    classes = find_classes(recipe, None if prepared.numeric else originals.labels, subtypes)
    classes = classes[:1] if learner.is_costly else classes
    heldout = [prepared.heldout] if prepared.heldout else []
    splits = {"crossfit": prepared.crossfit, "heldout": heldout, **prepared.regrouped}
    # The subtypes' classifier is read once, from the splits that score every original once.
    n_all = {"crossfit": n_first, "heldout": 1}
    plans = [
        (split, EvaluateSplit(classes if at < n_all.get(name, 0) else classes[:1], prepared.numeric, learner))
        for name, some in splits.items()
        for at, split in enumerate(some)
    ]
    evaluations = _evaluate(plans, learner, workers, progress)
    edges = originals.edges or [0.0, 100.0]
    n_bins = len(edges) - 1
    tail = metrics.tail_bins(np.bincount(originals.bin[originals.own], minlength=n_bins))[:n_bins]
    scorings = {}
    for name, some in splits.items():
        mine, n = [next(evaluations) for _ in some], n_first if name == "crossfit" else len(some)
        scorings[name] = Scoring(some, mine, n, edges, tail, recipe.seed, recipe.check.min_sd_ratio)
    both = {name: scorings.pop(name) for name in ("crossfit", "heldout")}
    found = {name: one if one.splits else None for name, one in both.items()}
    return Results(prepared, learner, classes, found, scorings)


def _evaluate(
    plans: Sequence[tuple[Split, EvaluateSplit]], learner: Learner, workers: int, progress: Progress | None
) -> Iterator[SplitEvaluation]:
    """Return what is said of each split; splits of heads are spread over threads, networks have all cores."""
    results = []
    with nullcontext() if learner.is_costly else quiet_threads():
        said = map_ordered(lambda plan: plan[1](plan[0]), plans, 1 if learner.is_costly else workers)
        for done, one in enumerate(said, 1):
            results.append(one)
            if progress:
                progress(done, len(plans))
    return iter(results)


def _predictions(results: Results) -> pa.Table:
    """Return one row per original, with what every arm and head said of it (null where not scored)."""
    prepared = results.prepared
    table = prepared.originals.table
    names = ["image_id", "source", "path", "subtype", "group_id"]
    out = table.select([*names, *({prepared.recipe.target} - set(names))])
    folds = prepared.deals[0].tolist() if prepared.deals else [-1] * len(table)
    out = out.append_column("fold", pa.array([each if each >= 0 else None for each in folds], pa.int32()))
    for name, values, rows in _columns(results):
        column = np.full(len(table), None, object)
        column[rows] = values.tolist()
        kind = pa.string() if values.dtype.kind in "UO" else pa.float64()
        out = out.append_column(name, pa.array(column, kind))
    return out


def _columns(results: Results) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, values and rows of each column: `<scoring>.<arm>.<head or classes>`."""
    for scored_on, scoring in results.scorings.items():
        if scoring is None:
            continue
        rows = results.prepared.originals.find(scoring.tests().image_id)
        for arm, said in scoring.evaluations[0].arms.items():
            for head in said.values:
                yield f"{scored_on}.{arm}.{head}", scoring.values(arm, head), rows
            for classes, variants in said.labels.items():
                name = "both" if "both" in variants else "image"
                yield f"{scored_on}.{arm}.{classes}", scoring.labels(arm, classes, name), rows
