"""A small release of generated images, a small backbone, and rows with a known truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectdata.check.check import CheckOutput, run_check
from affectdata.check.prepare import CheckInput, prepare_check
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Manifest
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import Recipe, parse_recipe
from affectdata.release.publish import publish_release
from affectdata.release.release import Release, open_release
from affectdata.train.backbones import Backbone, load_backbone
from affectdata.train.heads import GRIDS
from affectdata.train.rows import Rows

RECIPE: dict[str, Any] = {
    "name": "small",
    "where": "CAST(right(source_id, 1) AS INT) < 6",  # six tenths of the generated images
    "seed": 3,
    "target": "valence",
    "bins": {"edges": [0.0, 35.0, 65.0, 100.0]},
    "strata": ["subtype"],
    "split": {"val": 0.1, "test": 0.2},
    "balance": {"level": "max", "max_copies": 2},
    "image": {"short_side_px": 64},
    "pipelines": {"flip": [{"HorizontalFlip": {"p": 1.0}}]},
    "subtypes": {"default": {"pipeline": "flip"}},
}


def make_recipe(**changes: Any) -> Recipe:
    """Return the recipe of these tests, with changes."""
    return parse_recipe({**RECIPE, **changes})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker run all tests of the release that is checked, so that it is checked once (loadgroup)."""
    for item in items:
        if "prepared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("check"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks on several threads in several workers wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _small_grids() -> Iterator[None]:
    """Fewer settings to choose from: what is tested is how they are chosen."""
    patch = pytest.MonkeyPatch()
    for head, grid in {
        "svr": {"C": (1.0, 100.0, 10000.0), "gamma": (0.1, 0.5, 2.0)},
        "logistic": {"C": (1e-4, 1e-3, 1e-2)},
    }.items():
        patch.setitem(GRIDS, head, grid)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    """Give the recipe of these tests, with changes."""
    return make_recipe


@pytest.fixture(scope="session")
def manifest(sample_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return ingest(sample_gaped, out=tmp_path_factory.mktemp("manifests"), workers=2).manifest


@pytest.fixture(scope="session")
def publish(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Release]:
    """Publish a release of the generated images by the recipe of these tests, with changes."""

    def call(**changes: Any) -> Release:
        recipe = make_recipe(**changes)
        rows, plan = plan_release([manifest], [], recipe)
        folder = tmp_path_factory.mktemp("releases")
        release, _ = publish_release([manifest], rows, plan, recipe, folder, workers=2)
        return open_release(release.path, manifest.images().roots)

    return call


@pytest.fixture(scope="session")
def release(publish: Callable[..., Release]) -> Release:
    return publish()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone("small_cnn", "none", "cpu")


@pytest.fixture(scope="session")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where features are kept between the tests."""
    return tmp_path_factory.mktemp("checks")


@pytest.fixture(scope="session")
def prepared(release: Release, backbone: Backbone, checks: Path) -> CheckInput:
    return prepare_check(release, backbone, release.images(), checks, workers=2)


@pytest.fixture(scope="session")
def checked(prepared: CheckInput) -> CheckOutput:
    return run_check(prepared, workers=2)


@pytest.fixture(scope="session")
def planted() -> Callable[..., Rows]:
    """Return rows whose target follows from their features, each image standing `copies` times."""

    def call(n: int = 60, copies: int = 1, dim: int = 12, noise: float = 4.0, seed: int = 0) -> Rows:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, dim))
        y = np.clip(50 + 15 * x[:, 0] + rng.normal(0, noise, n), 0, 100)
        of = np.repeat(np.arange(n), copies)
        names = np.array([f"image{number:04d}" for number in range(n)])
        return Rows(
            features=x[of] + np.where(np.arange(n * copies) % copies, 0.01, 0.0)[:, None],
            target=y[of],
            image_id=names[of],
            group=names[of // 2 * 2],
            copy=np.tile(np.arange(copies), n),
            subtype=np.where(x[of, 1] > 0, "up", "down"),
            source=np.full(n * copies, "made"),
            stratum=(y[of] > 50).astype(int),
            weight=np.ones(n * copies),
            pool_index=np.arange(n * copies),
        )

    return call
