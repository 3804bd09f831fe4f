"""Tar shards in the form of WebDataset: images and their labels in files with equal keys.

    train-000000.tar …     000012.jpg, 000012.cls, 000012.json, 000012.txt, …

The key of a file is its path up to the first dot of its name. Every key with an image is an image; its path
is `train-000000.tar#N`, N the number of the file in the shard from 0. `.json` has its labels, under the names
of manifest columns (valence, arousal, dominance with _sd and _n; emotion, emotion_<name>, subtype, …); the
class is the first of emotion, label, class and category in it, else `.cls`, else `.txt` if it is always a
single word. Everything else goes into `extra`. A rating needs `valence_min` and `valence_max` with one value
each; else it stays in `extra`, and a column map can give its scale: `--source table --map COLUMNS.yaml` with
`table: "*.tar"`. The split is the column `split`, else a word in the name of the shard or of its folder.

Shards that `affectdata export --to webdataset` wrote come back row for row, with ratings on the scale of
their source; they are recognised by `file_sha256`, which must be that of the image. Copies of one image, and
what was in one group, stay in one split. The manifest is named by --name, by default after the folder.
Compressed shards cannot be read from the middle: decompress them with gunzip.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from affectdata.column_map.columns import MAP_FILE
from affectdata.column_map.embedded import EmbeddedRow, EmbeddedTable, read_described
from affectdata.errors import DecodeError, SourceError
from affectdata.hashing import canonical_json, file_hash
from affectdata.images.packed import Member, list_members, read_member
from affectdata.reading.json_tables import load_json
from affectdata.reading.names import find_readmes, slug
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image
from affectdata.reading.tables import value_text
from affectdata.reading.tree import Tree, is_image_name, is_junk
from affectdata.records import (
    RATINGS,
    Annotation,
    Finding,
    Rating,
    Reason,
    Record,
    Reject,
    Scale,
    SourceInfo,
)

INFO = SourceInfo(
    name="webdataset",
    title="Tar shards in the form of WebDataset",
    scales={},
    license="not stated",
    citation="none: name the collection that the pictures are from",
    url="https://github.com/webdataset/webdataset",
    layout="<split>-000000.tar with <key>.jpg and <key>.cls, .json or .txt",
    generic=True,
    takes=("name",),
)
_KEY = re.compile(r"(?P<key>(?:.*/)?[^/.]+)\.(?P<ending>[^/]+)")
_INFO_FILE = "_info.json"  # lists splits and shards of an export, as timm reads it
_TEXTS = ("cls", "txt", "text", "caption", "label", "class")
_MAX_TEXT = 1 << 24  # bytes of a file of labels
_OWN = ("sample_id", "image_id", "file_sha256", "group_id")  # of records that this package wrote
_POMP = Scale(0, 100)


@dataclass(frozen=True)
class _Sample:
    """The files of one key, by ending, with their numbers in the shard."""

    key: str
    files: dict[str, tuple[int, Member]]

    @property
    def image(self) -> str | None:
        """The ending of the image: of several the shortest, as `jpg` before `mask.png`."""
        endings = [ending for ending in self.files if is_image_name(f"x.{ending}")]
        return min(endings, key=lambda ending: (ending.count("."), ending), default=None)


def detect(tree: Tree) -> str | None:
    """Recognise a tree by a tar in which an image has a file of labels with the same key."""
    for path in _tars(tree) if MAP_FILE not in tree.files else ():
        samples = _samples(tree, path, strict=False)
        if any(sample.image and sample.files.keys() & {*_TEXTS, "json"} for sample in samples):
            return f"images and labels in the shard {path}"
    return None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the shards.

    Raises:
        SourceError: there is no shard with images, or one cannot be read.
    """
    shards = find_shards(tree)
    if not shards:
        packed = [path for path in tree.others() if re.search(r"\.(tgz|tar\.\w+)$", path.lower())]
        raise SourceError(
            "there is no uncompressed tar with images",
            where=f"{tree.root}{': ' if packed else ''}{', '.join(packed[:3])}",
            fix="decompress the shards, such as with gunzip" if packed else f"expected: {INFO.layout}",
        )
    for path in _tars(tree):
        _members(tree, path)  # a damaged one is an error, not junk
    name = slug(options.name or tree.root.resolve().name) or INFO.name
    if _is_own(_first_labels(tree, shards)):
        scales = _own_scales(tree, shards)
        info = replace(INFO, name=name, title=name, scales=scales)
        return Reading(info, _read_own(tree, shards, scales))
    tables = [open_shard(tree, path) for path in shards]
    return read_described(tree, INFO, tables, name)


def find_shards(tree: Tree) -> list[str]:
    """List the uncompressed tars in which a file with a key is an image."""
    return [
        path for path in _tars(tree) if any(sample.image for sample in _samples(tree, path, strict=False))
    ]


def _tars(tree: Tree) -> list[str]:
    return [path for path in tree.others() if path.lower().endswith(".tar")]


def open_shard(tree: Tree, path: str) -> EmbeddedTable:
    """Open a shard.

    Raises:
        SourceError: it cannot be read; so while its rows are read.
    """
    return EmbeddedTable(path, lambda: _read_rows(tree, path))


def _members(tree: Tree, path: str, strict: bool = True) -> list[Member]:
    tree.note_read(path)
    try:
        return list_members(tree.root / path)
    except (ValueError, OSError) as error:
        if not strict:
            return []
        raise SourceError(
            f"{path} cannot be read as a tar: {error}", where=path, fix="download it again"
        ) from error


def _samples(tree: Tree, path: str, strict: bool = True) -> list[_Sample]:
    """Return the files of a shard by key, in the order of the first one."""
    samples: dict[str, _Sample] = {}
    for number, member in enumerate(_members(tree, path, strict)):
        match = None if is_junk(member.name) else _KEY.fullmatch(member.name)
        if match:
            sample = samples.setdefault(match["key"], _Sample(match["key"], {}))
            sample.files.setdefault(match["ending"].lower(), (number, member))
    return list(samples.values())


def _read_rows(tree: Tree, path: str) -> Iterator[EmbeddedRow | Reject | Finding]:
    unread: dict[str, int] = {}
    named: set[int] = set()
    for sample in _samples(tree, path):
        named |= {number for number, _ in sample.files.values()}
        if sample.image is None:
            yield _without_image(path, sample)
            continue
        number = sample.files[sample.image][0]
        try:
            cells = {key: value_text(value) for key, value in _labels(tree, path, sample).items()}
        except ValueError as error:
            yield Reject(f"{path}#{number}", Reason.BAD_RATING, f"{sample.key}: {error}")
            continue
        for ending, (_, member) in sample.files.items():
            if ending in _TEXTS:
                text = _read_text(tree, path, member).strip()
                cells.setdefault(ending, text)
            elif ending not in ("json", sample.image):
                unread[ending] = unread.get(ending, 0) + 1
        yield EmbeddedRow(number, f"{path}/{sample.key}", cells)
    for number, member in enumerate(_members(tree, path)):
        if number not in named:
            detail = f"{member.name}: no file of a sample, or the second one of its name"
            yield Reject(f"{path}#{number}", Reason.JUNK, detail)
    if unread:
        counts = ", ".join(f"{n} .{ending}" for ending, n in sorted(unread.items()))
        yield Finding("unread_members", f"{path} has files beside its images that are not read: {counts}")


def _without_image(path: str, sample: _Sample) -> Reject:
    number, member = next(iter(sample.files.values()))
    detail = f"{member.name}: there is no image with the key {sample.key!r}"
    return Reject(f"{path}#{number}", Reason.MISSING_IMAGE, detail)


def _read_text(tree: Tree, path: str, member: Member) -> str:
    try:
        return read_member(tree.root / path, member, _MAX_TEXT).decode("utf-8-sig", "replace")
    except (OSError, DecodeError) as error:
        raise SourceError(f"{member.name} cannot be read: {error}", where=path) from error


def _labels(tree: Tree, path: str, sample: _Sample) -> dict[str, Any]:
    """Return the labels in the `.json` of a sample.

    Raises:
        ValueError: it is not a JSON object.
    """
    if "json" not in sample.files:
        return {}
    try:
        document = load_json(_read_text(tree, path, sample.files["json"][1]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its .json is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("its .json is not a JSON object")
    return document


def _is_own(labels: dict[str, Any]) -> bool:
    return all(isinstance(labels.get(name), str) for name in _OWN)


def _first_labels(tree: Tree, shards: list[str]) -> dict[str, Any]:
    sample = next(sample for sample in _samples(tree, shards[0]) if sample.image)
    try:
        return _labels(tree, shards[0], sample)
    except ValueError:
        return {}


def _own_rows(tree: Tree, shards: Iterable[str]) -> Iterator[tuple[str, _Sample, dict[str, Any]]]:
    for shard in shards:
        for sample in _samples(tree, shard):
            try:
                labels = _labels(tree, shard, sample)
            except ValueError:
                labels = {}
            yield shard, sample, labels


def _own_scales(tree: Tree, shards: list[str]) -> dict[str, Scale]:
    """Return the scale of each rating: that of the sources if all have the same, else 0–100."""
    ends: dict[str, set[tuple[float, float]]] = {}
    for _, _, labels in _own_rows(tree, shards):
        for name in RATINGS:
            if labels.get(name) is not None:
                ends.setdefault(name, set()).add((labels[f"{name}_min"], labels[f"{name}_max"]))
    return {name: Scale(*found.pop()) if len(found) == 1 else _POMP for name, found in ends.items()}


def _read_own(tree: Tree, shards: list[str], scales: dict[str, Scale]) -> Iterator[Item]:
    notes = [path for path in tree.files if path.rpartition("/")[2] == _INFO_FILE]
    yield from map(Annotation, [*find_readmes(tree), *shards, *notes])
    for shard, sample, labels in _own_rows(tree, shards):
        if sample.image is None:
            yield _without_image(shard, sample)
            continue
        number, member = sample.files[sample.image]
        path = f"{shard}#{number}"
        if not _is_own(labels):
            yield Reject(path, Reason.BAD_RATING, f"{member.name}: its .json is not that of an export")
        elif file_hash(read_member(tree.root / shard, member)) != labels["file_sha256"]:
            detail = f"{member.name} is not the exported image: its SHA-256 is not file_sha256 of its .json"
            yield Reject(path, Reason.CONFLICTING_RATING, detail)
        else:
            yield _own_record(path, labels, scales)


_DIRECT = {field.name for field in fields(Record)} - {
    *("path", "source_id", "ratings", "emotions", "content_tags", "extra", "together")
}


def _own_record(path: str, labels: dict[str, Any], scales: dict[str, Scale]) -> Record:
    """Return the record of a released row; other values, such as `copy`, go into `extra`."""
    ratings = {}
    for name, scale in scales.items():
        if labels.get(name) is not None:
            mean = labels[f"{name}_raw"] if scale is not _POMP else labels[name]
            sd = labels[f"{name}_sd"]
            sd = None if sd is None else sd / 100 * (scale.high - scale.low)
            ratings[name] = Rating(mean, sd, labels[f"{name}_n"])
    used = {*_DIRECT, "extra", "content_tags", "group_id"}
    for name in RATINGS:
        parts = ("", "_sd", "_n") if scales.get(name) is _POMP else ("", "_sd", "_n", "_raw", "_min", "_max")
        used |= {name + part for part in parts}
    shares = {key: value for key, value in labels.items() if key.startswith("emotion_")}
    others = {key: value_text(value) for key, value in labels.items() if key not in used | shares.keys()}
    return Record(
        path=path,
        source_id=labels["sample_id"],
        ratings=ratings,
        emotions={key.removeprefix("emotion_"): share for key, share in shares.items() if share is not None},
        content_tags=tuple(filter(None, (labels.get("content_tags") or "").split(","))),
        extra={**load_json(labels.get("extra") or "{}"), **others},
        together=labels["group_id"],
        **{name: labels[name] for name in _DIRECT if labels.get(name) is not None},
    )


_SAMPLE_CLASSES = {"joy": 85, "sadness": 25, "fear": 15}  # and the valence that images are drawn with


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 18 generated images in two shards, with .cls, .json and .txt; one key has no image."""
    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}-000000.tar", "w", format=tarfile.USTAR_FORMAT) as shard:
            for number in range(12 if split == "train" else 6):
                word = list(_SAMPLE_CLASSES)[number % len(_SAMPLE_CLASSES)]
                data = io.BytesIO()
                Image.fromarray(draw_image(rng, _SAMPLE_CLASSES[word], 96, 72)).save(data, "JPEG")
                labels = {"valence": 5, "valence_min": 1, "valence_max": 9, "theme": f"scene {number // 2}"}
                files = {"jpg": data.getvalue(), "cls": word.encode(), "txt": b"a generated image"}
                for ending, content in {**files, "json": canonical_json(labels).encode()}.items():
                    if (split, number, ending) != ("test", 5, "jpg"):
                        member = tarfile.TarInfo(f"v1.0/{split}_{number:06d}.{ending}")
                        member.size = len(content)
                        shard.addfile(member, io.BytesIO(content))
