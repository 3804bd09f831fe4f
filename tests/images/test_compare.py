"""Hashes other than the pHash, on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from affectdata.images.compare import KINDS, compare_images
from affectdata.images.decode import decode
from affectdata.reading.sample import draw_image


@pytest.mark.slow
def test_a_mirrored_image_is_a_look_alike_by_its_phash_alone(
    image: np.ndarray, as_bytes: Callable[..., bytes]
) -> None:
    first, second = as_bytes(image, "PNG"), as_bytes(np.ascontiguousarray(image[:, ::-1]), "PNG")
    phash, *others = compare_images(first, second)
    assert (phash.apart, phash.meaning) == (0, "look-alikes; nearest view: flip_h")
    assert [each.kind for each in others] == list(KINDS)
    by_kind = {each.kind: each for each in others}
    pictures = [Image.fromarray(decode(data).rgb) for data in (first, second)]
    assert by_kind["difference"].apart == imagehash.dhash(pictures[0]) - imagehash.dhash(pictures[1])
    assert by_kind["difference"].apart > 10 and by_kind["colour"].apart == 0
    assert compare_images(first, first)[0].meaning.startswith("equal pixels")


@pytest.mark.slow
def test_a_crop_is_found_by_the_crop_resistant_hash(as_bytes: Callable[..., bytes]) -> None:
    whole = draw_image(np.random.default_rng(3), 50, 480, 360)
    crop = np.ascontiguousarray(whole[40:330, 30:440])
    other = draw_image(np.random.default_rng(4), 50, 480, 360)
    files = [as_bytes(pixels, "PNG") for pixels in (whole, crop, other)]
    found, not_found = (compare_images(files[0], files[n], ["crop_resistant"])[1] for n in (1, 2))
    assert found.apart < found.of and not_found.apart > found.apart


def test_the_command(
    cli: Callable[..., Any], image: np.ndarray, as_bytes: Callable[..., bytes], tmp_path: Path
) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(as_bytes(image, "PNG"))
    ran = cli("compare", tmp_path / "a.png", tmp_path / "b.png", "--hash", "wavelet", "--json")
    assert [(each["kind"], each["apart"]) for each in ran.document["hashes"]] == [
        ("phash", 0),
        ("wavelet", 0),
    ]
    ran = cli("compare", tmp_path / "a.png", tmp_path / "b.png", "--hash", "crop")
    assert ran.code == 2 and "no hash is called 'crop'" in ran.err
    (tmp_path / "b.png").write_bytes(b"no image")
    assert cli("compare", tmp_path / "a.png", tmp_path / "b.png").code == 3
    assert cli("compare", tmp_path / "a.png", tmp_path / "none.png").code == 3
