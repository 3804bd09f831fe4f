"""Parquet files that are written atomically, with the digest of their rows, and checked when read."""

from __future__ import annotations

import hashlib
import html
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from affectdata.errors import IntegrityError, ManifestError
from affectdata.schema import METADATA_KEY, SCHEMA_VERSION
from affectdata.store.atomic import replace_file
from affectdata.store.chunks import STREAM_ROWS, rechunk
from affectdata.store.digest import RowsDigest, column_digest, is_flat
from affectdata.store.files import check_regular

_ROW_GROUP = 1 << 14  # rows; a look-up by image_id reads one group and the positions of all groups, so:
_MANY, _LARGER = 1 << 20, 8  # after a million rows, groups are eight times as large
_BUFFER = 1 << 16  # bytes
_METADATA_HASH = "metadata_sha256"


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
            _check_columns(schema, path)
            digest = _file_digest(file, metadata["schema_version"])
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"the name of {path.name!a} is not UTF-8", where=str(path), fix="rename the file"
        ) from error
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


def _check_columns(schema: pa.Schema, path: Path) -> None:
    """Refuse columns that no table of this package has: nested ones, and two of one name."""
    counts = Counter(schema.names)
    strange = [field.name for field in schema if counts[field.name] > 1 or not is_flat(field.type)]
    if strange:
        raise ManifestError(
            f"{path.name} has columns that `affectdata` does not write, such as {strange[0]!r}: "
            "they are nested, of an unknown type, or of the same name as another one",
            where=str(path),
            fix="re-run the command that wrote the file",
        )


def _file_digest(file: pq.ParquetFile, schema_version: int) -> str:
    """Hash the rows of a file; of a large one, part of one column is in memory at a time."""
    n_rows = file.metadata.num_rows
    if n_rows <= STREAM_ROWS:
        table = file.read(use_threads=False)
        return column_digest(table.schema, n_rows, lambda name: [table.select([name])], schema_version)

    def parts(name: str) -> Iterator[pa.Table]:
        return (pa.Table.from_batches([batch]) for batch in _batches(file, STREAM_ROWS, [name]))

    return column_digest(file.schema_arrow, n_rows, parts, schema_version)
