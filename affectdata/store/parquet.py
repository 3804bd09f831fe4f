"""Parquet files that are written atomically, checked when read, and have a logical digest."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import html
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.errors import InputError, IntegrityError, ManifestError, UsageError
from affectdata.schema import METADATA_KEY, SCHEMA_VERSION
from affectdata.store.files import check_regular, name_in_errors, read_regular

_ROW_GROUP = 1 << 14  # rows; a look-up by image_id reads one group and the positions of all groups, so:
_MANY, _LARGER = 1 << 20, 8  # after a million rows, groups are eight times as large
STREAM_ROWS = 1 << 11  # rows in memory when a table is read in parts
_DIGEST_ROWS = 1 << 13
_BUFFER = 1 << 16  # bytes
_IS_DIGIT = np.isin(np.arange(256), np.frombuffer(b"0123456789abcdef", np.uint8))
_METADATA_HASH = "metadata_sha256"


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, sync it and rename it to `path`.

    Raises:
        InputError: the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_files(path)
        temporary, handle = _create_locked(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", fix="choose a writable folder with --out"
        ) from error
    try:
        with name_in_errors(path):
            yield temporary
            os.fsync(handle)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _create_locked(path: Path) -> tuple[Path, int]:
    """Create a temporary file beside `path`, locked while this process uses it."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # not removed as stale before it was locked
            return temporary, handle
        os.close(handle)


def remove_stale_files(path: Path) -> None:
    """Remove the temporary files (folders) that killed runs left when they wrote `path`."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        if not is_unlocked(temporary):
            continue
        if temporary.is_dir() and not temporary.is_symlink():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def is_unlocked(path: Path) -> bool:
    """Return whether no running process holds the lock of a file or folder."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def locked_folder(folder: Path, wait: bool = True) -> Iterator[None]:
    """Lock a folder for writing; the lock is released with the process, however it ends.

    Raises:
        InputError: the folder cannot be created.
        UsageError: another process holds it, and `wait` is not set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}", fix="choose another --out") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UsageError(f"another run is writing {folder}", fix="wait until it ends") from error
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with LF line endings."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, document: Any) -> None:
    """Write JSON with sorted keys and an indent of two spaces; refuse NaN."""
    write_text(
        path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_json(path: Path) -> Any:
    """Read a JSON file that this package wrote.

    Raises:
        ManifestError: the file does not exist or is not JSON.
    """
    try:
        return json.loads(read_regular(path), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"cannot read {path.name}: {error}", where=str(path)) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_table(table: pa.Table, path: Path, kind: str, metadata: Mapping[str, Any] | None = None) -> str:
    """Write a table as `write_batches` does; return its logical digest."""
    return write_batches([table], table.schema, path, kind, metadata)


def write_batches(
    batches: Iterable[pa.Table],
    schema: pa.Schema,
    path: Path,
    kind: str,
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """Write a table given in parts as Parquet, atomically; return its logical digest.

    The file contains no time, host or absolute path: equal rows give equal bytes with equal versions of
    pyarrow, however they are cut into parts. One row group is in memory at a time. `metadata` is stored under
    the single key `affectdata`, with `kind`, schema version, the digest of the rows, and its own SHA-256.
    """
    digest = RowsDigest(schema)
    # No Arrow schema in the file: it would hide the metadata, added last, from `pq.read_schema`. No
    # dictionaries: ids are unique, and dictionary pages would depend on the chunks.
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "store_schema": False}
    with (
        replace_file(path) as temporary,
        pq.ParquetWriter(temporary, schema.remove_metadata(), **options) as writer,
    ):
        for part in _row_groups(batches, schema):
            digest.update(part)
            writer.write_table(part, row_group_size=max(1, len(part)))
            del part  # before the next one is created
        document = {**(metadata or {}), "kind": kind, "schema_version": SCHEMA_VERSION}
        document["digest"] = digest.hexdigest()
        document[_METADATA_HASH] = _hash_metadata(document)
        packed = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
        writer.add_key_value_metadata({METADATA_KEY: packed})
    return str(document["digest"])


def _hash_metadata(document: Mapping[str, Any]) -> str:
    covered = {name: value for name, value in document.items() if name != _METADATA_HASH}
    return hashlib.sha256(
        json.dumps(covered, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    ).hexdigest()


def _row_groups(batches: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Cut rows into row groups: small ones first, larger ones after the first `_MANY` rows."""
    small = rechunk(batches, schema, _ROW_GROUP)
    yield from islice(small, _MANY // _ROW_GROUP)
    yield from (part for part in rechunk(small, schema, _ROW_GROUP * _LARGER) if len(part))


def rechunk(batches: Iterable[pa.Table], schema: pa.Schema, n_rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `n_rows`, the last one shorter; without rows, one empty table."""
    held, n_parts = schema.empty_table(), 0
    for batch in batches:
        held = pa.concat_tables([held, batch.cast(schema)])
        while len(held) >= n_rows:
            yield held.slice(0, n_rows).combine_chunks()
            held, n_parts = held.slice(n_rows), n_parts + 1
    if len(held) or not n_parts:
        yield held.combine_chunks()


@dataclass(frozen=True)
class StoredTable:
    """A table in a Parquet file that this package wrote, read on demand; `metadata` is the file's."""

    path: Path
    schema: pa.Schema
    num_rows: int
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return self.num_rows

    @property
    def column_names(self) -> list[str]:
        """The column names, in order."""
        return list(self.schema.names)

    def select(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns, one chunk each: `take` on several chunks would copy all of them."""
        with pq.ParquetFile(self.path, buffer_size=_BUFFER) as file:
            parts = [file.read(columns=[name], use_threads=False).combine_chunks() for name in columns]
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.table([part.column(0) for part in parts], schema=schema)

    def to_batches(
        self, max_chunksize: int, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows (or some columns) in order, a few rows at a time."""
        with pq.ParquetFile(self.path, buffer_size=_BUFFER) as file:
            yield from _batches(file, max_chunksize, columns and list(columns))


def _batches(file: pq.ParquetFile, n_rows: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Read one row group after the other: given several, pyarrow opens every column of each at once."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(n_rows, row_groups=[group], columns=columns, use_threads=False)


def as_one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; a single chunk is not copied, unlike with `combine_chunks`."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


Rows: TypeAlias = pa.Table | StoredTable  # both have `schema`, `select`, `column_names` and `to_batches`


def read_parts(rows: Rows, columns: Iterable[str] | None = None) -> Iterator[pa.Table]:
    """Read rows (or some of their columns) in order, `STREAM_ROWS` at a time."""
    names = rows.column_names if columns is None else list(columns)
    batches = (
        rows.select(names).to_batches(STREAM_ROWS)
        if isinstance(rows, pa.Table)
        else rows.to_batches(STREAM_ROWS, names)
    )
    for batch in batches:
        yield pa.Table.from_batches([batch]).select(names)


def are_digits(column: pa.Array | pa.ChunkedArray, n: int) -> np.ndarray:
    """Return for every value of a string column whether it is `n` lowercase hexadecimal digits."""
    array = column if isinstance(column, pa.Array) else as_one_array(column)
    lengths = pc.fill_null(pc.binary_length(array), -1).to_numpy(zero_copy_only=False)
    if (lengths == n).all():  # the values are contiguous
        start = np.frombuffer(array.buffers()[1], np.int32)[array.offset] if len(array) else 0
        data = np.frombuffer(array.buffers()[2], np.uint8, len(array) * n, start) if len(array) else lengths
        if _IS_DIGIT.take(data).all():
            return np.ones(len(array), bool)
    fits = pc.fill_null(pc.match_substring_regex(array, rf"^[0-9a-f]{{{n}}}$"), False)
    return np.asarray(fits.to_numpy(zero_copy_only=False))


def rows_to_html(title: str, rows: Rows, columns: Sequence[str], n: int = 5) -> str:
    """Return HTML for a notebook: a title, and some columns of the first rows."""
    names = [name for name in columns if name in rows.column_names]
    first = next(read_parts(rows, names), None)
    table = "" if first is None else first.slice(0, n).to_pandas().to_html(index=False, na_rep="")
    return f"<p>{html.escape(title)}</p>{table}"


def distinct(rows: Rows, column: str) -> list[Any]:
    """Return the distinct values of a column, sorted, without null."""
    values: set[Any] = set()
    for part in read_parts(rows, [column]):
        values.update(part[column].unique().drop_null().to_pylist())
    return sorted(values)


def open_table(path: Path, kind: str) -> StoredTable:
    """Open a table that `write_table` or `write_batches` wrote and check its digest; rows stay on disk.

    Raises:
        ManifestError: the file does not exist, is not Parquet, or has another kind or a newer schema.
        IntegrityError: the rows are not those that were written.
    """
    try:
        check_regular(path)
        with pq.ParquetFile(path, buffer_size=_BUFFER) as file:  # `pq.read_table` reads a folder too
            metadata = _metadata(file, path, kind)
            schema, n_rows = file.schema_arrow.remove_metadata(), file.metadata.num_rows
            digest = _file_digest(file, metadata["schema_version"])
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:  # a damaged name of a column
        what = (
            f"cannot read {path.name} as Parquet: {error}" if path.exists() else f"{path.name} does not exist"
        )
        raise ManifestError(what, where=str(path)) from error
    if digest != metadata["digest"]:
        raise IntegrityError(
            f"the rows of {path.name} are not those that were written",
            where=str(path),
            fix="re-run the command that wrote the file",
        )
    return StoredTable(path, schema, n_rows, metadata)


def read_table(path: Path, kind: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a whole table (`open_table`) and its metadata.

    Raises:
        ManifestError: the file does not exist, is not Parquet, or has another kind or a newer schema.
        IntegrityError: the rows are not those that were written.
    """
    stored = open_table(path, kind)
    return stored.select(stored.column_names), stored.metadata


def _metadata(file: pq.ParquetFile, path: Path, kind: str) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads((file.metadata.metadata or {}).get(METADATA_KEY, b""))
        types = [type(metadata[name]) for name in ("kind", "schema_version", "digest")]
    except (ValueError, LookupError, TypeError, RecursionError):  # not JSON, or not written by this package
        types = []
    if types != [str, int, str]:
        raise ManifestError(
            f"{path.name} has no affectdata metadata",
            where=str(path),
            fix="tools that rewrite Parquet, such as pandas, drop it: use the file as `affectdata` wrote it",
        )
    if metadata["kind"] != kind:
        raise ManifestError(
            f"{path.name} is a table of kind {metadata['kind']!r}, not {kind!r}", where=str(path)
        )
    if metadata["schema_version"] > SCHEMA_VERSION:
        raise ManifestError(
            f"{path.name} has schema version {metadata['schema_version']}; this is {SCHEMA_VERSION}",
            where=str(path),
            fix="pip install --upgrade affectdata",
        )
    if metadata["schema_version"] >= 2 and metadata.get(_METADATA_HASH) != _hash_metadata(metadata):
        raise IntegrityError(
            f"the metadata of {path.name} (source, terms, scales) is not what was written",
            where=str(path),
            fix="re-run the command that wrote the file",
        )
    return metadata


def _file_digest(file: pq.ParquetFile, schema_version: int) -> str:
    """Hash the rows of a file; of a large one, part of one column is in memory at a time."""
    n_rows = file.metadata.num_rows
    if n_rows <= STREAM_ROWS:
        table = file.read(use_threads=False)
        return column_digest(table.schema, n_rows, lambda name: [table.select([name])], schema_version)

    def parts(name: str) -> Iterator[pa.Table]:
        return (pa.Table.from_batches([batch]) for batch in _batches(file, STREAM_ROWS, [name]))

    return column_digest(file.schema_arrow, n_rows, parts, schema_version)


def table_digest(table: pa.Table) -> str:
    """Hash the logical rows of a flat table: names, types, nulls and values, in order (SHA-256, hex).

    Independent of chunks, dictionaries and the file's encoding; depends on the order of rows and columns.
    """
    digest = RowsDigest(table.schema)
    for part in read_parts(table):
        digest.update(part)
    return digest.hexdigest()


class RowsDigest:
    """The `table_digest` of rows given in parts, however they are cut."""

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = [_ColumnDigest(field) for field in schema]

    def update(self, part: pa.Table) -> None:
        """Add the next rows."""
        for digest, values in zip(self._columns, part.columns, strict=True):
            digest.update(values)

    def hexdigest(self) -> str:
        """Return the digest of the rows so far."""
        return _join_columns(self._columns)


def _join_columns(columns: Iterable[_ColumnDigest]) -> str:
    return hashlib.sha256("".join(column.line() for column in columns).encode()).hexdigest()


class _ColumnDigest:
    """Hash one column: validity (a byte per row), string lengths and values, one stream each."""

    def __init__(self, field: pa.Field) -> None:
        self.name, self.kind, self.n_rows = field.name, _flat_type(field), 0
        self._streams = [hashlib.sha256() for _ in range(3)]

    def update(self, values: pa.ChunkedArray) -> None:
        """Add the next values."""
        for chunk in values.chunks:
            self.n_rows += len(chunk)
            for stream, data in zip(self._streams, _column_bytes(chunk.cast(self.kind)), strict=True):
                stream.update(data)

    def line(self) -> str:
        """Return the line of this column over which the digest of a table is taken."""
        hashes = ":".join(stream.hexdigest() for stream in self._streams)
        return f"{self.name}:{self.kind}:{self.n_rows}:{hashes}\n"


def column_digest(
    schema: pa.Schema,
    n_rows: int,
    read: Callable[[str], Iterable[pa.Table]],
    schema_version: int = SCHEMA_VERSION,
) -> str:
    """Return the digest of rows of which `read` returns one column at a time, in parts.

    `schema_version` is the file's: the digest of version 1 was one hash over all columns.
    """
    if schema_version < 2:
        return _digest_of_version_1(schema, n_rows, read)
    columns = []
    for field in schema:
        columns.append(_ColumnDigest(field))
        for part in read(field.name):
            columns[-1].update(part.column(0))
    return _join_columns(columns)


def _digest_of_version_1(schema: pa.Schema, n_rows: int, read: Callable[[str], Iterable[pa.Table]]) -> str:
    digest = hashlib.sha256()
    for field in schema:
        kind = _flat_type(field)
        digest.update(f"{field.name}:{kind}:{n_rows};".encode())
        for part in rechunk(read(field.name), pa.schema([field.with_type(kind)]), _DIGEST_ROWS):
            valid, lengths, values = _column_bytes(as_one_array(part.column(0)))
            for data in (np.packbits(valid).tobytes(), lengths, values):
                digest.update(data)
    return digest.hexdigest()


def _flat_type(field: pa.Field) -> pa.DataType:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_nested(kind):
        raise TypeError(f"the column {field.name} is not flat: {kind}")
    return kind


def _column_bytes(array: pa.Array) -> tuple[Any, Any, Any]:
    """Return validity (a byte per row), the lengths of strings (int64, else nothing), and all values."""
    valid = array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    if not pa.types.is_string(array.type):
        values = array.fill_null(pa.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)
        return (
            valid,
            b"",
            np.ascontiguousarray(values + 0 if values.dtype.kind == "f" else values),
        )  # -0.0 is 0.0
    filled = array.fill_null("").cast(pa.large_binary())
    lengths = np.ascontiguousarray(pc.binary_length(filled).to_numpy(zero_copy_only=False))
    starts = np.frombuffer(filled.buffers()[1], np.int64)[filled.offset :]
    data = memoryview(filled.buffers()[2])[starts[0] : starts[len(filled)]] if len(filled) else b""
    return valid, lengths, data  # all values, contiguous
