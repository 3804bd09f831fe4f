"""JSON files with a hash over their content, so that a damaged one is not read as a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affectdata.errors import IntegrityError
from affectdata.hashing import canonical_json, file_hash
from affectdata.store.atomic import read_json, write_json

SEAL = "content_sha256"


def write_sealed(path: Path, document: dict[str, Any]) -> None:
    """Write a document as JSON, with the SHA-256 over all its keys as one more key."""
    write_json(path, {**document, SEAL: content_hash(document)})


def read_sealed(path: Path, fix: str) -> Any:
    """Return a document without its hash; one of a former version has none, and is returned as it is.

    Raises:
        IntegrityError: the document is not the one that was written.
        ManifestError: the file does not exist or is not JSON.
    """
    document = read_json(path)
    if not isinstance(document, dict) or SEAL not in document:
        return document
    seal = document.pop(SEAL)
    if seal is None or seal != content_hash(document):
        raise IntegrityError(f"{path.name} is not what was written", where=str(path), fix=fix)
    return document


def content_hash(document: dict[str, Any]) -> str | None:
    """Return the SHA-256 over the canonical JSON of a document; None if a value cannot be JSON."""
    try:
        return file_hash(canonical_json(document).encode())
    except (ValueError, RecursionError):  # an infinite number, a lone surrogate
        return None
