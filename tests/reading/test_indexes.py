"""Published indexes, and how `ingest` compares a copy with them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pyarrow as pa
import pytest

from affectdata.errors import SourceError
from affectdata.hashing import file_hash
from affectdata.manifest.ingest import ingest, recognise
from affectdata.reading import indexes
from affectdata.reading.indexes import (
    IndexedImage,
    compare_index,
    find_index,
    name_by_index,
    read_index,
    write_index,
)
from affectdata.reading.tree import read_tree
from affectdata.registry import find_plugins

NONE = "0" * 64
INDEXES = sorted((Path(__file__).parents[2] / "manifests" / "index").glob("*.csv"))


@pytest.mark.parametrize("path", INDEXES, ids=lambda path: path.stem)
def test_an_index_names_its_origin_and_no_rating(path: Path) -> None:
    origin, header, *rows = path.read_text(encoding="utf-8").splitlines()
    assert origin.startswith("# ") and path.stem in find_plugins("sources")
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


def test_a_copy_is_compared_with_the_index() -> None:
    known = [image.sha256 for image in read_index(find_index("gaped") or Path())]
    assert (
        compare_index("gaped", [pa.array(known)])[0].text == "730 of 730 files identical to the indexed copy"
    )
    (changed,) = compare_index("gaped", [pa.array(known[4:]), pa.array([NONE])])
    assert changed.text.startswith("726 of 730 files identical to the indexed copy; missing: ")
    assert changed.text.endswith(" and 1 more; 1 images are not in the index")


def test_an_index_is_written_from_a_manifest_and_read_back(small_gaped: Path, tmp_path: Path) -> None:
    rows = ingest(small_gaped, out=tmp_path / "out").manifest.table
    write_index(rows, "a generated tree", tmp_path / "made.csv")
    origin, header, first, *_ = (tmp_path / "made.csv").read_text().splitlines()
    assert origin == "# a generated tree" and header.startswith("file,sha256,") and first.count(",") == 7
    wanted = [
        IndexedImage(row["path"], row["image_id"], row["pixel_id"], row["phash"]) for row in rows.to_pylist()
    ]
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


def test_another_collection_has_a_finding() -> None:
    (finding,) = compare_index("gaped", [pa.array([NONE])])
    assert finding.text == "none of the 730 indexed files: another copy, or not gaped"


def test_a_source_without_an_index_has_no_finding() -> None:
    assert find_index("table") is None and compare_index("table", [pa.array([NONE])]) == []
