"""FER2013: 35,887 faces at 48 × 48 pixels, each with one of seven emotions.

Goodfellow et al. (2013). The faces were collected with a search engine by words for emotions, and checked by
people; labels are known to be noisy, and some faces occur several times. `fer2013.csv` with the ten votes of
FER+ beside it is the source `ferplus`.

One table, in either of its public forms, anywhere under the root:

    fer2013.csv           emotion,pixels,Usage; the pixels are 2,304 numbers in one cell
    icml_face_data.csv    emotion, Usage, pixels; the same rows, with blanks in the header

The codes are 0 anger, 1 disgust, 2 fear, 3 happiness, 4 sadness, 5 surprise, 6 neutral. The official split
is kept: Training is train, PublicTest is val, PrivateTest is test. A table without `Usage`, such as the
`train.csv` of the contest, has no split. There are no image files: the path of an image is `fer2013.csv#N`, N
the row from 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectdata.errors import SourceError
from affectdata.reading.names import find_readmes
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image
from affectdata.reading.tables import Shape, has_columns
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Reason, Record, Reject, SourceInfo
from affectdata.store.files import open_text

INFO = SourceInfo(
    name="fer2013",
    title="FER2013",
    scales={},
    license="not stated; pictures are from web searches, on the terms of their owners",
    citation=(
        "Goodfellow, I. J., Erhan, D., Carrier, P. L., Courville, A., Mirza, M., Hamner, B., … Bengio, Y. "
        "(2013). Challenges in representation learning: A report on three machine learning contests. Neural "
        "Information Processing (ICONIP 2013), 117–124. https://doi.org/10.1007/978-3-642-42051-1_16"
    ),
    bibtex="""\
@inproceedings{goodfellow2013challenges,
  author    = {Goodfellow, Ian J. and Erhan, Dumitru and Carrier, Pierre Luc and Courville, Aaron and
               Mirza, Mehdi and Hamner, Ben and others},
  title     = {Challenges in Representation Learning: A Report on Three Machine Learning Contests},
  booktitle = {Neural Information Processing ({ICONIP} 2013)},
  pages     = {117--124},
  year      = {2013},
  doi       = {10.1007/978-3-642-42051-1_16},
}""",
    url="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    layout="fer2013.csv or icml_face_data.csv, with the columns emotion, pixels, Usage",
    evidence="unverified",
)
SPLITS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
_VOTES = Shape(needed=["Image name", "neutral", "NF"])


def detect(tree: Tree) -> str | None:
    """Recognise a table of labelled pixels that has no votes of FER+ beside it."""
    faces = find_faces(tree)
    votes = (path for path in tree.others() if faces and path.lower().endswith(".csv"))
    return (
        None
        if not faces or any(has_columns(tree, path, _VOTES) for path in votes)
        else f"pixels in {faces[0]}"
    )


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the labels, row by row.

    Raises:
        SourceError: there is no table of labelled pixels, or it has another word for `Usage`.
    """
    tables = find_faces(tree)
    if not tables:
        raise SourceError(
            "there is no table of labelled pixels", where=str(tree.root), fix=f"expected: {INFO.layout}"
        )
    return Reading(INFO, _read_items(tree, tables))


def find_faces(tree: Tree, with_usage: bool = False) -> list[str]:
    """List the tables of labelled pixels: those with the column `Usage`, or else those without."""
    tables = [path for path in tree.others() if path.lower().endswith(".csv")]
    for columns in (["emotion", "pixels", "Usage"], ["emotion", "pixels"]):
        faces = [path for path in tables if has_columns(tree, path, Shape(needed=columns))]
        if faces or with_usage:
            return faces
    return []


def _read_items(tree: Tree, tables: list[str]) -> Iterator[Item]:
    yield from (Annotation(path) for path in [*find_readmes(tree), *tables])
    for table in tables:
        for number, (label, usage) in enumerate(read_faces(tree, table)):
            yield _read_row(f"{table}#{number}", label, usage)


def read_faces(tree: Tree, table: str) -> Iterator[tuple[str, str]]:
    """Yield label and `Usage` of each row (empty in a table without it), without keeping the pixels.

    Raises:
        SourceError: a line cannot be read as a row.
    """
    tree.note_read(table)
    with open_text(tree.root / table, encoding="utf-8-sig", errors="replace") as file:
        header = [cell.strip() for cell in next(csv.reader([file.readline().rstrip()]), [])]
        label, usage = header.index("emotion"), header.index("Usage") if "Usage" in header else None
        for line in file:
            try:
                row = next(csv.reader([line.rstrip()]), [])
                yield row[label].strip(), "" if usage is None else row[usage].strip()
            except (csv.Error, IndexError) as error:
                raise SourceError(f"a line cannot be read as a row: {line[:60]!r}", where=table) from error


def _read_row(path: str, label: str, usage: str) -> Record | Reject:
    if usage and usage not in SPLITS:
        raise SourceError(f"{usage!r} is not one of {', '.join(SPLITS)}", where=path)
    if label not in map(str, range(len(_EMOTIONS))):
        return Reject(
            path, Reason.BAD_RATING, f"emotion {label!r} is not a code from 0 to {len(_EMOTIONS) - 1}"
        )
    return Record(
        path=path,
        source_id=path.rpartition("#")[2],
        emotion=_EMOTIONS[int(label)],
        split=SPLITS.get(usage),
        extra={"emotion": label},
    )


def draw_pixels(rng: np.random.Generator) -> str:
    """Draw the grey values of a generated face as a cell of the table."""
    image = draw_image(rng, float(rng.uniform(10, 90)), 48, 48)
    return " ".join(map(str, image.mean(axis=2).astype(int).ravel()))


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 30 generated faces in the form of `icml_face_data.csv`; one has a code that is not an emotion."""
    lines = ["emotion, Usage, pixels"]
    for number in range(30):
        label = 7 if number == 9 else number % 7
        lines.append(f"{label},{list(SPLITS)[max(0, number % 10 - 7)]},{draw_pixels(rng)}")
    root.mkdir(parents=True, exist_ok=True)
    (root / "icml_face_data.csv").write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
