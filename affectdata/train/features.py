"""Features: computed once per image and backbone, kept by the content of the image.

The cache is a folder per backbone of Parquet files (key, vector). Every file appears whole or not at all and
is named after its keys, so an interrupted run loses one file's worth of work, and two runs do no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.hashing import canonical_json, file_hash
from affectdata.images.decode import pixel_versions
from affectdata.recipe.recipe import Recipe
from affectdata.store.files import check_regular
from affectdata.store.parquet import replace_file
from affectdata.train.backbones import Backbone
from affectdata.train.images import LoadImages, Progress, Readable
from affectdata.workers import map_ordered

_BATCH = 32  # images per pass through the network
_PART = 8  # batches per file of the cache: what an interrupted run may lose


def render_keys(plan: pa.Table, recipe: Recipe) -> list[str]:
    """Return what decides the bytes of each row of a plan: image, draw, image spec, library versions."""
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


class FeatureCache:
    """The features of one backbone, by key, in a folder of its own."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder = folder / backbone.key

    def read(self, keys: list[str]) -> dict[str, np.ndarray]:
        """Return the features that are there, of those wanted; a file that is no Parquet is not there."""
        wanted = pa.array(sorted(set(keys)), pa.string())
        found: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            try:
                check_regular(path)
                table = pq.read_table(path, partitioning=None)
            except (OSError, pa.ArrowException):
                continue  # a disk that lost its tail; what was in it is computed again
            table = table.filter(pc.is_in(table["key"], wanted)).combine_chunks()
            if not len(table):
                continue
            vectors = np.array(pc.list_flatten(table["feature"]).to_numpy())
            found.update(zip(table["key"].to_pylist(), vectors.reshape(len(table), -1), strict=True))
        return found

    def write(self, keys: list[str], features: np.ndarray) -> None:
        """Add features; the file's name is a hash of their keys."""
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
        table = pa.table({"key": pa.array(keys, pa.string()), "feature": vectors})
        with replace_file(self.folder / f"{file_hash(canonical_json(keys).encode())[:16]}.parquet") as path:
            pq.write_table(table, path, compression="none")  # floats of a network do not compress


def compute_features(
    wanted: Readable, backbone: Backbone, cache: FeatureCache, workers: int, progress: Progress
) -> tuple[np.ndarray, int]:
    """Return the features of every image wanted, in order, and the number of those that were new.

    Images are read and decoded on `workers` threads while the network runs.
    """
    keys = wanted.table["key"].to_pylist()
    known = cache.read(keys)
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    new = pa.array(sorted(row for key, row in first.items() if key not in known), pa.int64())
    todo = wanted.table.take(new)
    load = LoadImages(wanted.read, backbone.normalisation.size_px)
    for part_keys, features in _parts(todo, load, backbone, workers, progress):
        cache.write(part_keys, features)
        known.update(zip(part_keys, features, strict=True))
    return np.stack([known[key] for key in keys]) if keys else np.empty((0, 0), np.float32), len(todo)


def _parts(
    todo: pa.Table, load: LoadImages, backbone: Backbone, workers: int, progress: Progress
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield keys and features, a file's worth at a time."""
    batches = [todo.slice(start, _BATCH) for start in range(0, len(todo), _BATCH)]
    keys: list[str] = []
    features: list[np.ndarray] = []
    n_done = 0
    for number, images in enumerate(map_ordered(load, batches, workers)):
        keys += batches[number]["key"].to_pylist()
        features.append(backbone.features(images))
        n_done += len(images)
        progress(n_done, len(todo))
        if len(features) == _PART or n_done == len(todo):
            yield keys, np.concatenate(features)
            keys, features = [], []
