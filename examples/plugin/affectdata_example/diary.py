"""A photo diary: a folder of photographs, and a line with the mood of each, -3 to 3.

photos/*.jpg
diary.txt        a.jpg<tab>2
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectdata.errors import SourceError
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Rating, Reason, Record, Reject, Scale, SourceInfo

_TABLE = "diary.txt"
INFO = SourceInfo(
    name="diary",
    title="A photo diary",
    scales={"valence": Scale(-3, 3)},
    license="not stated",
    citation="none: the diary is yours",
    url="",
    layout="photos/*.jpg, diary.txt with a file name, a tab and the mood",
)


def detect(tree: Tree) -> str | None:
    """Recognise a diary by its table."""
    return f"the table {_TABLE}" if _TABLE in tree.files else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the lines of the diary.

    Raises:
        SourceError: there is no table.
    """
    if _TABLE not in tree.files:
        raise SourceError(f"there is no {_TABLE}", where=str(tree.root), fix=f"expected: {INFO.layout}")
    return Reading(INFO, _read_lines(tree))


def _read_lines(tree: Tree) -> Iterator[Item]:
    yield Annotation(_TABLE)
    images = {Path(path).name: path for path in tree.images()}
    for line in tree.read_bytes(_TABLE).decode().splitlines():
        name, _, mood = line.partition("\t")
        if name not in images:
            yield Reject(f"{_TABLE}: {name}", Reason.MISSING_IMAGE, "there is no such photograph")
            continue
        path = images.pop(name)
        try:
            yield Record(path=path, source_id=name, ratings={"valence": Rating(float(mood))})
        except ValueError:
            yield Reject(path, Reason.BAD_RATING, f"{mood!r} is no number")
    for path in images.values():
        yield Reject(path, Reason.MISSING_RATING, f"it has no line in {_TABLE}")


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 12 generated photographs and their moods; one has no line, one line no photograph."""
    lines = ["lost.jpg\t1"]
    for number in range(12):
        mood = number % 7 - 3
        save_image(root / "photos" / f"{number}.jpg", draw_image(rng, 50 + mood * 15, 96, 72), "JPEG")
        if number:
            lines.append(f"{number}.jpg\t{mood}")
    (root / _TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
