"""Parquet files that appear whole or not at all, are checked when read, and have a logical digest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.errors import InputError, IntegrityError, ManifestError, UsageError
from affectdata.schema import METADATA_KEY, SCHEMA_VERSION

_ROW_GROUP = 1 << 17
_DIGEST_ROWS = 1 << 16


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it is synced and takes its name.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", fix="choose a folder that can be written with --out"
        ) from error
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked_folder(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the right to write in a folder; the lock goes with the process, however it ends.

    Raises:
        InputError: the folder cannot be made.
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
            raise UsageError(f"another run is writing {folder}", fix="wait for it to end") from error
        yield
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all, with LF line ends."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, document: Any) -> None:
    """Write JSON for people and programs: sorted keys, two spaces, no NaN."""
    write_text(
        path, json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_json(path: Path) -> Any:
    """Read a JSON file that this package wrote.

    Raises:
        ManifestError: it is not there or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"cannot read {path.name}: {error}", where=str(path)) from error


def write_table(table: pa.Table, path: Path, kind: str, metadata: Mapping[str, Any] | None = None, *, row_group: int = _ROW_GROUP) -> str:
    """Write a table as Parquet, whole or not at all; return its logical digest.

    The file holds no clock, host or absolute path: equal rows give equal bytes with equal versions of
    pyarrow. `metadata` goes under the one key `affectdata`, with `kind`, schema version and digest.
    """
    digest = table_digest(table)
    document = {**(metadata or {}), "kind": kind, "schema_version": SCHEMA_VERSION, "digest": digest}
    packed = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    schema = pa.schema([_flat(field) for field in table.schema], {METADATA_KEY: packed})
    # No dictionaries: ids are unique, and the choice of dictionary pages would follow the chunks.
    with replace_file(path) as temporary, pq.ParquetWriter(
        temporary, schema, compression="zstd", use_dictionary=False
    ) as writer:
        for start in range(0, max(1, len(table)), row_group):
            part = table.slice(start, row_group).cast(schema)
            writer.write_table(part.combine_chunks(), row_group)
    return digest


def _flat(field: pa.Field) -> pa.Field:
    """Return the field without a dictionary."""
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def read_table(path: Path, kind: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table that `write_table` wrote, and its metadata; the digest is checked.

    Raises:
        ManifestError: no such file, not Parquet, not of this kind, or of a newer schema.
        IntegrityError: the rows are not those that were written.
    """
    try:
        with pq.ParquetFile(path) as file:  # one file: `pq.read_table` would read a folder as one table
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        what = (
            f"cannot read {path.name} as Parquet: {error}" if path.exists() else f"{path.name} does not exist"
        )
        raise ManifestError(what, where=str(path)) from error
    packed = (table.schema.metadata or {}).get(METADATA_KEY)
    if packed is None:
        raise ManifestError(
            f"{path.name} carries no affectdata metadata",
            where=str(path),
            fix="a tool that rewrites Parquet (pandas does) drops it; use the file as `affectdata` wrote it",
        )
    metadata = json.loads(packed)
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
    table = table.replace_schema_metadata(None)
    if table_digest(table) != metadata["digest"]:
        raise IntegrityError(
            f"the rows of {path.name} are not those that were written",
            where=str(path),
            fix="make the file anew",
        )
    return table, metadata


def table_digest(table: pa.Table) -> str:
    """Hash the logical rows of a flat table: names, types, nulls and values, in order (SHA-256, hex).

    Chunking, dictionaries and the file's encoding do not matter; the order of rows and columns does.
    """
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        kind = _flat(table.schema.field(name)).type
        if pa.types.is_nested(kind):
            raise TypeError(f"the column {name} is not flat: {kind}")
        digest.update(f"{name}:{kind}:{len(column)};".encode())
        for start in range(0, len(column), _DIGEST_ROWS):
            _update_digest(digest, column.slice(start, _DIGEST_ROWS).cast(kind))
    return digest.hexdigest()


def _update_digest(digest: Any, part: pa.ChunkedArray) -> None:
    array = part.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # zero chunks
        return
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_string(array.type):
        filled = array.fill_null("").cast(pa.large_binary())
        digest.update(pc.binary_length(filled).to_numpy(zero_copy_only=False).tobytes())
        digest.update(b"".join(filled.to_pylist()))
    else:
        values = array.fill_null(pa.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)
        digest.update((values + 0 if values.dtype.kind == "f" else values).tobytes())  # -0.0 is 0.0
