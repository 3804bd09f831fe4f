"""The release: a folder of images and tables, immutable once `release.json` is written.

    manifest.parquet     one row per released image: plan, file, and every column of its source row
    recipe.yaml          as resolved, every default written out
    train/ val/ test/    <sample_id>.jpg and metadata.parquet; in a virtual release rows.parquet alone
    SHA256SUMS           every file but itself and release.json; for `sha256sum -c`
    README.md            the data card
    croissant.json       the same for programs: Croissant metadata
    .affectdata/ledger.parquet   what was held out before, and is not in the rows; only if there is any
    release.json         written last: id, time, versions, counts, canaries, SHA-256 of SHA256SUMS

In a virtual release the table of all rows is `.affectdata/manifest.parquet`, because loaders that collect the
Parquet files of a folder skip hidden folders: they see the tables of the splits only.

This module opens and reads releases; `verify` and `lineage` check them, `write` writes them.
"""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.config import read_yaml
from affectdata.errors import InputError, IntegrityError, ManifestError, RecipeError, UsageError
from affectdata.manifest.manifest import Images
from affectdata.manifest.roots import find_roots
from affectdata.recipe.recipe import parse_recipe
from affectdata.release.classes import Classes, find_classes
from affectdata.release.info import FORMER, ReleaseInfo, parse_info
from affectdata.schema import FOLD, QUALITY, manifest_schema, release_schema
from affectdata.store.addresses import is_address
from affectdata.store.atomic import read_json
from affectdata.store.files import read_regular
from affectdata.store.parquet import Rows, StoredTable, distinct, open_table, read_parts, rows_to_html
from affectdata.store.remote import local_copy

if TYPE_CHECKING:
    import torch
    from torch.utils.data import WeightedRandomSampler

    from affectdata.release.dataset import ReleaseDataset

KIND, METADATA_KIND = "release", "metadata"
SCHEMA = "affectdata/release/3"  # form of release.json, and of how seeds and keys are derived
INFO_FILE, RECIPE_FILE = "release.json", "recipe.yaml"
TABLE_FILE = "manifest.parquet"
HIDDEN_TABLE_FILE = ".affectdata/manifest.parquet"  # in a virtual release: a loader would mix the splits
LEDGER_FILE = ".affectdata/ledger.parquet"  # hidden for the same reason
SUMS_FILE, CARD_FILE = "SHA256SUMS", "README.md"
METADATA_FILE, ROWS_FILE = "metadata.parquet", "rows.parquet"  # of a split: with images, in a virtual release
_IN_NOTEBOOKS = ("sample_id", "split", "cell", "copy", "pipeline", "path")


@dataclass(frozen=True)
class Release:
    """A published release: `rows` as in `schema.release_schema`, `info` is release.json as plain data.

    `summary` is the same with types. The rows stay in their file and are read on demand; `table` reads all.
    """

    path: Path
    rows: Rows = field(repr=False)
    info: dict[str, Any] = field(repr=False)
    roots: Mapping[str, Path] = field(default_factory=dict)

    def __repr__(self) -> str:
        rows = ", ".join(f"{split} {n}" for split, n in self.info["rows"].items())
        return f"<Release {self.name}: {rows}; {self.path}>"

    def _repr_html_(self) -> str:
        return rows_to_html(repr(self), self.rows, _IN_NOTEBOOKS)

    @cached_property
    def table(self) -> pa.Table:
        """All rows and columns, in memory."""
        return self.rows.select(self.rows.column_names)

    @cached_property
    def summary(self) -> ReleaseInfo:
        """What release.json says: counts, sources, terms, balance, drift, versions.

        Raises:
            IntegrityError: a field is missing or of another type.
        """
        return parse_info(self.info, str(self.path / INFO_FILE))

    @property
    def id(self) -> str:
        """SHA-256 over the manifests' digests, recipe, plan and the versions of the imaging libraries."""
        return str(self.info["id"])

    @property
    def is_virtual(self) -> bool:
        """Whether it contains no images: they are rendered from the source images when read."""
        return bool(self.info.get("mode") == "virtual")

    @property
    def table_file(self) -> str:
        """The path of the table of all rows, relative to the release."""
        return table_file(str(self.info["mode"]), str(self.info["schema"]))

    @property
    def name(self) -> str:
        """The folder's name: recipe and the first 8 digits of the id."""
        return self.path.name

    @cached_property
    def recipe_document(self) -> dict[str, Any]:
        """The resolved recipe as plain data.

        Raises:
            IntegrityError: recipe.yaml is missing, or not as `balance` writes it.
        """
        if not (self.path / RECIPE_FILE).is_file():
            raise IntegrityError(f"{RECIPE_FILE} is missing", where=str(self.path))
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
            raise IntegrityError(f"{RECIPE_FILE} differs from the published file", where=str(self.path))
        return document

    def split(self, name: str, fold: int | None = None) -> pa.Table:
        """Return the rows of one split.

        With `fold`, "train" is train without that fold (and its copies), "val" the originals of that fold.

        Raises:
            UsageError: the release has no such fold, or `name` is neither "train" nor "val".
        """
        return self.table.filter(self._is_in(name, fold))

    def _is_in(self, name: str, fold: int | None) -> pa.ChunkedArray:
        """Return for every row whether it belongs to a split, as `split` says."""
        if fold is None:
            return pc.equal(self.table["split"], name)
        folds = self.table[FOLD.name] if FOLD.name in self.table.column_names else pa.array([], pa.int32())
        available = sorted(folds.unique().drop_null().to_pylist())
        if fold not in available or name not in ("train", "val"):
            listed = ", ".join(map(str, available)) or "none; add `split: {folds: 5}` to the recipe"
            raise UsageError(
                f"{self.name} has no {name!r} of fold {fold}", fix=f'folds of "train" and "val": {listed}'
            )
        inside = pc.fill_null(pc.equal(folds, fold), False)
        if name == "val":
            return pc.and_(inside, pc.equal(self.table["copy"], 0))
        return pc.and_(pc.equal(self.table["split"], "train"), pc.invert(inside))

    def read(self, file_name: str) -> bytes:
        """Read one released image.

        Raises:
            IntegrityError: the file is missing or cannot be read.
        """
        try:
            return read_regular(self.path / file_name)
        except OSError as error:
            problem = "is missing" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
            raise IntegrityError(f"{file_name} {problem}", where=str(self.path)) from error

    def images(self, manifests: Path = Path("manifests")) -> Images:
        """Return a reader for the source images that this release was made from.

        `manifests` is the folder of the manifests; their recorded source folders are tried last.

        Raises:
            ImagesNotFound: the folder of a source cannot be found.
        """
        return Images(find_roots(distinct(self.rows, "source"), manifests, self.roots))

    def sources_to_render(self, images: Images | None = None) -> Images | None:
        """Return the source images (`images`, if given) of a virtual release; None for one with files.

        Raises:
            ImagesNotFound: the folder of a source cannot be found.
        """
        if not self.is_virtual:
            return None
        return images or self.images()

    def dataset(
        self, split: str, transform: Callable[[torch.Tensor], Any] | None = None, fold: int | None = None
    ) -> ReleaseDataset:
        """Return one split as a torch Dataset (`release.dataset.ReleaseDataset`); needs affectdata[train].

        For cross-validation, `fold` leaves a fold out of "train", or returns its originals as "val".

        Raises:
            UsageError: no such split or fold.
            ImagesNotFound: the release is virtual, and its source images cannot be found.
        """
        chosen = self._require(split, fold)
        # By name: opening a release must not load torch.
        module = importlib.import_module("affectdata.release.dataset")
        recipe = parse_recipe(self.recipe_document, str(self.path))
        try:
            classes = find_classes(self.table, recipe)
        except InputError:  # a number that the recipe does not cut into classes
            classes = Classes(recipe.target, [], pa.nulls(len(self.table), pa.int64()))
        dataset: ReleaseDataset = module.ReleaseDataset(
            self.table.filter(chosen),
            self.path,
            self.recipe_document,
            self.sources_to_render(),
            transform,
            classes.names,
            classes.codes.filter(chosen.combine_chunks()),
        )
        return dataset

    def sampler(
        self, split: str = "train", fold: int | None = None, generator: torch.Generator | None = None
    ) -> WeightedRandomSampler:
        """Return a torch sampler that draws the rows of `dataset(split, fold=fold)` by their `weight`.

        Raises:
            UsageError: no such split or fold.
        """
        weights = self.table["weight"].filter(self._require(split, fold)).to_pylist()
        module = importlib.import_module("affectdata.release.dataset")
        sampler: WeightedRandomSampler = module.draw_by_weight(weights, generator)
        return sampler

    def _require(self, split: str, fold: int | None) -> pa.ChunkedArray:
        """Return for every row whether it belongs to a split that has rows."""
        chosen = self._is_in(split, fold)
        if not pc.any(chosen).as_py():
            splits = ", ".join(pc.unique(self.table["split"]).to_pylist())
            raise UsageError(f"{self.name} has no split {split!r}", fix=f"available splits: {splits}")
        return chosen


_REBUILD = "remove the folder and re-run `affectdata balance`"


def open_release(
    path: str | Path, roots: Mapping[str, str | Path] | None = None, *, again: bool = False
) -> Release:
    """Open a release; `roots` maps sources to the folders of the original images, if they are needed.

    Of a release in a bucket (s3://, gs://, az://) the local copy is opened; with `again`, every object is
    read again.

    Raises:
        ManifestError: not a finished release, or of a newer form.
        IntegrityError: the table was modified, or release.json has fields of a wrong type.
    """
    folder = _fetch(path, again) if is_address(path) else Path(path)
    if not (folder / INFO_FILE).is_file():
        raise ManifestError(
            f"{folder} is not a finished release: "
            + (f"it has no {INFO_FILE}" if folder.is_dir() else "no such folder"),
            fix=_nearby_releases(folder)
            or "run `affectdata balance --recipe R`; it also resumes an interrupted release",
        )
    info = _read_info(folder)
    parse_info(info, str(folder / INFO_FILE))
    name = table_file(str(info.get("mode")), info["schema"])
    try:
        rows = open_table(folder / name, KIND)
    except ManifestError as error:
        raise IntegrityError(error.what, where=error.where, fix=_REBUILD) from error
    if problem := _schema_problem(rows, info):
        raise IntegrityError(f"{name} {problem}", where=str(folder), fix=_REBUILD)
    return Release(folder, rows, info, {name: local_copy(root) for name, root in (roots or {}).items()})


def _fetch(address: str, again: bool) -> Path:
    """Return the local copy of a release in a bucket."""
    from affectdata.store.published import fetch_folder  # it imports obstore

    return fetch_folder(address, INFO_FILE, "sums_sha256", again=again)


def _read_info(folder: Path) -> dict[str, Any]:
    """Read release.json, in a supported form."""
    info = read_json(folder / INFO_FILE)
    if not isinstance(info, dict) or info.get("schema") not in (SCHEMA, FORMER):
        raise ManifestError(
            f"{INFO_FILE} must have the schema {SCHEMA} or {FORMER}", where=str(folder), fix=_REBUILD
        )
    return info


def _schema_problem(rows: StoredTable, info: dict[str, Any]) -> str | None:
    """Return why this is not the table of this release, or None."""
    expected = release_schema(manifest_schema())
    if not {column.name for column in QUALITY} & set(rows.column_names):  # of a manifest without these
        expected = pa.schema([column for column in expected if column not in QUALITY])
    if FOLD.name in rows.column_names:
        expected = expected.append(FOLD)
    if missing := sorted(set(expected.names) - set(rows.column_names)):
        return f"lacks the columns {', '.join(missing)}"
    if wrong := [column.name for column in expected if rows.schema.field(column.name).type != column.type]:
        return f"has columns of a wrong type: {', '.join(wrong)}"
    if rows.metadata.get("release") != info.get("id"):
        return f"belongs to another release than {INFO_FILE}"
    return None


def _nearby_releases(folder: Path) -> str:
    """List the releases in the parent of `folder` and in `releases/`, as a hint."""
    bases = {base.resolve(): base for base in (Path("releases"), folder.parent)}
    releases = sorted(path.parent for base in bases.values() for path in base.glob(f"*/{INFO_FILE}"))
    return f"available releases: {', '.join(map(str, releases[:5]))}" if releases else ""


def newest_release(folder: Path) -> Path:
    """Return the release with the latest `created` in its release.json.

    Raises:
        UsageError: there is none.
        IntegrityError: `created` is missing in one of them.
    """
    releases = [path.parent for path in folder.glob(f"*/{INFO_FILE}")] if folder.is_dir() else []
    releases = [path for path in releases if not path.is_symlink()]  # of `balance --link`
    if not releases:
        raise UsageError(
            f"no release in {folder}/", fix="run `affectdata balance --recipe R`, or name a release"
        )
    return max(releases, key=lambda path: (_created(path), path.name))


def _created(folder: Path) -> str:
    info = read_json(folder / INFO_FILE)
    created = info.get("created") if isinstance(info, dict) else None
    if not isinstance(created, str):
        raise IntegrityError(f"created is missing in {INFO_FILE}", where=str(folder), fix=_REBUILD)
    return created


def split_metadata(rows: Rows, split: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a split, in parts, with file names relative to the folder of the split."""
    names = rows.column_names if columns is None else list(columns)
    for part in read_parts(rows, dict.fromkeys([*names, "split"])):
        part = part.filter(pc.equal(part["split"], split)).select(names)
        if "file_name" in names:
            basename = pc.replace_substring_regex(part["file_name"], "^[^/]*/", "")
            column = names.index("file_name")
            part = part.set_column(column, part.schema.field(column), basename)
        yield part


def table_file(mode: str, schema: str = SCHEMA) -> str:
    """Return the path of the table of all rows, relative to the release."""
    return HIDDEN_TABLE_FILE if mode == "virtual" and schema != FORMER else TABLE_FILE


def split_file(mode: str, split: str) -> str:
    """Return the path of the table of one split, which `datasets.load_dataset` reads."""

    return f"{split}/{ROWS_FILE if mode == 'virtual' else METADATA_FILE}"
