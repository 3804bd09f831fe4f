"""A folder per split and class, for torchvision's ImageFolder and Keras' image_dataset_from_directory.

<split>/<class>/<sample_id>.jpg    every class has a folder in every split, so that class numbers are equal;
                                   what a folder cannot be called is percent-encoded (`escape.folder_names`)
<split>/metadata.parquet           every column of the release and `class`; `file_name` is from this folder.
                                   Hugging Face reads it; torchvision and Keras skip it. Not CSV: its types
                                   would follow from the values of a split, and splits must have the same
labels.csv                         the same for all splits, with `file_name` in this folder
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from affectdata.exports._images import METADATA, with_files
from affectdata.exports._job import Job
from affectdata.store.escape import folder_names
from affectdata.store.parquet import distinct, read_parts

HAS_IMAGES = True
HAS_CLASSES = True
SPLIT_FILES = "{split}/**"  # prevents a class named like a split from being read as a split


def export(job: Job, folder: Path) -> None:
    """Write the images into folders, then the tables."""
    rows, classes = job.release.rows, job.classes()
    splits = distinct(rows, "split")
    folders = folder_names(classes.names, taken=[METADATA])
    for split in splits:
        for name in folders:
            (folder / split / name).mkdir(parents=True)
    schema, words = rows.schema.append(pa.field("class", pa.string())), classes.words()
    images, start = job.images(read_parts(rows)), 0
    with ExitStack() as stack:
        labels = stack.enter_context(csv.CSVWriter(folder / "labels.csv", schema))
        writers = {split: pq.ParquetWriter(folder / split / METADATA, schema) for split in splits}
        tables = {split: stack.enter_context(writer) for split, writer in writers.items()}
        for part in read_parts(rows):
            part = pa.table([*part.columns, words.slice(start, len(part))], schema=schema)
            files = pc.binary_join_element_wise(part["sample_id"], job.recipe.image.suffix, "")
            where = pa.array(folders).take(pc.index_in(part["class"], pa.array(classes.names)))
            inside = pc.binary_join_element_wise(where, files, "/")
            paths = pc.binary_join_element_wise(part["split"], inside, "/")
            labels.write_table(with_files(part, paths))
            for split, table in tables.items():
                table.write_table(with_files(part, inside).filter(pc.equal(part["split"], split)))
            for path in paths.to_pylist():
                (folder / path).write_bytes(next(images)[1])
            start += len(part)
