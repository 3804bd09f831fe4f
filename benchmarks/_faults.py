"""Faults that check_faults.py plants in a tree of GAPED: in its images, its rating tables, or both."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from _power_copies import COPIES
from _power_marks import MARKS

from affectdata.images.decode import decode

SUBTYPES = ("A", "H", "N", "P", "Sn", "Sp")
Table = list[list[str]]  # a line per image: its name, valence, arousal, and more in some of the tables
Plant = Callable[[Path], None]
Change = Callable[[np.ndarray], np.ndarray]


def copy_tree(source: Path, root: Path) -> None:
    """Link the images of GAPED, and copy its tables."""
    for name in SUBTYPES:
        (root / name).mkdir(parents=True)
        for path in (source / name).iterdir():
            os.link(path, root / name / path.name)
        shutil.copyfile(source / f"{name}.txt", root / f"{name}.txt")


def read_table(root: Path, subtype: str) -> tuple[list[str], Table]:
    """Return the lines before the first image, and the cells of the others."""
    lines = (root / f"{subtype}.txt").read_text(encoding="latin-1").splitlines()
    n_head = 0 if re.match(r"\w+\.", lines[0]) else 1
    return lines[:n_head], [line.split("\t") for line in lines[n_head:] if line.strip()]


def write_table(root: Path, subtype: str, head: list[str], rows: Table) -> None:
    text = "\r\n".join([*head, *map("\t".join, rows), ""])
    (root / f"{subtype}.txt").write_text(text, encoding="latin-1", newline="")


def images_of(root: Path, subtype: str) -> list[Path]:
    """Return the images of a subtype that have a rating."""
    rated = {row[0].split(".")[0] for row in read_table(root, subtype)[1]}
    return sorted(path for path in (root / subtype).iterdir() if path.stem in rated)


def read_image(path: Path) -> np.ndarray:
    return decode(path.read_bytes()).rgb


def write_image(path: Path, rgb: np.ndarray) -> None:
    path.unlink(missing_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))


def marked(subtype: str, mark: Change, share: float = 1.0) -> Plant:
    """Return a fault: every image of a subtype, or a share of them, is changed."""

    def plant(root: Path) -> None:
        paths = images_of(root, subtype)
        for number in np.random.default_rng(0).permutation(len(paths))[: round(share * len(paths))]:
            write_image(paths[number], mark(read_image(paths[number])))

    return plant


def move_rows(root: Path) -> None:
    for name in SUBTYPES:
        head, rows = read_table(root, name)
        values = [row[1:] for row in rows]
        write_table(
            root, name, head, [[row[0], *new] for row, new in zip(rows, values[-1:] + values, strict=False)]
        )


def exchange_half(root: Path) -> None:
    tables = {name: read_table(root, name) for name in SUBTYPES}
    rows = [row for _, table in tables.values() for row in table]
    chosen = np.random.default_rng(0).permutation(len(rows))[: len(rows) // 2]
    values = [rows[number][1:3] for number in np.random.default_rng(1).permutation(chosen)]
    for number, new in zip(chosen, values, strict=True):
        rows[number][1:3] = new
    for name, (head, table) in tables.items():
        write_table(root, name, head, table)


def rated(change: Callable[[np.ndarray], np.ndarray], *subtypes: str) -> Plant:
    """Return a fault: the ratings of valence of some subtypes are changed."""

    def plant(root: Path) -> None:
        for name in subtypes:
            head, rows = read_table(root, name)
            changed = change(np.array([float(row[1]) for row in rows]))
            rows = [[row[0], f"{new:.3f}", *row[2:]] for row, new in zip(rows, changed, strict=True)]
            write_table(root, name, head, rows)

    return plant


def exchange_columns(root: Path) -> None:
    for name in SUBTYPES:
        head, rows = read_table(root, name)
        write_table(root, name, head, [[row[0], row[2], row[1], *row[3:]] for row in rows])


def exchange_subtypes(first: str, second: str, share: float) -> Plant:
    """Return a fault: images of two subtypes change folder, table and name; their ratings stay theirs."""

    def plant(root: Path) -> None:
        tables = [read_table(root, name) for name in (first, second)]
        n = round(share * min(len(rows) for _, rows in tables))
        for left, right in zip(tables[0][1][:n], tables[1][1][:n], strict=True):
            left[1:3], right[1:3] = right[1:3], left[1:3]
            paths = [
                next((root / name).glob(f"{row[0].split('.')[0]}.*"))
                for name, row in ((first, left), (second, right))
            ]
            aside = paths[0].with_suffix(".aside")
            paths[0].rename(aside)
            paths[1].rename(paths[0])
            aside.rename(paths[1])
        for name, table in zip((first, second), tables, strict=True):
            write_table(root, name, *table)

    return plant


def exchange_images(root: Path) -> None:
    """Exchange a tenth of the images between subtypes; their names and the tables stay as they are."""
    paths = [images_of(root, name) for name in SUBTYPES]
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(len(own))[: round(0.1 * len(own))] for own in paths]
    here = [own[row] for own, rows in zip(paths, chosen, strict=True) for row in rows]
    aside = [path.rename(path.with_suffix(".aside")) for path in here]
    for old, new in zip(aside, np.roll(np.array(here, object), len(here) // 2), strict=True):
        old.rename(new)


def put_placeholders(root: Path) -> None:
    """Replace a tenth of the images by one that says that there is no image."""
    for name in SUBTYPES:
        paths = images_of(root, name)
        for row in np.random.default_rng(0).permutation(len(paths))[: round(0.1 * len(paths))]:
            blank = np.full((480, 640, 3), 230, np.uint8)
            cv2.putText(blank, "no image", (200, 250), cv2.FONT_HERSHEY_SIMPLEX, 2, (90, 90, 90), 3)
            write_image(paths[row], blank)


def added(copy: str, *, other_labels: bool) -> Plant:
    """Return a fault: a fifth of the images is there again, changed; with labels of another subtype."""

    def plant(root: Path) -> None:
        rng, tables = np.random.default_rng(0), {name: read_table(root, name) for name in SUBTYPES}
        before = {name: [list(row) for row in rows] for name, (_, rows) in tables.items()}
        for number, (name, (head, rows)) in enumerate(tables.items()):
            label_of = {row[0].split(".")[0]: row[1:] for row in before[name]}
            others = before[SUBTYPES[(number + 3) % len(SUBTYPES)]]
            for at, path in enumerate(images_of(root, name)[::5]):
                again = path.with_name(f"{name}9{path.stem[len(name) :]}.bmp")
                write_image(again, COPIES[copy](read_image(path), rng))
                labels = label_of[path.stem]
                if other_labels:
                    labels = [*others[at % len(others)][1:3], *labels[2:]]
                rows.append([f"{again.stem}.jpg", *labels])
            write_table(root, name, head, rows)

    return plant


def _reversed(ratings: np.ndarray) -> np.ndarray:
    return 100 - ratings


def _mirrored(rgb: np.ndarray) -> np.ndarray:
    return rgb[:, ::-1]


def _enlarged(rgb: np.ndarray) -> np.ndarray:
    """Return an image that was 64 pixels high before."""
    small = cv2.resize(rgb, (64 * rgb.shape[1] // rgb.shape[0], 64), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC))


def _as_it_is(root: Path) -> None:
    pass


FAULTS: dict[str, Plant] = {
    "none": _as_it_is,
    "every rating table one row off": move_rows,
    "half of the ratings exchanged": exchange_half,
    "scale reversed": rated(_reversed, *SUBTYPES),
    "scale of one subtype (P) reversed": rated(_reversed, "P"),
    "subtypes P and Sn exchanged, ratings right": exchange_subtypes("P", "Sn", 1.0),
    "a fifth of the subtypes A and H exchanged, ratings right": exchange_subtypes("A", "H", 0.2),
    "watermark of 40 % on P": marked("P", MARKS["watermark (40 %)"]),
    "frame of 4 px on N": marked("N", MARKS["frame of 4 px"]),
    "frame of 4 px on a quarter of N": marked("N", MARKS["frame of 4 px"], 0.25),
    "JPEG 30 on A": marked("A", MARKS["JPEG 30 of the stored image"]),
    "JPEG 60 on A": marked("A", MARKS["JPEG 60 of the stored image"]),
    "blur of 1 px at 224 on H": marked("H", MARKS["blur at 224 pixels"]),
    "colour cast (+10, 0, -6) on P": marked("P", MARKS["colour cast"]),
    "colour cast (+30, 0, -20) on P": marked("P", MARKS["strong colour cast"]),
    "crops of .8, mirrored, of a fifth of the images": added("crop of .8, mirrored", other_labels=False),
    "the same, with labels of another subtype": added("crop of .8, mirrored", other_labels=True),
    "near-duplicates of a fifth, with labels of another subtype": added("dark, JPEG 30", other_labels=True),
    "valence and arousal exchanged in every rating table": exchange_columns,
    "ratings of N rounded to multiples of 20": rated(lambda ratings: 20 * np.round(ratings / 20), "N"),
    "ratings of Sn replaced by their mean": rated(
        lambda ratings: np.full(len(ratings), ratings.mean()), "Sn"
    ),
    "H grey": marked("H", MARKS["grey"]),
    "half of H grey": marked("H", MARKS["grey"], 0.5),
    "P enlarged from 64 px": marked("P", _enlarged),
    "Sp mirrored": marked("Sp", _mirrored),
    "a tenth of the images exchanged between subtypes, tables right": exchange_images,
    "a tenth of the images replaced by a placeholder": put_placeholders,
    "noise of SD 20 on the labels of test in the release, hashes renewed": _as_it_is,
    "labels of copies +5 in the release, hashes renewed": _as_it_is,
    "labels of copies exchanged in the release, hashes renewed": _as_it_is,
}
