"""Train every arm of a split and let it predict the originals of its test side, and what else is asked.

The arms are in `arms`; `mean` and `subtype_mean` are the two baselines that need no training. What is trained
is a `Learner`: heads on frozen features (`frozen`), or networks (`tuned`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from affectdata.check import metrics
from affectdata.check.arms import MEAN, ORIGINALS, RELEASE, STRETCHED, SUBTYPE_MEAN, stretch
from affectdata.check.prepare import Split
from affectdata.labels import class_names, cut_values
from affectdata.recipe.recipe import Recipe
from affectdata.train.heads import Fitted, refit
from affectdata.train.rows import Rows

REGRESSOR = "regressor"  # the head that every arm has, and the classifier listens to
_ALL_HEADS = (RELEASE, ORIGINALS)  # arms that have every head, and are asked about more images
_SHUFFLE = 3  # added to the seed
Curve = list[dict[str, Any]]


class Learner(Protocol):
    """What is trained on the arms. `heads`: the regressors by their name in the results, and what they are.

    What it fits says `predict(rows)`, if it is a regressor, or `shares(rows, outputs)` of its `labels`, given
    what a regressor says of the rows; `report()`, the settings that it chose; and `curve`, points of its
    training. `out_of_fold` says of every training row what a regressor like this one does that has not seen
    it; `on_features` gives the head on frozen features (of `labels`, if given) that a leak is looked for
    with. One that `is_costly` tells apart the first of the classes only, and takes one split after the other.
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

    def on_features(self, fitted: Any, train: Rows, labels: np.ndarray | None) -> Fitted: ...

    def describe(self) -> dict[str, Any]: ...


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
    """Return what there is to tell apart: the target's classes first, and the subtypes if there are several.

    `labels` are the words of a target that is no number.
    """
    found = []
    thresholds = recipe.check.classes.get(recipe.target)
    if labels is not None:
        words = np.array(labels)
        found.append(Classes(recipe.target, labels, lambda rows: words[rows.stratum]))
    elif thresholds:
        names, cut = class_names(len(thresholds)), list(thresholds)
        name = f"{recipe.target}_class"
        found.append(Classes(name, names, lambda rows: cut_values(rows.target, cut, names), thresholds))
    if recipe.target != "subtype" and len(subtypes) > 1:
        found.append(Classes("subtype", subtypes, lambda rows: rows.subtype))
    return found


@dataclass
class ArmResult:
    """What one arm says of the test originals.

    `values` by head; `probes`: the regressor's word on more images, by their name; `labels` and
    `probabilities` (n, classes) by classes and input; `chosen`: settings, and `curves` of the training, by
    head or `classes.input`; `second_stage`: the regressor's word on the training rows, as the classifier
    was trained on it.
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
    """What all arms say of one split, and two canaries: a nearest neighbour, and labels that were shuffled.

    `nearest` has the target (its class, where it is no number) of each test image's most similar training
    original; `shuffled` the true and the predicted values (words) of a training on shuffled labels.
    """

    arms: dict[str, ArmResult]
    nearest: np.ndarray
    shuffled: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True, eq=False)
class EvaluateSplit:
    """Train and ask every arm of a split. `classes`: those that are told apart here."""

    classes: list[Classes]
    numeric: bool
    learner: Learner

    def __call__(self, split: Split) -> SplitEvaluation:
        arms: dict[str, ArmResult] = {}
        fits: dict[Any, Any] = {}
        for name, train in split.arms.items():
            arms[name] = self._arm(name, train, split, fits)
        originals, test = split.arms[ORIGINALS], split.test
        truth, wanted = (
            rows.target if self.numeric else self.classes[0].of(rows) for rows in (originals, test)
        )
        if self.numeric:
            arms |= _untrained(originals, test, arms)
        shuffled = None
        if len(np.unique(truth)) > 1 or self.numeric:
            head = self._on_features(originals, truth, fits)
            shuffled = _shuffled(head, originals, test, (truth, wanted), self.learner.seed)
        return SplitEvaluation(arms, truth[most_similar(test.features, originals.features)[0]], shuffled)

    def _on_features(self, originals: Rows, truth: np.ndarray, fits: dict[Any, Any]) -> Fitted:
        """Return the head on frozen features that the originals' arm has, or one like it."""
        if self.numeric:
            return self.learner.on_features(self._regressor(originals, REGRESSOR, fits), originals, None)
        return self.learner.on_features(self._classifier(originals, truth, fits), originals, truth)

    def _regressor(self, train: Rows, head: str, fits: dict[Any, Any]) -> Any:
        """Fit a regressor, but not again where another arm has the same rows and weights."""
        key = head, train.pool_index.tobytes(), train.weight.tobytes()
        if key not in fits:
            fits[key] = self.learner.fit_regressor(train, head)
        return fits[key]

    def _classifier(self, train: Rows, labels: np.ndarray, fits: dict[Any, Any]) -> Any:
        """Fit a classifier of the image alone, but not again on the same rows, weights and labels."""
        key = labels.tobytes(), train.pool_index.tobytes(), train.weight.tobytes()
        if key not in fits:
            fits[key] = self.learner.fit_classifier(train, labels, None)
        return fits[key]

    def _arm(self, name: str, train: Rows, split: Split, fits: dict[Any, Any]) -> ArmResult:
        out, regressor = ArmResult(n_train=len(train)), None
        if self.numeric:
            heads = self.learner.heads if name in _ALL_HEADS else [REGRESSOR]
            for each in heads:
                one = self._regressor(train, each, fits)
                out.values[each] = one.predict(split.test)
                out.chosen[each], out.curves[each] = one.report(), one.curve
            regressor = self._regressor(train, REGRESSOR, fits)
            if name in _ALL_HEADS:
                out.probes = {each: regressor.predict(rows) for each, rows in split.probes.items()}
        # Where the target is a number, classes are for the cascade, and that is the release's.
        if name == RELEASE or not self.numeric:
            self._classify(train, split, regressor, out, fits)
        return out

    def _classify(
        self, train: Rows, split: Split, regressor: Any, out: ArmResult, fits: dict[Any, Any]
    ) -> None:
        """Predict classes from the image, and from the image and what the regressor says of it."""
        outputs, test = None, split.test
        if regressor:
            outputs = self.learner.out_of_fold(regressor, train), out.values[REGRESSOR]
            out.second_stage = outputs[0]
        for classes in self.classes:
            # Images that fill bins from another source have categories of their own, which are not scored.
            known = np.isin(classes.of(train), classes.labels)
            rows, labels = train.take(known), classes.of(train)[known]
            found = {"majority": np.full(len(test), _majority(classes, split))}
            if outputs and classes.thresholds:
                found["regressor"] = classes.cut(outputs[1])
            out.labels[classes.name], out.probabilities[classes.name] = found, {}
            both = {"both": (outputs[0][known], outputs[1])} if outputs else {}
            for name, (seen, new) in {"image": (None, None), **both}.items():
                if len(np.unique(labels)) == 1:
                    found[name] = np.full(len(test), labels[0])
                    continue
                if seen is None:
                    fitted = self._classifier(rows, labels, fits)
                else:
                    fitted = self.learner.fit_classifier(rows, labels, seen)
                shares = fitted.shares(test, new)
                found[name] = fitted.labels[shares.argmax(1)]
                out.probabilities[classes.name][name] = _in_order(shares, fitted.labels, classes.labels)
                key = f"{classes.name}.{name}"
                out.chosen[key], out.curves[key] = fitted.report(), fitted.curve


def _majority(classes: Classes, split: Split) -> str:
    """Return the class that most originals of a split have, on both of its sides.

    Chosen on the train side alone, of two classes of nearly equal size it is the one that the test side has
    fewer of: a baseline below the share of either, which flatters the model.
    """
    sides = (classes.of(rows) for rows in (split.arms[ORIGINALS], split.test))
    return metrics.most_frequent(np.concatenate(list(sides)))


def _in_order(shares: np.ndarray, words: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Return a column per label; 0 for those that the training rows do not have."""
    ordered = np.zeros((len(shares), len(labels)))
    for column, word in enumerate(words):
        ordered[:, list(labels).index(word)] = shares[:, column]
    return ordered


def _untrained(train: Rows, test: Rows, arms: dict[str, ArmResult]) -> dict[str, ArmResult]:
    """Return the arms that follow from the others: two baselines, and the originals stretched."""
    if RELEASE not in arms:
        return {}
    values = {
        MEAN: np.full(len(test), float(train.target.mean())),
        SUBTYPE_MEAN: metrics.subtype_means(train.target, train.subtype, test.subtype),
        STRETCHED: stretch(arms[ORIGINALS].values[REGRESSOR], arms[RELEASE].values[REGRESSOR]),
    }
    return {name: ArmResult(len(train), {REGRESSOR: said}) for name, said in values.items()}


def most_similar(x: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of `x` the row of `others` with the largest cosine, and that cosine."""
    cosine = cosines(x, others)
    at = cosine.argmax(1)
    return at, cosine[np.arange(len(x)), at]


def cosines(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of `x` and each of `others`: (len(x), len(others))."""
    a, b = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (x, others))
    return np.asarray(a @ b.T)


def _shuffled(
    fitted: Fitted, train: Rows, test: Rows, targets: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle the labels over all images of a split, fit, and predict: true (shuffled) and predicted.

    Every split has a shuffle of its own, so that an interval over splits holds the luck of shuffling.
    """
    rng = np.random.default_rng([seed + _SHUFFLE, zlib.crc32("".join(test.image_id.tolist()).encode())])
    images, at = np.unique(np.concatenate([train.image_id, test.image_id]), return_inverse=True)
    every = np.concatenate(targets)
    of_image = np.empty(len(images), every.dtype)
    of_image[at] = every
    shuffled = rng.permutation(of_image)[at]
    own, other = shuffled[: len(train)], shuffled[len(train) :]
    if len(np.unique(own)) == 1:  # by luck; there is nothing to fit
        return other, np.full(len(test), own[0])
    return other, np.asarray(refit(fitted, train, own).predict(test.features))
