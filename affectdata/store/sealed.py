"""JSON and CSV files with a hash over their content, so that a damaged one is not read as a result."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from affectdata.errors import IntegrityError
from affectdata.hashing import canonical_json, file_hash
from affectdata.store.atomic import read_json, write_json, write_text
from affectdata.store.files import read_regular

SEAL = "content_sha256"
_UNSEALED = ("affectdata/train-check/1", "affectdata/train-check/2")  # forms of before there was a hash
_OF_FILE = "file"
_CSV_SEAL = b"# SHA-256 of the lines below: "


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """Write a document as JSON, with the SHA-256 over all its keys as one more key."""
    write_json(path, {**document, SEAL: content_hash(document)})


def read_sealed(path: Path, fix: str) -> Any:
    """Return a document without its hash; those of former forms have none, and are returned as they are.

    Raises:
        IntegrityError: the document is not the one that was written.
        ManifestError: the file does not exist or is not JSON.
    """
    document = read_json(path)
    if not isinstance(document, dict) or (SEAL not in document and document.get("schema") in _UNSEALED):
        return document
    seal = document.pop(SEAL, None)
    if seal is None or seal != content_hash(document):
        raise IntegrityError(f"{path.name} is not what was written", where=str(path), fix=fix)
    return document


def write_kept(path: Path, document: dict[str, Any]) -> None:
    """Write a sealed document that is found again by the name of its file, which becomes a part of it."""
    write_sealed(path, {**document, _OF_FILE: path.stem})


def read_kept(path: Path, fix: str) -> dict[str, Any]:
    """Return a document of `write_kept`.

    Raises:
        IntegrityError: it is not the one that was written under this name.
        ManifestError: the file does not exist or is not JSON.
    """
    document = read_sealed(path, fix)
    if not isinstance(document, dict) or document.pop(_OF_FILE, None) != path.stem:
        raise IntegrityError(f"{path.name} was written under another name", where=str(path), fix=fix)
    return document


def content_hash(document: dict[str, Any]) -> str | None:
    """Return the SHA-256 over the canonical JSON of a document; None if a value cannot be JSON."""
    try:
        return file_hash(canonical_json(document).encode())
    except (ValueError, RecursionError):  # an infinite number, a lone surrogate
        return None


def write_sealed_csv(path: Path, origin: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV below a comment on its origin, and one with the SHA-256 of the lines that follow."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    body = text.getvalue()
    write_text(path, f"# {origin}\n{_CSV_SEAL.decode()}{file_hash(body.encode())}\n{body}")


def read_sealed_csv(path: Path, columns: Iterable[str], fix: str) -> list[dict[str, str]]:
    """Return the rows below the comments; a file of a former version has no hash.

    Raises:
        IntegrityError: the rows are not those that were written, or lack one of the columns.
    """
    data = read_regular(path)
    lines = data.split(b"\n", 2)
    damaged = IntegrityError(f"{path.name} is not what was written", where=str(path), fix=fix)
    if len(lines) == 3 and lines[1].startswith(_CSV_SEAL):
        data = lines[2]
        if lines[1] != _CSV_SEAL + file_hash(data).encode():
            raise damaged
    try:
        text = io.StringIO(data.decode(), newline="")
        rows = list(csv.DictReader(line for line in text if not line.startswith("#")))
    except (ValueError, csv.Error) as error:
        raise damaged from error
    needed = {*columns}
    if not all(needed <= row.keys() and None not in row.values() and None not in row for row in rows):
        raise damaged
    return rows
