"""Pipelines: independent draws, one image per seed, no copy equal to its parent by default."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.reading.sample import draw_image
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.recipe.transforms import (
    TRANSFORMS,
    AffectClass,
    Pipeline,
    Step,
    check_steps,
    find_inverting_steps,
)

PACKAGED = sorted(packaged_recipes().glob("*.yaml"))
MIXED: list[Step] = [
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-10, 10], "interpolation": "cubic", "border_mode": "reflect_101", "p": 1.0}},
    {"RandomCropFromBorders": {"crop_left": 0.1, "crop_top": 0.2, "p": 0.7}},
]

NEEDS: dict[str, dict[str, Any]] = {  # arguments without a default
    "RandomResizedCrop": {"size": [16, 16]},
    "RandomSizedCrop": {"min_max_height": [8, 16], "size": [16, 16]},
    "CenterCrop": {"height": 8, "width": 8},
}


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return draw_image(np.random.default_rng(3), 60.0, 64, 48)


def test_two_flips_draw_independently(rgb: np.ndarray) -> None:
    """Trap 1: seeded on its own, albumentations 2.0.8 draws both or neither, never one alone."""
    pipeline = Pipeline([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}])
    views = {"neither": rgb, "horizontal": rgb[:, ::-1], "vertical": rgb[::-1], "both": rgb[::-1, ::-1]}
    names = {np.ascontiguousarray(view).tobytes(): name for name, view in views.items()}
    drawn = Counter(names[pipeline.apply(rgb, seed).tobytes()] for seed in range(2000))
    assert set(drawn) == set(views)
    assert all(abs(count - 500) < 80 for count in drawn.values())  # over four standard deviations


def test_a_flip_has_the_frequency_p(rgb: np.ndarray) -> None:
    pipeline = Pipeline([{"HorizontalFlip": {"p": 0.2}}])
    flipped = sum(not np.array_equal(pipeline.apply(rgb, seed), rgb) for seed in range(1000))
    assert 150 < flipped < 250


def test_a_seed_gives_the_same_image_in_any_order_and_in_threads(rgb: np.ndarray) -> None:
    seeds = list(range(60))
    pipeline = Pipeline(MIXED)
    expected = [pipeline.apply(rgb, seed).tobytes() for seed in seeds]
    assert len(set(expected)) == len(seeds)
    assert [pipeline.apply(rgb, seed).tobytes() for seed in reversed(seeds)] == expected[::-1]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda seed: Pipeline(MIXED).apply(rgb, seed).tobytes(), seeds))
    assert threaded == expected


def test_the_seed_may_be_as_large_as_in_a_plan(rgb: np.ndarray) -> None:
    pipeline = Pipeline(MIXED)
    assert pipeline.apply(rgb, 2**63 - 1).tobytes() == pipeline.apply(rgb, 2**63 - 1).tobytes()
    assert pipeline.apply(rgb, 2**63 - 1).tobytes() != pipeline.apply(rgb, 2**63 - 2).tobytes()


def test_a_draw_does_not_touch_its_parent_or_the_global_random_state(rgb: np.ndarray) -> None:
    before, state = rgb.copy(), np.random.get_state()[1].copy()
    drawn = Pipeline(MIXED).apply(rgb, 1)
    drawn[:] = 0
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_an_affine_with_p_1_always_turns(rgb: np.ndarray) -> None:
    pipeline = Pipeline([MIXED[1]])
    assert not any(np.array_equal(pipeline.apply(rgb, seed), rgb) for seed in range(100))


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_no_copy_of_a_packaged_recipe_equals_its_parent_or_a_sibling(path: Path) -> None:
    """Trap 20: `Affine` has p = 0.5 by default, so a quarter of the copies equalled their parents."""
    for steps in read_recipe(path).pipelines.values():
        pipeline = Pipeline(steps)
        for number in range(12):
            parent = draw_image(np.random.default_rng(number), 50.0)
            copies = [pipeline.apply(parent, 1000 * number + copy).tobytes() for copy in range(8)]
            assert parent.tobytes() not in copies
            assert len(set(copies)) >= 7  # at a crop of 10 % two of eight may coincide


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 2), (9, 300)])
def test_packaged_pipelines_take_images_of_any_shape(path: Path, shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for steps in read_recipe(path).pipelines.values():
        for seed in range(10):
            drawn = Pipeline(steps).apply(rgb, seed)
            assert drawn.dtype == np.uint8
            assert drawn.ndim == 3
            assert min(drawn.shape) >= 1


def test_constants_are_those_of_opencv(rgb: np.ndarray) -> None:
    shift: dict[str, Any] = {
        "translate_px": {"x": [24, 24], "y": [0, 0]},
        "interpolation": "nearest",
        "p": 1.0,
    }
    drawn = {
        mode: Pipeline([{"Affine": {**shift, "border_mode": mode}}]).apply(rgb, 0)
        for mode in ("constant", "replicate", "wrap")
    }
    np.testing.assert_array_equal(drawn["constant"][:, :24], 0)
    np.testing.assert_array_equal(drawn["replicate"][:, :24], np.repeat(rgb[:, :1], 24, axis=1))
    np.testing.assert_array_equal(drawn["wrap"][:, :24], rgb[:, -24:])


def test_every_transform_of_the_list_exists_and_has_one_affect_class() -> None:
    everything = dict.fromkeys(AffectClass, 1.0)
    for name in TRANSFORMS:
        step = {name: {"p": 1.0, **NEEDS.get(name, {})}}
        assert list(check_steps([step], everything)) == []


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_every_transform_refuses_an_argument_it_does_not_know(name: str) -> None:
    (problem,) = check_steps(
        [{name: {"p": 1.0, "misspelt": 1, **NEEDS.get(name, {})}}], dict.fromkeys(AffectClass, 1.0)
    )
    assert "misspelt" in problem


@pytest.mark.parametrize(
    ("step", "inverts"),
    [
        ({"VerticalFlip": {"p": 0.1}}, True),
        ({"D4": {"p": 1.0}}, True),
        ({"RandomRotate90": {"p": 1.0}}, True),
        ({"Transpose": {"p": 1.0}}, True),
        ({"Rotate": {"p": 1.0}}, True),  # 90° by default
        ({"Rotate": {"limit": 20, "p": 1.0}}, False),
        ({"SafeRotate": {"limit": [-5, 45], "p": 1.0}}, True),
        ({"Affine": {"rotate": [-20, 20], "p": 1.0}}, False),
        ({"Affine": {"rotate": [-21, 0], "p": 1.0}}, True),
        ({"Affine": {"rotate": 180, "p": 1.0}}, True),
        ({"Affine": {"scale": [0.9, 1.1], "p": 1.0}}, False),
        ({"Affine": {"scale": [-1.0, -1.0], "p": 1.0}}, True),  # a turn by 180°
        ({"Affine": {"shear": {"x": [0, 60], "y": 0}, "p": 1.0}}, True),
        ({"Affine": {"scale": {"x": [0.9, 1.1], "y": [-1.0, -0.9]}, "p": 1.0}}, True),
        ({"HorizontalFlip": {"p": 1.0}}, False),
        ({"RandomCropFromBorders": {"p": 1.0}}, False),
    ],
)
def test_steps_that_invert_an_image_are_found(step: Step, inverts: bool) -> None:
    name = next(iter(step))
    assert find_inverting_steps([{"HorizontalFlip": {"p": 0.5}}, step]) == [name] * inverts
