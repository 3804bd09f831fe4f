"""Documents and tables with a hash over their content: every changed byte is found, or changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import AffectdataError, IntegrityError
from affectdata.store.atomic import write_json
from affectdata.store.sealed import (
    read_kept,
    read_sealed,
    read_sealed_csv,
    write_kept,
    write_sealed,
    write_sealed_csv,
)

DOCUMENT: dict[str, Any] = {"schema": "x/1", "score": 0.1, "n": [1, 2, None], "words": {"é": "a\nb"}}


def test_a_document_is_read_back_without_its_hash(tmp_path: Path) -> None:
    write_sealed(tmp_path / "a.json", DOCUMENT)
    assert read_sealed(tmp_path / "a.json", "fix") == DOCUMENT


@pytest.mark.parametrize("schema", ["affectdata/train-check/1", "affectdata/train-check/2"])
def test_only_a_former_form_may_have_no_hash(tmp_path: Path, schema: str) -> None:
    former = {**DOCUMENT, "schema": schema}
    write_json(tmp_path / "a.json", former)
    assert read_sealed(tmp_path / "a.json", "fix") == former
    write_json(tmp_path / "a.json", DOCUMENT)
    with pytest.raises(IntegrityError, match=r"a\.json is not what was written"):
        read_sealed(tmp_path / "a.json", "fix")


def test_a_kept_document_is_that_of_its_file(tmp_path: Path) -> None:
    one, other = tmp_path / "1.json", tmp_path / "2.json"
    write_kept(one, DOCUMENT)
    assert read_kept(one, "fix") == DOCUMENT
    one.rename(other)
    with pytest.raises(IntegrityError, match=r"2\.json was written under another name"):
        read_kept(other, "fix")


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
            assert read_sealed(path, "fix") == DOCUMENT
        except AffectdataError as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"IntegrityError", "ManifestError"}


@pytest.mark.parametrize("seal", ["", 1, None, "0" * 64])
def test_a_wrong_hash_is_an_integrity_error(tmp_path: Path, seal: object) -> None:
    write_json(tmp_path / "a.json", {**DOCUMENT, "content_sha256": seal})
    with pytest.raises(IntegrityError, match=r"a\.json is not what was written"):
        read_sealed(tmp_path / "a.json", "fix")


def test_every_flipped_bit_of_a_table_is_found_or_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_sealed_csv(path, "from é", ["file", "n"], [["a,b.bmp", 1], ["é.bmp", 22]])
    rows = [{"file": "a,b.bmp", "n": "1"}, {"file": "é.bmp", "n": "22"}]
    data, n_read = path.read_bytes(), 0
    assert read_sealed_csv(path, ["file", "n"], "fix") == rows
    for number in range(8 * len(data)):
        changed = bytearray(data)
        changed[number // 8] ^= 1 << number % 8
        path.write_bytes(changed)
        try:
            assert read_sealed_csv(path, ["file", "n"], "fix") == rows
            n_read += 1
        except IntegrityError as error:
            assert "a.csv is not what was written" in str(error)
    assert 0 < n_read < 8 * len(data)


def test_a_table_of_a_former_version_has_no_hash(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# origin\nfile,n\na.bmp,1\n")
    assert read_sealed_csv(tmp_path / "a.csv", ["file"], "fix") == [{"file": "a.bmp", "n": "1"}]
    with pytest.raises(IntegrityError):
        read_sealed_csv(tmp_path / "a.csv", ["phash"], "fix")
