"""The manifest: its rows, SQL over them and nothing else, and where its images are on this machine."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import affectdata
from affectdata.errors import ImagesNotFound, IntegrityError, ManifestError, UsageError
from affectdata.hashing import file_hash
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import (
    Images,
    Manifest,
    choose_manifests,
    find_manifests,
    load_manifest,
    load_others,
)
from affectdata.manifest.query import query_tables
from affectdata.manifest.roots import find_roots, read_local, record_root
from affectdata.schema import DIGITS
from affectdata.store.parquet import write_table


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manifest of the small tree. Read-only."""
    out = tmp_path_factory.mktemp("manifests")
    ingest(small_gaped, out=out)
    return out


@pytest.fixture
def manifest(made: Path) -> Manifest:
    return load_manifest(made / "gaped.parquet")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the manifest in a folder without recorded roots."""
    copy = Path(shutil.copytree(made, tmp_path / "manifests"))
    (copy / ".local.json").unlink()
    return copy


# --- rows


def test_a_manifest_has_name_source_digest_and_metadata(manifest: Manifest, made: Path) -> None:
    assert (len(manifest), manifest.name, manifest.sources) == (18, "gaped", ["gaped"])
    assert manifest.digest == manifest.metadata["digest"] and len(manifest.digest) == 64
    assert manifest.path == made / "gaped.parquet"
    assert manifest.metadata["scales"] == {"arousal": [0, 100], "valence": [0, 100]}
    assert manifest.metadata["subtypes"]["Sn"] == {"name": "snakes", "sign": -1, "upright": False}
    assert set(manifest.metadata["decoders"]) >= {"pillow", "simplejpeg"}


def test_the_package_loads_it_from_a_string(made: Path) -> None:
    assert len(affectdata.load_manifest(str(made / "gaped.parquet"))) == 18


@pytest.mark.parametrize("name", list(DIGITS))
@pytest.mark.parametrize("value", ["nosplit", "", "G", "A", "0\n"])
def test_a_malformed_id_is_refused_although_the_digest_is_right(folder: Path, name: str, value: str) -> None:
    manifest = load_manifest(folder / "gaped.parquet")
    values = manifest.table[name].to_pylist()
    values[3] = (values[3][: DIGITS[name] - len(value)] + value) if len(value) in (1, 2) else value
    index = manifest.table.column_names.index(name)
    table = manifest.table.set_column(index, manifest.table.schema.field(index), pa.array(values))
    write_table(table, folder / "gaped.parquet", "manifest", {"emotions": []})
    with pytest.raises(ManifestError, match=f"{name} of row 3 is not {DIGITS[name]} hexadecimal digits"):
        load_manifest(folder / "gaped.parquet")


def test_a_nullable_required_column_is_refused(folder: Path) -> None:
    table = load_manifest(folder / "gaped.parquet").table
    index = table.column_names.index("path")
    holes = table.set_column(
        index, pa.field("path", pa.string()), pa.array([None, *table["path"].to_pylist()[1:]])
    )
    write_table(holes, folder / "gaped.parquet", "manifest", {"emotions": []})
    with pytest.raises(ManifestError, match="its columns are not those of a manifest"):
        load_manifest(folder / "gaped.parquet")


def test_to_pandas(manifest: Manifest) -> None:
    frame = manifest.to_pandas()
    assert isinstance(frame, pd.DataFrame) and list(frame.columns) == manifest.table.column_names
    assert frame["valence"].tolist() == manifest.table["valence"].to_pylist()


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    write_table(pa.table({"a": [1]}), tmp_path / "a.parquet", "manifest", {"emotions": []})
    with pytest.raises(ManifestError, match="columns are not those of a manifest"):
        load_manifest(tmp_path / "a.parquet")


def test_rejects_are_refused(made: Path) -> None:
    with pytest.raises(ManifestError, match="'rejects', not 'manifest'"):
        load_manifest(made / "gaped.rejects.parquet")


# --- SQL


def test_sql(manifest: Manifest) -> None:
    rows = manifest.sql("SELECT subtype, count(*) AS n FROM manifest GROUP BY 1 ORDER BY 1").to_pylist()
    assert {row["subtype"]: row["n"] for row in rows} == {"A": 3, "H": 2, "N": 3, "P": 4, "Sn": 4, "Sp": 2}


def test_sql_reaches_no_file_and_no_network(manifest: Manifest, made: Path, tmp_path: Path) -> None:
    csv = tmp_path / "secret.csv"
    csv.write_text("a\n1\n")
    own, parquet = made / "gaped.parquet", made / "gaped.rejects.parquet"
    before = own.read_bytes()
    for query in (
        f"SELECT * FROM '{parquet}'",
        f"SELECT * FROM read_csv('{csv}')",
        f"SELECT * FROM read_text('{csv}')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM 'https://example.org/a.parquet'",
        f"SELECT * FROM query('COPY manifest TO ''{own}''')",
    ):
        with pytest.raises(UsageError, match="DuckDB"):
            manifest.sql(query)
    for query in (
        f"COPY manifest TO '{tmp_path / 'out.csv'}'",
        f"COPY (SELECT 1) TO '{own}'",
        f"ATTACH '{tmp_path / 'new.db'}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        f"SET enable_external_access = true; SELECT * FROM '{parquet}'",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{own}'",
    ):
        with pytest.raises(UsageError, match="only a single SELECT"):
            manifest.sql(query)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert own.read_bytes() == before


def test_sql_reads_what_it_needs_from_the_file(made: Path) -> None:
    manifest = load_manifest(made / "gaped.parquet")
    rows = manifest.sql("SELECT * FROM manifest ORDER BY image_id")
    assert "table" not in vars(manifest)
    assert rows.to_pylist() == manifest.table.to_pylist()
    assert query_tables({"manifest": manifest.table}, "SELECT * FROM manifest").equals(rows)


def test_a_manifest_can_be_pickled_after_a_query(made: Path) -> None:
    manifest = load_manifest(made / "gaped.parquet")
    manifest.sql("SELECT 1")
    assert pickle.loads(pickle.dumps(manifest)).sql("SELECT count(*) AS n FROM manifest").to_pylist() == [
        {"n": 18}
    ]


def test_a_manifest_is_queried_from_several_threads(manifest: Manifest) -> None:
    query = "SELECT * FROM manifest WHERE image_id = '{}'"
    ids = manifest.table["image_id"].to_pylist() * 5
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda image_id: manifest.sql(query.format(image_id)), ids))
    assert [table["image_id"].to_pylist() for table in tables] == [[image_id] for image_id in ids]


def test_a_folder_may_have_any_name(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] * ?"
    folder.mkdir()
    path = shutil.copy(made / "gaped.parquet", folder)
    assert len(load_manifest(path).sql("SELECT * FROM manifest")) == 18


def test_a_removed_file_is_an_error(made: Path, tmp_path: Path) -> None:
    manifest = load_manifest(shutil.copy(made / "gaped.parquet", tmp_path))
    manifest.path.unlink()
    with pytest.raises(UsageError, match=r"gaped\.parquet"):
        manifest.sql("SELECT 1")


def test_a_result_too_large_for_the_memory_is_a_memory_error(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = duckdb.connect(config={"memory_limit": "20MB"})
    monkeypatch.setattr(duckdb, "connect", lambda config: limited)
    with pytest.raises(MemoryError, match="DuckDB"):
        query_tables({"manifest": manifest.table}, "SELECT range(count(*) * 1000000) FROM manifest")


def test_sql_does_not_see_the_variables_of_its_caller(manifest: Manifest) -> None:
    secret = pd.DataFrame({"a": [1]})
    with pytest.raises(UsageError, match="secret"):
        manifest.sql("SELECT * FROM secret")
    assert len(secret) == 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT nothing FROM manifest", "nothing"),
        ("SELEKT", "syntax"),
        ("SELECT * FROM manifets", "manifets"),
        ("", "only a single SELECT"),
    ],
)
def test_an_invalid_query(manifest: Manifest, query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        manifest.sql(query)


def test_tables_are_queried_under_their_names(manifest: Manifest) -> None:
    tables = {"a": manifest.table, "name-with-dash": manifest.table}
    answer = query_tables(tables, 'SELECT count(*) AS n FROM a JOIN "name-with-dash" USING (image_id)')
    assert answer.to_pylist() == [{"n": 18}]
    with pytest.raises(UsageError) as caught:
        query_tables(tables, "SELECT * FROM b")
    assert caught.value.fix == "the tables are: a, name-with-dash"


# --- where the images are


def read_all(manifest: Manifest) -> int:
    images = manifest.images()
    rows = manifest.table.select(["source", "path", "image_id"]).to_pylist()
    return sum(file_hash(images.read(*row.values())) == row["image_id"] for row in rows)


def test_the_recorded_folder_is_found(manifest: Manifest, small_gaped: Path) -> None:
    assert manifest.images().roots == {"gaped": small_gaped.resolve()}
    assert read_all(manifest) == 18


def test_given_roots_precede_the_variable_and_that_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, variable, recorded = (tmp_path / name for name in ("given", "variable", "recorded"))
    for folder in (given, variable, recorded):
        folder.mkdir()
    record_root(tmp_path, "gaped", recorded)
    assert find_roots(["gaped"], tmp_path, {}) == {"gaped": recorded}
    monkeypatch.setenv("AFFECTDATA_ROOTS", f"other={given}{os.pathsep}gaped={variable}{os.pathsep}rubbish")
    assert find_roots(["gaped"], tmp_path, {}) == {"gaped": variable}
    assert find_roots(["gaped"], tmp_path, {"gaped": given}) == {"gaped": given}
    assert find_roots(["other", "gaped"], tmp_path, {}) == {"other": given, "gaped": variable}


def test_roots_can_be_given_when_a_manifest_is_loaded(folder: Path, small_gaped: Path) -> None:
    assert read_all(load_manifest(folder / "gaped.parquet", roots={"gaped": str(small_gaped)})) == 18


def has_three_fixes(error: ImagesNotFound) -> bool:
    return all(
        way in error.fix for way in ("--root gaped=PATH", "AFFECTDATA_ROOTS=gaped=PATH", "ingest PATH")
    )


def test_no_folder_known(folder: Path) -> None:
    with pytest.raises(ImagesNotFound, match="images of gaped were not found") as caught:
        load_manifest(folder / "gaped.parquet").images()
    assert caught.value.exit_code == 3 and has_three_fixes(caught.value)


def test_the_images_were_moved_away(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ImagesNotFound) as caught:
        load_manifest(folder / "gaped.parquet", roots={"gaped": tmp_path / "gone"}).images()
    assert has_three_fixes(caught.value) and "gone (no such folder)" in caught.value.where


def test_one_image_is_missing(folder: Path, gaped_copy: Path) -> None:
    manifest = load_manifest(folder / "gaped.parquet", roots={"gaped": gaped_copy})
    row = manifest.table.slice(0, 1).to_pylist()[0]
    (gaped_copy / row["path"]).unlink()
    with pytest.raises(ImagesNotFound, match=row["path"]) as caught:
        manifest.images().read("gaped", row["path"], row["image_id"])
    assert has_three_fixes(caught.value)


def test_a_changed_image(folder: Path, gaped_copy: Path) -> None:
    manifest = load_manifest(folder / "gaped.parquet", roots={"gaped": gaped_copy})
    row = manifest.table.slice(0, 1).to_pylist()[0]
    file = gaped_copy / row["path"]
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(IntegrityError, match="is not the file that was ingested") as caught:
        manifest.images().read("gaped", row["path"], row["image_id"])
    assert caught.value.exit_code == 4 and caught.value.where == str(file)


@pytest.mark.parametrize(
    "make", [lambda path: "../secret.txt", lambda path: str(path), lambda path: "link.txt"]
)
def test_no_path_is_outside_the_root(tmp_path: Path, make: Callable[[Path], str]) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.txt").symlink_to(secret)
    with pytest.raises(IntegrityError, match="is outside the folder"):
        Images({"gaped": root}).read("gaped", make(secret), file_hash(b"secret"))


def test_roots_are_recorded_per_source(tmp_path: Path) -> None:
    assert read_local(tmp_path) == {}
    for name in ("a", "b", "a"):
        record_root(tmp_path, name, tmp_path / name)
    assert read_local(tmp_path) == {name: str(tmp_path / name) for name in ("a", "b")}
    assert json.loads((tmp_path / ".local.json").read_text())["roots"].keys() == {"a", "b"}


def test_a_damaged_record_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".local.json").write_text("{")
    with pytest.raises(ManifestError, match=r"cannot read \.local\.json"):
        read_local(tmp_path)


# --- which manifest


def test_manifests_are_found_by_name(made: Path, tmp_path: Path) -> None:
    assert find_manifests(made) == [made / "gaped.parquet"]
    assert find_manifests(tmp_path / "none") == []


def test_the_only_manifest_is_the_one(folder: Path) -> None:
    assert [manifest.name for manifest in choose_manifests([], [], folder)] == ["gaped"]
    assert [manifest.name for manifest in choose_manifests([], ["gaped"], folder)] == ["gaped"]
    assert [manifest.name for manifest in choose_manifests([folder / "gaped.parquet"], ["no"], folder)] == [
        "gaped"
    ]


def test_several_manifests_and_none_selected(folder: Path) -> None:
    shutil.copy(folder / "gaped.parquet", folder / "other.parquet")
    with pytest.raises(UsageError, match="2 manifests") as caught:
        choose_manifests([], [], folder)
    assert "gaped.parquet" in caught.value.fix and "other.parquet" in caught.value.fix
    assert len(choose_manifests([], ["gaped", "other"], folder)) == 2


def test_no_manifest(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="no manifest in") as caught:
        choose_manifests([], [], tmp_path / "none")
    assert "affectdata ingest" in caught.value.fix
    with pytest.raises(ManifestError, match=r"no manifest .*oasis\.parquet") as missing:
        choose_manifests([], ["oasis"], folder)
    assert ": gaped" in missing.value.fix


def test_other_manifests_that_cannot_be_read_are_skipped_with_a_note(
    folder: Path, manifest: Manifest, small_gaped: Path
) -> None:
    (folder / "broken.parquet").write_bytes(b"no Parquet")
    pq.write_table(pa.table({"a": [1]}), folder / "foreign.parquet")
    shutil.copy(folder / "gaped.parquet", folder / "edited.parquet")
    edit_valence(folder / "edited.parquet")
    no_rows = manifest.table.slice(0, 0)
    notes: list[str] = []
    manifests, roots = load_others(no_rows, folder, {"gaped": small_gaped}, notes.append)
    assert ([other.name for other in manifests], roots) == (["gaped"], {"gaped": small_gaped})
    assert [note.split(": ")[1] for note in notes] == [
        f"skipped {name}" for name in ("broken", "edited", "foreign")
    ]
    assert load_others(manifest.table, folder, {}, notes.append) == ([], {})
    assert load_others(no_rows, folder, {"gaped": folder / "nowhere"}, notes.append) == ([], {})
    assert notes[-1].startswith("note: skipped gaped: the images of gaped were not found")


def edit_valence(path: Path) -> None:
    stored = pq.read_table(path)
    index = stored.column_names.index("valence")
    pq.write_table(stored.set_column(index, stored.schema.field(index), [[50.0] * 18]), path)


def test_edited_rows_are_refused(folder: Path) -> None:
    path = folder / "gaped.parquet"
    edit_valence(path)
    with pytest.raises(IntegrityError, match="not those that were written"):
        load_manifest(path)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"roots": 3}',
        '{"roots": {"a": 3}}',
        '{"roots": {"a": null}}',
        '{"roots": {"a": ""}}',
        r'{"roots": {"a": "b\u0000"}}',
        r'{"roots": {"a": "\ud800"}}',
    ],
)
def test_recorded_folders_of_another_form_are_a_manifest_error(tmp_path: Path, text: str) -> None:
    (tmp_path / ".local.json").write_text(text)
    with pytest.raises(ManifestError, match="folder for each source"):
        read_local(tmp_path)
