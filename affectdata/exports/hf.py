"""Parquet shards with embedded images, for Hugging Face: to upload, to stream, to show in its viewer.

    data/<split>-00000-of-00001.parquet    every column of the release, `image` {bytes, path} and `class`
    README.md                              the dataset card: splits, features, licence, task, size

`class`, `emotion`, `subtype` and `label` are ClassLabel: numbers with names, null where a row has none. `val`
is called `validation`. Rows are ordered by hash, so that copies of one image are not adjacent. The features
are in every file too, so that `load_dataset("parquet", data_files=…)` has them without README.md.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.exports._job import Job
from affectdata.exports._order import CLASS, NOT_LABELS, ordered_images, split_sizes
from affectdata.release.card import SPLIT_NAMES
from affectdata.release.features import category_names, column_type, describe_columns
from affectdata.store.atomic import replace_file
from affectdata.store.parquet import Rows, read_parts

HAS_IMAGES = True
HAS_CLASSES = True
SPLIT_FILES = "data/{name}-*.parquet"
_SHARD = 256 << 20  # bytes of images
_ROW_GROUP = 100  # rows: what a stream or the viewer reads at once
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def export(job: Job, folder: Path) -> None:
    """Write the shards of every split one after the other."""
    rows, names = job.release.rows, _class_names(job)
    schema = _schema(rows, names)
    images, n_bytes = ordered_images(job), _split_bytes(rows)
    for split, n_rows in split_sizes(rows).items():
        n_shards = min(n_rows, -(-n_bytes[split] // _SHARD))
        for index in range(n_shards):
            n = (index + 1) * n_rows // n_shards - index * n_rows // n_shards
            name = f"data/{SPLIT_NAMES[split]}-{index:05d}-of-{n_shards:05d}.parquet"
            _write_shard(itertools.islice(images, n), schema, names, job.recipe.image.suffix, folder / name)


def features(job: Job) -> list[dict[str, Any]]:
    """Return the types of the columns in the notation of README.md."""
    names = _class_names(job)
    return describe_columns(_schema(job.release.rows, names), names)


def notes(job: Job) -> list[str]:
    """Return how to load and upload it."""
    names = " and ".join(f"`{name}`" for name in _class_names(job))
    return [
        "## Use",
        "",
        "```python",
        "import datasets",
        "train = datasets.load_dataset(path, split='train', streaming=True)",
        "```",
        "",
        *([f"{names}: numbers, whose names are `train.features[…].names`."] if names else []),
        "To upload: `hf upload USER/NAME PATH --repo-type dataset`, if the terms above allow it.",
    ]


def _class_names(job: Job) -> dict[str, list[str]]:
    """Return the names of the classes of every ClassLabel that has some."""
    names, classes = category_names(job.release.rows), job.known_classes
    return {**names, CLASS: classes.names} if classes and classes.names else names


def _schema(rows: Rows, names: dict[str, list[str]]) -> pa.Schema:
    """Return the columns of a shard, with the features in the notation of `datasets`."""
    columns = [field for field in rows.schema if field.name not in NOT_LABELS]
    columns = [pa.field(field.name, pa.int64()) if field.name in names else field for field in columns]
    own = [pa.field("image", _IMAGE), *([pa.field(CLASS, pa.int64())] if CLASS in names else [])]
    schema = pa.schema([*own, *columns])
    found = {field.name: _feature(field, names) for field in schema}
    document = json.dumps({"info": {"features": found}}, ensure_ascii=False)
    return schema.with_metadata({"huggingface": document})


def _feature(field: pa.Field, names: dict[str, list[str]]) -> dict[str, Any]:
    if field.name == "image":
        return {"_type": "Image"}
    if field.name in names:
        return {"names": names[field.name], "_type": "ClassLabel"}
    return {"dtype": column_type(field, names), "_type": "Value"}


def _split_bytes(rows: Rows) -> dict[str, int]:
    """Return the bytes of the images of every split."""
    found: dict[str, int] = {}
    for part in read_parts(rows, ["split", "file_bytes"]):
        sums = part.group_by("split").aggregate([("file_bytes", "sum")])
        for row in sums.to_pylist():
            found[row["split"]] = found.get(row["split"], 0) + row["file_bytes_sum"]
    return found


def _write_shard(
    images: Iterable[tuple[dict[str, Any], bytes]],
    schema: pa.Schema,
    names: dict[str, list[str]],
    suffix: str,
    path: Path,
) -> None:
    with replace_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in _row_groups(images, suffix):
            columns = {
                name: _codes(part[name], words) if name != CLASS else part[name]
                for name, words in names.items()
            }
            arrays = [columns.get(field.name, part[field.name]).cast(field.type) for field in schema]
            writer.write_table(pa.table(arrays, schema=schema))


def _row_groups(images: Iterable[tuple[dict[str, Any], bytes]], suffix: str) -> Iterator[Any]:
    images = iter(images)
    while group := list(itertools.islice(images, _ROW_GROUP)):
        rows = [{**row, "image": {"bytes": data, "path": row["sample_id"] + suffix}} for row, data in group]
        yield {name: pa.array([row[name] for row in rows]) for name in rows[0]}


def _codes(words: pa.Array, names: list[str]) -> pa.Array:
    return pc.index_in(words.cast(pa.string()), pa.array(names, pa.string()))
