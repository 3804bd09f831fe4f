"""Shortcuts: what reveals the subtype of an image apart from its content, such as a source's marks.

In: the originals, read as their source stores them. Out: plain data, from three measurements.

patterns   how much the mean high-pass pattern of a subtype (a source) differs from that of the rest, per cell
           of the image and of its corners: watermarks, text, frames
scalars    AUC of a subtype against the rest: traces of JPEG, lack of detail, uniform sides
looks      how far a look (JPEG, blur, a frame) raises the score of a subtype on images of other subtypes:
           the network takes the look for the subtype
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
from scipy.stats import rankdata

from affectdata.check import blocks
from affectdata.check.label_model import fit_predict
from affectdata.check.label_rules import plain_rows
from affectdata.check.marks import PLACES, SCALARS, PatternSums, measure_marks, pattern_ratios
from affectdata.check.prepare import CheckInput
from affectdata.hashing import file_hash, hash_ranks
from affectdata.images.decode import decode, encode
from affectdata.train.features import FeatureCache, compute_features
from affectdata.train.images import Readable, crop_square
from affectdata.train.rows import Rows
from affectdata.workers import map_ordered

_LEAST = 15  # images of a subtype, and of the rest
_MOST_CHANGED = 120  # images that are passed through every look
_LEAST_CHANGED = 20
_BATCH = 32
_PLAIN = "plain"
Look = Callable[[np.ndarray], np.ndarray]


def _jpeg(quality: int) -> Look:
    return lambda rgb: decode(encode(rgb, "jpeg", quality)).rgb


def _half_size(rgb: np.ndarray) -> np.ndarray:
    side = max(1, len(rgb) // 2)
    small = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def _frame(share: float, *, upright: bool) -> Look:
    """Return a look with black stripes, this share of the side wide: above and below, and left and right."""

    def change(rgb: np.ndarray) -> np.ndarray:
        framed, n = rgb.copy(), max(1, round(share * len(rgb)))
        framed[:n] = framed[-n:] = 0
        if upright:
            framed[:, :n] = framed[:, -n:] = 0
        return framed

    return change


def _cast(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(rgb.astype(int) + np.array([10, 0, -6]), 0, 255).astype(np.uint8))


LOOKS: dict[str, Look] = {
    "jpeg 30": _jpeg(30),
    "jpeg 60": _jpeg(60),
    "blur": lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.0)),
    "half size": _half_size,
    "frame": _frame(4 / 224, upright=True),
    "letterbox": _frame(0.1, upright=False),
    "colour cast": _cast,
}


def find_shortcuts(prepared: CheckInput, workers: int = 1) -> blocks.Shortcuts:
    """Return the figures of a check; without two subtypes of 15 images or more, only the reason."""
    rows = plain_rows(prepared)
    groups = {f"subtype {name}": part for name, part in _large_parts(rows.subtype)}
    groups |= {f"source {name}": part for name, part in _large_parts(rows.source)}
    if not groups:
        reason = f"there are no two subtypes, and no two sources, of {_LEAST} images or more"
        return blocks.Shortcuts(missing=reason)
    ratios, scalars = _measure(prepared, rows, groups, workers)
    looks, looks_missing = _try_looks(prepared, rows, workers)
    return blocks.Shortcuts(
        missing=None,
        from_sources=prepared.images is not None,
        patterns={name: describe_pattern(ratio) for name, ratio in ratios.items()},
        scalars={
            scalar: {name: auc(scalars[:, column], part) for name, part in groups.items()}
            for column, scalar in enumerate(SCALARS)
        },
        looks=looks,
        looks_missing=looks_missing,
    )


def _large_parts(labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each label that enough rows have, and enough have not, and its rows as booleans."""
    for label in np.unique(labels[labels != ""]).tolist():
        part = labels == label
        if min(part.sum(), (~part).sum()) >= _LEAST:
            yield label, part


def _measure(
    prepared: CheckInput, rows: Rows, groups: dict[str, np.ndarray], workers: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the ratios of the patterns by group, and the scalars of every row."""
    of_row = prepared.originals.find(rows.image_id).tolist()
    read = prepared.read_original
    batches = [range(start, min(start + _BATCH, len(rows))) for start in range(0, len(rows), _BATCH)]
    every, sums = PatternSums(), {name: PatternSums() for name in groups}
    scalars = []
    measured = map_ordered(
        lambda batch: [measure_marks(decode(read(of_row[row])).rgb) for row in batch], batches, workers
    )
    for batch, marks in zip(batches, measured, strict=True):
        for row, mark in zip(batch, marks, strict=True):
            scalars.append(mark.scalars)
            every.add(mark.patterns)
            for name, part in groups.items():
                if part[row]:
                    sums[name].add(mark.patterns)
    return {name: pattern_ratios(own, every.without(own)) for name, own in sums.items()}, np.array(scalars)


def describe_pattern(ratios: np.ndarray) -> blocks.Pattern:
    """Return the largest ratio (`pattern_ratios`) and where it is."""
    place, row, column = np.unravel_index(ratios.argmax(), ratios.shape)
    return blocks.Pattern(
        ratio=float(ratios.max()),
        place=PLACES[int(place)],
        row=int(row),
        column=int(column),
        n_cells=ratios.shape[1],
    )


def auc(values: np.ndarray, part: np.ndarray) -> float:
    """Return the chance that a value of `part` exceeds one of the rest; ties count half."""
    n = int(part.sum())
    above = rankdata(values)[part].sum() - n * (n + 1) / 2
    return float(above / (n * (len(part) - n)))


@dataclass(frozen=True, slots=True)
class _ReadChanged:
    """Read a batch (`row`, `look`): the central square of an original with a look, as PNG."""

    prepared: CheckInput
    size_px: int

    def __call__(self, batch: pa.Table) -> list[bytes]:
        changed = []
        for row, look in zip(batch["row"].to_pylist(), batch["look"].to_pylist(), strict=True):
            square = crop_square(decode(self.prepared.read_original(row)).rgb, self.size_px)
            changed.append(encode(LOOKS[look](square) if look in LOOKS else square, "png", 0))
        return changed


def _try_looks(
    prepared: CheckInput, rows: Rows, workers: int
) -> tuple[dict[str, dict[str, float]], str | None]:
    """Return the rise of each subtype's score by look, or why there is none."""
    n = min(_MOST_CHANGED, len(rows) // 4)
    chosen = np.sort(np.argsort(hash_ranks(prepared.recipe.seed, rows.image_id))[:n])
    train = rows.take(np.setdiff1d(np.arange(len(rows)), chosen))
    if n < _LEAST_CHANGED or not [*_large_parts(train.subtype)]:
        return {}, f"fewer than {4 * _LEAST_CHANGED} images, or than two subtypes of {_LEAST} to learn from"
    features = _features_of_looks(prepared, rows.image_id[chosen], workers)
    return look_rises(train, rows.subtype[chosen], features), None


def look_rises(train: Rows, subtype: np.ndarray, features: np.ndarray) -> dict[str, dict[str, float]]:
    """Return by look and subtype how far the look raises the subtype's score on images of other subtypes.

    `features` are those of images of these subtypes unchanged, then with each of `LOOKS`. The scores (0–100)
    are those of a kernel ridge on `train`, one subtype against the rest.
    """
    names = [name for name, _ in _large_parts(train.subtype)]
    targets = 100.0 * (train.subtype[:, None] == np.array(names))
    scores = fit_predict(train, targets, features).reshape(len(LOOKS) + 1, len(subtype), len(names))
    others = subtype[:, None] != np.array(names)
    return {
        look: {
            name: float(rise[others[:, column], column].mean())
            for column, name in enumerate(names)
            if others[:, column].any()
        }
        for look, rise in zip(LOOKS, scores[1:] - scores[0], strict=True)
    }


def _features_of_looks(prepared: CheckInput, image_ids: np.ndarray, workers: int) -> np.ndarray:
    """Return the features of images unchanged, then with each look: (looks × images, dim)."""
    at = prepared.originals.find(image_ids).tolist()
    looks = [look for look in (_PLAIN, *LOOKS) for _ in at]
    stored = "stored" if prepared.images else "released"
    keys = [
        file_hash(f"{stored} {look} {image_id}".encode())
        for look, image_id in zip(looks, image_ids.tolist() * (len(LOOKS) + 1), strict=True)
    ]
    table = pa.table({"row": at * (len(LOOKS) + 1), "look": looks, "key": keys})
    parts = []
    for network in (prepared.backbone, *prepared.more_backbones):
        read = _ReadChanged(prepared, network.normalisation.size_px)
        wanted = Readable(np.arange(len(table)), table, read)
        cache = FeatureCache(prepared.cache, network)
        parts.append(compute_features(wanted, network, cache, workers, lambda *_: None)[0])
    return np.hstack(parts)
