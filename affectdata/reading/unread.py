"""Layouts that are recognised and not read by themselves: what they are, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from affectdata.errors import SourceError
from affectdata.reading.tree import Tree

_HEAD = 1 << 16  # bytes of a file that are searched
_MOST_FILES = 20
_SEQUENCE = re.compile(r"(.*/)?\w+_emotion\.txt")
_MAP = "--source table --map COLUMNS.yaml"


def name_unread_layout(tree: Tree) -> tuple[str, str] | None:
    """Return what a tree looks like that no source recognises, and what to do; None if nothing is known."""
    sequences = [path for path in tree.others() if _SEQUENCE.fullmatch(path)]
    if sequences:
        return (
            f"{len(sequences)} label files per sequence, as in CK+, such as {sequences[0]}",
            "write a table with a row for each frame that you want (the label is that of the last frame of a "
            f"sequence), with the person as subject_id, and use a column map: {_MAP}",
        )
    return next(_find_json(tree), None)


def _find_json(tree: Tree) -> Iterator[tuple[str, str]]:
    for path in islice((path for path in tree.others() if path.lower().endswith(".json")), _MOST_FILES):
        try:
            head = tree.read_bytes(path, _HEAD)
        except SourceError:
            continue
        if b'"file_name"' in head and re.match(rb'\s*\{.*"(images|annotations|categories)"\s*:', head, re.S):
            fix = (
                f"{{name: …, table: {path}, key: file_name, match_parts: 1, columns: {{emotion: category}}}}"
            )
            yield f"COCO annotations in {path}", f"use a column map, {_MAP}: {fix}"
        elif re.match(rb'\s*\[\s*\{.*"(annotations|completions)"\s*:\s*\[.*"result"', head, re.S):
            yield (
                f"an export of Label Studio in {path}",
                f"export the project as JSON-MIN or CSV, and use a column map: {_MAP}",
            )
