"""Image features, computed once per image and backbone and cached by image content.

The cache is one folder per backbone with Parquet files (key, vector). Files are written atomically and named
after their keys: an interrupted run loses at most one file of work, and concurrent runs do not conflict.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from affectdata.errors import UsageError
from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import pixel_versions
from affectdata.recipe.recipe import Recipe
from affectdata.store.atomic import replace_file
from affectdata.store.files import check_regular
from affectdata.train.backbones import Backbone
from affectdata.train.images import LoadImages, Progress, Readable
from affectdata.workers import THREADS, map_ordered

_HASH = b"sha256"  # key of the metadata of a cache file
_BATCH = 32  # images per pass through the network
_FILE_BATCHES = 8  # batches per cache file: the most an interrupted run loses


def render_keys(plan: pa.Table, recipe: Recipe) -> list[str]:
    """Return a key per plan row, hashed from what determines its bytes.

    That is: image, pipeline and seed, image settings, library versions.
    """
    always = [recipe.image.model_dump(mode="json"), pixel_versions()]
    steps = recipe.document()["pipelines"]
    names = ["image_id", "pipeline", "seed"]
    rows = zip(*(plan[name].to_pylist() for name in names), strict=True)
    return [
        file_hash(
            canonical_json([image_id, steps[name], seed, always] if name else [image_id, always]).encode()
        )
        for image_id, name, seed in rows
    ]


class HasKey(Protocol):
    """Something that decides features, with a name for the folder that keeps them."""

    @property
    def key(self) -> str: ...


class FeatureCache:
    """The cached features of one backbone, by key, in a folder of its own."""

    def __init__(self, folder: Path, backbone: HasKey) -> None:
        self.folder = folder / backbone.key

    def read(self, keys: list[str]) -> dict[str, np.ndarray]:
        """Return the cached features of these keys; files that were not written so are ignored."""
        wanted, features = set(keys), dict[str, np.ndarray]()
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                check_regular(path)
                table = pq.read_table(path, partitioning=None, page_checksum_verification=True)
                found = table["key"].to_pylist()
                vectors = np.array(pc.list_flatten(table["feature"]).to_numpy()).reshape(len(found), -1)
                is_own = (table.schema.metadata or {}).get(_HASH) == self._hash(found, vectors)
            except (OSError, ValueError, LookupError, TypeError, pa.ArrowException):
                continue  # truncated by a disk failure; its features are computed again
            if is_own:
                features.update((key, row) for key, row in zip(found, vectors, strict=True) if key in wanted)
        return features

    def _hash(self, keys: list[str], vectors: np.ndarray) -> bytes:
        """Return the SHA-256 over the name of the folder, keys and features."""
        return file_hash(canonical_json([self.folder.name, keys]).encode() + vectors.tobytes()).encode()

    def write(self, keys: list[str], features: np.ndarray) -> None:
        """Add features in one file, named by a hash of their keys."""
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
        table = pa.table({"key": pa.array(keys, pa.string()), "feature": vectors})
        table = table.replace_schema_metadata({_HASH: self._hash(keys, features)})
        with replace_file(self.folder / f"{file_hash(canonical_json(keys).encode())[:16]}.parquet") as path:
            # Network activations do not compress; a page that was damaged is not read.
            pq.write_table(table, path, compression="none", write_page_checksum=True)


def compute_features(
    wanted: Readable,
    backbone: Backbone,
    cache: FeatureCache,
    workers: int,
    progress: Progress,
    engine: str = THREADS,
) -> tuple[np.ndarray, int]:
    """Return the features of every image of `wanted`, in order, and how many of them were computed now.

    Images are read, decoded and passed through the network by `workers` workers.

    Raises:
        UsageError: another engine than threads, and a network that is not on the CPU.
    """
    if engine != THREADS and backbone.device.type != "cpu":
        raise UsageError(
            f"--engine {engine} computes features on the CPU, and the network is on {backbone.device}",
            fix="add --device cpu, or leave --engine out",
        )
    keys = wanted.table["key"].to_pylist()
    cached = cache.read(keys)
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    new = pa.array(sorted(row for key, row in first.items() if key not in cached), pa.int64())
    todo = wanted.table.take(new)
    load = LoadImages(wanted.read, backbone.normalisation.size_px)
    for part_keys, features in _compute_parts(todo, load, backbone, workers, progress, engine):
        cache.write(part_keys, features)
        cached.update(zip(part_keys, features, strict=True))
    return np.stack([cached[key] for key in keys]) if keys else np.empty((0, 0), np.float32), len(todo)


def _compute_parts(
    todo: pa.Table, load: LoadImages, backbone: Backbone, workers: int, progress: Progress, engine: str
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield keys and features, one cache file at a time."""
    batches = [todo.slice(start, _BATCH) for start in range(0, len(todo), _BATCH)]
    keys: list[str] = []
    features: list[np.ndarray] = []
    n_done = 0
    with _one_thread_per_worker():
        results = map_ordered(_Features(load, backbone), batches, workers, engine)
        for batch, result in zip(batches, results, strict=True):
            keys += batch["key"].to_pylist()
            features.append(result)
            n_done += len(batch)
            progress(n_done, len(todo))
            if len(features) == _FILE_BATCHES or n_done == len(todo):
                yield keys, np.concatenate(features)
                keys, features = [], []


@dataclass(frozen=True, eq=False)
class _Features:
    """Turn a batch into the features of its images."""

    load: LoadImages
    backbone: Backbone

    def __call__(self, batch: pa.Table) -> np.ndarray:
        return self.backbone.features(self.load(batch))


@contextmanager
def _one_thread_per_worker() -> Iterator[None]:
    """Let torch use one thread in each worker; more would wait for each other on the same cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
