"""Pixels of a release: exact sizes, one path for originals and copies, errors that name the image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from affectdata.errors import ImagesNotFound, InputError, IntegrityError
from affectdata.hashing import file_hash
from affectdata.images.decode import resize
from affectdata.manifest.manifest import Images
from affectdata.reading.sample import draw_image, save_image
from affectdata.recipe.recipe import ImageSpec
from affectdata.render.render import SAMPLES, RenderSamples, canaries, resize_to_spec
from tests.made import FLIP, make_recipe

SHAPES = [(1, 1), (1, 37), (37, 1), (2, 3), (120, 160), (160, 120), (64, 64), (31, 997), (997, 31)]


def noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("short", [8, 64, 125])
def test_the_short_side_is_exact_and_the_shape_is_kept(shape: tuple[int, int], short: int) -> None:
    out = resize_to_spec(noise(shape), ImageSpec(short_side_px=short))
    assert min(out.shape[:2]) == short
    longer = short * max(shape) / min(shape)
    assert abs(max(out.shape[:2]) - longer) <= 0.5
    assert (out.shape[0] >= out.shape[1]) == (shape[0] >= shape[1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [[125, 125], [64, 8], [9, 100]])
def test_a_size_is_exact(shape: tuple[int, int], way: Any, size: list[int]) -> None:
    out = resize_to_spec(noise(shape), ImageSpec(size_px=size, fit=way))
    assert out.shape == (size[1], size[0], 3)
    assert out.dtype == np.uint8
    assert out.flags["C_CONTIGUOUS"]


def test_a_crop_takes_the_middle() -> None:
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, 40:80] = 255
    np.testing.assert_array_equal(resize_to_spec(image, ImageSpec(size_px=[40, 40], fit="crop")), 255)


def test_a_pad_mirrors_the_image_and_adds_no_black() -> None:
    image = noise((40, 80))
    out = resize_to_spec(image, ImageSpec(size_px=[80, 80], fit="pad"))
    np.testing.assert_array_equal(out[20:60], image)
    np.testing.assert_array_equal(out[:20], image[20:0:-1])
    white = resize_to_spec(np.full((1, 30, 3), 255, np.uint8), ImageSpec(size_px=[60, 60], fit="pad"))
    assert white.min() == 255


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = noise((64, 80))
    np.testing.assert_array_equal(resize_to_spec(image, ImageSpec(short_side_px=64)), image)


@pytest.mark.parametrize("image", [{"short_side_px": 256}, {"size_px": [256, 256], "fit": "crop"}])
def test_an_image_too_elongated_for_the_format_is_refused(image: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="an image of 1000 × 2 px would become 128000 × 256") as caught:
        resize_to_spec(noise((2, 1000)), ImageSpec(**image))
    assert "where:" in caught.value.fix


# --- batches ---------------------------------------------------------------------------------------------


def rows_for(root: Path, names: list[str], pipelines: list[str]) -> pa.Table:
    rows = [
        {
            "sample_id": f"s{index}",
            "image_id": file_hash((root / name).read_bytes()),
            "source": "made",
            "path": name,
            "split": "train",
            "pipeline": pipeline,
            "seed": index,
        }
        for index, (name, pipeline) in enumerate(zip(names, pipelines, strict=True))
    ]
    return pa.Table.from_pylist(rows)


def rendered(root: Path, rows: pa.Table, **image: Any) -> dict[str, np.ndarray]:
    render = RenderSamples(Images({"made": root}), ImageSpec(**image), {"flip": FLIP})
    table = render(rows)
    assert table.schema == SAMPLES
    found = {}
    for row in table.to_pylist():
        opened = Image.open(io.BytesIO(row["data"]))
        assert opened.size == (row["out_width_px"], row["out_height_px"])
        found[row["sample_id"]] = np.asarray(opened)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, (width, height) in enumerate([(160, 120), (100, 300), (900, 700)]):
        rgb = draw_image(np.random.default_rng(number), 50, width, height)
        save_image(tmp_path / f"{number}.png", rgb, "PNG")
    return tmp_path


@pytest.mark.parametrize("image", [{"short_side_px": 64}, {"size_px": [50, 40], "fit": "stretch"}])
def test_originals_and_copies_take_the_same_path(root: Path, image: dict[str, Any]) -> None:
    """A copy by a pure mirror is the mirror of its original: same size, resize and encoder."""
    for name in ("0.png", "1.png", "2.png"):
        found = rendered(root, rows_for(root, [name, name], ["", "flip"]), format="png", **image)
        np.testing.assert_allclose(found["s1"].astype(int), found["s0"][:, ::-1].astype(int), atol=1)


def test_a_large_image_is_halved_before_augmentation(root: Path) -> None:
    found = rendered(root, rows_for(root, ["2.png"], [""]), short_side_px=64, format="png")
    rgb = np.asarray(Image.open(root / "2.png"))
    for _ in range(2):  # 700 → 350 → 175, at most four times 64
        rgb = resize(rgb, rgb.shape[1] // 2, rgb.shape[0] // 2)
    np.testing.assert_array_equal(found["s0"], resize_to_spec(rgb, ImageSpec(short_side_px=64)))


def test_a_row_does_not_depend_on_the_others_of_its_batch(root: Path) -> None:
    rows = rows_for(root, ["0.png", "1.png", "0.png", "0.png"], ["flip", "", "", "flip"])
    together = rendered(root, rows, short_side_px=32)
    for index in reversed(range(4)):
        np.testing.assert_array_equal(
            rendered(root, rows.slice(index, 1), short_side_px=32)[f"s{index}"], together[f"s{index}"]
        )


def test_no_rows_are_no_images(root: Path) -> None:
    assert rendered(root, rows_for(root, ["0.png"], [""]).slice(0, 0), short_side_px=32) == {}


def test_jpeg_keeps_colour_at_full_resolution(root: Path) -> None:
    render = RenderSamples(Images({"made": root}), ImageSpec(short_side_px=64), {})
    data = render(rows_for(root, ["0.png"], [""]))["data"][0].as_py()
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


def test_an_image_that_changed_is_an_integrity_error_that_names_it(root: Path) -> None:
    rows = rows_for(root, ["0.png"], [""])
    save_image(root / "0.png", draw_image(np.random.default_rng(9), 50), "PNG")
    with pytest.raises(IntegrityError, match=r"0\.png is not the file that was ingested"):
        rendered(root, rows, short_side_px=32)


def test_a_missing_image_error_lists_the_remedies(root: Path) -> None:
    rows = rows_for(root, ["0.png"], [""])
    (root / "0.png").unlink()
    with pytest.raises(ImagesNotFound) as caught:
        rendered(root, rows, short_side_px=32)
    for way in ("--root made=PATH", "AFFECTDATA_ROOTS=made=PATH", "ingest"):
        assert way in caught.value.fix


def test_an_image_that_is_too_long_is_named(root: Path) -> None:
    save_image(root / "thin.png", noise((2, 2000)), "PNG")
    with pytest.raises(InputError, match="2000 × 2 px") as caught:
        rendered(root, rows_for(root, ["thin.png"], [""]), short_side_px=256)
    assert caught.value.where == "made: thin.png"


def test_canaries_differ_by_pipeline_and_are_reproducible() -> None:
    recipe = make_recipe(pipelines={"flip": FLIP, "turn": [{"Affine": {"rotate": [5, 9], "p": 1.0}}]})
    found = canaries(recipe.pipelines)
    assert list(found) == ["", "flip", "turn"]
    assert len(set(found.values())) == 3
    assert canaries(recipe.pipelines) == found


def test_a_canary_shows_draws_that_one_seed_leaves_out() -> None:
    """A flip in half of the draws is not in the first one, but in some of eight."""
    often, never = (make_recipe(pipelines={"flip": [{"HorizontalFlip": {"p": p}}]}) for p in (0.5, 1e-9))
    same = [canaries(often.pipelines, n) == canaries(never.pipelines, n) for n in (1, 8)]
    assert same == [True, False]
