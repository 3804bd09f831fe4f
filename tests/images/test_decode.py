"""Decoding untrusted bytes: damage is never silent, every mode becomes upright sRGB."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from affectdata.errors import DecodeError
from affectdata.images import decode as imaging
from affectdata.images.decode import PIXEL_LIBRARIES, decode, encode, pixel_versions, resize
from affectdata.reading.sample import draw_image

AsBytes = Callable[..., bytes]


def refused(data: bytes, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(data, **options)
    return caught.value


@pytest.fixture(scope="module")
def jpeg(image: np.ndarray, as_bytes: AsBytes) -> bytes:
    return as_bytes(image, "JPEG", quality=90)


def with_stray_bytes(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xdb")
    return jpeg[:start] + b"\x11\x22" + jpeg[start:]


def gradient(width: int = 24, height: int = 16) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 10, rows * 15, (columns + rows) * 5], axis=2).astype(np.uint8)


# --- damage


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_jpeg_is_truncated(
    image: np.ndarray, as_bytes: AsBytes, share: float, progressive: bool
) -> None:
    data = as_bytes(image, "JPEG", quality=90, progressive=progressive)
    error = refused(data[: int(len(data) * share)])
    assert error.reason == "truncated" and "end" in error.what


def test_a_jpeg_cut_after_a_harmless_warning_is_still_truncated(jpeg: bytes) -> None:
    stray = with_stray_bytes(jpeg)
    assert refused(stray[: len(stray) // 2]).reason == "truncated"


@pytest.mark.parametrize("seed", range(12))
def test_a_4_kib_hole_of_zeros_in_a_jpeg_is_never_silent(seed: int, as_bytes: AsBytes) -> None:  # trap 5
    rng = np.random.default_rng(seed)
    data = as_bytes(draw_image(rng, 60.0, 640, 480), "JPEG", quality=90, progressive=seed % 3 == 0)
    start = int(rng.integers(len(data) // 4, len(data) - 5000))
    holed = data[:start] + bytes(4096) + data[start + 4096 :]
    try:
        assert decode(holed).warning
    except DecodeError as error:
        assert error.reason == "truncated"


def test_stray_bytes_between_header_markers_are_a_warning_and_no_reject(
    jpeg: bytes, image: np.ndarray
) -> None:  # trap 5
    decoded = decode(with_stray_bytes(jpeg))
    assert "extraneous bytes" in (decoded.warning or "")
    assert np.array_equal(decoded.rgb, decode(jpeg).rgb)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "unreadable"),
        (b"this is text, whatever its name suggests\n" * 40, "unreadable"),
        (b"\xff\xd8\xff", "unreadable"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "unsupported_format"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(200), "unreadable"),
    ],
    ids=[
        *("empty", "text", "three bytes", "EPS, which Pillow would hand to Ghostscript", "HEIC", "SVG"),
        "AVIF without an image",
    ],
)
def test_anything_but_an_image_is_unreadable(data: bytes, reason: str) -> None:
    error = refused(data)
    assert error.reason == reason
    assert error.what and not re.search("0x[0-9a-f]{6,}", error.what)  # an address differs from run to run


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    ],
)
def test_what_is_in_place_of_an_image_is_named(data: bytes, what: str) -> None:
    error = refused(data)
    assert error.reason == "unreadable" and what in error.what


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("container", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "AVIF", "JPEG2000"])
def test_a_cut_file_of_any_container_is_rejected(
    container: str, share: float, image: np.ndarray, as_bytes: AsBytes
) -> None:
    data = as_bytes(image, container)
    assert refused(data[: int(share * len(data))]).reason in ("truncated", "unreadable")


def test_a_png_whose_checksums_do_not_match_is_not_silent(image: np.ndarray, as_bytes: AsBytes) -> None:
    data = bytearray(as_bytes(image, "PNG"))
    data[-14] ^= 0x04  # in the checksum of the pixels, which Pillow's decoder does not look at
    assert "broken PNG" in (decode(bytes(data)).warning or "")


CONTAINERS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000")


@pytest.mark.slow
@settings(max_examples=400)
@given(
    st.sampled_from(CONTAINERS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0, 1),
    st.booleans(),
)
def test_whatever_the_bytes_only_a_decode_error_is_raised(
    container: str, changes: list[tuple[float, int]], keep: float, cut: bool
) -> None:
    buffer = io.BytesIO()
    frame = Image.fromarray(gradient())
    more = {"save_all": True, "append_images": [frame.rotate(180)]} if container in ("GIF", "TIFF") else {}
    frame.save(buffer, container, **more)
    data = bytearray(buffer.getvalue())
    for place, value in changes:
        data[int(place * len(data))] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            decoded = decode(bytes(data[: int(keep * len(data))] if cut else data), max_pixels=10_000)
        except DecodeError as error:
            assert error.reason in ("truncated", "unreadable", "too_large") and error.what
        else:
            assert decoded.rgb.dtype == np.uint8 and decoded.rgb.shape[2] == 3


# --- the limit


def claimed_png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 1)])
def test_an_image_of_very_many_rows_is_too_large(size: tuple[int, int]) -> None:
    error = refused(claimed_png(*size))
    assert error.reason == "too_large" and "2000000 pixels on a side" in error.what


def test_more_pixels_than_the_limit_are_too_large(image: np.ndarray, as_bytes: AsBytes) -> None:
    data = as_bytes(image, "PNG")
    n_pixels = image.shape[0] * image.shape[1]
    assert decode(data, max_pixels=n_pixels).warning is None
    error = refused(data, max_pixels=n_pixels - 1)
    assert error.reason == "too_large" and "19200 pixels" in error.what


@pytest.mark.parametrize("side", [10_000, 14_000, 60_000])
def test_a_bomb_is_a_reject_and_no_warning(side: int) -> None:  # 10,000² warns in Pillow, 14,000² raises
    error = refused(claimed_png(side, side))
    assert error.reason == ("too_large" if side > 13_400 else "truncated")
    assert refused(claimed_png(side, side), max_pixels=1_000_000).reason == "too_large"


@pytest.mark.parametrize(("container", "limit"), [("AVIF", 119_999), ("JPEG2000", 47_999)])
def test_the_limit_holds_before_pixels_are_decoded(
    container: str, limit: int, as_bytes: AsBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = as_bytes(np.zeros((300, 400, 3), np.uint8), container)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert refused(data, max_pixels=119_999).what == f"120000 pixels; the limit is {limit}"


def test_a_jpeg_2000_with_more_pixels_than_its_header_states_is_unreadable(as_bytes: AsBytes) -> None:
    data = bytearray(as_bytes(np.zeros((300, 400, 3), np.uint8), "JPEG2000"))
    size = data.index(b"ihdr") + 4
    assert struct.unpack_from(">II", data, size) == (300, 400)
    struct.pack_into(">II", data, size, 10, 10)
    assert refused(bytes(data), max_pixels=1000).reason == "unreadable"


def test_an_avif_is_never_larger_than_its_header_states(as_bytes: AsBytes) -> None:
    data = bytearray(as_bytes(np.zeros((300, 400, 3), np.uint8), "AVIF"))
    size = data.index(b"ispe") + 8
    assert struct.unpack_from(">II", data, size) == (400, 300)
    struct.pack_into(">II", data, size, 10, 10)
    assert decode(bytes(data), max_pixels=1000).rgb.shape == (10, 10, 3)


def test_avif_and_jpeg_2000_are_close_to_the_original(image: np.ndarray, as_bytes: AsBytes) -> None:
    assert np.array_equal(decode(as_bytes(image, "JPEG2000")).rgb, image)
    lossy = decode(as_bytes(image, "AVIF", quality=95)).rgb
    assert np.abs(lossy.astype(int) - image).mean() < 4


# --- modes


def test_the_format_is_the_container_of_the_file(image: np.ndarray, as_bytes: AsBytes) -> None:
    for container in CONTAINERS:
        assert decode(as_bytes(image, container)).format == container.lower()


@pytest.mark.parametrize("container", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_containers_keep_the_pixels(container: str, image: np.ndarray, as_bytes: AsBytes) -> None:
    decoded = decode(as_bytes(image, container))
    assert np.array_equal(decoded.rgb, image) and decoded.warning is None


@pytest.mark.parametrize("width", [1, 2, 3, 64])  # rows are filled up to four bytes
@pytest.mark.parametrize("bottom_up", [True, False])
def test_pixels_of_a_24_bit_bmp_are_pillows(width: int, bottom_up: bool, as_bytes: AsBytes) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (5, width, 3)).astype(np.uint8)
    data = bytearray(as_bytes(pixels, "BMP"))
    if not bottom_up:
        data[22:26] = struct.pack("<i", -5)  # the height in a BITMAPINFOHEADER
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(expected, pixels if bottom_up else pixels[::-1])
    assert np.array_equal(decode(bytes(data)).rgb, expected)
    assert imaging._read_bmp(Image.open(io.BytesIO(data)), bytes(data)) is not None
    with pytest.raises(DecodeError, match="truncated"):
        decode(bytes(data[:-8]))


def test_an_8_bit_palette_bmp_as_in_gaped(image: np.ndarray, as_bytes: AsBytes) -> None:
    few = Image.fromarray(image).quantize(256)
    decoded = decode(as_bytes(few, "BMP"))
    assert (decoded.format, decoded.warning) == ("bmp", None)
    assert np.array_equal(decoded.rgb, np.asarray(few.convert("RGB")))


def test_grey_images_have_three_equal_channels(image: np.ndarray, as_bytes: AsBytes) -> None:
    grey = Image.fromarray(image).convert("L")
    for container in ("PNG", "JPEG", "BMP"):
        rgb = decode(as_bytes(grey, container)).rgb
        assert (rgb == rgb[:, :, :1]).all() and np.abs(rgb[:, :, 0].astype(int) - grey).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode: str, as_bytes: AsBytes) -> None:
    image = Image.new("RGB", (3, 1), (200, 0, 0)).convert(mode)
    image.putalpha(Image.fromarray(np.array([[255, 128, 0]], np.uint8)))
    opaque, half, clear = decode(as_bytes(image, "PNG")).rgb[0].astype(int)
    ground = np.array(Image.new("RGB", (1, 1), (200, 0, 0)).convert(mode).convert("RGB").getpixel((0, 0)))
    assert opaque.tolist() == ground.tolist() and clear.tolist() == [255, 255, 255]
    assert np.abs(half - (ground * 128 + 255 * 127) / 255).max() <= 1


def test_a_transparent_palette_colour_is_white(as_bytes: AsBytes) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    data = as_bytes(image, "PNG", transparency=bytes([0, 255]))
    assert decode(data).rgb.tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("container", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_shifted_by_8(container: str, as_bytes: AsBytes) -> None:
    values = np.array([[0, 255, 256, 32_768, 65_535]], np.uint16)
    rgb = decode(as_bytes(Image.fromarray(values), container)).rgb
    assert rgb[0, :, 0].tolist() == [0, 0, 1, 128, 255] and (rgb == rgb[:, :, :1]).all()


def test_16_bit_colour_is_shifted_by_8() -> None:
    values = np.array([[[0, 256, 65_535], [511, 512, 40_000]]], np.uint16)  # blue first, as OpenCV writes
    data = cv2.imencode(".png", values)[1].tobytes()
    assert decode(data).rgb.tolist() == [[[255, 1, 0], [156, 2, 1]]]


def test_floating_point_pixels_are_refused(as_bytes: AsBytes) -> None:
    error = refused(as_bytes(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))
    assert error.reason == "unreadable" and "floating-point" in error.what


@pytest.mark.parametrize("container", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(container: str, as_bytes: AsBytes) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # full magenta and yellow: red
    red, green, blue = decode(as_bytes(image, container)).rgb[8, 8].astype(int)
    assert red > 200 and green < 60 and blue < 60


TURNS = [1, 2, 3, 4, 5, 6, 7, 8]


def exif(turn: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = turn
    return tags.tobytes()


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_all_eight_exif_orientations(container: str, turn: int, image: np.ndarray, as_bytes: AsBytes) -> None:
    data = as_bytes(image, container, exif=exif(turn))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    decoded = decode(data)
    assert decoded.rgb.shape == expected.shape and decoded.warning is None
    assert np.abs(decoded.rgb.astype(int) - expected).max() <= 2  # Pillow's libjpeg and ours round alike


@pytest.mark.parametrize("mode", ["L", "CMYK", "CMYK with a profile", "I;16"])
def test_the_orientation_is_applied_in_every_mode(mode: str, as_bytes: AsBytes) -> None:
    options: dict[str, Any] = {"exif": exif(6)}
    if mode == "CMYK with a profile":
        options["icc_profile"] = b"no profile at all"
    image = (
        Image.fromarray(np.full((8, 24), 3000, np.uint16))
        if mode == "I;16"
        else Image.new(mode.split()[0], (24, 8))
    )
    data = as_bytes(image, "PNG" if mode == "I;16" else "JPEG", **options)
    assert decode(data).rgb.shape == (24, 8, 3)


def test_a_damaged_exif_block_is_a_warning(image: np.ndarray, as_bytes: AsBytes) -> None:
    broken = exif(6)[:12] + b"\xff" * 10
    for container in ("JPEG", "PNG"):
        decoded = decode(as_bytes(image, container, exif=broken))
        assert decoded.rgb.shape == image.shape
        assert decoded.warning


def wide_gamut() -> bytes:
    """A profile with the primaries of Adobe RGB: matrix, gamma 2.2, made from sRGB's own."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    n_tags = struct.unpack(">I", profile[128:132])[0]
    primaries = {  # XYZ of Adobe RGB (1998), D50
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    for start in range(132, 132 + 12 * n_tags, 12):
        name, offset, _ = struct.unpack(">4sII", profile[start : start + 12])
        if name in primaries:
            fixed = [round(value * 65536) for value in primaries[name]]
            profile[offset + 8 : offset + 20] = struct.pack(">3i", *fixed)
    described = bytes(profile)
    for name in (b"sRGB", "sRGB".encode("utf-16-be")):
        described = described.replace(name, b"x" * len(name))
    return described


@pytest.mark.parametrize("container", ["PNG", "JPEG"])
def test_a_wide_gamut_profile_is_converted(container: str, as_bytes: AsBytes) -> None:
    green = np.full((16, 16, 3), (60, 180, 60), np.uint8)
    plain = decode(as_bytes(green, container)).rgb.astype(int)
    decoded = decode(as_bytes(green, container, icc_profile=wide_gamut()))
    assert decoded.warning is None
    shift = decoded.rgb[8, 8] - plain[8, 8]
    assert shift[0] < -20 and abs(shift[1]) < 20  # the same numbers are a stronger green in Adobe RGB


def test_an_srgb_profile_changes_nothing(image: np.ndarray, as_bytes: AsBytes) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(as_bytes(image, "PNG", icc_profile=profile)).rgb, image)


def test_a_profile_that_cannot_be_applied_is_a_warning(image: np.ndarray, as_bytes: AsBytes) -> None:
    decoded = decode(as_bytes(image, "PNG", icc_profile=b"no profile at all"))
    assert "colour profile not applied" in (decoded.warning or "")
    assert np.array_equal(decoded.rgb, image)


@pytest.mark.parametrize("container", ["GIF", "PNG", "TIFF", "WEBP", "MPO"])
def test_the_first_of_several_frames_is_used_with_a_warning(
    container: str, image: np.ndarray, as_bytes: AsBytes
) -> None:
    frames = {"save_all": True, "append_images": [Image.fromarray(image[::-1].copy())]}
    decoded = decode(as_bytes(image, container, **frames))
    assert decoded.warning == "2 frames; the first was taken"
    assert np.abs(decoded.rgb.astype(int) - image).mean() < 12
    assert decoded.format == ("jpeg" if container == "MPO" else container.lower())


# --- warnings belong to their image


def test_warnings_stay_with_their_image_when_many_are_decoded_at_once(
    image: np.ndarray, as_bytes: AsBytes
) -> None:
    clean = as_bytes(image, "PNG")
    warned = as_bytes(image, "TIFF", tiffinfo={270: "x"})
    tag = warned.index(struct.pack("<HHI", 270, 2, 2))
    warned = warned[: tag + 4] + struct.pack("<I", 1 << 20) + warned[tag + 8 :]  # a tag longer than the file
    alone = decode(warned).warning
    assert alone and decode(clean).warning is None
    before = (warnings.showwarning, list(warnings.filters))
    gate = threading.Barrier(4)

    def work(thread: int) -> list[str | None]:
        gate.wait()
        return [decode(warned if (thread + turn) % 2 else clean).warning for turn in range(60)]

    with ThreadPoolExecutor(4) as pool:
        for thread, collected in enumerate(pool.map(work, range(4))):
            assert collected == [alone if (thread + turn) % 2 else None for turn in range(60)]
    assert (warnings.showwarning, list(warnings.filters)) == before


# --- encode and resize


def test_jpeg_has_full_chroma_and_is_the_same_every_time(image: np.ndarray) -> None:
    data = encode(image, "jpeg", 95)
    assert data == encode(image.copy(), "jpeg", 95)
    assert Image.open(io.BytesIO(data)).layer[0][1:3] == (1, 1)  # 4:4:4: no channel is sampled down
    assert np.abs(decode(data).rgb.astype(int) - image).mean() < 3.5
    assert np.array_equal(decode(data).rgb, decode(data).rgb)


def test_png_keeps_the_pixels(image: np.ndarray) -> None:
    assert np.array_equal(decode(encode(image, "png", 95)).rgb, image)


def test_encoding_takes_any_memory_layout(image: np.ndarray) -> None:
    for container in ("jpeg", "png"):
        assert encode(image[:, ::-1], container, 90) == encode(image[:, ::-1].copy(), container, 90)


def test_resize(image: np.ndarray) -> None:
    assert resize(image, 160, 120) is image
    assert resize(image, 80, 60).shape == (60, 80, 3)
    halved = image.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize(image, 80, 60) - halved).max() <= 0.75  # by area: the mean of four pixels
    flat = np.full((10, 10, 3), 77, np.uint8)
    assert (resize(flat, 31, 17) == 77).all()
    mixed = resize(image, 200, 60)  # wider and lower: linear, no hole
    assert mixed.shape == (60, 200, 3)


def test_every_library_that_decides_pixels_has_a_version() -> None:
    versions = pixel_versions()
    assert set(versions) == set(PIXEL_LIBRARIES) and all(versions.values())


def test_generated_images_are_what_the_samples_promise() -> None:
    dark, light = (
        np.mean([draw_image(np.random.default_rng(seed), valence) for seed in range(8)])
        for valence in (10, 90)
    )
    assert light > dark + 30


def test_pillows_limit_and_ours_are_one_with_one_message() -> None:
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 13_400, 13_400, 1, 24, 0, 0, 0, 0, 0, 0)
    much = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    for data, n_pixels in ((head, 13_400**2), (much, 40_000**2)):
        error = refused(data)
        assert error.what == f"{n_pixels} pixels; the limit is {imaging.MAX_PIXELS}"
        assert error.reason == "too_large"
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) == imaging.MAX_PIXELS


@pytest.mark.parametrize("offset", [0, 14, 53])
@pytest.mark.parametrize("bits", [8, 24, 32])
def test_a_bmp_whose_pixels_start_inside_its_header_is_unreadable(
    image: np.ndarray, as_bytes: AsBytes, offset: int, bits: int
) -> None:
    mode = {8: "L", 24: "RGB", 32: "RGBA"}[bits]
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    assert decode(bytes(data)).warning is None
    data[10:14] = offset.to_bytes(4, "little")
    assert refused(bytes(data)).reason == "unreadable"


def test_a_block_of_zeros_in_a_jpeg_is_an_error_or_a_warning() -> None:
    rng = np.random.default_rng(3)
    noise = cv2.resize(rng.integers(0, 255, (60, 80, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95, optimize=True)
    data = buffer.getvalue()
    assert decode(data).warning is None
    start = data.index(b"\xff\xda") + 14
    for _ in range(60):
        at = int(rng.integers(start, len(data) - 5000))
        damaged = data[:at] + bytes(4096) + data[at + 4096 :]
        try:
            warning = decode(damaged).warning
        except DecodeError:
            continue
        assert warning is not None


def test_zeros_in_metadata_or_behind_the_end_of_a_jpeg_are_no_hole(jpeg: bytes) -> None:
    segment = b"\xff\xef" + (20_002).to_bytes(2, "big") + bytes(20_000)
    assert decode(jpeg[:2] + segment + jpeg[2:] + bytes(9000)).warning is None


def test_threads_do_not_hold_more_large_images_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget, held, most = imaging._PixelBudget(100), [], [0]
    monkeypatch.setattr(imaging, "_LARGE_PIXELS", 10)

    def hold(n_pixels: int) -> None:
        with budget.hold(n_pixels):
            held.append(n_pixels)
            most[0] = max(most[0], sum(held))
            threading.Event().wait(0.001)
            held.remove(n_pixels)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, [60, 40, 30, 100, 90, 20, 500, 50] * 5))
    assert 0 < most[0] <= 500 and budget._n_free == 100
    assert not held


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "1", "I;16", "CMYK"])
def test_a_large_image_is_read_in_strips_with_the_same_pixels(
    mode: str, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Image.fromarray(image)
    if mode == "I;16":
        opened = Image.fromarray(np.arange(70 * 90, dtype=np.uint16).reshape(70, 90) * 9)
    elif "A" in mode:
        opened.putalpha(Image.fromarray(image[..., 0]))
    buffer = io.BytesIO()
    opened.convert(mode).save(buffer, "TIFF" if mode == "CMYK" else "PNG", icc_profile=wide_gamut())
    whole = decode(buffer.getvalue())
    monkeypatch.setattr(imaging, "_LARGE_PIXELS", 500)
    in_strips = decode(buffer.getvalue())
    assert np.array_equal(in_strips.rgb, whole.rgb) and in_strips.warning == whole.warning


def test_a_large_ppm_as_text_is_too_large() -> None:
    assert decode(b"P3 2 1 255\n1 2 3 4 5 6").rgb.tolist() == [[[1, 2, 3], [4, 5, 6]]]
    error = refused(b"P3 4000 4000 255\n" + b"1 " * 9)
    assert error.reason == "too_large" and "PPM as text" in error.what


def test_a_jpeg_with_very_much_metadata_is_too_large(image: np.ndarray, as_bytes: AsBytes) -> None:
    data = as_bytes(image, "JPEG")
    segment = b"\xff\xe1\xff\xff" + b"Exif\0\0".ljust(65_533, b"\xff")
    assert decode(data[:2] + 3 * segment + data[2:]).format == "jpeg"
    error = refused(data[:2] + 600 * segment + data[2:])
    assert error.reason == "too_large" and "32 MiB of metadata" in error.what


@pytest.mark.parametrize(("form", "is_large"), [("PNG", False), ("JPEG2000", True), ("WEBP", True)])
def test_formats_that_take_more_memory_have_a_lower_limit(
    form: str, is_large: bool, image: np.ndarray, as_bytes: AsBytes
) -> None:
    data, limit = as_bytes(image, form), int(1.9 * image.shape[0] * image.shape[1])
    if is_large:
        assert refused(data, max_pixels=limit).reason == "too_large"
    else:
        assert decode(data, limit).format == form.lower()
    assert decode(data, 2 * limit).format == form.lower()


def test_a_progressive_jpeg_of_very_many_scans_is_too_large(image: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    decode(data[:-2] + 80 * scan + data[-2:])
    error = refused(data[:-2] + 300 * scan + data[-2:])
    assert error.reason == "too_large" and "scans; the limit is 100" in error.what
    segment = b"\xff\xef" + (602).to_bytes(2, "big") + 300 * b"\xff\xda"  # of metadata, not of the image
    assert decode(data[:2] + segment + data[2:] + 300 * scan).warning is None
