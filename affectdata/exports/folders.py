"""A folder per split and class, for torchvision's ImageFolder and Keras' image_dataset_from_directory.

<split>/<class>/<sample_id>.jpg    every class has a folder in every split, so that they are numbered alike
labels.csv                         every column of the release, with `file_name` as here and `class`
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from affectdata.errors import InputError
from affectdata.exports._job import Job

HAS_PICTURES = True
HAS_CLASSES = True


def export(job: Job, folder: Path) -> None:
    """Write the pictures into folders, then the table."""
    table, classes = job.release.table, job.classes()
    for split in table["split"].unique().to_pylist():
        for name in classes.unique().to_pylist():
            (folder / split / _folder_name(name)).mkdir(parents=True)
    files = pc.binary_join_element_wise(table["sample_id"], job.recipe.image.suffix, "")
    paths = pc.binary_join_element_wise(table["split"], classes, files, "/")
    for path, (_, data) in zip(paths.to_pylist(), job.pictures(table), strict=True):
        (folder / path).write_bytes(data)
    at = table.column_names.index("file_name")
    labels = table.set_column(at, "file_name", paths).append_column(pa.field("class", pa.string()), classes)
    csv.write_csv(labels, folder / "labels.csv")


def _folder_name(name: str) -> str:
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise InputError(
            f"the class {name!r} cannot be the name of a folder", fix="choose another column with --by"
        )
    return name
