"""Tar shards for WebDataset, read from the first to the last byte.

    <split>-000000.tar    members <sample_id>.jpg and <sample_id>.json (the row's labels), 1000 pairs a shard

Rows lie in an order by hash, so that copies of one picture do not follow each other. Times and owners are
left out: equal releases give equal bytes. Keys have no dot, at which WebDataset would cut them.
"""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from affectdata.exports._job import Job
from affectdata.hashing import canonical_json, hash_ranks

HAS_PICTURES = True
HAS_CLASSES = False
_SHARD = 1000  # pictures
_NOT_LABELS = {"file_name", "file_sha256", "file_bytes"}


def export(job: Job, folder: Path) -> None:
    """Write the shards one after the other."""
    table = job.release.table
    split = np.array(table["split"].to_pylist())
    order = np.lexsort((hash_ranks(0, table["sample_id"]), split))
    table, split = table.take(pa.array(order)), split[order]
    _, first, code = np.unique(split, return_index=True, return_inverse=True)
    number = (np.arange(len(split)) - first[code]) // _SHARD
    shards = (f"{name}-{at:06d}.tar" for name, at in zip(split, number, strict=True))
    pairs = zip(shards, job.pictures(table), strict=True)
    for shard, members in itertools.groupby(pairs, key=lambda pair: pair[0]):
        with tarfile.open(folder / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, (row, data) in members:
                labels = {
                    key: value for key, value in row.items() if value is not None and key not in _NOT_LABELS
                }
                _add(tar, row["sample_id"] + job.recipe.image.suffix, data)
                _add(tar, row["sample_id"] + ".json", canonical_json(labels).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mode 0644, and no time, owner or group
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
