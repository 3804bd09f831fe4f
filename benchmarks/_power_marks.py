"""shortcut.pattern, .scalars and .looks for check_power.py: clean subsets and groups, then planted marks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from _power import (
    Case,
    KeptFeatures,
    Record,
    Run,
    Tasks,
    outcome_share,
    range_text,
    share_text,
)
from _power_images import Change, KeptImages, Seen, read_images

from affectdata.check import blocks, label_model, marks, shortcut_gate, shortcuts
from affectdata.check.marks import SCALARS, SIDE_PX, PatternSums, pattern_ratios
from affectdata.check.shortcuts import LOOKS, auc, look_rises
from affectdata.images.decode import decode, encode
from affectdata.train.images import crop_square

MEASURES = (marks, shortcuts, label_model)
_LEAST = 15
_MARK_FIGURES = ("centre", "corners", "auc", "rise")


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


def _grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))


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
    "grey": _grey,
}


SHARES = (1.0, 0.5, 0.25)


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


def failing(figures: Record) -> dict[str, str]:
    """Return pass or fail for each figure of a run, by the bounds of the gate."""
    fails = {"pattern": figures["pattern"] >= shortcut_gate.MAX_RATIO}
    if "auc" in figures:
        too_high = figures["rise"] > shortcut_gate.MAX_RISE
        fails["auc"] = shortcut_gate.is_notable(figures["auc"], shortcut_gate.FAILING_AUC)
        fails["rise"] = too_high or figures["rise_of_notable"] > shortcut_gate.MAX_RISE_OF_NOTABLE
    return {name: "fail" if failed else "pass" for name, failed in fails.items()}


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure the rules: clean subsets and groups, then each mark on a share of a subtype."""
    images = read_images(kept)
    marked = lru_cache(maxsize=1)(images.marked)  # reads every image

    def clean(case: str, measure: Callable[[KeptImages, int], Record], seed: int) -> Iterator[Case]:
        yield case, measure(images, seed)

    def planted(case: str, mark: str, share: float, seed: int) -> Iterator[Case]:
        yield case, planted_mark(images, marked(MARKS[mark]), share, seed)

    tasks: Tasks = {}
    cases = {"subsets of 4/5, clean": clean_subset, "random groups, clean": random_groups}
    for case, measure in cases.items():
        tasks |= {f"{case} {seed}": partial(clean, case, measure, seed) for seed in range(options.seeds)}
    for mark, share, seed in itertools.product(MARKS, SHARES, range(options.marks)):
        case = f"{mark}, {share:.0%} of a subtype"
        tasks[f"{case} {seed}"] = partial(planted, case, mark, share, seed)
    runs = run(tasks)
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}:\n"
    yield "| | runs | centre | corners | AUC | rise | `pattern` | `scalars` | `looks` |"
    yield "|---|" + "---|" * 8
    for name, found in runs.items():
        cells = [range_text([each[key] for each in found if key in each], np.median) for key in _MARK_FIGURES]
        outcomes = [failing(each) for each in found]
        cells += [share_text(outcome_share(outcomes, key)) for key in ("pattern", "auc", "rise")]
        yield f"| {name} | {len(found)} | " + " | ".join(cells) + " |"
