"""Pixels: decode untrusted bytes to upright sRGB, resize, encode.

Arrays are uint8, (height, width, 3), RGB. JPEG is decoded by libjpeg-turbo in strict mode, because most
decoders hide damage; everything else by Pillow.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from affectdata.errors import DecodeError
from affectdata.store.files import LFS_POINTER

MAX_PIXELS = 178_956_970  # the bound at which Pillow refuses too; 0.5 GB as RGB
MAX_SIDE = 1 << 20  # pixels
_WEIGHTS = {"JPEG2000": 2.5, "WEBP": 2.0}  # memory of a pixel while it is decoded, others: 8 bytes
_LARGE_PIXELS = 1 << 24  # of larger images, all threads together decode MAX_PIXELS at a time
# Every library whose version can change a decoded, resized or encoded pixel.
PIXEL_LIBRARIES = ("albucore", "albumentations", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
# No format that runs another program, as EPS does, or that only holds a preview, as camera raw does.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_UNREAD_FORMATS = {  # recognised only to be named in the reject
    "HEIF": re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "),
    "PostScript": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "Photoshop": re.compile(rb"8BPS"),
    "SVG": re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]{,200}>\s*)?<svg[\s>]"),
}
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)[\s>]", re.IGNORECASE)
_SRGB_NAMES = re.compile(rb"sRGB|s\x00R\x00G\x00B")  # profile descriptions are ASCII or UTF-16
_NUMBER = re.compile(r"\d+")
_HOLE = bytes(4096)  # a block of most file systems
_SCAN, _END = b"\xff\xda", b"\xff\xd9"  # markers of a JPEG
_PLAIN, _MAX_PLAIN = (b"P1", b"P2", b"P3"), 1 << 22  # PPM as text, and its pixels
_APP = 0xE0  # of a JPEG: markers of metadata
_MAX_METADATA = 32 << 20  # bytes
_MAX_SCANS = 100  # of a progressive JPEG, which usually has 10; each goes over the whole image …
_MAX_SCANNED = 1 << 32  # … so this is the limit of scans times pixels
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG, in compressed pixels
_BMP_HEAD = 14  # bytes before the header whose size is at byte 14
_SUBSAMPLING = "444"  # no chroma subsampling: colour carries affect

_TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image; `format` is the container, `warning` the decoder's message."""

    rgb: np.ndarray
    format: str
    warning: str | None = None


class _WarningCollector:
    """Collects Python warnings per thread.

    `warnings.catch_warnings` acts on the whole process: images decoded in parallel would get each other's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_thread: dict[int, list[str]] = {}
        self._catch = warnings.catch_warnings()
        self._original: Any = None

    @contextmanager
    def collect(self) -> Iterator[list[str]]:
        """Collect the warnings of this thread."""
        collected: list[str] = []
        with self._lock:
            if not self._by_thread:
                self._catch = warnings.catch_warnings()
                self._catch.__enter__()
                warnings.simplefilter("always")
                self._original, warnings.showwarning = warnings.showwarning, self._show
            self._by_thread[threading.get_ident()] = collected
        try:
            yield collected
        finally:
            with self._lock:
                del self._by_thread[threading.get_ident()]
                if not self._by_thread:
                    self._catch.__exit__(None, None, None)

    def _show(self, message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        collected = self._by_thread.get(threading.get_ident())
        if collected is None:
            self._original(message, category, *where, **more)
        elif category is not Image.DecompressionBombWarning:  # the limit is `max_pixels`
            collected.append(str(message))


_COLLECTOR = _WarningCollector()


_version = cache(version)  # searches the folder of every installed package


def pixel_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide pixels."""
    return {name: _version(name) for name in PIXEL_LIBRARIES}


class _PixelBudget:
    """Lets threads wait until the large images that others hold leave room for one more."""

    def __init__(self, n_pixels: int) -> None:
        self._n_free = self._n_all = n_pixels
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, n_pixels: int) -> Iterator[None]:
        """Hold `n_pixels` of the budget; small images hold nothing and never wait."""
        n_held = min(n_pixels, self._n_all) if n_pixels > _LARGE_PIXELS else 0
        if n_held:
            with self._changed:
                self._changed.wait_for(lambda: self._n_free >= n_held)
                self._n_free -= n_held
        try:
            yield
        finally:
            if n_held:
                with self._changed:
                    self._n_free += n_held
                    self._changed.notify_all()


_BUDGET = _PixelBudget(MAX_PIXELS)


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image as `decoded` does, for callers that hold one image at a time."""
    with decoded(data, max_pixels) as image:
        return image


@contextmanager
def decoded(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[DecodedImage]:
    """Decode an image, and let no other thread decode a large one until the block ends, if this is large.

    A thread must not decode a second image inside the block.

    Raises:
        DecodeError: as for `_decode`.
    """
    with _COLLECTOR.collect() as notes:
        image = _open(data, max_pixels)
    with _BUDGET.hold(int(image.width * image.height * _weight(image))):
        yield _decode(data, image, notes)


def _decode(data: bytes, image: Image.Image, notes: list[str]) -> DecodedImage:
    """Decode an opened image file to RGB.

    EXIF orientation is applied, alpha is put over white, CMYK and ICC profiles are converted to sRGB. Of
    several frames the first is used, with a warning; 16-bit samples are shifted right by 8.

    Raises:
        DecodeError: no decoder can read it, or it ends early.
    """
    with _COLLECTOR.collect() as more_notes:
        container = (image.format or "unknown").lower()
        if container == "mpo":  # a JPEG with more frames behind it
            container = "jpeg"
        try:
            rgb = _read_pixels(data, image, container, notes)
            turn = _orientation(image, notes)
            frames = getattr(image, "n_frames", 1)
            if container == "png":
                _verify_checksums(data, notes)
            if container == "jpeg":
                _look_for_hole(data, notes)
        except DecodeError:
            raise
        except (
            Exception
        ) as error:  # a decoder may raise anything on hostile bytes; only this image is rejected
            text = _first_line(error, "damaged")
            reason = "truncated" if "truncated" in text.lower() else "unreadable"
            raise DecodeError(reason, text) from error
    image.close()  # its pixels take more memory than `rgb`
    notes += more_notes
    if frames > 1:
        notes.append(f"{frames} frames; the first was taken")
    if turn in _TURNS:
        rgb = _TURNS[turn](rgb)
    return DecodedImage(np.ascontiguousarray(rgb), container, "; ".join(dict.fromkeys(notes)) or None)


def _read_pixels(data: bytes, image: Image.Image, container: str, notes: list[str]) -> np.ndarray:
    if container == "jpeg":
        _check_scans(data, image.width * image.height)
        if image.mode in ("L", "RGB"):
            return _to_srgb(_decode_jpeg(data, notes), image.info.get("icc_profile"), notes)
    elif container == "bmp":
        _check_bmp_offset(data)
        if (bmp := _read_bmp(image, data)) is not None:
            return bmp
    return _decode_other(image, notes)


def _check_metadata(data: bytes) -> None:
    """Refuse a JPEG with very much metadata before its pixels: Pillow copies all of it for every segment."""
    at, n_bytes = 2, 0
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != _SCAN:
        size = int.from_bytes(data[at + 2 : at + 4])
        n_bytes += size if int.from_bytes(data[at + 1 : at + 2]) & 0xF0 == _APP else 0
        at += 2 + size
        if n_bytes > _MAX_METADATA:
            detail = f"more than {_MAX_METADATA >> 20} MiB of metadata before the pixels"
            raise DecodeError("too_large", detail)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if data.startswith(b"\xff\xd8"):
        _check_metadata(data)
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:  # its own message contains a memory address
        unread = next((name for name, start in _UNREAD_FORMATS.items() if start.match(data)), None)
        if unread:
            detail = f"images in the format {unread} are not read: convert it to PNG or JPEG"
            raise DecodeError("unsupported_format", detail) from error
        raise DecodeError("unreadable", _describe_other(data)) from error
    except Image.DecompressionBombError as error:
        raise DecodeError(
            "too_large", _too_large(int("".join(_NUMBER.findall(str(error))[:1]) or 0), max_pixels)
        ) from error
    except Exception as error:
        raise DecodeError("unreadable", _first_line(error, "damaged")) from error
    if data.startswith(_PLAIN) and image.width * image.height > _MAX_PLAIN:  # a microsecond per number
        raise DecodeError("too_large", f"{_too_large(image.width * image.height, _MAX_PLAIN)} (PPM as text)")
    # As the container states, before anything is decoded. A code stream of another size is refused in JPEG
    # 2000; libavif scales that of an AVIF to the stated size, and refuses more than 2^28 pixels.
    limit = int(max_pixels / _weight(image))
    if image.width * image.height > limit:
        raise DecodeError("too_large", _too_large(image.width * image.height, limit))
    if max(image.size) > MAX_SIDE:  # a row of one pixel takes ten times its own memory
        detail = f"{max(image.size)} pixels on a side; the limit is {MAX_SIDE}"
        raise DecodeError("too_large", detail)
    return image


def _weight(image: Image.Image) -> float:
    return _WEIGHTS.get(image.format or "", 1.0)


def _describe_other(data: bytes) -> str:
    """Return what a file is that no decoder knows."""
    if data.startswith(LFS_POINTER):
        return "a pointer of Git LFS in place of the image: run `git lfs pull` in the repository"
    if _WEB_PAGE.match(data):
        return "a web page in place of the image: download the image again"
    return "not an image that any decoder can read"


def _too_large(n_pixels: int, max_pixels: int) -> str:
    return f"{n_pixels} pixels; the limit is {max_pixels}"


def _first_line(error: BaseException, default: str) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else default


def _decode_jpeg(data: bytes, notes: list[str]) -> np.ndarray:
    try:
        return np.asarray(simplejpeg.decode_jpeg(data))
    except ValueError as error:
        warning = _first_line(error, "damaged JPEG")
    if "premature end" in warning.lower():
        raise DecodeError("truncated", warning)
    # The strict decoder stops at its first warning. Pillow continues, and raises if the file ends early.
    notes.append(warning)
    image = Image.open(io.BytesIO(data))
    image.load()
    return _in_strips(*image.size, lambda top, bottom: _over_white(_rows_of(image, top, bottom)))


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:
        notes.append(f"EXIF unreadable, taken as upright: {_first_line(error, 'damaged')}")
        return 1


def _verify_checksums(data: bytes, notes: list[str]) -> None:
    try:
        Image.open(io.BytesIO(data)).verify()  # decoding does not check the checksums of the pixel chunks
    except Exception as error:
        notes.append(_first_line(error, "broken PNG file"))


def _look_for_hole(data: bytes, notes: list[str]) -> None:
    """Note a block of zeros in the compressed pixels of a JPEG, as a damaged disk leaves it.

    With some Huffman tables, zeros are a valid code of uniform blocks: no decoder reports them, and in an
    image with a large uniform area they may be intact.
    """
    hole = data.find(_HOLE, _scan_start(data))
    if 0 <= hole < data.rfind(_END):
        notes.append(f"{len(_HOLE)} bytes of zeros from byte {hole}: a hole, or a large uniform area")


def _check_scans(data: bytes, n_pixels: int) -> None:
    """Refuse a JPEG whose few bytes would be decoded for minutes, in hundreds of scans.

    What looks like the marker of a scan inside metadata, or in further frames behind the image, is none.
    """
    limit = min(_MAX_SCANS, _MAX_SCANNED // n_pixels)
    if data.count(_SCAN) <= limit:
        return
    n_scans, position = 0, _scan_start(data)
    while data[position : position + 2] != _END and (marker := _MARKER.search(data, position)):
        n_scans += marker[0] == _SCAN
        position = marker.start()
        if marker[0] != _END:
            position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    if n_scans > limit:
        detail = f"{n_scans} scans; the limit is {limit}: save it as a JPEG that is not progressive"
        raise DecodeError("too_large", detail)


def _scan_start(data: bytes) -> int:
    """Return where the compressed pixels of a JPEG start, behind the segments with metadata."""
    position = 2
    while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
        position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    return position


def _check_bmp_offset(data: bytes) -> None:
    """Refuse a BMP whose pixels start inside its header, which would be read as pixels."""
    offset, header = (int.from_bytes(data[at : at + 4], "little") for at in (10, 14))
    if offset < _BMP_HEAD + header:
        raise DecodeError("unreadable", f"its pixels start at byte {offset}, inside its header")


def _read_bmp(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Read the pixels of a complete 24-bit BMP at the offset that Pillow parsed; None for any other BMP.

    Pillow would unpack and copy them three times; raw pixels have no checksum to verify.
    """
    codec, _, start, layout = cast(ImageFile.ImageFile, image).tile[0]
    if codec != "raw" or not isinstance(layout, tuple) or layout[0] != "BGR":
        return None
    _, row_bytes, direction = layout
    if len(data) < start + row_bytes * image.height:
        return None
    rows = np.frombuffer(data, np.uint8, row_bytes * image.height, start).reshape(image.height, row_bytes)
    bgr = rows[::direction, : 3 * image.width].reshape(image.height, image.width, 3)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _decode_other(image: Image.Image, notes: list[str]) -> np.ndarray:
    image.load()
    profile = image.info.get("icc_profile")

    def read(top: int, bottom: int) -> np.ndarray:
        strip = _rows_of(image, top, bottom)
        if image.mode.startswith(("I", "F")):
            return _wide_grey(strip)
        if image.mode == "CMYK" and profile:
            return _from_profile(strip, profile, notes)
        return _to_srgb(_over_white(strip), profile, notes)

    return _in_strips(*image.size, read)


def _in_strips(width: int, height: int, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Return the pixels that `read` returns for ranges of rows: of a large image, few are in memory twice."""
    n_rows = max(1, _LARGE_PIXELS // width)
    if height <= n_rows:
        return read(0, height)
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, n_rows):
        bottom = min(top + n_rows, height)
        rgb[top:bottom] = read(top, bottom)
    return rgb


def _rows_of(image: Image.Image, top: int, bottom: int) -> Image.Image:
    return image if bottom - top == image.height else image.crop((0, top, image.width, bottom))


def _over_white(image: Image.Image) -> np.ndarray:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _wide_grey(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("integer pixels outside 0–65535")
    return np.repeat((values.astype(np.uint32) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)


def _to_srgb(rgb: np.ndarray, profile: bytes | None, notes: list[str]) -> np.ndarray:
    if not profile or _SRGB_NAMES.search(profile):
        return rgb
    is_grey = profile[16:20] == b"GRAY"  # the colour space in an ICC header

    def read(top: int, bottom: int) -> np.ndarray:
        strip = rgb[top:bottom, :, 0] if is_grey else rgb[top:bottom]
        return _from_profile(Image.fromarray(strip), profile, notes)

    return _in_strips(rgb.shape[1], rgb.shape[0], read)


def _from_profile(image: Image.Image, profile: bytes, notes: list[str]) -> np.ndarray:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        notes.append(f"colour profile not applied: {_first_line(error, 'unreadable')}")
        return np.asarray(image.convert("RGB"))
    return np.asarray(converted)


def resize(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize in one step: area interpolation to shrink, bilinear to enlarge."""
    if (rgb.shape[1], rgb.shape[0]) == (width, height):
        return rgb
    shrinks = width <= rgb.shape[1] and height <= rgb.shape[0]
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def encode(rgb: np.ndarray, container: str, quality: int) -> bytes:
    """Encode RGB pixels as `jpeg` (4:4:4, `quality` 1–100) or `png` (`quality` is not used)."""
    if container == "jpeg":
        return bytes(
            simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, colorsubsampling=_SUBSAMPLING)
        )
    done, buffer = cv2.imencode(
        ".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 6]
    )
    if not done:
        raise ValueError("OpenCV could not encode the image as PNG")
    return buffer.tobytes()
