"""Layouts that no source reads are named, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectdata.errors import SourceError
from affectdata.manifest.ingest import ingest, recognise
from affectdata.reading.tree import Tree, read_tree

COCO = '{"annotations": [{"id": 1, "image_id": 0, "category_id": 1}], "images": [], "categories": []}'
TASKS = '[{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}]'


@pytest.mark.parametrize(
    ("name", "text", "message", "fix"),
    [
        ("labels.json", COCO, "COCO annotations in labels.json", "columns: {emotion: category}"),
        ("export.json", TASKS, "an export of Label Studio in export.json", "JSON-MIN"),
        (
            "S5/1/S5_1_00000011_emotion.txt",
            "  3.0e+00\n",
            r"label files per sequence.*\(1, such",
            "subject_id",
        ),
        ("train/labels/0.txt", "1 0.5 0.5 1 1\n", "a label file per image, as in YOLO", "a row per image"),
        ("train/data-00000-of-00001.arrow", "ARROW1", "saved with save_to_disk", "to_parquet"),
        ("train-000000.tar.gz", "x", "compressed shards", "gunzip"),
        ("a.tfrecord-00000-of-00002", "x", "TFRecord files", "Parquet"),
    ],
)
def test_a_tree_of_a_known_form_is_named(
    name: str, text: str, message: str, fix: str, tmp_path: Path
) -> None:
    for path, content in ((name, text), ("images/0.jpg", "x"), ("other.json", "{}")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    with pytest.raises(SourceError, match=message) as caught:
        recognise(read_tree(tmp_path))
    assert fix in caught.value.fix
    with pytest.raises(SourceError, match="no source recognises"):
        recognise(Tree(tmp_path, ["other.json", "gone.json"]))


def test_a_known_form_is_named_though_a_folder_above_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "labels.json").write_text(COCO)
    (tmp_path / "coco" / "a.jpg").write_text("x")
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(SourceError, match="has COCO annotations"):
        ingest(tmp_path / "coco", out=tmp_path / "out")
