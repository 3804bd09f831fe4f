"""Train every arm of a split, and predict the originals of its test side and the probe images.

The arms are in `arms`; `mean` and `subtype_mean` are the two baselines that need no training. What is trained
is a `Learner`: heads on frozen features (`train.heads`), or networks (`tuned`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from affectdata.check import metrics
from affectdata.check.arms import MEAN, ORIGINALS, RELEASE, STRETCHED, SUBTYPE_MEAN, stretch
from affectdata.check.networks import predict_network_arms
from affectdata.check.outputs import predict_output_arms
from affectdata.check.prepare import Split
from affectdata.check.subtype_aware import predict_subtype_arms
from affectdata.labels import class_names, cut_values
from affectdata.recipe.recipe import Recipe
from affectdata.train.heads import FittedHead, refit
from affectdata.train.rows import Rows

REGRESSOR = "regressor"  # the head that every arm has, and whose output the classifier takes
_ALL_HEADS = (RELEASE, ORIGINALS)  # arms that have every head, and predict the probe images too
_SHUFFLE = 3  # added to the seed
Curve = list[dict[str, Any]]


class Learner(Protocol):
    """What is trained on the arms. `heads` are the regressors: name in the results -> what it is.

    A fitted regressor has `predict(rows)`; a fitted classifier has `labels` and `shares(rows, outputs)`, the
    probabilities of its labels given a regressor's outputs for the rows. Both have `report()`, the chosen
    settings, and `curve`, points of the training.

    `out_of_fold` predicts every training row by a regressor of the same kind that was not trained on it;
    `on_features` gives the head on frozen features (of `labels`, if given) that is used to look for leaks. A
    learner that `is_costly` is trained for the first of the classes only, one split at a time.
    """

    @property
    def seed(self) -> int: ...

    @property
    def heads(self) -> Mapping[str, str]: ...

    @property
    def is_costly(self) -> bool: ...

    def fit_regressor(self, train: Rows, head: str) -> Any: ...

    def out_of_fold(self, regressor: Any, train: Rows) -> np.ndarray: ...

    def fit_classifier(self, train: Rows, labels: np.ndarray, outputs: np.ndarray | None) -> Any: ...

    def on_features(self, fitted: Any, train: Rows, labels: np.ndarray | None) -> FittedHead: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Classes:
    """What a classifier predicts: `labels`; a numeric target is cut into them at `thresholds`.

    `of` returns the label of each row. A value on the last threshold is in the class below it, one on any
    other threshold in the class above: neutral is 40–60, both included.
    """

    name: str
    labels: list[str]
    of: Callable[[Rows], np.ndarray]
    thresholds: list[float] | None = None

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Return the class of each value."""
        return cut_values(values, self.thresholds or [], self.labels)


def find_classes(recipe: Recipe, labels: list[str] | None, subtypes: list[str]) -> list[Classes]:
    """Return the classifier's targets: the target's classes first, then the subtypes if there are several.

    `labels` are those of a categorical target, None for a numeric one.
    """
    classes = []
    thresholds = recipe.check.classes.get(recipe.target)
    if labels is not None:
        label_names = np.array(labels)
        classes.append(Classes(recipe.target, labels, lambda rows: label_names[rows.stratum]))
    elif thresholds:
        names, cuts = class_names(len(thresholds)), list(thresholds)
        name = f"{recipe.target}_class"
        classes.append(Classes(name, names, lambda rows: cut_values(rows.target, cuts, names), thresholds))
    if recipe.target != "subtype" and len(subtypes) > 1:
        classes.append(Classes("subtype", subtypes, lambda rows: rows.subtype))
    return classes


@dataclass
class ArmResult:
    """One arm's predictions for the test originals.

    `values` by head; `probes`: the regressor's predictions for the probe images, by name; `labels` and
    `probabilities` (n, classes) by classes and input; `chosen` settings and training `curves` by head or
    `classes.input`; `second_stage`: the regressor's outputs for the training rows that the classifier was
    trained with.
    """

    n_train: int = 0
    values: dict[str, np.ndarray] = field(default_factory=dict)
    probes: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    probabilities: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    chosen: dict[str, dict[str, Any]] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    second_stage: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SplitEvaluation:
    """The predictions of all arms for one split, and two tests for leaks.

    `nearest` has the target (its class, if categorical) of each test image's most similar training original;
    `shuffled` the true and the predicted values (labels) after training on shuffled labels.
    """

    arms: dict[str, ArmResult]
    nearest: np.ndarray
    shuffled: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True, eq=False)
class EvaluateSplit:
    """Train every arm of a split and predict its test side. `classes` are those to classify here.

    `sources` are regressors of other manifests, by name, whose output is tried as an input.
    """

    classes: list[Classes]
    numeric: bool
    learner: Learner
    sources: Mapping[str, FittedHead] = field(default_factory=dict)

    @property
    def settings(self) -> list[Any]:
        """What determines the predictions, beside the rows."""
        classes = [[each.name, each.labels, each.thresholds] for each in self.classes]
        return [classes, self.numeric, self.learner.seed, self.learner.describe(), sorted(self.sources)]

    def __call__(self, split: Split) -> SplitEvaluation:
        arms: dict[str, ArmResult] = {}
        fits: dict[Any, Any] = {}
        for name, train in split.arms.items():
            arms[name] = self._arm(name, train, split, fits)
        originals, test = split.arms[ORIGINALS], split.test
        train_target, test_target = (
            rows.target if self.numeric else self.classes[0].of(rows) for rows in (originals, test)
        )
        if self.numeric:
            arms |= _untrained(originals, test, arms)
        if self.numeric and RELEASE in split.arms and not self.learner.is_costly:
            arms |= self._other_heads(originals, test, fits)
        shuffled = None
        if len(np.unique(train_target)) > 1 or self.numeric:
            head = self._frozen_head(originals, train_target, fits)
            targets = train_target, test_target
            shuffled = _shuffled(head, originals, test, targets, self.learner.seed)
        nearest = train_target[most_similar(test.features, originals.features)[0]]
        return SplitEvaluation(arms, nearest, shuffled)

    def _other_heads(self, train: Rows, test: Rows, fits: dict[Any, Any]) -> dict[str, ArmResult]:
        """Return the arms of another head or output, trained on the originals."""
        regressor, seed = self._regressor(train, REGRESSOR, fits), self.learner.seed
        out_of_fold = self.learner.out_of_fold(regressor, train)
        predicted = {
            **predict_subtype_arms(train, test, seed),
            **predict_network_arms(train, test, seed),
            **predict_output_arms(regressor, out_of_fold, train, test, self.sources, seed),
        }
        return {
            name: ArmResult(len(train), {REGRESSOR: values}, chosen={REGRESSOR: chosen} if chosen else {})
            for name, (values, chosen) in predicted.items()
        }

    def _frozen_head(self, originals: Rows, target: np.ndarray, fits: dict[Any, Any]) -> FittedHead:
        """Return the originals' head on frozen features; for networks, one fitted for this purpose."""
        if self.numeric:
            return self.learner.on_features(self._regressor(originals, REGRESSOR, fits), originals, None)
        return self.learner.on_features(self._classifier(originals, target, fits), originals, target)

    def _regressor(self, train: Rows, head: str, fits: dict[Any, Any]) -> Any:
        """Fit a regressor, or reuse the one of another arm with the same rows and weights."""
        key = head, train.pool_index.tobytes(), train.weight.tobytes()
        if key not in fits:
            fits[key] = self.learner.fit_regressor(train, head)
        return fits[key]

    def _classifier(self, train: Rows, labels: np.ndarray, fits: dict[Any, Any]) -> Any:
        """Fit a classifier of the image alone, or reuse the one of the same rows, weights and labels."""
        key = labels.tobytes(), train.pool_index.tobytes(), train.weight.tobytes()
        if key not in fits:
            fits[key] = self.learner.fit_classifier(train, labels, None)
        return fits[key]

    def _arm(self, name: str, train: Rows, split: Split, fits: dict[Any, Any]) -> ArmResult:
        out, regressor = ArmResult(n_train=len(train)), None
        if self.numeric:
            heads = self.learner.heads if name in _ALL_HEADS else [REGRESSOR]
            for head in heads:
                fitted = self._regressor(train, head, fits)
                out.values[head] = fitted.predict(split.test)
                out.chosen[head], out.curves[head] = fitted.report(), fitted.curve
            regressor = self._regressor(train, REGRESSOR, fits)
            if name in _ALL_HEADS:
                out.probes = {probe: regressor.predict(rows) for probe, rows in split.probes.items()}
        # With a numeric target only the release has a cascade, and classes are predicted for that alone.
        if name == RELEASE or not self.numeric:
            self._classify(train, split, regressor, out, fits)
        return out

    def _classify(
        self, train: Rows, split: Split, regressor: Any, out: ArmResult, fits: dict[Any, Any]
    ) -> None:
        """Predict classes from the image, and from the image and the regressor's output for it."""
        outputs, test = None, split.test
        if regressor:
            outputs = self.learner.out_of_fold(regressor, train), out.values[REGRESSOR]
            out.second_stage = outputs[0]
        for classes in self.classes:
            # Images that fill bins from another source have other categories, which are not scored.
            known = np.isin(classes.of(train), classes.labels)
            rows, labels = train.take(known), classes.of(train)[known]
            predictions = {"majority": np.full(len(test), _majority(classes, split))}
            if outputs and classes.thresholds:
                predictions["regressor"] = classes.cut(outputs[1])
            out.labels[classes.name], out.probabilities[classes.name] = predictions, {}
            both = {"both": (outputs[0][known], outputs[1])} if outputs else {}
            for name, (train_outputs, test_outputs) in {"image": (None, None), **both}.items():
                if len(np.unique(labels)) == 1:
                    predictions[name] = np.full(len(test), labels[0])
                    continue
                if train_outputs is None:
                    fitted = self._classifier(rows, labels, fits)
                else:
                    fitted = self.learner.fit_classifier(rows, labels, train_outputs)
                shares = fitted.shares(test, test_outputs)
                predictions[name] = fitted.labels[shares.argmax(1)]
                out.probabilities[classes.name][name] = _in_order(shares, fitted.labels, classes.labels)
                key = f"{classes.name}.{name}"
                out.chosen[key], out.curves[key] = fitted.report(), fitted.curve


def _majority(classes: Classes, split: Split) -> str:
    """Return the most frequent class among the originals of a split, train and test side together.

    If it were chosen on the train side alone, of two classes of nearly equal size it would be the one that
    the test side has fewer of: a baseline below the share of either, which flatters the model.
    """
    sides = (classes.of(rows) for rows in (split.arms[ORIGINALS], split.test))
    return metrics.most_frequent(np.concatenate(list(sides)))


def _in_order(shares: np.ndarray, fitted_labels: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return one column per label; 0 for labels that the training rows lack."""
    ordered = np.zeros((len(shares), len(labels)))
    for column, label in enumerate(fitted_labels):
        ordered[:, list(labels).index(label)] = shares[:, column]
    return ordered


def _untrained(train: Rows, test: Rows, arms: dict[str, ArmResult]) -> dict[str, ArmResult]:
    """Return the arms that need no training: two baselines, and the originals' predictions stretched."""
    if RELEASE not in arms:
        return {}
    values = {
        MEAN: np.full(len(test), float(train.target.mean())),
        SUBTYPE_MEAN: metrics.subtype_means(train.target, train.subtype, test.subtype),
        STRETCHED: stretch(arms[ORIGINALS].values[REGRESSOR], arms[RELEASE].values[REGRESSOR]),
    }
    return {name: ArmResult(len(train), {REGRESSOR: predictions}) for name, predictions in values.items()}


def most_similar(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of `queries` the most similar row of `keys` (its index), and their cosine."""
    cosine = cosines(queries, keys)
    index = cosine.argmax(1)
    return index, cosine[np.arange(len(queries)), index]


def cosines(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of `queries` and each of `keys`: (len(queries), len(keys))."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, keys))
    return np.asarray(a @ b.T)


def _shuffled(
    fitted: FittedHead, train: Rows, test: Rows, targets: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle the labels over all images of a split, fit, and predict: true (shuffled) and predicted."""
    train_target, test_target = shuffle_targets(train, test, targets, seed)
    if len(np.unique(train_target)) == 1:  # by chance; there is nothing to fit
        return test_target, np.full(len(test), train_target[0])
    return test_target, np.asarray(refit(fitted, train, train_target).predict(test.features))


def shuffle_targets(
    train: Rows, test: Rows, targets: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle targets, a row per image, over all images of a split; return those of train and of test.

    Every split has its own shuffle, so that an interval over splits includes the variation of the shuffle.
    """
    rng = np.random.default_rng([seed + _SHUFFLE, zlib.crc32("".join(test.image_id.tolist()).encode())])
    images, index = np.unique(np.concatenate([train.image_id, test.image_id]), return_inverse=True)
    every = np.concatenate(targets)
    by_image = np.empty((len(images), *every.shape[1:]), every.dtype)
    by_image[index] = every
    shuffled = rng.permutation(by_image)[index]
    return shuffled[: len(train)], shuffled[len(train) :]
