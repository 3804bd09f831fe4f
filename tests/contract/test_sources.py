"""What every source promises, registered ones all alike."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import affectdata
from affectdata.images.read import read_image
from affectdata.manifest.ingest import IngestResult, ingest, recognise
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.tree import is_image_name, read_tree
from affectdata.records import RATINGS, Annotation
from affectdata.registry import find_plugins, load_plugin
from affectdata.schema import manifest_schema

NAMES = find_plugins("sources")
_MOST_IMAGES = 300


@pytest.fixture(scope="module", params=NAMES)
def plugin(request: pytest.FixtureRequest) -> ModuleType:
    return load_plugin("sources", request.param)


@pytest.fixture(scope="module")
def sample(plugin: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples") / "tree"
    plugin.write_sample(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="module")
def result(plugin: ModuleType, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> IngestResult:
    if plugin.INFO.overlay:
        pytest.skip("it has no images of its own; tests/manifest/test_overlay.py")
    return ingest(sample, out=tmp_path_factory.mktemp("out"), workers=1)


def _files(root: Path) -> dict[str, bytes]:
    return {
        Path(folder, name).relative_to(root).as_posix(): Path(folder, name).read_bytes()
        for folder, _, names in os.walk(root)
        for name in names
    }


def _tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def _rows(result: IngestResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = result.manifest.table.to_pylist()
    return rows


def test_the_shelf_is_not_empty() -> None:
    assert {"gaped", "image_folder", "oasis", "table"} <= set(NAMES)


def test_data_sheet_is_filled_in(plugin: ModuleType) -> None:
    info = plugin.INFO
    assert info.name == plugin.__name__.rpartition(".")[2]
    assert info.title and info.license and info.citation and info.layout
    assert set(info.scales) <= set(RATINGS)
    assert set(info.groups) <= set(manifest_schema().names)
    assert info.evidence in ("seen", "unverified")
    assert len((plugin.__doc__ or "").splitlines()) > 5
    if info.name not in ("image_folder", "table"):  # those have no paper of their own
        assert info.bibtex.startswith("@") and info.bibtex.count("{") == info.bibtex.count("}")


def test_sample_depends_on_nothing_but_the_seed(plugin: ModuleType, sample: Path, tmp_path: Path) -> None:
    plugin.write_sample(tmp_path / "again", np.random.default_rng(0))
    assert _files(tmp_path / "again") == _files(sample)


def test_sample_is_small_and_drawn(plugin: ModuleType, sample: Path, tmp_path: Path) -> None:
    plugin.write_sample(tmp_path / "other", np.random.default_rng(1))
    here, there = _files(sample), _files(tmp_path / "other")
    images = [path for path in here if is_image_name(path)]
    assert len(images) <= _MOST_IMAGES
    holding = images or [path for path in here if path.endswith(".csv")]  # a table may hold the pixels
    assert holding
    shipped = {here[path] for path in holding} & {there.get(path) for path in holding}
    assert not shipped  # a real image would be there whatever the seed
    for path in images:
        with Image.open(sample / path) as image:
            assert not image.getexif() and "icc_profile" not in image.info


def test_package_ships_no_image() -> None:
    files = _files(Path(affectdata.__file__).parent)
    assert files
    assert not [path for path in files if is_image_name(path)]


def _folders(folder: str) -> list[str]:
    return [each.name for each in Path(folder).iterdir() if each.is_dir()]


def test_own_sample_is_recognised_by_it_alone(plugin: ModuleType, sample: Path, tmp_path: Path) -> None:
    if plugin.INFO.overlay:
        sample = Path(
            shutil.copytree(sample, tmp_path / "alone", ignore=lambda folder, names: _folders(folder))
        )
    tree = read_tree(sample)
    plugins = [load_plugin("sources", name) for name in NAMES]
    claims = {each.INFO.name: each.INFO.generic for each in plugins if each.detect(tree)}
    assert [name for name, generic in claims.items() if not generic or plugin.INFO.generic] == [
        plugin.INFO.name
    ]
    assert recognise(tree)[0] == plugin.INFO.name


def test_nothing_is_recognised_in_foreign_files(plugin: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("Theme, and other words")
    (tmp_path / "things.csv").write_bytes(b"name;\xff\xfe\r\n\x00\x01\r\n")
    assert plugin.detect(read_tree(tmp_path)) is None


def test_every_file_is_accounted_for_once(plugin: ModuleType, sample: Path, result: IngestResult) -> None:
    items = plugin.read(read_tree(sample), ReadOptions()).items
    annotations = [item.path for item in items if isinstance(item, Annotation)]
    named = result.rejects["path"].to_pylist() + [row["path"] for row in _rows(result)]
    of_files = [path for path in named if "#" not in path]
    of_rows = [path for path in named if "#" in path]  # of a table: without an image, or images themselves
    assert Counter(of_files + annotations) == Counter(_files(sample).keys())
    assert max(Counter(of_rows).values(), default=1) == 1
    assert result.n_seen == len(_files(sample)) + len(of_rows)
    assert result.counts["kept"] == len(_rows(result)) > 0
    assert result.counts["annotation"] == len(annotations)


def test_ids_are_sha256_of_the_files(sample: Path, result: IngestResult) -> None:
    for row in _rows(result):
        data = read_image(sample, row["path"])
        assert row["image_id"] == hashlib.sha256(data).hexdigest()
        assert row["bytes"] == len(data)


def test_pomp_gives_the_raw_rating_back(result: IngestResult) -> None:
    for row in _rows(result):
        for name in RATINGS:
            if row[name] is None:
                assert row[f"{name}_raw"] is None
                continue
            low, high = Fraction(row[f"{name}_min"]), Fraction(row[f"{name}_max"])
            raw = low + Fraction(row[name]) / 100 * (high - low)
            assert abs(raw - Fraction(row[f"{name}_raw"])) <= (high - low) / 100 / 10**6
            assert 0 <= row[name] <= 100


class _Shuffled(list[Any]):
    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def _ingest_elsewhere(
    sample: Path, place: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    shutil.copytree(sample, place / "tree")
    scandir, rng = os.scandir, random.Random(workers)

    def shuffled(path: Any) -> _Shuffled:
        entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)
        rng.shuffle(entries)
        return _Shuffled(entries)

    with monkeypatch.context() as patch:
        patch.setattr("affectdata.reading.tree.os.scandir", shuffled)
        ingest(place / "tree", out=place / "out", workers=workers)
    return _tables(place / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_same_tree_same_bytes(
    workers: int, sample: Path, result: IngestResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "another" / "place"
    place.mkdir(parents=True)
    first = _tables(result.manifest.path.parent)
    has_ledger = any(row["split"] for row in _rows(result))
    assert len(first) == 3 + has_ledger
    assert _ingest_elsewhere(sample, place, workers, monkeypatch) == first


def test_downloaded_images_lie_where_the_source_looks(
    plugin: ModuleType, sample: Path, result: IngestResult, tmp_path: Path
) -> None:
    find_links = getattr(plugin, "find_links", None)
    links = list(find_links(read_tree(sample), ReadOptions())) if find_links else []
    if not links:
        pytest.skip("it has no addresses of images")
    there = {link.path for link in links} & _files(sample).keys()
    assert there  # what is there is not wanted elsewhere
    root = Path(shutil.copytree(sample, tmp_path / "tree"))
    for path in filter(is_image_name, _files(sample)):
        (root / path).unlink()
    wanted = {link.path for link in find_links(read_tree(root), ReadOptions())}
    for number, path in enumerate(sorted(wanted)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64 + number, 64)).save(root / path, "JPEG")
    fetched = ingest(root, out=tmp_path / "out", workers=1)
    assert {row["path"] for row in _rows(fetched)} == wanted
    assert "missing_rating" not in fetched.rejects["reason"].to_pylist()
