"""What a study predicts, and the scores that fit it: the recipe's target, or its own (`target` of the study).

the recipe's, numeric   r2, ccc, mae, rmse, sd_ratio, macro_mae
the recipe's, classes   accuracy, balanced_accuracy, macro_f1; if classes have a polarity (`labels.MAPS`):
                        wrong_sign, the share of images with a class of the opposite one
numbers: [a, b]         a point: rmse, distance (Euclidean, mean), and rmse_<column>, ccc_<column>
multi: label            label sets, joined by "+": micro_f1, macro_f1, map (mean average precision),
                        exact_match
shares: true            shares of raters, all or those of a list: kl, js, top_class; with `order`, emd over it

A prediction that is the same for every image (the mean of train, its most frequent class, the mean
distribution) is the baseline. A prediction is an array with a row per image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from affectdata.check import metrics, share_metrics
from affectdata.check.image_pool import Originals
from affectdata.check.metrics import LABEL_MEASURES
from affectdata.config import StrictModel
from affectdata.errors import InputError
from affectdata.labels import MAPS
from affectdata.train.heads import fit_classifier, fit_regressor
from affectdata.train.rows import Rows
from affectdata.train.share_heads import fit_label_sets, fit_shares

Scores = dict[str, float]
Predict = Callable[[Rows], np.ndarray]
Measure = Callable[[np.ndarray, np.ndarray], float]
Detail = dict[str, Any]
LOWER_IS_BETTER = ("mae", "macro_mae", "rmse", "distance", "kl", "js", "emd", "wrong_sign")
_SHARE = "emotion_"
_SUM_TOLERANCE = 1e-3  # published shares are rounded
_Names = Annotated[list[str], Field(min_length=2)]


def lower_is_better(measure: str) -> bool:
    """Say whether a measure of a study is an error or a gap."""
    return measure in LOWER_IS_BETTER or measure.startswith("rmse_") or measure.endswith("_gap")


class TargetSpec(StrictModel):
    """A study's own target: exactly one of these."""

    numbers: _Names | None = None
    multi: str | None = None
    shares: Literal[True] | _Names | None = None
    order: _Names | None = None

    @model_validator(mode="after")
    def _one_target(self) -> TargetSpec:
        if sum(value is not None for value in (self.numbers, self.multi, self.shares)) != 1:
            raise ValueError("give exactly one of numbers, multi, shares")
        if self.order and not self.shares:
            raise ValueError("order is of shares")
        return self


@dataclass(frozen=True, eq=False)
class StudyTarget:
    """A target. `values` has one row per original, as the first of `losses` takes it.

    `errors` are per image and `error` names their mean; `signs` are the polarities of classes. `details` are
    tables of predictions, by the name of their file.
    """

    name: str
    originals: Originals
    values: np.ndarray
    n_outputs: int
    losses: tuple[str, ...]
    measures: Mapping[str, Measure]
    error: str
    errors: Measure | Callable[[np.ndarray, np.ndarray], np.ndarray]
    fit: Callable[[Rows, np.ndarray, str | None, int], Predict]
    decode: Callable[[np.ndarray], np.ndarray] = lambda outputs: np.asarray(outputs, float)
    constant: Callable[[np.ndarray], np.ndarray] = lambda values: np.asarray(values.mean(0))
    details: Mapping[str, Callable[[np.ndarray, np.ndarray], list[Detail]]] = field(default_factory=dict)
    takes_head: bool = False
    takes_class_weights: bool = False
    signs: tuple[float, ...] | None = None

    def true(self, rows: Rows) -> np.ndarray:
        """Return the values of rows."""
        return np.asarray(self.values[self.originals.find(rows.image_id)])

    def score(self, rows: Rows, predicted: np.ndarray) -> Scores:
        """Return every measure."""
        true = self.true(rows)
        return {name: compute(true, predicted) for name, compute in self.measures.items()}

    def baseline(self, train: Rows, n: int) -> np.ndarray:
        """Return the prediction for `n` images that does not depend on them."""
        return np.repeat(np.asarray(self.constant(self.true(train)))[None], n, axis=0)


def find_target(originals: Originals, name: str, spec: TargetSpec | None) -> StudyTarget:
    """Return the target of a study; `name` is the recipe's.

    Raises:
        InputError: a column is missing, or has no value in some rows, or shares do not sum to 1.
    """
    if spec and spec.numbers:
        return _plane(originals, spec.numbers)
    if spec and spec.multi:
        return _label_sets(originals, spec.multi)
    if spec:
        return _shares(originals, spec.shares, spec.order)
    return _number(originals, name) if originals.edges is not None else _classes(originals, name)


def _number(originals: Originals, name: str) -> StudyTarget:
    edges = originals.edges or []
    measures = {each: metrics.MEASURES[each][0] for each in ("r2", "ccc", "mae", "rmse", "sd_ratio")}
    return StudyTarget(
        name,
        originals,
        originals.target,
        1,
        ("squared_error", "polarity"),
        {**measures, "macro_mae": partial(metrics.macro_mae, edges=edges)},
        "mae",
        lambda true, predicted: np.abs(true - predicted),
        _fit_number,
        decode=lambda outputs: np.asarray(outputs[:, 0], float),
        takes_head=True,
    )


def _fit_number(train: Rows, true: np.ndarray, head: str | None, seed: int) -> Predict:
    return fit_regressor(train, head or "svr", seed).predict


def _classes(originals: Originals, name: str) -> StudyTarget:
    labels = originals.labels
    names = np.array(labels)
    signs = tuple(_sign(label) for label in labels)
    both = {*signs} >= {1.0, -1.0}
    measures: dict[str, Measure] = {
        each: partial(lambda compute, true, predicted: compute(names[true], names[predicted]), compute)
        for each, compute in LABEL_MEASURES.items()
    }
    if both:
        sign = np.array(signs)
        measures["wrong_sign"] = lambda true, predicted: float((sign[true] * sign[predicted] < 0).mean())

    def confusion(true: np.ndarray, predicted: np.ndarray) -> list[Detail]:
        counts = metrics.confusion(names[true], names[predicted], labels).tolist()
        return [
            {"true": labels[row], "predicted": label, "n": n}
            for row, line in enumerate(counts)
            for label, n in zip(labels, line, strict=True)
        ]

    return StudyTarget(
        name,
        originals,
        originals.bin,
        len(labels),
        ("cross_entropy", "polarity_cross_entropy") if both else ("cross_entropy",),
        measures,
        "accuracy",
        lambda true, predicted: np.asarray(true == predicted, float),
        _fit_classes,
        decode=lambda outputs: np.asarray(outputs.argmax(1)),
        constant=lambda values: np.asarray(np.bincount(values).argmax()),
        details={"confusion": confusion},
        takes_class_weights=True,
        signs=signs if both else None,
    )


def _sign(label: str) -> float:
    """Return 1 of a positive class, -1 of a negative one, 0 of any other, and of a set of both."""
    found = {MAPS["polarity"].class_of.get(word, "") for word in label.split("+")} | {label}
    return float(("positive" in found) - ("negative" in found))


def _fit_classes(train: Rows, true: np.ndarray, head: str | None, seed: int) -> Predict:
    if len(np.unique(true)) == 1:
        return lambda rows: np.full(len(rows), true[0])
    fitted = fit_classifier(train, true, None, seed)
    return lambda rows: fitted.labels[fitted.shares(rows, None).argmax(1)]


def _plane(originals: Originals, columns: list[str]) -> StudyTarget:
    values = _columns(originals, columns)
    measures: dict[str, Measure] = {
        "rmse": lambda true, predicted: metrics.rmse(true.ravel(), predicted.ravel()),
        "distance": share_metrics.plane_distance,
    }
    for number, column in enumerate(columns):
        for each in ("rmse", "ccc"):
            compute = metrics.MEASURES[each][0]
            measures[f"{each}_{column}"] = partial(_of_column, compute, number)
    return StudyTarget(
        " and ".join(columns),
        originals,
        values,
        len(columns),
        ("squared_error", "polarity"),
        measures,
        "distance",
        share_metrics.plane_distances,
        _fit_columns,
        takes_head=True,
    )


def _of_column(compute: Measure, number: int, true: np.ndarray, predicted: np.ndarray) -> float:
    return compute(true[:, number], predicted[:, number])


def _fit_columns(train: Rows, true: np.ndarray, head: str | None, seed: int) -> Predict:
    fitted = [fit_regressor(train.with_target(column), head or "svr", seed) for column in true.T]
    return lambda rows: np.column_stack([each.predict(rows) for each in fitted])


def _label_sets(originals: Originals, column: str) -> StudyTarget:
    _check_columns(originals, [column])
    sets = [{*words.split("+")} - {""} for words in originals.column(column).tolist()]
    labels = sorted(set[str]().union(*sets))
    if len(labels) < 2:
        raise InputError(f"{column} has fewer than two labels", where="target.multi")
    flags = np.array([[label in words for label in labels] for words in sets], int)
    return StudyTarget(
        f"sets of {column}",
        originals,
        flags,
        len(labels),
        ("binary",),
        {
            "micro_f1": share_metrics.micro_f1,
            "macro_f1": share_metrics.sets_macro_f1,
            "map": share_metrics.mean_average_precision,
            "exact_match": share_metrics.exact_match,
        },
        "exact_match",
        lambda true, predicted: (true == share_metrics.chosen(predicted)).all(1).astype(float),
        lambda train, true, _, seed: fit_label_sets(train, true, seed),
        details={"labels": partial(share_metrics.per_label, labels=labels)},
    )


def _shares(originals: Originals, wanted: Any, order: list[str] | None) -> StudyTarget:
    known = [name.removeprefix(_SHARE) for name in originals.table.column_names if name.startswith(_SHARE)]
    if not known:
        raise InputError(
            "the release has no shares of raters: no column emotion_…",
            where="target.shares",
            fix="ingest the votes of the raters, or their shares, with a column map",
        )
    names = order or (known if wanted is True else wanted)
    if order and {*order} != {*(known if wanted is True else wanted)}:
        raise InputError("order must name the classes of shares, each once", where="target.order")
    values = _columns(originals, [_SHARE + name for name in names])
    sums = values.sum(1)
    wrong = (values < 0).any(1) | (np.abs(sums - 1) > _SUM_TOLERANCE)
    if len(names) < 2 or wrong.any():
        raise InputError(
            f"shares of {', '.join(names)} do not sum to 1 in {int(wrong.sum())} of {len(values)} images",
            where="target.shares",
            fix="where raters may choose several classes, use `multi: label` with `labels: {at_least: …}`",
        )
    measures = {"kl": share_metrics.kl, "js": share_metrics.js, "top_class": share_metrics.top_class}
    return StudyTarget(
        f"shares of {', '.join(names)}",
        originals,
        values / sums[:, None],
        len(names),
        ("distribution",),
        {**measures, "emd": share_metrics.emd} if order else measures,
        "kl",
        share_metrics.kl_divergences,
        lambda train, true, _, seed: fit_shares(train, true, seed),
    )


def _check_columns(originals: Originals, columns: list[str]) -> None:
    table = originals.table
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise InputError(f"the release has no column {', '.join(missing)}", where="target")
    for name in columns:
        if table[name].null_count:
            raise InputError(
                f"{name} is null in {table[name].null_count} of {len(table)} images",
                where="target",
                fix=f"balance by a recipe with `where: {name} IS NOT NULL`",
            )


def _columns(originals: Originals, columns: list[str]) -> np.ndarray:
    """Return some columns as numbers (n, columns)."""
    _check_columns(originals, columns)
    kinds = {name: originals.table[name].type for name in columns}
    text = [
        name for name, kind in kinds.items() if not (pa.types.is_floating(kind) or pa.types.is_integer(kind))
    ]
    if text:
        raise InputError(f"{', '.join(text)} is not numeric", where="target.numbers")
    return np.column_stack([np.asarray(originals.table[name].to_numpy(), float) for name in columns])
