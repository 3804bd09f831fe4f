"""What studies and train-check predict, and the scores that fit it: the recipe's target, or another.

the recipe's, numeric   r2, ccc, mae, rmse, sd_ratio, macro_mae
the recipe's, classes   accuracy, balanced_accuracy, macro_f1; if classes have a polarity (`labels.MAPS`):
                        wrong_sign, the share of images with a class of the opposite one
numbers: [a, b]         a point: rmse, distance (Euclidean, mean), and rmse_<column>, ccc_<column>
multi: label            label sets, joined by "+": micro_f1, macro_f1, map (mean average precision),
                        exact_match, rmse of the probabilities
shares: true            shares of raters, all or those of a list: kl, js, top_class, rmse; with `order`, emd
polarity: true          the recipe's classes, one of the opposite polarity costs twice; scores of classes

A prediction that is the same for every image (the mean of train, its most frequent class, the mean
distribution) is the baseline. A prediction is an array with a row per image.

Rules of train-check use one `skill` for each kind: 0 for a prediction that does not depend on the image, 1
for a perfect one. It is R² over all columns of points and shares, 2 AUC - 1 averaged over the labels of
sets, and balanced accuracy above chance for classes; the last two do not suffer if labels are levelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from affectdata.check import metrics, share_metrics
from affectdata.check.image_pool import Originals
from affectdata.check.metrics import LABEL_MEASURES
from affectdata.errors import InputError
from affectdata.labels import MAPS
from affectdata.recipe.recipe import NUMERIC
from affectdata.recipe.target import TargetSpec
from affectdata.train.heads import fit_classifier, fit_regressor
from affectdata.train.losses import POLARITY_OF_CLASSES, least_cost_scores
from affectdata.train.rows import Rows
from affectdata.train.share_heads import fit_label_sets, fit_points, fit_shares

Scores = dict[str, float]
Predict = Callable[[Rows], np.ndarray]
Measure = Callable[[np.ndarray, np.ndarray], float]
Detail = dict[str, Any]
FitHeads = Callable[[Rows, np.ndarray, str | None, int], tuple[Any, Any]]
_SHARE = "emotion_"
_SUM_TOLERANCE = 1e-3  # published shares are rounded


@dataclass(frozen=True, eq=False)
class StudyTarget:
    """A target. `values` has one row per original, as the first of `losses` takes it.

    `outputs` are the names of what is predicted: numbers, or labels. `errors` are per image and `error` names
    their mean; `signs` are the polarities of classes. `details` are tables of predictions, by the name of
    their file. `encode` turns values into what the loss of a network takes. `skill` is what rules use.
    `fit_heads` returns a regressor and a classifier of codes, or None, for a model that is kept.
    """

    name: str
    originals: Originals
    values: np.ndarray
    outputs: tuple[str, ...]
    losses: tuple[str, ...]
    measures: Mapping[str, Measure]
    error: str
    errors: Measure | Callable[[np.ndarray, np.ndarray], np.ndarray]
    fit: Callable[[Rows, np.ndarray, str | None, int], Predict]
    fit_heads: FitHeads
    decode: Callable[[np.ndarray], np.ndarray] = lambda outputs: np.asarray(outputs, float)
    constant: Callable[[np.ndarray], np.ndarray] = lambda values: np.asarray(values.mean(0))
    details: Mapping[str, Callable[[np.ndarray, np.ndarray], list[Detail]]] = field(default_factory=dict)
    takes_head: bool = False
    takes_class_weights: bool = False
    signs: tuple[float, ...] | None = None
    encode: Callable[[np.ndarray], np.ndarray] = lambda values: values
    kind: Literal["recipe", "numbers", "multi", "shares", "polarity"] = "recipe"
    skill: Measure = share_metrics.r2
    skill_name: str = "R²"

    def true(self, rows: Rows) -> np.ndarray:
        """Return the values of rows."""
        return np.asarray(self.values[self.originals.find(rows.image_id)])

    def columns(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name and the values of each output, for all originals."""
        yield from zip(self.outputs, np.asarray(self.values, float).T, strict=True)

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
    if spec and spec.polarity:
        return _polarity(originals, name)
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
        (name,),
        ("squared_error", "polarity"),
        {**measures, "macro_mae": partial(metrics.macro_mae, edges=edges)},
        "mae",
        lambda true, predicted: np.abs(true - predicted),
        _fit_number,
        lambda train, _, head, seed: (fit_regressor(train, head or "svr", seed).model, None),
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
        tuple(labels),
        ("cross_entropy", POLARITY_OF_CLASSES) if both else ("cross_entropy",),
        measures,
        "accuracy",
        lambda true, predicted: np.asarray(true == predicted, float),
        _fit_classes,
        _keep_classes,
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


def _keep_classes(train: Rows, true: np.ndarray, head: str | None, seed: int) -> tuple[Any, Any]:
    if len(np.unique(true)) == 1:
        raise InputError("train has only one class, so there is no model to save")
    return None, fit_classifier(train, true, None, seed).model


def _polarity(originals: Originals, name: str) -> StudyTarget:
    """Return the target of the recipe's classes as one column per class; the largest output decides.

    Heads choose the class of least expected cost, networks are trained with the loss of Zhao et al. (2020).
    """
    plain = _classes(originals, name) if originals.edges is None else None
    if plain is None or plain.signs is None:
        raise InputError(
            f"the target {name} does not have both positive and negative classes",
            where="target.polarity",
            fix="balance by emotions, or by a recipe with `labels: {map: polarity}`",
        )

    def of_best(compute: Callable[[np.ndarray, np.ndarray], Any], *pair: np.ndarray) -> Any:
        return compute(*(each.argmax(1) for each in pair))

    accuracy = plain.measures["balanced_accuracy"]
    return replace(
        plain,
        name=f"{name} with its polarity",
        values=np.eye(len(plain.outputs))[originals.bin],
        losses=(POLARITY_OF_CLASSES,),
        measures={each: partial(of_best, compute) for each, compute in plain.measures.items()},
        errors=partial(of_best, plain.errors),
        fit=partial(_fit_polarity, np.array(plain.signs)),
        fit_heads=lambda train, true, head, seed: _keep_classes(train, true.argmax(1), head, seed),
        decode=lambda outputs: np.asarray(outputs, float),
        constant=lambda values: np.asarray(values.mean(0)),
        details={each: partial(of_best, describe) for each, describe in plain.details.items()},
        encode=lambda values: values.argmax(1),
        kind="polarity",
        skill=partial(of_best, lambda true, found: metrics.above_chance(accuracy(true, found), true)),
        skill_name="balanced accuracy above chance",
    )


def _fit_polarity(signs: np.ndarray, train: Rows, true: np.ndarray, _: str | None, seed: int) -> Predict:
    """Return a head that predicts the scores by which the class of least expected cost is chosen."""
    shares = _fit_class_shares(train, true.argmax(1), len(signs), seed)
    return lambda rows: least_cost_scores(shares(rows), signs)


def _fit_class_shares(train: Rows, codes: np.ndarray, n: int, seed: int) -> Predict:
    if len(np.unique(codes)) == 1:
        return lambda rows: np.tile(np.eye(n)[codes[0]], (len(rows), 1))
    fitted = fit_classifier(train, codes, None, seed)

    def shares(rows: Rows) -> np.ndarray:
        found = np.zeros((len(rows), n))
        found[:, fitted.labels] = fitted.shares(rows, None)
        return found

    return shares


def _plane(originals: Originals, columns: list[str]) -> StudyTarget:
    if other := [name for name in columns if name not in NUMERIC]:
        raise InputError(
            f"{', '.join(other)} cannot be predicted as a number: its scale is not 0 to 100",
            where="target.numbers",
            fix=f"columns that can: {', '.join(NUMERIC)}",
        )
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
        tuple(columns),
        ("squared_error", "polarity"),
        measures,
        "distance",
        share_metrics.plane_distances,
        lambda train, true, head, seed: fit_points(train, true, head or "svr", seed),
        lambda train, true, head, seed: (fit_points(train, true, head or "svr", seed), None),
        takes_head=True,
        kind="numbers",
    )


def _of_column(compute: Measure, number: int, true: np.ndarray, predicted: np.ndarray) -> float:
    return compute(true[:, number], predicted[:, number])


def _label_sets(originals: Originals, column: str) -> StudyTarget:
    _check_columns(originals, [column])
    if not pa.types.is_string(kind := originals.table[column].type):
        raise InputError(f"{column} has no labels: its type is {kind}", where="target.multi")
    sets = [{*words.split("+")} - {""} for words in originals.column(column).tolist()]
    labels = sorted(set[str]().union(*sets))
    if len(labels) < 2:
        raise InputError(f"{column} has fewer than two labels", where="target.multi")
    flags = np.array([[label in words for label in labels] for words in sets], int)
    return StudyTarget(
        f"sets of {column}",
        originals,
        flags,
        tuple(labels),
        ("binary",),
        {
            "micro_f1": share_metrics.micro_f1,
            "macro_f1": share_metrics.sets_macro_f1,
            "map": share_metrics.mean_average_precision,
            "exact_match": share_metrics.exact_match,
            "rmse": share_metrics.probability_rmse,
        },
        "exact_match",
        lambda true, predicted: (true == share_metrics.chosen(predicted)).all(1).astype(float),
        lambda train, true, _, seed: fit_label_sets(train, true, seed),
        lambda train, true, _, seed: (None, fit_label_sets(train, true, seed)),
        details={"labels": partial(share_metrics.per_label, labels=labels)},
        kind="multi",
        skill=share_metrics.auc_above_chance,
        skill_name="AUC above chance",
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
    if len(names) < 2:
        raise InputError(f"the release has shares of one class only, {names[0]}", where="target.shares")
    if order and {*order} != {*(known if wanted is True else wanted)}:
        raise InputError("order must name the classes of shares, each once", where="target.order")
    values = _columns(originals, [_SHARE + name for name in names])
    sums = values.sum(1)
    wrong = (values < 0).any(1) | (np.abs(sums - 1) > _SUM_TOLERANCE)
    if wrong.any():
        raise InputError(
            f"shares of {', '.join(names)} do not sum to 1 in {int(wrong.sum())} of {len(values)} images",
            where="target.shares",
            fix="where raters may choose several classes, use `multi: label` with `labels: {at_least: …}`",
        )
    measures: dict[str, Measure] = {
        "kl": share_metrics.kl,
        "js": share_metrics.js,
        "top_class": share_metrics.top_class,
        "rmse": share_metrics.probability_rmse,
    }
    return StudyTarget(
        f"shares of {', '.join(names)}",
        originals,
        values / sums[:, None],
        tuple(names),
        ("distribution",),
        {**measures, "emd": share_metrics.emd} if order else measures,
        "kl",
        share_metrics.kl_divergences,
        lambda train, true, _, seed: fit_shares(train, true, seed),
        lambda train, true, _, seed: (None, fit_shares(train, true, seed)),
        kind="shares",
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
