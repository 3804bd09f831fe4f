"""A folder of images with labels: one folder per class, or a Hugging Face `metadata` file.

One folder per class, with or without split folders above; the folder's name is the emotion:

    train/sad/1.jpg   train/joy/2.png …   validation/…   test/…          or          sad/1.jpg   joy/2.png …

Split folders are train, val (valid, validation, dev) and test; they may also be below the class. Folders
around these (`data/images/`) are looked through. Images in deeper folders have the class of the class folder
above them; images outside of a class folder are rejected. Folders that are persons or sequences, and tables
that contradict the folders, are errors; other doubts are findings.

Hugging Face `metadata.csv`, `.jsonl` or `.parquet`, at the root or in the folder of its images:

    metadata.csv      file_name,valence,valence_min,valence_max,emotion,split,…
    a.jpg …           file_name is relative to the folder of the metadata

Columns with the names of manifest columns (valence, arousal, dominance with _sd and _n; emotion,
emotion_<name>, subtype, subject_id, split, …) are used, the others go into `extra`. Without `emotion`, the
class is the column `label`, `class` or `category`. A rating needs its scale:
the columns `valence_min` and `valence_max`, with a single value each. A table with `valence_raw` was written
by this package: its valence is already on 0–100. If there is `metadata`, folders determine only the split.

A tree is recognised only if it is unambiguous: `metadata` with file names, or nothing but images in two or
more class folders whose names are words. The manifest is named by --name, by default after the folder.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.column_map.columns import MAP_FILE, MAPPED, ColumnMap
from affectdata.column_map.read import read_mapped
from affectdata.config import parse_model
from affectdata.errors import SourceError
from affectdata.labels import spell_emotion
from affectdata.reading.class_folders import ClassFolders
from affectdata.reading.delimited import Lines, parse_number, require_columns
from affectdata.reading.label_tables import (
    CLASS_COLUMNS,
    compare_with_folders,
    find_class_column,
    find_label_files,
    is_own_table,
    read_label_table,
)
from affectdata.reading.names import find_readmes, slug, spell_split
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_head, read_table
from affectdata.reading.tree import Paths, Tree
from affectdata.records import RATINGS, Annotation, Finding, Reason, Record, Reject, SourceInfo, shorten
from affectdata.sources.parquet_images import find_image_tables
from affectdata.sources.webdataset import find_shards

INFO = SourceInfo(
    name="image_folder",
    title="A folder of images, by class or with Hugging Face metadata",
    scales={},
    license="not stated",
    citation="none: name the collection that the pictures are from",
    url="https://huggingface.co/docs/datasets/image_dataset",
    layout="[train|val|test/]<emotion>/*, or metadata.{csv,jsonl,parquet} with file_name",
    generic=True,
    takes=("name",),
)
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_WORD = re.compile(r"[^\W\d_][^\W\d]{2,}([ -][^\W\d]+)*")  # not A, Sn, images2: those are not emotions
_FIRST_CLASSES = 4
_HEAD = 100  # rows of a metadata table, to choose the column of classes


def detect(tree: Tree) -> str | None:
    """Recognise metadata with file names, or a tree of nothing but images in class folders."""
    if MAP_FILE in tree.files:
        return None
    metadata = _find_metadata(tree)
    if metadata:
        named = [
            path for path in metadata if path.endswith(".parquet") or "file_name" in read_head(tree, path)
        ]
        return f"file names in {named[0]}" if named and tree.images() else None
    layout = ClassFolders(_images(tree))
    classes = sorted(layout.classes)
    if set(tree.others()) - set(find_readmes(tree)) or not layout.is_flat or len(classes) < 2:
        return None
    if not all(_WORD.fullmatch(name) for name in classes):
        return None
    more = " …" if len(classes) > _FIRST_CLASSES else ""
    return f"nothing but images in class folders: {', '.join(classes[:_FIRST_CLASSES])}{more}"


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the metadata, or without metadata the class folders.

    Raises:
        SourceError: there is neither, or a rating has no scale.
    """
    name = slug(options.name or tree.root.resolve().name) or INFO.name
    _check_images(tree)
    metadata = _find_metadata(tree)
    if not metadata:
        return Reading(replace(INFO, name=name, title=name), _read_folders(tree))
    specs = {path: _map_columns(tree, path, name) for path in metadata}
    scales = {rating: ends for spec in specs.values() for rating, ends in spec.scales.items()}
    for path, spec in specs.items():
        if any(scales[rating] != ends for rating, ends in spec.scales.items()):
            raise SourceError(
                f"{path} has ratings on another scale than the other metadata files",
                where=str(tree.root / path),
                fix="give all metadata files the same scale",
            )
    info = specs[metadata[0]].model_copy(update={"scales": scales}).to_info(name)
    info = replace(info, license=INFO.license, citation=INFO.citation, url=INFO.url, layout=INFO.layout)
    return Reading(info, _read_metadata(tree, specs))


def _check_images(tree: Tree) -> None:
    """Refuse a tree whose images are inside tables or shards, which other sources read."""
    for source, paths in (("parquet_images", find_image_tables(tree)), ("webdataset", find_shards(tree))):
        if paths and not tree.images():
            raise SourceError(
                f"the images are inside {paths[0]}, not in folders",
                where=str(tree.root),
                fix=f"--source {source}, or no --source",
            )


def _find_metadata(tree: Tree) -> list[str]:
    return [path for path in tree.others() if PurePosixPath(path).name in _METADATA]


def _images(tree: Tree) -> Paths:
    """List the images; one that is behind a followed link is listed under the name of the link only."""
    images = tree.images()
    return images.filter(pc.invert(pc.is_in(images.array, pa.array(tree.targets, pa.string()))))


def _split_of(path: str) -> str | None:
    return spell_split(path.split("/")[0]) if "/" in path else None


def _read_folders(tree: Tree) -> Iterator[Item]:
    images, labels = _images(tree), find_label_files(tree)
    layout = ClassFolders(images)
    beside = f"; {len(labels)} tables or label files: {shorten(labels)}" if labels else ""
    if not layout.classes:
        raise _no_classes(tree, images, labels, beside)
    layout.check(tree.root, beside)
    yield from (Annotation(path) for path in find_readmes(tree))
    yield from layout.findings()
    words: dict[str, str] = {}  # of images, to compare with tables
    for path in images:
        place = layout.place(path)
        if place.word is None:
            yield Reject(path, Reason.MISSING_RATING, "it is not in a class folder")
            continue
        emotion, extra = spell_emotion(place.word), {"folder": place.word}
        if labels:
            words[path] = sys.intern(emotion)
        yield Record(path=path, source_id=path, emotion=emotion, split=place.split, extra=extra)
    yield from compare_with_folders(tree, labels, words)


def _no_classes(tree: Tree, images: Paths, labels: list[str], beside: str) -> SourceError:
    fix = f"move them into class folders, or use a column map for their table; expected: {INFO.layout}"
    tables = (read_label_table(tree, path, list(images)) for path in labels)
    if table := next(filter(None, tables), None):
        fix = table.way_in
    return SourceError(
        f"no image is in a class folder ({len(images)} images)", where=f"{tree.root}{beside}", fix=fix
    )


def _map_columns(tree: Tree, path: str, name: str) -> ColumnMap:
    """Build the column map of a metadata table."""
    header, rows = read_table(tree, path)
    require_columns(
        header, ["file_name"], path, fix="add the names of the images, relative to the folder of the table"
    )
    rated = [rating for rating in RATINGS if rating in header]
    absent = tuple(f"{rating}_" for rating in RATINGS if rating not in header)  # no SD without its mean
    columns = {column: column for column in MAPPED if column in header and not column.startswith(absent)}
    shares = [column for column in header if column.startswith("emotion_")]
    if not shares and not is_own_table(header):
        column = find_class_column(header, list(islice(rows, _HEAD)), CLASS_COLUMNS)
        columns |= {"emotion": column} if column else {}
    document = {
        "name": name,
        "table": path,
        "key": "file_name",
        "columns": columns,
        "scales": {rating: _find_scale(header, rows, rating, path) for rating in rated},
        "emotions": {spell_emotion(column.removeprefix("emotion_")): column for column in shares},
    }
    return parse_model(ColumnMap, document, str(tree.root / path))


def _find_scale(header: list[str], rows: Lines, rating: str, path: str) -> list[float]:
    if f"{rating}_raw" in header:
        return [0.0, 100.0]
    ends = []
    for column in (f"{rating}_min", f"{rating}_max"):
        index = header.index(column) if column in header else None
        values = {row[index] for row in rows if row[index]} if index is not None else set()
        if len(values) != 1:
            problem = f"{len(values)} different values" if values else "no value"
            raise SourceError(
                f"the scale of {rating} is unknown: {problem} in column {column}",
                where=path,
                fix=f"add columns {rating}_min and {rating}_max with the lowest and highest answer (such as "
                "1 and 9), or use a column map: --source table --map COLUMNS.yaml",
            )
        ends.append(values.pop())
    try:
        return [parse_number(end) for end in ends]
    except ValueError as error:
        raise SourceError(f"the scale of {rating} is unknown: {error}", where=path) from error


def _read_metadata(tree: Tree, specs: dict[str, ColumnMap]) -> Iterator[Item]:
    yield from (Annotation(path) for path in find_readmes(tree))
    for path, spec in specs.items():
        if finding := _describe_classes(tree, path, spec):
            yield finding
        folder = path[: -len(PurePosixPath(path).name)]
        for item in read_mapped(tree, [path], spec, folder):
            if isinstance(item, Record) and item.split is None:
                item = replace(item, split=_split_of(item.path))
            yield item


def _describe_classes(tree: Tree, path: str, spec: ColumnMap) -> Finding | None:
    """Report a column of classes that is not called `emotion`, or that has numbers."""
    column = spec.columns.get("emotion")
    if column is None:
        return None
    header, rows = read_table(tree, path)
    at = header.index(column)
    classes = sorted({row[at] for row in rows} - {"", *spec.na})
    numbers = [word for word in classes if word.lstrip("-").isdigit()]
    if column == "emotion" and not numbers:
        return None
    text = f"{path}: {len(classes)} classes from column {column!r}: {shorten(classes)}"
    if numbers:
        text += "; numbers are named by `values` of a column map (--source table)"
    return Finding("class_column", text)


_SAMPLE = {"train": 6, "validation": 2, "test": 3}  # images per class
_SAMPLE_CLASSES = {
    "joy": 85,
    "sad": 30,
    "Fearful": 20,
}  # folder, and the valence that its images are drawn with


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 34 generated images in class folders under split folders.

    One is a PNG named .jpg, some end in .JPG, one has a copy in another class.
    """
    for split, count in _SAMPLE.items():
        for word, valence in _SAMPLE_CLASSES.items():
            for number in range(1, count + 1):
                suffix = ".JPG" if number == 3 else ".jpg"
                container = "PNG" if (split, word, number) == ("train", "joy", 2) else "JPEG"
                image = draw_image(rng, valence, 128, 96)
                save_image(root / split / word / f"{word}_{number}{suffix}", image, container)
    repeated = (root / "train" / "sad" / "sad_1.jpg").read_bytes()
    (root / "train" / "Fearful" / "again.jpg").write_bytes(repeated)
    (root / "train" / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (root / "README.md").write_text("Generated pictures.\n", encoding="utf-8", newline="\n")
