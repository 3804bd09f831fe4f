"""Recipes: strict, every problem at once with its path, found by name, the same after a round trip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from affectdata.errors import RecipeError, UsageError
from affectdata.recipe.recipe import find_recipe, packaged_recipes, parse_recipe, read_recipe
from tests.made import make_recipe, recipe_document

PACKAGED = sorted(packaged_recipes().glob("*.yaml"))


def refused(**changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe_document(**changes), "made.yaml")
    assert caught.value.exit_code == 3
    return caught.value.what


def test_there_are_packaged_recipes() -> None:
    assert "valence_bins.yaml" in [path.name for path in PACKAGED]


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_a_packaged_recipe_is_valid_and_states_its_purpose(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# For ")


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_the_resolved_recipe_is_the_same_recipe(path: Path) -> None:
    recipe = read_recipe(path)
    text = yaml.safe_dump(recipe.document(), sort_keys=False, allow_unicode=True)
    again = parse_recipe(yaml.safe_load(text))
    assert again == recipe
    assert again.digest == recipe.digest


def test_the_digest_depends_on_content_not_formatting() -> None:
    document = recipe_document()
    assert parse_recipe(dict(reversed(document.items()))).digest == make_recipe().digest
    assert make_recipe(seed=0).digest == make_recipe().digest  # a default written out
    assert make_recipe(seed=1).digest != make_recipe().digest


def test_every_typo_is_listed_at_once_with_its_path() -> None:
    what = refused(
        tarqet="valence", balance={"levle": "max", "max_copies": 0}, image={"short_side": 256}, seed="7"
    )
    for path in ("tarqet: unknown key", "balance.levle: unknown key", "image.short_side: unknown key"):
        assert path in what
    assert "balance.max_copies:" in what
    assert "seed:" in what
    assert "5 problems in made.yaml" in what or "6 problems in made.yaml" in what


def test_a_missing_key_is_reported() -> None:
    assert "name: missing" in refused(name=None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bins": {"width": 10, "edges": [0, 50, 100]}}, "bins: give exactly one of width, edges, quantiles"),
        ({"bins": {}}, "bins: give exactly one of"),
        ({"bins": {"edges": [-10, 50, 100]}}, "bins.edges: -10–100 is outside the POMP scale"),
        ({"bins": {"edges": [0, 101]}}, "bins.edges: 0–101 is outside the POMP scale"),
        ({"bins": {"edges": [0, 50, 50, 100]}}, "edges must be at least two ascending"),
        ({"bins": {"edges": [50]}}, "edges must be at least two ascending numbers"),
        ({"bins": {"edges": [0, float("nan")]}}, "bins.edges.1"),
        ({"bins": {"width": 0}}, "bins.width"),
        ({"bins": {"width": 1e-9}}, "bins.width"),
        ({"bins": {"quantiles": 1}}, "bins.quantiles"),
        ({"bins": None}, "the numeric target valence needs bins"),
        ({"split": {"val": 0.5, "test": 0.5}}, "split: val and test must sum to less than 1"),
        ({"split": {"val": -0.1}}, "split.val: Input should be greater than or equal to 0"),
        ({"split": "some"}, "split: Input should be"),
        ({"strata": ["subtype", "valence"]}, "strata: valence is already the target"),
        ({"balance": {"level": 0}}, "balance.level"),
        ({"balance": {"level": "min"}}, "balance.level: Input should be 'max' or 'median' (got 'min'); or"),
        ({"balance": {"level": 2.5}}, "balance.level: "),
        ({"balance": {"max_copies": 10**9}}, "balance.max_copies"),
        ({"subtypes": {}}, "subtypes.default: missing; balance.max_copies > 1"),
        (
            {"subtypes": {"default": {"pipeline": "turn"}}},
            "subtypes.default.pipeline: no pipeline 'turn'",
        ),
        ({"image": {}}, "image: give exactly one of short_side_px, size_px"),
        ({"image": {"short_side_px": 32, "size_px": [32, 32]}}, "give exactly one of short_side_px, size_px"),
        ({"image": {"size_px": [32]}}, "image.size_px"),
        ({"image": {"short_side_px": 32, "quality": 101}}, "image.quality"),
        ({"name": "../out"}, "name"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_contradiction_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refused(**changes)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"HorizontalFlip": {}}, "step 0: HorizontalFlip needs p,"),
        ({"Affine": {"rotate": [-5, 5]}}, "Affine needs p,"),
        ({"HorizontalFilp": {"p": 1.0}}, "step 0: no transform 'HorizontalFilp'; known: "),
        ({"HorizontalFlip": {"p": 1.0}, "VerticalFlip": {"p": 1.0}}, "step 0 must be one transform, not 2"),
        ({}, "step 0 must be one transform, not 0"),
        ({"Affine": {"rotat": [-5, 5], "p": 1.0}}, "rotat"),
        ({"HorizontalFlip": {"p": 1.5}}, "step 0: HorizontalFlip: "),
        ({"HorizontalFlip": {"p": "often"}}, "step 0: HorizontalFlip: "),
        (
            {"Affine": {"interpolation": "kubic", "p": 1.0}},
            "interpolation must be one of nearest, linear, cubic",
        ),
        ({"Affine": {"border_mode": 4, "p": 1.0}}, "border_mode must be one of constant, replicate"),
        ({"Affine": {"border_mode": ["wrap"], "p": 1.0}}, "border_mode must be one of constant, replicate"),
        ({"RandomResizedCrop": {"p": 1.0}}, "size"),
    ],
)
def test_an_invalid_step_is_refused(step: dict[str, Any], words: str) -> None:
    what = refused(pipelines={"flip": [step]})
    assert "pipelines.flip: step 0" in what
    assert words in what
    assert "errors.pydantic.dev" not in what


@pytest.mark.parametrize(
    ("step", "affect", "strength"),
    [
        (
            {"RandomBrightnessContrast": {"brightness_limit": 0.1, "contrast_limit": 0.3, "p": 1.0}},
            "photometric",
            0.3,
        ),
        ({"RandomGamma": {"gamma_limit": [80, 110], "p": 1.0}}, "photometric", 0.2),
        ({"CLAHE": {"p": 1.0}}, "photometric", 1.0),  # no limit that could be compared
        (
            {
                "HueSaturationValue": {
                    "hue_shift_limit": 9,
                    "sat_shift_limit": 0,
                    "val_shift_limit": 0,
                    "p": 1,
                }
            },
            "colour",
            0.1,
        ),
        (
            {"RGBShift": {"r_shift_limit": 0, "g_shift_limit": 51, "b_shift_limit": [-102, 0], "p": 1}},
            "colour",
            0.4,
        ),
        ({"ToGray": {"p": 1.0}}, "colour", 1.0),
    ],
)
def test_a_transform_that_influences_affect_needs_an_opt_in(step: Any, affect: str, strength: float) -> None:
    name = next(iter(step))
    what = refused(pipelines={"flip": [step]})
    assert f"which itself influences affect; opt in with `allow: {{{affect}: {strength:g}}}`" in what
    make_recipe(pipelines={"flip": [step]}, allow={affect: strength})
    if strength > 0.1:
        what = refused(pipelines={"flip": [step]}, allow={affect: strength - 0.05})
        assert f"{name} has strength {strength:g}, above `allow.{affect}`" in what
    other = {"photometric": "colour", "colour": "photometric"}[affect]
    assert "opt in with" in refused(pipelines={"flip": [step]}, allow={other: 1.0})


@pytest.mark.parametrize("allow", [{"contrast": 0.5}, {"colour": 0}, {"colour": 1.1}, {"colour": True}])
def test_an_opt_in_is_of_a_known_class_with_a_bound(allow: Any) -> None:
    assert "allow." in refused(allow=allow)


def test_all_steps_of_all_pipelines_are_checked() -> None:
    what = refused(
        pipelines={"flip": [{"HorizontalFlip": {"p": 1.0}}, {"Flop": {"p": 1}}], "turn": [{"D4": {}}]}
    )
    assert "pipelines.flip: step 1: no transform 'Flop'" in what
    assert "pipelines.turn: step 0: D4 needs p," in what


@pytest.mark.parametrize("pipelines", [{"flip": []}, {"flip": [{"HorizontalFlip": None}]}, {"flip": "D4"}])
def test_a_pipeline_is_a_list_of_transforms_with_arguments(pipelines: dict[str, Any]) -> None:
    assert "pipelines.flip" in refused(pipelines=pipelines)


def test_a_recipe_without_copies_needs_no_pipeline() -> None:
    recipe = make_recipe(balance={"max_copies": 1}, subtypes={}, pipelines={})
    assert recipe.rule_for("A") is None


def test_a_subtype_without_a_rule_uses_the_default() -> None:
    subtypes = {"default": {"pipeline": "flip"}, "Sn": {"pipeline": "turn", "upright": False}}
    recipe = make_recipe(
        subtypes=subtypes, pipelines={"flip": [{"D4": {"p": 1}}], "turn": [{"D4": {"p": 1}}]}
    )
    rules = [recipe.rule_for(subtype) for subtype in ("Sn", "A", None)]
    assert [rule.pipeline for rule in rules if rule] == ["turn", "flip", "flip"]


def test_split_none_round_trips() -> None:
    recipe = make_recipe(split="none")
    assert recipe.split == "none"
    assert parse_recipe(recipe.document()) == recipe


def test_a_share_of_zero_is_a_share() -> None:
    recipe = make_recipe(split={"val": 0, "test": 0.2})
    assert recipe.split != "none"
    assert recipe.split.fractions == {"val": 0.0, "test": 0.2}


@pytest.mark.parametrize("document", [None, [], "valence_bins", 3])
def test_a_document_that_is_not_a_mapping_is_refused(document: Any) -> None:
    with pytest.raises(RecipeError, match=r"1 problem in made.yaml"):
        parse_recipe(document, "made.yaml")


def test_a_recipe_is_found_as_a_path_then_beside_then_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("valence_bins.yaml") == packaged_recipes() / "valence_bins.yaml"
    assert find_recipe("valence_bins") == packaged_recipes() / "valence_bins.yaml"
    own = Path("recipes/valence_bins.yaml")
    own.parent.mkdir()
    own.write_text("name: own")
    assert find_recipe("valence_bins") == own
    here = Path("valence_bins.yaml")
    here.write_text("name: here")
    assert find_recipe("valence_bins.yaml") == here
    assert find_recipe(str(tmp_path / "recipes" / "valence_bins.yaml")) == tmp_path / own


def test_an_unknown_recipe_lists_the_places_searched_and_the_known_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no recipe 'valence_bin'") as caught:
        find_recipe("valence_bin")
    assert str(packaged_recipes()) in caught.value.where
    assert "valence_bins.yaml" in caught.value.fix


def test_invalid_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: made\nbins: {width: 10\n")
    with pytest.raises(RecipeError, match=r"(?s)broken.yaml is not valid YAML.*line") as caught:
        read_recipe(path)
    assert caught.value.where == str(path)
