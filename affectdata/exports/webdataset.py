"""Tar shards for WebDataset, for sequential reading.

    <split>-000000.tar    members <sample_id>.jpg and <sample_id>.json (the row's labels), 1000 pairs a shard

`ingest` reads the shards back, row for row. Every record has every column; missing values are null.
`datasets.load_dataset(folder)` takes the types from README.md. `load_dataset("webdataset", …)` does not read
it: it infers them from the first five records of the last split, and fails at a value in a column that is
null in all of those, unless `features=` is given.

Rows are ordered by hash, so that copies of one image are not adjacent. Times and owners are not stored: equal
releases give equal bytes. Keys have no dot, because WebDataset would split them there.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.exports._job import Job
from affectdata.hashing import canonical_json, hash_ranks
from affectdata.store.parquet import Rows, distinct, read_parts
from affectdata.store.spill import iter_by_rank

HAS_IMAGES = True
HAS_CLASSES = False
SPLIT_FILES = "{split}-*.tar"
_SHARD = 1000  # images
_DTYPES = {pa.float64(): "float64", pa.float32(): "float32"}  # other types have equal names in Arrow
_NOT_LABELS = {"file_name", "file_bytes"}


def export(job: Job, folder: Path) -> None:
    """Write the shards one after the other."""
    rows = job.release.rows
    splits = distinct(rows, "split")
    split_codes, ranks = _rank_rows(rows, splits)
    images = job.images(iter_by_rank(_with_ranks(rows, ranks), rows.schema, len(rows)))
    pairs = zip(_shards(splits, np.bincount(split_codes)), images, strict=True)
    for shard, members in itertools.groupby(pairs, key=lambda pair: pair[0]):
        with tarfile.open(folder / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, (row, data) in members:
                labels = {key: value for key, value in row.items() if key not in _NOT_LABELS}
                _add(tar, row["sample_id"] + job.recipe.image.suffix, data)
                _add(tar, row["sample_id"] + ".json", canonical_json(labels).encode())


def features(job: Job) -> list[dict[str, Any]]:
    """Return the types of a record in the notation of `datasets`, which cannot infer them from nulls."""
    columns = [field for field in job.release.rows.schema if field.name not in _NOT_LABELS]
    labels = [{"name": field.name, "dtype": _DTYPES.get(field.type, str(field.type))} for field in columns]
    return [
        {"name": job.recipe.image.suffix.removeprefix("."), "dtype": "image"},
        {"name": "json", "struct": labels},
        *({"name": name, "dtype": "string"} for name in ("__key__", "__url__")),
    ]


def _rank_rows(rows: Rows, splits: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the split number of every row, and its position in the order by split, then hash."""
    hashes, codes = [], []
    for part in read_parts(rows, ["sample_id", "split"]):
        hashes.append(hash_ranks(0, part["sample_id"].to_pylist()))
        codes.append(pc.index_in(part["split"], pa.array(splits)).to_numpy())
    split_codes = np.concatenate(codes)
    ranks = np.empty(len(split_codes), np.int64)
    ranks[np.lexsort((np.concatenate(hashes), split_codes))] = np.arange(len(split_codes))
    return split_codes, ranks


def _with_ranks(rows: Rows, ranks: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    start = 0
    for part in read_parts(rows):
        yield part, ranks[start : start + len(part)]
        start += len(part)


def _shards(splits: list[str], sizes: Iterable[int]) -> Iterator[str]:
    """Yield the name of the shard of each image."""
    for split, size in zip(splits, sizes, strict=True):
        yield from (f"{split}-{index // _SHARD:06d}.tar" for index in range(size))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mode 0644, without time, owner or group

    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
