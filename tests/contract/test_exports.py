"""The contract of every registered export format; then tests of single formats."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from affectdata.errors import ImagesNotFound, InputError, IntegrityError, UsageError
from affectdata.exports import webdataset
from affectdata.exports._write import export_release
from affectdata.manifest.ingest import ingest
from affectdata.reading.protocol import ReadOptions
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
    assert {"croissant", "fiftyone", "folders", "hf", "label_studio", "webdataset"} <= set(NAMES)


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


def _link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "image")
    path.symlink_to(path.parent.parent.parent / "image")


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("README.md", lambda path: path.write_text("others")),
        ("croissant.json", lambda path: path.unlink()),
        ("notes.txt", lambda path: path.write_text("mine")),
        ("train/metadata.parquet", lambda path: shutil.copy(path.parents[1] / "val" / path.name, path)),
        ("SHA256SUMS", lambda path: path.write_text(path.read_text() + "\n")),
        ("new", Path.mkdir),
        ("train/*.jpg", _link),
    ],
)
def test_what_verify_rejects_is_not_exported(
    pair: tuple[Release, Release], name: str, tmp_path: Path, file: str, change: Callable[[Path], Any]
) -> None:
    folder = copied(pair[0], tmp_path)
    change(next(iter(sorted(folder.glob(file))), folder / file))
    with pytest.raises(IntegrityError):
        export(open_release(folder), name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
    for split in set(made.table["split"].to_pylist()):
        own = pq.read_table(io.BytesIO(found.pop(f"{split}/metadata.parquet"))).to_pylist()
        named = [f"{split}/{row['file_name']}" for row in own]
        assert named == [row["file_name"] for row in rows if row["split"] == split]
        for row, released in zip(own, made.split(split).to_pylist(), strict=True):
            assert {**released, "file_name": row["file_name"], "class": row["class"]} == row
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
        assert {path.name for path in (tmp_path / "out" / split).iterdir() if path.is_dir()} == classes


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("mood", "no column 'mood'"),
        ("emotion", "emotion is null in"),
        ("arousal", "has no thresholds for it"),
    ],
)
def test_a_column_that_gives_no_classes_is_refused(
    made: Release, tmp_path: Path, by: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        export(made, "folders", tmp_path / "out", by=by)
    assert list(tmp_path.iterdir()) == []


def test_croissant_takes_no_classes(made: Release, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not sort by classes"):
        export(made, "croissant", tmp_path / "out", by="subtype")


# --- webdataset ------------------------------------------------------------------------------------------


def test_shards_hold_every_pair_once_with_nothing_of_this_machine(
    made: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "_SHARD", 7)
    export(made, "webdataset", tmp_path / "out")
    seen: dict[str, list[str]] = {}
    of = {row["sample_id"]: row for row in made.table.to_pylist()}
    names = json.loads((tmp_path / "out" / "_info.json").read_text())["class_names"]
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
                (0, 0, 0, "", "", 0o644)
            }
            assert len(members) <= 21
            for image, code, labels in zip(members[::3], members[1::3], members[2::3], strict=True):
                key, dot, ending = image.name.partition(".")
                assert (dot, ending, code.name, labels.name) == (".", "jpg", f"{key}.cls", f"{key}.json")
                row = of[key]
                name = names[int(tar.extractfile(code).read())]  # type: ignore[union-attr]
                valence = row["valence"]
                assert name == ("negative" if valence < 40 else "positive" if valence > 60 else "neutral")
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


def test_timm_finds_the_shards_of_every_split(
    made: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = pytest.importorskip("timm.data.readers.reader_wds")
    monkeypatch.setattr(webdataset, "_SHARD", 7)
    export(made, "webdataset", tmp_path / "out", by="subtype")
    info = json.loads((tmp_path / "out" / "_info.json").read_text())
    assert info["class_names"] == sorted(set(made.table["subtype"].to_pylist()))
    for split in set(made.table["split"].to_pylist()):
        found = reader._parse_split_info(split, info)
        assert (found.num_samples, sum(found.shard_lengths)) == (len(made.split(split)),) * 2
        assert set(found.filenames) == {path.name for path in (tmp_path / "out").glob(f"{split}-*.tar")}


def test_rows_without_a_class_leave_out_the_files_of_classes(made: Release, tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["emotion"] = "joy" if row["image_id"] < "8" else None

    release = forge(copied(made, tmp_path), change)
    with pytest.raises(InputError, match="emotion is null in"):
        export(release, "webdataset", tmp_path / "out", by="emotion")
    rows = {row["sample_id"]: row for row in release.table.to_pylist()}
    export(release, "hf", tmp_path / "hf", by="emotion")
    shards = [pq.read_table(path) for path in (tmp_path / "hf").rglob("*.parquet")]
    found = [row for shard in shards for row in shard.select(["sample_id", "class"]).to_pylist()]
    assert {row["sample_id"]: row["class"] for row in found} == {
        key: None if row["emotion"] is None else 0 for key, row in rows.items()
    }


# --- an export is ingested again -------------------------------------------------------------------------


def test_an_export_is_recognised_and_comes_back_image_for_image(
    made: Release, plugin: ModuleType, name: str, tmp_path: Path
) -> None:
    """By the hash of its file, every row has its labels and split; tasks for raters have originals only."""
    if not plugin.HAS_IMAGES:
        return
    export(made, name, tmp_path / "mine")
    result = ingest(tmp_path / "mine", out=tmp_path / "manifests", workers=1)
    columns = ("split", "subtype", "valence", "valence_raw", "arousal", "emotion", "license")
    expected = {
        row["file_sha256"]: [row[column] for column in columns]
        for row in made.table.to_pylist()
        if name != "label_studio" or not row["copy"]
    }
    found = {
        row["image_id"]: [row[column] for column in columns] for row in result.manifest.table.to_pylist()
    }
    assert found == expected and result.counts["rejected"] == 0


# --- FiftyOne and Label Studio ---------------------------------------------------------------------------


def test_fiftyone_has_a_sample_for_every_row(made: Release, tmp_path: Path) -> None:
    files = export(made, "fiftyone", tmp_path / "out")
    samples = json.loads(files["samples.json"])["samples"]
    assert [sample["sample_id"] for sample in samples] == made.table["sample_id"].to_pylist()
    for sample, row in zip(samples, made.table.to_pylist(), strict=True):
        assert files[sample["filepath"]] == made.read(row["file_name"])
        split = {"val": "validation"}.get(row["split"], row["split"])
        assert sample["tags"] == [split, "copy" if row["copy"] else "original"]
        size = (sample["metadata"]["width"], sample["metadata"]["height"])
        assert size == (row["out_width_px"], row["out_height_px"])
        valence = row["valence"]
        word = "negative" if valence < 40 else "positive" if valence > 60 else "neutral"
        assert sample["ground_truth"] == {"_cls": "Classification", "label": word}
        fields = {"valence", "subtype", "emotion", "weight", "file_sha256", "license", "extra"}
        assert {name: sample[name] for name in fields} == {name: row[name] for name in fields}
        reserved = {"id", "created_at", "last_modified_at"}  # of every sample
        assert not reserved & set(sample) and not any(name.startswith("_") for name in sample)
    metadata = json.loads(files["metadata.json"])
    assert "version" not in metadata  # with one it would be read as a dump of a database
    classes = {"ground_truth": ["negative", "neutral", "positive"]}
    assert metadata == {"media_type": "image", "info": {"name": "made", "classes": classes}}


def test_tasks_are_the_originals_by_disagreement(made: Release, tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            known = row["image_id"] < "c"
            row["valence_sd"] = int(row["image_id"][:2], 16) / 10 if known else None
            row["valence_n"] = 9 if known else None

    release = forge(copied(made, tmp_path), change)
    files = export(release, "label_studio", tmp_path / "out")
    tasks = [task["data"] for task in json.loads(files["tasks.json"])]
    rows = {row["sample_id"]: row for row in release.table.to_pylist() if not row["copy"]}
    assert {task["sample_id"] for task in tasks} == set(rows) and len(tasks) == len(rows)
    spreads = [task["valence_sd"] for task in tasks if task["valence_sd"] is not None]
    assert spreads == sorted(spreads, reverse=True) and len(spreads) > 3
    assert all(task["valence_sd"] is None for task in tasks[len(spreads) :])
    for task in tasks:
        assert task["image"] == f"/data/local-files/?d={task['file_name']}"
        assert files[task["file_name"]] == release.read(rows[task["sample_id"]]["file_name"])
        assert (task["valence"], task["split"]) == (
            rows[task["sample_id"]]["valence"],
            rows[task["sample_id"]]["split"],
        )
    interface = ElementTree.fromstring(files["label_config.xml"])
    (rating,) = interface.iter("Rating")
    assert rating.attrib == {
        "name": "new_valence",
        "toName": "image",
        "required": "true",
        "maxRating": "9",
    }
    assert rating.attrib["name"] not in tasks[0]
    assert [image.attrib["value"] for image in interface.iter("Image")] == ["$image"]


def test_classes_are_choices_and_agreement_decides_the_order(made: Release, tmp_path: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["emotion"] = "joy & <awe>" if row["image_id"] < "8" else "fear"
            row["agreement"] = int(row["image_id"][:2], 16) / 256

    release = forge(copied(made, tmp_path), change)
    files = export(release, "label_studio", tmp_path / "out", by="emotion")
    interface = ElementTree.fromstring(files["label_config.xml"])
    assert [choice.attrib["value"] for choice in interface.iter("Choice")] == ["fear", "joy & <awe>"]
    shares = [task["data"]["agreement"] for task in json.loads(files["tasks.json"])]
    assert shares == sorted(shares)


def test_new_ratings_of_label_studio_are_ingested(made: Release, tmp_path: Path) -> None:
    """JSON-MIN, as it exports the results of two raters, with the column map of the page."""
    files = export(made, "label_studio", tmp_path / "out")
    tasks = [task["data"] for task in json.loads(files["tasks.json"])]
    answers = [
        {**task, "id": number, "annotator": rater, "annotation_id": number, "new_valence": 3 + rater}
        for number, task in enumerate(tasks)
        for rater in (1, 2)
    ]
    (tmp_path / "out" / "answers.json").write_text(json.dumps(answers))
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "new_valence" in block)
    (tmp_path / "columns.yaml").write_text(text)
    options = ReadOptions(map_path=tmp_path / "columns.yaml")
    result = ingest(tmp_path / "out", source="table", options=options, out=tmp_path / "manifests", workers=1)
    found = result.manifest.table
    assert len(found) == len(tasks)
    assert set(found["valence"].to_pylist()) == {43.75} and set(found["valence_n"].to_pylist()) == {2}


# --- croissant -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # those of the packages that mlcroissant loads
@pytest.mark.parametrize("at", [0, 1], ids=["files", "virtual"])
def test_croissant_of_a_release_is_valid_and_every_record_is_read_where_it_lies(
    pair: tuple[Release, Release], at: int
) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    release = pair[at]
    dataset = mlcroissant.Dataset(jsonld=str(release.path / "croissant.json"))
    issues = dataset.metadata.ctx.issues
    assert not issues.errors and all("datePublished" in warning for warning in issues.warnings)
    check_records(dataset, release)
    if release.is_virtual:
        assert {each.id for each in dataset.metadata.record_sets} == {"rows", "splits"}
        return
    images = {row["images/name"].decode(): row["images/image"].size for row in dataset.records("images")}
    assert images == {
        f"{row['sample_id']}.jpg": (row["out_width_px"], row["out_height_px"])
        for row in release.table.to_pylist()
    }


def check_records(dataset: Any, release: Release) -> None:
    splits = {row["splits/name"] for row in dataset.records("splits")}
    assert {str(name, "utf-8") if isinstance(name, bytes) else name for name in splits} == set(
        release.table["split"].to_pylist()
    )
    rows = list(dataset.records("rows"))
    for name in ("sample_id", "split"):
        assert [row[f"rows/{name}"].decode() for row in rows] == release.table[name].to_pylist()
    assert [row["rows/valence"] for row in rows] == release.table["valence"].to_pylist()
    missing = sum(row["rows/emotion"] is None or row["rows/emotion"] != row["rows/emotion"] for row in rows)
    assert missing == release.table["emotion"].null_count


@pytest.mark.filterwarnings("ignore")
def test_the_croissant_export_has_its_table_and_is_read_where_it_lies(made: Release, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    export(made, "croissant", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert "https://creativecommons.org/licenses/by-nc-sa/3.0/" in document["license"]
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    check_records(dataset, made)
    assert [node["@id"] for node in document["distribution"]] == ["manifest.parquet"]


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
