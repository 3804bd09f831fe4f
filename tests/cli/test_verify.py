"""`affectdata verify`: sound is 0, anything off is 4, and every finding is a line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.made import forge, publish

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound release. Not to be written to."""
    return publish(small_gaped, tmp_path_factory.mktemp("made")).path


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy in ./releases of this test's working directory."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, tmp_path / "releases" / made.name))


def test_a_sound_release(cli: Cli, folder: Path) -> None:
    ran = cli("verify", folder)
    assert (ran.code, ran.err) == (0, "")
    assert "every file and every row holds" in ran.out


def test_the_newest_is_taken_if_none_is_named(cli: Cli, folder: Path) -> None:
    ran = cli("verify", "--json")
    assert ran.code == 0
    assert ran.document["release"] == f"releases/{folder.name}"
    folder.parent.rename(folder.parent.parent / "elsewhere")
    assert cli("verify").code == 2
    assert cli("verify", "--releases", "elsewhere").code == 0


def test_findings_are_lines_and_exit_4(cli: Cli, folder: Path) -> None:
    image = next((folder / "train").glob("*.jpg"))
    image.write_bytes(b"")
    (folder / "README.md").unlink()
    (folder / "new.txt").write_text("")
    ran = cli("verify", folder)
    assert ran.code == 4
    lines = ran.out.splitlines()
    assert f"changed: train/{image.name} differs from the published file" in lines
    assert "missing: README.md does not exist" in lines
    assert "added: new.txt is not part of the release" in lines
    assert lines[-1].endswith("3 findings")


def test_a_forged_release_is_found(cli: Cli, folder: Path) -> None:
    def copy_in_val(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["copy"])
        row.update(split="val", file_name=f"val/{row['sample_id']}.jpg")

    forge(folder, copy_in_val)
    ran = cli("verify", folder, "--json")
    assert ran.code == 4
    assert ran.document["schema"] == "affectdata/verify/1"
    assert ran.document["sound"] is False
    assert any("is a copy outside train" in each["text"] for each in ran.document["findings"])
    assert {each["kind"] for each in ran.document["findings"]} == {"lineage", "stated"}


@pytest.mark.parametrize("name", ["recipe.yaml", "SHA256SUMS", "manifest.parquet"])
def test_a_release_without_what_it_is_checked_by_is_an_integrity_error(
    cli: Cli, folder: Path, name: str
) -> None:
    (folder / name).unlink()
    ran = cli("verify", folder)
    assert ran.code == 4
    assert name in ran.out + ran.err
    assert "Traceback" not in ran.err


def test_what_is_no_release_is_bad_input(cli: Cli, folder: Path) -> None:
    for path in (folder / "train", folder.parent / "nowhere", folder / "README.md"):
        ran = cli("verify", path)
        assert ran.code == 3
        assert "is not a finished release" in ran.err


def test_json_of_a_sound_release(cli: Cli, folder: Path) -> None:
    document = cli("verify", folder, "--json").document
    assert document["sound"] is True
    assert document["findings"] == []
    assert document["id"].startswith(folder.name.removeprefix("made-"))
