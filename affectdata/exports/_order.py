"""The order of images in shards: by split, then by hash, so that copies of one image are not adjacent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.exports._job import Job
from affectdata.hashing import hash_ranks
from affectdata.store.parquet import Rows, distinct, read_parts
from affectdata.store.spill import iter_by_rank

CLASS = "class"  # the number of the class of a row, or null
NOT_LABELS = {"file_name", "file_bytes"}  # columns about files that a shard has not


def split_sizes(rows: Rows) -> dict[str, int]:
    """Return the number of rows of every split that has some, by name."""
    return {split: n for split, n in zip(*_count(rows), strict=True) if n}


def _count(rows: Rows) -> tuple[list[str], list[int]]:
    splits = distinct(rows, "split")
    codes = [pc.index_in(part["split"], pa.array(splits)).to_numpy() for part in read_parts(rows, ["split"])]
    return splits, np.bincount(np.concatenate(codes), minlength=len(splits)).tolist()


def ordered_images(job: Job) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield every row with the number of its class (`CLASS`) and the bytes of its image, in order."""
    rows = job.release.rows
    return job.images(ordered_rows(job, _rank(rows, distinct(rows, "split"))))


def ordered_rows(job: Job, ranks: np.ndarray) -> Iterator[pa.Table]:
    """Yield rows with the number of their class by rank; those with a negative rank are left out."""
    schema = job.release.rows.schema.append(pa.field(CLASS, pa.int64()))
    return iter_by_rank(_with_ranks(job, ranks), schema, int((ranks >= 0).sum()))


def _with_ranks(job: Job, ranks: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    start = 0
    for part in rows_with_classes(job):
        yield part, ranks[start : start + len(part)]
        start += len(part)


def rows_with_classes(job: Job) -> Iterator[pa.Table]:
    """Yield all rows with the number of their class (`CLASS`), in the order of the release."""
    rows, classes, start = job.release.rows, job.known_classes, 0
    for part in read_parts(rows):
        n = len(part)
        codes = classes.codes.slice(start, n) if classes else pa.nulls(n, pa.int64())
        yield part.append_column(pa.field(CLASS, pa.int64()), codes)
        start += n


def _rank(rows: Rows, splits: list[str]) -> np.ndarray:
    """Return the position of every row in the order by split, then hash."""
    hashes, codes = [], []
    for part in read_parts(rows, ["sample_id", "split"]):
        hashes.append(hash_ranks(0, part["sample_id"].to_pylist()))
        codes.append(pc.index_in(part["split"], pa.array(splits)).to_numpy())
    n = sum(map(len, codes))
    ranks = np.empty(n, np.int64)
    ranks[np.lexsort((np.concatenate(hashes), np.concatenate(codes)))] = np.arange(n)
    return ranks
