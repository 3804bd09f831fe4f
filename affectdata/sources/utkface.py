"""UTKFace: 23,708 faces of all ages; age, gender and ethnicity are in the file name.

Zhang, Song & Qi (2017). A network estimated age, gender and ethnicity, and people checked them; there is no
table and no rating. The tree, as one of two downloads:

    UTKFace/25_0_1_20170116174525125.jpg.chip.jpg …      aligned and cropped, 200 × 200
    part1/25_0_1_20170116174525125.jpg … part2/ part3/   in the wild, with landmark_list_part1.txt …

A name is age_gender_race_time: years; 0 male, 1 female; 0 White, 1 Black, 2 Asian, 3 Indian, 4 Others; 17
digits, but 16 or 18 in three names. Nine names are known to be incomplete; published corrections disagree, so
these files are rejected: five of the 23,708 aligned faces, four in the wild. `age_group` is 0-12, 13-19,
20-39, 40-59 or 60+, from the age.

To add emotions, put faces (or copies of them) into folders named after emotions, such as happy/ or neutral/;
and those of a split into test/, train/ or val/, as in test/happy/. Both apply to every file of that name, in
any folder. The cropped and the original image of a face have the same `subject_id`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import basename

import numpy as np

from affectdata.labels import VOCABULARIES, spell_emotion
from affectdata.reading.names import find_readmes, spell_split
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Reason, Record, Reject, SourceInfo, shorten

INFO = SourceInfo(
    name="utkface",
    title="UTKFace",
    scales={},
    license="non-commercial research only; the copyright of each picture is its owner's",
    citation=(
        "Zhang, Z., Song, Y., & Qi, H. (2017). Age progression/regression by conditional adversarial "
        "autoencoder. IEEE Conference on Computer Vision and Pattern Recognition (CVPR), 5810–5818. "
        "https://doi.org/10.1109/CVPR.2017.463"
    ),
    bibtex="""\
@inproceedings{zhang2017age,
  author    = {Zhang, Zhifei and Song, Yang and Qi, Hairong},
  title     = {Age progression/regression by conditional adversarial autoencoder},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition ({CVPR})},
  pages     = {5810--5818},
  year      = {2017},
  doi       = {10.1109/CVPR.2017.463},
}""",
    url="https://susanqq.github.io/UTKFace/",
    layout="<age>_<gender>_<race>_<time>.jpg[.chip.jpg], in any folder; happy/, neutral/ … for emotions",
    estimated=("age", "age_group", "gender", "ethnicity"),
)
_NAME = re.compile(
    r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_(?P<time>\d{16,18})\.jpg(\.chip\.jpg)?"
)
_GENDERS = ("male", "female")
_RACES = ("White", "Black", "Asian", "Indian", "Others")
_OLDEST = 116
_GROUPS = {"0-12": 0, "13-19": 13, "20-39": 20, "40-59": 40, "60+": 60}  # lowest age of each group
_EMOTIONS = {"neutral"}.union(*(vocabulary.emotions for vocabulary in VOCABULARIES.values()))
_LANDMARKS = re.compile(r"(.*/)?landmark_list[^/]*\.txt")


def detect(tree: Tree) -> str | None:
    """Recognise the collection by its image names: most are age_gender_race_time."""
    images = tree.images()
    named = [path for path in images if _match(path)]
    return f"names such as {PurePosixPath(named[0]).name}" if len(named) * 2 > len(images) else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the file names."""
    return Reading(INFO, _read_items(tree))


def _match(path: str) -> re.Match[str] | None:
    match = _NAME.fullmatch(basename(path))
    return match if match and int(match["age"]) <= _OLDEST else None


def _read_items(tree: Tree) -> Iterator[Item]:
    landmarks = [path for path in tree.others() if _LANDMARKS.fullmatch(path)]
    yield from map(Annotation, [*find_readmes(tree), *landmarks])
    if landmarks:
        yield Finding("unread_table", f"not read, as they are landmarks: {shorten(landmarks)}")
    faces: dict[str, list[tuple[str, re.Match[str]]]] = {}
    for path in tree.images():
        match = _match(path)
        if match is None:
            detail = "the name is not <age>_<gender>_<race>_<time>.jpg, and the right name is not known"
            yield Reject(path, Reason.BAD_NAME, detail)
        else:
            faces.setdefault(match[0].partition(".")[0], []).append((path, match))
    for subject, files in faces.items():
        yield from _read_face(subject, files)


def _read_face(subject: str, files: list[tuple[str, re.Match[str]]]) -> Iterator[Item]:
    """Yield the files of one face, with the emotion and split from the folders of all its files."""
    folders = {folder for path, _ in files for folder in PurePosixPath(path).parts[:-1]}
    emotions = sorted({spell_emotion(folder) for folder in folders} & _EMOTIONS)
    splits = sorted({split for folder in folders if (split := spell_split(folder))})
    for path, match in files:
        if len(emotions) > 1 or len(splits) > 1:
            detail = f"this face is in the folders {' and '.join(emotions if len(emotions) > 1 else splits)}"
            yield Reject(path, Reason.CONFLICTING_RATING, detail)
            continue
        age = int(match["age"])
        yield Record(
            path=path,
            source_id=path,
            emotion=next(iter(emotions), None),
            split=next(iter(splits), None),
            subject_id=subject,
            age=age,
            age_group=[group for group, least in _GROUPS.items() if age >= least][-1],
            gender=_GENDERS[int(match["gender"])],
            ethnicity=_RACES[int(match["race"])],
            extra={"time": match["time"]},
        )


_SAMPLE_BAD = ("61_1_20170109142408075.jpg.chip.jpg", "24_0_1_20170116220224657 .jpg.chip.jpg")


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 62 generated images: two with invalid names, 30 in emotion folders, six of those under test/."""
    for number in range(60):
        age, race = int(rng.integers(0, _OLDEST + 1)), int(rng.choice(5, p=[0.4, 0.2, 0.15, 0.15, 0.1]))
        name = f"{age}_{rng.integers(2)}_{race}_20170116{number:09d}.jpg.chip.jpg"
        folder = ("happy", "neutral", "UTKFace", "UTKFace")[number % 4]
        if number % 20 < 2:
            folder = f"test/{folder}"
        save_image(root / folder / name, draw_image(rng, rng.uniform(20, 90), 100, 100), "JPEG")
    for name in _SAMPLE_BAD:
        save_image(root / "UTKFace" / name, draw_image(rng, 50, 100, 100), "JPEG")
