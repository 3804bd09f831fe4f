"""train-check: can a model learn the target from this release, and did balancing help or harm?

In: a release, a backbone, and the source pictures where they are at hand. Out: one document, written to
`checks/<release>/train-check.json` (schema ``affectdata/train-check/1``), and the predictions behind it
(`predictions.parquet`: per original its fold, target, and what every arm and head said of it).

    release          id, name, recipe, target
    settings         backbone, weights, backbone_key, device, seed, n_folds, n_resamples, grids of the heads
    versions         of the libraries that decide the numbers
    bins             edges (POMP units; null if the target is no number), labels, n per bin: crossfit, heldout
    crossfit_missing null, or why there is only the held-out score
    arms.<arm>       release: trained on the recipe's plan; originals: on the unbalanced originals;
                     mean: predicts their mean; subtype_mean: is told the subtype and predicts its mean
      n_train        rows trained on, by scoring (crossfit: mean over folds)
      regressor      SVR (RBF) on frozen features, or the arm's constant
      ridge          ridge on the same
        head         its name
        <scoring>    crossfit: five folds over all originals, group-safe, the recipe planned anew on four;
                     heldout: the release's test split. null where it could not be scored.
          r2 mse rmse mae macro_mae ccc pearson_r sd_ratio r_within r2_within
                     each {mean: over all scored originals together, folds: [per fold], sd: over the folds}
          mae_per_bin, mae_per_subtype, mean_collapse
          chosen     hyperparameters (per fold), with `on_edge`: those on the edge of the grid
      classifier.<classes>.<scoring>
                     <classes>: `<target>_class` (check.classes of the recipe) and `subtype`
        labels, n    the classes, and how many originals each has
        both, image, regressor, majority
                     accuracy, balanced_accuracy, macro_f1, confusion (rows: true) of the classifier on
                     features and regressor's output; on features alone; of the regressor's output, cut; of
                     the most frequent class. `chance` has the accuracy of guessing.
    comparison       release minus originals: scored_on, then per head and measure difference, low, high:
                     the 95 % interval
    verdict          passed, gate: [{rule, passed, text}], sentences

A measure that is not defined (a bin without pictures, R² of one picture) is null.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from affectdata.tables import write_json, write_table
from affectdata.train.compare import N_RESAMPLES, compare_arms
from affectdata.train.evaluate import (
    HEADS,
    TRAINED,
    Classes,
    Predicted,
    find_classes,
    join_folds,
    predict_split,
    score_labels,
    score_values,
)
from affectdata.train.features import Progress
from affectdata.train.heads import GRIDS, N_FOLDS, Rows, cores
from affectdata.train.prepare import Prepared
from affectdata.train.verdict import judge

SCHEMA = "affectdata/train-check/1"
_VERSIONS = ("affectdata", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "torch", "torchvision")


@dataclass(frozen=True, eq=False)
class Checked:
    """The document of a check, and the predictions behind it."""

    document: dict[str, Any]
    predictions: pa.Table

    @property
    def passed(self) -> bool:
        """Whether every rule of the gate holds."""
        return bool(self.document["verdict"]["passed"])

    def write(self, folder: Path) -> Path:
        """Write both to `folder/<release>/`; return the path of the document."""
        own = folder / str(self.document["release"]["name"])
        write_table(self.predictions, own / "predictions.parquet", "predictions")
        write_json(own / "train-check.json", self.document)
        return own / "train-check.json"


@dataclass(frozen=True, eq=False)
class Scoring:
    """What the arms say of the originals that are scored; `fold` per row where cross-fitted."""

    test: Rows
    arms: dict[str, Predicted]
    fold: np.ndarray | None


def run_check(prepared: Prepared, *, workers: int = 1, progress: Progress | None = None) -> Checked:
    """Train all arms on all folds, score, compare and judge; a pure function of what was prepared."""
    classes = _classes(prepared)
    scorings = _predict(prepared, classes, workers, progress or (lambda _done, _of: None))
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "release": _describe_release(prepared),
        "settings": _describe_settings(prepared),
        "versions": {name: version(name) for name in _VERSIONS},
        "crossfit_missing": prepared.crossfit_missing,
        "bins": _describe_bins(prepared, scorings),
        "arms": _score_arms(prepared, classes, scorings),
        "comparison": _compare(prepared, scorings),
    }
    document = _without_nan(document)
    document["verdict"] = judge(document, prepared.recipe)
    return Checked(document, _predictions(prepared, scorings))


def _classes(prepared: Prepared) -> list[Classes]:
    labels = None if prepared.numeric else prepared.originals.labels
    subtypes = sorted(set(prepared.originals.table["subtype"].fill_null("").to_pylist()))
    return find_classes(prepared.recipe, labels, subtypes)


def _predict(
    prepared: Prepared, classes: list[Classes], workers: int, progress: Progress
) -> dict[str, Scoring | None]:
    """Predict by every arm: fold by fold, then the held-out test."""
    splits = [*prepared.crossfit, *([prepared.heldout] if prepared.heldout else [])]
    parts = []
    with cores(workers):
        for done, split in enumerate(splits, 1):
            parts.append(predict_split(split, classes, prepared.numeric, prepared.recipe.seed))
            progress(done, len(splits))
    heldout = Scoring(prepared.heldout[1], parts.pop(), None) if prepared.heldout else None
    crossfit = _join(prepared, parts) if parts else None
    return {"crossfit": crossfit, "heldout": heldout}


def _join(prepared: Prepared, parts: list[dict[str, Predicted]]) -> Scoring:
    """Put the folds together, in the order of the originals."""
    tests = [test for _, test in prepared.crossfit]
    fold = np.concatenate([np.full(len(test), number) for number, test in enumerate(tests)])
    order = np.argsort(np.concatenate([test.image_id for test in tests]))
    return Scoring(Rows.concat(tests).take(order), join_folds(parts, order), fold[order])


def _describe_release(prepared: Prepared) -> dict[str, Any]:
    release, recipe = prepared.release, prepared.recipe
    return {"id": release.id, "name": release.name, "recipe": recipe.name, "target": recipe.target}


def _describe_settings(prepared: Prepared) -> dict[str, Any]:
    backbone = prepared.backbone
    return {
        "backbone": backbone.name,
        "weights": Path(backbone.weights).name,
        "backbone_key": backbone.key,
        "device": backbone.device.type,
        "seed": prepared.recipe.seed,
        "n_folds": N_FOLDS,
        "n_resamples": N_RESAMPLES,
        "grids": GRIDS,
        "classes": prepared.recipe.check.classes,
    }


def _describe_bins(prepared: Prepared, scorings: dict[str, Scoring | None]) -> dict[str, Any]:
    originals = prepared.originals
    counts = {
        name: np.bincount(scoring.test.stratum, minlength=len(originals.labels)).tolist() if scoring else None
        for name, scoring in scorings.items()
    }
    return {"edges": originals.edges, "labels": originals.labels, "n": counts}


def _score_arms(
    prepared: Prepared, classes: list[Classes], scorings: dict[str, Scoring | None]
) -> dict[str, Any]:
    """Return `arms.<arm>.<head or classifier>…`, as the module says."""
    arms: dict[str, Any] = {}
    names = next(scoring.arms for scoring in scorings.values() if scoring)
    for arm in names:
        arms[arm] = {"n_train": {key: each and each.arms[arm].n_train for key, each in scorings.items()}}
        for name in names[arm].values:
            scores = {key: each and _score_head(prepared, each, arm, name) for key, each in scorings.items()}
            arms[arm][name] = {"head": HEADS[name] if arm in TRAINED else arm, **scores}
        if arm in TRAINED:
            arms[arm]["classifier"] = {
                one.name: {key: each and _score_classes(one, each, arm) for key, each in scorings.items()}
                for one in classes
            }
    return arms


def _score_head(prepared: Prepared, scoring: Scoring, arm: str, name: str) -> dict[str, Any]:
    predicted = scoring.arms[arm]
    edges = prepared.originals.edges or []
    scores = score_values(scoring.test, predicted.values[name], edges, scoring.fold)
    return {**scores, "chosen": predicted.chosen.get(name)}


def _score_classes(classes: Classes, scoring: Scoring, arm: str) -> dict[str, Any]:
    true = classes.of(scoring.test)
    predicted = scoring.arms[arm]
    scores = {
        name: {
            **score_labels(true, labels, classes.labels),
            "chosen": predicted.chosen.get(f"{classes.name}.{name}"),
        }
        for name, labels in predicted.labels[classes.name].items()
    }
    n = [int(np.sum(true == label)) for label in classes.labels]
    chance = {"accuracy": 1 / len(classes.labels), "balanced_accuracy": 1 / len(classes.labels)}
    return {"labels": classes.labels, "n": n, **scores, "chance": chance}


def _compare(prepared: Prepared, scorings: dict[str, Scoring | None]) -> dict[str, Any] | None:
    """Compare release and originals on the same pictures: cross-fitted if there is that, else held-out."""
    edges = prepared.originals.edges
    scored_on = "crossfit" if scorings["crossfit"] else "heldout"
    scoring = scorings[scored_on]
    if edges is None or scoring is None:
        return None
    test, arms = scoring.test, scoring.arms
    heads = {
        name: compare_arms(
            test.y,
            arms["release"].values[name],
            arms["originals"].values[name],
            test.group,
            edges,
            prepared.recipe.seed,
        )
        for name in HEADS
    }
    return {"scored_on": scored_on, **heads}


def _predictions(prepared: Prepared, scorings: dict[str, Scoring | None]) -> pa.Table:
    """Return one row per original, with what every arm and head said of it (null where not scored)."""
    table = prepared.originals.table
    names = ["image_id", "source", "path", "subtype", "group_id"]
    out = table.select([*names, *({prepared.recipe.target} - set(names))])
    place = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    folds = None if prepared.folds is None else [int(each) if each >= 0 else None for each in prepared.folds]
    out = out.append_column("fold", pa.array(folds or [None] * len(table), pa.int32()))
    for name, values, rows in _columns(scorings, place):
        column: list[Any] = [None] * len(table)
        for row, value in zip(rows, values.tolist(), strict=True):
            column[row] = value
        kind = pa.string() if values.dtype.kind in "UO" else pa.float64()
        out = out.append_column(name, pa.array(column, kind))
    return out


def _columns(
    scorings: dict[str, Scoring | None], place: dict[str, int]
) -> Iterator[tuple[str, np.ndarray, list[int]]]:
    """Yield name, values and rows of each column: `<scoring>.<arm>.<head>`, `<scoring>.<arm>.<classes>`."""
    for scored_on, scoring in scorings.items():
        if scoring is None:
            continue
        rows = [place[image_id] for image_id in scoring.test.image_id]
        for arm, predicted in scoring.arms.items():
            for head, values in predicted.values.items():
                yield f"{scored_on}.{arm}.{head}", values, rows
            for classes, variants in predicted.labels.items():
                yield f"{scored_on}.{arm}.{classes}", variants.get("both", variants["image"]), rows


def _without_nan(value: Any) -> Any:
    """Replace what is no finite number by null: JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
