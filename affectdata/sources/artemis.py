"""ArtEmis: 454,684 annotations of 80,031 WikiArt works: an emotion, and an explanation in words.

Achlioptas et al. (2021). At least five people per work chose one of eight emotions or `something else` and
explained the choice. A row of the manifest is a work: shares over its annotators; the utterances and the
number of annotations in `extra`; the style as `theme`; the painter, as in the file name, as `artist`. No
ratings.

The tree as shipped, in two parts:

    artemis_dataset_release_v0.csv      art_style,painting,emotion,utterance,repetition; a row per annotation
    <art_style>/<painting>.jpg          the WikiArt archive, anywhere under the root

Names in the table and on disk differ in non-ASCII letters, so only ASCII letters, digits and `_ / . -` are
compared. A work listed under two styles is one row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectdata.errors import SourceError
from affectdata.hashing import canonical_json
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.reading.delimited import require_columns
from affectdata.reading.join import Row, join_rows
from affectdata.reading.names import find_readmes, fold_path
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import Shape, has_columns, read_table
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Record, SourceInfo

INFO = SourceInfo(
    name="artemis",
    title="ArtEmis: affective language for visual art",
    scales={},
    license="non-commercial research under the terms of use; the pictures are on WikiArt's terms",
    citation=(
        "Achlioptas, P., Ovsjanikov, M., Haydarov, K., Elhoseiny, M., & Guibas, L. (2021). ArtEmis: "
        "Affective language for visual art. IEEE/CVF Conference on Computer Vision and Pattern Recognition "
        "(CVPR), 11564–11574. https://arxiv.org/abs/2101.07396"
    ),
    bibtex="""\
@inproceedings{achlioptas2021artemis,
  author    = {Achlioptas, Panos and Ovsjanikov, Maks and Haydarov, Kilichbek and Elhoseiny, Mohamed and
               Guibas, Leonidas},
  title     = {{ArtEmis}: Affective language for visual art},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {11564--11574},
  year      = {2021},
  url       = {https://arxiv.org/abs/2101.07396},
}""",
    url="https://www.artemisdataset.org/",
    layout="artemis_dataset_release_v0.csv, '<art_style>/<painting>.jpg'",
    evidence="unverified",
)
_COLUMNS = ["art_style", "painting", "emotion", "utterance", "repetition"]
_FOLD = re.compile(r"[^a-z0-9_/.-]")


def detect(tree: Tree) -> str | None:
    """Recognise ArtEmis by the columns of its table."""
    tables = _find_tables(tree)
    return f"the columns of {tables[0]}" if tables else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the table of annotations.

    Raises:
        SourceError: there is no such table, or several.
    """
    tables = _find_tables(tree)
    if len(tables) != 1:
        what = (
            f"{len(tables)} tables of annotations: {', '.join(tables)}"
            if tables
            else "no table of annotations"
        )
        raise SourceError(what, where=str(tree.root), fix=f"expected one: {INFO.layout}")
    return Reading(INFO, _read_items(tree, tables[0]))


def _find_tables(tree: Tree) -> list[str]:
    named = [path for path in tree.others() if "artemis" in path.lower() and path.lower().endswith(".csv")]
    return [path for path in named if has_columns(tree, path, Shape(needed=_COLUMNS))]


def _read_items(tree: Tree, table: str) -> Iterator[Item]:
    yield from (Annotation(path) for path in [*find_readmes(tree), table])
    for item in join_rows(_read_works(tree, table), tree.images(), _fold):
        yield _to_record(*item) if isinstance(item, tuple) else item


def _fold(path: str) -> str:
    return _FOLD.sub("", "/".join(fold_path(path).split("/")[-2:]))


def _read_works(tree: Tree, table: str) -> Iterator[Row]:
    """Yield a row per work; its cell `emotions` has a line per annotation, `utterances` a JSON list."""
    header, lines = read_table(tree, table, Shape(delimiter=","))
    require_columns(header, _COLUMNS, table)
    indices = [header.index(column) for column in _COLUMNS[:4]]
    works: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for line in lines:
        style, painting, emotion, utterance = (line[index] for index in indices)
        works.setdefault((style, painting), []).append((emotion, utterance))
    for (style, painting), answers in works.items():
        name = f"{style}/{painting}"
        emotions, utterances = zip(*sorted(answers), strict=True)
        cells = {"art_style": style, "painting": painting, "emotions": "\n".join(emotions)}
        yield Row(table, name, f"{name}.jpg", {**cells, "utterances": canonical_json(utterances)})


def _to_record(row: Row, path: str) -> Record:
    votes = Counter(spell_emotion(word) for word in row.cells["emotions"].split("\n"))
    shares = {emotion: round(count / votes.total(), 9) for emotion, count in votes.items()}
    return Record(
        path=path,
        source_id=row.key,
        emotion=dominant_emotion(shares),
        emotions=shares,
        artist=row.cells["painting"].partition("_")[0] or None,
        theme=row.cells["art_style"],
        extra={
            "painting": row.cells["painting"],
            "n_annotations": str(votes.total()),
            "utterances": row.cells["utterances"],
        },
    )


_SAMPLE_WORDS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 16 generated images and their annotations; one work has no image, one file name a typo."""
    rows = [",".join(_COLUMNS)]
    for number in range(17):
        style = ("Baroque", "Post_Impressionism")[number % 2]
        name = f"jos{'é' if number == 3 else 'e'}-painter_untitled-{number}" + "(1)" * (number == 5)
        for vote in range(5 + number % 3):
            word = "something else" if vote == 4 else _SAMPLE_WORDS[int(rng.integers(8))]
            rows.append(
                f'{style},{name},{word},"Made up, said ""{number}"",\nin two lines.",{5 + number % 3}'
            )
        if number < 16:
            image = draw_image(rng, float(rng.uniform(10, 90)), 96, 72)
            save_image(root / "wikiart" / style / f"{name.replace('é', 'Ã')}.jpg", image, "JPEG")
    (root / "artemis_dataset_release_v0.csv").write_bytes("\n".join(rows).encode() + b"\n")
