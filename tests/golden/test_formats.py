"""Files of earlier formats still open, verify and export: generated images, in the forms of their time.

`formats_1.tar.xz` holds a source tree, its manifest (schema 1), a release with files and a virtual one
(affectdata/release/2), and a check (affectdata/train-check/2).
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata.manifest.manifest import load_manifest
from affectdata.release.release import open_release

HERE = Path(__file__).parent
Cli = Callable[..., Any]


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as the earlier version left it."""
    with tarfile.open(HERE / "formats_1.tar.xz") as archive:
        # Python 3.11.3 and before have no filters.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def release_of(folder: Path, name: str) -> Path:
    (found,) = (folder / "releases").glob(f"{name}-*")
    return found


def test_a_manifest_of_schema_1_opens(earlier: Path) -> None:
    manifest = load_manifest(earlier / "manifests" / "made.parquet")
    assert manifest.metadata["schema_version"] == 1
    assert len(manifest) == 48
    assert set(manifest.table["split"].to_pylist()) == {"train", "val", "test"}


@pytest.mark.parametrize("name", ["made_files", "made_virtual"])
def test_a_release_of_form_2_opens_and_verifies(earlier: Path, name: str, cli: Cli) -> None:
    folder = release_of(earlier, name)
    release = open_release(folder)
    assert release.info["schema"] == "affectdata/release/2"
    assert set(release.split("test")["copy"].to_pylist()) == {0}
    assert cli("verify", folder).code == 0


def test_a_release_of_form_2_exports(earlier: Path, cli: Cli) -> None:
    folder = release_of(earlier, "made_files")
    for form in ("croissant", "webdataset"):
        ran = cli("export", folder, "--to", form, "--out", earlier / form, "--i-may-redistribute")
        assert ran.code == 0, ran.err


def test_a_release_of_form_2_is_compared_with_one_of_today_and_gives_its_splits(
    earlier: Path, cli: Cli
) -> None:
    assert cli("ingest", earlier / "made", "--map", "columns.yaml").code == 0
    for name in ("made_files", "made_virtual"):
        former = release_of(earlier, name)
        today = cli("balance", "--recipe", f"{name}.yaml", "--split-from", former, "--out", "again", "--json")
        assert today.code == 0, today.err
        release = open_release(today.document["release"])
        assert release.info["schema"] == "affectdata/release/3"
        assert (release.path / "manifest.parquet").exists() == (name == "made_files")
        columns = ["sample_id", "split", "file_sha256"]
        assert release.table.select(columns).equals(open_release(former).table.select(columns))
        assert cli("diff", former, release.path).code == 0
        assert (former / "manifest.parquet").is_file()


def test_a_manifest_of_schema_1_can_be_balanced_and_keeps_its_splits(earlier: Path, cli: Cli) -> None:
    before = load_manifest(earlier / "manifests" / "made.parquet").table.select(["image_id", "split"])
    assert cli("ingest", earlier / "made", "--map", "columns.yaml").code == 0
    after = load_manifest(earlier / "manifests" / "made.parquet")
    assert after.table.select(["image_id", "split"]).equals(before)
    assert cli("balance", "--recipe", "made_files.yaml").code == 0
