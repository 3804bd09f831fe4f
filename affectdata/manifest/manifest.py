"""The manifest: one row per image, and where its images are on this machine.

In: a Parquet file that `ingest` wrote. Out: `Manifest`, with Arrow inside. The file does not contain the
folders of the images: they are looked up (`find_roots`), and every image is checked against its `image_id`.
"""

from __future__ import annotations

import glob
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
from affectdata.manifest.query import open_parquet, query_tables, select
from affectdata.manifest.roots import find_roots, not_found
from affectdata.records import count_text
from affectdata.schema import DIGITS, FOLD, QUALITY, manifest_schema, vote_columns
from affectdata.store.addresses import is_address
from affectdata.store.chunks import are_digits
from affectdata.store.parquet import (
    Rows,
    StoredTable,
    distinct,
    open_table,
    read_parts,
    rows_to_html,
    write_table,
)
from affectdata.store.remote import local_copy

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

KIND = "manifest"
_TABLE = "manifest"  # name of the table in SQL
_IN_NOTEBOOKS = ("path", "subtype", "valence", "arousal", "emotion", "split")
_SOURCE_KEYS = (
    *("source", "title", "license", "citation", "url", "redistributable", "evidence", "estimated", "bibtex"),
)
_SHOWN = 80  # characters of a value in a message
_NAME = re.compile(r"\w[\w-]*")  # no dot: NAME.rejects.parquet is another table


@dataclass(frozen=True)
class Manifest:
    """The rows of one or several sources, their `metadata`, and the path of the file.

    `rows` are in memory or on disk; `table` reads them all. `roots` are explicit image folders by source;
    they take precedence over all others.
    """

    rows: Rows = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    path: Path
    roots: Mapping[str, Path] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __repr__(self) -> str:
        return (
            f"<Manifest {self.name}: {count_text(len(self), 'image')}, digest {self.digest[:8]}, {self.path}>"
        )

    def _repr_html_(self) -> str:
        return rows_to_html(repr(self), self.rows, _IN_NOTEBOOKS)

    @cached_property
    def table(self) -> pa.Table:
        """All rows and columns (schema.manifest_schema), in memory."""
        return self.rows.select(self.rows.column_names)

    @property
    def name(self) -> str:
        """The file name without its suffix, by which recipes reference the manifest."""
        return self.path.stem

    @property
    def digest(self) -> str:
        """SHA-256 over the logical rows."""
        return str(self.metadata["digest"])

    @cached_property
    def sources(self) -> list[str]:
        """The sources of the rows, sorted."""
        return distinct(self.rows, "source")

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The metadata of each source: title, terms, citation; several after `concat`."""
        whole = {key: self.metadata[key] for key in _SOURCE_KEYS if key in self.metadata}
        return list(self.metadata.get("parts", [whole]))

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a DataFrame."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def sql(self, query: str) -> pa.Table:
        """Run one SELECT over the rows, as table `manifest`; other files and the network are not accessible.

        Of rows on disk, only those that the query needs are read: a few for one `image_id`.

        Raises:
            UsageError: the query is not a single SELECT, or DuckDB rejects it.
            MemoryError: the result does not fit into memory.
        """
        if isinstance(self.rows, pa.Table):
            return query_tables({_TABLE: self.rows}, query)
        return select(lambda: self._database.cursor(), query, [_TABLE])

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        """DuckDB over the file; kept, because reading Parquet metadata can dominate the time of a query."""
        return open_parquet(self.path.resolve(), _TABLE)

    def __getstate__(self) -> dict[str, Any]:
        return {
            attribute.name: getattr(self, attribute.name) for attribute in fields(self)
        }  # without cached properties

    def images(self) -> Images:
        """Return the reader of this manifest's images.

        Raises:
            ImagesNotFound: the folder of a source is unknown or does not exist.
        """
        return Images(find_roots(self.sources, self.path.parent, self.roots))


def load_manifest(path: str | Path, roots: Mapping[str, str | Path] | None = None) -> Manifest:
    """Read a manifest; `roots` are the image folders by source, needed only if they were moved.

    Of a manifest in a bucket (s3://, gs://, az://) the local copy is read; its images are where `roots` says,
    which may be an address too.

    Raises:
        ManifestError: the file does not exist, is not a manifest, or has a newer schema.
        IntegrityError: its rows are not those that were written.
    """
    path = local_manifest(path)
    rows = open_table(path, KIND)
    expected = manifest_schema(
        rows.metadata.get("emotions", []), FOLD.name in rows.column_names, vote_columns(rows.column_names)
    )
    earlier = pa.schema([column for column in expected if column not in QUALITY])
    if not (rows.schema.equals(expected) or rows.schema.equals(earlier)):
        raise ManifestError("its columns are not those of a manifest", where=str(path), fix="re-run ingest")
    _check_ids(rows)
    return Manifest(
        rows, rows.metadata, path, {name: local_copy(root) for name, root in (roots or {}).items()}
    )


def local_manifest(path: str | Path) -> Path:
    """Return the path of a manifest; of one in a bucket, that of its local copy.

    Raises:
        ManifestError: there is none at the address.
    """
    if not is_address(path):
        return Path(path)
    from affectdata.store.published import fetch_table  # it imports obstore

    return fetch_table(path)


def _check_ids(rows: StoredTable) -> None:
    """Check the format of ids and hashes, which a valid digest does not imply.

    Raises:
        ManifestError: an id is malformed; the message has column and row of the first.
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
                    fix="re-run ingest",
                )
        start += len(part)


def check_name(name: str) -> None:
    """Check the name of a manifest.

    Raises:
        UsageError: the name is invalid.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"invalid manifest name {name!r}", fix="use letters, digits, '-' and '_' in --name")


def write_manifest(table: pa.Table, metadata: Mapping[str, Any], path: Path) -> Manifest:
    """Write a manifest and return it; `metadata` must contain `emotions`."""
    digest = write_table(table, path, KIND, metadata)
    return Manifest(table, {**metadata, "digest": digest}, path)


@dataclass(frozen=True)
class Images:
    """Reads source images; plain values only, so that workers can pickle it. `roots`: folder by source."""

    roots: Mapping[str, Path]

    def read(self, source: str, path: str, image_id: str) -> bytes:
        """Read one image and check that it is the ingested one.

        Raises:
            ImagesNotFound: the file does not exist.
            DecodeError: the image is a row of a table, which no longer contains an image.
            IntegrityError: the file is not the ingested one, or is outside the root.
        """
        file = self.roots[source] / file_of(path)
        if not file.resolve().is_relative_to(self.roots[source].resolve()):
            raise IntegrityError(f"{path} is outside the folder of {source}", where=str(file))
        try:
            data = read_image(self.roots[source], path)
        except OSError as error:
            raise not_found(source, f"{path}: {error.strerror}", [str(self.roots[source])]) from error
        if file_hash(data) != image_id:
            raise IntegrityError(
                f"{path} is not the file that was ingested (its SHA-256 is not {image_id[:16]}…)",
                where=str(file),
                fix=f"restore the file, or run `affectdata ingest {self.roots[source]}` again",
            )
        return data


def find_manifests(folder: Path | str) -> list[Path]:
    """List the manifests in a folder, by name, without rejects, edges and other tables.

    Below an address in a bucket they are read into the cache.
    """
    if is_address(folder):
        from affectdata.store.published import fetch_tables  # it imports obstore

        return fetch_tables(folder)
    if not Path(folder).is_dir():
        return []
    return sorted(path for path in Path(folder).glob("*.parquet") if not is_beside_manifest(path))


def is_beside_manifest(path: Path) -> bool:
    """Return whether a file belongs to a manifest: NAME.rejects.parquet, NAME.edges.parquet."""
    return "." in path.stem


def files_beside(path: Path) -> list[Path]:
    """List the files that belong to a manifest: its rejects, edges and ledger."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*.parquet"))


def load_others(
    table: pa.Table, folder: Path, roots: Mapping[str, Path], warn: Callable[[str], None]
) -> tuple[list[Manifest], dict[str, Path]]:
    """Load the manifests in a folder that share no source with `table`, and find their image folders.

    Manifests that cannot be read, or whose images are not found, are skipped with a call of `warn`.
    """
    own = set(table["source"].unique().to_pylist())
    manifests: list[Manifest] = []
    found_roots: dict[str, Path] = {}
    for path in find_manifests(folder):
        try:
            manifest = load_manifest(path)
            if own & set(manifest.sources):
                continue
            found_roots |= find_roots(manifest.sources, folder, roots)
        except (ManifestError, IntegrityError, ImagesNotFound) as error:
            warn(f"note: skipped {path.stem}: {error.what}")
        else:
            manifests.append(manifest)
    return manifests, found_roots


def check_roots(given: Mapping[str, str | Path], manifests: Sequence[Manifest]) -> None:
    """Refuse a folder for a source that none of the manifests has: most likely a typo.

    Raises:
        UsageError: a source is unknown; the message lists the known ones.
    """
    sources = sorted({source for manifest in manifests for source in manifest.sources})
    unknown = sorted(set(given) - set(sources))
    if unknown:
        raise UsageError(f"--root: unknown source {unknown[0]!r}", fix=f"use one of {', '.join(sources)}")


def choose_manifests(
    paths: Sequence[Path], names: Sequence[str], folder: Path, roots: Mapping[str, str | Path] | None = None
) -> list[Manifest]:
    """Load the manifests at `paths`, else those with `names` in `folder`, else the only one in `folder`.

    Raises:
        ManifestError: a named manifest does not exist.
        UsageError: none is named, and `folder` has none or several.
    """
    chosen = list(paths) or [folder / f"{name}.parquet" for name in names]
    existing = find_manifests(folder)
    if not chosen:
        if not existing:
            raise UsageError(f"no manifest in {folder}/", fix="create one: affectdata ingest ROOT")
        if len(existing) > 1:
            raise UsageError(
                f"{len(existing)} manifests in {folder}/ and none selected",
                fix=f"--manifest with one of {', '.join(map(str, existing))}",
            )
        chosen = existing
    for path in chosen:
        if not path.is_file():
            names_found = ", ".join(manifest.stem for manifest in existing) or "none"
            raise ManifestError(
                f"no manifest {path}",
                fix=f"create it with `affectdata ingest ROOT`; manifests in {folder}/: {names_found}",
            )
    return [load_manifest(path, roots) for path in chosen]
