"""The digest of a table: a hash of its logical rows, however they are cut, encoded or compressed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.schema import SCHEMA_VERSION
from affectdata.store.chunks import STREAM_ROWS, as_one_array, rechunk

_DIGEST_ROWS = 1 << 13


def table_digest(table: pa.Table) -> str:
    """Hash the logical rows of a flat table: names, types, nulls and values, in order (SHA-256, hex).

    Independent of chunks, dictionaries and the file's encoding; depends on the order of rows and columns.
    """
    digest = RowsDigest(table.schema)
    for start in range(0, len(table), STREAM_ROWS):
        digest.update(table.slice(start, STREAM_ROWS))
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


def is_flat(kind: pa.DataType) -> bool:
    """Return whether a column of this type has a digest: strings, numbers and truth values, also encoded."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(test(kind) for test in tests)


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
