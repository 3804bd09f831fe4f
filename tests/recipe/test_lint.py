"""Warnings about a recipe, without data; and the bounds on transforms that influence affect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from affectdata.errors import RecipeError
from affectdata.recipe.lint import lint_recipe
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.recipe.transforms import Pipeline
from tests.made import FLIP, make_recipe

Step = dict[str, Any]
REFLECT = {"border_mode": "reflect_101"}
CROP = {"RandomCropFromBorders": {"p": 1.0}}


def lint(*steps: Step, **changes: Any) -> list[tuple[str, str]]:
    recipe = make_recipe(
        pipelines={"pipe": list(steps)}, subtypes={"default": {"pipeline": "pipe"}}, **changes
    )
    return [(finding.kind, finding.text) for finding in lint_recipe(recipe)]


def kinds(*steps: Step) -> list[str]:
    return [kind for kind, _ in lint(*steps)]


@pytest.mark.parametrize(
    ("steps", "share"),
    [
        ([{"HorizontalFlip": {"p": 0.5}}], "50%"),
        ([{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}], "25%"),
        ([{"HorizontalFlip": {"p": 0.4}}, {"Affine": {"rotate": 9, "p": 0.5, **REFLECT}}], "30%"),
        ([{"D4": {"p": 1.0}}], "12%"),
        ([{"D4": {"p": 0.5}}], "56%"),
        ([{"RandomRotate90": {"p": 1.0}}], "25%"),
    ],
)
def test_draws_without_effect_are_counted(steps: list[Step], share: str) -> None:
    subtypes = {"default": {"pipeline": "pipe", "upright": False}}
    recipe = make_recipe(pipelines={"pipe": steps}, subtypes=subtypes)
    (finding,) = lint_recipe(recipe)
    assert finding.kind == "identity"
    assert finding.text.startswith(f"pipelines.pipe: {share} of the draws leave the image unchanged")


@pytest.mark.parametrize(
    "steps",
    [FLIP, [{"HorizontalFlip": {"p": 0.5}}, CROP], [{"D4": {"p": 1.0}}, CROP], [{"VerticalFlip": {"p": 1}}]],
    ids=str,
)
def test_a_transform_that_always_changes_something_is_enough(steps: list[Step]) -> None:
    assert lint(*steps) == []


def test_the_share_of_identities_matches_the_draws() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for steps, share in (
        ([{"D4": {"p": 0.5}}], 0.5625),
        ([{"RandomRotate90": {"p": 1.0}}], 0.25),
        ([{"HorizontalFlip": {"p": 0.4}}, {"VerticalFlip": {"p": 0.5}}], 0.3),
    ):
        pipeline = Pipeline(steps)
        same = [np.array_equal(pipeline.apply(rgb, seed), rgb) for seed in range(600)]
        assert np.mean(same) == pytest.approx(share, abs=0.07)
        (found,) = lint(*steps)
        assert found[1].startswith(f"pipelines.pipe: {share:.0%}")


@pytest.mark.parametrize("arguments", [{}, {"rotate": 0}, {"scale": 1.0, "rotate": [0, 0], "shear": 0}])
def test_an_affine_that_moves_nothing_is_an_identity(arguments: Step) -> None:
    found = dict(lint({"Affine": {**arguments, "p": 1.0, **REFLECT}}))
    assert "100% of the draws" in found["identity"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"rotate": 5},
        {"scale": [0.9, 1.1]},
        {"scale": {"x": 0.9, "y": 1.0}},
        {"translate_percent": 0.1},
        {"translate_px": 3},
        {"shear": {"x": 5, "y": 0}},
    ],
    ids=str,
)
def test_an_affine_that_moves_something_is_none(arguments: Step) -> None:
    assert lint({"Affine": {**arguments, "p": 1.0, **REFLECT}}) == []


@pytest.mark.parametrize(
    "step",
    [
        {"Affine": {"rotate": 5, "p": 1.0}},
        {"Rotate": {"limit": 5, "p": 1.0}},
        {"SafeRotate": {"limit": 5, "p": 1.0}},
        {"Perspective": {"fit_output": True, "p": 1.0}},
        {"ElasticTransform": {"alpha": 50, "p": 1.0}},
        {"GridDistortion": {"p": 1.0}},
    ],
    ids=lambda step: next(iter(step)),
)
def test_black_margins_are_reported_with_a_remedy(step: Step) -> None:
    """The transform leaves black margins, and with the suggested border mode it does not."""
    name, arguments = next(iter(step.items()))
    (found,) = lint(step)
    assert found[0] == "border"
    assert f"{name} leaves black margins" in found[1]
    assert "border_mode: reflect_101" in found[1]
    assert "border" in kinds({name: {**arguments, "border_mode": "constant"}})
    fixed = {name: {**arguments, **REFLECT}}
    assert lint(fixed) == []
    white = np.full((64, 64, 3), 255, np.uint8)
    assert min(Pipeline([step]).apply(white, seed).min() for seed in range(10)) == 0
    assert min(Pipeline([fixed]).apply(white, seed).min() for seed in range(10)) == 255


def test_a_perspective_that_fills_the_image_leaves_no_margin() -> None:
    step = {"Perspective": {"p": 1.0}}
    assert lint(step) == []
    white = np.full((64, 64, 3), 255, np.uint8)
    assert min(Pipeline([step]).apply(white, seed).min() for seed in range(10)) == 255


@pytest.mark.parametrize("mode", ["reflect", "reflect_101", "replicate", "wrap"])
def test_other_margins_are_not_black(mode: str) -> None:
    assert lint({"Rotate": {"limit": 5, "border_mode": mode, "p": 1.0}}) == []


@pytest.mark.parametrize(
    ("step", "lost"),
    [
        ({"RandomCropFromBorders": {"crop_left": 0.3, "crop_right": 0.3, "p": 1.0}}, "68%"),
        ({"RandomResizedCrop": {"size": [32, 32], "p": 1.0}}, "92%"),  # its default
        ({"RandomResizedCrop": {"size": [32, 32], "scale": [0.3, 1.0], "p": 1.0}}, "70%"),
    ],
)
def test_a_crop_that_can_lose_the_subject_is_reported(step: Step, lost: str) -> None:
    (found,) = lint(step)
    assert found[0] == "crop"
    assert f"{next(iter(step))} can remove {lost} of the image" in found[1]


@pytest.mark.parametrize(
    "step", [CROP, {"RandomResizedCrop": {"size": [32, 32], "scale": [0.5, 1.0], "p": 1.0}}], ids=str
)
def test_a_moderate_crop_is_not_reported(step: Step) -> None:
    assert lint(step) == []


def test_every_pipeline_is_checked_and_every_warning_given() -> None:
    pipelines = {
        "one": [{"Affine": {"rotate": 5, "p": 0.5}}],
        "two": [{"RandomResizedCrop": {"size": [9, 9], "p": 1.0}}],
        "three": FLIP,
    }
    recipe = make_recipe(pipelines=pipelines, subtypes={"default": {"pipeline": "one"}})
    found = [(finding.kind, finding.text.split(":")[0]) for finding in lint_recipe(recipe)]
    assert found == [("identity", "pipelines.one"), ("border", "pipelines.one"), ("crop", "pipelines.two")]


@pytest.mark.parametrize("path", sorted(packaged_recipes().glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_recipes_give_no_warnings(path: Any) -> None:
    assert lint_recipe(read_recipe(path)) == []


# --- transforms that influence affect need an opt-in with a bound ----------------------------------------

STRENGTHS = [
    ({"RandomBrightnessContrast": {"p": 1.0}}, "photometric", 0.2),  # albumentations' default
    (
        {"RandomBrightnessContrast": {"brightness_limit": 0.1, "contrast_limit": 0, "p": 1.0}},
        "photometric",
        0.1,
    ),
    ({"RandomBrightnessContrast": {"brightness_limit": [-0.3, 0.1], "p": 1.0}}, "photometric", 0.3),
    ({"HueSaturationValue": {"p": 1.0}}, "colour", 20 / 90),
    (
        {"HueSaturationValue": {"hue_shift_limit": 9, "sat_shift_limit": 51, "val_shift_limit": 0, "p": 1.0}},
        "colour",
        0.2,
    ),
    (
        {"ColorJitter": {"brightness": [0.9, 1.1], "contrast": 0, "saturation": 0, "hue": 0, "p": 1.0}},
        "colour",
        0.1,
    ),
    (
        {"ColorJitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": [-0.2, 0.1], "p": 1.0}},
        "colour",
        0.4,
    ),
    ({"ToGray": {"p": 0.1}}, "colour", 1.0),
]


@pytest.mark.parametrize(("step", "affect", "strength"), STRENGTHS, ids=str)
def test_the_bound_is_the_strength(step: Step, affect: str, strength: float) -> None:
    name = next(iter(step))

    def parse(**allow: float) -> None:
        make_recipe(pipelines={"flip": [step, *FLIP]}, allow=allow)

    with pytest.raises(
        RecipeError,
        match=rf"{name} changes .*, which itself influences affect; opt in with `allow: \{{{affect}: ",
    ):
        parse()
    parse(**{affect: min(1.0, strength + 1e-6)})
    parse(**{affect: 1.0})
    with pytest.raises(RecipeError, match=f"{name} has strength .*, above `allow.{affect}`") as caught:
        parse(**{affect: strength * 0.99})
    assert "pipelines.flip" in str(caught.value)


@pytest.mark.parametrize("level", [40, 128, 215])
def test_a_bounded_change_of_brightness_stays_inside_its_bound(level: int) -> None:
    """The strength is a share of the whole range."""
    rgb = np.full((8, 8, 3), level, np.uint8)
    pipeline = Pipeline(
        [{"RandomBrightnessContrast": {"brightness_limit": 0.1, "contrast_limit": 0, "p": 1.0}}]
    )
    shifts = [abs(float(pipeline.apply(rgb, seed).mean()) - level) / 255 for seed in range(100)]
    assert 0.05 < max(shifts) <= 0.1 + 1 / 255
