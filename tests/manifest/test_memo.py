"""The memo: what did not change is not opened again, and nothing else follows from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from affectdata.images import probe as probe_module
from affectdata.images.decode import decode
from affectdata.manifest import ingest as ingest_module
from affectdata.manifest import join
from affectdata.manifest import memo as memo_module
from affectdata.manifest.ingest import ingest

MEMO = ".gaped.memo"


@pytest.fixture(autouse=True)
def _no_shorter_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every step of a second run too, where nothing changed (test_unchanged.py)."""
    monkeypatch.setattr(ingest_module, "recall_ending", lambda *_: None)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the images that are decoded."""
    sizes: list[int] = []

    def counting(data: bytes, max_pixels: int) -> object:
        sizes.append(len(data))
        return decode(data, max_pixels)

    monkeypatch.setattr(probe_module, "decode", counting)
    yield sizes


def test_a_second_run_opens_nothing_and_says_the_same(
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
    one, other, *_ = sorted(gaped_copy.glob("*/*.bmp"))
    one.write_bytes(one.read_bytes()[:200])  # another size
    os.utime(other, ns=(1, 1))  # another time
    result = ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) == 2
    assert result.rejects["path"].to_pylist().count(one.relative_to(gaped_copy).as_posix()) == 1


def test_rehash_and_other_settings_do_not_believe_it(
    gaped_copy: Path, tmp_path: Path, opened: list[int]
) -> None:
    ingest(gaped_copy, out=tmp_path / "out")
    n = len(opened)
    ingest(gaped_copy, out=tmp_path / "out", rehash=True)
    assert len(opened) == 2 * n
    ingest(gaped_copy, out=tmp_path / "out", strict=True)
    assert len(opened) == 3 * n


@pytest.mark.parametrize("damage", [b"", b"PAR1 and no more"])
def test_a_damaged_memo_is_no_memo(
    damage: bytes, gaped_copy: Path, tmp_path: Path, opened: list[int]
) -> None:
    ingest(gaped_copy, out=tmp_path / "out")
    n = len(opened)
    (tmp_path / "out" / MEMO).write_bytes(damage)
    ingest(gaped_copy, out=tmp_path / "out")
    assert len(opened) == 2 * n


def test_an_interrupted_run_is_gone_on_with(gaped_copy: Path, tmp_path: Path, opened: list[int]) -> None:
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
def test_a_memo_that_was_cut_off_is_believed_up_to_there(
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
    assert len(opened) - n <= 5  # and what was opened again is noted


def test_a_changed_byte_is_noticed(gaped_copy: Path, tmp_path: Path, opened: list[int]) -> None:
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
