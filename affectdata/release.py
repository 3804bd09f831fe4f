"""The release: a folder of pictures and tables that never changes once `release.json` is in it.

    manifest.parquet     one row per released picture: plan, file, and every column of its source row
    recipe.yaml          as resolved, every default written out
    train/ val/ test/    <sample_id>.jpg, and metadata.parquet for `datasets.load_dataset`
    SHA256SUMS           every file but itself and release.json; `sha256sum -c` reads it
    README.md            the data card
    release.json         written last: id, time, versions, counts, canaries, SHA-256 of SHA256SUMS

Reading and checking are here; `balance.publish` writes it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from PIL import Image

from affectdata.errors import IntegrityError, ManifestError, UsageError
from affectdata.hashing import file_hash
from affectdata.manifest import Pictures, find_roots
from affectdata.plan import copy_seed, sample_id
from affectdata.records import Finding
from affectdata.schema import FOLD, manifest_schema, release_schema
from affectdata.tables import read_json, read_table

if TYPE_CHECKING:
    import pandas as pd

KIND, METADATA_KIND = "release", "metadata"
SCHEMA = "affectdata/release/1"  # the form of release.json
INFO_FILE, TABLE_FILE, RECIPE_FILE = "release.json", "manifest.parquet", "recipe.yaml"
SUMS_FILE, CARD_FILE, METADATA_FILE = "SHA256SUMS", "README.md", "metadata.parquet"


@dataclass(frozen=True)
class Release:
    """A published release: `table` as in `schema.release_schema`, `info` as in release.json."""

    path: Path
    table: pa.Table = field(repr=False)
    info: dict[str, Any] = field(repr=False)
    roots: Mapping[str, Path] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """SHA-256 over the manifests' digests, recipe, plan and the libraries that decide pixels."""
        return str(self.info["id"])

    @property
    def is_virtual(self) -> bool:
        """Whether it holds no pictures: they are rendered from the source's when they are read."""
        return bool(self.info.get("mode") == "virtual")

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
        try:
            document = yaml.safe_load(self.read(RECIPE_FILE))
        except (yaml.YAMLError, ValueError):
            document = None
        expected = {"seed": int, "pipelines": dict}
        if not isinstance(document, dict) or any(
            not isinstance(document.get(name), kind) for name, kind in expected.items()
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
        """Read one released picture.

        Raises:
            IntegrityError: it is not there.
        """
        try:
            return (self.path / file_name).read_bytes()
        except OSError as error:
            raise IntegrityError(f"{file_name} is not there", where=str(self.path)) from error

    def pictures(self, manifests: Path = Path("manifests")) -> Pictures:
        """Return the reader of the source pictures that this release was made from.

        `manifests` is the folder whose notes say where they are, if nothing else does.

        Raises:
            PicturesNotFound: a source's folder is nowhere to be found.
        """
        return Pictures(find_roots(sorted(self.table["source"].unique().to_pylist()), manifests, self.roots))

    def dataset(self, split: str, **options: Any) -> Any:
        """Return one split as a torch Dataset (`train.data.ReleaseDataset`); needs affectdata[train]."""
        # By name: torch has one door, train/, and opening a release must not load it.
        return importlib.import_module("affectdata.train.data").ReleaseDataset(self, split, **options)


_ANEW = "remove the folder and run `affectdata balance` again"


def open_release(path: str | Path, roots: Mapping[str, str | Path] | None = None) -> Release:
    """Open a release; `roots` says by source where the original pictures are, if they are needed.

    Raises:
        ManifestError: not a finished release, or of a newer form.
        IntegrityError: its table is not the one that was written.
    """
    folder = Path(path)
    if not (folder / INFO_FILE).is_file():
        raise ManifestError(
            f"{folder} is no finished release: "
            + (f"it has no {INFO_FILE}" if folder.is_dir() else "there is no such folder"),
            fix=_releases_there(folder)
            or "`affectdata balance --recipe R` makes one, or goes on with one that was interrupted",
        )
    info = read_json(folder / INFO_FILE)
    if not isinstance(info, dict) or info.get("schema") != SCHEMA:
        raise ManifestError(f"{INFO_FILE} is not of the form {SCHEMA}", where=str(folder))
    try:
        table, metadata = read_table(folder / TABLE_FILE, KIND)
    except ManifestError as error:
        raise IntegrityError(error.what, where=error.where, fix=_ANEW) from error
    absent = set(release_schema(manifest_schema()).names) - set(table.column_names)
    if absent or metadata.get("release") != info.get("id"):
        what = f"lacks {', '.join(sorted(absent))}" if absent else f"is of another release than {INFO_FILE}"
        raise IntegrityError(f"{TABLE_FILE} {what}", where=str(folder), fix=_ANEW)
    return Release(folder, table, info, {name: Path(root) for name, root in (roots or {}).items()})


def _releases_there(folder: Path) -> str:
    """Name the releases beside a folder that is none, or in `releases/`."""
    bases = {base.resolve(): base for base in (Path("releases"), folder.parent)}
    found = sorted(path.parent for base in bases.values() for path in base.glob(f"*/{INFO_FILE}"))
    return f"there are: {', '.join(map(str, found[:5]))}" if found else ""


def newest_release(folder: Path) -> Path:
    """Return the release with the latest time in its release.json.

    Raises:
        UsageError: there is none.
    """
    found = [path.parent for path in folder.glob(f"*/{INFO_FILE}")] if folder.is_dir() else []
    if not found:
        raise UsageError(f"no release in {folder}/", fix="affectdata balance --recipe R, or name a release")
    return max(found, key=lambda path: (read_json(path / INFO_FILE)["created"], path.name))


def explain_image(release: Release, image_id: str, manifests: Path) -> dict[str, Any]:
    """Return an image's group with its edges, its split, cell and copies; `image_id` may be its beginning.

    Edges are read from the edge tables in the folder `manifests`, where they are still there.

    Raises:
        UsageError: no image of the release, or several, begin like that.
    """
    table = release.table
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
    keys = ("image_id", "source", "source_id", "path", "split", "cell", "group_id")
    return {
        **{key: first[key] for key in keys},
        "group": group,
        "edges": _edges_among({row["image_id"] for row in group}, manifests),
        "rows": [{key: row[key] for key in ("sample_id", "copy", "pipeline", "file_name")} for row in rows],
    }


def _edges_among(ids: set[str], manifests: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(manifests.glob("*.edges.parquet")):
        edges, _ = read_table(path, "edges")
        known = pa.array(sorted(ids), pa.string())
        inside = pc.and_(pc.is_in(edges["image_id_a"], known), pc.is_in(edges["image_id_b"], known))
        found += edges.filter(inside).to_pylist()
    return found


def check_release(release: Release, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Check every file against SHA256SUMS, and the table's lineage; an empty list means that all holds."""
    files = check_files(release, progress)
    said = {finding.text for finding in files}
    promised = [*check_lineage(release), *check_encoding(release)]
    return files + [finding for finding in promised if finding.text not in said]


def check_files(release: Release, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Re-hash every file; name those that changed, are missing, or were added."""
    try:
        text = release.read(SUMS_FILE)
    except IntegrityError as error:
        return [Finding("missing", str(error.what))]
    findings = []
    if file_hash(text) != release.info.get("sums_sha256"):
        findings.append(Finding("changed", f"{SUMS_FILE} is not the one that was published"))
    sums = {line[66:]: line[:64] for line in text.decode(errors="replace").splitlines()}
    for done, (name, expected) in enumerate(sums.items(), 1):
        file = release.path / name
        if not file.is_file():
            findings.append(Finding("missing", f"{name} is not there"))
        elif file_hash(file.read_bytes()) != expected:
            findings.append(Finding("changed", f"{name} is not the file that was published"))
        if progress:
            progress(done, len(sums))
    there = {path.relative_to(release.path).as_posix() for path in release.path.rglob("*") if path.is_file()}
    extra = sorted(there - set(sums) - {SUMS_FILE, INFO_FILE})
    findings += [Finding("added", f"{name} is no part of the release") for name in extra]
    if release.is_virtual:
        return findings
    return findings + _unlisted_rows(release.table, sums) + _other_metadata(release)


def check_encoding(release: Release) -> list[Finding]:
    """Check that all pictures came out of one encoder with one setting; reads headers, decodes nothing.

    A model tells lossless originals from JPEG copies, or two qualities, at a glance (AUC .999 on GAPED).
    """
    found: dict[str, list[str]] = {}
    for name in [] if release.is_virtual else release.table["file_name"].to_pylist():
        kind = _encoding(release.path / name)
        if kind:  # what is missing or no picture is another finding
            found.setdefault(kind, []).append(name)
    if len(found) < 2:
        return []
    kinds = sorted(found.items(), key=lambda item: -len(item[1]))
    told = "; ".join(f"{len(names)} {kind.partition(' ')[0]} such as {names[0]}" for kind, names in kinds[:3])
    return [Finding("lineage", f"pictures were encoded in {len(kinds)} ways, which a model can tell: {told}")]


def _encoding(path: Path) -> str | None:
    """Return format and quantisation of a file, as a word to compare; None if it is no picture."""
    try:
        with Image.open(path) as picture:
            return f"{picture.format} {sorted(getattr(picture, 'quantization', {}).items())}"
    except (OSError, ValueError, SyntaxError):
        return None


def _unlisted_rows(table: pa.Table, sums: dict[str, str]) -> list[Finding]:
    rows = dict(zip(table["file_name"].to_pylist(), table["file_sha256"].to_pylist(), strict=True))
    pictures = {name for name in sums if "/" in name and not name.endswith(METADATA_FILE)}
    return [
        *(
            Finding("changed", f"{TABLE_FILE} and {SUMS_FILE} do not agree on {name}")
            for name, expected in rows.items()
            if sums.get(name) != expected
        ),
        *(Finding("added", f"{name} is in no row of {TABLE_FILE}") for name in sorted(pictures - set(rows))),
    ]


def _other_metadata(release: Release) -> list[Finding]:
    """Name the tables for Hugging Face that do not say what `manifest.parquet` says of their split."""
    findings = []
    for split in sorted(release.table["split"].unique().to_pylist()):
        name = f"{split}/{METADATA_FILE}"
        if not (release.path / name).is_file():
            continue  # missing, and named as such
        try:
            same = read_table(release.path / name, METADATA_KIND)[0].equals(
                split_metadata(release.table, split)
            )
        except (ManifestError, IntegrityError):
            same = False
        if not same:
            findings.append(Finding("changed", f"{name} does not say what {TABLE_FILE} says"))
    return findings


def split_metadata(table: pa.Table, split: str) -> pa.Table:
    """Return the rows of a split with the names of their files as seen from its folder."""
    part = table.filter(pc.equal(table["split"], split))
    bare = pc.replace_substring_regex(part["file_name"], "^[^/]*/", "")
    at = part.column_names.index("file_name")
    return part.set_column(at, part.schema.field(at), bare)


def check_lineage(release: Release) -> list[Finding]:
    """Check what a release promises of its rows, whatever the hashes say.

    Every row's picture has its original in the same split; val and test hold originals only; no group is in
    two splits or folds; ids, seeds and file names follow from picture and copy; a copy has a pipeline of the
    recipe, its original's labels and its fold.
    """
    frame = release.table.to_pandas()
    findings = []
    keys = list(zip(frame["image_id"], frame["copy"], strict=True))
    expected: dict[str, list[Any]] = {"sample_id": [sample_id(*key) for key in keys]}
    try:
        recipe = release.recipe_document
    except IntegrityError as error:
        findings.append(Finding("changed", error.what))
    else:
        expected["seed"] = [copy_seed(recipe["seed"], *key) for key in keys]
        unknown = ~frame["pipeline"].isin(["", *recipe["pipelines"]])
        findings += _name_rows(frame.loc[unknown, "sample_id"], "its pipeline is not in the recipe")
    for column, values in expected.items():
        wrong = frame.loc[frame[column] != values, "sample_id"]
        findings += _name_rows(wrong, f"{column} does not follow from picture and copy")
    folder = frame["file_name"].str.split("/").str[0]
    findings += _name_rows(frame.loc[folder != frame["split"], "sample_id"], "lies in another split's folder")
    copies = frame["copy"] > 0
    findings += _name_rows(
        frame.loc[copies & (frame["split"] != "train"), "sample_id"], "a copy outside train"
    )
    findings += _name_rows(
        frame.loc[copies & (frame["pipeline"] == ""), "sample_id"], "a copy without pipeline"
    )
    findings += _name_rows(frame.loc[frame["sample_id"].duplicated(), "sample_id"], "is there twice")
    originals = set(frame.loc[~copies, ["image_id", "split"]].itertuples(index=False, name=None))
    pairs = zip(frame["image_id"], frame["split"], strict=True)
    orphan = np.array([pair not in originals for pair in pairs], bool)
    findings += _name_rows(frame.loc[orphan, "sample_id"], "its original is not in the same split")
    straddling = frame.groupby("group_id")["split"].nunique()
    findings += _name_rows(straddling.index[straddling > 1], "this group is in two splits")
    return findings + _broken_folds(frame) + _unequal_labels(release.table)


def _broken_folds(frame: pd.DataFrame) -> list[Finding]:
    if FOLD.name not in frame:
        return []
    fold = frame[FOLD.name]
    outside = frame.loc[fold.notna() & (frame["split"] != "train"), "sample_id"]
    copies = frame.groupby("image_id")[FOLD.name].nunique(dropna=False)
    groups = frame.groupby("group_id")[FOLD.name].nunique(dropna=False)
    return [
        *_name_rows(outside, "has a fold outside train"),
        *_name_rows(copies.index[copies > 1], "its copies are in another fold"),
        *_name_rows(groups.index[groups > 1], "this group is in two folds"),
    ]


def _unequal_labels(table: pa.Table) -> list[Finding]:
    """Name the pictures whose rows do not carry one and the same source row."""
    own = {"sample_id", "cell", "copy", "pipeline", "seed", "weight", "split", FOLD.name}
    columns = [
        name for name in table.column_names if name not in own and not name.startswith(("file_", "out_"))
    ]
    distinct = table.select(columns).group_by(columns).aggregate([])
    counts = distinct.group_by("image_id").aggregate([([], "count_all")])
    differing = counts.filter(pc.greater(counts["count_all"], 1))["image_id"].to_pylist()
    return _name_rows(differing, "its copies do not carry its labels")


def _name_rows(keys: Any, what: str) -> list[Finding]:
    names = [str(key)[:20] for key in keys]
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [Finding("lineage", f"{', '.join(names[:3])}{more}: {what}")]


def require_sound(release: Release) -> None:
    """Refuse a release whose lineage or encoding does not hold; for whatever builds on one.

    Raises:
        IntegrityError: naming every broken promise.
    """
    findings = [*check_lineage(release), *check_encoding(release)]
    if findings:
        raise IntegrityError(
            "structure: the release breaks what it promises:\n  "
            + "\n  ".join(finding.text for finding in findings),
            where=str(release.path),
            fix="make it anew with `affectdata balance`",
        )
