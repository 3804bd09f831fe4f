"""Released images rebuilt from their source: equal, or found; also where another CPU rounds otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import ImagesNotFound, IntegrityError, UsageError
from affectdata.hashing import file_hash
from affectdata.images.decode import decode, encode
from affectdata.recipe.recipe import parse_recipe
from affectdata.release.rebuild import GREY_LEVELS, pick_rows, rebuild
from affectdata.release.release import Release, open_release
from affectdata.release.verify import check_release
from affectdata.render.render import canaries
from tests.made import forge, publish, sign

Cli = Callable[..., Any]
AFFINE = [
    {"HorizontalFlip": {"p": 0.5}},
    {"Affine": {"rotate": [-9, 9], "interpolation": "cubic", "border_mode": "reflect_101", "p": 1.0}},
]


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of PNGs (so that single grey levels are kept) with drawn copies. Not to be written to."""
    out = tmp_path_factory.mktemp("made")
    image = {"short_side_px": 32, "format": "png"}
    return publish(small_gaped, out, pipelines={"flip": AFFINE}, image=image).path


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a copy of the release and the manifests it was made from."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.parent.parent / "manifests", tmp_path / "manifests")
    return tmp_path


@pytest.fixture
def folder(made: Path, here: Path) -> Path:
    """The copy of the release, to spoil."""
    return Path(shutil.copytree(made, here / "releases" / made.name))


def a_copy(release: Release) -> str:
    return next(str(row["sample_id"]) for row in release.table.to_pylist() if row["copy"])


def repaint(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> str:
    """Change the pixels of one copy, and every hash with them; returns its sample_id."""
    sample = a_copy(open_release(folder))

    def paint(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["sample_id"] == sample)
        file = folder / row["file_name"]
        data = encode(change(decode(file.read_bytes()).rgb), "png", 0)
        file.write_bytes(data)
        row.update(file_sha256=file_hash(data), file_bytes=len(data))

    forge(folder, paint)
    return sample


def brighter(levels: int) -> Callable[[np.ndarray], np.ndarray]:
    """Move one pixel by so many grey levels, whichever way there is room."""

    def change(rgb: np.ndarray) -> np.ndarray:
        rgb = rgb.copy()
        rgb[3, 4, 1] = rgb[3, 4, 1] + levels if rgb[3, 4, 1] < 128 else rgb[3, 4, 1] - levels
        return rgb

    return change


def other_cpu(release: Release) -> Release:
    """The same release as made on a machine that rounds differently."""
    return replace(release, info={**release.info, "canaries": {"": "0" * 64, "flip": "1" * 64}})


# --- which rows ------------------------------------------------------------------------------------------


def test_copies_are_picked_before_originals(made: Path) -> None:
    release = open_release(made)
    n_copies = release.info["copies"]
    picked = pick_rows(release, n_copies)
    assert len(picked) == n_copies
    assert min(picked["copy"].to_pylist()) > 0
    assert len(pick_rows(release, n_copies + 2)) == n_copies + 2
    assert pick_rows(release, 10**9).equals(release.table)
    assert pick_rows(release, 3).equals(pick_rows(release, 3))
    assert set(pick_rows(release, 3)["sample_id"].to_pylist()) <= set(
        pick_rows(release, 4)["sample_id"].to_pylist()
    )


def test_samples_are_picked_by_name(made: Path) -> None:
    release = open_release(made)
    sample = a_copy(release)
    assert pick_rows(release, 0, [sample])["sample_id"].to_pylist() == [sample]
    three = pick_rows(release, 3)["sample_id"].to_pylist()
    more = next(key for key in release.table["sample_id"].to_pylist() if key not in three)
    assert pick_rows(release, 3, [more, three[0]])["sample_id"].to_pylist() == sorted([*three, more])
    with pytest.raises(UsageError, match="no sample 0-1, 0-2 in the release"):
        pick_rows(release, 0, ["0-2", sample, "0-1"])


# --- equal, or found -------------------------------------------------------------------------------------


def test_every_image_of_a_sound_release_is_rebuilt_to_the_byte(made: Path, here: Path) -> None:
    release = open_release(made)
    found = rebuild(release, release.table, here / "manifests")
    assert (found.n_rows, found.exact) == (len(release.table), True)
    assert found.findings == found.notes == []


@pytest.mark.parametrize("levels", [1, 100])
def test_an_image_that_was_repainted_is_found_though_every_hash_is_right(folder: Path, levels: int) -> None:
    sample = repaint(folder, brighter(levels))
    release = open_release(folder)
    assert check_release(release) == []
    (finding,) = rebuild(release, release.table, Path("manifests")).findings
    assert finding.kind == "rebuilt"
    assert (
        finding.text == f"train/{sample}.png: the rebuilt bytes differ (pixels by up to {levels} grey levels)"
    )


def test_an_image_of_another_size_is_found(folder: Path) -> None:
    sample = repaint(folder, lambda rgb: rgb[:, :-1])
    release = open_release(folder)
    (finding,) = rebuild(release, pick_rows(release, 0, [sample]), Path("manifests")).findings
    assert "rebuilt as 43 × 32, released as 42 × 32" in finding.text


def test_the_same_pixels_in_other_bytes_are_found(folder: Path, as_bytes: Callable[..., bytes]) -> None:
    """A second encoder is a shortcut too: here another compression of the same PNG."""
    sample = a_copy(open_release(folder))

    def swap(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["sample_id"] == sample)
        file = folder / row["file_name"]
        data = as_bytes(decode(file.read_bytes()).rgb, "PNG", compress_level=1)
        file.write_bytes(data)
        row.update(file_sha256=file_hash(data), file_bytes=len(data))

    release = forge(folder, swap)
    assert check_release(release) == []
    (finding,) = rebuild(release, pick_rows(release, 0, [sample]), Path("manifests")).findings
    assert "the rebuilt bytes differ (pixels by up to 0 grey levels)" in finding.text
    assert rebuild(other_cpu(release), release.table, Path("manifests")).findings == []


def test_a_seed_that_was_edited_is_found_by_the_lineage_and_by_the_pixels(folder: Path) -> None:
    def reseed(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["copy"])["seed"] += 1

    release = forge(folder, reseed)
    assert any("seed does not follow" in finding.text for finding in check_release(release))
    (finding,) = rebuild(release, release.table, Path("manifests")).findings
    assert "the rebuilt bytes differ" in finding.text


def test_an_image_taken_for_another_is_found(folder: Path) -> None:
    """Two originals whose files were swapped, rows and hashes with them."""

    def swap(rows: list[dict[str, Any]]) -> None:
        one, two = [row for row in rows if not row["copy"] and row["split"] == "train"][:2]
        first, second = (folder / row["file_name"] for row in (one, two))
        a, b = first.read_bytes(), second.read_bytes()
        first.write_bytes(b)
        second.write_bytes(a)
        for key in ("file_sha256", "file_bytes"):
            one[key], two[key] = two[key], one[key]

    release = forge(folder, swap)
    assert check_release(release) == []
    assert len(rebuild(release, release.table, Path("manifests")).findings) == 2


# --- another machine -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("levels", "n_findings"), [(0, 0), (1, 0), (GREY_LEVELS, 0), (GREY_LEVELS + 1, 1), (100, 1)]
)
def test_where_the_canary_differs_pixels_may_by_three_levels(
    folder: Path, levels: int, n_findings: int
) -> None:
    sample = repaint(folder, brighter(levels))
    release = other_cpu(open_release(folder))
    found = rebuild(release, release.table, Path("manifests"))
    assert not found.exact
    assert found.notes == ["this machine renders the canary differently: pixels are compared, not bytes"]
    assert len(found.findings) == n_findings
    if n_findings:
        assert (
            found.findings[0].text == f"train/{sample}.png: the rebuilt pixels differ by {levels} grey levels"
        )


def test_one_canary_of_several_is_enough(made: Path, here: Path) -> None:
    release = open_release(made)
    info = {**release.info, "canaries": {**release.info["canaries"], "flip": "1" * 64}}
    assert not rebuild(replace(release, info=info), pick_rows(release, 1), here / "manifests").exact


def test_a_canary_of_one_draw_as_earlier_releases_have_it_is_compared(made: Path, here: Path) -> None:
    release = open_release(made)
    info = {key: value for key, value in release.info.items() if key != "canary_draws"}
    info["canaries"] = canaries(parse_recipe(release.recipe_document).pipelines, 1)
    assert info["canaries"] != release.info["canaries"]
    assert rebuild(replace(release, info=info), pick_rows(release, 1), here / "manifests").exact


def test_other_versions_are_reported(made: Path, here: Path) -> None:
    release = open_release(made)
    versions = {**release.info["versions"], "pillow": "1.0", "gone": "2.0"}
    found = rebuild(
        replace(release, info={**release.info, "versions": versions}),
        pick_rows(release, 1),
        here / "manifests",
    )
    pillow, gone = sorted(found.notes, reverse=True)
    assert pillow.startswith("released with pillow 1.0, installed is ")
    assert gone == "released with gone 2.0, installed is None"
    assert found.findings == []


# --- source images -------------------------------------------------------------------------------------


def test_missing_or_changed_source_images(made: Path, here: Path, gaped_copy: Path) -> None:
    release = open_release(made)
    with pytest.raises(ImagesNotFound, match="the images of gaped were not found") as caught:
        rebuild(release, release.table, here / "nowhere")
    assert caught.value.exit_code == 3
    for image in gaped_copy.glob("*/*.bmp"):
        image.write_bytes(image.read_bytes()[:-1] + b"\x01")
    moved = open_release(made, roots={"gaped": gaped_copy})
    with pytest.raises(IntegrityError, match="is not the file that was ingested"):
        rebuild(moved, moved.table, here / "nowhere")


# --- the command -----------------------------------------------------------------------------------------


def test_verify_rebuilds_and_reports(cli: Cli, folder: Path) -> None:
    ran = cli("verify", "--rebuild", "4")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "4 rebuilt from their source images: the same"
    document = cli("verify", "--rebuild", "4", "--json").document
    assert (document["sound"], document["rebuilt"]) == (True, 4)
    sample = a_copy(open_release(folder))
    document = cli("verify", "--sample", sample, "--sample", sample, "--json").document
    assert (document["sound"], document["rebuilt"]) == (True, 1)
    one = open_release(folder).table["sample_id"][0].as_py()  # an original
    assert cli("verify", "--rebuild", "4", "--sample", one, "--json").document["rebuilt"] == 5
    assert cli("verify", "--json").document["rebuilt"] == 0


def test_verify_finds_an_image_that_was_repainted(cli: Cli, folder: Path) -> None:
    sample = repaint(folder, brighter(2))
    assert cli("verify").code == 0
    ran = cli("verify", "--sample", sample)
    assert ran.code == 4
    assert f"rebuilt: train/{sample}.png: the rebuilt bytes differ" in ran.out
    n = len(open_release(folder).table)
    document = cli("verify", "--rebuild", n, "--json").document
    assert [finding["kind"] for finding in document["findings"]] == ["rebuilt"]


def test_verify_reports_that_this_machine_rounds_differently(cli: Cli, folder: Path) -> None:
    sign(folder, {**open_release(folder).info, "canaries": {"": "0", "flip": "1"}})
    ran = cli("verify", "--rebuild", "3")
    assert ran.code == 0
    assert ran.err == "note: this machine renders the canary differently: pixels are compared, not bytes\n"
    assert cli("verify", "--rebuild", "3", "--quiet").err == ""


def test_verify_does_not_rebuild_what_is_damaged_already(cli: Cli, folder: Path) -> None:
    (folder / "README.md").unlink()
    ran = cli("verify", "--rebuild", "3", "--json")
    assert ran.code == 4
    assert ran.document["rebuilt"] == 0
    assert [finding["kind"] for finding in ran.document["findings"]] == ["missing"]


def test_verify_of_an_unknown_sample(cli: Cli, folder: Path) -> None:
    ran = cli("verify", "--sample", "0123456789abcdef-9")
    assert ran.code == 2
    assert "no sample 0123456789abcdef-9 in the release" in ran.err
    assert cli("verify", "--rebuild", "0").code == 2


def test_verify_of_images_that_were_moved(cli: Cli, folder: Path, gaped_copy: Path) -> None:
    (folder.parent.parent / "manifests" / ".local.json").unlink()
    ran = cli("verify", "--rebuild", "3")
    assert ran.code == 3
    for way_out in ("--root gaped=PATH", "AFFECTDATA_ROOTS=gaped=PATH", "affectdata ingest PATH"):
        assert way_out in ran.err
    assert cli("verify", "--rebuild", "3", "--root", f"gaped={gaped_copy}").code == 0
    assert cli("verify").code == 0  # needs no source images
    shutil.rmtree(gaped_copy / "P")
    ran = cli("verify", "--rebuild", "1000", "--root", f"gaped={gaped_copy}")
    assert ran.code == 3
    assert "P/P0" in ran.err


# --- why -------------------------------------------------------------------------------------------------


def test_why_shows_group_edges_split_cell_and_copies(cli: Cli, folder: Path) -> None:
    """The sample tree plants a pair of look-alikes (Sn), as GAPED has one."""
    release = open_release(folder)
    rows = release.table.to_pylist()
    groups: dict[str, set[str]] = {}
    for row in rows:
        groups.setdefault(row["group_id"], set()).add(row["image_id"])
    image = min(next(ids for ids in groups.values() if len(ids) > 1))
    first = next(row for row in rows if row["image_id"] == image)
    ran = cli("verify", "--why", image[:20])
    assert (ran.code, ran.err) == (0, "")
    for text in (image, first["split"], first["cell"], first["path"], first["group_id"][:16]):
        assert text in ran.out
    found = cli("verify", "--why", image[:20], "--json").document
    assert found["schema"] == "affectdata/why/1"
    own = [row for row in rows if row["image_id"] == image]
    assert [row["sample_id"] for row in found["rows"]] == [row["sample_id"] for row in own]
    assert {row["image_id"] for row in found["group"]} == groups[first["group_id"]]
    assert len(found["edges"]) == len(groups[first["group_id"]]) - 1
    for edge in found["edges"]:
        assert {edge["image_id_a"], edge["image_id_b"]} <= groups[first["group_id"]]
        assert edge["kind"] in ran.out


def test_why_of_an_image_with_copies(cli: Cli, folder: Path) -> None:
    release = open_release(folder)
    most = max(release.table.to_pylist(), key=lambda row: row["copy"])
    found = cli("verify", "--why", most["image_id"], "--json").document
    assert [row["copy"] for row in found["rows"]] == list(range(most["copy"] + 1))
    assert [row["pipeline"] for row in found["rows"]] == ["", *["flip"] * most["copy"]]
    shown = cli("verify", "--why", most["image_id"]).out
    assert all(row["file_name"] in shown for row in found["rows"])


def test_why_without_edge_tables_shows_the_rest(cli: Cli, folder: Path) -> None:
    image = open_release(folder).table["image_id"][0].as_py()
    shutil.rmtree(folder.parent.parent / "manifests")
    ran = cli("verify", "--why", image, "--json")
    assert (ran.code, ran.document["edges"]) == (0, [])


def test_why_of_an_ambiguous_prefix(cli: Cli, folder: Path) -> None:
    ids = sorted(set(open_release(folder).table["image_id"].to_pylist()))
    firsts = [image[0] for image in ids]
    ambiguous = max(firsts, key=firsts.count)
    ran = cli("verify", "--why", ambiguous)
    assert ran.code == 2
    assert f"{firsts.count(ambiguous)} images begin with '{ambiguous}'" in ran.err
    assert "give more digits of the image_id" in ran.err
    ran = cli("verify", "--why", "xyz")
    assert ran.code == 2
    assert "no image begins with 'xyz'" in ran.err
