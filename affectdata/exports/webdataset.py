"""Tar shards for WebDataset, read from the first to the last byte.

    <split>-000000.tar    members <sample_id>.jpg and <sample_id>.json (the row's labels), 1000 pairs a shard

Rows lie in an order by hash, so that copies of one picture do not follow each other. Times and owners are
left out: equal releases give equal bytes. Keys have no dot, at which WebDataset would cut them.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from affectdata.exports._job import Job
from affectdata.hashing import canonical_json, hash_ranks
from affectdata.tables import Rows

HAS_PICTURES = True
HAS_CLASSES = False
_SHARD = 1000  # pictures
_PASS = 1 << 15  # rows held at once
_NOT_LABELS = {"file_name", "file_sha256", "file_bytes"}


def export(job: Job, folder: Path) -> None:
    """Write the shards one after the other."""
    keys = job.release.rows.select(["sample_id", "split"])
    split = np.array(keys["split"].to_pylist())
    order = np.lexsort((hash_ranks(0, keys["sample_id"]), split))
    _, first, code = np.unique(split[order], return_index=True, return_inverse=True)
    number = (np.arange(len(order)) - first[code]) // _SHARD
    shards = [f"{name}-{at:06d}.tar" for name, at in zip(split[order], number, strict=True)]
    pairs = zip(shards, job.pictures(_Shuffled(job.release.rows, order)), strict=True)
    for shard, members in itertools.groupby(pairs, key=lambda pair: pair[0]):
        with tarfile.open(folder / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, (row, data) in members:
                labels = {
                    key: value for key, value in row.items() if value is not None and key not in _NOT_LABELS
                }
                _add(tar, row["sample_id"] + job.recipe.image.suffix, data)
                _add(tar, row["sample_id"] + ".json", canonical_json(labels).encode())


@dataclass(frozen=True)
class _Shuffled:
    """The rows of a release in another order. It is read once for every `_PASS` of them, and not held."""

    rows: Rows
    order: np.ndarray

    def to_batches(self, max_chunksize: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self.order), _PASS):
            wanted = self.order[start : start + _PASS]
            there, done = np.sort(wanted), 0
            parts = []
            for batch in self.rows.to_batches(max_chunksize):
                low, high = np.searchsorted(there, (done, done + len(batch)))
                parts.append(batch.take(pa.array(there[low:high] - done)))
                done += len(batch)
            table = pa.Table.from_batches(parts).take(pa.array(np.searchsorted(there, wanted)))
            yield from table.to_batches(max_chunksize)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mode 0644, and no time, owner or group
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
