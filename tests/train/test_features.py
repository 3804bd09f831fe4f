"""train.features, train.images, release.dataset: computed once, cached by content, resumed after a stop."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from affectdata.check.image_pool import fill_image_pool, find_originals, plan_image_pool
from affectdata.errors import IntegrityError, UsageError
from affectdata.images.decode import decode, encode
from affectdata.recipe.recipe import Recipe, parse_recipe
from affectdata.release.dataset import ReleaseDataset
from affectdata.release.release import Release
from affectdata.render.render import RenderSamples
from affectdata.schema import PLAN
from affectdata.train.backbones import Backbone
from affectdata.train.features import FeatureCache, compute_features, render_keys
from affectdata.train.images import Readable, crop_square, store_images


@dataclass(frozen=True)
class FromNumbers:
    """Read images generated from their number; at `stop_at` raise, like an interrupted run."""

    stop_at: int = -1

    def __call__(self, batch: pa.Table) -> list[bytes]:
        numbers = batch["number"].to_pylist()
        if self.stop_at in numbers:
            raise KeyboardInterrupt
        return [
            encode(np.random.default_rng(n).integers(0, 256, (20, 30, 3), np.uint8), "png", 0)
            for n in numbers
        ]


def _readable(numbers: list[int], stop_at: int = -1, at: list[int] | None = None) -> Readable:
    table = pa.table({"key": [f"key{number}" for number in numbers], "number": numbers})
    return Readable(np.array(at or range(len(numbers))), table, FromNumbers(stop_at))


@pytest.fixture
def compute(backbone: Backbone, tmp_path: Path) -> Callable[..., tuple[np.ndarray, int]]:
    def call(numbers: list[int], stop_at: int = -1) -> tuple[np.ndarray, int]:
        cache = FeatureCache(tmp_path, backbone)
        wanted = _readable(numbers, stop_at)
        return compute_features(wanted, backbone, cache, 2, lambda _done, _of: None)

    return call


def test_each_image_is_computed_once_and_returned_in_order(
    compute: Callable[..., tuple[np.ndarray, int]],
) -> None:
    features, n_new = compute([3, 1, 3, 2])
    assert n_new == 3
    assert (features[0] == features[2]).all() and not (features[0] == features[1]).all()
    again, n_again = compute([2, 3, 1, 9])
    assert n_again == 1
    assert (again[:3] == features[[3, 0, 1]]).all()


def test_an_interrupted_run_keeps_what_was_written(
    compute: Callable[..., tuple[np.ndarray, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("affectdata.train.features._BATCH", 2)
    monkeypatch.setattr("affectdata.train.features._FILE_BATCHES", 2)
    with pytest.raises(KeyboardInterrupt):
        compute(list(range(20)), stop_at=17)
    _, n_new = compute(list(range(20)))
    assert 4 <= n_new < 20
    assert compute(list(range(20)))[1] == 0


def test_a_damaged_file_of_the_cache_is_computed_again(
    compute: Callable[..., tuple[np.ndarray, int]], tmp_path: Path
) -> None:
    before, _ = compute([1, 2])
    (part,) = tmp_path.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:50])
    after, n_new = compute([1, 2])
    assert n_new == 2
    assert (before == after).all()


def test_only_cache_files_are_left(
    compute: Callable[..., tuple[np.ndarray, int]], tmp_path: Path, backbone: Backbone
) -> None:
    compute([1, 2])
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".parquet"]
    assert [path.name for path in tmp_path.iterdir()] == [backbone.key]


def test_the_centre_is_cropped_without_stretching() -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, 50:100] = 200
    assert (crop_square(wide, 50) == 200).all()
    assert crop_square(wide.transpose(1, 0, 2), 25).shape == (25, 25, 3)


def _plan(**changes: object) -> pa.Table:
    row = {"sample_id": "a-1", "image_id": "a", "split": "train", "cell": "c", "copy": 1, "pipeline": "flip"}
    return pa.Table.from_pylist([{**row, "seed": 7, "weight": 1.0, **changes}], schema=PLAN)


def test_a_render_key_depends_on_what_determines_the_image(recipe_of: Callable[..., Recipe]) -> None:
    recipe = recipe_of()
    (key,) = render_keys(_plan(), recipe)
    assert render_keys(_plan(weight=2.0, cell="d", split="test"), recipe) == [key]
    changed = [
        render_keys(_plan(seed=8), recipe),
        render_keys(_plan(image_id="b"), recipe),
        render_keys(_plan(pipeline=""), recipe),
        render_keys(_plan(), recipe_of(image={"short_side_px": 65})),
        render_keys(_plan(), recipe_of(pipelines={"flip": [{"HorizontalFlip": {"p": 0.5}}]})),
    ]
    assert len({key, *(changed_key for (changed_key,) in changed)}) == 6
    # An original has no random transform: its seed and the pipelines have no effect.
    assert render_keys(_plan(pipeline="", seed=1), recipe) == render_keys(_plan(pipeline="", seed=2), recipe)


def test_a_dataset_gives_images_and_labels(release: Release) -> None:
    dataset = release.dataset("test")
    assert isinstance(dataset, ReleaseDataset)
    assert len(dataset) == len(release.split("test"))
    item, row = dataset[0], release.split("test").slice(0, 1).to_pylist()[0]
    assert item["image"].dtype == torch.uint8
    assert item["image"].shape == (3, row["out_height_px"], row["out_width_px"])
    assert (float(item["valence"]), item["subtype"], item["sample_id"]) == (
        pytest.approx(row["valence"], rel=1e-6),
        row["subtype"],
        row["sample_id"],
    )
    assert item["emotion"] == "" and torch.isnan(item["dominance"])  # GAPED has none
    assert dataset[-1]["sample_id"] == release.split("test")["sample_id"].to_pylist()[-1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def _small(image: torch.Tensor) -> torch.Tensor:
    return image[:, :32, :32].float()


def test_a_data_loader_makes_batches(release: Release) -> None:
    dataset = pickle.loads(pickle.dumps(release.dataset("val", transform=_small)))
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["valence"].dtype == torch.float32


def test_a_split_that_is_not_there(release: Release) -> None:
    with pytest.raises(UsageError, match="available splits: "):
        release.dataset("validation")


def test_a_file_that_was_changed_is_not_used(publish: Callable[..., Release]) -> None:
    release = publish(seed=11)
    dataset = release.dataset("test")
    file = release.path / release.split("test")["file_name"].to_pylist()[0]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match="differs from the released file"):
        dataset[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.replace_schema_metadata({"folder": "another"}),
        lambda table: table.drop_columns(["key"]),
        lambda table: table.set_column(0, "key", pa.array([b"x"] * len(table))),
        lambda table: table.set_column(1, "feature", pa.array([[float("nan")]] * len(table))),
        lambda table: table.set_column(1, "feature", pa.array([[1.0]] + [[1.0, 2.0]] * (len(table) - 1))),
        lambda table: table.set_column(1, "feature", pa.array([["x"]] * len(table))),
    ],
)
def test_a_file_of_other_features_is_not_used(
    compute: Callable[..., tuple[np.ndarray, int]], tmp_path: Path, damage: Callable[[pa.Table], pa.Table]
) -> None:
    expected, _ = compute([1, 2, 3])
    (path,) = tmp_path.rglob("*.parquet")
    pq.write_table(damage(pq.read_table(path, partitioning=None)), path)
    again, n_computed = compute([1, 2, 3])
    assert n_computed == 3 and (again == expected).all()


def test_features_of_an_image_that_renders_differently_are_not_cached(
    publish: Callable[..., Release], backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish(mode="virtual")
    recipe = parse_recipe(release.recipe_document)
    plan = release.split("test").select(PLAN.names)
    image_pool = plan_image_pool(release, find_originals(release, recipe), [plan], recipe, release.images())
    encode = RenderSamples.encode
    monkeypatch.setattr(RenderSamples, "encode", lambda self, rgb: encode(self, 255 - rgb))
    with pytest.raises(IntegrityError, match="the rendered image differs"):
        fill_image_pool(image_pool, backbone, FeatureCache(tmp_path, backbone), 1, lambda _done, _of: None)
    assert list(tmp_path.rglob("*.parquet")) == []


def _store(folder: Path, *parts: Readable, size_px: int = 12) -> np.ndarray:
    return store_images(parts, size_px, folder, 2)


def test_squares_are_stored_at_their_indices(tmp_path: Path) -> None:
    first, second = _readable([3, 1], at=[2, 0]), _readable(list(range(4, 44)), at=[1, *range(3, 42)])
    store = _store(tmp_path, first, second)
    assert isinstance(store, np.memmap)
    assert (store.shape, store.dtype) == ((42, 12, 12, 3), np.uint8)
    for part in (first, second):
        for index, data in zip(part.at, part.read(part.table), strict=True):
            assert (store[index] == crop_square(decode(data).rgb, 12)).all()


def test_squares_are_written_atomically_and_reused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _store(tmp_path, _readable(list(range(40)), stop_at=39))
    assert list(tmp_path.iterdir()) == []
    store = _store(tmp_path, _readable(list(range(40)))).tobytes()
    unread = _readable(list(range(40)), stop_at=0)  # reading it again raises
    assert _store(tmp_path, unread).tobytes() == store
    with pytest.raises(KeyboardInterrupt):
        _store(tmp_path, unread, size_px=13)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    assert _store(tmp_path, _readable(list(range(40)))).tobytes() == store
