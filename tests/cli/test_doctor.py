"""`affectdata doctor`: nothing in a sound folder, else one finding with a way out for each problem."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from affectdata import api
from affectdata.check.study import Study, run_study
from affectdata.release.release import open_release
from affectdata.release.workspace import Problem
from affectdata.store.atomic import locked_folder, replace_file
from affectdata.store.parquet import write_table
from affectdata.store.sealed import write_sealed
from tests.made import publish

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def sound(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest and a release. Not to be written to."""
    folder = tmp_path_factory.mktemp("sound")
    publish(small_gaped, folder)
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "work"))


def found(folder: Path) -> list[tuple[str, str]]:
    return [(each.kind, str(each.path.relative_to(folder))) for each in api.doctor(folder)]


@pytest.mark.slow
def test_a_sound_folder_is_exit_0(cli: Cli, sound: Path) -> None:
    ran = cli("doctor", sound)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{sound}: nothing to mend\n"
    assert cli("doctor", sound, "--json").document["findings"] == []


def test_no_folder_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    assert cli("doctor", tmp_path / "none").code == 2


@pytest.mark.slow
def test_every_finding_has_a_way_out(cli: Cli, folder: Path) -> None:
    (folder / "releases" / "notes.txt").write_text("mine")
    ran = cli("doctor", folder)
    assert ran.code == 1
    assert "foreign: " in ran.out and "fix:   move it elsewhere" in ran.out
    (listed,) = cli("doctor", folder, "--json").document["findings"]
    assert listed["kind"] == "foreign" and listed["fix"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("manifests/.oasis.memo", "unfinished"),
        ("manifests/.gaped.parquet.0123abcd.tmp", "leftover"),
        ("manifests/mine.csv", "foreign"),
        ("manifests/gaped.mine.parquet", "foreign"),
        ("manifests/.local.json", "broken"),
        ("manifests/gaped.parquet", "broken"),
        ("manifests/gaped.edges.parquet", "broken"),
        ("releases/.r-01234567.partial/release.json", "unfinished"),
        ("releases/.r-01234567.journal/0.parquet", "unfinished"),
        ("releases/mine/a.jpg", "foreign"),
        ("checks/r-01234567/train-check.json", "orphaned"),
        ("checks/mine.txt", "foreign"),
        ("exports/.x.partial/a.jpg", "leftover"),
        ("suggestions/.suggest.json.0123abcd.tmp", "leftover"),
        ("manifests/other.groups.csv", "foreign"),
    ],
)
def test_one_finding_per_file(folder: Path, path: str, kind: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x")
    name = "/".join(Path(path).parts[:2])
    assert found(folder) == [(kind, name)]


def test_tables_without_their_manifest_are_orphaned(folder: Path) -> None:
    (folder / "manifests" / "gaped.parquet").unlink()
    kinds = {path: kind for kind, path in found(folder)}
    assert kinds["manifests/gaped.edges.parquet"] == kinds["manifests/gaped.rejects.parquet"] == "orphaned"
    assert kinds["manifests/.gaped.memo"] == "unfinished"


def test_images_that_moved_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "manifests" / ".local.json").write_text('{"roots": {"gaped": "/no/such/folder"}}')
    assert found(folder) == [("orphaned", "manifests/gaped.parquet")]


def release_of(folder: Path) -> Path:
    (release,) = (folder / "releases").glob("[!.]*")
    return release


def test_a_damaged_release_is_broken(folder: Path) -> None:
    image = next(release_of(folder).glob("train/*.jpg"))
    image.write_bytes(b"x")
    (problem,) = api.doctor(folder)
    assert (problem.kind, problem.path) == ("broken", release_of(folder))
    assert image.name in problem.text and "affectdata verify" in problem.fix


def test_a_link_to_a_release_is_no_problem_unless_it_leads_nowhere(folder: Path) -> None:
    link = folder / "releases" / "current"
    link.symlink_to(release_of(folder).name)
    assert found(folder) == []
    link.unlink()
    link.symlink_to("none-01234567")
    assert found(folder) == [("broken", "releases/current")]


def test_what_a_run_writes_now_is_in_use(folder: Path) -> None:
    def kinds(problems: list[Problem]) -> set[str]:
        return {problem.kind for problem in problems}

    with locked_folder(folder / "releases" / ".r-01234567.partial"):
        assert kinds(api.doctor(folder)) == {"in use"}
    (folder / "releases" / ".r-01234567.partial").rmdir()
    with replace_file(folder / "manifests" / "gaped.parquet") as temporary:
        shutil.copy(folder / "manifests" / "gaped.parquet", temporary)
        assert kinds(api.doctor(folder)) == {"in use"}


def test_a_check_that_did_not_finish(folder: Path) -> None:
    (folder / "checks" / release_of(folder).name / ".splits").mkdir(parents=True)
    (problem,) = api.doctor(folder)
    assert problem.kind == "unfinished" and problem.fix.startswith("affectdata train-check ")


def test_what_affectdata_and_git_write_beside_is_no_problem(folder: Path) -> None:
    for name in ("manifests/gaped.groups.csv", "manifests/.gitignore", "releases/.gitkeep"):
        (folder / name).write_text("x")
    assert found(folder) == []


def test_a_file_in_place_of_a_folder_is_foreign(folder: Path) -> None:
    (folder / "checks").symlink_to("nowhere")
    assert found(folder) == [("foreign", "checks")]


def score(settings: dict[str, Any]) -> dict[str, Any]:
    return {"scores": {"val": {"r2": settings["dropout"]}}}


def damage_run(folder: Path) -> None:
    path = next((folder / "runs").glob("*.json"))
    path.write_text(path.read_text().replace("0.5", "0.6"))


@pytest.mark.parametrize(
    ("damage", "kind", "fix"),
    [
        (lambda folder: (folder / "study.json").unlink(), "unfinished", "affectdata study mine "),
        (lambda folder: (folder / "study.json").write_text("{}"), "broken", "affectdata study mine "),
        (lambda folder: (folder / "results.csv").write_text("x"), "broken", "affectdata study mine "),
        (damage_run, "broken", "rm "),
    ],
)
def test_a_study(folder: Path, damage: Callable[[Path], Any], kind: str, fix: str) -> None:
    path = folder / "checks" / release_of(folder).name / "studies" / "mine"
    study = Study(name="mine", best="r2", grid={"dropout": [0.5]}, seeds=[0])
    run_study(study, score, path)
    assert found(folder) == []
    (path.parent / "notes.txt").write_text("mine")
    assert found(folder) == [("foreign", str((path.parent / "notes.txt").relative_to(folder)))]
    (path.parent / "notes.txt").unlink()
    damage(path)
    (problem,) = api.doctor(folder)
    assert problem.kind == kind and problem.fix.startswith(fix)
    assert "affectdata study mine " in problem.fix


def test_a_check_of_another_release_or_with_other_predictions(folder: Path) -> None:
    path = folder / "checks" / release_of(folder).name
    digest = write_table(pa.table({"a": [1]}), path / "predictions.parquet", "predictions")
    release = {"id": open_release(release_of(folder)).id}
    write_sealed(path / "train-check.json", {"release": release, "predictions_digest": digest})
    assert found(folder) == []
    for change in ({"release": {"id": "0" * 64}}, {"predictions_digest": "0" * 64}):
        write_sealed(path / "train-check.json", {"release": release, "predictions_digest": digest, **change})
        (problem,) = api.doctor(folder)
        assert problem.kind == "broken" and " of another " in problem.text


def test_a_ledger_that_is_gone_is_named(folder: Path) -> None:
    assert api.split(folder / "manifests" / "gaped.parquet", "valence_bins")
    assert found(folder) == []
    (folder / "manifests" / "gaped.ledger.parquet").unlink()
    (problem,) = api.doctor(folder)
    assert problem.kind == "broken" and "restore gaped.ledger.parquet from a copy" in problem.fix
