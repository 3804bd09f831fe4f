"""Documents with a hash over their content: every changed byte is found, or changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import AffectdataError, IntegrityError
from affectdata.store.atomic import write_json
from affectdata.store.sealed import read_sealed, write_sealed

DOCUMENT: dict[str, Any] = {"schema": "x/1", "score": 0.1, "n": [1, 2, None], "words": {"é": "a\nb"}}


def test_a_document_is_read_back_without_its_hash(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", DOCUMENT)
    assert read_sealed(tmp_path / "a.json", "fix") == DOCUMENT


def test_one_without_a_hash_is_read_as_it_is(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", DOCUMENT)
    assert read_sealed(tmp_path / "a.json", "fix") == DOCUMENT


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, DOCUMENT)
    data = path.read_bytes()
    outcomes = set()
    for number in range(8 * len(data)):
        changed = bytearray(data)
        changed[number // 8] ^= 1 << number % 8
        path.write_bytes(changed)
        try:
            found = read_sealed(path, "fix")
            # A damaged name of the hash is a key that no reader of such a document knows.
            assert found == DOCUMENT or len(found) == len(DOCUMENT) + 1
            outcomes.add("read")
        except AffectdataError as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "IntegrityError", "ManifestError"}


@pytest.mark.parametrize("seal", ["", 1, None, "0" * 64])
def test_a_wrong_hash_is_an_integrity_error(tmp_path: Path, seal: object) -> None:
    write_json(tmp_path / "a.json", {**DOCUMENT, "content_sha256": seal})
    with pytest.raises(IntegrityError, match=r"a\.json is not what was written"):
        read_sealed(tmp_path / "a.json", "fix")
