"""`affectdata balance`: what it prints, its JSON documents, its exit codes; a dry run opens nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from affectdata.images import decode
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Images
from affectdata.records import count_text
from affectdata.release import publish as publishing
from affectdata.release.release import open_release
from affectdata.release.verify import check_release
from affectdata.render import render as rendering
from tests.made import recipe_document

Cli = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a recipe `made.yaml`."""
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path / "made.yaml")
    return tmp_path


@pytest.fixture
def with_manifest(here: Path, gaped_copy: Path) -> Path:
    """The same with a manifest of a small GAPED tree that may be spoiled."""
    ingest(gaped_copy, out=here / "manifests")
    return here


def write_recipe(path: Path, **changes: Any) -> None:
    document = recipe_document(split={"val": 0.2, "test": 0.2}, **changes)
    path.write_text(yaml.safe_dump(document))


def test_a_release_is_written_and_then_found(cli: Cli, with_manifest: Path) -> None:
    ran = cli("balance", "--recipe", "made.yaml")
    assert (ran.code, ran.err) == (0, "")
    (folder,) = (with_manifest / "releases").iterdir()
    assert ran.out.splitlines()[-2:] == [
        f"wrote releases/{folder.name}",
        f"next: affectdata train-check releases/{folder.name}",
    ]
    assert "originals: " in ran.out
    assert check_release(open_release(folder)) == []
    again = cli("balance", "--recipe", "made.yaml")
    assert again.code == 0
    assert again.out.splitlines()[-2] == f"already there, verified: releases/{folder.name}"


def test_the_table_shows_each_cell_before_and_after(cli: Cli, with_manifest: Path) -> None:
    ran = cli("balance", "--recipe", "made.yaml", "--dry-run", "--json")
    cells = ran.document["balance"]["cells"]
    shown = cli("balance", "--recipe", "made.yaml", "--dry-run").out
    assert cells
    for cell in cells:
        row = next(line for line in shown.splitlines() if line.strip().startswith(cell["bin"]))
        assert f"{cell['n_before']}→{cell['n_after']}" in row
    assert "largest over smallest bin, empty ones left out: " in shown
    assert "n_eff" in shown


def test_what_cannot_be_met_is_said(cli: Cli, with_manifest: Path) -> None:
    write_recipe(with_manifest / "made.yaml", balance={"level": 50, "max_copies": 2})
    shown = cli("balance", "--recipe", "made.yaml", "--dry-run").out
    document = cli("balance", "--recipe", "made.yaml", "--dry-run", "--json").document
    short = [each for each in document["balance"]["bins"] if each["shortfall"] and each["n_before"]]
    assert short
    for each in short:
        images = count_text(each["n_before"], "image", "are")
        assert f"{each['bin']} ends {each['shortfall']} short of 50: its {images}" in shown
    empty = [each["bin"] for each in document["balance"]["bins"] if not each["n_before"]]
    for name in empty:
        assert f"{name} has no image in train" in shown


def test_a_cut_to_one_row_is_shown(cli: Cli, with_manifest: Path) -> None:
    """Cells that end empty have no n_eff to divide by."""
    write_recipe(with_manifest / "made.yaml", balance={"level": 1, "max_copies": 2, "undersample": True})
    ran = cli("balance", "--recipe", "made.yaml", "--dry-run")
    assert ran.code == 0
    assert "1→0" in ran.out


def test_a_dry_run_touches_no_pixel(
    cli: Cli, with_manifest: Path, gaped_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("an image was touched")

    for owner, name in [(decode, "decode"), (rendering, "decoded"), (Images, "read")]:
        monkeypatch.setattr(owner, name, touched)
    monkeypatch.setattr(publishing, "publish_release", touched)
    shutil.rmtree(gaped_copy)
    (with_manifest / "manifests" / ".local.json").unlink()
    before = sorted(with_manifest.rglob("*"))
    ran = cli("balance", "--recipe", "made.yaml", "--dry-run")
    assert ran.code == 0
    assert "dry run: nothing was written" in ran.out.splitlines()
    assert sorted(with_manifest.rglob("*")) == before


def test_the_packaged_recipe_is_found_as_in_the_readme(cli: Cli, here: Path, sample_gaped: Path) -> None:
    ingest(sample_gaped, out=here / "manifests")
    for name in ("valence_bins.yaml", "valence_bins"):
        ran = cli("balance", "--recipe", name, "--dry-run", "--json")
        assert ran.code == 0
        assert ran.document["recipe"] == "valence_bins"


def test_json_of_a_dry_run_and_of_a_release(cli: Cli, with_manifest: Path) -> None:
    dry = cli("balance", "--recipe", "made.yaml", "--dry-run", "--json").document
    assert dry["schema"] == "affectdata/plan/1"
    assert set(dry) >= {"balance", "left_out", "recipe"}
    ran = cli("balance", "--recipe", "made.yaml", "--json")
    made = ran.document
    assert made["schema"] == "affectdata/balance/1"
    assert made["new"] is True
    assert made["balance"] == dry["balance"]
    release = open_release(made["release"])
    assert release.id == made["id"]
    assert made["balance"]["rows"] == len(release.table)
    assert cli("balance", "--recipe", "made.yaml", "--json").document["new"] is False


def test_rows_that_a_condition_leaves_out_are_counted(cli: Cli, with_manifest: Path) -> None:
    write_recipe(with_manifest / "made.yaml", where="subtype <> 'P'")
    (line,) = [
        each
        for each in cli("balance", "--recipe", "made.yaml", "--dry-run").out.splitlines()
        if "where" in each
    ]
    assert line.startswith("left out") and line.endswith(": 4")
    assert cli("balance", "--recipe", "made.yaml", "--dry-run", "--json").document["left_out"] == 4


def test_another_out_and_two_workers(cli: Cli, with_manifest: Path) -> None:
    ran = cli("balance", "--recipe", "made.yaml", "--out", "a b/c", "--workers", "2", "--json")
    assert ran.code == 0
    assert Path(ran.document["release"]).parent == Path("a b/c")


def test_quiet_says_nothing_on_stderr(cli: Cli, with_manifest: Path) -> None:
    write_recipe(with_manifest / "made.yaml", pipelines={"flip": [{"HorizontalFlip": {"p": 0.5}}]})
    loud = cli("balance", "--recipe", "made.yaml", "--dry-run")
    assert "lint: " in loud.err
    assert cli("balance", "--recipe", "made.yaml", "--dry-run", "--quiet").err == ""


# --- what is wrong, and the exit code --------------------------------------------------------------------


def expect(ran: Any, code: int, *parts: str) -> None:
    assert ran.code == code, ran.err
    assert "Traceback" not in ran.err
    for part in parts:
        assert part in ran.err


def test_without_a_manifest_it_says_how_to_make_one(cli: Cli, here: Path) -> None:
    expect(cli("balance", "--recipe", "made.yaml"), 2, "no manifest in manifests/", "affectdata ingest")


def test_several_manifests_and_none_named_are_listed(cli: Cli, with_manifest: Path) -> None:
    manifests = with_manifest / "manifests"
    shutil.copy(manifests / "gaped.parquet", manifests / "other.parquet")
    ran = cli("balance", "--recipe", "made.yaml")
    expect(
        ran, 2, "2 manifests in manifests/", "manifests/gaped.parquet, manifests/other.parquet", "--manifest"
    )
    assert (
        cli("balance", "--recipe", "made.yaml", "--manifest", "manifests/other.parquet", "--dry-run").code
        == 0
    )
    write_recipe(with_manifest / "made.yaml", sources=["gaped"])
    assert cli("balance", "--recipe", "made.yaml", "--dry-run").code == 0


def test_a_manifest_that_is_not_there_is_named(cli: Cli, with_manifest: Path) -> None:
    write_recipe(with_manifest / "made.yaml", sources=["oasis"])
    expect(
        cli("balance", "--recipe", "made.yaml"),
        3,
        "no manifest manifests/oasis.parquet",
        "in manifests/: gaped",
    )
    expect(cli("balance", "--recipe", "made.yaml", "--manifest", "nowhere.parquet"), 3, "nowhere.parquet")


def test_the_same_manifest_twice_is_refused(cli: Cli, with_manifest: Path) -> None:
    path = "manifests/gaped.parquet"
    ran = cli("balance", "--recipe", "made.yaml", "--manifest", path, "--manifest", path)
    expect(ran, 3, "an image is in two of the manifests")


def test_a_recipe_that_is_not_there(cli: Cli, with_manifest: Path) -> None:
    expect(cli("balance", "--recipe", "valence_bin"), 2, "no recipe 'valence_bin'", "valence_bins.yaml")
    expect(cli("balance"), 2, "--recipe")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"balence": {}}, ["balence: unknown key"]),
        ({"pipelines": {"flip": [{"HorizontalFlip": {"p": 2}}]}}, ["pipelines.flip: step 0"]),
        (
            {"subtypes": {"default": {"pipeline": "flip"}, "Snake": {"pipeline": "flip"}}},
            ["'Snake'", "A, H, N"],
        ),
        ({"strata": ["mood"]}, ["no column 'mood'", "where: strata"]),
        ({"strata": ["gender"]}, ["gender is null in 18 of 18 rows"]),
        ({"bins": {"edges": [0, 1]}}, ["outside 0–1", "where: bins.edges"]),
        ({"where": "valence > "}, ["is not a valid condition", "where: where"]),
        ({"where": "valence > 1000"}, ["no row of gaped is left"]),
        (
            {"pipelines": {"flip": [{"VerticalFlip": {"p": 1.0}}]}},
            ["A: pipeline flip turns it upside down", "upright: false"],
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_bad_input(
    cli: Cli, with_manifest: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    write_recipe(with_manifest / "made.yaml", **changes)
    expect(cli("balance", "--recipe", "made.yaml"), 3, "error: ", *parts)
    assert not (with_manifest / "releases").exists()


def test_images_that_were_moved_are_bad_input_with_three_ways_out(
    cli: Cli, with_manifest: Path, gaped_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = gaped_copy.rename(with_manifest / "moved")
    ran = cli("balance", "--recipe", "made.yaml")
    expect(ran, 3, "were not found", "--root gaped=PATH", "AFFECTDATA_ROOTS=gaped=PATH", "ingest")
    assert not list((with_manifest / "releases").glob("[!.]*"))
    first = cli("balance", "--recipe", "made.yaml", "--root", f"gaped={moved}", "--json")
    assert first.code == 0
    monkeypatch.setenv("AFFECTDATA_ROOTS", f"gaped={moved}")
    other = cli("balance", "--recipe", "made.yaml", "--json", "--out", "other")
    assert (other.code, other.document["id"]) == (0, first.document["id"])
    expect(cli("balance", "--recipe", "made.yaml", "--root", "gaped"), 2, "SOURCE=PATH")


def test_one_image_that_is_gone_is_bad_input(cli: Cli, with_manifest: Path, gaped_copy: Path) -> None:
    image = next((gaped_copy / "P").glob("*.bmp"))
    data = image.read_bytes()
    image.unlink()
    expect(cli("balance", "--recipe", "made.yaml"), 3, f"P/{image.name}")
    image.write_bytes(data)
    assert cli("balance", "--recipe", "made.yaml").code == 0


def test_one_image_that_changed_is_an_integrity_error(
    cli: Cli, with_manifest: Path, gaped_copy: Path
) -> None:
    image = next((gaped_copy / "P").glob("*.bmp"))
    data = image.read_bytes()
    image.write_bytes(data + b"\0")
    expect(cli("balance", "--recipe", "made.yaml"), 4, f"P/{image.name} is not the file that was ingested")
    image.write_bytes(data)
    assert cli("balance", "--recipe", "made.yaml").code == 0


def test_a_image_behind_a_link_out_of_the_tree_is_not_read(
    cli: Cli, with_manifest: Path, gaped_copy: Path
) -> None:
    image = next((gaped_copy / "P").glob("*.bmp"))
    outside = image.rename(with_manifest / "outside.bmp")
    image.symlink_to(outside)
    expect(cli("balance", "--recipe", "made.yaml"), 4, "is outside the folder of gaped")


def test_a_release_that_is_there_and_damaged_is_an_integrity_error(cli: Cli, with_manifest: Path) -> None:
    made = Path(cli("balance", "--recipe", "made.yaml", "--json").document["release"])
    (made / "README.md").write_text("edited")
    expect(cli("balance", "--recipe", "made.yaml"), 4, "damaged", "README.md", "remove the folder")


def test_a_place_that_cannot_be_written(cli: Cli, with_manifest: Path) -> None:
    Path("file").write_text("")
    expect(cli("balance", "--recipe", "made.yaml", "--out", "file"), 3, "cannot write to", "--out")


def test_a_manifest_that_was_edited_is_an_integrity_error(cli: Cli, with_manifest: Path) -> None:
    path = with_manifest / "manifests" / "gaped.parquet"
    data = bytearray(path.read_bytes())
    middle = data.index(b"affectdata")
    digest = json.loads(data[data.index(b"{", middle) : data.rindex(b"}", middle) + 1])["digest"].encode()
    path.write_bytes(bytes(data).replace(digest, b"0" * 64))
    expect(cli("balance", "--recipe", "made.yaml"), 4, "the metadata of gaped.parquet", "re-run")
