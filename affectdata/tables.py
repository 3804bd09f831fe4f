"""Parquet files that appear whole or not at all, are checked when read, and have a logical digest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.errors import InputError, IntegrityError, ManifestError, UsageError
from affectdata.schema import METADATA_KEY, SCHEMA_VERSION

_ROW_GROUP = 1 << 14
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


def write_table(table: pa.Table, path: Path, kind: str, metadata: Mapping[str, Any] | None = None) -> str:
    """Write a table as Parquet, whole or not at all; return its logical digest.

    The file holds no clock, host or absolute path: equal rows give equal bytes with equal versions of
    pyarrow. `metadata` goes under the one key `affectdata`, with `kind`, schema version and digest.
    """
    digest = table_digest(table)
    _write(path, [table], _with_metadata(table.schema, digest, kind, metadata))
    return digest


def write_parts(
    parts: Iterable[pa.Table], schema: pa.Schema, path: Path, kind: str, metadata: Mapping[str, Any]
) -> str:
    """Write tables one after the other as `write_table` writes one; memory holds one of them at a time.

    All but the last must fill their row groups. The digest goes by columns and stands in the file, so that
    the rows are written to a file without a name first, and read from there column by column.
    """
    with TemporaryFile() as rows:
        with pq.ParquetWriter(rows, schema, compression="lz4", use_dictionary=False) as writer:
            for part in parts:
                writer.write_table(part.combine_chunks(), row_group_size=_ROW_GROUP)
                del part  # before the next one is made
        rows.seek(0)
        with pq.ParquetFile(rows) as file:
            digest = _file_digest(file)
            _write(path, _row_groups(file), _with_metadata(schema, digest, kind, metadata))
    return digest


def _with_metadata(
    schema: pa.Schema, digest: str, kind: str, metadata: Mapping[str, Any] | None
) -> pa.Schema:
    document = {**(metadata or {}), "kind": kind, "schema_version": SCHEMA_VERSION, "digest": digest}
    packed = json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    return schema.with_metadata({METADATA_KEY: packed})


def _write(path: Path, parts: Iterable[pa.Table], schema: pa.Schema) -> None:
    # No dictionaries: ids are unique, and the choice of dictionary pages would follow the chunks.
    with (
        replace_file(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=False) as writer,
    ):
        for part in parts:
            part = part.replace_schema_metadata(schema.metadata).combine_chunks()
            writer.write_table(part, row_group_size=_ROW_GROUP)
            del part


def _row_groups(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.Table]:
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, columns=columns, use_threads=False)


@contextmanager
def _open(path: Path, kind: str) -> Iterator[tuple[pq.ParquetFile, dict[str, Any]]]:
    """Open a table that was written here; anything that Parquet says of it is a ManifestError."""
    try:
        with pq.ParquetFile(path) as file:  # one file: `pq.read_table` would read a folder as one table
            yield file, _read_metadata(file.metadata.metadata or {}, path, kind)
    except (OSError, pa.ArrowException) as error:
        what = (
            f"cannot read {path.name} as Parquet: {error}" if path.exists() else f"{path.name} does not exist"
        )
        raise ManifestError(what, where=str(path)) from error


def _read_metadata(found: Mapping[bytes, bytes], path: Path, kind: str) -> dict[str, Any]:
    packed = found.get(METADATA_KEY)
    if packed is None:
        raise ManifestError(
            f"{path.name} carries no affectdata metadata",
            where=str(path),
            fix="a tool that rewrites Parquet (pandas does) drops it; use the file as `affectdata` wrote it",
        )
    metadata: dict[str, Any] = json.loads(packed)
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
    return metadata


def read_table(path: Path, kind: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read a table that `write_table` wrote, and its metadata; the digest is checked.

    Raises:
        ManifestError: no such file, not Parquet, not of this kind, or of a newer schema.
        IntegrityError: the rows are not those that were written.
    """
    with _open(path, kind) as (file, metadata):
        table = file.read().replace_schema_metadata(None)
    _compare(table_digest(table), metadata, path)
    return table, metadata


def read_columns(path: Path, kind: str, columns: list[str], check: bool = True) -> Iterator[pa.Table]:
    """Yield some columns of a table, a row group at a time; those that it lacks are left out.

    Raises:
        ManifestError, IntegrityError: as `read_table`, before the first rows.
    """
    with _open(path, kind) as (file, metadata):
        if check:
            _compare(_file_digest(file), metadata, path)
        for part in _row_groups(file, [name for name in columns if name in file.schema_arrow.names]):
            yield part.replace_schema_metadata(None)


def _compare(digest: str, metadata: Mapping[str, Any], path: Path) -> None:
    if digest != metadata["digest"]:
        raise IntegrityError(
            f"the rows of {path.name} are not those that were written",
            where=str(path),
            fix="make the file anew",
        )


def table_digest(table: pa.Table) -> str:
    """Hash the logical rows of a flat table: names, types, nulls and values, in order (SHA-256, hex).

    Chunking, dictionaries and the file's encoding do not matter; the order of rows and columns does.
    """

    def blocks(name: str) -> Iterator[pa.ChunkedArray]:
        for start in range(0, len(table), _DIGEST_ROWS):
            yield table.column(name).slice(start, _DIGEST_ROWS)

    return _digest(table.schema, len(table), blocks)


def _file_digest(file: pq.ParquetFile) -> str:
    """Hash the rows of a file as `table_digest` does, with some of one column in memory at a time."""

    def blocks(name: str) -> Iterator[pa.ChunkedArray]:
        held = pa.chunked_array([], file.schema_arrow.field(name).type)
        for part in _row_groups(file, [name]):
            held = pa.chunked_array([*held.chunks, *part[name].chunks])
            while len(held) >= _DIGEST_ROWS:
                yield held.slice(0, _DIGEST_ROWS)
                held = held.slice(_DIGEST_ROWS)
        yield held

    return _digest(file.schema_arrow, file.metadata.num_rows, blocks)


def _digest(schema: pa.Schema, n_rows: int, blocks: Callable[[str], Iterable[pa.ChunkedArray]]) -> str:
    digest = hashlib.sha256()
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind):
            raise TypeError(f"the column {field.name} is not flat: {kind}")
        digest.update(f"{field.name}:{kind}:{n_rows};".encode())
        for block in blocks(field.name):
            _update_digest(digest, block.cast(kind))
    return digest.hexdigest()


def _update_digest(digest: Any, part: pa.ChunkedArray) -> None:
    digest.update(np.packbits(pc.is_valid(part).to_numpy()).tobytes())
    if pa.types.is_string(part.type):
        part = pc.fill_null(part, "") if part.null_count else part
        digest.update(pc.binary_length(part).cast(pa.int64()).to_numpy().tobytes())
        for chunk in part.chunks:
            _, ends, text = chunk.buffers()
            first, last = np.frombuffer(ends, np.int32)[[chunk.offset, chunk.offset + len(chunk)]]
            digest.update(memoryview(text)[first:last] if last > first else b"")
    else:
        values = pc.fill_null(part, pa.scalar(0).cast(part.type)).to_numpy()
        digest.update((values + 0 if values.dtype.kind == "f" else values).tobytes())  # -0.0 is 0.0
