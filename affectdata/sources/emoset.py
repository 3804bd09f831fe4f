"""EmoSet-118K: 118,102 images labelled by hand with one of Mikels' eight emotions and six attributes.

Yang et al. (2023). Each image has one emotion, no shares and no ratings; brightness and colourfulness
(0–1), scene, objects, facial expression and human action, where they apply, are in `extra` as JSON. The
official split is kept.

The tree as shipped:

    info.json                                       the codes of all attributes
    train.json val.json test.json                   lists of [label, image, annotation]
    annotation/<emotion>/<emotion>_<number>.json    attributes of one image
    image/<emotion>/<emotion>_<number>.jpg

The readme describes the entries of the lists with an id as the second part; both forms are read: the image
and the annotation are recognised by their folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from affectdata.errors import SourceError
from affectdata.hashing import canonical_json
from affectdata.labels import spell_emotion
from affectdata.reading.join import Row, join_rows
from affectdata.reading.json_tables import load_json
from affectdata.reading.names import find_readmes, fold_path
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Reason, Record, Reject, SourceInfo

INFO = SourceInfo(
    name="emoset",
    title="EmoSet-118K",
    scales={},
    license="non-commercial research; copyright of the pictures stays with their owners",
    citation=(
        "Yang, J., Huang, Q., Ding, T., Lischinski, D., Cohen-Or, D., & Huang, H. (2023). EmoSet: A "
        "large-scale visual emotion dataset with rich attributes. IEEE/CVF International Conference on "
        "Computer Vision (ICCV), 20383–20394. https://arxiv.org/abs/2307.07961"
    ),
    bibtex="""\
@inproceedings{yang2023emoset,
  author    = {Yang, Jingyuan and Huang, Qirui and Ding, Tingting and Lischinski, Dani and
               Cohen-Or, Daniel and Huang, Hui},
  title     = {{EmoSet}: A large-scale visual emotion dataset with rich attributes},
  booktitle = {IEEE/CVF International Conference on Computer Vision (ICCV)},
  pages     = {20383--20394},
  year      = {2023},
  url       = {https://arxiv.org/abs/2307.07961},
}""",
    url="https://vcc.tech/EmoSet",
    layout="{train,val,test}.json, info.json, 'image/<emotion>/*.jpg', 'annotation/<emotion>/*.json'",
    evidence="unverified",
)
_SPLITS = ("train", "val", "test")
_NOT_EXTRA = ("emotion", "image_id")  # columns of the manifest


def detect(tree: Tree) -> str | None:
    """Recognise EmoSet by its lists beside the folders `image` and `annotation`."""
    lists = _find_lists(tree)
    folders = {path.split("/")[0] for path in tree.files.one_per_folder() if "/" in path}
    return (
        f"{lists[0]} beside image/ and annotation/" if lists and {"image", "annotation"} <= folders else None
    )


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the lists of the splits.

    Raises:
        SourceError: there is no list, or an entry has neither form.
    """
    if not _find_lists(tree):
        raise SourceError(
            "there is no list of EmoSet images", where=str(tree.root), fix=f"expected: {INFO.layout}"
        )
    return Reading(INFO, _read_items(tree))


def _find_lists(tree: Tree) -> list[str]:
    return [f"{split}.json" for split in _SPLITS if f"{split}.json" in tree.files]


def _read_items(tree: Tree) -> Iterator[Item]:
    yield from (Annotation(path) for path in [*find_readmes(tree), *_find_lists(tree)])
    about = [path for path in tree.files if path == "info.json" or _is_annotation(path)]
    yield from (Annotation(path) for path in about)
    rows = (row for name in _find_lists(tree) for row in _read_list(tree, name))
    for item in join_rows(rows, tree.images(), fold_path):
        yield _read_row(tree, *item) if isinstance(item, tuple) else item


def _is_annotation(path: object) -> bool:
    return isinstance(path, str) and path.startswith("annotation/") and path.endswith(".json")


def _read_list(tree: Tree, name: str) -> Iterator[Row]:
    entries = _read_json(tree, name)
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        parts = entry if isinstance(entry, list) else []
        images = [part for part in parts if isinstance(part, str) and part.startswith("image/")]
        annotations = [part for part in parts if _is_annotation(part)]
        if len(images) != 1 or len(annotations) != 1 or not isinstance(parts[0], str):
            raise SourceError(
                f"an entry is not [label, image, annotation]: {str(entry)[:100]}",
                where=f"{name}, entry {number}",
            )
        cells = {"label": parts[0], "annotation": annotations[0], "split": name.removesuffix(".json")}
        yield Row(name, Path(images[0]).stem, images[0], cells)


def _read_row(tree: Tree, row: Row, path: str) -> Record | Reject:
    annotation = row.cells["annotation"]
    if annotation not in tree.files:
        return Reject(path, Reason.MISSING_RATING, f"{row.where}: its annotation {annotation} is missing")
    about = _read_json(tree, annotation)
    if not isinstance(about, dict):
        return Reject(path, Reason.BAD_RATING, f"{annotation} is not a JSON object")
    label = row.cells["label"]
    if about.get("emotion", label) != label:
        return Reject(
            path, Reason.CONFLICTING_RATING, f"{label} in {row.table}, {about['emotion']} in {annotation}"
        )
    return Record(
        path=path,
        source_id=row.key,
        emotion=spell_emotion(label),
        split=row.cells["split"],
        extra={name: canonical_json(value) for name, value in about.items() if name not in _NOT_EXTRA},
    )


def _read_json(tree: Tree, path: str) -> Any:
    try:
        return load_json(tree.read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {error}", where=str(tree.root / path)) from error


_SAMPLE = {
    "amusement": 80,
    "awe": 75,
    "anger": 20,
    "sadness": 25,
}  # and the valence that images are drawn with


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 24 generated images in EmoSet's layout; one listed image is missing."""
    entries: dict[str, list[list[str]]] = {split: [] for split in _SPLITS}
    for word, valence in _SAMPLE.items():
        for number in range(6):
            name = f"{word}/{word}_{number:05d}"
            about = {"image_id": Path(name).name, "emotion": word, "brightness": round(number / 10, 1)}
            about |= {"scene": "bakery/shop", "object": ["Tree", "Person"]} if number % 2 else {}
            save_image(root / "image" / f"{name}.jpg", draw_image(rng, valence, 96, 72), "JPEG")
            _write_json(root / "annotation" / f"{name}.json", about)
            split = _SPLITS[max(0, number - 3)]
            entries[split].append([word, f"image/{name}.jpg", f"annotation/{name}.json"])
    entries["test"].append(["awe", "image/awe/awe_99999.jpg", "annotation/awe/awe_99999.json"])
    for split, listed in entries.items():
        _write_json(root / f"{split}.json", listed)
    _write_json(
        root / "info.json", {"emotion": {"label2idx": {word: index for index, word in enumerate(_SAMPLE)}}}
    )


def _write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(document, indent=1).replace("\n", "\r\n").encode())
