"""A folder per split and class, for torchvision's ImageFolder and Keras' image_dataset_from_directory.

<split>/<class>/<sample_id>.jpg    every class has a folder in every split, so that class numbers are equal
labels.csv                         every column of the release, with `file_name` in this folder and `class`
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from affectdata.errors import InputError
from affectdata.exports._job import Job
from affectdata.store.parquet import as_one_array, distinct, read_parts

HAS_IMAGES = True
HAS_CLASSES = True
SPLIT_FILES = "{split}/**"  # prevents a class named like a split from being read as a split


def export(job: Job, folder: Path) -> None:
    """Write the images into folders, then the table."""
    rows, classes = job.release.rows, as_one_array(job.classes())
    for split in distinct(rows, "split"):
        for name in classes.unique().to_pylist():
            (folder / split / _folder_name(name)).mkdir(parents=True)
    schema = rows.schema.append(pa.field("class", pa.string()))
    images, start = job.images(read_parts(rows)), 0
    with csv.CSVWriter(folder / "labels.csv", schema) as labels:
        for part in read_parts(rows):
            part_classes = classes.slice(start, len(part))
            files = pc.binary_join_element_wise(part["sample_id"], job.recipe.image.suffix, "")
            paths = pc.binary_join_element_wise(part["split"], part_classes, files, "/")
            columns = {**{name: part[name] for name in rows.column_names}, "file_name": paths}
            labels.write_table(pa.table([*columns.values(), part_classes], schema=schema))
            for path in paths.to_pylist():
                (folder / path).write_bytes(next(images)[1])
            start += len(part)


def _folder_name(name: str) -> str:
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise InputError(
            f"the class {name!r} is not a valid folder name", fix="choose another column with --by"
        )
    return name
