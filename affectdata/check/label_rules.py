"""Do the labels belong to the images? Figures for the rules `labels.*`, before any arm is trained.

In: the originals of one source, each with its features, rating and path. Out: plain data. A kernel ridge is
trained out of fold, on three assignments to folds, on the ratings as they are, moved by a few rows, and
permuted within the subtypes.

order       r within subtypes with the ratings moved by -5 … 5 rows of a folder: a table that lost a line, or
            was sorted, fits better when it is moved back
within      r within subtypes, in standard deviations of that of permuted ratings
r2          R² with its interval
wrong_side  share of images on the wrong side of the scale, by subtype that has none there as published
published   largest distance between the distribution of ratings and the published one, by subtype
anchor      r with the predictions of a model that was trained on another source only
suspicious  images whose rating is unusual for both their subtype and their look: a list, never a verdict
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from posixpath import dirname
from typing import Any

import numpy as np

from affectdata.check import metrics
from affectdata.check.arms import ORIGINALS
from affectdata.check.blocks import Anchor, Interval, LabelFigures, PublishedDistance, SuspiciousRating
from affectdata.check.influence import grouped_variance, influence_r, influence_r2, pooled_interval
from affectdata.check.label_model import fit_predict, predict_out_of_fold
from affectdata.check.prepare import CheckInput
from affectdata.reading.names import natural_key
from affectdata.registry import find_plugins, load_plugin
from affectdata.train.rows import Rows

OFFSETS = tuple(offset for offset in range(-5, 6) if offset)
SUSPICIOUS = 3.5  # geometric mean of two deviations, in robust standard deviations
N_PERMUTED = 60
N_ASSIGNMENTS = 3  # to folds
_MIDDLE, _WIDTH = 50.0, 5.0  # POMP units; width of the intervals of the published counts
_MAD = 1.4826  # SD of a normal distribution / its median absolute deviation
_LISTED = 50
_LEAST = 50  # images of another source that a model is trained on
# R² of the kernel ridge on a whole data set, by source, target and the beginning of `Backbone.content`
EXPECTED_R2 = {
    ("gaped", "valence", "6ef1088f5b1c"): 0.53,  # mobilenet_v1
    ("oasis", "valence", "6ef1088f5b1c"): 0.28,
    ("gaped", "valence", "e2277abb89c2"): 0.56,  # efficientnet_lite0, the default
    ("oasis", "valence", "e2277abb89c2"): 0.29,
}
Counts = Mapping[str, np.ndarray]  # by subtype: published number of images per interval of 5 POMP units
Measure = Callable[[np.ndarray, np.ndarray], Any]


def find_label_figures(prepared: CheckInput) -> dict[str, LabelFigures]:
    """Return the figures of every source of a release by name, and of other values as `<source>.<name>`.

    These are the further columns of points, each by itself, and label sets and shares as a whole. Without
    them, and if the recipe's target has classes, there are no figures.
    """
    originals, target, seed = prepared.originals, prepared.recipe.target, prepared.recipe.seed
    rated, further = originals.edges is not None, _further_values(prepared)
    if not rated and not further:
        return {}
    rows = plain_rows(prepared)
    index = originals.find(rows.image_id)
    paths = originals.column("path")[index]
    others = {name: other for name, other in prepared.others.items() if len(other) >= _LEAST}
    figures = {}
    for source in np.unique(rows.source).tolist():
        own, counts = rows.source == source, _published_counts(source, target)
        whole = int(own.sum()) == sum(int(count.sum()) for count in counts.values())
        whole &= not prepared.more_backbones
        expected = EXPECTED_R2.get((source, target, prepared.backbone.content[:12])) if whole else None
        some = rows.take(own)
        if rated:
            figures[source] = describe_labels(some, paths[own], seed, others, counts, expected)
        for name, values in further.items():
            figures[f"{source}.{name}"] = describe_values(some, values[index[own]], paths[own], seed)
    return figures


def _further_values(prepared: CheckInput) -> dict[str, np.ndarray]:
    """Return values (n, outputs) of the target that the recipe's own does not have, by name."""
    target = prepared.target
    if target is None or target.kind == "polarity":
        return {}
    values = np.asarray(target.values, float)
    if target.kind != "numbers":
        return {"sets" if target.kind == "multi" else "shares": values}
    own = prepared.recipe.target if prepared.originals.edges is not None else ""
    return {
        name: column[:, None] for name, column in zip(target.outputs, values.T, strict=True) if name != own
    }


def plain_rows(prepared: CheckInput) -> Rows:
    """Return the originals, unchanged; without the source images those of the release's train and test."""
    if prepared.crossfit:
        return Rows.concat([split.test for split in prepared.crossfit[: prepared.n_first]])
    split = prepared.heldout
    if split is None:
        raise ValueError("nothing was prepared")
    return Rows.concat([split.arms[ORIGINALS], split.test])


def _published_counts(source: str, target: str) -> Counts:
    """Return the published counts of a source's subtypes; empty if its data sheet has none."""
    if source not in find_plugins("sources"):
        return {}
    subtypes = load_plugin("sources", source).INFO.subtypes
    return {
        name: np.array(subtype.counts[target])
        for name, subtype in subtypes.items()
        if target in subtype.counts
    }


def describe_labels(
    rows: Rows,
    paths: np.ndarray,
    seed: int,
    others: Mapping[str, Rows],
    counts: Counts,
    expected_r2: float | None,
) -> LabelFigures:
    """Return the figures of one source. `others` are rows of other sources, `counts` its data sheet's."""
    columns = label_columns(rows.target, rows.subtype, paths, seed)
    predicted = predict_by_assignment(rows, columns, seed)
    anchors = {name: (predict_by(other, rows), len(other)) for name, other in others.items()}
    return describe_fit(columns, predicted, rows, paths, anchors, counts, expected_r2)


def describe_values(rows: Rows, values: np.ndarray, paths: np.ndarray, seed: int) -> LabelFigures:
    """Return the figures of one source for values (n, outputs), together; they are moved and permuted alike.

    An output that varies more has more weight. There is no published distribution and no other source.
    """
    columns, predicted = fit_values(rows, values, paths, seed)
    n = values.shape[1]
    where = np.tile(np.arange(len(rows)), n)
    no_features = replace(rows, features=np.empty((len(rows), 0))).take(where)
    subtypes = np.char.add(np.repeat(np.arange(n), len(rows)).astype(str), no_features.subtype.astype(str))
    every = replace(no_features, target=columns[:, 0], subtype=subtypes)
    found = describe_fit(columns, predicted, every, paths[where], {}, {}, None)
    suspicious = found.suspicious if n == 1 else []
    return found.model_copy(update={"n": len(rows), "outputs": n, "suspicious": suspicious})


def fit_values(rows: Rows, values: np.ndarray, paths: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of `label_columns` and their predictions by assignment, output after output.

    Several outputs are around their means.
    """
    n = values.shape[1]
    centred = values - values.mean(0) if n > 1 else values
    columns = [label_columns(column, rows.subtype, paths, seed) for column in centred.T]
    predicted = predict_by_assignment(rows, np.hstack(columns), seed)
    return np.concatenate(columns), np.concatenate(np.split(predicted, n, axis=2), axis=1)


def label_columns(target: np.ndarray, subtypes: np.ndarray, paths: np.ndarray, seed: int) -> np.ndarray:
    """Return the ratings as they are, moved by each of `OFFSETS`, and permuted inside the subtypes."""
    folders = folders_in_order(paths)
    moved = [move_ratings(target, folders, offset) for offset in OFFSETS]
    return np.column_stack([target, *moved, permute_within(target, subtypes, N_PERMUTED, seed)])


def predict_by_assignment(rows: Rows, columns: np.ndarray, seed: int) -> np.ndarray:
    """Predict every column of `label_columns` by each assignment to folds: (assignments, rows, columns)."""
    return np.stack([predict_out_of_fold(rows, columns, seed + number) for number in range(N_ASSIGNMENTS)])


def describe_fit(
    columns: np.ndarray,
    predicted: np.ndarray,
    rows: Rows,
    paths: np.ndarray,
    anchors: Mapping[str, tuple[np.ndarray, int]],
    counts: Counts,
    expected_r2: float | None,
) -> LabelFigures:
    """Return the figures from `predict_by_assignment`, and the predictions of models of other sources.

    r within subtypes is the mean over the assignments: one alone varies as much as it falls by a shift of
    one row.
    """
    by_assignment = [_r_within(columns, values, rows.subtype) for values in predicted]
    own, *others = np.mean(by_assignment, axis=0).tolist()
    null_sd = float(np.std(others[len(OFFSETS) :]))
    by_offset = dict(zip(OFFSETS, others[: len(OFFSETS)], strict=True))
    best = max(by_offset, key=lambda offset: by_offset[offset])
    return LabelFigures(
        n=len(rows),
        r2=_score(influence_r2, metrics.r2, rows, predicted[:, :, 0]),
        r_within=own,
        null_sd=null_sd,
        z=own / null_sd if null_sd > 0 else None,
        r_within_by_offset={str(offset): r for offset, r in by_offset.items()},
        best_offset=best,
        margin=(by_offset[best] - own) / null_sd if null_sd > 0 else None,
        expected_r2=expected_r2,
        wrong_side=wrong_sides(rows, counts),
        published=published_distances(rows, counts),
        anchor={name: anchor(rows, values, n) for name, (values, n) in anchors.items()},
        suspicious=list_suspicious(rows, predicted[:, :, 0].mean(0), paths),
    )


def _r_within(columns: np.ndarray, predicted: np.ndarray, subtypes: np.ndarray) -> np.ndarray:
    """Return r within subtypes (`metrics.r_within`) of every column; 0 for a constant one."""
    member = (np.unique(subtypes)[:, None] == subtypes).astype(float)
    share = member / member.sum(1, keepdims=True)
    y, p = (values - member.T @ (share @ values) for values in (columns, predicted))
    below = np.sqrt((y**2).sum(0) * (p**2).sum(0))
    return np.asarray(np.divide((y * p).sum(0), below, out=np.zeros_like(below), where=below > 1e-9))


def folders_in_order(paths: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each folder, in the natural order of file names: most likely that of the table."""
    rows: dict[str, list[int]] = {}
    for row in sorted(range(len(paths)), key=lambda row: natural_key(str(paths[row]))):
        rows.setdefault(dirname(str(paths[row])), []).append(row)
    return [np.array(inside) for inside in rows.values()]


def move_ratings(target: np.ndarray, folders: Sequence[np.ndarray], offset: int) -> np.ndarray:
    """Return the ratings moved by `offset` rows inside each folder; the last ones become the first."""
    moved = target.copy()
    for inside in folders:
        moved[inside] = np.roll(target[inside], offset)
    return moved


def permute_within(target: np.ndarray, subtypes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return `n` columns of ratings, permuted inside each subtype."""
    rng = np.random.default_rng(seed)
    columns = np.tile(target[:, None], n)
    for subtype in np.unique(subtypes):
        inside = subtypes == subtype
        columns[inside] = rng.permuted(columns[inside], axis=0)
    return columns


def _score(influence: Measure, measure: Measure, rows: Rows, predicted: np.ndarray) -> Interval:
    """Return a measure over all rows with its interval, from predictions by assignment to folds."""
    return pooled_interval(
        [
            (measure(rows.target, values), grouped_variance(influence(rows.target, values), rows.group))
            for values in predicted
        ]
    )


def wrong_sides(rows: Rows, counts: Counts) -> dict[str, float]:
    """Return the share of images on the wrong side, by subtype that has published images on one side only."""
    shares = {}
    for subtype, published in counts.items():
        values = rows.target[rows.subtype == subtype]
        below, above = np.array_split(published, 2)
        if len(values) and bool(below.any()) != bool(above.any()):
            wrong = values > _MIDDLE if below.any() else values < _MIDDLE
            shares[subtype] = float(wrong.mean())
    return shares


def published_distances(rows: Rows, counts: Counts) -> dict[str, PublishedDistance]:
    """Return by subtype the largest distance of the distribution of ratings from the published one.

    `missing` is the share of images that one of the two has more: a part of the published images, whatever
    part, is never farther from the whole than that.
    """
    distances = {}
    for subtype, published in counts.items():
        values = rows.target[rows.subtype == subtype]
        if not len(values):
            continue
        n, of = len(values), int(published.sum())
        here = np.bincount(
            np.minimum(values / _WIDTH, len(published) - 1).astype(int), minlength=len(published)
        )
        distance = float(np.abs(np.cumsum(here) / n - np.cumsum(published) / of).max())
        missing = 1 - min(n, of) / max(n, of)
        distances[subtype] = PublishedDistance(distance=distance, missing=missing, n=n)
    return distances


def predict_by(other: Rows, rows: Rows) -> np.ndarray:
    """Predict the target of rows by a model of the rows of another source."""
    return fit_predict(other, other.target[:, None], rows.features)[:, 0]


def anchor(rows: Rows, predicted: np.ndarray, n: int) -> Anchor:
    """Return r of the ratings with predictions of a model trained on `n` images of another source."""
    r = _score(influence_r, metrics.pearson_r, rows, predicted[None])
    return Anchor(n=n, mean=r.mean, low=r.low, high=r.high)


def list_suspicious(rows: Rows, predicted: np.ndarray, paths: np.ndarray) -> list[SuspiciousRating]:
    """Return the images whose rating is far from both their subtype's and the predicted one, worst first.

    The score is the geometric mean of two deviations in robust standard deviations of the subtype: of the
    rating from the median, and of the residual from the median residual.
    """
    score = suspicion(rows.target, predicted, rows.subtype)
    order = np.argsort(-score, kind="stable")[:_LISTED]
    return [
        SuspiciousRating(
            path=str(paths[row]), rating=float(rows.target[row]), score=round(float(score[row]), 2)
        )
        for row in order
        if score[row] > SUSPICIOUS
    ]


def suspicion(target: np.ndarray, predicted: np.ndarray, subtypes: np.ndarray) -> np.ndarray:
    """Return the score of each image, as in `list_suspicious`."""
    residual = target - predicted
    score = np.zeros(len(target))
    for subtype in np.unique(subtypes):
        inside = subtypes == subtype
        score[inside] = np.sqrt(_deviation(target[inside]) * _deviation(residual[inside]))
    return score


def _deviation(values: np.ndarray) -> np.ndarray:
    distance = np.abs(values - np.median(values))
    sd = _MAD * np.median(distance)
    return np.asarray(distance / sd if sd > 0 else np.zeros(len(values)))
