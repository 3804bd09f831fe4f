"""train-check: can a model learn the target from this release, and did balancing help or harm?

In: a release, a backbone, and the source pictures where they are at hand. Out: one document, written to
`checks/<release>/train-check.json` (schema ``affectdata/train-check/2``), and the predictions behind it
(`predictions.parquet`: per original its fold, target, and what every arm and head said of it).

    release          id, name, recipe, target
    settings         backbone, weights, backbone_key, device, seed, n_splits; mode: frozen (with the grids of
                     the heads) or finetune (with steps, head_steps, size_px and the rest of `task.Settings`)
    versions         of the libraries that decide the numbers
    numeric, copies  whether the target is a number, and how many copies train has
    bins             edges (POMP units; null if the target is no number), labels, tail (thin bins),
                     n per bin: crossfit, heldout
    crossfit_missing null, or why there is only the held-out score
    structure.<part> problems (exact checks; a broken lineage is refused before anything is trained), text
    arms.<arm>       see `arms`; mean and subtype_mean are told nothing, and the subtype
      n_train        rows trained on, by scoring (mean over splits)
      regressor      SVR (RBF) on frozen features, a network, or the arm's constant
      ridge          ridge on the same (release and originals; frozen)
        <scoring>    crossfit: ten splits, five folds dealt twice over all originals, group-safe, every arm
                     planned anew on four of five (networks: five splits or fewer, dealt once);
                     heldout: the release's test split. null where not scored.
          r2 mse rmse mae macro_mae tail_mae ccc pearson_r sd_ratio r_within r2_within
                     each {mean: over splits, low, high: 95 % interval corrected for shared training
                     pictures, splits: [per split], pooled: over every original once}
          mae_per_bin, mae_per_subtype, per_source, mean_collapse
        chosen       hyperparameters per split, with `on_edge`: those on the edge of the grid; networks: none
      classifier.<classes>.<scoring>   (release; every arm where the target is no number)
                     <classes>: `<target>_class` (check.classes of the recipe) and (frozen) `subtype`
        labels, n    the classes, and how many originals each has
        interval     of the measures below, image and regressor's output together (or image alone)
        both, image, regressor, majority
                     accuracy, balanced_accuracy, macro_f1, calibration_error, confusion (rows: true; also
                     normalised) of the classifier on features and regressor's output; on features alone; of
                     the regressor's output, cut; of the most frequent class. `chance`: that of guessing.
    comparison       "<arm> - <arm>": per measure mean, low, high of the difference
    on_edge          arms of which the choice lies on the edge of its grid in over a quarter of the splits
    cascade          what the regressor's output adds to the classifier, second stage's R²
    leak, shift, effects, affect_of_look, probe, copies_and_target   see `leak` and `shift`
    ceiling          R² that the raters' own noise leaves room for, where SD and N are known
    subgroups        errors per age group, gender, ethnicity of the release's model, with the gap;
                     `estimated`: the sources in which a machine filled that column in
    regrouped        R² of the originals with groups that the recipe did not declare
    not_offered      manifests that could not be tried for the thin bins, and why
    curves           of networks: [{scoring, split, arm, model, points: [{step, phase, loss}]}]; model: a
                     head, or `<classes>.<input>`
    verdict          passed, gate: [{rule, outcome, text, figure, low, high, bound}], sentences, advice

A measure that is not defined (a bin without pictures, R² of one picture) is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata import metrics
from affectdata.tables import write_json, write_table
from affectdata.train.advice import advise
from affectdata.train.arms import DUPLICATES, EVEN, ORIGINALS, RELEASE, STRETCHED, WEIGHTS, WITH
from affectdata.train.evaluate import Classes, Learner, TellSplit, find_classes
from affectdata.train.features import Progress
from affectdata.train.frozen import FrozenHeads
from affectdata.train.gate import judge_all, passes_gate
from affectdata.train.heads import quiet_threads
from affectdata.train.leak import describe_leak
from affectdata.train.prepare import Prepared, Split
from affectdata.train.scores import (
    COMPARED,
    LABEL_MEASURES,
    SUBGROUPS,
    Scoring,
    estimated_in,
    score_classes,
    score_head,
    score_subgroups,
)
from affectdata.train.shift import affect_of_look, copies_and_target, describe_effects, describe_shift
from affectdata.train.structure import check_structure
from affectdata.train.verdict import say_all
from affectdata.workers import map_ordered

SCHEMA = "affectdata/train-check/2"
_VERSIONS = ("affectdata", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "torch", "torchvision")
_PAIRS = (
    (RELEASE, ORIGINALS),
    (RELEASE, EVEN),
    (RELEASE, STRETCHED),
    (RELEASE, DUPLICATES),
    (RELEASE, WEIGHTS),
    (WEIGHTS, ORIGINALS),
    (EVEN, ORIGINALS),
)
_ON_EDGE = 0.25  # share of the splits


@dataclass(frozen=True, eq=False)
class Checked:
    """The document of a check, and the predictions behind it."""

    document: dict[str, Any]
    predictions: pa.Table

    @property
    def passed(self) -> bool:
        """Whether no rule of the gate fails."""
        return bool(self.document["verdict"]["passed"])

    def write(self, folder: Path) -> Path:
        """Write both to `folder/<release>/`; return the path of the document."""
        own = folder / str(self.document["release"]["name"])
        write_table(self.predictions, own / "predictions.parquet", "predictions")
        write_json(own / "train-check.json", self.document)
        return own / "train-check.json"


def run_check(
    prepared: Prepared,
    learner: Learner[Any] | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Checked:
    """Train all arms on all splits, score, compare and judge; a pure function of what was prepared.

    `learner` is what is trained [default: heads on frozen features].
    """
    checking = _Checking(prepared, learner or FrozenHeads(prepared.recipe.seed))
    checking.train(workers, progress or (lambda _done, _of: None))
    document = _without_nan(checking.document())
    recipe = prepared.recipe
    gate = judge_all(document, recipe.check)
    document["verdict"] = {
        "passed": passes_gate(gate, recipe.check),
        "gate": gate,
        "sentences": say_all(document, recipe),
        "advice": advise(document, prepared.release.info),
    }
    return Checked(document, checking.predictions())


class _Checking:
    """One check: what was prepared, and what the arms said."""

    def __init__(self, prepared: Prepared, learner: Learner[Any]) -> None:
        self.prepared, self.learner = prepared, learner
        originals = prepared.originals
        labels = None if prepared.numeric else originals.labels
        subtypes = sorted(set(originals.column("subtype")[originals.own].tolist()))
        classes = find_classes(prepared.recipe, labels, subtypes)
        self.classes = classes[:1] if learner.is_costly else classes
        self.scorings: dict[str, Scoring | None] = {}
        self.regrouped: dict[str, Scoring] = {}

    def train(self, workers: int, progress: Progress) -> None:
        """Train all arms of all splits; splits of heads are spread over threads."""
        prepared = self.prepared
        n_first = len(prepared.crossfit) // max(1, len(prepared.deals))
        # The subtypes' classifier is read once, from the splits that score every original once.
        plans = [
            (split, self.classes if at < n_first else self.classes[:1])
            for at, split in enumerate(prepared.crossfit)
        ]
        plans += [(prepared.heldout, self.classes)] if prepared.heldout else []
        plans += [(split, self.classes[:1]) for some in prepared.regrouped.values() for split in some]
        told = []
        is_costly = self.learner.is_costly  # one split at a time, and all cores for it
        with nullcontext() if is_costly else quiet_threads():
            for done, one in enumerate(map_ordered(self._tell, plans, 1 if is_costly else workers), 1):
                told.append(one)
                progress(done, len(plans))
        n = len(prepared.crossfit)
        self.scorings["crossfit"] = self._scoring(prepared.crossfit, told[:n], n_first) if n else None
        self.scorings["heldout"] = (
            self._scoring([prepared.heldout], told[n : n + 1], 1) if prepared.heldout else None
        )
        n += 1 if prepared.heldout else 0
        for name, splits in prepared.regrouped.items():
            self.regrouped[name] = self._scoring(splits, told[n : n + len(splits)], len(splits))
            n += len(splits)

    def _tell(self, plan: tuple[Split, list[Classes]]) -> Any:
        split, classes = plan
        return TellSplit(classes, self.prepared.numeric, self.learner)(split)

    def _scoring(self, splits: Sequence[Split], told: list[Any], n_first: int) -> Scoring:
        originals = self.prepared.originals
        edges = originals.edges or [0.0, 100.0]
        counts = np.bincount(originals.bin[originals.own], minlength=len(edges) - 1)
        tail = metrics.tail_bins(counts)[: len(edges) - 1]
        return Scoring(list(splits), told, n_first, edges, tail, self.prepared.recipe.seed)

    @property
    def best(self) -> Scoring:
        """The scoring that the rules look at: cross-fitted where there is that."""
        found = self.scorings["crossfit"] or self.scorings["heldout"]
        if found is None:
            raise ValueError("nothing was scored")
        return found

    def document(self) -> dict[str, Any]:
        """Return the document without its verdict."""
        prepared = self.prepared
        crossfit, numeric = self.scorings["crossfit"], prepared.numeric
        drift = prepared.release.info.get("drift") or {}
        train = prepared.train
        return {
            "schema": SCHEMA,
            "release": _describe_release(prepared),
            "settings": {**_describe_settings(prepared), **self.learner.describe()},
            "versions": {name: version(name) for name in _VERSIONS},
            "numeric": numeric,
            "copies": int((train.copy > 0).sum()),
            "bins": self._bins(),
            "crossfit_missing": prepared.crossfit_missing,
            "structure": check_structure(
                [each for one in self.scorings.values() if one for each in one.splits]
            ),
            "arms": self._arms(),
            "comparison": self._compare(),
            "on_edge": self._on_edge(),
            "cascade": self._cascade() if numeric else None,
            "leak": describe_leak(
                self.best,
                prepared.originals,
                None if numeric else self.classes[0],
                prepared.recipe.check.max_cosine,
            ),
            "shift": describe_shift(crossfit) if crossfit and numeric else None,
            "effects": describe_effects(crossfit) if crossfit and numeric else None,
            "affect_of_look": affect_of_look(drift),
            "probe": drift.get("probe"),
            "copies_and_target": copies_and_target(train.copy > 0, train.y) if numeric else None,
            "ceiling": self._ceiling() if numeric else None,
            "subgroups": self._subgroups(),
            "regrouped": {
                name: one.interval(one.figure("r2", ORIGINALS)) for name, one in self.regrouped.items()
            }
            if numeric
            else {},
            "not_offered": prepared.not_offered,
            "curves": list(self._curves()),
        }

    def _bins(self) -> dict[str, Any]:
        originals = self.prepared.originals
        counts = {
            name: np.bincount(one.tests().stratum, minlength=len(originals.labels)).tolist() if one else None
            for name, one in self.scorings.items()
        }
        tail = self.best.tail.tolist() if originals.edges else []
        return {"edges": originals.edges, "labels": originals.labels, "tail": tail, "n": counts}

    def _arms(self) -> dict[str, Any]:
        """Return `arms.<arm>.<head or classifier>…`, as the module says."""
        arms: dict[str, Any] = {}
        for arm in self.best.told[0].arms:
            mine = {key: one if one and one.has(arm) else None for key, one in self.scorings.items()}
            arms[arm] = {
                "n_train": {
                    key: one and float(np.mean([each.arms[arm].n_train for each in one.told]))
                    for key, one in mine.items()
                }
            }
            said = self.best.told[0].arms[arm]
            for head in said.values:
                arms[arm][head] = {
                    "head": self.learner.heads[head] if arm in self.best.splits[0].arms else arm,
                    "chosen": {
                        key: one and [each.arms[arm].chosen.get(head) for each in one.told]
                        for key, one in mine.items()
                    },
                    **{key: one and score_head(one, arm, head) for key, one in mine.items()},
                }
            if said.labels:
                arms[arm]["classifier"] = {
                    classes.name: {
                        key: one and self._score_classes(one, arm, classes, first=at == 0)
                        for key, one in mine.items()
                    }
                    for at, classes in enumerate(self.classes)
                }
        return arms

    def _score_classes(self, scoring: Scoring, arm: str, classes: Classes, *, first: bool) -> dict[str, Any]:
        found = score_classes(scoring, arm, classes)
        name = "both" if "both" in found else "image"
        # Only the target's own classes are told apart in all splits.
        if first:
            found["interval"] = {
                measure: scoring.interval(scoring.label_figure(measure, arm, classes, name))
                for measure in LABEL_MEASURES
            }
        return found

    def _curves(self) -> Iterator[dict[str, Any]]:
        for scored_on, scoring in self.scorings.items():
            for number, told in enumerate(scoring.told if scoring else []):
                for arm, said in told.arms.items():
                    for model, points in said.curves.items():
                        if points:
                            where = {"scoring": scored_on, "split": number, "arm": arm, "model": model}
                            yield {**where, "points": points}

    def _compare(self) -> dict[str, Any]:
        """Return the differences between arms on the same pictures, measure by measure."""
        scoring = self.best
        pairs = [*_PAIRS, *((arm, ORIGINALS) for arm in scoring.told[0].arms if arm.startswith(WITH))]
        found = {}
        for one, other in pairs:
            if scoring.has(one) and scoring.has(other):
                found[f"{one} - {other}"] = {
                    name: scoring.interval(_difference(first, second))
                    for name, first, second in self._figures(scoring, one, other)
                }
        return found

    def _figures(self, scoring: Scoring, one: str, other: str) -> Iterator[tuple[str, Any, Any]]:
        if self.prepared.numeric:
            for name in COMPARED:
                yield name, scoring.figure(name, one), scoring.figure(name, other)
            return
        for name in LABEL_MEASURES:
            first, second = (
                scoring.label_figure(name, arm, self.classes[0], "image") for arm in (one, other)
            )
            yield name, first, second

    def _on_edge(self) -> list[str]:
        found = []
        for arm in (RELEASE, ORIGINALS, EVEN):
            if not self.best.has(arm):
                continue
            name = "regressor" if self.prepared.numeric else f"{self.classes[0].name}.image"
            chosen = [each.arms[arm].chosen.get(name, {}) for each in self.best.told]
            if sum(bool(each.get("on_edge")) for each in chosen) > _ON_EDGE * len(chosen):
                found.append(arm)
        return found

    def _cascade(self) -> dict[str, Any] | None:
        """Return what the regressor's output adds to the target's classes, and whether it was out of fold."""
        scoring = self.best
        if not self.classes or self.classes[0].thresholds is None:
            return None
        classes = self.classes[0]
        gain = {
            name: scoring.interval(
                _difference(
                    *(scoring.label_figure(name, RELEASE, classes, each) for each in ("both", "image"))
                )
            )
            for name in LABEL_MEASURES
        }
        told = [each.arms[RELEASE] for each in scoring.told]
        seen = [each.second_stage for each in told if each.second_stage is not None]
        new = [
            scoring.figure("r2", RELEASE)(at, np.arange(len(each.test)))
            for at, each in enumerate(scoring.splits)
        ]
        second, on_new = float(np.mean(seen)), float(np.nanmean(new))
        return {**gain, "second_stage": second, "on_new": on_new, "second_stage_excess": second - on_new}

    def _ceiling(self) -> float | None:
        table, target = self.prepared.originals.table, self.prepared.recipe.target
        table = table.filter(pa.array(self.prepared.originals.own))
        if (
            f"{target}_n" not in table.column_names
            or table[f"{target}_n"].null_count
            or table[f"{target}_sd"].null_count
        ):
            return None
        y, sd, n = (table[f"{target}{ending}"].to_numpy().astype(float) for ending in ("", "_sd", "_n"))
        return metrics.noise_ceiling(y, sd, n)

    def _subgroups(self) -> dict[str, Any]:
        scoring, originals = self.best, self.prepared.originals
        test = scoring.tests()
        rows = originals.find(test.image_id)
        if self.prepared.numeric:
            true, said = test.y, scoring.values(RELEASE)
        else:
            name = self.classes[0].name
            true = self.classes[0].of(test)
            said = scoring.labels(RELEASE, name, "image")
        found = {column: score_subgroups(originals.column(column)[rows], true, said) for column in SUBGROUPS}
        info = self.prepared.release.info
        return {
            column: {**each, "estimated": estimated_in(info, column)}
            for column, each in found.items()
            if each["groups"]
        }

    def predictions(self) -> pa.Table:
        """Return one row per original, with what every arm and head said of it (null where not scored)."""
        prepared = self.prepared
        table = prepared.originals.table
        names = ["image_id", "source", "path", "subtype", "group_id"]
        out = table.select([*names, *({prepared.recipe.target} - set(names))])
        folds = prepared.deals[0].tolist() if prepared.deals else [-1] * len(table)
        out = out.append_column("fold", pa.array([each if each >= 0 else None for each in folds], pa.int32()))
        for name, values, rows in self._columns():
            column: list[Any] = [None] * len(table)
            for row, value in zip(rows.tolist(), values.tolist(), strict=True):
                column[row] = value
            kind = pa.string() if values.dtype.kind in "UO" else pa.float64()
            out = out.append_column(name, pa.array(column, kind))
        return out

    def _columns(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield name, values and rows of each column: `<scoring>.<arm>.<head or classes>`."""
        for scored_on, scoring in self.scorings.items():
            if scoring is None:
                continue
            rows = self.prepared.originals.find(scoring.tests().image_id)
            for arm, said in scoring.told[0].arms.items():
                for head in said.values:
                    yield f"{scored_on}.{arm}.{head}", scoring.values(arm, head), rows
                for classes, variants in said.labels.items():
                    name = "both" if "both" in variants else "image"
                    labels = scoring.labels(arm, classes, name)
                    yield f"{scored_on}.{arm}.{classes}", labels, rows


def _difference(first: Any, second: Any) -> Any:
    return lambda at, rows: first(at, rows) - second(at, rows)


def _describe_release(prepared: Prepared) -> dict[str, Any]:
    release, recipe = prepared.release, prepared.recipe
    return {"id": release.id, "name": release.name, "recipe": recipe.name, "target": recipe.target}


def _describe_settings(prepared: Prepared) -> dict[str, Any]:
    backbone = prepared.backbone
    n_all = len({*prepared.release.table["image_id"].to_pylist()})
    return {
        "backbone": backbone.name,
        "weights": Path(backbone.weights).name,
        "backbone_key": backbone.key,
        "device": backbone.device.type,
        "seed": prepared.recipe.seed,
        "n_splits": len(prepared.crossfit),
        "n_deals": len(prepared.deals),
        "n_pictures": int((prepared.originals.kind != "offered").sum()),
        "n_pictures_of": n_all,
        "check": prepared.recipe.check.model_dump(mode="json"),
    }


def _without_nan(value: Any) -> Any:
    """Replace what is no finite number by null: JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
