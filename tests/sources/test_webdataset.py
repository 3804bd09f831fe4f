"""Tar shards: the usual endings, keys with dots, and our own export row for row."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError
from affectdata.exports._write import export_release
from affectdata.manifest.manifest import load_manifest
from affectdata.release.release import Release
from affectdata.sources import gaped
from tests.made import publish

Plant, Take, Image = Callable[..., Path], Callable[..., Any], Callable[..., bytes]


def shard(files: dict[str, bytes | str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def test_the_usual_endings(plant: Plant, take: Take, image: Image) -> None:
    labels = {"valence": 3, "valence_min": 1, "valence_max": 5, "theme": "beach", "more": [1, 2]}
    first = shard(
        {
            "v1.0/000.jpg": image(0),
            "v1.0/000.cls": "joy\n",
            "v1.0/000.json": json.dumps(labels),
            "v1.0/000.txt": "a caption of words",
            "v1.0/001.JPEG": image(1),
            "v1.0/001.cls": "fear",
            "002.cls": "fear",
        }
    )
    second = shard({"000.png": image(2, "PNG"), "000.seg.png": image(3, "PNG"), "000.cls": "joy"})
    outcome = take(plant({"train-000000.tar": first, "val/000000.tar": second, "README.md": "x"}, "set"))
    rows = outcome.rows
    assert {path: (row["emotion"], row["split"]) for path, row in sorted(rows.items())} == {
        "train-000000.tar#0": ("joy", "train"),
        "train-000000.tar#4": ("fear", "train"),
        "val/000000.tar#0": ("joy", "val"),
    }
    row = rows["train-000000.tar#0"]
    assert (row["valence"], row["theme"], row["source_id"]) == (50.0, "beach", "train-000000.tar/v1.0/000")
    assert json.loads(row["extra"]) == {
        "more": "[1, 2]",
        "txt": "a caption of words",
        "valence_max": "5",
        "valence_min": "1",
    }
    assert outcome.reasons == {"train-000000.tar#6": "missing_image"}
    assert [finding.text for finding in outcome.result.findings] == [
        "val/000000.tar has files beside its images that are not read: 1 .seg.png"
    ]
    images = load_manifest(outcome.result.path).images()
    assert images.read("set", "train-000000.tar#4", rows["train-000000.tar#4"]["image_id"]) == image(1)


def test_texts_of_one_word_are_classes_if_nothing_else_is(plant: Plant, take: Take, image: Image) -> None:
    files = {"a.jpg": image(0), "a.txt": "Joy", "b.jpg": image(1), "b.txt": "Fear"}
    assert {row["emotion"] for row in take(plant({"0.tar": shard(files)})).rows.values()} == {"joy", "fear"}
    captions = {**files, "b.txt": "A man in fear"}
    rows = take(plant({"0.tar": shard(captions)}, "captions")).rows
    assert {row["emotion"] for row in rows.values()} == {None}
    assert json.loads(rows["0.tar#2"]["extra"]) == {"txt": "A man in fear"}


def test_ratings_without_a_scale_stay_in_extra_and_a_map_gives_it(
    plant: Plant, take: Take, image: Image
) -> None:
    files = {"0.jpg": image(0), "0.cls": "4", "0.json": '{"valence": 3}'}
    root = plant({"a.tar": shard(files)})
    outcome = take(root)
    assert outcome.findings == ["unscaled", "unnamed_classes"]
    assert json.loads(outcome.rows["a.tar#0"]["extra"])["valence"] == "3"
    spec = '{name: mine, table: "*.tar", key: k, scales: {valence: [1, 5]}, columns: {valence: valence, '
    (root / "columns.yaml").write_text(spec + 'emotion: cls}, values: {emotion: {"4": awe}}}')
    row = take(root).rows["a.tar#0"]
    assert (row["valence"], row["emotion"]) == (50.0, "awe")


def test_damage_is_a_reject_or_an_error(plant: Plant, take: Take, image: Image) -> None:
    files = {
        "0.jpg": image(0),
        "0.cls": "joy",
        "1.jpg": image(1),
        "1.json": "[1]",
        "2.jpg": b"",
        "nodot": b"x",
    }
    data = shard({**files, "2.cls": "joy", "._3.jpg": b"x"})
    outcome = take(plant({"a.tar": data}))
    assert outcome.reasons == {
        "a.tar#2": "bad_rating",
        "a.tar#4": "unreadable",
        "a.tar#5": "junk",
        "a.tar#7": "junk",
    }
    halved = shard({"0.jpg": image(0), "0.json": r'{"emotion": "joy", "note": "\ud83d"}'})
    with pytest.raises(SourceError, match=r"bad_rating: .* is half of a character"):
        take(plant({"a.tar": halved}, "halved"))
    with pytest.raises(SourceError, match="cannot be read as a tar: it is truncated"):
        take(plant({"a.tar": data, "b.tar": data[:700]}, "cut"))
    with pytest.raises(SourceError, match="no uncompressed tar") as caught:
        take(plant({"a-000000.tar.gz": b"x"}, "packed"), "webdataset")
    assert "gunzip" in caught.value.fix


def test_an_archive_of_images_is_no_shard_and_a_shard_no_archive(
    plant: Plant, take: Take, image: Image
) -> None:
    archive = plant({"a.tar": shard({"joy/1.jpg": image(1), "fear/1.jpg": image(2)})})
    with pytest.raises(SourceError, match="contains no image, but 1 archive"):
        take(archive)
    assert len(take(archive / "a.tar").rows) == 2
    assert len(take(archive, "webdataset").rows) == 2  # without labels, as specified
    root = plant({"train.tar": shard({"1.jpg": image(1), "1.cls": "joy"})}, "shards")
    with pytest.raises(SourceError, match=r"the images are inside train\.tar, not in folders") as caught:
        take(root, "image_folder")
    assert caught.value.fix == "--source webdataset, or no --source"
    with pytest.raises(SourceError, match="is a webdataset shard") as caught:
        take(root / "train.tar")
    assert caught.value.fix.endswith(f"affectdata ingest '{root}'")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    place = tmp_path_factory.mktemp("release")
    gaped.write_sample(place / "gaped", np.random.default_rng(0))
    return publish(place / "gaped", place, pipelines={"flip": [{"Affine": {"rotate": [-9, 9], "p": 1.0}}]})


@pytest.mark.slow
def test_our_own_export_comes_back_row_for_row(release: Release, tmp_path: Path, take: Take) -> None:
    export_release(release, "webdataset", tmp_path / "shards", may_redistribute=True, workers=1)
    outcome = take(tmp_path / "shards")
    released = {row["sample_id"]: row for row in release.table.to_pylist()}
    rows = {row["source_id"]: row for row in outcome.rows.values()}
    assert rows.keys() == released.keys() and len(rows) > 250 and outcome.reasons == {}
    assert any(row["copy"] for row in released.values())
    parts = ("", "_sd", "_n", "_raw", "_min", "_max")
    same = [name + part for name in ("valence", "arousal", "dominance") for part in parts]
    same += ["subtype", "emotion", "agreement", "split", "theme", "license", "url", "content_tags"]
    groups: dict[str, set[str]] = {}
    for key, row in rows.items():
        assert {name: row[name] for name in same} == {name: released[key][name] for name in same}
        assert row["image_id"] == released[key]["file_sha256"]
        extra, before = json.loads(row["extra"]), json.loads(released[key]["extra"])
        assert before.items() <= extra.items() and extra["copy"] == str(released[key]["copy"])
        groups.setdefault(released[key]["group_id"], set()).add(row["group_id"])
    assert {len(ids) for ids in groups.values()} == {1}


@pytest.mark.slow
def test_an_exported_image_that_was_changed_is_rejected(
    release: Release, tmp_path: Path, take: Take, image: Image
) -> None:
    export_release(release, "webdataset", tmp_path / "shards", may_redistribute=True, workers=1)
    path = next((tmp_path / "shards").glob("test-*.tar"))
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    changed = next(name for name in files if name.endswith(".jpg"))
    path.write_bytes(shard({**files, changed: image(1)}))
    outcome = take(tmp_path / "shards")
    assert list(outcome.reasons.values()) == ["conflicting_rating"]
    assert hashlib.sha256(image(1)).hexdigest() not in {row["image_id"] for row in outcome.rows.values()}


def test_images_without_labels_are_a_finding(plant: Plant, take: Take, image: Image) -> None:
    files = {"0.jpg": image(1), "0.txt": "a caption", "1.jpg": image(2), "1.txt": "a face"}
    outcome = take(plant({"a-000000.tar": shard(files)}))
    (text,) = [finding.text for finding in outcome.result.findings if finding.kind == "unlabelled"]
    assert text.startswith("without any label: 2 of 2 images: ")
