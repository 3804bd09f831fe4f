"""The release: a folder of images and tables that never changes once `release.json` is in it.

    manifest.parquet     one row per released image: plan, file, and every column of its source row
    recipe.yaml          as resolved, every default written out
    train/ val/ test/    <sample_id>.jpg and metadata.parquet; in a virtual release rows.parquet alone
    SHA256SUMS           every file but itself and release.json; `sha256sum -c` reads it
    README.md            the data card
    release.json         written last: id, time, versions, counts, canaries, SHA-256 of SHA256SUMS

In a virtual release the table of all rows is `.affectdata/manifest.parquet`, because loaders that collect the
Parquet files of a folder skip hidden folders: they see the tables of the splits only.

Reading is here; `verify` and `lineage` check it, `release.write` writes it.
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.config import read_yaml
from affectdata.errors import IntegrityError, ManifestError, RecipeError, UsageError
from affectdata.manifest.manifest import Images, find_roots
from affectdata.release.info import FORMER, check_types
from affectdata.schema import FOLD, manifest_schema, release_schema
from affectdata.store.files import read_regular
from affectdata.store.parquet import (
    STREAM_ROWS,
    Rows,
    StoredTable,
    distinct,
    open_table,
    read_json,
    read_parts,
    read_table,
)
from affectdata.store.text_set import Names

KIND, METADATA_KIND = "release", "metadata"
SCHEMA = "affectdata/release/3"  # the form of release.json, and what seeds and keys follow from
INFO_FILE, RECIPE_FILE = "release.json", "recipe.yaml"
TABLE_FILE = "manifest.parquet"  # in a virtual release …
HIDDEN_TABLE_FILE = ".affectdata/manifest.parquet"  # … where no loader collects it: it would mix the splits
SUMS_FILE, CARD_FILE = "SHA256SUMS", "README.md"
METADATA_FILE, ROWS_FILE = "metadata.parquet", "rows.parquet"  # of a split: beside its images, without images


@dataclass(frozen=True)
class Release:
    """A published release: `rows` as in `schema.release_schema`, `info` as in release.json.

    The rows are in their file, and read as far as they are asked for; `table` reads them all.
    """

    path: Path
    rows: Rows = field(repr=False)
    info: dict[str, Any] = field(repr=False)
    roots: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def table(self) -> pa.Table:
        """All rows and columns, in memory."""
        return self.rows.select(self.rows.column_names)

    @property
    def id(self) -> str:
        """SHA-256 over the manifests' digests, recipe, plan and the libraries that decide pixels."""
        return str(self.info["id"])

    @property
    def is_virtual(self) -> bool:
        """Whether it holds no images: they are rendered from the source's when they are read."""
        return bool(self.info.get("mode") == "virtual")

    @property
    def table_file(self) -> str:
        """Where the table of all rows lies inside the release."""
        return table_file(str(self.info["mode"]), str(self.info["schema"]))

    @property
    def name(self) -> str:
        """The folder's name: recipe and the first 8 digits of the id."""
        return self.path.name

    @cached_property
    def recipe_document(self) -> dict[str, Any]:
        """The resolved recipe as plain data.

        Raises:
            IntegrityError: it is not there, or not as `balance` writes it.
        """
        if not (self.path / RECIPE_FILE).is_file():
            raise IntegrityError(f"{RECIPE_FILE} is not there", where=str(self.path))
        try:
            document = read_yaml(self.path / RECIPE_FILE)
        except RecipeError:
            document = None
        if not (
            isinstance(document, dict)
            and isinstance(document.get("pipelines"), dict)
            and all(isinstance(name, str) for name in document["pipelines"])
            and type(document.get("seed")) is int
            and 0 <= document["seed"] < 2**63
        ):
            raise IntegrityError(f"{RECIPE_FILE} is not the file that was published", where=str(self.path))
        return document

    def split(self, name: str, fold: int | None = None) -> pa.Table:
        """Return the rows of one split.

        With `fold`, "train" is train without that fold, copies and all, and "val" its originals in that fold.

        Raises:
            UsageError: the release has no such fold, or `name` is neither of the two.
        """
        if fold is None:
            return self.table.filter(pc.equal(self.table["split"], name))
        folds = self.table[FOLD.name] if FOLD.name in self.table.column_names else pa.array([], pa.int32())
        there = sorted(folds.unique().drop_null().to_pylist())
        if fold not in there or name not in ("train", "val"):
            known = ", ".join(map(str, there)) or "none; a recipe's `split: {folds: 5}` deals them"
            raise UsageError(
                f"{self.name} has no {name!r} of fold {fold}", fix=f'"train" and "val" have folds: {known}'
            )
        inside = pc.fill_null(pc.equal(folds, fold), False)
        if name == "val":
            return self.table.filter(pc.and_(inside, pc.equal(self.table["copy"], 0)))
        return self.split("train").filter(pc.invert(inside.filter(pc.equal(self.table["split"], "train"))))

    def read(self, file_name: str) -> bytes:
        """Read one released image.

        Raises:
            IntegrityError: it is not there.
        """
        try:
            return read_regular(self.path / file_name)
        except OSError as error:
            what = "is not there" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
            raise IntegrityError(f"{file_name} {what}", where=str(self.path)) from error

    def images(self, manifests: Path = Path("manifests")) -> Images:
        """Return the reader of the source images that this release was made from.

        `manifests` is the folder whose notes say where they are, if nothing else does.

        Raises:
            ImagesNotFound: a source's folder is nowhere to be found.
        """
        return Images(find_roots(distinct(self.rows, "source"), manifests, self.roots))

    def sources_to_render(self, images: Images | None = None) -> Images | None:
        """Return the source images (`images`, if given) of a virtual release; None for one with files.

        Raises:
            ImagesNotFound: a source's folder is nowhere to be found.
        """
        if not self.is_virtual:
            return None
        return images or self.images()

    def dataset(
        self, split: str, transform: Callable[[Any], Any] | None = None, fold: int | None = None
    ) -> Any:
        """Return one split as a torch Dataset (`release.dataset.ReleaseDataset`); needs affectdata[train].

        For cross-validation, `fold` leaves a fold out of "train", or gives its originals as "val".

        Raises:
            UsageError: no such split or fold.
            ImagesNotFound: the release is virtual, and its source images are not at hand.
        """
        rows = self.split(split, fold)
        if not len(rows):
            there = ", ".join(pc.unique(self.table["split"]).to_pylist())
            raise UsageError(f"{self.name} has no split {split!r}", fix=f"its splits: {there}")
        # By name: opening a release must not load torch.
        return importlib.import_module("affectdata.release.dataset").ReleaseDataset(
            rows, self.path, self.recipe_document, self.sources_to_render(), transform
        )


_ANEW = "remove the folder and run `affectdata balance` again"


def open_release(path: str | Path, roots: Mapping[str, str | Path] | None = None) -> Release:
    """Open a release; `roots` says by source where the original images are, if they are needed.

    Raises:
        ManifestError: not a finished release, or of a newer form.
        IntegrityError: its table is not the one that was written, or release.json has fields of another type.
    """
    folder = Path(path)
    if not (folder / INFO_FILE).is_file():
        raise ManifestError(
            f"{folder} is no finished release: "
            + (f"it has no {INFO_FILE}" if folder.is_dir() else "there is no such folder"),
            fix=_releases_there(folder)
            or "`affectdata balance --recipe R` makes one, or goes on with one that was interrupted",
        )
    info = _read_info(folder)
    check_types(info, str(folder / INFO_FILE))
    name = table_file(str(info.get("mode")), info["schema"])
    try:
        rows = open_table(folder / name, KIND)
    except ManifestError as error:
        raise IntegrityError(error.what, where=error.where, fix=_ANEW) from error
    if what := _misfit(rows, info):
        raise IntegrityError(f"{name} {what}", where=str(folder), fix=_ANEW)
    return Release(folder, rows, info, {name: Path(root) for name, root in (roots or {}).items()})


def _read_info(folder: Path) -> dict[str, Any]:
    """Return what release.json holds, of a form that is read."""
    info = read_json(folder / INFO_FILE)
    if not isinstance(info, dict) or info.get("schema") not in (SCHEMA, FORMER):
        raise ManifestError(
            f"{INFO_FILE} is not of the form {SCHEMA} or {FORMER}", where=str(folder), fix=_ANEW
        )
    return info


def _misfit(rows: StoredTable, info: dict[str, Any]) -> str | None:
    """Say why this is no table of a release, or not of this one."""
    expected = release_schema(manifest_schema())
    if FOLD.name in rows.column_names:
        expected = expected.append(FOLD)
    if absent := sorted(set(expected.names) - set(rows.column_names)):
        return f"lacks {', '.join(absent)}"
    if other := [each.name for each in expected if rows.schema.field(each.name).type != each.type]:
        return f"holds {', '.join(other)} in another type"
    if rows.metadata.get("release") != info.get("id"):
        return f"is of another release than {INFO_FILE}"
    return None


def _releases_there(folder: Path) -> str:
    """Name the releases beside a folder that is none, or in `releases/`."""
    bases = {base.resolve(): base for base in (Path("releases"), folder.parent)}
    found = sorted(path.parent for base in bases.values() for path in base.glob(f"*/{INFO_FILE}"))
    return f"there are: {', '.join(map(str, found[:5]))}" if found else ""


def find_strangers(folder: Path, known: Names) -> list[str]:
    """Name the files under a folder that are not `known`; names are relative to it, sorted."""
    found, names = [], _files_under(folder, "")
    while some := list(islice(names, STREAM_ROWS)):
        found += [name for name, is_known in zip(some, known.has(some), strict=True) if not is_known]
    return sorted(found)


def _files_under(folder: Path, base: str) -> Iterator[str]:
    """Yield the names of all files; those of a folder are never held all at once."""
    with os.scandir(folder / base) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_under(folder, f"{base}{entry.name}/")
            else:
                yield f"{base}{entry.name}"


def newest_release(folder: Path) -> Path:
    """Return the release with the latest time in its release.json.

    Raises:
        UsageError: there is none.
        IntegrityError: one of them does not say when it was made.
    """
    found = [path.parent for path in folder.glob(f"*/{INFO_FILE}")] if folder.is_dir() else []
    if not found:
        raise UsageError(f"no release in {folder}/", fix="affectdata balance --recipe R, or name a release")
    return max(found, key=lambda path: (_created(path), path.name))


def _created(folder: Path) -> str:
    info = read_json(folder / INFO_FILE)
    created = info.get("created") if isinstance(info, dict) else None
    if not isinstance(created, str):
        raise IntegrityError(f"{INFO_FILE} does not say when it was made", where=str(folder), fix=_ANEW)
    return created


_KEYS = ("image_id", "source", "source_id", "path", "split", "cell", "group_id")  # of an image
_SHOWN = ("sample_id", "copy", "pipeline", "file_name")  # of each of its rows


def explain_image(release: Release, image_id: str, manifests: Path) -> dict[str, Any]:
    """Return an image's group with its edges, its split, cell and copies; `image_id` may be its beginning.

    Edges are read from the edge tables in the folder `manifests`, where they are still there.

    Raises:
        UsageError: no image of the release, or several, begin like that.
    """
    table = release.rows.select([*_KEYS, *_SHOWN])
    rows = table.filter(pc.starts_with(table["image_id"], image_id)).to_pylist()
    ids = {row["image_id"] for row in rows}
    if len(ids) != 1:
        what = f"{len(ids)} images begin" if ids else "no image begins"
        raise UsageError(
            f"{what} with {image_id!r}", where=str(release.path), fix="give more of its image_id"
        )
    first = rows[0]
    together = table.filter(
        pc.and_(pc.equal(table["group_id"], first["group_id"]), pc.equal(table["copy"], 0))
    )
    group = together.select(["image_id", "split", "path"]).to_pylist()
    return {
        **{key: first[key] for key in _KEYS},
        "group": group,
        "edges": _edges_among({row["image_id"] for row in group}, manifests),
        "rows": [{key: row[key] for key in _SHOWN} for row in rows],
    }


def _edges_among(ids: set[str], manifests: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(manifests.glob("*.edges.parquet")):
        edges, _ = read_table(path, "edges")
        known = pa.array(sorted(ids), pa.string())
        inside = pc.and_(pc.is_in(edges["image_id_a"], known), pc.is_in(edges["image_id_b"], known))
        found += edges.filter(inside).to_pylist()
    return found


def split_metadata(rows: Rows, split: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a split, in parts, with the names of their files as seen from its folder."""
    names = rows.column_names if columns is None else list(columns)
    for part in read_parts(rows, dict.fromkeys([*names, "split"])):
        part = part.filter(pc.equal(part["split"], split)).select(names)
        if "file_name" in names:
            bare = pc.replace_substring_regex(part["file_name"], "^[^/]*/", "")
            at = names.index("file_name")
            part = part.set_column(at, part.schema.field(at), bare)
        yield part


def table_file(mode: str, schema: str = SCHEMA) -> str:
    """Return where the table of all rows of a release lies in its folder."""
    return HIDDEN_TABLE_FILE if mode == "virtual" and schema != FORMER else TABLE_FILE


def split_file(mode: str, split: str) -> str:
    """Name the table of one split, for `datasets.load_dataset`, in a release of this mode."""
    return f"{split}/{ROWS_FILE if mode == 'virtual' else METADATA_FILE}"
