"""Ingest: every file is counted, equal input gives equal bytes, a kill leaves no partial file."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from affectdata import load_manifest
from affectdata.errors import ManifestError, SourceError, UsageError
from affectdata.images.probe import Probe
from affectdata.manifest import ingest as ingest_module
from affectdata.manifest import join, memo
from affectdata.manifest.ingest import IngestResult, ingest, recognise
from affectdata.manifest.manifest import write_manifest
from affectdata.reading import tree as tree_module
from affectdata.reading.protocol import Reading, ReadOptions
from affectdata.reading.tree import read_tree
from affectdata.records import Record
from affectdata.schema import QUALITY
from affectdata.store import spill
from affectdata.store.parquet import read_table

TABLES = ("gaped.parquet", "gaped.rejects.parquet", "gaped.edges.parquet")


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def reasons(result: IngestResult) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in result.rejects.to_pylist()}


def edit(path: Path, key: str, column: int, cell: str) -> None:
    """Change one cell of a rating table."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    for line in lines:
        if line[0].startswith(key):
            line[column] = cell
    path.write_text("\n".join("\t".join(line) for line in lines))


def images_of(root: Path, code: str) -> list[Path]:
    return sorted((root / code).glob("*.bmp"))


@pytest.fixture
def spoiled(gaped_copy: Path, image: np.ndarray, as_bytes: Callable[..., bytes]) -> Path:
    """A tree with every kind of bad file."""
    n1, n2, n3 = images_of(gaped_copy, "N")
    n1.write_bytes(n1.read_bytes()[:3000])
    n2.write_bytes(b"text with the name of an image")
    n3.write_bytes(b"")
    p1, p2, p3, p4 = images_of(gaped_copy, "P")
    p2.write_bytes(p1.read_bytes())
    p3.unlink()
    p4.write_bytes(as_bytes(image, "PNG", icc_profile=b"no profile at all"))  # kept with a warning
    a1, a2, _ = images_of(gaped_copy, "A")
    a1.rename(a1.with_name("A999.bmp"))
    edit(gaped_copy / "A.txt", a2.stem, 1, "100.5")
    h1, h2 = images_of(gaped_copy, "H")
    edit(gaped_copy / "H.txt", h1.stem, 2, "very")
    h2.rename(h2.with_suffix(".BMP"))
    (gaped_copy / "link.bmp").symlink_to("../outside.bmp")
    (gaped_copy / "notes.docx").write_bytes(b"junk")
    (gaped_copy / "Sn/deep").mkdir()
    shutil.copy(p1, gaped_copy / "Sn/deep/other.bmp")
    return gaped_copy


# --- accounting


def test_a_whole_sample(small_gaped: Path, tmp_path: Path) -> None:
    result = ingest(small_gaped, out=tmp_path)
    assert result.counts == {"kept": 18, "merged": 0, "annotation": 13, "junk": 6, "rejected": 0}
    assert result.n_seen == 18 + 13 + 6
    assert result.why.startswith("A.txt beside")
    assert set(written(tmp_path)) == set(TABLES)
    ids = result.manifest.table["image_id"].to_pylist()
    assert ids == sorted(ids) and len(set(ids)) == 18
    assert load_manifest(tmp_path / "gaped.parquet").digest == result.manifest.digest


def test_every_kind_of_bad_file_has_its_reason(spoiled: Path, tmp_path: Path) -> None:
    rejects = reasons(ingest(spoiled, out=tmp_path / "out"))
    n1, n2, n3 = (f"N/{path.name}" for path in images_of(spoiled, "N"))
    assert [rejects.pop(path) for path in (n1, n2, n3)] == ["truncated", "unreadable", "unreadable"]
    by_reason: dict[str, list[str]] = {}
    for path, reason in rejects.items():
        by_reason.setdefault(reason, []).append(path)
    assert {reason: len(paths) for reason, paths in by_reason.items()} == {
        "exact_duplicate": 1,
        "missing_image": 2,
        "missing_rating": 2,
        "rating_out_of_range": 1,
        "bad_rating": 1,
        "link": 1,
        "junk": 7,
    }
    assert by_reason["missing_rating"] == ["A/A999.bmp", "Sn/deep/other.bmp"]
    assert by_reason["link"] == ["link.bmp"] and "notes.docx" in by_reason["junk"]


def test_every_detail_is_readable_and_reproducible(spoiled: Path, tmp_path: Path) -> None:
    result = ingest(spoiled, out=tmp_path / "out")
    for row in result.rejects.to_pylist():
        assert row["detail"] and str(tmp_path) not in row["detail"] and "0x" not in row["detail"]


# Changes of a tree, called with two of its images and a number.
CHANGES: dict[str, Callable[[Path, Path, int], object]] = {
    "delete": lambda image, second, number: image.unlink(),
    "rename": lambda image, second, number: image.rename(image.with_name(f"{image.stem}_{number}.bmp")),
    "cut": lambda image, second, number: image.write_bytes(image.read_bytes()[: number * 900]),
    "empty": lambda image, second, number: image.write_bytes(b""),
    "text": lambda image, second, number: image.write_text(f"text {number}"),
    "overwrite": lambda image, second, number: second.exists() and image.write_bytes(second.read_bytes()),
    "copy": lambda image, second, number: shutil.copy(image, image.parents[1] / f"copy{number}.bmp"),
    "upper": lambda image, second, number: image.rename(image.with_suffix(".BMP")),
    "two of a stem": lambda image, second, number: shutil.copy(image, image.with_suffix(".png")),
    "junk": lambda image, second, number: (image.parent / f"left{number}.tmp").write_bytes(b"x"),
    "link": lambda image, second, number: (image.parent / f"link{number}.bmp").symlink_to(second),
}
changes = st.lists(
    st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 17), st.integers(0, 17)), max_size=8
)


@pytest.mark.slow
@settings(max_examples=40)
@given(changes)
def test_counts_add_up_whatever_was_changed_in_the_tree(
    small_gaped: Path, tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int, int]]
) -> None:
    root = Path(shutil.copytree(small_gaped, tmp_path_factory.mktemp("mangled") / "gaped"))
    images = sorted(root.glob("*/*.bmp"))
    for number, (change, first, second) in enumerate(done):
        if images[first].exists():
            CHANGES[change](images[first], images[second], number)
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
    stems = Counter(path.lower().rsplit(".", 1)[0] for path in files)
    rated = {path.relative_to(root).with_suffix("").as_posix() for path in images}
    # A rating row is rejected if its image is gone or ambiguous.
    lost = {f"{key[: key.index('/')]}.txt#{key.split('/')[1]}" for key in rated if stems[key.lower()] != 1}

    result = ingest(root, out=root.parent / "out", workers=2)
    assert result.n_seen == sum(result.counts.values()) == len(files) + len(lost)
    kept = result.manifest.table["path"].to_pylist()
    rejected = result.rejects["path"].to_pylist()
    assert len(kept) == result.counts["kept"]
    assert len(rejected) == result.counts["merged"] + result.counts["junk"] + result.counts["rejected"]
    listed = kept + rejected
    assert len(set(listed)) == len(listed)  # no file twice
    read = (files | lost) - set(listed)
    tables = {f"{code}{rest}.txt" for code in ("A", "H", "N", "P", "Sn", "Sp") for rest in ("", "_with SD")}
    assert read == tables | {"readme.txt"} and len(read) == result.counts["annotation"]
    by_path = reasons(result)
    rows = {path for path, reason in by_path.items() if reason in ("missing_image", "bad_name")}
    assert rows == lost
    assert result.counts["merged"] == sum(reason == "exact_duplicate" for reason in by_path.values())


def test_the_same_bytes_twice_are_one_row_and_a_conflict_is_reported(
    gaped_copy: Path, tmp_path: Path
) -> None:
    p1, p2, *_ = images_of(gaped_copy, "P")
    p2.write_bytes(p1.read_bytes())
    result = ingest(gaped_copy, out=tmp_path / "out")
    assert (result.counts["kept"], result.counts["merged"]) == (17, 1)
    [detail] = [row["detail"] for row in result.rejects.to_pylist() if row["reason"] == "exact_duplicate"]
    assert f"the same bytes as P/{p1.name}, labelled differently" in detail and "valence" in detail
    [finding] = [finding for finding in result.findings if finding.kind == "conflict"]
    assert f"P/{p2.name}" in finding.text and f"keeps the labels of P/{p1.name}" in finding.text


def test_the_same_bytes_with_the_same_labels_are_no_conflict(gaped_copy: Path, tmp_path: Path) -> None:
    p1, p2, *_ = images_of(gaped_copy, "P")
    p2.write_bytes(p1.read_bytes())
    for name in ("P.txt", "P_with SD.txt"):
        rows = (gaped_copy / name).read_text().splitlines()
        rows[2] = rows[1].replace(p1.stem, p2.stem)
        (gaped_copy / name).write_text("\n".join(rows))
    result = ingest(gaped_copy, out=tmp_path / "out")
    assert result.counts["merged"] == 1
    assert not [finding for finding in result.findings if finding.kind == "conflict"]


def test_near_duplicates_with_very_different_ratings_are_a_finding_and_a_group(
    gaped_copy: Path, tmp_path: Path
) -> None:
    first, second, *_ = (path.stem for path in images_of(gaped_copy, "Sn"))  # the sample's planted pair
    edit(gaped_copy / "Sn.txt", first, 1, "20.000")
    edit(gaped_copy / "Sn.txt", second, 1, "38.500")
    result = ingest(gaped_copy, out=tmp_path / "out")
    [finding] = [finding for finding in result.findings if finding.kind == "far_apart"]
    assert f"Sn/{first}.bmp and Sn/{second}.bmp" in finding.text and "valence 20 against 38.5" in finding.text
    groups = {row["source_id"]: row["group_id"] for row in result.manifest.table.to_pylist()}
    assert groups[first] == groups[second]
    assert len(set(groups.values())) == len(groups) - 1
    edges, metadata = read_table(tmp_path / "out/gaped.edges.parquet", "edges")
    assert len(edges) == 1 and metadata["max_bits"] == 6


def test_images_whose_valence_contradicts_their_subtype_are_counted(gaped_copy: Path, tmp_path: Path) -> None:
    for path in images_of(gaped_copy, "P"):
        edit(gaped_copy / "P.txt", path.stem, 1, "30")
    findings = ingest(gaped_copy, out=tmp_path / "out").findings
    [finding] = [finding for finding in findings if finding.kind == "against_sign" and "in P" in finding.text]
    first = ", ".join(f"P/{path.name}" for path in images_of(gaped_copy, "P")[:3])
    assert finding.text == f"4 of 4 in P (positive) are rated on the negative side: {first} and 1 more"


def test_strict_rejects_images_with_a_decoder_warning(spoiled: Path, tmp_path: Path) -> None:
    lax = ingest(spoiled, out=tmp_path / "lax")
    warned = [row for row in lax.manifest.table.to_pylist() if row["decode_warning"]]
    assert len(warned) == 1 and "profile" in warned[0]["decode_warning"]
    strict = ingest(spoiled, out=tmp_path / "strict", strict=True)
    assert reasons(strict)[warned[0]["path"]] == "decode_warning"
    assert strict.counts["kept"] == lax.counts["kept"] - 1 and strict.n_seen == lax.n_seen


def test_a_tree_without_a_usable_image_replaces_no_manifest(gaped_copy: Path, tmp_path: Path) -> None:
    before = ingest(gaped_copy, out=tmp_path / "out").manifest
    for path in gaped_copy.glob("*/*.bmp"):
        path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"nothing was written\. Rejects: 18, such as:\n  A/A") as caught:
        ingest(gaped_copy, out=tmp_path / "out")
    assert "unreadable" in str(caught.value)
    assert load_manifest(before.path).digest == before.digest


def test_an_image_larger_than_the_limit_is_a_row_with_its_reason(small_gaped: Path) -> None:
    path = images_of(small_gaped, "A")[0].relative_to(small_gaped).as_posix()
    batch = pa.table({"path": [path, "A/none.bmp"]})
    rows = Probe(str(small_gaped), max_pixels=100)(batch).to_pylist()
    assert [row["reason"] for row in rows] == ["too_large", "unreadable"]
    assert "19200 pixels" in rows[0]["detail"] and rows[1]["detail"] == "No such file or directory"


# --- memory


def test_few_records_are_alive_at_once(
    small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tracked(Record):
        __slots__ = ("__weakref__",)

    alive: set[int] = set()
    most = 0
    path = images_of(small_gaped, "A")[0].relative_to(small_gaped).as_posix()
    plugin = ingest_module.load_plugin("sources", "gaped")

    def read(tree: object, options: object) -> Reading:
        def items() -> Iterator[Record]:
            nonlocal most
            for number in range(3000):
                record = Tracked(
                    path if number == 0 else f"{number}.bmp", str(number), extra={"n": str(number)}
                )
                alive.add(number)
                weakref.finalize(record, alive.discard, number)
                yield record
                most = max(most, len(alive))

        return Reading(plugin.INFO, items())

    monkeypatch.setattr(plugin, "read", read)
    result = ingest(small_gaped, out=tmp_path)
    assert (result.counts["kept"], reasons(result)["7.bmp"]) == (1, "unreadable")
    assert 1 <= most <= 2


# --- the columns


def test_ratings_are_in_pomp_and_raw(gaped_copy: Path, tmp_path: Path) -> None:
    key = images_of(gaped_copy, "A")[0].stem
    edit(gaped_copy / "A.txt", key, 1, "12.34567891")
    rows = {
        row["source_id"]: row for row in ingest(gaped_copy, out=tmp_path / "out").manifest.table.to_pylist()
    }
    row = rows[key]
    assert (row["valence"], row["valence_raw"]) == (12.345679, 12.34567891)
    assert (row["valence_min"], row["valence_max"], row["valence_n"]) == (0.0, 100.0, None)
    assert row["valence_sd"] is not None and row["dominance"] is None
    assert (row["source"], row["subtype"], row["format"], row["width_px"], row["height_px"]) == (
        *("gaped", "A", "bmp"),
        *(160, 120),
    )
    assert row["content_tags"] == "animal_cruelty" and row["license"].startswith("CC BY-NC-SA")
    assert '"Internal norms"' in row["extra"] and '"External norms (SD)"' in row["extra"]
    assert row["path"] == f"A/{key}.bmp" and row["bytes"] == (gaped_copy / row["path"]).stat().st_size


def test_the_image_id_is_what_sha256sum_prints(small_gaped: Path, tmp_path: Path) -> None:
    rows = ingest(small_gaped, out=tmp_path).manifest.table.to_pylist()
    printed = subprocess.run(
        ["sha256sum", *(row["path"] for row in rows)],
        cwd=small_gaped,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[0] for line in printed.stdout.splitlines()] == [row["image_id"] for row in rows]


# --- same input, same bytes


def shuffled_scandir(monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    class Entries(list[os.DirEntry[str]]):
        """The entries of a folder, which may also be used in a `with` statement."""

        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def shuffled(folder: Any) -> Entries:
        with scandir(folder) as found:
            entries = Entries(found)
        random.Random(1).shuffle(entries)
        return entries

    monkeypatch.setattr(tree_module.os, "scandir", shuffled)


def test_equal_input_gives_equal_bytes(
    spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(spoiled, out=tmp_path / "first", workers=1)
    first = written(tmp_path / "first")
    assert set(first) == set(TABLES)

    def again(name: str, root: Path = spoiled, workers: int = 1) -> dict[str, bytes]:
        ingest(root, out=tmp_path / name, workers=workers)
        return written(tmp_path / name)

    assert again("second") == first
    assert again("more workers", workers=2) == first
    elsewhere = tmp_path / "another place" / "under another name"
    shutil.copytree(spoiled, elsewhere, symlinks=True)
    for path in elsewhere.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert again("elsewhere", elsewhere) == first
    monkeypatch.chdir(spoiled.parent)
    assert again("relative", Path(spoiled.name)) == first
    with monkeypatch.context() as patch:
        shuffled_scandir(patch)
        ingest(spoiled, out=tmp_path / "shuffled")
    assert written(tmp_path / "shuffled") == first
    for size in (1, 7):
        for module, name in (
            (join, "_BATCH"),
            (join, "_PAIRS"),
            (spill, "_BUFFER"),
            (memo, "_BLOCK_ROWS"),
        ):
            monkeypatch.setattr(module, name, size)
        assert again(f"batches of {size}", workers=2) == first


def test_no_cell_and_no_metadata_contains_the_path_or_host(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ingest(spoiled, out=out)
    for name, kind in zip(TABLES, ("manifest", "rejects", "edges"), strict=True):
        table, metadata = read_table(out / name, kind)
        text = repr(table.to_pylist()) + repr(metadata)
        assert str(tmp_path) not in text and os.uname().nodename not in text


# --- which source, where to


def test_a_manifest_from_another_folder_is_not_replaced_by_default(
    small_gaped: Path, gaped_copy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ingest(small_gaped, out=out)
    before = written(out)
    images_of(gaped_copy, "A")[0].unlink()
    with pytest.raises(UsageError, match="made from another folder") as caught:
        ingest(gaped_copy, out=out)
    assert "--replace" in caught.value.fix and str(gaped_copy) in caught.value.where
    assert written(out) == before
    assert ingest(gaped_copy, out=out, replace=True).counts["kept"] == 17
    assert ingest(gaped_copy, out=out).counts["kept"] == 17  # it is the recorded folder now


def test_the_same_folder_by_another_name_is_the_same(small_gaped: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(small_gaped)
    ingest(small_gaped, out=tmp_path / "out")
    ingest(tmp_path / "link", out=tmp_path / "out")


def test_a_folder_that_no_source_recognises(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/readme.md").write_text("nothing here")
    with pytest.raises(SourceError, match=r"no source recognises .* \(1 file\)") as caught:
        ingest(tmp_path / "tree", out=tmp_path / "out")
    assert "--source" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_the_parent_folder_gets_a_hint(small_gaped: Path, tmp_path: Path) -> None:
    shutil.copytree(small_gaped, tmp_path / "tree/GAPED 2")
    with pytest.raises(SourceError, match="its folder GAPED 2 looks like gaped") as caught:
        recognise(read_tree(tmp_path / "tree"))
    assert caught.value.fix == f"affectdata ingest '{tmp_path / 'tree/GAPED 2'}'"


def test_a_folder_of_classes_beside_tables_gets_no_hint(small_gaped: Path, tmp_path: Path) -> None:
    """Ingesting only the folder would lose the labels in the tables."""
    for name in ("calm", "glad"):
        (tmp_path / "tree/images" / name).mkdir(parents=True)
        image = next((small_gaped / "P").glob("*.bmp"))
        shutil.copy(image, tmp_path / "tree/images" / name)
    assert recognise(read_tree(tmp_path / "tree"))[0] == "image_folder"
    (tmp_path / "tree/ratings.csv").write_text("image,valence\n")
    with pytest.raises(SourceError, match="no source recognises"):
        recognise(read_tree(tmp_path / "tree"))


@pytest.mark.parametrize("source", [None, "gaped"])
def test_a_part_of_a_source_points_to_the_whole(
    source: str | None, small_gaped: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="is a part of gaped") as caught:
        ingest(small_gaped / "A", source=source, out=tmp_path / "out")
    assert caught.value.fix == f"affectdata ingest '{small_gaped}'"


def test_a_source_in_the_folder_beside_is_not_the_whole(small_gaped: Path, tmp_path: Path) -> None:
    """Collections are kept side by side; the votes of one are not those of its neighbour."""
    shutil.copytree(small_gaped / "A", tmp_path / "data/mine/pictures")
    (tmp_path / "data/mine/odd.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "data/fi/agg").mkdir(parents=True)
    (tmp_path / "data/fi/agg/awe_votes.csv").write_text("0,http://a.b/c.jpg,1,4\n", encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        ingest(tmp_path / "data/mine", out=tmp_path / "out")
    assert "is a part of" not in caught.value.what and str(tmp_path / "data'") not in (caught.value.fix or "")


def test_one_class_of_several_points_to_all(small_gaped: Path, tmp_path: Path) -> None:
    images = list(small_gaped.glob("*/*.bmp"))
    for number, name in enumerate(["train/happy", "train/sad", "test/sad"]):
        (tmp_path / "tree" / name).mkdir(parents=True)
        shutil.copy(images[number], tmp_path / "tree" / name)
    with pytest.raises(SourceError, match="is a part of image_folder") as caught:
        ingest(tmp_path / "tree/train/sad", out=tmp_path / "out")
    assert caught.value.fix == f"affectdata ingest '{tmp_path / 'tree'}'"


def test_another_source_beside_a_tree_does_not_hide_its_own_error(small_gaped: Path, tmp_path: Path) -> None:
    image = next(small_gaped.glob("P/*.bmp"))
    for name in ("persons/AF01/AF01HA.bmp", "persons/AF02/AF02HA.bmp", "other/a.bmp"):
        (tmp_path / "trees" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, tmp_path / "trees" / name)
    (tmp_path / "trees/other/metadata.csv").write_text("file_name,emotion\na.bmp,joy\n")
    for source, message in (("image_folder", "cannot be classes"), (None, "no source recognises")):
        with pytest.raises(SourceError, match=message):
            ingest(tmp_path / "trees/persons", source=source, out=tmp_path / "out")


def test_images_beside_a_table_of_other_images_are_no_part_of_it(small_gaped: Path, tmp_path: Path) -> None:
    image = next(small_gaped.glob("P/*.bmp"))
    (tmp_path / "all/mine").mkdir(parents=True)
    shutil.copy(image, tmp_path / "all/mine")
    other = pa.table({"image": [{"bytes": image.read_bytes(), "path": "a"}], "label": ["joy"]})
    pq.write_table(other, tmp_path / "all/other.parquet")
    with pytest.raises(SourceError, match="no source recognises"):
        ingest(tmp_path / "all/mine", out=tmp_path / "out")


def test_archives_inside_of_archives_are_refused_with_the_way_out(small_gaped: Path, tmp_path: Path) -> None:
    inner = shutil.make_archive(str(tmp_path / "inner/train"), "zip", small_gaped)
    (tmp_path / "inner/notes.txt").write_text("see train.zip")
    outer = Path(shutil.make_archive(str(tmp_path / "outer"), "zip", Path(inner).parent))
    for source in (None, "gaped", "image_folder"):
        with pytest.raises(SourceError, match=r"no image, but 1 archive, .*: train\.zip") as caught:
            ingest(outer, source=source, out=tmp_path / "out")
        assert "unpack them there" in caught.value.fix


def test_archives_beside_images_are_a_finding(gaped_copy: Path, tmp_path: Path) -> None:
    (gaped_copy / "more.7z").write_bytes(b"7z")
    (gaped_copy / "N/rest.tar.gz").write_bytes(b"x")
    findings = ingest(gaped_copy, out=tmp_path / "out").findings
    assert [finding.text for finding in findings if finding.kind == "archives"] == [
        "not unpacked: 2 archives in the folder: N/rest.tar.gz, more.7z; unpack them there if they have "
        "images"
    ]


def test_findings_about_single_images_are_merged(gaped_copy: Path, tmp_path: Path) -> None:
    p1, *others = images_of(gaped_copy, "P")
    for path in (*others, *images_of(gaped_copy, "N")[:2]):
        path.write_bytes(p1.read_bytes())
    [finding] = [f for f in ingest(gaped_copy, out=tmp_path / "out").findings if f.kind == "conflict"]
    assert finding.text.startswith("5 images have the bytes of another image and other labels: ")
    assert finding.text.count("the same bytes as") == 3 and finding.text.endswith(" and 2 more")


def test_links_out_of_the_root_are_refused(small_gaped: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(small_gaped.glob("P/*.bmp"))):
        (tmp_path / "tree" / ("happy", "sad")[number % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / ("happy", "sad")[number % 2] / path.name).symlink_to(path)
    with pytest.raises(SourceError, match=r"4 links .* lead out of it"):
        ingest(tmp_path / "tree", out=tmp_path / "out")


MAP = "name: t\ntable: t.csv\nkey: file\nscales: {valence: [1, 9]}\ncolumns: {valence: v}\n"


@pytest.mark.parametrize(
    ("table", "fix"),
    [
        ("file,v\nx.bmp,3\ny.bmp,4\nA001.bmp,10\n", "relative to the root"),
        ("file,v\nx.bmp,3\nA0.bmp,11\nA1.bmp,10\n", "`scales` of the column map"),
        ("file,v\nA0.bmp,good\nA1.bmp,bad\nA2.bmp,10\n", "missing values (`na`)"),
        ("file,v\nA0.bmp,1\nA0.bmp,2\nA1.bmp,3\nA1.bmp,4\nA2.bmp,10\n", "`repeated: mean`"),
    ],
)
def test_the_fix_follows_the_most_frequent_reason(
    table: str, fix: str, small_gaped: Path, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    for number, path in enumerate(sorted(small_gaped.glob("A/*.bmp"))):
        shutil.copy(path, tmp_path / "tree" / f"A{number}.bmp")
    (tmp_path / "tree/columns.yaml").write_text(MAP)
    (tmp_path / "tree/t.csv").write_text(table)
    for path in (tmp_path / "tree").glob("A?.bmp"):
        if path.name not in table:
            path.unlink()
    with pytest.raises(SourceError, match=r"no image .* can be used") as caught:
        ingest(tmp_path / "tree", out=tmp_path / "out")
    assert fix in caught.value.fix


def test_a_tree_that_matches_two_sources(small_gaped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [("gaped", "tables"), ("oasis", "a table")]
    monkeypatch.setattr(ingest_module, "_detect", lambda tree: both)
    with pytest.raises(SourceError, match=r"matches several sources: gaped .*, oasis") as caught:
        ingest(small_gaped)
    assert "--source" in caught.value.fix


def test_a_tree_without_the_specified_source_is_an_error_and_no_empty_manifest(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/holiday.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match="no image and no rating of gaped") as caught:
        ingest(tmp_path / "tree", source="gaped", out=tmp_path / "out")
    assert "the layout of gaped is" in caught.value.fix
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../up", "a.b", "", "a/b", "-x"])
def test_an_invalid_manifest_name(name: str) -> None:
    with pytest.raises(UsageError, match="invalid manifest name"):
        ingest_module.check_name(name)


def test_progress_is_reported_from_the_first_batch_to_the_last(small_gaped: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    ingest(small_gaped, out=tmp_path, progress=lambda done, of_all: calls.append((done, of_all)))
    assert calls == [(16, 18), (18, 18)]


def test_options_reach_the_source(small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ReadOptions] = []
    plugin = ingest_module.load_plugin("sources", "gaped")
    read = plugin.read
    monkeypatch.setattr(plugin, "read", lambda tree, options: seen.append(options) or read(tree, options))
    monkeypatch.setattr(plugin, "INFO", replace(plugin.INFO, takes=("name",)))
    ingest(small_gaped, out=tmp_path, options=ReadOptions(name="mine"))
    assert seen == [ReadOptions(name="mine")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ReadOptions(map_path=Path("columns.yaml")), "gaped does not take --map"),
        (ReadOptions(name="mine"), "gaped does not take --name"),
        (ReadOptions(variant="title"), "gaped has no variant 'title'"),
    ],
)
def test_an_option_that_a_source_does_not_support_is_refused(
    options: ReadOptions, message: str, small_gaped: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        ingest(small_gaped, out=tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_a_split_is_kept(small_gaped: Path, tmp_path: Path) -> None:
    first = ingest(small_gaped, out=tmp_path).manifest
    groups = first.table["group_id"].to_pylist()
    sides = ["test" if group in sorted(groups)[::3] else None for group in groups]
    column = first.table.schema.get_field_index("split")
    write_manifest(first.table.set_column(column, "split", [sides]), first.metadata, first.path)
    again = ingest(small_gaped, out=tmp_path)
    assert again.manifest.table["split"].to_pylist() == sides
    assert f"{sides.count('test')} images keep the former split" in " ".join(
        finding.text for finding in again.findings
    )


# --- interrupted


def test_a_failure_in_the_middle_writes_nothing(
    small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    probe = Probe.__call__

    def fail(self: Probe, batch: pa.Table) -> pa.Table:
        if len(batch) < 16:  # the last batch
            raise RuntimeError("power cut")
        return probe(self, batch)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Probe, "__call__", fail)
        ingest(small_gaped, out=out)
    assert [path.name for path in out.iterdir()] == [".gaped.memo"]  # probed images are not lost
    ingest(small_gaped, out=out)
    before = written(out)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(Probe, "__call__", fail)
        ingest(small_gaped, out=out, rehash=True)
    assert written(out) == before and not list(out.glob("*.tmp"))


def test_a_full_disk_between_two_tables_leaves_each_whole(
    small_gaped: Path, gaped_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ingest(small_gaped, out=out)
    before = load_manifest(out / "gaped.parquet")
    images_of(gaped_copy, "A")[0].unlink()

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(ingest_module, "write_batches", full)
        ingest(gaped_copy, out=out, replace=True)
    assert load_manifest(out / "gaped.parquet").digest == before.digest
    assert ingest(gaped_copy, out=out, replace=True).counts["kept"] == 17


SLOW = """
import os, time
from affectdata.images.probe import Probe
probe = Probe._probe
def slow(self, *path):
    os.write(2, b"probing\\n")  # at once: two threads do it
    time.sleep(0.1)
    return probe(self, *path)
Probe._probe = slow
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_killed_in_the_middle_and_started_again(
    sent: signal.Signals,
    code: int,
    workers: int,
    small_gaped: Path,
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    out = tmp_path / "out"
    with start("ingest", small_gaped, "--out", out, "--workers", workers, first=SLOW) as process:
        assert process.stderr
        first = process.stderr.readline()
        assert first == "probing\n", first + process.stderr.read()
        process.send_signal(sent)
        stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == code, stderr
    assert stdout == "" and not list(out.glob("*.parquet"))
    if sent == signal.SIGINT:
        assert "interrupted; the same command goes on" in stderr and "Traceback" not in stderr
    assert ingest(small_gaped, out=out).counts["kept"] == 18


# --- image quality


def test_images_of_low_quality_are_findings(
    tmp_path: Path, as_bytes: Callable[..., bytes], image: np.ndarray
) -> None:
    images = {
        "dark": image // 4,
        "bright": 250 + image // 52,
        "blurred": cv2.GaussianBlur(image, (0, 0), 6),
        "plain": np.full_like(image, 128),
        "narrow": np.repeat(image[:40], 3, axis=1),
        "good": image,
    }
    for name, pixels in images.items():
        path = tmp_path / "tree" / ("joy" if name < "c" else "awe") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(pixels, "PNG"))
    result = ingest(tmp_path / "tree", out=tmp_path / "out")
    texts = {finding.kind: finding.text for finding in result.findings}
    assert texts["very_dark"] == "very dark: 1 of 6 images (brightness_p99 < 0.32): awe/dark.png"
    assert texts["very_bright"].endswith("(brightness_p05 > 0.95): joy/bright.png")
    assert texts["blurred"].endswith("(sharpness < 0.033): joy/blurred.png")
    assert (
        texts["odd_in_shape"].endswith(": awe/narrow.png") and "awe/plain.png" in texts["low_in_information"]
    )
    assert not any("good.png" in text for text in texts.values())
    bright = result.manifest.sql("SELECT path FROM manifest WHERE brightness_p05 > 0.95")
    assert bright["path"].to_pylist() == ["joy/bright.png"]


def test_a_manifest_without_columns_of_quality_still_opens(small_gaped: Path, tmp_path: Path) -> None:
    new = ingest(small_gaped, out=tmp_path / "out").manifest
    names = [name for name in new.table.column_names if name not in {column.name for column in QUALITY}]
    former = write_manifest(new.table.select(names), new.metadata, tmp_path / "former/gaped.parquet")
    assert load_manifest(former.path).table.column_names == names
    with pytest.raises(UsageError, match="brightness"):
        load_manifest(former.path).sql("SELECT brightness FROM manifest")
    with pytest.raises(ManifestError, match="not those of a manifest"):
        partial = new.table.drop_columns(["entropy"])
        load_manifest(write_manifest(partial, new.metadata, tmp_path / "part/gaped.parquet").path)


def test_paths_that_are_too_long_are_rejects(cli: Callable[..., Any], tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for name in ("happy", "sad"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng([len(name), number]).integers(0, 255, (30, 40, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    step = "d" * 200
    handle = os.open(root / "happy", os.O_RDONLY)
    for depth in range(25):  # beyond the 4,096 bytes that a path may have
        os.mkdir(step, dir_fd=handle)
        deeper = os.open(step, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
        if depth in (3, 24):
            image = os.open("deep.png", os.O_WRONLY | os.O_CREAT, dir_fd=handle)
            os.write(image, (root / "sad" / "0.png").read_bytes())
            os.close(image)
    os.close(handle)
    ran = cli("ingest", root, "--source", "image_folder", "--name", "t", "--out", tmp_path / "m", "--json")
    assert ran.code in (0, 1), ran.err
    rejects = pq.read_table(tmp_path / "m" / "t.rejects.parquet").to_pylist()
    assert any(row["reason"] == "bad_name" and "too long" in row["detail"] for row in rejects)
    assert len(pq.read_table(tmp_path / "m" / "t.parquet")) >= 6
