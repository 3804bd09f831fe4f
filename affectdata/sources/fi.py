"""FI, Flickr & Instagram: some 23,000 photographs found by eight emotion words, each voted on by five people.

You, Luo, Jin & Yang (2016). The people said whether a photograph shows the emotion that it was found by: the
votes are for and against that one, not over all eight. Copies differ in number (23,308 published, 23,166 and
23,185 known), as photographs vanish. Two parts, of which either may be there alone:

    emotion_dataset/amusement/*.jpg anger/ awe/ contentment/ disgust/ excitement/ fear/ sadness/
    agg/amusement_….csv …       no header: a field of unknown meaning, URL, votes against, votes for

A picture is known by the last part of its URL, in the folder of its emotion or anywhere. It is of an emotion
if more voted for than against; without votes, if it lies in the emotion's folder. `emotion_<name>` is the
share of votes for, `agreement` that of its emotion. A photograph found by several words has the one with the
largest share.

Some files show no photograph, but the site's notice that it is gone, under as many names as photographs are:
a picture with three names or more is such a placeholder, as the same photograph posted thrice is rare.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from affectdata.errors import SourceError
from affectdata.labels import VOCABULARIES, dominant_emotion
from affectdata.records import Annotation, Finding, Reason, Record, Reject, SourceInfo
from affectdata.sources._delimited import parse_count, parse_delimited
from affectdata.sources._join import Row, join_rows
from affectdata.sources._names import find_readmes
from affectdata.sources._protocol import Item, Link, Reading, ReadOptions
from affectdata.sources._sample import draw_picture, save_picture
from affectdata.tree import Tree

INFO = SourceInfo(
    name="fi",
    title="Flickr & Instagram",
    scales={},
    license="research only; each picture is its Flickr or Instagram user's",
    citation=(
        "You, Q., Luo, J., Jin, H., & Yang, J. (2016). Building a large scale dataset for image emotion "
        "recognition: The fine print and the benchmark. Proceedings of the 30th AAAI Conference on "
        "Artificial Intelligence. arXiv:1605.02677"
    ),
    bibtex="""\
@inproceedings{you2016building,
  author    = {You, Quanzeng and Luo, Jiebo and Jin, Hailin and Yang, Jianchao},
  title     = {Building a Large Scale Dataset for Image Emotion Recognition: The Fine Print and the
               Benchmark},
  booktitle = {Proceedings of the 30th {AAAI} Conference on Artificial Intelligence},
  year      = {2016},
  eprint    = {1605.02677},
  archiveprefix = {arXiv},
}""",
    url="https://qzyou.github.io/",
    layout="emotion_dataset/<emotion>/*.jpg, agg/<emotion>_*.csv",
    evidence="unverified",
    placeholder_names=3,
)
_EMOTIONS = VOCABULARIES["mikels8"].emotions
_TABLE = re.compile(rf"(.*/)?agg/(?P<emotion>{'|'.join(_EMOTIONS)})_[^/]*\.csv")
_HEADER = ("first field", "url", "disagree", "agree")
_FOLDER = "emotion_dataset"


def detect(tree: Tree) -> str | None:
    """Recognise FI by its tables of votes, or by its folder with all eight emotions."""
    tables = _find_tables(tree)
    if tables:
        return f"votes in {tables[0]}"
    folders = {
        PurePosixPath(path).parent.name
        for path in tree.pictures().one_per_folder()
        if _FOLDER in _folders(tree, path)
    }
    return f"the eight emotions under {_FOLDER}/" if folders >= set(_EMOTIONS) else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the votes and the folders.

    Raises:
        SourceError: neither is there.
    """
    if not _find_tables(tree) and not any(_folder_emotion(path) for path in tree.pictures()):
        raise SourceError(
            "no folder of pictures is called by an emotion, and there are no votes", where=str(tree.root)
        )
    return Reading(INFO, _read_items(tree))


def find_links(tree: Tree, options: ReadOptions) -> Iterator[Link]:
    """List the addresses that were voted on; all go into one folder, as a picture may have several words."""
    there = {_file_name(path): path for path in tree.pictures()}
    for table in _find_tables(tree):
        for row in _read_votes(tree, table):
            yield Link(there.get(_file_name(row.picture), f"images/{row.picture}"), row.key)


def _find_tables(tree: Tree) -> list[str]:
    return [path for path in tree.files if _TABLE.fullmatch(path)]


def _folders(tree: Tree, path: str) -> tuple[str, ...]:
    return (tree.root.resolve().name, *PurePosixPath(path).parts[:-1])


def _folder_emotion(path: str) -> str | None:
    folder = PurePosixPath(path).parent.name
    return folder if folder in _EMOTIONS else None


def _read_items(tree: Tree) -> Iterator[Item]:
    tables, pictures = _find_tables(tree), tree.pictures()
    yield from map(Annotation, [*find_readmes(tree), *tables])
    votes: dict[str, dict[str, Row]] = {}
    rejects: dict[str, Reject] = {}
    for emotion in _EMOTIONS:
        rows = [
            row for table in tables if _table_emotion(table) == emotion for row in _read_votes(tree, table)
        ]
        near = [path for path in pictures if _folder_emotion(path) in (emotion, None)]
        for item in join_rows(rows, near, _file_name):
            if isinstance(item, tuple):
                votes.setdefault(item[1], {})[emotion] = item[0]
            elif isinstance(item, Reject):
                rejects[item.path] = item
            else:
                yield item
    yield from rejects.values()
    labelled = [path for path in pictures if path in votes or _folder_emotion(path)]
    for path in labelled:
        if path not in rejects:
            yield _record(path, votes.get(path, {}))
    if not tables:
        yield Finding("partial", "no votes (agg/<emotion>_*.csv): the emotion is that of the folder, for all")
    n_unvoted = len(set(labelled) - votes.keys() - rejects.keys())
    if tables and n_unvoted:
        yield Finding("partial", f"{n_unvoted} pictures in folders of emotions have no votes")


def _table_emotion(path: str) -> str | None:
    found = _TABLE.fullmatch(path)
    return found["emotion"] if found else None


def _file_name(path: str) -> str:
    return PurePosixPath(path).name.casefold()


def _read_votes(tree: Tree, table: str) -> Iterator[Row]:
    header = (",".join(_HEADER) + "\n").encode()
    _, lines = parse_delimited(header + tree.read_bytes(table), ",", table)
    for line in lines:
        cells = dict(zip(_HEADER, line, strict=True))
        yield Row(table, cells["url"], PurePosixPath(urlsplit(cells["url"]).path).name, cells)


def _record(path: str, votes: dict[str, Row]) -> Record | Reject:
    shares = {}
    for emotion, row in votes.items():
        try:
            against, votes_for = (parse_count(row.cells[name]) for name in _HEADER[2:])
            shares[emotion] = round(votes_for / (against + votes_for), 9)
        except (ValueError, ZeroDivisionError):
            detail = (
                f"{row.where}: {row.cells['disagree']!r} against and {row.cells['agree']!r} for are no votes"
            )
            return Reject(path, Reason.BAD_RATING, detail)
    shown = {emotion: share for emotion, share in shares.items() if share > 0.5}
    label = dominant_emotion(shown) if votes else _folder_emotion(path)
    return Record(
        path=path,
        source_id=path,
        emotion=label,
        emotions=shares,
        agreement=shares.get(label or ""),
        url=next((row.key for row in votes.values()), None),
        extra={f"{word} {name}": cell for word, row in votes.items() for name, cell in row.cells.items()},
    )


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 39 generated pictures in folders of emotions, four of them one notice, and the votes.

    One picture has no votes, one more votes against than for, one row no picture.
    """
    notice = draw_picture(rng, 50, 96, 72)
    for at, emotion in enumerate(_EMOTIONS):
        lines = []
        for number in range(5):
            name = f"{at}{number}_made.jpg"
            against = 4 if (at, number) == (2, 1) else int(rng.integers(0, 3))
            if (at, number) != (1, 0):
                lines.append(f"{number},https://farm{at}.example.org/{number}/{name},{against},{5 - against}")
            if (at, number) != (5, 4):
                gone = number == 3 and at % 2 == 0
                picture = notice if gone else draw_picture(rng, rng.uniform(5, 95), 96, 72)
                save_picture(
                    root / _FOLDER / emotion / name, picture, "PNG" if gone else "JPEG", palette=gone
                )
        table = root / "agg" / f"{emotion}_votes.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
    (root / _FOLDER / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
