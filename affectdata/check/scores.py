"""Scores: the arms' predictions for originals, measured split by split, with confidence intervals.

If originals of several sources are scored, a measure is computed within each source and averaged: pooled over
sources, a model that only recognises the source would score.

Intervals over several splits are corrected for overlapping training sets (Nadeau and Bengio (2003), Inference
for the generalization error, Machine Learning 52, section 3): the variance of their mean is s² (1/J +
n_test/n_train), three to four times that of independent splits. On one split: the paired bootstrap of Efron
and Tibshirani (1993), An introduction to the bootstrap, ch. 8 and 13. Groups are resampled, because their
images are not independent, and within bins, because otherwise one resample in five has an empty bin. That
interval does not cover the variation between training sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from affectdata.check import blocks, metrics
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.blocks import Interval
from affectdata.check.evaluate import Classes, SplitEvaluation
from affectdata.check.image_pool import Originals
from affectdata.check.metrics import LABEL_MEASURES
from affectdata.check.prepare import Split
from affectdata.check.study_targets import Measure, StudyTarget
from affectdata.plan.cells import column_bins
from affectdata.recipe.recipe import Recipe
from affectdata.train.rows import Rows

Figure = Callable[[int, np.ndarray], float]  # split number, row numbers of its test side (which may repeat)
COMPARED = ("r2", "ccc", "mae", "macro_mae", "tail_mae")
SUBGROUPS = ("age_group", "gender", "ethnicity")
LEAST_SUBGROUP = 30  # images; smaller subgroups are not reported
LEVEL = 0.95
N_RESAMPLES = 1000


def corrected_interval(values: Sequence[float], n_test: float, n_train: float) -> Interval:
    """Return mean and 95 % interval of a figure over several splits, without undefined ones.

    `n_test` and `n_train` are the numbers of originals of a split. A single figure has no interval.
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return Interval(mean=None, low=None, high=None)
    mean = float(known.mean())
    if len(known) < 2:
        return Interval(mean=mean, low=None, high=None)
    variance = known.var(ddof=1) * (1 / len(known) + n_test / n_train)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(known) - 1) * np.sqrt(variance))
    return Interval(mean=mean, low=mean - reach, high=mean + reach)


def bootstrap_interval(
    figure: Callable[[np.ndarray], float], group: np.ndarray, bins: np.ndarray, seed: int
) -> Interval:
    """Return a figure over all rows and its 95 % interval; `figure` takes row numbers, which may repeat."""
    resampled = [figure(rows) for rows in resample_groups(group, bins, seed, N_RESAMPLES)]
    mean = figure(np.arange(len(group)))
    finite = np.array(resampled)[np.isfinite(resampled)]
    if not len(finite):
        return Interval(mean=mean, low=None, high=None)
    low, high = np.quantile(finite, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Interval(mean=mean, low=float(low), high=float(high))


def resample_groups(group: np.ndarray, bins: np.ndarray, seed: int, n: int) -> Iterator[np.ndarray]:
    """Yield row numbers of `n` bootstrap resamples of whole groups, drawn within the bins."""
    names, code = np.unique(group, return_inverse=True)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    home = _home_bins(code, bins, len(names))
    by_bin = [np.flatnonzero(home == code) for code in np.unique(home)]
    rng = np.random.default_rng(seed)
    for _ in range(n):
        groups = np.concatenate([rng.choice(in_bin, len(in_bin)) for in_bin in by_bin])
        yield np.concatenate([members[group] for group in groups])


def _home_bins(code: np.ndarray, bins: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the bin that most rows of each group are in."""
    counts = np.zeros((n_groups, int(bins.max()) + 1), np.int64)
    np.add.at(counts, (code, bins), 1)
    return np.asarray(counts.argmax(1))


@dataclass(frozen=True, eq=False)
class Scoring:
    """Splits with the predictions of all arms. `crossfit`: ten splits; `heldout`: the release's test split.

    The first `n_first` splits score every original once.
    """

    splits: list[Split]
    evaluations: list[SplitEvaluation]
    n_first: int
    edges: list[float]
    tail: np.ndarray
    seed: int = 0
    min_sd_ratio: float = 0.0  # of the recipe; a lower ratio is a mean collapse
    target: StudyTarget | None = None  # what is predicted, if not the recipe's target

    @property
    def measures(self) -> dict[str, Measure]:
        """The measures of the target in `target`, its skill first."""
        return {"skill": self.target.skill, **self.target.measures} if self.target else {}

    def interval(self, figure: Figure) -> Interval:
        """Return mean and interval of a figure over the splits; for one split over its resampled groups."""
        if len(self.splits) == 1:
            test = self.splits[0].test
            return bootstrap_interval(lambda rows: figure(0, rows), test.group, test.stratum, self.seed)
        values = [figure(number, np.arange(len(split.test))) for number, split in enumerate(self.splits)]
        n_test = float(np.mean([len(split.test) for split in self.splits]))
        n_train = float(np.mean([len(split.arms[ORIGINALS]) for split in self.splits]))
        return corrected_interval(values, n_test, n_train)

    def measure(self, name: str, test: Rows, predicted: np.ndarray) -> float:
        """Return a measure of the predictions for some rows."""
        if self.target:
            true, of_target = self.target.true(test), self.measures[name]
            return by_source(test.source, lambda part: of_target(true[part], predicted[part]))
        compute, needs = metrics.MEASURES[name]

        def on(part: np.ndarray) -> float:
            rows = test.take(part)
            known = {"edges": self.edges, "tail": self.tail, "subtypes": rows.subtype}
            return compute(rows.target, predicted[part], **{need: known[need] for need in needs})

        return by_source(test.source, on)

    def figure(self, measure: str, arm: str, head: str = "regressor") -> Figure:
        """Return a measure of one arm's values as a figure."""

        def figure(number: int, rows: np.ndarray) -> float:
            predicted = self.evaluations[number].arms[arm].values[head][rows]
            return self.measure(measure, self._tests[number].take(rows), predicted)

        return figure

    def label_figure(self, measure: str, arm: str, classes: Classes, name: str) -> Figure:
        """Return a measure of one arm's labels as a figure."""

        def figure(number: int, rows: np.ndarray) -> float:
            test = self._tests[number].take(rows)
            predicted = self.evaluations[number].arms[arm].labels[classes.name][name][rows]
            return label_measure(measure, test.source, classes.of(test), predicted)

        return figure

    def mean(self, figure: Figure, source: str | None = None) -> float:
        """Return the mean of a figure over the splits, for all originals or those of one source."""
        by_split = [np.arange(len(split.test)) for split in self.splits]
        if source is not None:
            by_split = [np.flatnonzero(split.test.source == source) for split in self.splits]
        values = [figure(number, rows) for number, rows in enumerate(by_split) if len(rows)]
        finite = [value for value in values if np.isfinite(value)]
        return float(np.mean(finite)) if finite else float("nan")

    def for_classes(self, classes: Classes) -> Scoring:
        """Return the scoring of the splits in which these classes are predicted (all, or the first ones)."""
        n = sum(classes.name in result.arms[RELEASE].labels for result in self.evaluations)
        return replace(self, splits=self.splits[:n], evaluations=self.evaluations[:n])

    def has(self, arm: str) -> bool:
        """Return whether every split has an arm."""
        return all(arm in result.arms for result in self.evaluations)

    def tests(self) -> Rows:
        """Return every scored original once, in the order of the splits."""
        return Rows.concat(self._tests[: self.n_first])

    @cached_property
    def _tests(self) -> list[Rows]:
        """The test rows of every split, without features, which would take most of a bootstrap's time."""
        return [split.test.without_features() for split in self.splits]

    def values(self, arm: str, head: str = "regressor") -> np.ndarray:
        """Return the predictions of an arm's head for every scored original, in the order of `tests`."""
        return np.concatenate([result.arms[arm].values[head] for result in self._first])

    def labels(self, arm: str, classes: str, name: str) -> np.ndarray:
        """Return the predicted labels of an arm, in the order of `tests`."""
        return np.concatenate([result.arms[arm].labels[classes][name] for result in self._first])

    def probabilities(self, arm: str, classes: str, name: str) -> np.ndarray | None:
        """Return the probabilities of the classes (n, classes); None if a split has none."""
        by_split = [result.arms[arm].probabilities[classes].get(name) for result in self._first]
        known = [probabilities for probabilities in by_split if probabilities is not None]
        return np.concatenate(known) if len(known) == len(by_split) else None

    @property
    def _first(self) -> list[SplitEvaluation]:
        return self.evaluations[: self.n_first]


def by_source(source: np.ndarray, measure: Callable[[np.ndarray], float]) -> float:
    """Return a measure averaged over the sources of the rows; `measure` takes one boolean per row."""
    values = [measure(source == name) for name in np.unique(source)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def label_measure(name: str, source: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> float:
    """Return a measure of labels, averaged over the sources."""
    compute = LABEL_MEASURES[name]
    return by_source(source, lambda part: compute(true[part], predicted[part]))


def score_head(scoring: Scoring, arm: str, head: str) -> blocks.HeadScores:
    """Return every measure of one arm's values, errors per bin and per subtype, and figures per source."""
    test, predicted = scoring.tests(), scoring.values(arm, head)
    measures: dict[str, Any] = {}
    for name in metrics.MEASURES:
        figure = scoring.figure(name, arm, head)
        splits = [figure(number, np.arange(len(split.test))) for number, split in enumerate(scoring.splits)]
        # One split has an interval too, but nobody reads a bootstrap of every measure of every arm.
        several = len(splits) > 1
        over = scoring.interval(figure) if several else Interval(mean=splits[0], low=None, high=None)
        pooled = scoring.measure(name, test, predicted)
        measures[name] = blocks.Figure(**over.to_dict(), splits=splits, pooled=pooled)
    n_bins = len(scoring.edges) - 1
    per_bin = metrics.mae_by(metrics.bin_codes(test.target, scoring.edges), n_bins, test.target, predicted)
    sd_ratio = measures["sd_ratio"].mean
    return blocks.HeadScores(
        mean_collapse=sd_ratio is not None and sd_ratio < scoring.min_sd_ratio,
        mae_per_bin=per_bin.tolist(),
        mae_per_subtype={
            name: metrics.mae(test.target[rows], predicted[rows])
            for name, rows in groups_of(test.subtype)
            if name
        },
        per_source=score_per_source(
            scoring, {name: scoring.figure(name, arm, head) for name in ("r2", "ccc", "mae", "sd_ratio")}
        ),
        **measures,
    )


def score_per_source(scoring: Scoring, figures: Mapping[str, Figure]) -> dict[str, blocks.SourceScores]:
    """Return by source the number of scored originals, and the mean of each figure over the splits."""
    scores = {}
    for source, rows in groups_of(scoring.tests().source):
        means: dict[str, Any] = {name: scoring.mean(figure, source) for name, figure in figures.items()}
        scores[source] = blocks.SourceScores(n=int(rows.sum()), **means)
    return scores


def groups_of(values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every value, and whether each row has it."""
    for value in np.unique(values).tolist():
        yield value, values == value


def score_classes(scoring: Scoring, arm: str, classes: Classes) -> blocks.ClassScores:
    """Return the measures of one arm's labels, by input (image, both, regressor, majority), and chance.

    Measures are means over the splits, with the `interval` of the input that knows most; those of the
    majority, and chance, are over every original once.
    """
    scoring = scoring.for_classes(classes)
    true, source = classes.of(scoring.tests()), scoring.tests().source
    inputs: Any = {
        name: _score_labels(scoring, arm, classes, name)
        for name in scoring.evaluations[0].arms[arm].labels[classes.name]
    }
    best = "both" if "both" in inputs else "image"
    chance = by_source(source, lambda part: metrics.chance(true[part]))
    return blocks.ClassScores(
        labels=classes.labels,
        n=[int((true == label).sum()) for label in classes.labels],
        interval={
            measure: scoring.interval(scoring.label_figure(measure, arm, classes, best))
            for measure in LABEL_MEASURES
        },
        chance={"accuracy": chance, "balanced_accuracy": chance},
        **inputs,
    )


def _score_labels(scoring: Scoring, arm: str, classes: Classes, name: str) -> blocks.LabelScores:
    """Return the measures of the labels that one arm predicts from one input."""
    true, predicted = classes.of(scoring.tests()), scoring.labels(arm, classes.name, name)
    figures = {measure: scoring.label_figure(measure, arm, classes, name) for measure in LABEL_MEASURES}
    measures: dict[str, Any] = {measure: scoring.mean(figure) for measure, figure in figures.items()}
    if name == "majority":
        source = scoring.tests().source
        measures = {measure: label_measure(measure, source, true, predicted) for measure in LABEL_MEASURES}
    probabilities = scoring.probabilities(arm, classes.name, name)
    if probabilities is not None:
        measures["calibration_error"] = metrics.calibration_error(true, probabilities, classes.labels)
    counts = metrics.confusion(true, predicted, classes.labels)
    return blocks.LabelScores(
        accuracy_per_source={
            source: scoring.mean(figures["accuracy"], source)
            for source, _ in groups_of(scoring.tests().source)
        },
        confusion=counts.tolist(),
        confusion_normalised=(counts / np.maximum(counts.sum(1, keepdims=True), 1)).tolist(),
        **measures,
    )


def mean_interval(values: np.ndarray, rows: Rows, seed: int) -> Interval:
    """Return the mean of a value per row, with its interval over resampled groups."""
    return bootstrap_interval(lambda index: float(values[index].mean()), rows.group, rows.stratum, seed)


def score_subgroups(
    values: np.ndarray,
    test: Rows,
    measure: Any,
    per_image: np.ndarray,
    seed: int,
    estimated: Sequence[str] = (),
    deviation: np.ndarray | None = None,
) -> blocks.Subgroups:
    """Return the mean of `per_image`, named `measure`, per value of a column, and the largest gap.

    Intervals are over resampled groups of the images `test`. Values of fewer than `LEAST_SUBGROUP` images
    have no figure; `too_few` has their sizes. `estimated` are the sources in which a machine filled in the
    column; the mean of `deviation`, if given, is the bias.
    """
    groups, too_few, figures = {}, {}, []
    for name, rows in groups_of(values):
        n = int(rows.sum())
        if name and n < LEAST_SUBGROUP:
            too_few[name] = n
        elif name:
            interval = mean_interval(per_image[rows], test.take(rows), seed)
            figure: dict[str, Any] = {measure: interval.mean}
            if deviation is not None:
                figure["bias"] = float(deviation[rows].mean())
            groups[name] = blocks.Subgroup(n=n, interval=interval, **figure)
            figures.append(float(per_image[rows].mean()))
    return blocks.Subgroups(
        measure=measure,
        groups=groups,
        gap=max(figures) - min(figures) if figures else None,
        too_few=too_few,
        estimated=list(estimated),
    )


def subgroup_values(originals: Originals, recipe: Recipe) -> dict[str, np.ndarray]:
    """Return the columns by which people are grouped, "" for null.

    Ages are grouped by the recipe's bins if it has some; `subtype` is a column unless it is the target.
    """
    columns = {name: originals.column(name) for name in SUBGROUPS}
    bins = recipe.strata_bins.get("age")
    if bins:
        columns["age_group"] = column_bins(originals.table, "age", bins, originals.own)
    if recipe.target != "subtype":
        columns["subtype"] = originals.column("subtype")
    return columns


def estimated_in(info: Mapping[str, Any], column: str) -> list[str]:
    """Return the sources of a release (`info`: its release.json) in which a machine filled a column in."""
    return [manifest["source"] for manifest in info["manifests"] if column in manifest.get("estimated", [])]
