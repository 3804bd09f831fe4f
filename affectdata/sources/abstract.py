"""Abstract Paintings: 280 non-figurative paintings; about 14 people per painting voted for one of 8 emotions.

Machajdik & Hanbury (2010); 230 people voted online. The tree as shipped:

    testImages_abstract/abstract_0001.jpg …
    ABSTRACT_groundTruth.csv     every cell in single quotes, the first header cell empty; votes 0–13

The shares are votes divided by all votes for a painting; the votes are in `extra`. `Content` is contentment,
`Sad` sadness. 229 paintings have one emotion with most votes; the other 51 have no `emotion`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectdata.errors import SourceError
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.reading.delimited import parse_count, parse_delimited
from affectdata.reading.join import Row, join_rows
from affectdata.reading.names import find_readmes, fold_stem
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_head
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Reason, Record, Reject, SourceInfo

INFO = SourceInfo(
    name="abstract",
    title="Abstract Paintings",
    scales={},
    license="research only",
    citation=(
        "Machajdik, J., & Hanbury, A. (2010). Affective image classification using features inspired by "
        "psychology and art theory. Proceedings of the 18th ACM International Conference on Multimedia, "
        "83–92. https://doi.org/10.1145/1873951.1873965"
    ),
    bibtex="""\
@inproceedings{machajdik2010affective,
  author    = {Machajdik, Jana and Hanbury, Allan},
  title     = {Affective image classification using features inspired by psychology and art theory},
  booktitle = {Proceedings of the 18th ACM International Conference on Multimedia},
  pages     = {83--92},
  year      = {2010},
  doi       = {10.1145/1873951.1873965},
}""",
    url="https://www.imageemotion.org/",
    layout="testImages_abstract/abstract_*.jpg, ABSTRACT_groundTruth.csv",
    evidence="unverified",
)
_EMOTIONS = ("Amusement", "Anger", "Awe", "Content", "Disgust", "Excitement", "Fear", "Sad")


def detect(tree: Tree) -> str | None:
    """Recognise the collection by the header of the table of votes."""
    table = _find_table(tree)
    return f"the header of {table}" if table else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the votes.

    Raises:
        SourceError: there is no table of votes.
    """
    table = _find_table(tree)
    if table is None:
        raise SourceError(
            "there is no table of votes",
            where=f"{tree.root}: no .csv with the columns {', '.join(_EMOTIONS)}",
            fix=f"expected: {INFO.layout}",
        )
    return Reading(INFO, _read_items(tree, table))


def _find_table(tree: Tree) -> str | None:
    for path in tree.others():
        if path.lower().endswith(".csv") and set(_cells(read_head(tree, path).split(","))) >= set(_EMOTIONS):
            return path
    return None


def _cells(row: list[str]) -> list[str]:
    return [cell.strip().strip("'\"").strip() for cell in row]


def _read_items(tree: Tree, table: str) -> Iterator[Item]:
    yield from map(Annotation, [table, *find_readmes(tree)])
    header, lines = parse_delimited(tree.read_bytes(table), ",", table)
    names = ["", *_cells(header)[1:]]
    votes = (dict(zip(names, _cells(line), strict=True)) for line in lines)
    rows = (Row(table, cells[""], cells[""], cells) for cells in votes)
    for item in join_rows(rows, tree.images(), fold_stem):
        yield _record(*item) if isinstance(item, tuple) else item


def _record(row: Row, path: str) -> Record | Reject:
    try:
        votes = {spell_emotion(name): parse_count(row.cells[name]) for name in _EMOTIONS}
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}: {error}")
    n = sum(votes.values())
    if not n:
        return Reject(path, Reason.MISSING_RATING, f"{row.where}: no votes")
    shares = {emotion: round(count / n, 9) for emotion, count in votes.items()}
    return Record(
        path=path,
        source_id=row.key,
        emotion=dominant_emotion(shares),
        emotions=shares,
        extra={name: cell for name, cell in row.cells.items() if name},
    )


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 24 generated images and their votes, with ties; one more row has no image."""
    lines = [",".join(f"'{name}'" for name in ("", *_EMOTIONS))]
    for number in range(1, 26):
        votes = rng.multinomial(14, rng.dirichlet(np.full(8, 0.4)))
        votes[0] += not votes.any()
        if number in (3, 10):  # a tie of the first two emotions
            votes[:2] = votes.max() + 1
        name = f"abstract_{number:04d}.jpg"
        lines.append(",".join(f"'{cell}'" for cell in (name, *votes)))
        if number < 25:
            save_image(
                root / "testImages_abstract" / name, draw_image(rng, rng.uniform(5, 95), 96, 96), "JPEG"
            )
    (root / "ABSTRACT_groundTruth.csv").write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
