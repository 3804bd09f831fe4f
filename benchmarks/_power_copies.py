"""leak.same_image and leak.looks for check_power.py: changed images beside those of the data set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
from _power import (
    CLEAN,
    Case,
    KeptFeatures,
    Record,
    Run,
    Tasks,
    share_text,
)
from _power_images import KeptImages, read_images
from imagehash import crop_resistant_hash
from PIL import Image

from affectdata.images import duplicates, phash, same_image
from affectdata.images.decode import decode, encode
from affectdata.images.duplicates import hash_views
from affectdata.images.hamming import MAX_BITS
from affectdata.images.phash import perceptual_hashes
from affectdata.images.same_image import MIN_INLIERS, count_inliers, find_points
from affectdata.train import look_alikes
from affectdata.train.look_alikes import nearest_pairs

_N_HASHED = 20
MEASURES = (look_alikes, same_image)
LOOK_MEASURES = (duplicates, phash)
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


def planted_copy(images: KeptImages, copy: str, number: int) -> Record:
    """Return whether the original is among the five nearest of a changed image, and their inliers."""
    plain, row = images.kept.plain, _row(images, number)
    rgb = images.read(row)
    other = COPIES[copy](rgb, np.random.default_rng([7, number]))
    pairs = nearest_pairs(images.features_of([other]), plain.features, np.array([-1]), np.arange(len(plain)))
    inliers, _ = count_inliers(find_points(rgb), find_points(other))
    is_near = row in {int(right) for _, right in pairs}
    is_found = is_near and inliers >= MIN_INLIERS
    return {"near": float(is_near), "inliers": float(inliers), "found": float(is_found)}


def hashed_pairs(images: KeptImages, copy: str, n: int) -> Record:
    """Return the shares of pairs that `imagehash.crop_resistant_hash` takes for the same image.

    Of `n` changed images with their originals, and with those of the others.
    """
    sources = [images.read(_row(images, number)) for number in range(n)]
    changed = [COPIES[copy](rgb, np.random.default_rng([7, number])) for number, rgb in enumerate(sources)]
    left, right = ([crop_resistant_hash(Image.fromarray(rgb)) for rgb in side] for side in (sources, changed))
    same = np.array([[one.matches(other) for other in left] for one in right])
    others = same[~np.eye(len(same), dtype=bool)]
    return {"hashed": float(np.diag(same).mean()), "hashed_falsely": float(others.mean())}


def _row(images: KeptImages, number: int) -> int:
    """Return the row of the image that a run with this number changes."""
    return int(np.random.default_rng(7).permutation(len(images.kept.plain))[number])


HASHED: dict[str, Copy] = {
    "JPEG 30": lambda rgb, _: decode(encode(rgb, "jpeg", 30)).rgb,
    "half size": lambda rgb, _: cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "turned by 90°, mirrored": lambda rgb, _: np.ascontiguousarray(rgb.transpose(1, 0, 2)),
    "brighter by 20": lambda rgb, _: np.clip(rgb.astype(int) + 20, 0, 255).astype(np.uint8),
    **COPIES,
}


def different_images(images: KeptImages) -> Iterator[Case]:
    """Yield the pHash distance of every image to its nearest one of another group."""
    views = hash_views(images.kept.originals.table)
    group = np.unique(images.kept.plain.group, return_inverse=True)[1]
    for row in range(len(views)):
        bits = np.bitwise_count(views[:, :1] ^ views[row]).min(axis=1)
        yield "different images", {"bits": float(bits[group != group[row]].min())}


def hashed_copies(images: KeptImages, number: int) -> Iterator[Case]:
    """Yield the pHash distance of a changed image to its original, the least over eight views, by change."""
    row, rng = _row(images, number), np.random.default_rng([10, number])
    rgb, view = images.read(row), hash_views(images.kept.originals.table)[row, 0]
    for name, change in HASHED.items():
        hashes = np.array([int(text, 16) for text in perceptual_hashes(change(rgb, rng))], np.uint64)
        yield name, {"bits": float(np.bitwise_count(hashes ^ view).min())}


def clean_pairs(images: KeptImages) -> Record:
    """Return the numbers of candidates and of proven pairs, and the most inliers below the bound."""
    plain = images.kept.plain
    pairs = nearest_pairs(plain.features, plain.features, plain.group, plain.group)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    points = {row: find_points(images.read(row)) for row in np.unique(pairs).tolist()}
    counts = np.array([count_inliers(points[a], points[b])[0] for a, b in pairs.tolist()])
    below = counts[counts < MIN_INLIERS]
    return {"pairs": len(pairs), "same": float((counts >= MIN_INLIERS).sum()), "next": float(below.max())}


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure leak.same_image: pairs of the data set as it is, then changed images."""
    images = read_images(kept)

    def one(case: str, measure: Callable[[], Record]) -> Iterator[Case]:
        yield case, measure()

    tasks: Tasks = {CLEAN: partial(one, CLEAN, partial(clean_pairs, images))}
    n_hashed = min(_N_HASHED, options.copies)
    for copy in COPIES:
        hashes = partial(hashed_pairs, images, copy, n_hashed)
        tasks[f"{copy}, {n_hashed} hashed"] = partial(one, f"{copy}, hashed", hashes)
    for copy, number in itertools.product(COPIES, range(options.copies)):
        tasks[f"{copy} {number}"] = partial(one, copy, partial(planted_copy, images, copy, number))
    runs = run(tasks)
    (whole,) = runs[CLEAN]
    yield (
        f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}: of {whole['pairs']} pairs of "
        f"neighbours in different groups, {whole['same']:.0f} are the same image; the next has "
        f"{whole['next']:.0f} inliers.\n"
    )
    yield (
        "| | images | original among the five nearest | inliers: least, median | found | crop-resistant "
        "hash: found, of other images |\n" + "---".join("|" * 7)
    )
    for copy in COPIES:
        found, hashes = runs[copy], runs[f"{copy}, hashed"][-1]
        inliers = np.array([each["inliers"] for each in found])
        near, is_found = (
            share_text(float(np.mean([each[key] for each in found]))) for key in ("near", "found")
        )
        middle = f"{inliers.min():.0f}, {np.median(inliers):.0f}"
        hashed = f"{share_text(hashes['hashed'])}, {share_text(round(hashes['hashed_falsely'], 3))}"
        yield f"| {copy} | {len(found)} | {near} | {middle} | {is_found} | {hashed} |"


def look_tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure leak.looks: distances between the images of the data set, and to changed ones."""
    images = read_images(kept)
    tasks: Tasks = {CLEAN: partial(different_images, images)}
    tasks |= {f"copies {number}": partial(hashed_copies, images, number) for number in range(options.copies)}
    yield f"\n{kept.name}, {len(kept.plain)} images:\n"
    yield "| | images | bits: least, median, most | found |\n|---|---|---|---|"
    for name, found in run(tasks).items():
        bits = np.array([each["bits"] for each in found])
        share = share_text(float((bits <= MAX_BITS).mean()))
        spread = f"{bits.min():.0f}, {np.median(bits):.0f}, {bits.max():.0f}"
        yield f"| {name} | {len(bits)} | {spread} | {share} |"
