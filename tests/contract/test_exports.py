"""The contract of every registered export format; then tests of single formats."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from affectdata.errors import ImagesNotFound, InputError, IntegrityError, UsageError
from affectdata.exports import webdataset
from affectdata.exports._write import export_release
from affectdata.registry import find_plugins, load_plugin
from affectdata.release.derived import release_terms
from affectdata.release.release import INFO_FILE, Release, open_release
from tests.made import contents, forge, publish, sample_id, sign

pytestmark = pytest.mark.slow

NAMES = find_plugins("exports")
PIPELINES = {"flip": [{"HorizontalFlip": {"p": 0.5}}, {"Affine": {"rotate": [-9, 9], "p": 1.0}}]}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plugin(name: str) -> ModuleType:
    return load_plugin("exports", name)


@pytest.fixture(scope="module")
def pair(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """The same release materialised and virtual. Not to be written to."""
    out = tmp_path_factory.mktemp("pair")
    files, virtual = (
        publish(small_gaped, out, pipelines=PIPELINES, mode=mode) for mode in ("files", "virtual")
    )
    return open_release(files.path), open_release(virtual.path, {"gaped": small_gaped})


@pytest.fixture
def made(pair: tuple[Release, Release]) -> Release:
    return pair[0]


def export(release: Release, name: str, out: Path, **options: Any) -> dict[str, bytes]:
    export_release(release, name, out, **{"may_redistribute": True, "workers": 1, **options})
    return contents(out)


def copied(release: Release, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release.path, tmp_path / release.name))


# --- all of them -----------------------------------------------------------------------------------------


def test_there_are_export_formats() -> None:
    assert {"croissant", "folders", "webdataset"} <= set(NAMES)


def test_a_second_run_and_more_workers_give_the_same_bytes(made: Release, name: str, tmp_path: Path) -> None:
    first = export(made, name, tmp_path / "a")
    assert first and export(made, name, tmp_path / "b", workers=3) == first


def test_a_virtual_release_gives_the_bytes_of_the_materialised_one(
    pair: tuple[Release, Release], plugin: ModuleType, name: str, tmp_path: Path
) -> None:
    files, virtual = (export(release, name, tmp_path / str(n)) for n, release in enumerate(pair))
    if not plugin.HAS_IMAGES:
        return
    ids = [release.id[:16].encode() for release in pair]
    assert virtual["README.md"].replace(ids[1], ids[0]) == files["README.md"]
    assert {**virtual, "README.md": b""} == {**files, "README.md": b""}


def test_a_forged_release_is_refused(made: Release, name: str, tmp_path: Path) -> None:
    def leak(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["split"] == "test")["group_id"] = next(
            row for row in rows if row["split"] == "train"
        )["group_id"]

    with pytest.raises(IntegrityError, match="group is in two splits"):
        export(forge(copied(made, tmp_path), leak), name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_lead_out_of_the_folder_are_refused(made: Release, name: str, tmp_path: Path) -> None:
    def escape(rows: list[dict[str, Any]]) -> None:
        first = rows[0]["image_id"]
        for row in rows:
            if row["image_id"] == first:
                row["image_id"] = row["group_id"] = "../../../../evil" + first[16:]
                row["sample_id"] = sample_id(row["image_id"], row["copy"])

    folder = copied(made, tmp_path)
    with pytest.raises(IntegrityError, match="image_id is not a SHA-256"):
        export(forge(folder, escape), name, tmp_path / "out")
    assert not list(tmp_path.rglob("evil*"))


def test_images_that_must_not_be_redistributed_are_refused(
    made: Release, plugin: ModuleType, name: str, tmp_path: Path
) -> None:
    if not plugin.HAS_IMAGES:
        export(made, name, tmp_path / "out", may_redistribute=False)
        return
    with pytest.raises(UsageError, match=r"the terms of gaped \(CC BY-NC-SA 3.0"):
        export(made, name, tmp_path / "out", may_redistribute=False)
    assert not (tmp_path / "out").exists()
    folder = copied(made, tmp_path)
    for licenses, why in [
        (["CC BY-SA 4.0", "CC BY-NC-SA 3.0"], "contradict each other .*CC BY-SA 4.0"),
        (["CC BY-ND 4.0"], "modified images, such as its copies, must not"),
    ]:
        with pytest.raises(UsageError, match=why):
            export(relicense(folder, licenses), name, tmp_path / "out", may_redistribute=False)
    export(relicense(folder, ["CC BY-SA 4.0"]), name, tmp_path / "out", may_redistribute=False)
    info = json.loads((folder / INFO_FILE).read_text())
    sign(folder, {**info, "manifests": []})  # terms that nobody states allow nothing
    with pytest.raises(IntegrityError, match=r"lacks the sources \['mine'\]"):
        export(open_release(folder), name, tmp_path / "more", may_redistribute=False)


def relicense(folder: Path, licenses: list[str]) -> Release:
    """Make the images those of a user's own collection, which may be redistributed, under these licences."""

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"source": "mine", "license": licenses[int(row["image_id"], 16) % len(licenses)]}

    release = forge(folder, change)
    entry = release.info["manifests"][0] | {"source": "mine", "license": licenses[0], "redistributable": True}
    sign(folder, release.info | {"manifests": [entry]})
    sign(folder, release.info | {"manifests": [entry], "terms": release_terms(open_release(folder))})
    return open_release(folder)


def test_the_terms_are_exported(made: Release, name: str, tmp_path: Path) -> None:
    text = export(made, name, tmp_path / "out")["README.md"].decode()
    assert made.id[:16] in text and "CC BY-NC-SA 3.0" in text and "Dan-Glauser" in text
    assert "must not be redistributed" in text


def test_a_changed_image_stops_the_export_and_nothing_is_left(
    pair: tuple[Release, Release], plugin: ModuleType, name: str, tmp_path: Path, gaped_copy: Path
) -> None:
    if not plugin.HAS_IMAGES:
        return
    folder = copied(pair[0], tmp_path)
    victim = folder / str(pair[0].table["file_name"][5])
    victim.write_bytes(victim.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match="differs from the released file"):
        export(open_release(folder), name, tmp_path / "out")

    def other_hash(rows: list[dict[str, Any]]) -> None:
        rows[5]["file_sha256"] = "0" * 64

    rounded = forge(copied(pair[1], tmp_path), other_hash)
    with pytest.raises(IntegrityError, match="the rendered image differs from the released one"):
        export(open_release(rounded.path, {"gaped": gaped_copy}), name, tmp_path / "out")
    with pytest.raises(ImagesNotFound):
        export(open_release(rounded.path, {"gaped": tmp_path / "nowhere"}), name, tmp_path / "out")
    left = {path.name for path in tmp_path.iterdir()} - {"gaped", pair[0].name, pair[1].name}
    assert left == set()


def test_an_existing_folder_is_not_touched(made: Release, name: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        export(made, name, tmp_path / "out")
    assert contents(tmp_path) == {"out/mine.txt": b"mine"}


def test_files_of_a_killed_run_are_removed(made: Release, name: str, tmp_path: Path) -> None:
    expected = export(made, name, tmp_path / "a")
    (tmp_path / ".b.partial" / "train").mkdir(parents=True)
    (tmp_path / ".b.partial" / "train" / "old.jpg").write_bytes(b"old")
    (tmp_path / ".b.partial" / "old.tar").write_bytes(b"old")
    assert export(made, name, tmp_path / "b") == expected
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


# --- folders ---------------------------------------------------------------------------------------------


def test_folders_hold_the_released_images_by_split_and_class(made: Release, tmp_path: Path) -> None:
    found = export(made, "folders", tmp_path / "out")
    rows = list(csv.DictReader(found.pop("labels.csv").decode().splitlines()))
    found.pop("README.md")
    assert set(found) == {row["file_name"] for row in rows} and len(rows) == len(made.table)
    for row, released in zip(rows, made.table.to_pylist(), strict=True):
        valence = released["valence"]
        expected = "negative" if valence < 40 else "positive" if valence > 60 else "neutral"
        assert row["file_name"] == f"{released['split']}/{expected}/{released['sample_id']}.jpg"
        assert (row["class"], float(row["valence"]), row["license"]) == (
            expected,
            valence,
            released["license"],
        )
        assert found[row["file_name"]] == made.read(released["file_name"])


def test_every_class_has_a_folder_in_every_split(made: Release, tmp_path: Path) -> None:
    export(made, "folders", tmp_path / "out", by="subtype")
    classes = set(made.table["subtype"].to_pylist())
    for split in set(made.table["split"].to_pylist()):
        assert {path.name for path in (tmp_path / "out" / split).iterdir()} == classes


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("mood", "no column 'mood'"),
        ("emotion", "emotion is null in"),
        ("arousal", "has no thresholds for it"),
        ("url", "is not a valid folder name"),
    ],
)
def test_a_column_that_gives_no_classes_is_refused(
    made: Release, tmp_path: Path, by: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        export(made, "folders", tmp_path / "out", by=by)
    assert list(tmp_path.iterdir()) == []


def test_classes_are_for_folders_alone(made: Release, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not sort by classes"):
        export(made, "webdataset", tmp_path / "out", by="subtype")


# --- webdataset ------------------------------------------------------------------------------------------


def test_shards_hold_every_pair_once_with_nothing_of_this_machine(
    made: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "_SHARD", 7)
    export(made, "webdataset", tmp_path / "out")
    seen: dict[str, list[str]] = {}
    of = {row["sample_id"]: row for row in made.table.to_pylist()}
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
                (0, 0, 0, "", "", 0o644)
            }
            assert len(members) <= 14
            for image, labels in zip(members[::2], members[1::2], strict=True):
                key, dot, ending = image.name.partition(".")
                assert (dot, ending, labels.name) == (".", "jpg", f"{key}.json")
                row = of[key]
                assert tar.extractfile(image).read() == made.read(row["file_name"])  # type: ignore[union-attr]
                record = json.loads(tar.extractfile(labels).read())  # type: ignore[union-attr]
                assert record["valence"] == row["valence"] and record["license"] == row["license"]
                seen.setdefault(row["split"], []).append(key)
                assert path.name == f"{row['split']}-{(len(seen[row['split']]) - 1) // 7:06d}.tar"
    assert {split: sorted(keys) for split, keys in seen.items()} == {
        split: sorted(made.split(split)["sample_id"].to_pylist()) for split in seen
    }
    assert sum(map(len, seen.values())) == len(of)
    images = [key.partition("-")[0] for key in seen["train"]]
    following = sum(one == other for one, other in itertools.pairwise(images))
    assert following < len(images) / 4  # copies of one image are apart


# --- croissant -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # those of the packages that mlcroissant loads
def test_croissant_is_valid_and_every_record_can_be_read(made: Release, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    folder = copied(made, tmp_path)
    export(made, "croissant", tmp_path / "out")
    shutil.copy(tmp_path / "out" / "croissant.json", folder)
    dataset = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert "https://schema.org/" in json.loads((folder / "croissant.json").read_text())["@context"]["@vocab"]
    rows = list(dataset.records("rows"))
    assert [row["rows/sample_id"].decode() for row in rows] == made.table["sample_id"].to_pylist()
    assert [row["rows/valence"] for row in rows] == made.table["valence"].to_pylist()
    images = {
        row["pictures/name"].decode(): row["pictures/image"].size for row in dataset.records("pictures")
    }
    assert images == {
        f"{row['sample_id']}.jpg": (row["out_width_px"], row["out_height_px"])
        for row in made.table.to_pylist()
    }


def test_croissant_of_a_virtual_release_has_no_images(pair: tuple[Release, Release], tmp_path: Path) -> None:
    document = json.loads(export(pair[1], "croissant", tmp_path / "out")["croissant.json"])
    assert [node["@id"] for node in document["distribution"]] == ["manifest.parquet"]
    assert [node["@id"] for node in document["recordSet"]] == ["rows"]


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_reports_its_output_and_has_exit_codes(
    made: Release, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("export", made.path, "--to", "folders")
    assert (ran.code, ran.out) == (2, "") and "--i-may-redistribute" in ran.err
    ran = cli("export", made.path, "--to", "folders", "--by", "subtype", "--i-may-redistribute", "--json")
    out = f"exports/{made.name}-folders"
    assert ran.code == 0 and Path(out, "labels.csv").is_file()
    assert ran.document == {
        "schema": "affectdata/export/1",
        "release": str(made.path),
        "to": "folders",
        "out": out,
    }
    assert cli("export", made.path, "--to", "croissant", "--out", "meta").out == "wrote meta\n"
    assert cli("export", made.path, "--to", "parchment").code == 2
