"""The manifest: its rows, SQL over them and nothing else, and where its images lie on this machine."""

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
    find_roots,
    load_manifest,
    load_others,
    note_root,
    query_tables,
    read_local,
)
from affectdata.schema import DIGITS
from affectdata.store.parquet import write_table


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manifest of the small tree. Not to be written to."""
    out = tmp_path_factory.mktemp("manifests")
    ingest(small_gaped, out=out)
    return out


@pytest.fixture
def manifest(made: Path) -> Manifest:
    return load_manifest(made / "gaped.parquet")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the manifest in a folder that knows no roots."""
    copy = Path(shutil.copytree(made, tmp_path / "manifests"))
    (copy / ".local.json").unlink()
    return copy


# --- rows


def test_a_manifest_says_what_it_is(manifest: Manifest, made: Path) -> None:
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
def test_an_id_that_is_none_is_refused_though_the_digest_is_right(
    folder: Path, name: str, value: str
) -> None:
    manifest = load_manifest(folder / "gaped.parquet")
    values = manifest.table[name].to_pylist()
    values[3] = (values[3][: DIGITS[name] - len(value)] + value) if len(value) in (1, 2) else value
    at = manifest.table.column_names.index(name)
    table = manifest.table.set_column(at, manifest.table.schema.field(at), pa.array(values))
    write_table(table, folder / "gaped.parquet", "manifest", {"emotions": []})
    with pytest.raises(ManifestError, match=f"{name} of row 3 is not {DIGITS[name]} hexadecimal digits"):
        load_manifest(folder / "gaped.parquet")


def test_a_required_column_that_may_be_null_is_no_manifest(folder: Path) -> None:
    table = load_manifest(folder / "gaped.parquet").table
    at = table.column_names.index("path")
    holes = table.set_column(
        at, pa.field("path", pa.string()), pa.array([None, *table["path"].to_pylist()[1:]])
    )
    write_table(holes, folder / "gaped.parquet", "manifest", {"emotions": []})
    with pytest.raises(ManifestError, match="its columns are not those of a manifest"):
        load_manifest(folder / "gaped.parquet")


def test_to_pandas(manifest: Manifest) -> None:
    frame = manifest.to_pandas()
    assert isinstance(frame, pd.DataFrame) and list(frame.columns) == manifest.table.column_names
    assert frame["valence"].tolist() == manifest.table["valence"].to_pylist()


def test_a_table_of_other_columns_is_no_manifest(tmp_path: Path) -> None:
    write_table(pa.table({"a": [1]}), tmp_path / "a.parquet", "manifest", {"emotions": []})
    with pytest.raises(ManifestError, match="columns are not those of a manifest"):
        load_manifest(tmp_path / "a.parquet")


def test_rejects_are_no_manifest(made: Path) -> None:
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
        with pytest.raises(UsageError, match="no result but that of one SELECT"):
            manifest.sql(query)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert own.read_bytes() == before


def test_sql_reads_what_it_needs_from_the_file(made: Path) -> None:
    manifest = load_manifest(made / "gaped.parquet")
    rows = manifest.sql("SELECT * FROM manifest ORDER BY image_id")
    assert "table" not in vars(manifest)
    assert rows.to_pylist() == manifest.table.to_pylist()
    assert query_tables({"manifest": manifest.table}, "SELECT * FROM manifest").equals(rows)


def test_a_manifest_that_was_asked_can_be_sent_to_another_process(made: Path) -> None:
    manifest = load_manifest(made / "gaped.parquet")
    manifest.sql("SELECT 1")
    assert pickle.loads(pickle.dumps(manifest)).sql("SELECT count(*) AS n FROM manifest").to_pylist() == [
        {"n": 18}
    ]


def test_a_manifest_is_asked_from_several_threads(manifest: Manifest) -> None:
    query = "SELECT * FROM manifest WHERE image_id = '{}'"
    ids = manifest.table["image_id"].to_pylist() * 5
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: manifest.sql(query.format(each)), ids))
    assert [table["image_id"].to_pylist() for table in found] == [[each] for each in ids]


def test_a_folder_may_be_called_anything(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "it's [a] * ?"
    folder.mkdir()
    path = shutil.copy(made / "gaped.parquet", folder)
    assert len(load_manifest(path).sql("SELECT * FROM manifest")) == 18


def test_a_file_that_has_gone_is_said(made: Path, tmp_path: Path) -> None:
    manifest = load_manifest(shutil.copy(made / "gaped.parquet", tmp_path))
    manifest.path.unlink()
    with pytest.raises(UsageError, match=r"gaped\.parquet"):
        manifest.sql("SELECT 1")


def test_an_answer_too_large_for_the_memory_is_not_the_querys_fault(
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
        ("", "no result"),
    ],
)
def test_a_query_that_duckdb_refuses(manifest: Manifest, query: str, message: str) -> None:
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


def test_the_noted_folder_is_found(manifest: Manifest, small_gaped: Path) -> None:
    assert manifest.images().roots == {"gaped": small_gaped.resolve()}
    assert read_all(manifest) == 18


def test_given_wins_over_the_variable_and_that_over_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, variable, noted = (tmp_path / name for name in ("given", "variable", "noted"))
    for place in (given, variable, noted):
        place.mkdir()
    note_root(tmp_path, "gaped", noted)
    assert find_roots(["gaped"], tmp_path, {}) == {"gaped": noted}
    monkeypatch.setenv("AFFECTDATA_ROOTS", f"other={given}{os.pathsep}gaped={variable}{os.pathsep}rubbish")
    assert find_roots(["gaped"], tmp_path, {}) == {"gaped": variable}
    assert find_roots(["gaped"], tmp_path, {"gaped": given}) == {"gaped": given}
    assert find_roots(["other", "gaped"], tmp_path, {}) == {"other": given, "gaped": variable}


def test_roots_can_be_given_when_a_manifest_is_loaded(folder: Path, small_gaped: Path) -> None:
    assert read_all(load_manifest(folder / "gaped.parquet", roots={"gaped": str(small_gaped)})) == 18


def three_ways_out(error: ImagesNotFound) -> bool:
    return all(
        way in error.fix for way in ("--root gaped=PATH", "AFFECTDATA_ROOTS=gaped=PATH", "ingest PATH")
    )


def test_no_folder_known(folder: Path) -> None:
    with pytest.raises(ImagesNotFound, match="images of gaped were not found") as caught:
        load_manifest(folder / "gaped.parquet").images()
    assert caught.value.exit_code == 3 and three_ways_out(caught.value)


def test_the_images_were_moved_away(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ImagesNotFound) as caught:
        load_manifest(folder / "gaped.parquet", roots={"gaped": tmp_path / "gone"}).images()
    assert three_ways_out(caught.value) and "gone (no such folder)" in caught.value.where


def test_one_image_is_missing(folder: Path, gaped_copy: Path) -> None:
    manifest = load_manifest(folder / "gaped.parquet", roots={"gaped": gaped_copy})
    row = manifest.table.slice(0, 1).to_pylist()[0]
    (gaped_copy / row["path"]).unlink()
    with pytest.raises(ImagesNotFound, match=row["path"]) as caught:
        manifest.images().read("gaped", row["path"], row["image_id"])
    assert three_ways_out(caught.value)


def test_a_image_that_was_changed(folder: Path, gaped_copy: Path) -> None:
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
def test_no_path_leads_out_of_the_root(tmp_path: Path, make: Callable[[Path], str]) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.txt").symlink_to(secret)
    with pytest.raises(IntegrityError, match="leads out of the folder"):
        Images({"gaped": root}).read("gaped", make(secret), file_hash(b"secret"))


def test_notes_are_kept_per_source(tmp_path: Path) -> None:
    assert read_local(tmp_path) == {}
    for name in ("a", "b", "a"):
        note_root(tmp_path, name, tmp_path / name)
    assert read_local(tmp_path) == {name: str(tmp_path / name) for name in ("a", "b")}
    assert json.loads((tmp_path / ".local.json").read_text())["roots"].keys() == {"a", "b"}


def test_a_damaged_note_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / ".local.json").write_text("{")
    with pytest.raises(ManifestError, match=r"cannot read \.local\.json"):
        read_local(tmp_path)


# --- which manifest


def test_manifests_are_found_by_name(made: Path, tmp_path: Path) -> None:
    assert find_manifests(made) == [made / "gaped.parquet"]
    assert find_manifests(tmp_path / "none") == []


def test_the_only_manifest_is_the_one(folder: Path) -> None:
    assert [each.name for each in choose_manifests([], [], folder)] == ["gaped"]
    assert [each.name for each in choose_manifests([], ["gaped"], folder)] == ["gaped"]
    assert [each.name for each in choose_manifests([folder / "gaped.parquet"], ["no"], folder)] == ["gaped"]


def test_several_manifests_and_no_word(folder: Path) -> None:
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
    assert "there are: gaped" in missing.value.fix


def test_of_the_others_those_that_cannot_be_read_are_named_and_left_out(
    folder: Path, manifest: Manifest, small_gaped: Path
) -> None:
    (folder / "broken.parquet").write_bytes(b"no Parquet")
    pq.write_table(pa.table({"a": [1]}), folder / "foreign.parquet")
    shutil.copy(folder / "gaped.parquet", folder / "edited.parquet")
    edit_valence(folder / "edited.parquet")
    other = manifest.table.slice(0, 0)
    heard: list[str] = []
    found, roots = load_others(other, folder, {"gaped": small_gaped}, heard.append)
    assert ([each.name for each in found], roots) == (["gaped"], {"gaped": small_gaped})
    assert [each.split(": ")[1] for each in heard] == [
        f"{name} is left out" for name in ("broken", "edited", "foreign")
    ]
    assert load_others(manifest.table, folder, {}, heard.append) == ([], {})
    assert load_others(other, folder, {"gaped": folder / "nowhere"}, heard.append) == ([], {})
    assert heard[-1].startswith("note: gaped is left out: the images of gaped were not found")


def edit_valence(path: Path) -> None:
    stored = pq.read_table(path)
    at = stored.column_names.index("valence")
    pq.write_table(stored.set_column(at, stored.schema.field(at), [[50.0] * 18]), path)


def test_rows_that_were_edited_are_noticed(folder: Path) -> None:
    path = folder / "gaped.parquet"
    edit_valence(path)
    with pytest.raises(IntegrityError, match="not those that were written"):
        load_manifest(path)
