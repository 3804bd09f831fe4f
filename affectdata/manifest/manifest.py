"""The manifest: one row per image, and where its images lie on this machine.

In: a Parquet file that `ingest` wrote. Out: `Manifest`, with Arrow inside. Where the images are is no part
of the file; it is looked up (`find_roots`), and every image read is checked against its `image_id`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from affectdata.errors import ImagesNotFound, IntegrityError, ManifestError, UsageError
from affectdata.hashing import file_hash
from affectdata.images.read import file_of, read_image
from affectdata.schema import DIGITS, FOLD, manifest_schema
from affectdata.store.parquet import (
    Rows,
    StoredTable,
    are_digits,
    distinct,
    locked_folder,
    open_table,
    read_json,
    read_parts,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

KIND = "manifest"
LOCAL_FILE = ".local.json"
_TABLE = "manifest"  # its name in SQL
_OF_A_SOURCE = (
    *("source", "title", "license", "citation", "url", "redistributable", "evidence", "estimated"),
)
ROOTS_VARIABLE = "AFFECTDATA_ROOTS"
_SHOWN = 80  # characters of a value in a message
_NAME = re.compile(r"\w[\w-]*")  # a file name without a dot: NAME.rejects.parquet is another table


@dataclass(frozen=True)
class Manifest:
    """The rows of one source, what holds for all of them (`metadata`), and where they are.

    `rows` are in memory or in their file; `table` reads them all. `roots` are the folders of images given
    by hand, by source; they win over every other way.
    """

    rows: Rows = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    path: Path
    roots: Mapping[str, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @cached_property
    def table(self) -> pa.Table:
        """All rows and columns (schema.manifest_schema), in memory."""
        return self.rows.select(self.rows.column_names)

    @property
    def name(self) -> str:
        """The file's name without its ending; recipes call the manifest by it."""
        return self.path.stem

    @property
    def digest(self) -> str:
        """SHA-256 over the logical rows."""
        return str(self.metadata["digest"])

    @cached_property
    def sources(self) -> list[str]:
        """The sources of its rows, sorted."""
        return distinct(self.rows, "source")

    @property
    def parts(self) -> list[dict[str, Any]]:
        """What each source of its rows says of itself: title, terms, citation; several after `concat`."""
        whole = {key: self.metadata[key] for key in _OF_A_SOURCE if key in self.metadata}
        return list(self.metadata.get("parts", [whole]))

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a DataFrame."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def sql(self, query: str) -> pa.Table:
        """Run one SELECT over the rows, as the table `manifest`; no other file is in reach, nor the network.

        Rows in a file are read there, as far as the query needs them: for an `image_id`, a few.

        Raises:
            UsageError: it is no SELECT, or DuckDB refuses it.
            MemoryError: the answer does not fit.
        """
        if isinstance(self.rows, pa.Table):
            return query_tables({_TABLE: self.rows}, query)
        return _select(lambda: self._database.cursor(), query, [_TABLE])

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        """DuckDB over the file; kept, as to read where its rows lie can take most of the time of a query."""
        import duckdb

        connection, path = duckdb.connect(), self.path.resolve()
        connection.from_parquet(str(path)).create_view(_TABLE)
        quoted = str(path).replace("'", "''")
        for setting in (f"allowed_paths = ['{quoted}']", "enable_external_access = false"):
            connection.execute(f"SET {setting}")
        connection.execute("SET GLOBAL parquet_metadata_cache = true")
        return connection

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}  # without what is made of them

    def images(self) -> Images:
        """Return the reader of this manifest's images.

        Raises:
            ImagesNotFound: a source's folder is nowhere to be found.
        """
        return Images(find_roots(self.sources, self.path.parent, self.roots))


def query_tables(tables: Mapping[str, pa.Table], query: str) -> pa.Table:
    """Run one SELECT in DuckDB over Arrow tables, with external access switched off.

    Raises:
        UsageError: it is no SELECT, or DuckDB refuses it; its words are in the message.
        MemoryError: the answer does not fit.
    """

    import duckdb

    def connect() -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={"enable_external_access": False})
        for name, table in tables.items():
            connection.register(name, table)
        return connection

    return _select(connect, query, list(tables))


def _select(connect: Callable[[], duckdb.DuckDBPyConnection], query: str, names: list[str]) -> pa.Table:
    """Run one SELECT on a connection of its own; other statements could write to a file that may be read."""
    import duckdb

    try:
        with connect() as connection:
            if [each.type for each in connection.extract_statements(query)] != [duckdb.StatementType.SELECT]:
                raise UsageError(f"no result but that of one SELECT, not of: {query}", fix="write one SELECT")
            return connection.sql(query).to_arrow_table()
    except duckdb.OutOfMemoryException as error:
        raise MemoryError(f"DuckDB: {error}") from error
    except duckdb.Error as error:
        raise UsageError(f"DuckDB: {error}", fix=f"the tables are: {', '.join(names)}") from error


def load_manifest(path: str | Path, roots: Mapping[str, str | Path] | None = None) -> Manifest:
    """Read a manifest; `roots` says by source where the images are, if they are needed and were moved.

    Raises:
        ManifestError: no such file, not a manifest, or of a newer schema.
        IntegrityError: its rows are not those that were written.
    """
    rows = open_table(Path(path), KIND)
    expected = manifest_schema(rows.metadata.get("emotions", []), folds=FOLD.name in rows.column_names)
    if not rows.schema.equals(expected):
        raise ManifestError(
            "its columns are not those of a manifest", where=str(path), fix="ingest the source anew"
        )
    _check_ids(rows)
    return Manifest(
        rows, rows.metadata, Path(path), {name: Path(root) for name, root in (roots or {}).items()}
    )


def _check_ids(rows: StoredTable) -> None:
    """Refuse ids and hashes that `ingest` does not write, whatever the digest says.

    Raises:
        ManifestError: naming column and row of the first.
    """
    start = 0
    for part in read_parts(rows, DIGITS):
        for name, n in DIGITS.items():
            bad = np.flatnonzero(~are_digits(part[name], n))
            if len(bad):
                value = str(part[name][int(bad[0])])[:_SHOWN]
                raise ManifestError(
                    f"{name} of row {start + int(bad[0])} is not {n} hexadecimal digits: {value!r}",
                    where=str(rows.path),
                    fix="ingest the source anew",
                )
        start += len(part)


def check_name(name: str) -> None:
    """Refuse a name that no manifest can have.

    Raises:
        UsageError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a manifest cannot be called {name!r}", fix="use letters, digits, '-' and '_' in --name"
        )


def write_manifest(table: pa.Table, metadata: Mapping[str, Any], path: Path) -> Manifest:
    """Write a manifest and return it; `metadata` must name its `emotions`."""
    digest = write_table(table, path, KIND, metadata)
    return Manifest(table, {**metadata, "digest": digest}, path)


@dataclass(frozen=True)
class Images:
    """Reads source images; plain values only, so that a worker can hold it. `roots`: folder by source."""

    roots: Mapping[str, Path]

    def read(self, source: str, path: str, image_id: str) -> bytes:
        """Read one image and check that it is the one that was ingested.

        Raises:
            ImagesNotFound: the file is not there.
            DecodeError: it was a row of a table, which holds no image now.
            IntegrityError: it is another file than the one that was ingested, or lies outside the root.
        """
        file = self.roots[source] / file_of(path)
        if not file.resolve().is_relative_to(self.roots[source].resolve()):
            raise IntegrityError(f"{path} leads out of the folder of {source}", where=str(file))
        try:
            data = read_image(self.roots[source], path)
        except OSError as error:
            raise _not_found(source, f"{path}: {error.strerror}", [str(self.roots[source])]) from error
        if file_hash(data) != image_id:
            raise IntegrityError(
                f"{path} is not the file that was ingested (its SHA-256 is not {image_id[:16]}…)",
                where=str(file),
                fix=f"restore the file, or run `affectdata ingest {self.roots[source]}` again",
            )
        return data


def find_roots(sources: list[str], folder: Path, given: Mapping[str, Path]) -> dict[str, Path]:
    """Find the folder of each source: as given, else from AFFECTDATA_ROOTS, else as `folder`'s notes say.

    AFFECTDATA_ROOTS is `SOURCE=PATH`, several separated as in PATH.

    Raises:
        ImagesNotFound: naming every place where it was looked for, and the three ways out.
    """
    variable = dict(
        item.split("=", 1) for item in os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep) if "=" in item
    )
    noted = read_local(folder)
    found = {}
    for source in sources:
        places = [given.get(source), variable.get(source), noted.get(source)]
        root = next((Path(place) for place in places if place), None)
        if root is None or not root.is_dir():
            looked = [f"{root} (no such folder)"] if root else ["no folder is known"]
            raise _not_found(source, "its folder is not there", looked)
        found[source] = root
    return found


def _not_found(source: str, what: str, looked: list[str]) -> ImagesNotFound:
    return ImagesNotFound(
        f"the images of {source} were not found: {what}",
        where=", ".join(looked),
        fix=f"--root {source}=PATH, or {ROOTS_VARIABLE}={source}=PATH, or `affectdata ingest PATH` again",
    )


def read_local(folder: Path) -> dict[str, str]:
    """Return the folder of each source as the last `ingest` on this machine noted it."""
    path = folder / LOCAL_FILE
    return dict(read_json(path)["roots"]) if path.exists() else {}


def note_root(folder: Path, source: str, root: Path) -> None:
    """Note where a source's images are; part of no hash."""
    with locked_folder(folder):
        write_json(folder / LOCAL_FILE, {"roots": {**read_local(folder), source: str(root.resolve())}})


def find_manifests(folder: Path) -> list[Path]:
    """List the manifests in a folder, by name; rejects, edges and other tables are left out."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.parquet") if not is_beside_manifest(path))


def is_beside_manifest(path: Path) -> bool:
    """Say whether a file is called as those beside a manifest: NAME.rejects.parquet, NAME.edges.parquet."""
    return "." in path.stem


def load_others(
    table: pa.Table, folder: Path, roots: Mapping[str, Path], say: Callable[[str], None]
) -> tuple[list[Manifest], dict[str, Path]]:
    """Load the manifests in a folder that share no source with `table`, and find their images' folders.

    One that cannot be read, or whose images are nowhere to be found, is left out, after saying so.
    """
    own = set(table["source"].unique().to_pylist())
    found: list[Manifest] = []
    where: dict[str, Path] = {}
    for path in find_manifests(folder):
        try:
            manifest = load_manifest(path)
            if own & set(manifest.sources):
                continue
            where |= find_roots(manifest.sources, folder, roots)
        except (ManifestError, IntegrityError, ImagesNotFound) as error:
            say(f"note: {path.stem} is left out: {error.what}")
        else:
            found.append(manifest)
    return found, where


def check_roots(given: Mapping[str, str | Path], manifests: Sequence[Manifest]) -> None:
    """Refuse a folder for a source that none of the manifests has, which is a slip of the pen.

    Raises:
        UsageError: naming it, and the sources that there are.
    """
    sources = sorted({source for manifest in manifests for source in manifest.sources})
    unknown = sorted(set(given) - set(sources))
    if unknown:
        raise UsageError(f"--root: no source {unknown[0]!r} here", fix=f"sources: {', '.join(sources)}")


def choose_manifests(
    paths: Sequence[Path], names: Sequence[str], folder: Path, roots: Mapping[str, str | Path] | None = None
) -> list[Manifest]:
    """Load the manifests at `paths`, else those called `names` in `folder`, else the only one there.

    Raises:
        ManifestError: one that is named is not there.
        UsageError: nothing is named, and `folder` has none or several.
    """
    chosen = list(paths) or [folder / f"{name}.parquet" for name in names]
    there = find_manifests(folder)
    if not chosen:
        if len(there) != 1:
            what = (
                f"{len(there)} manifests in {folder}/ and none named"
                if there
                else f"no manifest in {folder}/"
            )
            fix = (
                f"--manifest with one of {', '.join(map(str, there))}" if there else "affectdata ingest ROOT"
            )
            raise UsageError(what, fix=fix)
        chosen = there
    for path in chosen:
        if not path.is_file():
            names_there = ", ".join(each.stem for each in there) or "none"
            raise ManifestError(
                f"no manifest {path}", fix=f"`affectdata ingest ROOT` makes it; there are: {names_there}"
            )
    return [load_manifest(path, roots) for path in chosen]
