"""What a report is about: a manifest or a release, and what lies beside it, as data frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affectdata.check.blocks import CheckDocument, read_document
from affectdata.errors import InputError, IntegrityError
from affectdata.manifest.manifest import Manifest
from affectdata.records import SourceInfo
from affectdata.registry import find_plugins, load_plugin
from affectdata.release.release import Release
from affectdata.release.terms import forbids_redistribution
from affectdata.reporting.blocks import MOST_LABEL, clean
from affectdata.store.parquet import Rows, distinct, read_table

CHECK_FILE, PREDICTIONS_FILE, MAPS = "train-check.json", "predictions.parquet", "maps"
SENSITIVE = "sensitive"  # column: whether an image is hidden until the reader opens it
_COLUMNS = (
    *("sample_id", "image_id", "source", "source_id", "path", "split", "cell", "copy", "pipeline"),
    *("subtype", "emotion", "valence", "valence_sd", "arousal", "content_tags"),
)


@dataclass(frozen=True, eq=False)
class Subject:
    """A manifest or a release with what lies beside it.

    `rows` has one row per image of a manifest, or per original and copy of a release; `target` is the column
    that is balanced. `check` is the document of train-check and `predictions` its table; `edges` and
    `rejects` are the tables beside the manifests. `missing` says what is not there, in sentences.
    """

    source: Manifest | Release
    rows: pd.DataFrame
    target: str
    sheets: dict[str, SourceInfo]
    check: CheckDocument | None = None
    predictions: pd.DataFrame | None = None
    edges: pd.DataFrame | None = None
    rejects: pd.DataFrame | None = None
    maps: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def release(self) -> Release | None:
        """The release; None if the report is about a manifest."""
        return self.source if isinstance(self.source, Release) else None

    @property
    def key(self) -> str:
        """The column that identifies a row."""
        return "sample_id" if self.release else "image_id"

    @cached_property
    def originals(self) -> pd.DataFrame:
        """One row per image, without its copies."""
        return self.rows[self.rows["copy"] == 0] if self.release else self.rows

    @cached_property
    def is_numeric(self) -> bool:
        """Whether the target is a number rather than a class."""
        return bool(pd.api.types.is_numeric_dtype(self.rows[self.target]))

    @cached_property
    def has_subtypes(self) -> bool:
        """Whether the images have at least two content categories."""
        return bool(self.originals["subtype"].nunique() > 1)

    @cached_property
    def may_redistribute(self) -> bool:
        """Whether the terms of every image allow passing it on."""
        if isinstance(self.source, Release):
            return bool(self.source.info.get("terms", {}).get("redistributable"))
        licenses = distinct(self.source.rows, "license")
        return all(part.get("redistributable") for part in self.source.parts) and not any(
            forbids_redistribution(text or "") for text in licenses
        )

    def subtype_names(self, rows: pd.DataFrame) -> pd.Series:
        """Return the readable name of the subtype of each row."""
        codes, subtypes = pd.factorize(rows["subtype"], use_na_sentinel=False)
        return pd.Series(np.array([self.subtype_name(each) for each in subtypes], object)[codes], rows.index)

    def subtype_name(self, subtype: Any) -> str:
        """Return the readable name of a subtype, as its source declares it."""
        for sheet in self.sheets.values():
            if subtype in sheet.subtypes:
                return sheet.subtypes[subtype].name
        return "none" if pd.isna(subtype) else clean(str(subtype), MOST_LABEL)


def describe_manifest(manifest: Manifest) -> Subject:
    """Return a report's subject for a manifest; its target is valence, or else the emotion."""
    rows = _read_rows(manifest.rows)
    target = "valence" if rows["valence"].notna().any() else "emotion"
    folder, name = (manifest.path.parent, manifest.path.stem) if manifest.path else (None, "")
    return Subject(
        manifest,
        rows,
        target,
        _find_sheets(manifest.sources),
        edges=_read_beside(folder, [name], "edges"),
        rejects=_read_beside(folder, [name], "rejects"),
        missing=["This is a manifest: it has no splits, copies or check until `affectdata balance`."],
    )


def describe_release(release: Release, checks: Path, manifests: Path) -> Subject:
    """Return a report's subject for a release, with its check and the tables of its manifests."""
    found = find_check(release, checks)
    names = [str(each["source"]) for each in release.info["manifests"]]
    return Subject(
        release,
        _read_rows(release.rows, release.info["target"]),
        str(release.info["target"]),
        _find_sheets(names),
        check=found.document,
        predictions=found.predictions,
        edges=_read_beside(manifests, names, "edges"),
        rejects=_read_beside(manifests, names, "rejects"),
        maps=sorted((found.folder / MAPS).rglob("*.png")),
        missing=found.missing,
    )


@dataclass(frozen=True, eq=False)
class FoundCheck:
    """The newest check of a release: its folder, document and predictions, and what is missing of them."""

    folder: Path
    document: CheckDocument | None
    predictions: pd.DataFrame | None
    missing: list[str]


def find_check(release: Release, checks: Path) -> FoundCheck:
    """Return the newest check of a release, of those below the folder `checks`."""
    frozen = checks / release.name
    known = [each for each in (frozen, frozen / "finetune") if (each / CHECK_FILE).is_file()]
    if not known:
        missing = f"No check: `affectdata train-check {release.path}` has not been run."
        return FoundCheck(frozen, None, None, [missing])
    folder = max(known, key=lambda each: (each / CHECK_FILE).stat().st_mtime)
    missing = f"This page shows {folder / CHECK_FILE}, the newer of two checks."
    document, problem = _read_check(folder / CHECK_FILE, release)
    return FoundCheck(
        folder,
        document,
        read_predictions(folder, document) if document else None,
        [*([missing] if len(known) > 1 else []), *([problem] if problem else [])],
    )


def read_predictions(folder: Path, check: CheckDocument) -> pd.DataFrame | None:
    """Return the predictions of the check in a folder; None if there are none.

    Raises:
        IntegrityError: they are not those that were written with the check.
    """
    path = folder / PREDICTIONS_FILE
    if not path.is_file():
        return None
    table, metadata = read_table(path, "predictions")
    if check.predictions_digest not in (None, metadata["digest"]):
        raise IntegrityError(
            f"{path.name} is of another check than {CHECK_FILE}",
            where=str(folder),
            fix="run `affectdata train-check` again",
        )
    predictions: pd.DataFrame = table.to_pandas()
    return predictions


def _read_check(path: Path, release: Release) -> tuple[CheckDocument | None, str]:
    """Return the check of a release, or why it cannot be shown."""
    again = f"run `affectdata train-check {release.path}` again."
    try:
        check = read_document(path)
    except (InputError, IntegrityError) as error:
        return None, f"The check cannot be read: {error.what}; {again}"
    if check.release.id != release.id:
        return None, f"The check is of another release of the same name: {again}"
    return check, ""


def _read_rows(rows: Rows, target: str = "valence") -> pd.DataFrame:
    names = [name for name in dict.fromkeys([*_COLUMNS, target]) if name in rows.column_names]
    frame: pd.DataFrame = rows.select(names).to_pandas()
    if frame[target].dtype == object:
        frame[target] = frame[target].map(lambda each: clean(each, MOST_LABEL), na_action="ignore")
    frame[SENSITIVE] = frame.pop("content_tags").fillna("") != ""
    return frame


def _find_sheets(sources: list[str]) -> dict[str, SourceInfo]:
    """Return the data sheets of the sources that this installation knows."""
    known = set(find_plugins("sources"))
    return {name: load_plugin("sources", name).INFO for name in sources if name in known}


def _read_beside(folder: Path | None, names: list[str], kind: str) -> pd.DataFrame | None:
    """Return the tables `<name>.<kind>.parquet` of a folder as one frame; None if there are none."""
    paths = [folder / f"{name}.{kind}.parquet" for name in names] if folder else []
    parts = [read_table(path, kind)[0].to_pandas() for path in paths if path.is_file()]
    return pd.concat(parts, ignore_index=True) if parts else None
