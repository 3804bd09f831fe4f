"""Copies compared with their parents: features, drift, near-copies, and the probe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from affectdata.errors import RecipeError
from affectdata.reading.sample import draw_image
from affectdata.recipe.recipe import FEATURES
from affectdata.release.release import open_release
from affectdata.render.drift import LOOKS, find_excess_drift, measure_drift, measure_look, probe_auc
from tests.made import FLIP, image_id, make_recipe, publish

BLUR = {"GaussianBlur": {"blur_limit": [9, 9], "p": 1.0}}


def look(rgb: np.ndarray) -> dict[str, float]:
    return dict(zip(FEATURES, measure_look(rgb), strict=False))


def plain(*rgb: int, shape: tuple[int, int] = (80, 90)) -> np.ndarray:
    return np.full((*shape, 3), rgb, np.uint8)


def halves(low: int, high: int) -> np.ndarray:
    """Left half `low`, right half `high`, grey."""
    rgb = plain(low, low, low)
    rgb[:, 45:] = high
    return rgb


def blurred(rgb: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    return cv2.GaussianBlur(rgb, (0, 0), sigma)


# --- features --------------------------------------------------------------------------------------------


def test_a_plain_grey_image_has_luminance_and_nothing_else() -> None:
    for level in (0, 51, 255):
        found = look(plain(level, level, level))
        assert found.pop("luminance") == pytest.approx(level / 2.55)
        assert np.isnan(found.pop("hue"))
        assert set(found.values()) == {0.0}


@pytest.mark.parametrize(
    ("rgb", "saturation", "hue"),
    [
        ((255, 0, 0), 100, 0),
        ((0, 0, 255), 100, 240),
        ((0, 255, 0), 100, 120),
        ((0, 200, 200), 100, 180),
        ((102, 51, 51), 50, 0),
        ((255, 255, 255), 0, np.nan),
        ((101, 100, 98), 3, np.nan),  # nearly grey
    ],
)
def test_colours(rgb: tuple[int, int, int], saturation: float, hue: float) -> None:
    found = look(plain(*rgb))
    assert found["saturation"] == pytest.approx(saturation, abs=0.5)
    assert found["hue"] == pytest.approx(hue, abs=0.01, nan_ok=True)
    assert found["contrast"] == found["entropy"] == 0


def test_luminance_weights_channels_as_the_eye_does() -> None:
    """Rec. 601: green is brighter than red, red than blue."""
    green, red, blue = (look(plain(*rgb))["luminance"] for rgb in ((0, 255, 0), (255, 0, 0), (0, 0, 255)))
    assert [green, red, blue] == pytest.approx([58.7, 29.9, 11.4], abs=0.3)


def test_two_levels_are_half_the_range_of_contrast_and_one_bit() -> None:
    found = look(halves(0, 255))
    assert found["contrast"] == pytest.approx(50)
    assert found["luminance"] == pytest.approx(50)
    assert found["entropy"] == pytest.approx(1)
    assert 0 < found["edges"] < 5  # one line down the middle
    assert look(halves(100, 110))["edges"] == 0  # too weak to count
    assert look(halves(100, 110))["entropy"] == pytest.approx(1)


def test_every_grey_level_alike_is_eight_bits() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    assert look(ramp)["entropy"] == pytest.approx(8)


def test_blur_takes_sharpness_and_edges_and_leaves_colour() -> None:
    rgb = draw_image(np.random.default_rng(0), 50.0)
    before, after = look(rgb), look(blurred(rgb, 3))
    assert after["sharpness"] < before["sharpness"] - 1  # a tenth of the variance, and less
    assert after["edges"] < before["edges"] * 0.8
    for name in ("luminance", "hue"):
        assert after[name] == pytest.approx(before[name], abs=1.5)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    expected = np.log10(cv2.Laplacian(grey, cv2.CV_64F).var() + 1)
    assert look(rgb)["sharpness"] == pytest.approx(expected)


def test_a_large_image_has_the_look_of_a_small_one() -> None:
    rgb = blurred(draw_image(np.random.default_rng(2), 50.0), 2)
    large = cv2.resize(rgb, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    small, big = look(rgb), look(large)
    for name in ("luminance", "contrast", "saturation", "hue"):
        assert big[name] == pytest.approx(small[name], abs=1)


def test_an_image_of_one_pixel_has_a_look() -> None:
    assert all(np.isfinite(list(look(plain(90, 9, 9, shape=(1, 1))).values())))


# --- drift -----------------------------------------------------------------------------------------------


class Released:
    """Rows of a release and their features, as input of `measure_drift`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.looks: list[tuple[Any, ...]] = []

    def add(self, key: object, rgb: np.ndarray, copy: int = 0, **more: Any) -> None:
        pipeline = "pipe" if copy else ""
        row = {"image_id": image_id(str(key)), "copy": copy, "split": "train", "subtype": "A"}
        self.rows.append({**row, "pipeline": pipeline, **more})
        self.looks.append(measure_look(rgb))

    def measure(self) -> dict[str, Any]:
        columns = [list(column) for column in zip(*self.looks, strict=True)]
        return measure_drift(pa.Table.from_pylist(self.rows), [pa.table(columns, schema=LOOKS)])


def images(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [draw_image(rng, rng.uniform(0, 100), 96, 72) for _ in range(n)]


def test_identical_copies_have_not_drifted_and_are_near_copies() -> None:
    made = Released()
    for key, rgb in enumerate(images(12)):
        for copy in range(3):
            made.add(key, rgb, copy)
    drift = made.measure()
    assert (drift["copies"], drift["near_copies"]) == (24, 24)
    zero = {name: {"mean": 0.0, "mean_abs": 0.0} for name in FEATURES}
    assert drift["all"] == drift["by_pipeline"]["pipe"] == drift["by_subtype"]["A"] == zero
    assert set(drift["by_pipeline"]) == {"pipe"}


def test_drift_is_signed_by_pipeline_and_by_subtype() -> None:
    made = Released()
    for key, (subtype, pipeline, change) in enumerate(
        [("A", "up", 20), ("A", "down", -20), (None, "up", 10), (None, "up", 10)]
    ):
        made.add(key, plain(100, 100, 100), subtype=subtype)
        level = 100 + change
        made.add(key, plain(level, level, level), 1, subtype=subtype, pipeline=pipeline)
    drift = made.measure()

    def luminance(part: dict[str, Any]) -> tuple[float, float]:
        return part["luminance"]["mean"], part["luminance"]["mean_abs"]

    assert luminance(drift["by_pipeline"]["up"]) == pytest.approx((40 / 3 / 2.55,) * 2, abs=1e-3)
    assert luminance(drift["by_pipeline"]["down"]) == pytest.approx((-20 / 2.55, 20 / 2.55), abs=1e-3)
    assert luminance(drift["by_subtype"]["A"]) == pytest.approx((0, 20 / 2.55), abs=1e-3)
    assert luminance(drift["by_subtype"]["–"]) == pytest.approx((10 / 2.55,) * 2, abs=1e-3)
    assert luminance(drift["all"]) == pytest.approx((5 / 2.55, 15 / 2.55), abs=1e-3)
    assert drift["probe"] is None  # too few rows


def of_hue(degrees: float) -> np.ndarray:
    """A plain image of one HSV hue."""
    hsv = np.full((8, 8, 3), (degrees / 2, 200, 180), np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def turned(rgb: np.ndarray, degrees: int) -> np.ndarray:
    """An image with every pixel's HSV hue turned."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV).astype(int)
    hsv[..., 0] = (hsv[..., 0] + degrees // 2) % 180
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def hue_drift(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    made = Released()
    for key, (before, after) in enumerate(pairs):
        made.add(key, before)
        made.add(key, after, 1)
    found = made.measure()["all"]["hue"]
    return found["mean"], found["mean_abs"]


@pytest.mark.parametrize(
    ("before", "after", "moved"), [(350, 10, 20), (10, 350, -20), (100, 130, 30), (0, 170, 170)]
)
def test_hue_changes_along_the_shorter_arc(before: int, after: int, moved: int) -> None:
    mean, mean_abs = hue_drift([(of_hue(before), of_hue(after))])
    assert (mean, mean_abs) == (pytest.approx(moved, abs=0.5), pytest.approx(abs(moved), abs=0.5))


@pytest.mark.parametrize("degrees", [30, 90, -60])
def test_a_turn_of_every_pixels_hue_is_measured_on_images_of_many_hues(degrees: int) -> None:
    some = [rgb for rgb in images(30, seed=3) if np.isfinite(look(rgb)["hue"])]
    assert len(some) > 15
    assert hue_drift([(rgb, turned(rgb, degrees)) for rgb in some])[0] == pytest.approx(degrees, abs=4)


def test_grey_has_no_hue_to_move() -> None:
    grey = plain(100, 100, 100)
    assert hue_drift([(of_hue(200), grey), (grey, of_hue(200)), (grey, grey)]) == (0, 0)
    assert hue_drift([(grey, grey), (of_hue(200), of_hue(240))])[1] == pytest.approx(20, abs=1)


def test_a_bound_on_hue_names_the_transform_that_turns_it(small_gaped: Path, tmp_path: Path) -> None:
    shift = {"hue_shift_limit": [30, 30], "sat_shift_limit": [0, 0], "val_shift_limit": [0, 0], "p": 1.0}
    steps = [*FLIP, {"HueSaturationValue": shift}]
    with pytest.raises(RecipeError, match=r"changes hue by .* mostly because of HueSaturationValue"):
        publish(
            small_gaped, tmp_path, max_drift={"hue": 10.0}, allow={"colour": 1.0}, pipelines={"flip": steps}
        )


def test_originals_of_val_and_test_do_not_count() -> None:
    made = Released()
    for key, rgb in enumerate(images(4)):
        made.add(key, rgb, split="train" if key < 2 else ("val", "test")[key % 2])
        if not key:
            made.add(key, rgb, 1)
    drift = made.measure()
    assert (drift["copies"], drift["near_copies"]) == (1, 1)
    without = Released()
    without.add(0, images(1)[0])
    assert without.measure() == {"copies": 0}


def test_near_copies_are_counted_against_parent_and_siblings() -> None:
    """Two of one image count once, of two images not at all."""
    made = Released()
    left, right = images(2)
    made.add("a", left)
    made.add("a", left[:, ::-1].copy(), 1)  # new
    made.add("a", left[:, ::-1].copy(), 2)  # as its sibling
    made.add("a", left, 3)  # as its parent
    made.add("a", left[::-1].copy(), 4)  # new
    made.add("b", right)
    made.add("b", left, 1)  # the look of another image, not of its own
    assert made.measure()["near_copies"] == 2


def test_excess_drift_gives_pipeline_feature_and_both_numbers() -> None:
    made = Released()
    made.add(0, plain(100, 100, 100))
    made.add(0, plain(110, 110, 110), 1, pipeline="up")
    drift = made.measure()
    (found,) = find_excess_drift(drift, {"luminance": 3.9, "contrast": 0.1})
    assert (found.pipeline, found.feature) == ("up", "luminance")
    assert found.text == "up changes luminance by 3.9216 on average (bound 3.9)"
    assert measure_look(plain(110, 110, 110))[found.feature_index] == pytest.approx(110 / 2.55)
    assert find_excess_drift(drift, {"luminance": 3.93}) == []
    assert find_excess_drift({"copies": 0}, {"luminance": 0.1}) == []


# --- the probe -------------------------------------------------------------------------------------------


def probe_of(change: Any, n: int = 80, n_copies: int = 1) -> dict[str, float]:
    made = Released()
    for key, rgb in enumerate(images(n, 5)):
        made.add(key, rgb)
        for copy in range(1, n_copies + 1):
            made.add(key, np.ascontiguousarray(change(rgb)), copy)
    found = made.measure()["probe"]
    assert found["low"] <= found["auc"] <= found["high"]
    return found


def test_flips_cannot_be_separated_from_their_parents() -> None:
    found = probe_of(lambda rgb: rgb[:, ::-1], n_copies=2)
    assert found["auc"] == pytest.approx(0.5, abs=0.08)
    assert found["low"] < 0.55


@pytest.mark.parametrize(
    "change",
    [
        blurred,
        lambda rgb: cv2.resize(cv2.resize(rgb, (48, 36)), (96, 72)),
        lambda rgb: np.clip(rgb.astype(int) + np.random.default_rng(0).normal(0, 12, rgb.shape), 0, 255),
    ],
    ids=["blur", "resized twice", "noise"],
)
def test_a_planted_shortcut_is_found(change: Any) -> None:
    found = probe_of(lambda rgb: change(rgb).astype(np.uint8))
    assert found["auc"] > 0.9
    assert found["low"] > 0.85


def families(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Twelve families: within one, copies look alike, and originals look alike, differently in every one."""
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.arange(24), 5)
    values = rng.normal(size=(24, len(FEATURES)))[kind] + rng.normal(0, 1e-3, (120, len(FEATURES)))
    return values, kind % 2 == 1, kind // 2


def test_a_probe_trained_on_the_parent_would_be_too_good() -> None:
    """If folds divide families, it memorises them; if they are kept together, there is nothing to learn."""
    grouped, rowwise = [], []
    for seed in range(20):
        values, is_copy, group = families(seed)
        for found, folds in ((grouped, group), (rowwise, np.arange(len(group)))):
            probe = probe_auc(values, is_copy, folds)
            assert probe is not None
            found.append(probe["auc"])
    assert np.mean(rowwise) > 0.8
    assert np.mean(grouped) < 0.6


def test_the_probe_is_the_same_every_time_and_needs_some_of_both() -> None:
    values, is_copy, group = families(0)
    assert probe_auc(values, is_copy, group) == probe_auc(values, is_copy, group)
    assert probe_auc(values[:18], is_copy[:18], group[:18]) is None
    assert probe_auc(values, np.zeros(len(group), bool), group) is None


def test_probe_where_one_parent_has_all_the_copies() -> None:
    """Every third resample of the parents holds no copy at all."""
    rng = np.random.default_rng(5)
    is_copy = np.arange(50) >= 40
    found = probe_auc(rng.normal(0, 1, (50, 3)), is_copy, np.where(is_copy, 0, np.arange(50)))
    assert found is not None
    assert 0 <= found["low"] <= found["high"] <= 1


# --- a release -------------------------------------------------------------------------------------------


def test_a_release_keeps_its_numbers(small_gaped: Path, tmp_path: Path) -> None:
    pipelines = {"flip": FLIP, "blur": [BLUR]}
    subtypes = {"default": {"pipeline": "flip"}, "P": {"pipeline": "blur"}}
    level = {"level": 6, "max_copies": 3}
    release = publish(small_gaped, tmp_path, pipelines=pipelines, subtypes=subtypes, balance=level)
    drift = open_release(release.path).info["drift"]
    assert drift["copies"] == release.info["copies"]
    blur, flip = (drift["by_pipeline"][name]["sharpness"]["mean"] for name in ("blur", "flip"))
    assert blur < -0.1
    assert abs(flip) < 0.02
    assert set(drift["all"]) == set(FEATURES)
    assert drift["near_copies"] > 0  # the second flip is the first one again


def test_a_release_over_the_bound_is_refused_and_removed(small_gaped: Path, tmp_path: Path) -> None:
    """The message gives the transform with the largest effect, not the others of the pipeline."""
    pipelines = {"soft": [*FLIP, BLUR, {"RandomCropFromBorders": {"p": 0.1}}]}
    changes: dict[str, Any] = {"pipelines": pipelines, "subtypes": {"default": {"pipeline": "soft"}}}
    with pytest.raises(RecipeError, match="copies changed more than the recipe allows") as caught:
        publish(small_gaped, tmp_path, max_drift={"sharpness": 0.05, "saturation": 50.0}, **changes)
    assert caught.value.where == "max_drift"
    assert caught.value.exit_code == 3
    assert "soft changes sharpness by " in caught.value.what
    assert "(bound 0.05), mostly because of GaussianBlur" in caught.value.what
    assert "saturation" not in caught.value.what
    assert list((tmp_path / "releases").iterdir()) == []
    release = publish(small_gaped, tmp_path, max_drift={"sharpness": 5.0}, **changes)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [release.name]


def test_a_bound_on_no_feature_is_refused() -> None:
    with pytest.raises(RecipeError, match="max_drift: no feature 'brightness'; known: luminance"):
        make_recipe(max_drift={"brightness": 1.0})
