"""FI, Flickr & Instagram: about 23,000 photographs found by eight emotion words, with five votes each.

You, Luo, Jin & Yang (2016). Five people voted whether a photograph shows the emotion of its search word: the
votes are for and against this emotion, not over all eight. Copies differ in size (23,308 published, 23,166
and 23,185 known), as photographs disappear from the sites. There are three parts, and any of them suffices:

    emotion_dataset/amusement/*.jpg anger/ awe/ contentment/ disgust/ excitement/ fear/ sadness/
    agg/amusement_….csv …       no header: a field of unknown meaning, URL, votes against, votes for
    amusement.txt …             a path or a URL per line

An image is identified by the last part of its URL: in the folder of the emotion or in one that is not named
after an emotion, else in the folder of another emotion, as an archive has a photograph found by several words
only once. It has an emotion if more people voted for than against; without such votes, if it is in the folder
or the list of the emotion. `emotion_<name>` is the share of votes for, and `agreement` the share of the
image's emotion. A photograph found by several words has the emotion with the largest share; in several lists
without votes, it is rejected.

Some files show no photograph but the site's "photo unavailable" image, under the name of every photograph
that was removed. An image with three or more names is such a placeholder, as photographs posted three times
are rare.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np

from affectdata.errors import SourceError
from affectdata.labels import VOCABULARIES, dominant_emotion
from affectdata.reading.delimited import decode_text, parse_count, parse_delimited
from affectdata.reading.join import Row, join_rows
from affectdata.reading.names import find_readmes
from affectdata.reading.protocol import Item, Link, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_head
from affectdata.reading.tree import Tree, is_image_name
from affectdata.records import Annotation, Finding, Reason, Record, Reject, SourceInfo, shorten

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
    layout="emotion_dataset/<emotion>/*.jpg, agg/<emotion>_*.csv, <emotion>.txt",
    evidence="unverified",
    placeholder_names=3,
)
_EMOTIONS = VOCABULARIES["mikels8"].emotions
_TABLE = re.compile(rf"(.*/)?agg/(?P<emotion>{'|'.join(_EMOTIONS)})_[^/]*\.csv")
_LIST = re.compile(rf"(.*/)?(?P<emotion>{'|'.join(_EMOTIONS)})\.txt")
_HEADER = ("first field", "url", "disagree", "agree")
_FOLDER = "emotion_dataset"


def detect(tree: Tree) -> str | None:
    """Recognise FI by its tables of votes, by lists of several emotions, or by the folders of all eight."""
    tables, lists = _find_tables(tree), _find_lists(tree)
    if tables:
        return f"votes in {tables[0]}"
    if len(lists) > 1:
        return f"image names in {lists[0]}"
    folders = {
        PurePosixPath(path).parent.name
        for path in tree.images().one_per_folder()
        if _FOLDER in _folders(tree, path)
    }
    return f"the eight emotions under {_FOLDER}/" if folders >= set(_EMOTIONS) else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the votes, the lists and the folders.

    Raises:
        SourceError: there are none.
    """
    tables = [*_find_tables(tree), *_find_lists(tree)]
    if not tables and not any(_folder_emotion(path) for path in tree.images()):
        raise SourceError(
            "there are no votes, no lists, and no image folders named after emotions",
            where=str(tree.root),
            fix=f"expected: {INFO.layout}",
        )
    return Reading(INFO, _read_items(tree))


def find_links(tree: Tree, options: ReadOptions) -> Iterator[Link]:
    """Yield the addresses; all images go into one folder, as an image may have several emotion words."""
    paths = {_file_name(path): path for path in tree.images()}
    votes = (row for table in _find_tables(tree) for row in _read_votes(tree, table))
    for row in [*votes, *(row for path in _find_lists(tree) for row in _read_list(tree, path))]:
        if urlsplit(row.key).scheme:
            yield Link(paths.get(_file_name(row.image), f"images/{row.image}"), row.key)


def _find_tables(tree: Tree) -> list[str]:
    return [path for path in tree.others() if _TABLE.fullmatch(path)]


def _find_lists(tree: Tree) -> list[str]:
    named = [path for path in tree.others() if _LIST.fullmatch(path)]
    return [path for path in named if is_image_name(urlsplit(read_head(tree, path).strip()).path)]


def _folders(tree: Tree, path: str) -> tuple[str, ...]:
    return (tree.root.resolve().name, *PurePosixPath(path).parts[:-1])


def _folder_emotion(path: str) -> str | None:
    folder = PurePosixPath(path).parent.name
    return folder if folder in _EMOTIONS else None


def _read_items(tree: Tree) -> Iterator[Item]:
    tables, lists, images = _find_tables(tree), _find_lists(tree), tree.images()
    yield from map(Annotation, [*find_readmes(tree), *tables, *lists])
    votes: dict[str, dict[str, Row]] = {}
    listed: dict[str, dict[str, Row]] = {}
    rejects: dict[str, Reject] = {}
    for into, files, pattern, read_rows in (
        (votes, tables, _TABLE, _read_votes),
        (listed, lists, _LIST, _read_list),
    ):
        for emotion in _EMOTIONS:
            rows = [row for file in files if _word(pattern, file) == emotion for row in read_rows(tree, file)]
            for item in join_rows(rows, _candidates(images, emotion), _file_name):
                if isinstance(item, tuple):
                    into.setdefault(item[1], {})[emotion] = item[0]
                elif isinstance(item, Reject):
                    rejects[item.path] = item
                else:
                    yield item
    yield from rejects.values()
    labelled = [path for path in images if path in votes or path in listed or _folder_emotion(path)]
    for path in labelled:
        if path not in rejects:
            yield _record(path, votes.get(path, {}), listed.get(path, {}))
    if not tables:
        what = "lists and folders" if lists else "folders"
        yield Finding("partial", f"no votes (agg/<emotion>_*.csv): all emotions are from {what}")
    unvoted = sorted(set(labelled) - votes.keys() - rejects.keys())
    if tables and unvoted:
        text = f"no votes on {len(unvoted)} of the images in folders or lists of emotions: {shorten(unvoted)}"
        yield Finding("partial", text)


def _candidates(images: Iterable[str], emotion: str) -> list[str]:
    """Return the images that rows of an emotion may name; one in the folder of another emotion comes last."""
    is_near = {path: _folder_emotion(path) in (emotion, None) for path in images}
    names = {_file_name(path) for path, near in is_near.items() if near}
    return [path for path, near in is_near.items() if near or _file_name(path) not in names]


def _word(pattern: re.Pattern[str], path: str) -> str | None:
    match = pattern.fullmatch(path)
    return match["emotion"] if match else None


def _file_name(path: str) -> str:
    return PurePosixPath(path).name.casefold()


def _read_votes(tree: Tree, table: str) -> Iterator[Row]:
    header = (",".join(_HEADER) + "\n").encode()
    _, lines = parse_delimited(header + tree.read_bytes(table), ",", table)
    for line in lines:
        cells = dict(zip(_HEADER, line, strict=True))
        yield Row(table, cells["url"], PurePosixPath(urlsplit(cells["url"]).path).name, cells)


def _read_list(tree: Tree, path: str) -> Iterator[Row]:
    for line in decode_text(tree.read_bytes(path)).split("\n"):
        if name := line.strip().replace("\\", "/"):
            yield Row(path, name, PurePosixPath(urlsplit(name).path).name, {"listed as": name})


def _record(path: str, votes: dict[str, Row], listed: dict[str, Row]) -> Record | Reject:
    if not votes and len(listed) > 1:
        detail = f"listed under {' and '.join(listed)}, and there are no votes to decide"
        return Reject(path, Reason.CONFLICTING_RATING, detail)
    shares = {}
    for emotion, row in votes.items():
        try:
            against, votes_for = (parse_count(row.cells[name]) for name in _HEADER[2:])
            shares[emotion] = round(votes_for / (against + votes_for), 9)
        except (ValueError, ZeroDivisionError):
            cells = f"{row.cells['disagree']!r} against and {row.cells['agree']!r} for"
            detail = f"{row.where}: {cells} are not numbers of votes"
            return Reject(path, Reason.BAD_RATING, detail)
    shown = {emotion: share for emotion, share in shares.items() if share > 0.5}
    unvoted = [word for word in listed or [_folder_emotion(path)] if word not in shares]
    label = dominant_emotion(shown) if shown or len(unvoted) != 1 else unvoted[0]
    rows = [*votes.values(), *listed.values()]
    return Record(
        path=path,
        source_id=path,
        emotion=label,
        emotions=shares,
        url=next((row.key for row in rows if urlsplit(row.key).scheme), None),
        extra={
            f"{word} {name}": cell
            for rows_by_word in (votes, listed)
            for word, row in rows_by_word.items()
            for name, cell in row.cells.items()
        },
    )


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 39 generated images in folders of emotions, four of them the same placeholder, and the votes.

    One image has no votes, one more votes against than for, one row no image.
    """
    placeholder = draw_image(rng, 50, 96, 72)
    for index, emotion in enumerate(_EMOTIONS):
        lines = []
        for number in range(5):
            name = f"{index}{number}_made.jpg"
            against = 4 if (index, number) == (2, 1) else int(rng.integers(0, 3))
            if (index, number) != (1, 0):
                lines.append(
                    f"{number},https://farm{index}.example.org/{number}/{name},{against},{5 - against}"
                )
            if (index, number) != (5, 4):
                is_gone = number == 3 and index % 2 == 0
                image = placeholder if is_gone else draw_image(rng, rng.uniform(5, 95), 96, 72)
                container = "PNG" if is_gone else "JPEG"
                save_image(root / _FOLDER / emotion / name, image, container, palette=is_gone)
        table = root / "agg" / f"{emotion}_votes.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
    (root / _FOLDER / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
