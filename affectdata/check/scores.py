"""Scores: what the arms say of originals, measured split by split, with intervals.

Where originals of several sources are scored, a measure is taken within each source and averaged over them:
pooled over sources, a model that only tells the sources apart would score.

Intervals over several splits: Nadeau and Bengio (2003), Inference for the generalization error, Machine
Learning 52, section 3: the splits share training images, so the variance of their mean is s² (1/J +
n_test/n_train), three to four times that of independent splits. On one split: the paired bootstrap of Efron
and Tibshirani (1993), An introduction to the bootstrap, ch. 8 and 13: groups are drawn, because their images
are not independent, and within bins, because one resample in five has an empty bin otherwise. That interval
does not cover what other training images would do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from affectdata.check import metrics
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.evaluate import Classes, SplitEvaluation
from affectdata.check.prepare import Split
from affectdata.train.rows import Rows

Figure = Callable[[int, np.ndarray], float]  # split number, rows of its test side (which may repeat)
COMPARED = ("r2", "ccc", "mae", "macro_mae", "tail_mae")
LABEL_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")
SUBGROUPS = ("age_group", "gender", "ethnicity")
LEAST_SUBGROUP = 30  # images, below which nothing is said of a subgroup
LEVEL = 0.95
N_RESAMPLES = 1000
Interval = dict[str, float]  # mean, low, high


def corrected_interval(values: Sequence[float], n_test: float, n_train: float) -> Interval:
    """Return mean and 95 % interval of a figure of several splits; undefined figures are left out.

    `n_test` and `n_train` are the originals of a split. One figure alone has no interval (NaN).
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return {"mean": np.nan, "low": np.nan, "high": np.nan}
    mean = float(known.mean())
    if len(known) < 2:
        return {"mean": mean, "low": np.nan, "high": np.nan}
    variance = known.var(ddof=1) * (1 / len(known) + n_test / n_train)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(known) - 1) * np.sqrt(variance))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def bootstrap_interval(
    figure: Callable[[np.ndarray], float], group: np.ndarray, bins: np.ndarray, seed: int
) -> Interval:
    """Return a figure of all rows and its 95 % interval; `figure` takes row numbers, which may repeat."""
    names, code = np.unique(group, return_inverse=True)
    members = np.split(np.argsort(code, kind="stable"), np.cumsum(np.bincount(code))[:-1])
    home = _home_bins(code, bins, len(names))
    kept = [np.flatnonzero(home == each) for each in np.unique(home)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(N_RESAMPLES):
        groups = np.concatenate([rng.choice(each, len(each)) for each in kept])
        drawn.append(figure(np.concatenate([members[each] for each in groups])))
    mean = figure(np.arange(len(group)))
    finite = np.array(drawn)[np.isfinite(drawn)]
    if not len(finite):
        return {"mean": mean, "low": np.nan, "high": np.nan}
    low, high = np.quantile(finite, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return {"mean": mean, "low": float(low), "high": float(high)}


def _home_bins(code: np.ndarray, bins: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the bin that most rows of each group are in."""
    held = np.zeros((n_groups, int(bins.max()) + 1), np.int64)
    np.add.at(held, (code, bins), 1)
    return np.asarray(held.argmax(1))


@dataclass(frozen=True, eq=False)
class Scoring:
    """Splits with what all arms say of them. `crossfit`: ten; `heldout`: the release's own test.

    The first `n_first` splits score every original once.
    """

    splits: list[Split]
    evaluations: list[SplitEvaluation]
    n_first: int
    edges: list[float]
    tail: np.ndarray
    seed: int = 0
    min_sd_ratio: float = 0.0  # of the recipe; what spreads less is called a mean collapse

    def interval(self, figure: Figure) -> Interval:
        """Return mean and interval of a figure over the splits; on one split over its resampled groups."""
        if len(self.splits) == 1:
            test = self.splits[0].test
            return bootstrap_interval(lambda rows: figure(0, rows), test.group, test.stratum, self.seed)
        values = [figure(at, np.arange(len(each.test))) for at, each in enumerate(self.splits)]
        n_test = float(np.mean([len(each.test) for each in self.splits]))
        n_train = float(np.mean([len(each.arms[ORIGINALS]) for each in self.splits]))
        return corrected_interval(values, n_test, n_train)

    def measure(self, name: str, test: Rows, said: np.ndarray) -> float:
        """Return a measure of what is said of some rows."""
        take = MEASURES[name]
        return by_source(test.source, lambda part: take(test.take(part), said[part], self))

    def figure(self, measure: str, arm: str, head: str = "regressor") -> Figure:
        """Return the figure of a measure of one arm's values."""

        def of(at: int, rows: np.ndarray) -> float:
            said = self.evaluations[at].arms[arm].values[head][rows]
            return self.measure(measure, self.splits[at].test.take(rows), said)

        return of

    def label_figure(self, measure: str, arm: str, classes: Classes, name: str) -> Figure:
        """Return the figure of a measure of one arm's labels."""

        def of(at: int, rows: np.ndarray) -> float:
            test = self.splits[at].test.take(rows)
            said = self.evaluations[at].arms[arm].labels[classes.name][name][rows]
            return label_measure(measure, test.source, classes.of(test), said)

        return of

    def mean(self, figure: Figure, source: str | None = None) -> float:
        """Return the mean of a figure over the splits, of all originals or of those of one source."""
        of = [np.arange(len(each.test)) for each in self.splits]
        if source is not None:
            of = [np.flatnonzero(each.test.source == source) for each in self.splits]
        known = [value for at, rows in enumerate(of) if len(rows) and np.isfinite(value := figure(at, rows))]
        return float(np.mean(known)) if known else float("nan")

    def for_classes(self, classes: Classes) -> Scoring:
        """Return the scoring of those splits in which some classes are told apart (all, or the first)."""
        n = sum(classes.name in each.arms[RELEASE].labels for each in self.evaluations)
        return replace(self, splits=self.splits[:n], evaluations=self.evaluations[:n])

    def has(self, arm: str) -> bool:
        """Whether every split has an arm."""
        return all(arm in each.arms for each in self.evaluations)

    def tests(self) -> Rows:
        """Return every scored original once, split behind split."""
        return Rows.concat([each.test for each in self.splits[: self.n_first]])

    def values(self, arm: str, head: str = "regressor") -> np.ndarray:
        """Return what an arm's head says of every scored original once, in the order of `tests`."""
        return np.concatenate([each.arms[arm].values[head] for each in self.evaluations[: self.n_first]])

    def labels(self, arm: str, classes: str, name: str) -> np.ndarray:
        """Return the labels of an arm, in the order of `tests`."""
        return np.concatenate([each.arms[arm].labels[classes][name] for each in self.evaluations[: self.n_first]])

    def probabilities(self, arm: str, classes: str, name: str) -> np.ndarray | None:
        """Return the probabilities behind the labels (n, classes); None where there are none."""
        each = [one.arms[arm].probabilities[classes].get(name) for one in self.evaluations[: self.n_first]]
        known = [one for one in each if one is not None]
        return np.concatenate(known) if len(known) == len(each) else None


Measure = Callable[[Rows, np.ndarray, Scoring], float]
MEASURES: dict[str, Measure] = {
    "r2": lambda test, p, _: metrics.r2(test.target, p),
    "ccc": lambda test, p, _: metrics.ccc(test.target, p),
    "pearson_r": lambda test, p, _: metrics.pearson_r(test.target, p),
    "mse": lambda test, p, _: metrics.mse(test.target, p),
    "rmse": lambda test, p, _: metrics.rmse(test.target, p),
    "mae": lambda test, p, _: metrics.mae(test.target, p),
    "macro_mae": lambda test, p, of: metrics.macro_mae(test.target, p, of.edges),
    "tail_mae": lambda test, p, of: metrics.tail_mae(test.target, p, of.edges, of.tail),
    "sd_ratio": lambda test, p, _: metrics.sd_ratio(test.target, p),
    "r_within": lambda test, p, _: metrics.r_within(test.target, p, test.subtype),
    "r2_within": lambda test, p, _: metrics.r2_within(test.target, p, test.subtype),
}


def by_source(source: np.ndarray, measure: Callable[[np.ndarray], float]) -> float:
    """Return a measure, averaged over the sources of the rows; `measure` takes booleans, one per row."""
    each = [measure(source == one) for one in np.unique(source)]
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def label_measure(name: str, source: np.ndarray, true: np.ndarray, said: np.ndarray) -> float:
    """Return a measure of labels, averaged over the sources."""
    take = getattr(metrics, name)
    return by_source(source, lambda part: take(true[part], said[part]))


def score_head(scoring: Scoring, arm: str, head: str) -> dict[str, Any]:
    """Return every measure of one arm's values, errors per bin and per subtype, and what there is per source.

    Each measure is {mean, low, high, splits: [per split], pooled: over every original once}. Errors per bin
    and subtype are over every original once, figures per source means over the splits.
    """
    test, said = scoring.tests(), scoring.values(arm, head)
    found: dict[str, Any] = {}
    for name in MEASURES:
        figure = scoring.figure(name, arm, head)
        splits = [figure(at, np.arange(len(each.test))) for at, each in enumerate(scoring.splits)]
        # One split has an interval too, but a bootstrap of every measure of every arm is work nobody reads.
        over = scoring.interval(figure) if len(splits) > 1 else {"mean": splits[0], "low": None, "high": None}
        found[name] = {**over, "splits": splits, "pooled": scoring.measure(name, test, said)}
    n_bins = len(scoring.edges) - 1
    per_bin = metrics.mae_by(metrics.bin_codes(test.target, scoring.edges), n_bins, test.target, said)
    per_subtype = _per(test.subtype, test.target, said, ("mae",))
    figures = {name: scoring.figure(name, arm, head) for name in ("r2", "ccc", "mae", "sd_ratio")}
    return {
        **found,
        "mean_collapse": bool(found["sd_ratio"]["mean"] < scoring.min_sd_ratio),
        "mae_per_bin": per_bin.tolist(),
        "mae_per_subtype": {name: each["mae"] for name, each in per_subtype.items() if name},
        "per_source": _per_source(scoring, figures),
    }


def _per_source(scoring: Scoring, figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return by source how many originals are scored, and each figure's mean over the splits."""
    sources, counts = np.unique(scoring.tests().source, return_counts=True)
    return {
        source: {"n": n, **{name: scoring.mean(figure, source) for name, figure in figures.items()}}
        for source, n in zip(sources.tolist(), counts.tolist(), strict=True)
    }


def _per(words: np.ndarray, true: np.ndarray, said: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return number of rows and measures by word."""
    found = {}
    for word in np.unique(words).tolist():
        rows = words == word
        measured = {name: getattr(metrics, name)(true[rows], said[rows]) for name in names}
        found[word] = {"n": int(rows.sum()), **measured}
    return found


def score_classes(scoring: Scoring, arm: str, classes: Classes) -> dict[str, Any]:
    """Return the measures of one arm's labels, by input (image, both, regressor, majority), beside chance.

    Measures are means over the splits, with the `interval` of the best informed input; those of the majority,
    and chance, are over every original once.
    """
    scoring = scoring.for_classes(classes)
    true, source = classes.of(scoring.tests()), scoring.tests().source
    found: dict[str, Any] = {
        "labels": classes.labels,
        "n": [int((true == each).sum()) for each in classes.labels],
    }
    for name in scoring.evaluations[0].arms[arm].labels[classes.name]:
        said = scoring.labels(arm, classes.name, name)
        figures = {measure: scoring.label_figure(measure, arm, classes, name) for measure in LABEL_MEASURES}
        measured = {measure: scoring.mean(figure) for measure, figure in figures.items()}
        if name == "majority":
            measured = {measure: label_measure(measure, source, true, said) for measure in LABEL_MEASURES}
        per_source = _per_source(scoring, {"accuracy": figures["accuracy"]})
        counts = metrics.confusion(true, said, classes.labels)
        found[name] = {
            **measured,
            "accuracy_per_source": {one: each["accuracy"] for one, each in per_source.items()},
            "confusion": counts.tolist(),
        }
        certain = scoring.probabilities(arm, classes.name, name)
        if certain is not None:
            found[name]["calibration_error"] = metrics.calibration_error(true, certain, classes.labels)
        found[name]["confusion_normalised"] = (counts / np.maximum(counts.sum(1, keepdims=True), 1)).tolist()
    best = "both" if "both" in found else "image"
    found["interval"] = {
        measure: scoring.interval(scoring.label_figure(measure, arm, classes, best))
        for measure in LABEL_MEASURES
    }
    even = by_source(source, lambda part: metrics.chance(true[part]))
    return {**found, "chance": {"accuracy": even, "balanced_accuracy": even}}


def score_subgroups(values: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Return the error (numbers) or the accuracy (words) per value of a column, and the gap between them.

    Values of fewer than `LEAST_SUBGROUP` images have no figure; `too_few` names them with their sizes.
    """
    measure = "mae" if predicted.dtype.kind == "f" else "accuracy"
    every = _per(values, true, predicted, (measure,))
    every.pop("", None)
    groups = {name: each for name, each in every.items() if each["n"] >= LEAST_SUBGROUP}
    if measure == "mae":
        for name, each in groups.items():
            each["bias"] = float(np.mean((predicted - true)[values == name]))
    figures = [each[measure] for each in groups.values()]
    gap = max(figures) - min(figures) if figures else None
    too_few = {name: each["n"] for name, each in every.items() if name not in groups}
    return {"measure": measure, "groups": groups, "gap": gap, "too_few": too_few}


def estimated_in(info: Mapping[str, Any], column: str) -> list[str]:
    """Return the sources of a release (`info`: its release.json) in which a machine filled a column in."""
    return [each["source"] for each in info["manifests"] if column in each.get("estimated", [])]
