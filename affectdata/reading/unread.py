"""Layouts that are recognised and not read by themselves: what they are, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from affectdata.errors import SourceError
from affectdata.reading.tree import Tree

_HEAD = 1 << 16  # bytes of a file that are searched
_MOST_FILES = 20
_MAP = "--source table --map COLUMNS.yaml"


_FILES = (  # what paths look like, what that is, and what to do
    (
        re.compile(r"(.*/)?\w+_emotion\.txt"),
        "label files per sequence, as in CK+",
        "write a table with a row for each frame that you want (the label is that of the last frame of a "
        f"sequence), with the person as subject_id, and use a column map: {_MAP}",
    ),
    (
        re.compile(r"(.*/)?labels/(.*/)?[^/]+\.txt"),
        "a label file per image, as in YOLO",
        "write a table with a row per image (its file name, and its class by name, as in data.yaml), "
        f"and use a column map: {_MAP}",
    ),
    (
        re.compile(r".*\.arrow"),
        "tables that `datasets` saved with save_to_disk",
        "write each split as Parquet: datasets.load_from_disk(FOLDER)['train'].to_parquet('train.parquet')",
    ),
    (
        re.compile(r".*[-_]\d{2,}\.(tgz|tar\.(gz|bz2|xz|zst))"),
        "compressed shards, which cannot be read from the middle",
        "decompress them, such as with gunzip; an archive of one source: `affectdata ingest ARCHIVE`",
    ),
    (
        re.compile(r".*\.tfrecords?(-\d+-of-\d+)?(\.gz)?"),
        "TFRecord files, which are not read",
        "write images in a folder per class, or Parquet tables with the images",
    ),
)


def name_unread_layout(tree: Tree) -> tuple[str, str] | None:
    """Return what a tree looks like that no source recognises, and what to do; None if nothing is known."""
    others = list(tree.others())
    for pattern, what, fix in _FILES:
        if found := [path for path in others if pattern.fullmatch(path)]:
            return f"{what} ({len(found)}, such as {found[0]})", fix
    return next(_find_json(tree), None)


def _find_json(tree: Tree) -> Iterator[tuple[str, str]]:
    for path in islice((path for path in tree.others() if path.lower().endswith(".json")), _MOST_FILES):
        try:
            head = tree.read_bytes(path, _HEAD)
        except SourceError:
            continue
        is_coco = b'"file_name"' in head or (b'"image_id"' in head and b'"category_id"' in head)
        if is_coco and re.match(rb'\s*\{.*"(images|annotations|categories)"\s*:', head, re.S):
            fix = (
                f"{{name: …, table: {path}, key: file_name, match_parts: 1, columns: {{emotion: category}}}}"
            )
            yield f"COCO annotations in {path}", f"use a column map, {_MAP}: {fix}"
        elif re.match(rb'\s*\[\s*\{.*"(annotations|completions)"\s*:\s*\[.*"result"', head, re.S):
            yield (
                f"an export of Label Studio in {path}",
                f"export the project as JSON-MIN or CSV, and use a column map: {_MAP}",
            )
