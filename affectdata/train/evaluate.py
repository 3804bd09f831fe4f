"""Train the heads of every arm and score them on originals: held-out, and cross-fitted over all originals.

Arms differ in the rows they are trained on: `release` (the recipe's plan), `originals` (the same pictures,
unbalanced), `mean` (the mean of those), `subtype_mean` (told the subtype of every picture).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from affectdata import metrics
from affectdata.balance.recipe import Recipe
from affectdata.labels import class_names, cut_values
from affectdata.train.heads import Rows, fit_classifier, fit_regressor, out_of_fold, with_output

HEADS = {"regressor": "svr", "ridge": "ridge"}  # name in the results: head
TRAINED = ("release", "originals")
Split = tuple[Mapping[str, Rows], Rows]  # train rows by arm, and the originals to score
Outputs = tuple[np.ndarray, np.ndarray]  # what the regressor says of the train rows, and of those to score


@dataclass(frozen=True)
class Classes:
    """What the classifier tells apart: the target's `labels`, cut by `thresholds` where it is a number.

    A value on the last threshold belongs below it, one on any other above: neutral is 40–60, both included.
    """

    name: str
    labels: list[str]
    of: Callable[[Rows], np.ndarray]
    thresholds: list[float] | None = None

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Return the class of each value."""
        return cut_values(values, self.thresholds or [], self.labels)


def find_classes(recipe: Recipe, labels: list[str] | None, subtypes: list[str]) -> list[Classes]:
    """Return what there is to tell apart: the target's classes, and the subtypes where there are several.

    `labels` are the words of a target that is no number.
    """
    found = []
    thresholds = recipe.check.classes.get(recipe.target)
    if labels is not None:
        found.append(_words(recipe.target, labels))
    elif thresholds:
        found.append(_thirds(recipe.target, thresholds))
    if recipe.target != "subtype" and len(subtypes) > 1:
        found.append(Classes("subtype", subtypes, lambda rows: rows.part))
    return found


def _words(target: str, labels: list[str]) -> Classes:
    words = np.array(labels)
    return Classes(target, labels, lambda rows: words[rows.stratum])


def _thirds(target: str, thresholds: list[float]) -> Classes:
    names = class_names(len(thresholds))
    return Classes(f"{target}_class", names, lambda rows: cut_values(rows.y, thresholds, names), thresholds)


@dataclass
class Predicted:
    """What one arm says of originals: `values` by head, `labels` by classes and input, settings `chosen`."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    n_train: int = 0


def predict_arm(train: Rows, test: Rows, classes: Sequence[Classes], numeric: bool, seed: int) -> Predicted:
    """Fit both stages on `train` and predict `test`.

    The second stage sees the picture's features and the regressor's output; it is trained on outputs that the
    regressor gave out of fold.
    """
    out = Predicted(n_train=len(train))
    outputs: Outputs | None = None
    if numeric:
        fitted = {name: fit_regressor(train, head, seed) for name, head in HEADS.items()}
        out.values = {name: np.asarray(each.model.predict(test.x)) for name, each in fitted.items()}
        out.chosen = {name: each.report() for name, each in fitted.items()}
        outputs = out_of_fold(fitted["regressor"], train, seed), out.values["regressor"]
    for each in classes:
        labels, chosen = _predict_labels(each, train, test, outputs, seed)
        out.labels[each.name] = labels
        out.chosen |= {f"{each.name}.{name}": choice for name, choice in chosen.items()}
    return out


def _predict_labels(
    classes: Classes, train: Rows, test: Rows, outputs: Outputs | None, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Predict labels from picture and regressor's output (`both`), and from each of them alone."""
    labels = classes.of(train)
    words, counts = np.unique(labels, return_counts=True)
    found = {"majority": np.full(len(test), words[np.argmax(counts)])}
    if outputs and classes.thresholds:
        found["regressor"] = classes.cut(outputs[1])
    inputs: dict[str, Any] = {"image": (None, None), **({"both": outputs} if outputs else {})}
    chosen = {}
    for name, (out_of_fold_output, output) in inputs.items():
        if len(words) == 1:
            found[name] = found["majority"]
            continue
        fitted = fit_classifier(train, labels, out_of_fold_output, seed)
        found[name] = fitted.model.predict(with_output(test.x, output))
        chosen[name] = fitted.report()
    return found, chosen


def predict_means(arms: Mapping[str, Rows], test: Rows) -> dict[str, np.ndarray]:
    """Return the two baselines: the mean of the original train rows, and their mean per subtype."""
    train = arms["originals"]
    return {
        "mean": np.full(len(test), float(train.y.mean())),
        "subtype_mean": metrics.part_means(train.y, train.part, test.part),
    }


def predict_split(split: Split, classes: Sequence[Classes], numeric: bool, seed: int) -> dict[str, Predicted]:
    """Return what every arm says of the rows to score."""
    arms, test = split
    found = {name: predict_arm(arms[name], test, classes, numeric, seed) for name in TRAINED}
    if numeric:
        for name, values in predict_means(arms, test).items():
            found[name] = Predicted({"regressor": values}, n_train=len(arms["originals"]))
    return found


def join_folds(parts: Sequence[dict[str, Predicted]], order: np.ndarray) -> dict[str, Predicted]:
    """Put the predictions of the folds behind each other and bring them into `order`."""
    return {arm: _join([part[arm] for part in parts], order) for arm in parts[0]}


def _join(parts: Sequence[Predicted], order: np.ndarray) -> Predicted:
    first = parts[0]
    return Predicted(
        values={name: np.concatenate([one.values[name] for one in parts])[order] for name in first.values},
        labels={
            name: {key: np.concatenate([one.labels[name][key] for one in parts])[order] for key in variants}
            for name, variants in first.labels.items()
        },
        chosen={name: {"folds": [one.chosen.get(name) for one in parts]} for name in first.chosen},
        n_train=round(float(np.mean([one.n_train for one in parts]))),
    )


def score_values(
    test: Rows, predicted: np.ndarray, edges: Sequence[float], fold: np.ndarray | None
) -> dict[str, Any]:
    """Return every regression measure: `mean` over all rows together, `folds` and their `sd`."""
    y, part = test.y, test.part
    measures: dict[str, Callable[[np.ndarray], float]] = {
        "r2": lambda at: metrics.r2(y[at], predicted[at]),
        "mse": lambda at: metrics.mse(y[at], predicted[at]),
        "rmse": lambda at: metrics.rmse(y[at], predicted[at]),
        "mae": lambda at: metrics.mae(y[at], predicted[at]),
        "macro_mae": lambda at: metrics.macro_mae(y[at], predicted[at], edges),
        "ccc": lambda at: metrics.ccc(y[at], predicted[at]),
        "pearson_r": lambda at: metrics.pearson_r(y[at], predicted[at]),
        "sd_ratio": lambda at: metrics.sd_ratio(y[at], predicted[at]),
        "r_within": lambda at: metrics.r_within(y[at], predicted[at], part[at]),
        "r2_within": lambda at: metrics.r2_within(y[at], predicted[at], part[at]),
    }
    return {
        **{name: _over_folds(measure, len(y), fold) for name, measure in measures.items()},
        "mae_per_bin": metrics.mae_by(metrics.bin_codes(y, edges), len(edges) - 1, y, predicted).tolist(),
        "mae_per_subtype": {
            name: metrics.mae(y[part == name], predicted[part == name]) for name in np.unique(part) if name
        },
        "mean_collapse": bool(metrics.sd_ratio(y, predicted) < metrics.MEAN_COLLAPSE),
    }


def _over_folds(
    measure: Callable[[np.ndarray], float], n_rows: int, fold: np.ndarray | None
) -> dict[str, Any]:
    value: dict[str, Any] = {"mean": measure(np.arange(n_rows)), "sd": None}
    if fold is not None and len(np.unique(fold)) > 1:
        each = [measure(np.flatnonzero(fold == one)) for one in np.unique(fold)]
        value |= {"sd": float(np.std(each, ddof=1)), "folds": each}
    return value


def score_labels(true: np.ndarray, predicted: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Return every measure of labels; rows of the confusion matrix are the true ones."""
    return {
        "accuracy": metrics.accuracy(true, predicted),
        "balanced_accuracy": metrics.balanced_accuracy(true, predicted),
        "macro_f1": metrics.macro_f1(true, predicted),
        "confusion": metrics.confusion(true, predicted, labels).tolist(),
    }
