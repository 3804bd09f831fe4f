"""SQL over manifests: one SELECT in DuckDB, without access to other files or the network."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from affectdata.errors import UsageError

if TYPE_CHECKING:
    import duckdb

_QUERY_S, _REPEAT_S = 30.0, 0.1
_LIMITS: dict[str, str | int | float | list[str]] = {
    "memory_limit": "2GB",
    "max_temp_directory_size": "0KB",
    "threads": 4,
}  # of a bounded query
_MORE_BYTES = 3 << 30  # of address space: DuckDB does not count long strings and lists
_STATM = Path("/proc/self/statm")


def query_tables(tables: Mapping[str, pa.Table], query: str, bounded: bool = False) -> pa.Table:
    """Run one SELECT in DuckDB over Arrow tables, with external access disabled.

    `bounded`: DuckDB gets 2 GiB of memory (on Linux 3 GiB with what it does not count), no disk, and 30 s.

    Raises:
        UsageError: the query is not a single SELECT, or DuckDB rejects it; the message has the reason.
        MemoryError: the result does not fit into memory.
        TimeoutError: the query takes longer than a bounded one may.
    """

    import duckdb

    def connect() -> duckdb.DuckDBPyConnection:
        limits = _LIMITS if bounded else {}
        connection = duckdb.connect(config={"enable_external_access": False, **limits})
        for name, table in tables.items():
            connection.register(name, table)
        return connection

    return select(connect, query, list(tables), _QUERY_S if bounded else None)


def open_parquet(path: Path, name: str) -> duckdb.DuckDBPyConnection:
    """Open a Parquet file as the table `name`; no other file can be read."""
    import duckdb

    connection = duckdb.connect()
    connection.from_parquet(str(path)).create_view(name)
    quoted = str(path).replace("'", "''")
    for setting in (f"allowed_paths = ['{quoted}']", "enable_external_access = false"):
        connection.execute(f"SET {setting}")
    connection.execute("SET GLOBAL parquet_metadata_cache = true")
    return connection


def select(
    connect: Callable[[], duckdb.DuckDBPyConnection],
    query: str,
    names: list[str],
    seconds: float | None = None,
) -> pa.Table:
    """Run one SELECT on a new connection; other statements could write to a readable file."""
    import duckdb

    try:
        with connect() as connection, _interrupted_after(connection, seconds), _limited_memory(seconds):
            types = [statement.type for statement in connection.extract_statements(query)]
            if types != [duckdb.StatementType.SELECT]:
                raise UsageError(f"only a single SELECT statement is allowed, not: {query}")
            return connection.sql(query).to_arrow_table()
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(f"DuckDB: {error}") from error
    except duckdb.InterruptException as error:
        raise TimeoutError(f"DuckDB did not finish in {seconds} s") from error
    except duckdb.Error as error:
        raise UsageError(f"DuckDB: {error}", fix=f"the tables are: {', '.join(names)}") from error


@contextmanager
def _limited_memory(seconds: float | None) -> Iterator[None]:
    """Limit the address space that this process may add during a bounded query."""
    if seconds is None or not _STATM.is_file():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(_STATM.read_text().split()[0]) * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(
        resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def _interrupted_after(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupt queries of a connection that still run after some seconds."""
    if seconds is None:
        yield
        return
    is_done = threading.Event()

    def watch() -> None:
        is_late = not is_done.wait(seconds)
        while is_late and not is_done.wait(_REPEAT_S):  # between two statements an interrupt has no effect
            connection.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()
