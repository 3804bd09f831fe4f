"""FER+: 35,887 faces of FER2013 at 48 × 48 pixels, each with the votes of ten people.

Barsoum et al. (2016) relabelled the faces of Goodfellow et al. (2013). The votes are shares over eight
emotions; votes for `unknown` and `NF` (not a face) count among the raters, and are in `extra` with the label
of FER2013 and the name of the image. An image is rejected if all raters voted `NF`, or if it has no name, as
FER+ excludes it. The official split is kept: Training is train, PublicTest is val, PrivateTest is test.

The two tables as shipped, anywhere under one root:

    fer2013.csv         emotion,pixels,Usage; the pixels are 2,304 numbers in one cell (or icml_face_data.csv)
    fer2013new.csv      Usage,Image name,neutral,…,unknown,NF; ten votes

There are no image files: the path of an image is `fer2013.csv#N`, N the row from 0. The tables are joined by
row number; the names in the second are not row numbers, and four occur twice. Of the 35,887 rows, 173 have no
name, and 3 more have only `NF` votes: 35,711 remain.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from affectdata.errors import SourceError
from affectdata.labels import dominant_emotion
from affectdata.reading.delimited import parse_count
from affectdata.reading.names import find_readmes
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.tables import Shape, has_columns, read_table
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Reason, Record, Reject, SourceInfo
from affectdata.sources.fer2013 import SPLITS, draw_pixels, find_faces, read_faces

INFO = SourceInfo(
    name="ferplus",
    title="FER+: FER2013 with ten votes per face",
    scales={},
    license="votes: MIT; pictures: FER2013, research only, on the terms of their owners",
    citation=(
        "Barsoum, E., Zhang, C., Canton Ferrer, C., & Zhang, Z. (2016). Training deep networks for facial "
        "expression recognition with crowd-sourced label distribution. Proceedings of the 18th ACM "
        "International Conference on Multimodal Interaction, 279–283. https://doi.org/10.1145/2993148.2993165"
    ),
    bibtex="""\
@inproceedings{barsoum2016ferplus,
  author    = {Barsoum, Emad and Zhang, Cha and Canton Ferrer, Cristian and Zhang, Zhengyou},
  title     = {Training deep networks for facial expression recognition with crowd-sourced label
               distribution},
  booktitle = {Proceedings of the 18th ACM International Conference on Multimodal Interaction},
  pages     = {279--283},
  year      = {2016},
  doi       = {10.1145/2993148.2993165},
}""",
    url="https://github.com/microsoft/FERPlus",
    layout="fer2013.csv, fer2013new.csv",
)
_EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_NO_FACE = "NF"
_VOTES = (*_EMOTIONS, "unknown", _NO_FACE)


def detect(tree: Tree) -> str | None:
    """Recognise FER+ by the table of votes beside the table of pixels."""
    pixels, votes = _find_tables(tree)
    return f"votes in {votes} on pixels in {pixels}" if pixels and votes else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the two tables, row by row.

    Raises:
        SourceError: one is missing, or they differ in length or in the `Usage` of a row.
    """
    pixels, votes = _find_tables(tree)
    if not pixels or not votes:
        raise SourceError(
            f"there is no table of {'votes' if pixels else 'pixels'}",
            where=str(tree.root),
            fix=f"expected: {INFO.layout}",
        )
    return Reading(INFO, _read_items(tree, pixels, votes))


def _find_tables(tree: Tree) -> tuple[str | None, str | None]:
    """Return the table of pixels and the table of votes."""
    pixels, shape = find_faces(tree, with_usage=True), Shape(needed=["Image name", *_VOTES])
    tables = (path for path in tree.others() if PurePosixPath(path).name.lower().startswith("fer2013"))
    votes = (path for path in tables if path.lower().endswith(".csv") and has_columns(tree, path, shape))
    return next(iter(pixels), None), next(votes, None)


def _read_items(tree: Tree, pixels: str, votes: str) -> Iterator[Item]:
    yield from (Annotation(path) for path in [*find_readmes(tree), pixels, votes])
    faces = list(read_faces(tree, pixels))
    header, rows = read_table(tree, votes)
    lines = list(rows)
    if len(faces) != len(lines):
        raise SourceError(
            f"{pixels} has {len(faces)} rows, {votes} has {len(lines)}",
            where=str(tree.root),
            fix="the tables are joined by row number: restore the original tables",
        )
    for number, (face, line) in enumerate(zip(faces, lines, strict=True)):
        cells = {**dict(zip(header, line, strict=True)), "FER2013 emotion": face[0]}
        if face[1] != cells["Usage"]:
            raise SourceError(
                f"row {number} has Usage {face[1]} in {pixels}, but {cells['Usage']} in {votes}",
                where=str(tree.root),
                fix="restore the original tables",
            )
        yield _read_row(f"{pixels}#{number}", votes, cells)


def _read_row(path: str, table: str, cells: dict[str, str]) -> Record | Reject:
    number = path.rpartition("#")[2]
    split, where = SPLITS.get(cells["Usage"]), f"{table}, row {number}"
    if split is None:
        raise SourceError(f"{cells['Usage']!r} is not one of {', '.join(SPLITS)}", where=where)
    try:
        votes = {name: parse_count(cells[name] or "0") for name in _VOTES}
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{where}: {error}")
    raters = sum(votes.values())
    if not cells["Image name"] or votes[_NO_FACE] == raters:
        detail = "all votes are NF (not a face)" if votes[_NO_FACE] == raters else "it has no name in FER+"
        return Reject(path, Reason.MISSING_RATING, f"{where}: {detail}")
    shares = {name: round(votes[name] / raters, 9) for name in _VOTES}
    chosen = dominant_emotion(shares)
    return Record(
        path=path,
        source_id=number,
        emotion=chosen if chosen in _EMOTIONS else None,
        emotions={name: shares[name] for name in _EMOTIONS},
        split=split,
        extra={name: cells[name] for name in ("Image name", "unknown", _NO_FACE, "FER2013 emotion")},
    )


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 30 generated faces: one without a name, one with NF votes only, one with nine votes."""
    pixels, votes = ["emotion,pixels,Usage"], [",".join(["Usage", "Image name", *_VOTES])]
    for number in range(30):
        use = list(SPLITS)[max(0, number % 10 - 7)]
        pixels.append(f'{number % 7},"{draw_pixels(rng)}",{use}')
        counts = rng.multinomial(9 if number == 4 else 10, rng.dirichlet(np.full(len(_VOTES), 0.4)))
        if number in (6, 7):
            counts[:] = [0] * (len(_VOTES) - 1) + [10]
        name = "" if number == 6 else f"fer{number + (number > 20):07d}.png"
        votes.append(",".join([use, name, *map(str, counts)]))
    root.mkdir(parents=True, exist_ok=True)
    (root / "fer2013.csv").write_text("\n".join(pixels) + "\n", encoding="ascii", newline="\n")
    (root / "fer2013new.csv").write_text("\n".join(votes) + "\n", encoding="ascii", newline="\n")
