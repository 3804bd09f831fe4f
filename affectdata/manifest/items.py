"""The items of a source, spilled to disk: records as labels of a manifest, rejects, annotations, findings.

Nothing here opens an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import SourceError
from affectdata.hashing import canonical_json
from affectdata.images.probe import PROBED
from affectdata.reading.links import explain_link
from affectdata.reading.protocol import Item
from affectdata.reading.tree import DOWNLOADED, Tree, are_junk
from affectdata.records import RATINGS, Annotation, Finding, Reason, Record, Reject, SourceInfo
from affectdata.schema import AGREEMENT_N, INTENSITY, REJECTS, manifest_schema, vote_columns
from affectdata.store.spill import Spill

_COPIED = (
    *("source_id", "subtype", "emotion", "agreement", "agreement_n", "subject_id", "artist", "theme", "age"),
    *("age_group", "gender", "ethnicity", "split", "attribution", "together"),
)
_NOT_LABELS = {*PROBED.names, "group_id"} - {"path"}
_EMOTIONS = pa.field(
    "emotions", pa.map_(pa.string(), pa.float64())
)  # the set of emotions is known at the end
_INTENSITIES = pa.field("intensities", _EMOTIONS.type)
_TOGETHER = pa.field("together", pa.string())  # not in the manifest: what it says is in `group_id`
# The labels of an image: the columns of a manifest that are not read from the image itself.
LABELS = pa.schema(
    [
        *(field for field in manifest_schema() if field.name not in _NOT_LABELS),
        AGREEMENT_N,
        _TOGETHER,
        _EMOTIONS,
        _INTENSITIES,
    ]
)


class Items:
    """The items of a source, by kind; a record with a rating outside its scale becomes a reject."""

    def __init__(self, info: SourceInfo) -> None:
        self.info = info
        self.labels = Spill(LABELS)
        self.rejects = Spill(REJECTS)
        self.annotations = Spill(pa.schema([REJECTS.field("path")]))
        self.findings: list[Finding] = []
        self.n_merged = 0
        self.has_splits = False  # whether any record has one
        self._emotions: set[str] = set()
        self._votes: set[str] = set()

    @property
    def emotions(self) -> list[str]:
        """The emotions that any record has a share of."""
        return sorted(self._emotions)

    @property
    def votes(self) -> list[str]:
        """The optional columns (`schema.vote_columns`) that any record has a value of."""
        return sorted(self._votes)

    def add(self, item: Item) -> None:
        """Add an item."""
        if isinstance(item, Record):
            self._add_record(item)
        elif isinstance(item, Reject):
            self.reject(item)
        elif isinstance(item, Annotation):
            self.annotations.add({"path": item.path})
        else:
            self.findings.append(item)

    def _add_record(self, record: Record) -> None:
        outside = out_of_range(record, self.info)
        if outside:
            self.reject(outside)
            return
        self._emotions.update(record.emotions)
        self.has_splits |= record.split is not None
        row = {"path": record.path, **columns_of(record, self.info)}
        self._votes.update(vote_columns(name for name, value in row.items() if value is not None))
        row["emotions"] = list(record.emotions.items())
        row["intensities"] = [(name, row[INTENSITY + name]) for name in record.intensities]
        self.labels.add(row)

    def reject(self, reject: Reject) -> None:
        """Add a reject."""
        self.rejects.add({"path": reject.path, "reason": str(reject.reason), "detail": reject.detail})

    def merge(self, path: str, detail: str, reason: Reason = Reason.EXACT_DUPLICATE) -> None:
        """Add the reject of an image that is a row already."""
        self.reject(Reject(path, reason, detail))
        self.n_merged += 1

    def count(self, n_kept: int) -> dict[str, int]:
        """Return the five counts, which add up to the number of files and rating rows."""
        n_junk = sum(pc.sum(pc.equal(part["reason"], "junk")).as_py() or 0 for part in self.rejects.read())
        return {
            "kept": n_kept,
            "merged": self.n_merged,
            "annotation": len(self.annotations),
            "junk": n_junk,
            "rejected": len(self.rejects) - n_junk - self.n_merged,
        }

    def rejects_table(self) -> pa.Table:
        """Return all rejects, sorted."""
        table = pa.concat_tables([REJECTS.empty_table(), *self.rejects.read()])
        return table.sort_by([(name, "ascending") for name in REJECTS.names]).combine_chunks()


def out_of_range(record: Record, info: SourceInfo) -> Reject | None:
    """Return the reject of a record with a rating outside its scale, else None."""
    values = {name: rating.mean for name, rating in record.ratings.items()}
    values |= {INTENSITY + name: value for name, value in record.intensities.items()}
    for name, value in values.items():
        scale = info.scales[name]
        if value not in scale:
            detail = f"{name} {value:g} of {record.source_id} is outside {scale.low:g}–{scale.high:g}"
            return Reject(record.path, Reason.RATING_OUT_OF_RANGE, detail)
    return None


def columns_of(record: Record, info: SourceInfo) -> dict[str, Any]:
    """Return a record as columns of the manifest, without its path."""
    row: dict[str, Any] = {name: getattr(record, name) for name in _COPIED}
    row |= {
        "source": info.name,
        "license": record.license or info.license,
        "url": record.url or info.url,
        "content_tags": ",".join(record.content_tags) or None,
        "extra": canonical_json(dict(record.extra)),
    }
    row |= {f"emotion_{emotion}": share for emotion, share in record.emotions.items()}
    for emotion, value in record.intensities.items():
        row[INTENSITY + emotion] = info.scales[INTENSITY + emotion].to_pomp(value)
    for name in RATINGS:
        rating = record.ratings.get(name)
        if rating is not None:
            scale = info.scales[name]
            row |= {
                name: scale.to_pomp(rating.mean),
                f"{name}_sd": None if rating.sd is None else scale.spread_to_pomp(rating.sd),
                f"{name}_n": rating.n,
                f"{name}_raw": rating.mean,
                f"{name}_min": scale.low,
                f"{name}_max": scale.high,
            }
    return row


def expand_emotions(table: pa.Table, emotions: list[str], votes: list[str]) -> pa.Table:
    """Replace the maps `emotions` and `intensities` by columns `emotion_<name>` and `intensity_<name>`."""
    intensities = [name.removeprefix(INTENSITY) for name in votes if name.startswith(INTENSITY)]
    for column, prefix, names in (
        (_EMOTIONS.name, "emotion_", emotions),
        (_INTENSITIES.name, INTENSITY, intensities),
    ):
        by_name = table[column].combine_chunks()
        for name in names:
            values = pc.map_lookup(by_name, query_key=name, occurrence="first")
            table = table.append_column(f"{prefix}{name}", values)
    return table.drop_columns([_EMOTIONS.name, _INTENSITIES.name])


def _check_once(named: pa.Array, root: Path) -> None:
    for path, count in (row.values() for row in pc.value_counts(named).to_pylist()):
        if count > 1:
            raise SourceError(f"the source lists {path} {count} times", where=str(root / path))


def add_unnamed_files(tree: Tree, items: Items) -> None:
    """Add every file that the source did not list, as a reject or annotation.

    Raises:
        SourceError: the source lists a file twice.
    """
    spills = (items.labels, items.annotations, items.rejects)
    named = pa.concat_arrays([spill.column("path") for spill in spills])
    files = tree.files.array
    index = pc.index_in(named, files)
    _check_once(named.filter(pc.is_null(index)), root=tree.root)
    n_named = np.bincount(index.drop_null().to_numpy(), minlength=len(files))
    _check_once(named.filter(pc.is_in(named, files.filter(pa.array(n_named > 1)))), root=tree.root)
    rest = files.filter(pa.array(n_named == 0))
    notes = pc.equal(rest, DOWNLOADED)
    items.annotations.append(pa.table([rest.filter(notes)], schema=items.annotations.schema))
    rest = rest.filter(pc.invert(notes))
    junk, images = are_junk(rest), pc.is_in(rest, tree.images().array)
    behind = pc.and_(images, pc.is_in(rest, pa.array(tree.targets, pa.string())))
    for wanted, reason, detail in (
        (junk, Reason.JUNK, "left behind by an operating system or a tool"),
        (pc.and_not(behind, junk), Reason.EXACT_DUPLICATE, "the file behind a link inside the root"),
        (
            pc.and_not(pc.and_not(images, behind), junk),
            Reason.MISSING_RATING,
            "an image that no rating row names",
        ),
        (pc.invert(pc.or_(images, junk)), Reason.JUNK, "neither an image nor a table of this source"),
    ):
        paths = rest.filter(wanted)
        columns = [paths, pa.repeat(str(reason), len(paths)), pa.repeat(detail, len(paths))]
        items.rejects.append(pa.table(columns, schema=REJECTS))
        items.n_merged += len(paths) if reason == Reason.EXACT_DUPLICATE else 0
    for path in tree.links:
        items.reject(Reject(path, Reason.LINK, explain_link(tree.root, path)))
    for path in tree.bad_names:
        items.reject(Reject(path, Reason.BAD_NAME, "the name is not UTF-8, or the path is too long"))
