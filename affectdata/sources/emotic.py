"""EMOTIC: 23,571 images of 34,320 people in context, with 26 emotions, valence, arousal and dominance.

Kosti et al. (2019). Annotators marked every emotion that a person shows and rated the three dimensions from 1
to 10: one annotator per person in train, several in val and test. A row of the manifest is an image:

    emotion_<name>      share of annotators who marked it, averaged over people; shares do not add up to 1
    valence …           mean over annotators, averaged over people; NaN is ignored
    gender, age_group   only of images with one person
    extra               per person: box (x1, y1, x2, y2; may exceed the image), and all annotations

The tree as shipped (one archive nests `emotic/` twice):

    Annotations/Annotations.mat                                    structs train, val, test
    emotic/{ade20k,emodb_small,framesdb,mscoco}/images/*.jpg
"""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from affectdata.errors import SourceError
from affectdata.hashing import canonical_json
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.reading.join import Row, join_rows
from affectdata.reading.names import find_readmes, fold_path
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tree import Tree
from affectdata.records import RATINGS, Annotation, Rating, Reason, Record, Reject, Scale, SourceInfo

_DATABASES = ("ade20k", "emodb_small", "framesdb", "mscoco")
INFO = SourceInfo(
    name="emotic",
    title="EMOTIC: emotions in context",
    scales={name: Scale(1, 10) for name in RATINGS},
    license="non-commercial research and education, on request; must not be redistributed",
    citation=(
        "Kosti, R., Alvarez, J. M., Recasens, A., & Lapedriza, A. (2020). Context based emotion recognition "
        "using EMOTIC dataset. IEEE Transactions on Pattern Analysis and Machine Intelligence, 42(11), "
        "2755–2766. https://doi.org/10.1109/TPAMI.2019.2916866"
    ),
    bibtex="""\
@article{kosti2020emotic,
  author  = {Kosti, Ronak and Alvarez, Jose M. and Recasens, Adria and Lapedriza, Agata},
  title   = {Context based emotion recognition using {EMOTIC} dataset},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume  = {42},
  number  = {11},
  pages   = {2755--2766},
  year    = {2020},
  doi     = {10.1109/TPAMI.2019.2916866},
}""",
    url="https://s3.sunai.uoc.edu/emotic/",
    layout="Annotations/Annotations.mat, 'emotic/{ade20k,emodb_small,framesdb,mscoco}/images/*.jpg'",
    evidence="unverified",
)
_EMOTIONS = (
    *("Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval"),
    *("Disconnection", "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem"),
    *("Excitement", "Fatigue", "Fear", "Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity"),
    *("Suffering", "Surprise", "Sympathy", "Yearning"),
)
_SPLITS = ("train", "val", "test")
_DEPTH = 3  # database/images/name


def detect(tree: Tree) -> str | None:
    """Recognise EMOTIC by its MAT file beside a folder of one of its four databases."""
    folders = {
        part for path in tree.images().one_per_folder() for part in PurePosixPath(path).parts[-_DEPTH:-2]
    }
    table = _find_table(tree)
    return (
        f"{table} beside {min(folders & set(_DATABASES))}/" if table and folders & set(_DATABASES) else None
    )


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the annotations of all splits.

    Raises:
        SourceError: there is no MAT file, or it has another layout.
    """
    table = _find_table(tree)
    if table is None:
        raise SourceError("there is no Annotations.mat", where=str(tree.root), fix=f"expected: {INFO.layout}")
    return Reading(INFO, _read_items(tree, table))


def _find_table(tree: Tree) -> str | None:
    return next((path for path in tree.others() if PurePosixPath(path).name == "Annotations.mat"), None)


def _read_items(tree: Tree, table: str) -> Iterator[Item]:
    yield from (Annotation(path) for path in [*find_readmes(tree), table])
    people: dict[str, list[dict[str, Any]]] = {}
    rows = []
    for split, image in _read_mat(tree, table):
        name = f"{image['folder']}/{image['filename']}"
        people.setdefault(name, []).extend(_as_list(image.get("person")))
        database = _as_dict(image.get("original_database")).get("name", "")
        cells = {"split": split, "original_database": str(database)}
        rows.append(Row(table, name, name, cells))
    for item in join_rows(rows, tree.images(), _fold):
        yield _read_image(*item, people[item[0].key]) if isinstance(item, tuple) else item


def _fold(path: str) -> str:
    return "/".join(fold_path(path).split("/")[-_DEPTH:])


def _read_mat(tree: Tree, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from scipy import io as matlab

        content = matlab.loadmat(io.BytesIO(tree.read_bytes(table)), simplify_cells=True)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise SourceError(f"{table} cannot be read as a MAT file: {error}", where=table) from error
    splits = [split for split in _SPLITS if split in content]
    if not splits:
        raise SourceError(
            f"{table} has none of train, val, test",
            where=f"it has: {', '.join(name for name in content if not name.startswith('__'))}",
            fix="use the release of 2019, not that of 2017",
        )
    for split in splits:
        for number, image in enumerate(_as_list(content[split])):
            if not {"filename", "folder"} <= _as_dict(image).keys():
                raise SourceError(
                    "an entry has no `filename` or no `folder`", where=f"{table}, {split}({number + 1})"
                )
            yield split, image


def _as_list(value: Any) -> list[Any]:
    """Undo the squeezing of MATLAB: a single value is a list of one, an empty array an empty list."""
    if value is None:
        return []
    return [value] if isinstance(value, str | dict) else list(np.atleast_1d(np.asarray(value, object)))


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_image(row: Row, path: str, people: list[dict[str, Any]]) -> Record | Reject:
    try:
        persons = [_read_person(_as_dict(person)) for person in people]
    except (ValueError, TypeError) as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}: {error}")
    marked = [person["categories"] for person in persons if person["categories"]]
    ratings = {name: _rate(person["continuous"][name] for person in persons) for name in RATINGS}
    if not marked and not any(ratings.values()):
        return Reject(path, Reason.MISSING_RATING, f"{row.where}: no person has an emotion or a rating")
    shares = {
        spell_emotion(word): round(statistics.fmean(_share(word, marks) for marks in marked), 9)
        for word in _EMOTIONS
        if marked
    }
    alone = persons[0] if len(persons) == 1 else {}
    return Record(
        path=path,
        source_id=row.key,
        ratings={name: rating for name, rating in ratings.items() if rating},
        emotion=dominant_emotion(shares),
        emotions=shares,
        gender=alone.get("gender"),
        age_group=alone.get("age"),
        split=row.cells["split"],
        extra={"people": canonical_json(persons), "original_database": row.cells["original_database"]},
    )


def _share(word: str, marks: list[list[str]]) -> float:
    return sum(word in words for words in marks) / len(marks)


def _rate(of_people: Iterator[list[float | None]]) -> Rating | None:
    """Average over annotators, then over people; None without ratings."""
    rated = ([number for number in numbers if number is not None] for numbers in of_people)
    means = [statistics.fmean(numbers) for numbers in rated if numbers]
    return Rating(round(statistics.fmean(means), 9)) if means else None


def _read_person(person: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotations of one person as plain data; NaN is None.

    Raises:
        ValueError: an emotion is not one of the 26.
    """
    marked = [_as_dict(marks).get("categories") for marks in _as_list(person.get("annotations_categories"))]
    categories = [[str(word) for word in _as_list(words)] for words in marked]
    unknown = sorted({word for words in categories for word in words} - set(_EMOTIONS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not one of the 26 emotions")
    ratings = [_as_dict(rating) for rating in _as_list(person.get("annotations_continuous"))]
    return {
        "box": [_number(edge) for edge in _as_list(person.get("body_bbox"))],
        "gender": str(person.get("gender") or "") or None,
        "age": str(person.get("age") or "") or None,
        "categories": [words for words in categories if words],
        "continuous": {name: [_number(rating.get(name)) for rating in ratings] for name in RATINGS},
    }


def _number(value: Any) -> float | None:
    """Read a number; None for NaN and for an empty array."""
    number = math.nan if value is None or np.size(value) == 0 else float(value)
    return number if math.isfinite(number) else None


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 20 generated images; one person has NaN for ratings, one listed image is missing."""
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in _SPLITS}
    for number in range(21):
        database, split = _DATABASES[number % 4], _SPLITS[max(0, number % 5 - 2)]
        name = f"{number:05d}.jpg"
        n_people, n_annotators = 1 + number % 3, 1 if split == "train" else 3
        people = [_draw_person(rng, n_annotators, number == 7) for _ in range(n_people)]
        size, origin = {"n_col": 96, "n_row": 72}, {"name": database, "info": {"image_id": number}}
        folder = f"{database}/images"
        entry = {"filename": name, "folder": folder, "image_size": size, "original_database": origin}
        entries[split].append({**entry, "person": _structs(people)})
        if number < 20:
            image = draw_image(rng, float(rng.uniform(10, 90)), 96, 72)
            save_image(root / "emotic" / folder / name, image, "JPEG")
    packed = io.BytesIO()
    from scipy import io as matlab

    matlab.savemat(packed, {split: _structs(listed) for split, listed in entries.items()})
    (root / "Annotations").mkdir(parents=True)
    plain = b"MATLAB 5.0 MAT-file, generated".ljust(116)  # the text of the header would contain the time
    (root / "Annotations" / "Annotations.mat").write_bytes(plain + packed.getvalue()[116:])


def _draw_person(rng: np.random.Generator, n_annotators: int, is_nan: bool) -> dict[str, Any]:
    marks = [rng.choice(_EMOTIONS, int(rng.integers(1, 4)), replace=False) for _ in range(n_annotators)]
    rated = [{name: math.nan if is_nan else float(rng.integers(1, 11)) for name in RATINGS} for _ in marks]
    return {
        "body_bbox": np.array([-3.0, 2.0, 40.0, 71.0]),
        "annotations_categories": _structs([{"categories": words.astype(object)} for words in marks]),
        "annotations_continuous": _structs(rated),
        "gender": "Female",
        "age": "Adult",
    }


def _structs(items: list[dict[str, Any]]) -> np.ndarray:
    """Return dicts of equal keys as a MATLAB struct array, 1 × n."""
    array = np.empty((1, len(items)), [(name, object) for name in items[0]])
    for index, item in enumerate(items):
        array[0, index] = tuple(item.values())
    return array
