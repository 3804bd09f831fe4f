"""Layouts and files that are recognised and not read by themselves: what they are, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from affectdata.errors import SourceError
from affectdata.reading.tree import Tree
from affectdata.store.files import LFS_POINTER

_HEAD = 1 << 16  # bytes of a file that are searched
_MOST_FILES = 20
_MAP = "--source table --map COLUMNS.yaml"
SAVE_TABLE = "save the table as .xlsx, .csv or .parquet"
_MAGIC = 64  # bytes that say what a file is
_NO_TEXT = {  # the beginning of files that are not text tables, in lower case: what they are, and what to do
    b"\x1f\x8b": ("compressed with gzip", "unpack it, such as with gunzip"),
    b"pk\x03\x04": ("a zip archive or a workbook", "unpack it, or give it the suffix .xlsx"),
    b"%pdf": ("a PDF", SAVE_TABLE),
    b"\x93numpy": ("a NumPy array", SAVE_TABLE),
    b"par1": ("a Parquet table", "give it the suffix .parquet"),
    b"<html": ("a web page", SAVE_TABLE),
    b"<!doctype": ("a web page", SAVE_TABLE),
    b"@relation": ("an ARFF table", SAVE_TABLE),
}


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


def name_pointer(data: bytes) -> tuple[str, str] | None:
    """Return that a file is a pointer of Git LFS, and what to do; None if it is not."""
    if not data.startswith(LFS_POINTER):
        return None
    return "a pointer of Git LFS in place of the table", "run `git lfs pull` in the repository"


def name_other_file(data: bytes) -> tuple[str, str] | None:
    """Return what a file is that should be a table in text, and what to do; None if it may be one."""
    start = data[:_MAGIC].lstrip().lower()
    return next((known for magic, known in _NO_TEXT.items() if start.startswith(magic)), None)


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
