"""Images that are files, and images that are rows of a table."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from affectdata.errors import DecodeError, ImagesNotFound, IntegrityError
from affectdata.hashing import file_hash
from affectdata.images import packed
from affectdata.images.decode import decode
from affectdata.images.read import file_of, read_image
from affectdata.manifest.manifest import Images

ROWS = ["emotion,pixels,Usage", '0,"0 1 2 255",Training', "6,9 9 9 9,Training"]


def _table(folder: Path, *more: str) -> Path:
    (folder / "fer.csv").write_text("\n".join([*ROWS, *more]), newline="\n")
    return folder


def test_a_row_is_a_grey_image(tmp_path: Path) -> None:
    data = read_image(_table(tmp_path), "fer.csv#0")
    assert data == b"P5\n2 2\n255\n\x00\x01\x02\xff"
    rgb = decode(data).rgb
    assert np.array_equal(rgb[..., 0], [[0, 1], [2, 255]]) and np.array_equal(rgb[..., 0], rgb[..., 2])
    assert read_image(tmp_path, "fer.csv#1").endswith(b"\x09" * 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,1 2 3,x", "3 grey values do not make a square"),
        ("0,1 2 3 256,x", "not a list of grey values of 0–255"),
        ("0,1 2 -3 4,x", "not a list of grey values of 0–255"),
        ("0,1 2 three 4,x", "not a list of grey values of 0–255"),
        ("0,,x", "0 grey values"),
        ("0", "not a list of grey values of 0–255"),
        ('0,"' + "1 " * 200_000 + '",x', "not a list of grey values of 0–255"),
    ],
)
def test_rows_that_contain_no_image(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=message):
        read_image(_table(tmp_path, line), "fer.csv#2")


@pytest.mark.parametrize("path", ["fer.csv#2", "fer.csv#999999999"])
def test_a_missing_row(path: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="has no row"):
        read_image(_table(tmp_path), path)


def test_a_changed_table_is_read_again(tmp_path: Path) -> None:
    first = read_image(_table(tmp_path), "fer.csv#1")
    (tmp_path / "fer.csv").write_text("\n".join([ROWS[0], "a longer row,1,x", "0,7,x"]))
    os.utime(tmp_path / "fer.csv", ns=(1, 1))
    assert read_image(tmp_path, "fer.csv#1") == b"P5\n1 1\n255\n\x07" != first


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a.csv#1.jpg").write_bytes(b"12345")
    assert (file_of("a.csv#1.jpg"), file_of("a/b.CSV#1")) == ("a.csv#1.jpg", "a/b.CSV")
    assert read_image(tmp_path, "a.csv#1.jpg", 5) == b"12345"
    with pytest.raises(DecodeError, match="larger than"):
        read_image(tmp_path, "a.csv#1.jpg", 4)


def test_images_check_a_row_as_they_check_a_file(tmp_path: Path) -> None:
    images = Images({"ferplus": _table(tmp_path)})
    expected = file_hash(read_image(tmp_path, "fer.csv#0"))
    assert file_hash(images.read("ferplus", "fer.csv#0", expected)) == expected
    with pytest.raises(IntegrityError, match="is not the file that was ingested"):
        images.read("ferplus", "fer.csv#1", expected)
    with pytest.raises(IntegrityError, match="is outside"):
        images.read("ferplus", "../fer.csv#1", expected)
    (tmp_path / "fer.csv").unlink()
    with pytest.raises(ImagesNotFound):
        images.read("ferplus", "fer.csv#0", expected)


def test_rows_of_parquet_and_files_of_a_tar(tmp_path: Path) -> None:
    images: list[Any] = [{"bytes": b"a"}, {"bytes": None}, None, {"bytes": b"d"}]
    pq.write_table(pa.table({"x": [0, 1, 2, 3], "img": images}), tmp_path / "a.parquet", row_group_size=3)
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("folder", None), ("1.jpg", b"1" * 600), ("ü" * 99 + ".jpg", b"2")):
            member = tarfile.TarInfo(name)
            member.type, member.size = (
                (tarfile.DIRTYPE, 0) if content is None else (member.type, len(content))
            )
            tar.addfile(member, io.BytesIO(content or b""))
    assert read_image(tmp_path, "a.parquet#0") == b"a" and read_image(tmp_path, "a.parquet#3") == b"d"
    assert read_image(tmp_path, "b.tar#0") == b"1" * 600 and read_image(tmp_path, "b.tar#1") == b"2"
    assert [file_of(path) for path in ("x/a.parquet#3", "b.TAR#1")] == ["x/a.parquet", "b.TAR"]
    for path, reason, message in [
        *(
            (f"a.parquet#{row}", "missing_image", f"row {row} of a.parquet contains no image")
            for row in (1, 2)
        ),
        ("a.parquet#4", "unreadable", "has no row 4"),
        ("b.tar#2", "unreadable", "b.tar has no file 2"),
    ]:
        with pytest.raises(DecodeError, match=message) as caught:
            read_image(tmp_path, path)
        assert caught.value.reason == reason
    with pytest.raises(DecodeError, match="larger than"):
        read_image(tmp_path, "b.tar#0", 599)
    (tmp_path / "c.tar").write_bytes((tmp_path / "b.tar").read_bytes()[:1100])
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    for path in ("c.tar#0", "c.parquet#0"):
        with pytest.raises(DecodeError, match="cannot be read as"):
            read_image(tmp_path, path)


def test_a_row_group_with_too_many_bytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"bytes": bytes(1 << 20)}] * 3  # the same image, kept once
    pq.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    assert len(read_image(tmp_path, "a.parquet#2")) == 1 << 20
    packed._read_group.cache_clear()
    monkeypatch.setattr(packed, "_MAX_GROUP_BYTES", 1 << 19)
    with pytest.raises(DecodeError, match="MiB of images: write smaller ones"):
        read_image(tmp_path, "a.parquet#0")
