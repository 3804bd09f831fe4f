"""The memo: unchanged files are not opened again, and the result is the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from affectdata.images import probe as probe_module
from affectdata.images.decode import decoded
from affectdata.manifest import ingest as ingest_module
from affectdata.manifest import join
from affectdata.manifest import memo as memo_module
from affectdata.manifest.ingest import ingest

MEMO = ".gaped.memo"


@pytest.fixture(autouse=True)
def _no_cached_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn the up-to-date check off (test_unchanged.py), so that a second run uses the memo."""
    monkeypatch.setattr(ingest_module, "read_cached_result", lambda *_: None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the images that are decoded."""
    sizes: list[int] = []

    def counting(data: bytes, max_pixels: int) -> object:
        sizes.append(len(data))
        return decoded(data, max_pixels)

    monkeypatch.setattr(probe_module, "decoded", counting)
    yield sizes


def test_a_second_run_opens_nothing_and_returns_the_same(
    gaped_copy: Path, tmp_path: Path, opened: list[int]
) -> None:
    first = ingest(gaped_copy, out=tmp_path / "out")
    before = first.manifest.path.read_bytes()
    n_first = len(opened)
    assert n_first == first.counts["kept"] + first.counts["rejected"]
    second = ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) == n_first
    assert second.counts == first.counts and first.manifest.path.read_bytes() == before


def test_only_what_changed_is_opened(gaped_copy: Path, tmp_path: Path, opened: list[int]) -> None:
    ingest(gaped_copy, out=tmp_path / "out")
    opened.clear()
    resized, touched, *_ = sorted(gaped_copy.glob("*/*.bmp"))
    resized.write_bytes(resized.read_bytes()[:200])
    os.utime(touched, ns=(1, 1))
    result = ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) == 2
    assert result.rejects["path"].to_pylist().count(resized.relative_to(gaped_copy).as_posix()) == 1


def test_rehash_and_other_settings_ignore_the_memo(
    gaped_copy: Path, tmp_path: Path, opened: list[int]
) -> None:
    ingest(gaped_copy, out=tmp_path / "out")
    n = len(opened)
    ingest(gaped_copy, out=tmp_path / "out", rehash=True)
    assert len(opened) == 2 * n
    ingest(gaped_copy, out=tmp_path / "out", strict=True)
    assert len(opened) == 3 * n


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more"])
def test_a_damaged_memo_is_ignored(
    damage: bytes, gaped_copy: Path, tmp_path: Path, opened: list[int]
) -> None:
    ingest(gaped_copy, out=tmp_path / "out")
    n = len(opened)
    (tmp_path / "out" / MEMO).write_bytes(damage)
    ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) == 2 * n


def test_an_interrupted_run_is_resumed(gaped_copy: Path, tmp_path: Path, opened: list[int]) -> None:
    n_images = len(list(gaped_copy.glob("*/*.bmp")))

    def interrupt(done: int, of_all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(gaped_copy, out=tmp_path / "out", workers=1, progress=interrupt)
    assert not (tmp_path / "out" / "gaped.parquet").exists()
    n_first = len(opened)
    assert 0 < n_first < n_images
    result = ingest(gaped_copy, out=tmp_path / "out", workers=1)
    assert len(opened) == n_images and result.counts["kept"] == n_images


@pytest.mark.parametrize("cut", [1, 200])
def test_a_truncated_memo_is_used_up_to_the_damage(
    cut: int, gaped_copy: Path, tmp_path: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memo_module, "_BLOCK_ROWS", 5)
    monkeypatch.setattr(join, "_BATCH", 5)
    ingest(gaped_copy, out=tmp_path / "out", workers=1)
    n = len(opened)
    memo = tmp_path / "out" / MEMO
    memo.write_bytes(memo.read_bytes()[:-cut])
    ingest(gaped_copy, out=tmp_path / "out")
    assert 0 < len(opened) - n <= 5
    ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) - n <= 5  # the files that were opened again are in the memo


def test_a_changed_byte_is_detected(gaped_copy: Path, tmp_path: Path, opened: list[int]) -> None:
    first = ingest(gaped_copy, out=tmp_path / "out")
    n = len(opened)
    memo = tmp_path / "out" / MEMO
    data = bytearray(memo.read_bytes())
    data[-len(data) // 2] ^= 1
    memo.write_bytes(data)
    second = ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) == 2 * n and second.digest == first.digest


def test_a_memo_does_not_grow_with_every_run(gaped_copy: Path, tmp_path: Path) -> None:
    sizes = []
    for number in range(4):
        for path in gaped_copy.glob("*/*.bmp"):
            os.utime(path, ns=(number, number))
        ingest(gaped_copy, out=tmp_path / "out")
        sizes.append((tmp_path / "out" / MEMO).stat().st_size)
    assert max(sizes) < 1.5 * sizes[0]
