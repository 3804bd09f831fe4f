"""OASIS, the Open Affective Standardized Image Set: 900 images of four categories, rated by 822 people.

Kurdi, Lozano & Banaji (2017). Valence and arousal on 1–7, neutral 4, each with standard deviation and number
of raters (about 103 each; different people rated the two).

The tree as shipped:

    OASIS.csv                    900 rows; CR-only line ends; the first column, the id, has no name
    images/Acorns 1.jpg …        500 × 400; one is a PNG in spite of its name

The table has `Acorns 1`, two themes end in a space, and in some copies the files are `Acorns_1.jpg` or
`Acorns1.jpg`: only letters and digits of names are compared. Copies of the table have LF and quotes. It is
recognised by its header, whatever its name. Gaps in the numbering are not missing files.

`OASIS_bygender….csv` has means, SDs and Ns of men and women, and categories as numbers. Without `OASIS.csv`,
the two groups are pooled: the mean is weighted by N, the SD is that of both groups together about the pooled
mean (not the mean of the SDs), N is the sum; raters without a gender are in neither group. Beside `OASIS.csv`
it is not read.

`theme` is the name without its number (`Acorns`), and is a group: with a random split, a third of the
apparent skill on this set comes from having seen `Acorns 2`. `extra` has the name, the category and the
columns by gender, unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectdata.errors import SourceError
from affectdata.reading.delimited import (
    parse_count,
    parse_delimited,
    parse_number,
    parse_spread,
    require_columns,
)
from affectdata.reading.join import Row, join_rows
from affectdata.reading.names import find_readmes, fold_stem
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_head
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Rating, Reason, Record, Reject, Scale, SourceInfo, Subtype

_CATEGORIES = {"1": "Animal", "2": "Object", "3": "Person", "4": "Scenery"}
# Published numbers of images per interval of 5 POMP units, [0, 5) … [95, 100]: no rating of an image.
_COUNTS = {
    "Animal": {
        "valence": (1, 0, 2, 2, 6, 4, 11, 5, 9, 9, 4, 11, 11, 10, 18, 11, 14, 5, 1, 0),
        "arousal": (0, 0, 0, 0, 2, 3, 3, 8, 21, 23, 29, 28, 14, 3, 0, 0, 0, 0, 0, 0),
    },
    "Object": {
        "valence": (1, 0, 1, 7, 2, 9, 11, 7, 2, 15, 52, 30, 15, 10, 17, 16, 5, 0, 0, 0),
        "arousal": (0, 0, 18, 38, 36, 13, 21, 16, 18, 20, 14, 5, 0, 0, 1, 0, 0, 0, 0, 0),
    },
    "Person": {
        "valence": (4, 5, 3, 4, 8, 17, 22, 15, 23, 23, 16, 24, 36, 41, 37, 39, 24, 5, 0, 0),
        "arousal": (0, 0, 0, 2, 3, 9, 20, 51, 66, 52, 56, 36, 20, 17, 12, 2, 0, 0, 0, 0),
    },
    "Scenery": {
        "valence": (0, 1, 11, 17, 13, 12, 6, 6, 6, 7, 13, 24, 20, 15, 14, 18, 17, 19, 1, 0),
        "arousal": (0, 0, 0, 5, 13, 8, 8, 21, 30, 29, 30, 35, 26, 11, 4, 0, 0, 0, 0, 0),
    },
}
INFO = SourceInfo(
    name="oasis",
    title="Open Affective Standardized Image Set",
    scales={"valence": Scale(1, 7), "arousal": Scale(1, 7)},
    license="open access; ratings free for research, each picture on the terms of its source (attribution)",
    citation=(
        "Kurdi, B., Lozano, S., & Banaji, M. R. (2017). Introducing the Open Affective Standardized Image "
        "Set (OASIS). Behavior Research Methods, 49(2), 457–470. https://doi.org/10.3758/s13428-016-0715-3"
    ),
    bibtex="""\
@article{kurdi2017oasis,
  author  = {Kurdi, Benedek and Lozano, Shayn and Banaji, Mahzarin R.},
  title   = {Introducing the {Open Affective Standardized Image Set} ({OASIS})},
  journal = {Behavior Research Methods},
  volume  = {49},
  number  = {2},
  pages   = {457--470},
  year    = {2017},
  doi     = {10.3758/s13428-016-0715-3},
}""",
    url="https://osf.io/6pnd7/",
    layout="OASIS.csv, 'images/<Theme>.jpg'",
    subtypes={name: Subtype(name.lower(), counts=_COUNTS[name]) for name in _CATEGORIES.values()},
    groups=("theme",),
    # Doctor 8 and Surgery 2, Lightning 6 and Thunderstorm 8: found by `affectdata groups`
    same_images=(("I249", "I817"), ("I479", "I832")),
)
_MEASURES = {"valence": "Valence", "arousal": "Arousal"}
_GENDERS = ("men", "women")
_COMMON = ["Theme", "Category", "Source"]
_OVERALL = [f"{measure}_{part}" for measure in _MEASURES.values() for part in ("mean", "SD", "N")]
_BY_GENDER = [f"{column}_{gender}" for column in _OVERALL for gender in _GENDERS]


def detect(tree: Tree) -> str | None:
    """Recognise OASIS by the header of a table at the root."""
    tables = _find_tables(tree)
    return f"the header of {tables[0]}" if tables else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the table over all raters, or else the one by gender."""
    return Reading(INFO, _read_items(tree))


def _find_tables(tree: Tree) -> list[str]:
    """List the tables of OASIS, those over all raters before those by gender."""
    heads = {path: set(_read_header(tree, path)) for path in _root_tables(tree)}
    wanted = (_OVERALL, _BY_GENDER)
    return [path for columns in wanted for path, head in heads.items() if head.issuperset(_COMMON + columns)]


def _root_tables(tree: Tree) -> list[str]:
    return [path for path in tree.others() if "/" not in path and path.lower().endswith(".csv")]


def _read_header(tree: Tree, path: str) -> list[str]:
    return [cell.strip().strip('"') for cell in read_head(tree, path).split(",")]


def _read_items(tree: Tree) -> Iterator[Item]:
    tables = _find_tables(tree)
    if not tables:
        _raise_missing_table(tree)
    table, *others = tables
    yield from (Annotation(path) for path in find_readmes(tree))
    yield Annotation(table)
    for path in others:
        yield Annotation(path)
        yield Finding("unread_table", f"{path} was not read: the ratings are from {table}")
    for item in join_rows(_read_rows(tree, table), tree.images(), fold_stem):
        yield _read_row(*item) if isinstance(item, tuple) else item


def _raise_missing_table(tree: Tree) -> None:
    for path in _root_tables(tree):
        require_columns(_read_header(tree, path), _COMMON + _OVERALL, path)
    raise SourceError(
        "there is no table of OASIS", where=f"{tree.root}: no .csv", fix="put OASIS.csv beside images/"
    )


def _read_rows(tree: Tree, table: str) -> Iterator[Row]:
    header, lines = parse_delimited(tree.read_bytes(table), ",", table)
    for number, line in enumerate(lines, 1):
        cells = dict(zip(header, line, strict=True))
        yield Row(table, cells.pop("", "") or f"I{number}", cells["Theme"], cells)


def _read_row(row: Row, path: str) -> Record | Reject:
    cells = dict(row.cells)
    theme, category = cells["Theme"], _CATEGORIES.get(cells["Category"], cells["Category"])
    if category not in INFO.subtypes:
        raise SourceError(
            f"{category!r} is not a category of OASIS; the categories are: {', '.join(INFO.subtypes)}",
            where=row.where,
        )
    try:
        ratings = {name: _read_rating(cells, measure) for name, measure in _MEASURES.items()}
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}, {error}")
    return Record(
        path=path,
        source_id=row.key,
        subtype=category,
        ratings=ratings,
        theme=re.sub(r"[ _]*\d+$", "", theme),
        attribution=cells["Source"] or None,
        together=INFO.together(row.key),
        extra={name: cell for name, cell in cells.items() if name not in ("Source", *_OVERALL)},
    )


def _read_rating(cells: dict[str, str], measure: str) -> Rating:
    try:
        if f"{measure}_mean" in cells:
            return _one_rating(cells, measure, "")
        return pool_ratings(*(_one_rating(cells, measure, f"_{gender}") for gender in _GENDERS))
    except ValueError as error:
        raise ValueError(f"{measure}: {error}") from None


def _one_rating(cells: dict[str, str], measure: str, suffix: str) -> Rating:
    mean, sd, n = (cells[f"{measure}_{part}{suffix}"] for part in ("mean", "SD", "N"))
    return Rating(parse_number(mean), parse_spread(sd) if sd else None, parse_count(n) if n else None)


def pool_ratings(a: Rating, b: Rating) -> Rating:
    """Pool the ratings of two groups of raters, with the same result as from the single ratings.

    The sums of squares about the group means, and of the group means about the pooled mean, add up; SDs are
    sample SDs (n - 1).

    Raises:
        ValueError: a group has no SD or no raters.
    """
    if not a.n or not b.n or a.sd is None or b.sd is None:
        raise ValueError("two groups can be pooled only with the SD and the N of both")
    n = a.n + b.n
    mean = (a.mean * a.n + b.mean * b.n) / n
    squares = a.sd**2 * (a.n - 1) + b.sd**2 * (b.n - 1) + (a.mean - b.mean) ** 2 * a.n * b.n / n
    return Rating(round(mean, 9), round(math.sqrt(squares / (n - 1)), 9), n)


# The generated sample: themes by category, with gaps in the numbering.
_SAMPLE: dict[str, dict[str, tuple[int, ...]]] = {
    "Animal": {"Lynx": (1, 2, 3), "Newt": (1, 2, 4)},
    "Object": {"Clay pot": (1, 2, 3, 4), "Ladder": (2, 3)},
    "Person": {"Juggler": (1, 2, 3), "Surprised look": (1, 2, 3, 5), "Queue": (1, 2)},
    "Scenery": {"Marsh": (1, 2, 3), "Quarry": (1, 3), "Fjord": (1, 2, 3)},
}
_TRAILING_SPACE = ("Ladder 2", "Marsh 3")


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 29 generated images in OASIS's layout, with its quirks; a thirtieth row has no image."""
    rows = [",Theme,Category,Source," + ",".join(_OVERALL)]
    names = [
        (category, f"{theme} {number}")
        for category, themes in _SAMPLE.items()
        for theme, numbers in themes.items()
        for number in numbers
    ]
    for number, (category, name) in enumerate([*names, ("Scenery", "Fjord 4")], 1):
        valence, arousal = rng.uniform(1.2, 6.6), rng.uniform(1.8, 5.6)
        cells = [f"I{number}", name + " " * (name in _TRAILING_SPACE), category, "generated"]
        for mean, sd, n in ((valence, rng.uniform(0.4, 2), 101), (arousal, rng.uniform(1.2, 2.4), 100)):
            cells += [f"{mean:.9f}", f"{sd:.9f}", str(n + number % 5)]
        rows.append(",".join(cells))
        if number <= len(names):
            image = draw_image(rng, (valence - 1) / 6 * 100, 125, 100)
            container = "PNG" if name == "Newt 4" else "JPEG"
            save_image(root / "images" / f"{name}.jpg", image, container)
    (root / "OASIS.csv").write_bytes("\r".join(rows).encode("ascii"))
