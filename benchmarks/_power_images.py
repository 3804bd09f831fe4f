"""Planted marks and crops for check_power.py: images changed in memory, and what the rules see of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from _power import KeptFeatures
from imagehash import crop_resistant_hash
from PIL import Image

from affectdata.check import blocks, shortcut_gate
from affectdata.check.marks import SCALARS, SIDE_PX, PatternSums, measure_marks, pattern_ratios
from affectdata.check.shortcuts import LOOKS, auc, look_rises
from affectdata.images.decode import decode, encode
from affectdata.images.duplicates import hash_views
from affectdata.images.phash import perceptual_hashes
from affectdata.images.same_image import MIN_INLIERS, count_inliers, find_points
from affectdata.manifest.manifest import Images
from affectdata.train.images import crop_square
from affectdata.train.look_alikes import nearest_pairs

Change = Callable[[np.ndarray], np.ndarray]
Record = dict[str, float]
_N_CHANGED, _N_HASHED = 120, 20
_LEAST, _BATCH = 15, 32


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


def _stored_as_jpeg(quality: int) -> Change:
    return lambda rgb: decode(encode(rgb, "jpeg", quality)).rgb


def _strong_cast(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(rgb.astype(int) + np.array([30, 0, -20]), 0, 255).astype(np.uint8))


MARKS: dict[str, Change] = {
    "watermark (80 %)": _watermark(0.8),
    "watermark (40 %)": _watermark(0.4),
    "watermark (15 %)": _watermark(0.15),
    "watermark (80 %) in a corner": _watermark(0.8, corner=True),
    "frame of 4 px": _frame(4),
    "frame of 2 px": _frame(2),
    "letterbox": _letterbox,
    "JPEG 30 of the stored image": _stored_as_jpeg(30),
    "JPEG 60 of the stored image": _stored_as_jpeg(60),
    "JPEG 30 at 224 pixels": _at_input("jpeg 30"),
    "blur at 224 pixels": _at_input("blur"),
    "half size at 224 pixels": _at_input("half size"),
    "colour cast": LOOKS["colour cast"],
    "strong colour cast": _strong_cast,
}
SHARES = (1.0, 0.5, 0.25)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rules see of every image: patterns (n, pixels) and their squares, scalars, features."""

    patterns: np.ndarray
    squares: np.ndarray
    scalars: np.ndarray
    features: np.ndarray


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
    def plain(self) -> Seen:
        """Every image unchanged."""
        return self._see(lambda rgb: rgb, self.kept.plain.features)

    def marked(self, mark: str) -> Seen:
        """Return what is seen of every image with a mark."""
        return self._see(MARKS[mark], None)

    def _see(self, change: Change, features: np.ndarray | None) -> Seen:
        """Read every image once; without `features` pass it through the network."""
        n = len(self.kept.plain)
        patterns, scalars, found = np.empty((n, 2 * SIDE_PX**2), np.float32), [], []
        for rows in np.array_split(np.arange(n), -(-n // _BATCH)):
            changed = [change(self.read(row)) for row in rows]
            marks = [measure_marks(each) for each in changed]
            patterns[rows] = [each.patterns.ravel() for each in marks]
            scalars += [each.scalars for each in marks]
            found += [] if features is not None else [self.features_of(changed)]
        features = np.concatenate(found) if features is None else features
        return Seen(patterns, patterns**2, np.array(scalars), features)

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
    return _figures(images, images.plain, _draw(images, seed), np.empty(0, int))


def random_groups(images: KeptImages, seed: int) -> Record:
    """Return the largest ratio of a random group of 15 to 300 images, which has no mark."""
    rng, plain = np.random.default_rng([5, seed]), images.plain
    order = rng.permutation(len(plain.patterns))
    n = int(rng.integers(_LEAST, 300))
    member = np.zeros((2, len(order)), np.float32)
    member[0, order[:n]] = member[1, order[n:]] = 1
    group, rest = _sums(member, plain, plain, np.empty(0, int))
    return {"pattern": float(pattern_ratios(group, rest).max())}


def planted_mark(images: KeptImages, marked: Seen, share: float, seed: int) -> Record:
    """Return the largest figures of four fifths of the images, with a mark on part of a random subtype.

    The subtype has 60 images or more.
    """
    rng, subtypes = np.random.default_rng([6, seed]), images.kept.plain.subtype
    part = _draw(images, seed)
    names, sizes = np.unique(subtypes, return_counts=True)
    members = part[subtypes[part] == rng.choice(names[sizes >= 60])]
    n = max(1, round(share * len(members)))
    return _figures(images, marked, part, np.sort(rng.permutation(members)[:n]))


def _draw(images: KeptImages, seed: int) -> np.ndarray:
    n = len(images.kept.plain)
    return np.sort(np.random.default_rng([4, seed]).permutation(n)[: round(0.8 * n)])


def _sums(member: np.ndarray, plain: Seen, marked: Seen, changed: np.ndarray) -> list[PatternSums]:
    """Return the sums of the patterns of groups of images; the images `changed` are taken from `marked`.

    `member` has a row per group: 1 for its images, else 0.
    """
    own = member.copy()
    own[:, changed] = 0
    totals = own @ plain.patterns + member[:, changed] @ marked.patterns[changed]
    squares = own @ plain.squares + member[:, changed] @ marked.squares[changed]
    found = []
    for row, total, square in zip(member, totals, squares, strict=True):
        sums = PatternSums()
        sums.n = int(row.sum())
        sums.total, sums.squares = (x.reshape(2, SIDE_PX, SIDE_PX).astype(float) for x in (total, square))
        found.append(sums)
    return found


def _figures(images: KeptImages, marked: Seen, part: np.ndarray, changed: np.ndarray) -> Record:
    """Return the largest ratio by place, distance of an AUC from a half, and rise of a score.

    `part` are the images of the run, of which `changed` have the mark.
    """
    plain, subtypes = images.plain, images.kept.plain.subtype
    names = [name for name in np.unique(subtypes[part]) if (subtypes[part] == name).sum() >= _LEAST]
    member = np.zeros((len(names) + 1, len(subtypes)), np.float32)
    member[-1, part] = 1
    for number, name in enumerate(names):
        member[number, part[subtypes[part] == name]] = 1
    *groups, every = _sums(member, plain, marked, changed)
    ratios = [pattern_ratios(group, every.without(group)).max(axis=(1, 2)) for group in groups]
    scalars, features = plain.scalars.copy(), plain.features.copy()
    scalars[changed], features[changed] = marked.scalars[changed], marked.features[changed]
    areas = {
        scalar: {f"subtype {name}": auc(column, subtypes[part] == name) for name in names}
        for scalar, column in zip(SCALARS, scalars[part].T, strict=True)
    }
    rows, looks = images.looks
    tried = np.isin(rows, part)
    train = replace(images.kept.plain, features=features).take(np.setdiff1d(part, rows))
    rises = look_rises(train, subtypes[rows[tried]], looks[:, tried].reshape(-1, looks.shape[2]))
    found = blocks.Shortcuts(missing=None, scalars=areas, looks=rises)
    centre, corners = np.max(ratios, axis=0)
    by_look = {(look, name): rise for look, by in rises.items() for name, rise in by.items()}
    of_notable = [rise for key, rise in by_look.items() if shortcut_gate.is_moved(found, *key)]
    return {
        "pattern": float(max(centre, corners)),
        "centre": float(centre),
        "corners": float(corners),
        "auc": 0.5 + max(abs(area - 0.5) for by in areas.values() for area in by.values()),
        "rise": max(by_look.values()),
        "rise_of_notable": max(of_notable, default=0.0),
    }


def failing(figures: Record) -> dict[str, bool]:
    """Return which bounds the figures of a run exceed."""
    rise, of_notable = (figures.get(key, 0.0) for key in ("rise", "rise_of_notable"))
    return {
        "pattern": figures["pattern"] >= shortcut_gate.MAX_RATIO,
        "auc": shortcut_gate.is_notable(figures.get("auc", 0.5), shortcut_gate.FAILING_AUC),
        "rise": rise > shortcut_gate.MAX_RISE or of_notable > shortcut_gate.MAX_RISE_OF_NOTABLE,
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
    """Yield whether the original is among the five nearest of each changed image, and their inliers.

    The first record has the shares of pairs that `imagehash.crop_resistant_hash` takes for the same image, of
    the first changed images with their originals and with those of the others.
    """
    plain, rng = images.kept.plain, np.random.default_rng([7, seed])
    rows = np.sort(rng.permutation(len(plain))[:n])
    sources = [images.read(row) for row in rows]
    changed = [COPIES[copy](rgb, rng) for rgb in sources]
    pairs = nearest_pairs(
        images.features_of(changed), plain.features, np.full(len(rows), -1), np.arange(len(plain))
    )
    near = {(int(rows[left]), int(right)) for left, right in pairs}
    left, right = (
        [crop_resistant_hash(Image.fromarray(rgb)) for rgb in side[:_N_HASHED]] for side in (sources, changed)
    )
    same = np.array([[one.matches(other) for other in left] for one in right])
    others = same[~np.eye(len(same), dtype=bool)]
    yield {"hashed": float(np.diag(same).mean()), "hashed_falsely": float(others.mean())}
    for row, rgb, other in zip(rows.tolist(), sources, changed, strict=True):
        inliers, _ = count_inliers(find_points(rgb), find_points(other))
        is_near = (row, row) in near
        is_found = is_near and inliers >= MIN_INLIERS
        yield {"near": float(is_near), "inliers": float(inliers), "found": float(is_found)}


HASHED: dict[str, Copy] = {
    "JPEG 30": lambda rgb, _: decode(encode(rgb, "jpeg", 30)).rgb,
    "half size": lambda rgb, _: cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "turned by 90°, mirrored": lambda rgb, _: np.ascontiguousarray(rgb.transpose(1, 0, 2)),
    "brighter by 20": lambda rgb, _: np.clip(rgb.astype(int) + 20, 0, 255).astype(np.uint8),
    **COPIES,
}


def hashed_copies(images: KeptImages, n: int) -> Iterator[tuple[str, Record]]:
    """Yield the pHash distance of changed images to their originals, the least over eight views, by change.

    First of every image unchanged to its nearest one of another group.
    """
    views = hash_views(images.kept.originals.table)
    group = np.unique(images.kept.plain.group, return_inverse=True)[1]
    for row in range(len(views)):
        bits = np.bitwise_count(views[:, :1] ^ views[row]).min(axis=1)
        yield "different images", {"bits": float(bits[group != group[row]].min())}
    rng = np.random.default_rng(10)
    for row in np.sort(rng.permutation(len(views))[:n]).tolist():
        rgb = images.read(row)
        for name, change in HASHED.items():
            hashes = np.array([int(text, 16) for text in perceptual_hashes(change(rgb, rng))], np.uint64)
            yield name, {"bits": float(np.bitwise_count(hashes ^ views[row, 0]).min())}


def clean_pairs(images: KeptImages) -> Record:
    """Return the numbers of candidates and of proven pairs, and the most inliers below the bound."""
    plain = images.kept.plain
    pairs = nearest_pairs(plain.features, plain.features, plain.group, plain.group)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    points = {row: find_points(images.read(row)) for row in np.unique(pairs).tolist()}
    counts = np.array([count_inliers(points[a], points[b])[0] for a, b in pairs.tolist()])
    below = counts[counts < MIN_INLIERS]
    return {"pairs": len(pairs), "same": float((counts >= MIN_INLIERS).sum()), "next": float(below.max())}
