"""Published indexes, and how `ingest` compares a copy with them."""

from __future__ import annotations

import csv
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

from affectdata.errors import SourceError
from affectdata.hashing import file_hash
from affectdata.manifest.ingest import ingest, recognise
from affectdata.reading import indexes
from affectdata.reading.indexes import (
    IndexedImage,
    find_index,
    load_index,
    name_by_index,
    read_index,
    write_index,
)
from affectdata.reading.rating_digests import digest_ratings, read_digests
from affectdata.reading.tree import read_tree
from affectdata.registry import find_plugins

FOLDER = Path(__file__).parents[2] / "manifests"
INDEXES = [path for path in sorted((FOLDER / "index").glob("*.csv")) if "." not in path.stem]


@pytest.mark.parametrize("path", INDEXES, ids=lambda path: path.stem)
def test_an_index_names_its_origin_and_no_rating(path: Path) -> None:
    origin, seal, header, *rows = path.read_text(encoding="utf-8").splitlines()
    assert origin.startswith("# ") and seal.startswith("# SHA-256 ") and path.stem in find_plugins("sources")
    assert header == "file,sha256,bytes,width_px,height_px,subtype,pixel_id,phash"
    files = [row[0] for row in csv.reader(rows)]
    assert files == sorted(set(files))
    for column, digits in ((1, 64), (6, 32), (7, 16)):
        assert all(re.fullmatch(f"[0-9a-f]{{{digits}}}", row[column]) for row in csv.reader(rows))
    for column in (1, 6):
        assert len({row[column] for row in csv.reader(rows)}) == len(rows)


def test_the_counts_are_the_published_ones() -> None:
    counts = {path.stem: len(read_index(path)) for path in INDEXES}
    assert counts == {"gaped": 730, "oasis": 900}


@pytest.mark.parametrize("path", INDEXES, ids=lambda path: path.stem)
def test_digests_of_ratings_have_no_rating(path: Path) -> None:
    index = load_index(path.stem)
    assert index and Counter(image.subtype for image in index.images) == {
        digest.subtype: digest.n for digest in index.ratings
    }
    assert {digest.column for digest in index.ratings} >= {"valence_raw", "valence_sd", "arousal_raw"}
    for digest in index.ratings:
        assert digest.n > 80 and digest.mean == round(digest.mean, 2)
        assert all(
            re.fullmatch("[0-9a-f]{16}", each)
            for each in (digest.rows, digest.inner, digest.values, *digest.heads.values())
        )
        assert min(digest.heads) > 80


def test_an_index_is_written_from_a_manifest_and_read_back(small_gaped: Path, tmp_path: Path) -> None:
    rows = ingest(small_gaped, out=tmp_path / "out").manifest.table
    write_index(rows, "a generated tree", tmp_path / "made.csv")
    origin, _, header, first, *_ = (tmp_path / "made.csv").read_text().splitlines()
    assert origin == "# a generated tree" and header.startswith("file,sha256,") and first.count(",") == 7
    columns = ("path", "image_id", "pixel_id", "phash", "subtype")
    wanted = [IndexedImage(*(row[name] for name in columns)) for row in rows.to_pylist()]
    assert list(read_index(tmp_path / "made.csv")) == sorted(wanted, key=lambda image: image.file)


def test_images_are_recognised_whatever_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"image %d" % number)
    hashes = [file_hash(b"image %d" % number) for number in (0, 2)]
    index = tmp_path / "set.csv"
    index.write_text("# origin\nfile,sha256\n" + "".join(f"{at},{sha}\n" for at, sha in enumerate(hashes)))
    assert name_by_index(read_tree(tmp_path)) is None
    monkeypatch.setattr(indexes, "find_index", {"oasis": index}.get)
    message = "2 of the first 3 images are identical to images of oasis"
    assert name_by_index(read_tree(tmp_path)) == message
    with pytest.raises(SourceError, match="no source recognises") as caught:
        recognise(read_tree(tmp_path))
    assert caught.value.where == message


def test_the_script_writes_the_index_of_a_manifest(
    small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = ingest(small_gaped, out=tmp_path / "out").manifest
    monkeypatch.setattr(sys, "argv", ["", str(manifest.path), "a generated tree", "--out", str(tmp_path)])
    runpy.run_path(str(FOLDER / "make_index.py"), run_name="__main__")
    assert len(read_index(tmp_path / "gaped.csv")) == len(manifest.table)
    digests = read_digests(tmp_path / "gaped.ratings.csv")
    assert digests == digest_ratings(manifest.table)
    assert {digest.column for digest in digests} == {"valence_raw", "valence_sd", "arousal_raw", "arousal_sd"}
    [first, *_] = digests
    valences = [row["valence_raw"] for row in manifest.table.to_pylist() if row["subtype"] == "A"]
    assert (first.subtype, first.n, first.mean) == ("A", 3, round(sum(valences) / 3, 2))


def test_a_source_without_an_index() -> None:
    assert find_index("table") is None and load_index("table") is None
