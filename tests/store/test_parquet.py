"""Tables are written atomically, checked when read, and have a digest of their logical rows."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from affectdata.errors import InputError, IntegrityError, ManifestError
from affectdata.schema import METADATA_KEY
from affectdata.store import atomic, parquet
from affectdata.store import digest as digest_module
from affectdata.store.atomic import read_json, replace_file, write_json, write_text
from affectdata.store.digest import column_digest, table_digest
from affectdata.store.parquet import (
    StoredTable,
    distinct,
    open_table,
    read_parts,
    read_table,
    write_batches,
    write_table,
)

SCHEMA = pa.schema([("name", pa.string()), ("value", pa.float64()), ("count", pa.int32())])
cells = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(max_size=4),
        "value": st.none() | st.floats(allow_nan=False, width=32),
        "count": st.none() | st.integers(-9, 9),
    }
)
rows_of = st.lists(cells, max_size=12)


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.fixture
def table() -> pa.Table:
    return as_table([{"name": f"n{i}", "value": i / 4, "count": i} for i in range(10)])


# --- in parts


cuts_of = st.lists(st.integers(0, 12), max_size=4)


def cut(table: pa.Table, cuts: list[int]) -> Iterator[pa.Table]:
    bounds = [0, *sorted(min(cut, len(table)) for cut in cuts), len(table)]
    return (table.slice(low, high - low) for low, high in itertools.pairwise(bounds))


@given(rows_of, cuts_of, st.sampled_from([1, 3, 5]))
def test_a_table_in_parts_is_written_like_the_whole(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], cuts: list[int], n: int
) -> None:
    table, folder = as_table(rows), tmp_path_factory.mktemp("parts")
    path, whole = folder / "t.parquet", folder / "whole.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_ROW_GROUP", n)
        digest = write_batches(cut(table, cuts), SCHEMA, path, "made", {"note": "x"})
        assert digest == write_table(table, whole, "made", {"note": "x"}) == table_digest(table)
        assert path.read_bytes() == whole.read_bytes()
    stored = open_table(path, "made")
    assert (stored.metadata["note"], len(stored)) == ("x", len(rows))
    assert pa.Table.from_batches(stored.to_batches(4), SCHEMA).equals(table)
    assert stored.select(["count", "name"]).equals(table.select(["count", "name"]))
    assert read_table(path, "made")[0].equals(table)


def test_many_rows_are_written_in_larger_row_groups(
    tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_ROW_GROUP", 2), ("_LARGER", 3), ("_MANY", 8)):
        monkeypatch.setattr(parquet, name, value)
    ten = pa.concat_tables([table, table])
    for n, groups in ((8, [2, 2, 2, 2]), (9, [2, 2, 2, 2, 1]), (15, [2, 2, 2, 2, 6, 1])):
        write_batches(cut(ten.slice(0, n), [1]), SCHEMA, tmp_path / "t.parquet", "made")
        written = pq.read_metadata(tmp_path / "t.parquet")
        assert [written.row_group(index).num_rows for index in range(written.num_row_groups)] == groups


@given(rows_of, rows_of, cuts_of)
def test_a_digest_is_of_rows_and_not_of_parts(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], cuts: list[int]
) -> None:
    table, other = as_table(rows), as_table(others)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest_module, "_DIGEST_ROWS", 2)  # of version 1
        digest = column_digest(
            SCHEMA, len(table), lambda name: (part.select([name]) for part in cut(table, cuts))
        )
        assert digest == table_digest(table)
        assert (digest == table_digest(other)) == table.equals(other)
        in_parts = column_digest(
            SCHEMA, len(table), lambda name: (part.select([name]) for part in cut(table, cuts)), 1
        )
        whole = column_digest(SCHEMA, len(table), lambda name: [table.select([name])], 1)
        assert whole == in_parts != digest


def test_rows_are_read_in_parts_from_memory_as_from_a_file(tmp_path: Path, table: pa.Table) -> None:
    write_table(table, tmp_path / "t.parquet", "made")
    stored = open_table(tmp_path / "t.parquet", "made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "STREAM_ROWS", 4)
        for rows in (table, stored):
            assert pa.concat_tables(read_parts(rows)).equals(table)
            parts = list(read_parts(rows, ["value", "name"]))
            assert [part.num_rows for part in parts] == [4, 4, 2]
            assert pa.concat_tables(parts).equals(table.select(["value", "name"]))
            assert distinct(rows, "name") == sorted(set(table["name"].to_pylist()) - {None})


@pytest.mark.parametrize("change", ["value", "order", "null"])
def test_other_rows_do_not_open(tmp_path: Path, table: pa.Table, change: str) -> None:
    path = tmp_path / "t.parquet"
    write_table(table, path, "made")
    kept = {METADATA_KEY: pq.read_metadata(path).metadata[METADATA_KEY]}
    rows = table.to_pylist()
    if change == "order":
        rows.reverse()
    else:
        rows[3]["count"] = None if change == "null" else 77
    pq.write_table(as_table(rows).replace_schema_metadata(kept), path)
    with pytest.raises(IntegrityError, match="are not those that were written"):
        open_table(path, "made")


def test_only_requested_columns_are_read(tmp_path: Path, table: pa.Table) -> None:
    """An opened table holds no rows in memory."""
    write_table(table, tmp_path / "t.parquet", "made")
    before = pa.total_allocated_bytes()
    stored = open_table(tmp_path / "t.parquet", "made")
    for _ in range(100):  # Arrow's own threads let go of what they read a little later
        if pa.total_allocated_bytes() > before:
            time.sleep(0.01)
    assert pa.total_allocated_bytes() == before
    assert isinstance(stored, StoredTable) and stored.schema == SCHEMA
    assert {batch.num_rows for batch in stored.to_batches(4)} == {4, 2}
    assert [batch.schema.names for batch in stored.to_batches(10, ["value"])] == [["value"]]


# --- writing


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old\n")
    with pytest.raises(RuntimeError, match="power cut"), replace_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("power cut")
    assert path.read_text() == "old\n"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_table_that_cannot_be_written_keeps_the_old_one(
    tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    write_table(table, path, "manifest")
    before = path.read_bytes()

    def fail(where: Path, *_: Any, **options: Any) -> None:
        where.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet.pq, "ParquetWriter", fail)
    with pytest.raises(OSError, match="No space left"):
        write_table(table.slice(1), path, "manifest")
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_the_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    existed: list[bool] = []
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: existed.append(path.exists()))
    write_text(path, "text")
    assert existed == [False] and path.exists()


def test_folders_are_created_and_the_umask_is_kept(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a/b/c.txt", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a/b/c.txt").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path, table: pa.Table) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot write") as caught:
        write_table(table, tmp_path / "out/a.parquet", "manifest")
    assert "--out" in caught.value.fix


def test_equal_rows_give_equal_bytes_whatever_the_chunks(tmp_path: Path, table: pa.Table) -> None:
    chunked = pa.concat_tables([table.slice(0, 3), table.slice(3, 1), table.slice(4)])
    write_table(table, tmp_path / "a.parquet", "manifest", {"z": 1, "a": 2})
    write_table(chunked, tmp_path / "b.parquet", "manifest", {"a": 2, "z": 1})
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def hash_of(document: dict[str, Any]) -> str:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_the_file_has_one_metadata_key(tmp_path: Path, table: pa.Table) -> None:
    digest = write_table(table, tmp_path / "a.parquet", "manifest", {"source": "gaped"})
    metadata = pq.read_schema(tmp_path / "a.parquet").metadata
    assert list(metadata) == [METADATA_KEY]
    assert json.loads(metadata[METADATA_KEY]) == {
        "digest": digest,
        "kind": "manifest",
        "metadata_sha256": hash_of(
            {"digest": digest, "kind": "manifest", "schema_version": 2, "source": "gaped"}
        ),
        "schema_version": 2,
        "source": "gaped",
    }
    assert digest == table_digest(table)


# --- reading


@given(rows_of)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("table") / "a.parquet"
    write_table(as_table(rows), path, "manifest", {"k": 1})
    table, metadata = read_table(path, "manifest")
    assert table.schema == SCHEMA and table.to_pylist() == rows and metadata["k"] == 1


def test_reading_a_missing_file_or_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("text")
    (tmp_path / "empty.parquet").touch()
    for name in ("absent.parquet", "text.parquet", "empty.parquet", "."):
        with pytest.raises(ManifestError) as caught:
            read_table(tmp_path / name, "manifest")
        assert caught.value.where


def test_a_cut_parquet_file_is_an_error(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "a.parquet"
    write_table(table, path, "manifest")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match="Parquet"):
        read_table(path, "manifest")


def test_a_round_trip_through_pandas_drops_the_metadata_and_is_refused(
    tmp_path: Path, table: pa.Table
) -> None:  # trap 7
    path = tmp_path / "a.parquet"
    write_table(table, path, "manifest")
    pd.read_parquet(path).to_parquet(path)
    with pytest.raises(ManifestError, match="no affectdata metadata") as caught:
        read_table(path, "manifest")
    assert "pandas" in caught.value.fix


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b"[" * 100_000,
        b'{"kind": "manifest", "schema_version": "2", "digest": "x"}',
        b'{"kind": "manifest", "schema_version": 1}',
    ],
)
def test_foreign_metadata_is_refused(metadata: bytes, tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: metadata}), tmp_path / "t.parquet")
    with pytest.raises(ManifestError, match="no affectdata metadata"):
        read_table(tmp_path / "t.parquet", "manifest")


def test_a_table_of_another_kind_is_refused(tmp_path: Path, table: pa.Table) -> None:
    write_table(table, tmp_path / "a.parquet", "edges")
    with pytest.raises(ManifestError, match="'edges', not 'manifest'"):
        read_table(tmp_path / "a.parquet", "manifest")


def test_a_newer_schema_is_refused(tmp_path: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as future:
        future.setattr(parquet, "SCHEMA_VERSION", 3)
        write_table(table, tmp_path / "a.parquet", "manifest")
    with pytest.raises(ManifestError, match="schema version 3; this is 2") as caught:
        read_table(tmp_path / "a.parquet", "manifest")
    assert "upgrade" in caught.value.fix


def test_edited_rows_are_refused(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "a.parquet"
    write_table(table, path, "manifest")
    stored = pq.read_table(path)
    values = stored["value"].to_pylist()
    values[3] += 1e-9
    pq.write_table(
        stored.set_column(1, "value", [values]).replace_schema_metadata(stored.schema.metadata), path
    )
    with pytest.raises(IntegrityError, match="not those that were written"):
        read_table(path, "manifest")


def test_edited_metadata_is_refused(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "a.parquet"
    write_table(table, path, "manifest", {"license": "research only"})
    stored = pq.read_table(path)
    document = json.loads(stored.schema.metadata[METADATA_KEY]) | {"license": "CC0 1.0"}
    pq.write_table(stored.replace_schema_metadata({METADATA_KEY: json.dumps(document)}), path)
    with pytest.raises(IntegrityError, match=r"metadata of a\.parquet"):
        read_table(path, "manifest")


def test_json_is_written_in_one_form_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": "ü", "a": [1]})
    assert path.read_bytes() == '{\n  "a": [\n    1\n  ],\n  "b": "ü"\n}\n'.encode()
    assert read_json(path) == {"a": [1], "b": "ü"}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": math.nan})
    assert read_json(path) == {"a": [1], "b": "ü"}


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b'{"a": 1, "a": 1}'])
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"cannot read a\.json"):
        read_json(path)


# --- the digest


def test_the_digest_of_these_rows_never_changes(table: pa.Table) -> None:
    assert table_digest(table) == "b252697706d8fdcdbdae5cb92c9620dd18203a392dec0c2325155c61179d4eb7"
    version_1 = column_digest(SCHEMA, len(table), lambda name: [table.select([name])], schema_version=1)
    assert version_1 == "609b5a582bef3658cafbed4ef1b6b2ae67afcd7a3a3caacc083bb3f0fe0021a8"


@given(rows_of, st.lists(st.integers(0, 12), max_size=4))
def test_the_digest_is_independent_of_chunks_and_dictionaries(
    rows: list[dict[str, Any]], cuts: list[int]
) -> None:
    table = as_table(rows)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [table.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    chunked = pa.concat_tables([SCHEMA.empty_table(), *parts])
    assert table_digest(chunked) == table_digest(table)
    coded = table.set_column(0, "name", table["name"].dictionary_encode())
    assert table_digest(coded) == table_digest(table)


def test_the_digest_of_many_blocks_is_independent_of_chunks(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_module, "_DIGEST_ROWS", 7)
    long = pa.concat_tables([table] * 5)
    assert table_digest(long.combine_chunks()) == table_digest(long)
    prefixes = [table_digest(long.slice(0, n)) for n in (0, 1, 6, 7, 8, 14, 50)]
    assert len(set(prefixes)) == len(prefixes)


@given(rows_of, st.data())
def test_any_changed_cell_changes_the_digest(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    assume(rows)
    index = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(SCHEMA.names))
    value = data.draw(cells)[column]
    assume(value != rows[index][column])
    changed = [dict(row) for row in rows]
    changed[index][column] = value
    assert table_digest(as_table(changed)) != table_digest(as_table(rows))


@given(rows_of)
def test_the_order_of_rows_and_columns_is_part_of_the_digest(rows: list[dict[str, Any]]) -> None:
    table = as_table(rows)
    assume(rows != rows[::-1])
    assert table_digest(as_table(rows[::-1])) != table_digest(table)
    assert table_digest(table.select(SCHEMA.names[::-1])) != table_digest(table)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (pa.array(["", "ab"]), pa.array([None, "ab"])),  # empty is not null
        (pa.array(["a", "b"]), pa.array(["ab", ""])),  # nor is "ab" in two cells "ab" in one
        (pa.array([0, 1]), pa.array([None, 1])),
        (pa.array([0.0, 1.0]), pa.array([None, 1.0])),
        (pa.array([0, 1], pa.int32()), pa.array([0, 1], pa.int64())),
        (pa.array([True, False]), pa.array([True, None])),
    ],
)
def test_values_that_the_digest_distinguishes(a: pa.Array, b: pa.Array) -> None:
    assert table_digest(pa.table({"c": a})) != table_digest(pa.table({"c": b}))


def test_names_are_part_of_the_digest(table: pa.Table) -> None:
    assert table_digest(table.rename_columns(["name", "value", "n"])) != table_digest(table)


def test_minus_zero_is_zero() -> None:
    minus, plus = (pa.table({"v": np.array([zero, 1.0])}) for zero in (-0.0, 0.0))
    assert table_digest(minus) == table_digest(plus)


def test_nested_columns_have_no_digest() -> None:
    with pytest.raises(TypeError, match="not flat"):
        table_digest(pa.table({"lists": [[1], [2, 3]]}))


def test_parts_are_written_like_one_table(tmp_path: Path) -> None:
    n = 2 * digest_module._DIGEST_ROWS + 5
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "id": [f"{number:x}" for number in rng.integers(0, 2**60, n).tolist()],
            "few": pa.array([None if number % 3 else "é" * (number % 5) for number in range(n)]),
            "none": pa.nulls(n, pa.string()),
            "share": pa.array(np.where(rng.random(n) < 0.5, -0.0, 1.5), mask=rng.random(n) < 0.3),
            "flag": rng.random(n) < 0.5,
        }
    )
    digest = write_table(table, tmp_path / "whole.parquet", "manifest", {"name": "x"})
    parts = [table.slice(start, 3 * parquet._ROW_GROUP) for start in range(0, n, 3 * parquet._ROW_GROUP)]
    path = tmp_path / "parts.parquet"
    assert write_batches(parts, table.schema, path, "manifest", {"name": "x"}) == digest
    assert path.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert table_digest(table.combine_chunks()) == digest == read_table(path, "manifest")[1]["digest"]


def test_the_next_run_removes_what_a_killed_run_left_and_nothing_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    killed = tmp_path / ".a.parquet.0123abcd.tmp"
    others = [tmp_path / ".b.parquet.0123abcd.tmp", tmp_path / ".a.parquet.mine.tmp"]
    for file in (killed, *others):
        file.write_bytes(b"half")
    with replace_file(path) as first:
        first.write_bytes(b"first")
        with replace_file(path) as second:  # a run beside it
            second.write_bytes(b"second")
            assert not killed.exists() and first.exists()
    assert path.read_bytes() == b"first"
    assert sorted(file for file in tmp_path.iterdir() if file != path) == sorted(others)


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_a_full_disk_is_reported_with_the_file(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": np.random.default_rng(0).random(10_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        with pytest.raises(OSError) as raised:
            write_table(table, path, "test")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.filename == str(path)
    assert raised.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_column_name_is_a_manifest_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(pa.table({"unlikely_name": [1, 2, 3]}), path, "test")
    data = path.read_bytes()
    assert data.count(b"unlikely_name") >= 1
    path.write_bytes(data.replace(b"unlikely_name", b"unlike\xee\xffname"))
    with pytest.raises((ManifestError, IntegrityError)):
        open_table(path, "test")


@pytest.mark.parametrize("how", ["a list", "a struct", "bytes", "a second one of its name"])
def test_columns_that_are_never_written_are_a_manifest_error(
    tmp_path: Path, table: pa.Table, how: str
) -> None:
    path, n = tmp_path / "a.parquet", len(table)
    write_table(table, path, "test")
    metadata = pq.read_metadata(path).metadata[METADATA_KEY]
    values = {"a list": [[1]] * n, "a struct": [{"a": 1}] * n, "bytes": [b"x"] * n}
    name = "name" if "name" in how else "more"
    other = table.append_column(name, pa.array(values.get(how, ["x"] * n)))
    with pq.ParquetWriter(path, other.schema, store_schema=False) as writer:
        writer.write_table(other)
        writer.add_key_value_metadata({METADATA_KEY: metadata})
    with pytest.raises(ManifestError, match=f"such as '{name}'"):
        open_table(path, "test")


def test_a_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.parquet")
    path.write_bytes(b"x")
    with pytest.raises(ManifestError, match="is not UTF-8"):
        open_table(path, "manifest")
