"""The memo: what did not change is not opened again, and nothing else follows from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from affectdata import probe as probe_module
from affectdata.imaging import decode
from affectdata.ingest import ingest

MEMO = ".gaped.memo"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the pictures that are decoded."""
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
    n_pictures = len(list(gaped_copy.glob("*/*.bmp")))

    def interrupt(done: int, of_all: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(gaped_copy, out=tmp_path / "out", workers=1, progress=interrupt)
    assert not (tmp_path / "out" / "gaped.parquet").exists()
    n_first = len(opened)
    assert 0 < n_first < n_pictures
    result = ingest(gaped_copy, out=tmp_path / "out", workers=1)
    assert len(opened) == n_pictures and result.counts["kept"] == n_pictures
