"""Planted marks and crops for check_power.py: images changed in memory, and what the rules see of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from _power import KeptFeatures

from affectdata.check import shortcut_gate
from affectdata.check.marks import PatternSums, measure_marks, pattern_ratios
from affectdata.check.shortcuts import LOOKS, auc, look_rises
from affectdata.images.decode import decode, encode
from affectdata.images.same_image import MIN_INLIERS, count_inliers, find_points
from affectdata.manifest.manifest import Images
from affectdata.train.images import crop_square
from affectdata.train.look_alikes import nearest_pairs

Change = Callable[[np.ndarray], np.ndarray]
Record = dict[str, float]
_N_CHANGED = 120
_LEAST = 15


def _watermark(strength: float, *, corner: bool = False) -> Change:
    """Return a change that blends a white text of 12 % of the height into the middle, or a lower corner."""

    def change(rgb: np.ndarray) -> np.ndarray:
        height, width = rgb.shape[:2]
        size, layer = height * 0.12, np.zeros(rgb.shape[:2], np.uint8)
        left = round(0.02 * width) if corner else round(width / 2 - 1.6 * size)
        place = (left, round(height * (0.97 if corner else 0.62)))
        cv2.putText(layer, "stock", place, cv2.FONT_HERSHEY_DUPLEX, size / 22, 255, max(1, round(size / 12)))
        alpha = strength * layer[..., None] / 255
        return np.asarray((rgb * (1 - alpha) + 255 * alpha).astype(np.uint8))

    return change


def _frame(px: int) -> Change:
    """Return a black frame, `px` wide where the short side is 224."""

    def change(rgb: np.ndarray) -> np.ndarray:
        framed, n = rgb.copy(), max(1, round(px * min(rgb.shape[:2]) / 224))
        left = (
            (rgb.shape[1] - rgb.shape[0]) // 2 if rgb.shape[1] > rgb.shape[0] else 0
        )  # in the central square
        framed[:n] = framed[-n:] = 0
        framed[:, : left + n] = framed[:, framed.shape[1] - left - n :] = 0
        return framed

    return change


def _letterbox(rgb: np.ndarray) -> np.ndarray:
    boxed, n = rgb.copy(), round(0.1 * len(rgb))
    boxed[:n] = boxed[-n:] = 0
    return boxed


def _at_input(look: str) -> Change:
    """Return a change of the image as networks see it."""
    return lambda rgb: LOOKS[look](crop_square(rgb, 224))


MARKS: dict[str, Change] = {
    "watermark": _watermark(0.8),
    "faint watermark (15 %)": _watermark(0.15),
    "watermark in a corner": _watermark(0.8, corner=True),
    "frame": _frame(4),
    "letterbox": _letterbox,
    "JPEG 30 of the stored image": lambda rgb: decode(encode(rgb, "jpeg", 30)).rgb,
    "JPEG 30 at 224 pixels": _at_input("jpeg 30"),
    "blur at 224 pixels": _at_input("blur"),
    "half size at 224 pixels": _at_input("half size"),
    "colour cast": LOOKS["colour cast"],
}
SHARES = (1.0, 0.25)


@dataclass(frozen=True, eq=False)
class KeptImages:
    """The images of a data set, and what was measured on them unchanged."""

    kept: KeptFeatures
    images: Images

    def read(self, row: int) -> np.ndarray:
        """Return the pixels of an original, as stored."""
        entry = self.kept.originals.table.select(["source", "path", "image_id"]).slice(row, 1).to_pylist()[0]
        return decode(self.images.read(entry["source"], entry["path"], entry["image_id"])).rgb

    @cached_property
    def marks(self) -> tuple[np.ndarray, np.ndarray]:
        """The patterns and scalars of every image."""
        found = [measure_marks(self.read(row)) for row in range(len(self.kept.plain))]
        return np.array([each.patterns for each in found], np.float16), np.array(
            [each.scalars for each in found]
        )

    @cached_property
    def looks(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of some originals, and their features unchanged and with each look."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.kept.plain))[:_N_CHANGED])
        squares = [crop_square(self.read(row), self.kept.backbone.normalisation.size_px) for row in rows]
        changes = [lambda rgb: rgb, *LOOKS.values()]
        return rows, np.stack([self.features_of([change(each) for each in squares]) for change in changes])

    def features_of(self, images: list[np.ndarray]) -> np.ndarray:
        size = self.kept.backbone.normalisation.size_px
        return self.kept.backbone.features(np.stack([crop_square(each, size) for each in images]))


def clean_subset(images: KeptImages, seed: int) -> Record:
    """Return the largest figures of four fifths of the images."""
    n = len(images.kept.plain)
    part = np.sort(np.random.default_rng([4, seed]).permutation(n)[: round(0.8 * n)])
    return _figures(images, part, *images.marks, images.kept.plain.features)


def random_groups(images: KeptImages, seed: int) -> Record:
    """Return the largest ratio of a random group of 15 to 300 images, which has no mark."""
    rng, patterns = np.random.default_rng([5, seed]), images.marks[0]
    order = rng.permutation(len(patterns))
    n = int(rng.integers(_LEAST, 300))
    return {"pattern": float(pattern_ratios(_sums(patterns[order[:n]]), _sums(patterns[order[n:]])).max())}


def planted_mark(images: KeptImages, mark: str, share: float, seed: int) -> Record:
    """Return the largest figures with a mark on this share of a random subtype of 60 images or more."""
    rng, plain = np.random.default_rng([6, seed]), images.kept.plain
    names, sizes = np.unique(plain.subtype, return_counts=True)
    members = np.flatnonzero(plain.subtype == rng.choice(names[sizes >= 60]))
    marked = np.sort(rng.permutation(members)[: max(1, round(share * len(members)))])
    changed = [MARKS[mark](images.read(row)) for row in marked]
    patterns, scalars = (values.copy() for values in images.marks)
    found = [measure_marks(each) for each in changed]
    patterns[marked], scalars[marked] = [each.patterns for each in found], [each.scalars for each in found]
    features = plain.features.copy()
    features[marked] = images.features_of(changed)
    return _figures(images, np.arange(len(plain)), patterns, scalars, features)


def _sums(patterns: np.ndarray) -> PatternSums:
    sums = PatternSums()
    for each in patterns:
        sums.add(each.astype(np.float32))
    return sums


def _figures(
    images: KeptImages, part: np.ndarray, patterns: np.ndarray, scalars: np.ndarray, features: np.ndarray
) -> Record:
    """Return the largest ratio by place, distance of an AUC from a half, and rise of a score."""
    plain = images.kept.plain
    subtype, every = plain.subtype[part], _sums(patterns[part])
    ratios, areas = [], []
    for name in np.unique(subtype):
        own = subtype == name
        if own.sum() >= _LEAST:
            sums = _sums(patterns[part[own]])
            ratios.append(pattern_ratios(sums, every.without(sums)).max(axis=(1, 2)))
            areas.append([auc(column, own) for column in scalars[part].T])
    rows, looks = images.looks
    tried = np.isin(rows, part)
    train = replace(plain, features=features).take(np.setdiff1d(part, rows))
    changed = looks[:, tried].reshape(-1, looks.shape[2])
    rises = look_rises(train, plain.subtype[rows[tried]], changed)
    centre, corners = np.max(ratios, axis=0)
    return {
        "pattern": float(max(centre, corners)),
        "centre": float(centre),
        "corners": float(corners),
        "auc": float(np.abs(np.array(areas) - 0.5).max() + 0.5),
        "rise": max(rise for by in rises.values() for rise in by.values()),
    }


def failing(figures: Record) -> dict[str, bool]:
    """Return which bounds the figures of a run exceed; the AUC and the rise may be of different subtypes."""
    is_notable = shortcut_gate.is_notable(figures.get("auc", 0.5))
    max_rise = shortcut_gate.MAX_RISE_OF_NOTABLE if is_notable else shortcut_gate.MAX_RISE
    return {
        "pattern": figures["pattern"] >= shortcut_gate.MAX_RATIO,
        "auc": is_notable,
        "rise": figures.get("rise", 0.0) > max_rise,
    }


Copy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _cropped(share: float, *, mirrored: bool = False) -> Copy:
    def change(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = (round(share * side) for side in rgb.shape[:2])
        top = int(rng.integers(0, 1 + rgb.shape[0] - height))
        left = int(rng.integers(0, 1 + rgb.shape[1] - width))
        crop = rgb[top : top + height, left : left + width]
        return np.ascontiguousarray(crop[:, ::-1] if mirrored else crop)

    return change


def _framed(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
    n = round(0.08 * len(rgb))
    return np.pad(rgb, ((n, n), (n, n), (0, 0)))


def _dark(rgb: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return decode(encode((255 * (rgb / 255) ** 1.67).astype(np.uint8), "jpeg", 30)).rgb


def _with_bar(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    barred, n = rgb.copy(), round(0.15 * len(rgb))
    barred[-n:] = 255
    place = (n // 4, len(rgb) - n // 4)
    cv2.putText(barred, "breaking news", place, cv2.FONT_HERSHEY_DUPLEX, n / 40, (0, 0, 0), max(1, n // 20))
    return barred


def _turned(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 5, 1)
    return cv2.warpAffine(rgb, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


COPIES: dict[str, Copy] = {
    "crop of .9": _cropped(0.9),
    "crop of .8, mirrored": _cropped(0.8, mirrored=True),
    "crop of .6": _cropped(0.6),
    "frame of 8 %": _framed,
    "text bar": _with_bar,
    "rotated by 5°": _turned,
    "dark, JPEG 30": _dark,
}


def planted_copies(images: KeptImages, copy: str, n: int, seed: int) -> Iterator[Record]:
    """Yield whether the original is among the five nearest of each changed image, and their inliers."""
    plain, rng = images.kept.plain, np.random.default_rng([7, seed])
    rows = np.sort(rng.permutation(len(plain))[:n])
    sources = [images.read(row) for row in rows]
    changed = [COPIES[copy](rgb, rng) for rgb in sources]
    pairs = nearest_pairs(
        images.features_of(changed), plain.features, np.full(len(rows), -1), np.arange(len(plain))
    )
    near = {(int(rows[left]), int(right)) for left, right in pairs}
    for row, rgb, other in zip(rows.tolist(), sources, changed, strict=True):
        inliers, _ = count_inliers(find_points(rgb), find_points(other))
        is_near = (row, row) in near
        is_found = is_near and inliers >= MIN_INLIERS
        yield {"near": float(is_near), "inliers": float(inliers), "found": float(is_found)}


def clean_pairs(images: KeptImages) -> Record:
    """Return the numbers of candidates and of proven pairs, and the most inliers below the bound."""
    plain = images.kept.plain
    pairs = nearest_pairs(plain.features, plain.features, plain.group, plain.group)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    points = {row: find_points(images.read(row)) for row in np.unique(pairs).tolist()}
    counts = np.array([count_inliers(points[a], points[b])[0] for a, b in pairs.tolist()])
    below = counts[counts < MIN_INLIERS]
    return {"pairs": len(pairs), "same": float((counts >= MIN_INLIERS).sum()), "next": float(below.max())}
