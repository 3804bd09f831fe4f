"""Releases: opening, checking every file, and finding forged lineage though every hash was recomputed."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import yaml

import affectdata
from affectdata.errors import ImagesNotFound, IntegrityError, ManifestError, UsageError
from affectdata.images.phash import VIEWS
from affectdata.release.lineage import check_lineage, validate_release
from affectdata.release.release import KIND, TABLE_FILE, newest_release, open_release
from affectdata.release.verify import check_files, check_release
from affectdata.schema import METADATA_KEY, PLAN, manifest_schema, release_schema
from affectdata.store import parquet
from affectdata.store.parquet import read_table, write_table
from tests.made import copy_seed, forge, publish, reseal, sample_id

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound release. Not to be written to."""
    return publish(small_gaped, tmp_path_factory.mktemp("made")).path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made, tmp_path / made.name))


def kinds(path: Path) -> set[tuple[str, str]]:
    return {(finding.kind, finding.text) for finding in check_release(open_release(path))}


# --- opening ---------------------------------------------------------------------------------------------


def test_a_release_opens_as_it_was_written(made: Path) -> None:
    release = affectdata.open_release(made)
    assert release.table.schema == release_schema(manifest_schema())
    assert release.name == made.name
    assert release.id.startswith(made.name.removeprefix("made-"))
    assert release.recipe_document["name"] == "made"
    sizes = [len(release.split(name)) for name in ("train", "val", "test")]
    assert sum(sizes) == len(release.table)
    assert release.read(release.table["file_name"][0].as_py())[:2] == b"\xff\xd8"
    with pytest.raises(IntegrityError, match=r"train/none\.jpg is missing"):
        release.read("train/none.jpg")


def test_a_folder_that_is_not_finished_is_no_release(folder: Path, tmp_path: Path) -> None:
    (folder / "release.json").unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(ManifestError, match="is not a finished release") as caught:
            open_release(path)
        assert "balance" in caught.value.fix


@pytest.mark.parametrize("info", ["[]", '{"schema": "affectdata/release/4"}', '{"schema": [3]}', "no json"])
def test_a_release_json_of_an_unknown_form_is_refused(folder: Path, info: str) -> None:
    (folder / "release.json").write_text(info)
    with pytest.raises(ManifestError, match=r"release\.json"):
        open_release(folder)


def test_a_release_knows_where_its_source_images_are(made: Path, small_gaped: Path, tmp_path: Path) -> None:
    release = open_release(made)
    notes = made.parent.parent / "manifests"
    row = release.table.slice(0, 1).to_pylist()[0]
    data = release.images(notes).read("gaped", row["path"], row["image_id"])
    assert data == (small_gaped / row["path"]).read_bytes()
    with pytest.raises(ImagesNotFound):
        release.images(tmp_path)
    given = open_release(made, roots={"gaped": small_gaped})
    assert given.images(tmp_path).roots == {"gaped": small_gaped}


def test_the_newest_release_is_the_one_that_was_made_last(folder: Path, tmp_path: Path) -> None:
    older = shutil.copytree(folder, tmp_path / "zzz")
    info = json.loads((older / "release.json").read_text())
    (older / "release.json").write_text(json.dumps({**info, "created": "2001-01-01T00:00:00+00:00"}))
    (tmp_path / "unfinished").mkdir()
    assert newest_release(tmp_path) == folder


def test_without_a_release_there_is_no_newest(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="no release in") as caught:
            newest_release(path)
        assert "balance" in caught.value.fix


# --- files -----------------------------------------------------------------------------------------------


def test_a_sound_release_has_no_findings(made: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert check_release(open_release(made), lambda done, of: seen.append((done, of))) == []
    n_files = len((made / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert seen == sorted(seen) and seen[-1] == (n_files, n_files)


FILES = ["recipe.yaml", "README.md", "SHA256SUMS", "train/metadata.parquet", "picture"]


def file_of(folder: Path, name: str) -> Path:
    return next((folder / "val").glob("*.jpg")) if name == "picture" else folder / name


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_named(folder: Path, name: str) -> None:
    file = file_of(folder, name)
    data = file.read_bytes()
    for spoiled in (data + b"\n", data[: len(data) // 2], b"\xff\xfe\x00", b""):
        file.write_bytes(spoiled)
        findings = kinds(folder)
        assert any(kind == "changed" and file.name in text for kind, text in findings)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    file = file_of(folder, name)
    file.unlink()
    findings = kinds(folder)
    assert ("missing", f"{file.relative_to(folder).as_posix()} does not exist") in findings


def test_an_image_that_became_one_of_a_billion_pixels_is_named(folder: Path) -> None:
    file = file_of(folder, "picture")
    header = b"\x00\x00\x00\rIHDR" + (50_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + zlib.crc32(header[4:]).to_bytes(4))
    name = file.relative_to(folder).as_posix()
    assert kinds(folder) == {("changed", f"{name} differs from the published file")}


def test_a_link_to_a_folder_is_an_added_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "train" / "more").symlink_to(tmp_path / "elsewhere")
    assert kinds(folder) == {("added", "train/more is not part of the release")}


@pytest.mark.parametrize("name", ["notes.txt", "train/0123-0.jpg", ".hidden", "train/deep/er/x.jpg"])
def test_an_added_file_is_named(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"no part of it")
    assert kinds(folder) == {("added", f"{name} is not part of the release")}


def test_an_image_without_a_row_is_named_though_every_hash_is_right(folder: Path) -> None:
    shutil.copy(file_of(folder, "picture"), folder / "val" / "more.jpg")
    reseal(folder)
    assert kinds(folder) == {("added", "val/more.jpg is in no row of manifest.parquet")}


def test_swapped_images_are_both_named(folder: Path) -> None:
    first, second, *_ = sorted((folder / "train").glob("*.jpg"))
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    changed = {f"train/{file.name} differs from the published file" for file in (first, second)}
    assert kinds(folder) == {("changed", text) for text in changed}


def test_an_edited_table_does_not_open(folder: Path) -> None:
    table, _ = read_table(folder / TABLE_FILE, KIND)
    frame = table.to_pandas()
    frame.loc[0, "valence"] += 1
    edited = pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False)
    packed = {METADATA_KEY: pa.parquet.read_metadata(folder / TABLE_FILE).metadata[METADATA_KEY]}
    pa.parquet.write_table(edited.replace_schema_metadata(packed), folder / TABLE_FILE)
    with pytest.raises(IntegrityError, match="are not those that were written"):
        open_release(folder)


def test_a_table_of_another_release_does_not_open(folder: Path) -> None:
    table, _ = read_table(folder / TABLE_FILE, KIND)
    write_table(table, folder / TABLE_FILE, KIND, {"release": "0" * 64})
    with pytest.raises(IntegrityError, match="belongs to another release"):
        open_release(folder)


def test_a_table_without_its_columns_does_not_open(folder: Path) -> None:
    table, metadata = read_table(folder / TABLE_FILE, KIND)
    write_table(table.drop_columns(["seed", "group_id"]), folder / TABLE_FILE, KIND, metadata)
    with pytest.raises(IntegrityError, match="lacks the columns group_id, seed"):
        open_release(folder)


def test_a_table_of_other_types_does_not_open(folder: Path) -> None:
    table, metadata = read_table(folder / TABLE_FILE, KIND)
    at = table.column_names.index("copy")
    other = table.set_column(at, "copy", table["copy"].cast(pa.string()))
    write_table(other, folder / TABLE_FILE, KIND, metadata)
    with pytest.raises(IntegrityError, match="has columns of a wrong type: copy"):
        open_release(folder)


@pytest.mark.parametrize("name", ["copy", "split", "image_id", "sample_id", "seed"])
def test_a_null_in_a_required_column_is_found(folder: Path, name: str) -> None:
    table, metadata = read_table(folder / TABLE_FILE, KIND)
    rows = table.to_pylist()
    rows[1][name] = None
    schema = pa.schema([field.with_nullable(True) for field in table.schema])
    write_table(pa.Table.from_pylist(rows, schema), folder / TABLE_FILE, KIND, metadata)
    texts = [finding.text for finding in check_lineage(open_release(folder))]
    assert any(text.endswith(f": {name} is null") for text in texts), texts


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_release_that_lost_its_table_is_damaged(folder: Path, damage: str) -> None:
    file = folder / TABLE_FILE
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=r"manifest\.parquet"):
        open_release(folder)


def test_labels_edited_for_hugging_face_alone_are_found(folder: Path) -> None:
    """Every hash is right, yet `load_dataset` would give other labels than `open_release`."""
    path = folder / "train" / "metadata.parquet"
    table, _ = read_table(path, "metadata")
    at = table.column_names.index("valence")
    write_table(table.set_column(at, "valence", pa.array([50.0] * len(table))), path, "metadata")
    reseal(folder)
    assert kinds(folder) == {("changed", "train/metadata.parquet differs from manifest.parquet")}


# --- forged lineage --------------------------------------------------------------------------------------


def a_copy(rows: Rows) -> dict[str, Any]:
    return next(row for row in rows if row["copy"] == 1)


def original_of(rows: Rows, row: dict[str, Any]) -> dict[str, Any]:
    return next(own for own in rows if own["copy"] == 0 and own["image_id"] == row["image_id"])


def move(row: dict[str, Any], split: str) -> None:
    row["split"] = split
    row["file_name"] = f"{split}/{Path(row['file_name']).name}"


def copy_in_val(rows: Rows) -> None:
    move(a_copy(rows), "val")


def original_in_test(rows: Rows) -> None:
    move(original_of(rows, a_copy(rows)), "test")


def family_in_test(rows: Rows) -> None:
    parent = a_copy(rows)["image_id"]
    for row in rows:
        if row["image_id"] == parent:
            move(row, "test")


def original_gone(rows: Rows) -> None:
    rows.remove(original_of(rows, a_copy(rows)))


def copy_as_original(rows: Rows) -> None:
    row = a_copy(rows)
    row.update(copy=0, sample_id=sample_id(row["image_id"], 0), seed=copy_seed(0, row["image_id"], 0))


def group_over_two(rows: Rows) -> None:
    in_train, in_test = (next(r for r in rows if r["split"] == split) for split in ("train", "test"))
    group = in_train["group_id"]
    for row in rows:
        if row["image_id"] == in_test["image_id"]:
            row["group_id"] = group


def other_seed(rows: Rows) -> None:
    a_copy(rows)["seed"] += 1


def other_key(rows: Rows) -> None:
    a_copy(rows)["sample_id"] = "0123456789abcdef-1"


def other_label(rows: Rows) -> None:
    a_copy(rows)["valence"] = 99.0


def ratings_inverted(rows: Rows) -> None:
    for row in rows:
        row["valence"] = 100 - row["valence"]


def weight_infinite(rows: Rows) -> None:
    rows[0]["weight"] = float("inf")


def label_taken_away(rows: Rows) -> None:
    a_copy(rows)["subtype"] = None


def other_source_row(rows: Rows) -> None:
    a_copy(rows)["path"] = "P/P001.bmp"


def other_folder(rows: Rows) -> None:
    row = next(row for row in rows if row["split"] == "test")
    row["file_name"] = f"train/{Path(row['file_name']).name}"


def unknown_pipeline(rows: Rows) -> None:
    a_copy(rows)["pipeline"] = "brighten"


def no_pipeline(rows: Rows) -> None:
    a_copy(rows)["pipeline"] = ""


def out_of_order(rows: Rows) -> None:
    rows.reverse()


def copies_out_of_order(rows: Rows) -> None:
    at = next(at for at, row in enumerate(rows) if row["copy"] == 1)
    rows[at - 1], rows[at] = rows[at], rows[at - 1]


def copy_below_zero(rows: Rows) -> None:
    a_copy(rows)["copy"] = -1


def copy_beyond_all(rows: Rows) -> None:
    a_copy(rows)["copy"] = 2**31 - 1


def no_image_id(rows: Rows) -> None:
    a_copy(rows)["image_id"] = "../" * 20


@pytest.mark.slow
@pytest.mark.parametrize("held", [3, 8192])
@pytest.mark.parametrize(
    ("change", "promise"),
    [
        (out_of_order, "is not in the order of images"),
        (copies_out_of_order, "is not in the order of copies"),
        (copies_out_of_order, "the original is not in the same split"),
        (copy_below_zero, "copy is negative"),
        (copy_beyond_all, "sample_id does not follow from image and copy"),
        (no_image_id, "image_id is not a SHA-256"),
        (copy_in_val, "is a copy outside train"),
        (copy_in_val, "the original is not in the same split"),
        (original_in_test, "the original is not in the same split"),
        (family_in_test, "is a copy outside train"),
        (original_gone, "the original is not in the same split"),
        (copy_as_original, "is a duplicate row"),
        (group_over_two, "group is in two splits"),
        (other_seed, "seed does not follow from image and copy"),
        (other_key, "sample_id does not follow from image and copy"),
        (other_label, "copies have other labels than the original"),
        (label_taken_away, "copies have other labels than the original"),
        (other_source_row, "copies have other labels than the original"),
        (other_folder, "is in the folder of another split"),
        (unknown_pipeline, "pipeline is not in the recipe"),
        (no_pipeline, "is a copy without pipeline"),
        (ratings_inverted, "valence does not follow from valence_raw and its scale"),
        (weight_infinite, "weight is not a finite number >= 0"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_forged_release_is_found_though_every_hash_is_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Rows], None], promise: str, held: int
) -> None:
    release = forge(folder, change)
    monkeypatch.setattr(parquet, "STREAM_ROWS", held)
    if change not in (original_gone, copy_as_original):  # these leave an image without a row
        assert check_files(release) == []
    texts = [finding.text for finding in check_lineage(release)]
    assert any(promise in text for text in texts), texts
    with pytest.raises(IntegrityError) as caught:
        validate_release(release)
    assert promise in caught.value.what
    assert caught.value.exit_code == 4


def two_images(rows: Rows) -> tuple[dict[str, Any], dict[str, Any]]:
    """An original of train and one of test."""
    first, second = (next(r for r in rows if r["split"] == s and not r["copy"]) for s in ("train", "test"))
    return first, second


def same_file(rows: Rows) -> None:
    train, test = two_images(rows)
    train["file_sha256"] = test["file_sha256"]


def same_file_in_a_copy(rows: Rows) -> None:
    a_copy(rows)["file_sha256"] = two_images(rows)[1]["file_sha256"]


def same_pixels(rows: Rows) -> None:
    train, test = two_images(rows)
    for row in rows:
        if row["image_id"] == train["image_id"]:
            row["pixel_id"] = test["pixel_id"]


def look_alike(rows: Rows) -> None:
    """The image of train is that of test, mirrored."""
    train, test = two_images(rows)
    views = test["phash"] + test["phash_views"]
    swapped = [VIEWS.index(name) for name in ("flip_h", "identity", "turn_180", "flip_v")]
    swapped += [VIEWS.index(name) for name in ("turn_90", "transpose", "transverse", "turn_270")]
    mirrored = "".join(views[16 * at : 16 * at + 16] for at in swapped)
    for row in rows:
        if row["image_id"] == train["image_id"]:
            row.update(phash=mirrored[:16], phash_views=mirrored[16:])


def no_phash(rows: Rows) -> None:
    rows[0].update(phash="none")


def leads_out(rows: Rows) -> None:
    rows[0].update(file_name=f"{rows[0]['split']}/../{rows[0]['split']}/{rows[0]['sample_id']}.jpg")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (same_file, "equal files are in two splits"),
        (same_file_in_a_copy, "equal files are in two splits"),
        (same_pixels, "equal pixels are in two splits"),
        (look_alike, "looks like an image of another split"),
        (no_phash, "phash is not valid"),
        (leads_out, "file_name does not follow from sample_id"),
    ],
)
def test_duplicates_in_two_splits_are_found_whatever_the_ids(
    folder: Path, change: Callable[[Rows], None], why: str
) -> None:
    assert any(why in finding.text for finding in check_lineage(forge(folder, change)))


def test_a_seed_edited_in_the_recipe_is_found(folder: Path) -> None:
    document = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**document, "seed": 1}))
    reseal(folder)
    recipe, seed = check_release(open_release(folder))
    assert "recipe_sha256 is" in recipe.text
    assert "seed does not follow from image and copy" in seed.text


def test_a_finding_names_the_first_and_counts_the_others(folder: Path) -> None:
    def all_seeds(rows: Rows) -> None:
        for row in rows:
            row["seed"] += 1

    release = forge(folder, all_seeds)
    (finding,) = check_lineage(release)
    first = release.table["sample_id"][0].as_py()
    assert finding.text.startswith(first)
    assert f"and {len(release.table) - 3} more" in finding.text


def test_a_sound_release_passes(made: Path) -> None:
    validate_release(open_release(made))


# --- other tools -----------------------------------------------------------------------------------------


def test_sha256sum_checks_a_release(made: Path, folder: Path) -> None:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum on this machine")
    subprocess.run([tool, "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=made, check=True)
    next((folder / "val").glob("*.jpg")).write_bytes(b"")
    done = subprocess.run([tool, "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert done.returncode == 1


def test_the_table_opens_in_pandas_duckdb_and_polars(made: Path) -> None:
    release = open_release(made)
    path = str(made / TABLE_FILE)
    expected = release.table["valence"].to_pylist()
    assert pd.read_parquet(path)["valence"].tolist() == expected
    assert pl.read_parquet(path)["valence"].to_list() == expected
    with duckdb.connect() as connection:
        assert [
            row[0] for row in connection.execute("SELECT valence FROM read_parquet(?)", [path]).fetchall()
        ] == expected


@pytest.mark.slow
def test_hugging_face_loads_real_splits_with_their_labels(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about its own dependencies
        import datasets

        datasets.disable_progress_bars()
        loaded = datasets.load_dataset(str(made), cache_dir=str(tmp_path / "cache"))
        names = {"train": "train", "val": "validation", "test": "test"}
        release = open_release(made)
        assert set(loaded) == set(names.values())
        for ours, theirs in names.items():
            part, rows = loaded[theirs], release.split(ours)
            assert part["sample_id"] == rows["sample_id"].to_pylist()
            assert part["valence"] == rows["valence"].to_pylist()
            subtypes = part.features["subtype"].names
            assert [subtypes[code] for code in part["subtype"]] == rows["subtype"].to_pylist()
            image = part[0]["image"]
            assert image.size == (rows["out_width_px"][0].as_py(), rows["out_height_px"][0].as_py())


def test_a_release_has_the_plans_columns_first(made: Path) -> None:
    names = open_release(made).table.column_names
    assert names[: len(PLAN)] == PLAN.names


def test_an_added_empty_folder_is_named(folder: Path) -> None:
    (folder / "train" / "a" / "b").mkdir(parents=True)
    text = "is an empty folder, and not part of the release"
    assert kinds(folder) == {("added", f"train/a/ {text}"), ("added", f"train/a/b/ {text}")}


def test_an_image_that_is_a_link_is_named(folder: Path, tmp_path: Path) -> None:
    image = next(folder.glob("train/*.jpg"))
    image.rename(tmp_path / "same.jpg")
    image.symlink_to(tmp_path / "same.jpg")
    assert ("changed", f"train/{image.name} is not a regular file (a link)") in kinds(folder)


def test_a_release_json_that_is_a_link_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "release.json").rename(tmp_path / "same.json")
    (folder / "release.json").symlink_to(tmp_path / "same.json")
    assert kinds(folder) == {("changed", "release.json is not a regular file (a link)")}


def test_a_release_that_verify_rejects_is_not_published(folder: Path) -> None:
    (folder / "README.md").write_text("others")
    with pytest.raises(IntegrityError, match=r"README\.md differs"):
        affectdata.publish(folder, "s3://bucket/sets")
