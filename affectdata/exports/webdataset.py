"""Tar shards for WebDataset, for sequential reading.

    <split>-000000.tar    members <sample_id>.jpg, .cls (the number of the class) and .json (the labels of
                          the row), 1000 samples a shard
    _info.json            splits, shards and names of classes, as timm reads it (`wds/` before the folder)

`ingest` reads the shards back, row for row. Every record has every column; missing values are null. Where a
row has no class, or the target is not a class, there is no .cls in any shard.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from affectdata.exports._job import Job
from affectdata.exports._order import CLASS, NOT_LABELS, ordered_images, split_sizes
from affectdata.hashing import canonical_json
from affectdata.release.classes import Classes
from affectdata.release.features import class_label, describe_columns
from affectdata.store.atomic import write_json

HAS_IMAGES = True
HAS_CLASSES = True
SPLIT_FILES = "{split}-*.tar"
_SHARD = 1000  # images


def export(job: Job, folder: Path) -> None:
    """Write the shards one after the other, then their index."""
    sizes, classes = split_sizes(job.release.rows), _classes(job)
    pairs = zip(_shards(sizes), ordered_images(job), strict=True)
    for shard, members in itertools.groupby(pairs, key=lambda pair: pair[0]):
        with tarfile.open(folder / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for _, (row, data) in members:
                code = row.pop(CLASS)
                labels = {key: value for key, value in row.items() if key not in NOT_LABELS}
                _add(tar, row["sample_id"] + job.recipe.image.suffix, data)
                if classes:
                    _add(tar, row["sample_id"] + ".cls", str(code).encode())
                _add(tar, row["sample_id"] + ".json", canonical_json(labels).encode())
    _write_index(sizes, classes.names if classes else [], folder)


def _classes(job: Job) -> Classes | None:
    """Return the classes; None if the target is not a class or rows have no class, and `by` is not given."""
    classes = job.classes() if job.by else job.known_classes
    return None if classes is None or classes.codes.null_count else classes


def _write_index(sizes: Mapping[str, int], names: list[str], folder: Path) -> None:
    splits: dict[str, dict[str, Any]] = {}
    for split, size in sizes.items():
        shards = {name: len(list(group)) for name, group in itertools.groupby(_shards({split: size}))}
        splits[split] = {
            "name": split,
            "num_samples": size,
            "filenames": list(shards),
            "shard_lengths": list(shards.values()),
        }
    write_json(folder / "_info.json", {"splits": splits, "class_names": names})


def features(job: Job) -> list[dict[str, Any]]:
    """Return the types of a record in the notation of `datasets`, which cannot infer them from nulls."""
    columns = [field for field in job.release.rows.schema if field.name not in NOT_LABELS]
    labels = describe_columns(columns, {})
    classes = _classes(job)
    return [
        {"name": job.recipe.image.suffix.removeprefix("."), "dtype": "image"},
        *([{"name": "cls", "dtype": class_label(classes.names)}] if classes else []),
        {"name": "json", "struct": labels},
        *({"name": name, "dtype": "string"} for name in ("__key__", "__url__")),
    ]


def _shards(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield the name of the shard of each image."""
    for split, size in sizes.items():
        yield from (f"{split}-{index // _SHARD:06d}.tar" for index in range(size))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # mode 0644, without time, owner or group

    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
