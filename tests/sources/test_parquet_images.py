"""Parquet tables with embedded images: splits, names of classes, what is no image."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from affectdata.errors import SourceError
from affectdata.manifest.manifest import load_manifest

Plant, Take, Image = Callable[..., Path], Callable[..., Any], Callable[..., bytes]


def parquet(rows: list[dict[str, Any]], features: Any = None, **options: Any) -> bytes:
    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def rows_of(image: Image, labels: list[Any], start: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": image(start + at), "path": f"{at}.jpg"}, "label": label, **more}
        for at, label in enumerate(labels)
    ]


CLASSES = {"label": {"names": ["joy", "sadness"], "_type": "ClassLabel"}}


def test_shards_of_splits_with_names_of_classes(plant: Plant, take: Take, image: Image) -> None:
    files = {
        "data/train-00000-of-00002.parquet": parquet(rows_of(image, [0, 1, 1]), CLASSES, row_group_size=2),
        "data/train-00001-of-00002.parquet": parquet(rows_of(image, [1], 3), CLASSES),
        "data/validation-00000-of-00001.parquet": parquet(rows_of(image, [0, -1], 4), CLASSES),
        "default/test/0000.parquet": parquet(rows_of(image, [0], 6), CLASSES),
        "README.md": "# A set",
    }
    outcome = take(plant(files, "My Set"))
    labels = {path: (row["emotion"], row["split"]) for path, row in sorted(outcome.rows.items())}
    assert labels == {
        "data/train-00000-of-00002.parquet#0": ("joy", "train"),
        "data/train-00000-of-00002.parquet#1": ("sadness", "train"),
        "data/train-00000-of-00002.parquet#2": ("sadness", "train"),
        "data/train-00001-of-00002.parquet#0": ("sadness", "train"),
        "data/validation-00000-of-00001.parquet#0": ("joy", "val"),
        "default/test/0000.parquet#0": ("joy", "test"),
    }
    assert outcome.reasons == {"data/validation-00000-of-00001.parquet#1": "missing_rating"}
    assert outcome.result.counts == {"kept": 6, "merged": 0, "annotation": 5, "junk": 0, "rejected": 1}
    row = outcome.rows["data/train-00000-of-00002.parquet#2"]
    assert row["image_id"] == hashlib.sha256(image(2)).hexdigest() and row["source"] == "my_set"
    assert json.loads(row["extra"]) == {"image": "2.jpg"}
    images = load_manifest(outcome.result.path).images()
    assert images.read("my_set", row["path"], row["image_id"]) == image(2)


@pytest.mark.parametrize("as_list", [False, True])
def test_names_of_classes_in_the_readme(as_list: bool, plant: Plant, take: Take, image: Image) -> None:
    names = {"dtype": {"class_label": {"names": {"0": "awe", "1": "fear"}}}}
    info: Any = {"config_name": "default", "features": [{"name": "label", **names}]}
    card = yaml.safe_dump({"license": "mit", "dataset_info": [info] if as_list else info})
    readme = f"---\n{card}---\n# A set\n"
    outcome = take(plant({"train.parquet": parquet(rows_of(image, [1, 0])), "README.md": readme}))
    assert [row["emotion"] for _, row in sorted(outcome.rows.items())] == ["fear", "awe"]
    assert outcome.findings == []


def test_classes_without_names_are_numbers_and_a_finding(plant: Plant, take: Take, image: Image) -> None:
    outcome = take(plant({"train.parquet": parquet(rows_of(image, [2, 10]))}))
    assert [row["emotion"] for _, row in sorted(outcome.rows.items())] == ["2", "10"]
    assert outcome.findings == ["unnamed_classes"]
    assert "are numbers without names: 2, 10" in outcome.result.findings[0].text


def test_ratings_need_their_scale_or_a_column_map(plant: Plant, take: Take, image: Image) -> None:
    rows = rows_of(image, [0, 1], valence=3.0, arousal=2.0, arousal_min=1, arousal_max=5)
    root = plant({"data/train-0.parquet": parquet(rows, CLASSES)})
    outcome = take(root)
    row = outcome.rows["data/train-0.parquet#1"]
    assert (row["arousal"], row["valence"], json.loads(row["extra"])["valence"]) == (25.0, None, "3")
    assert outcome.findings == ["unscaled"]
    spec = "{name: mine, table: data/*.parquet, key: image, scales: {valence: [1, 9]}, "
    (root / "columns.yaml").write_text(
        spec + "columns: {valence: valence, emotion: label}, values: {emotion: {joy: awe, sadness: sadness}}}"
    )
    outcome = take(root)
    rows_by_path = [row for _, row in sorted(outcome.rows.items())]
    assert [(row["valence"], row["emotion"], row["split"]) for row in rows_by_path] == [
        (25.0, "awe", "train"),
        (25.0, "sadness", "train"),
    ]
    (root / "columns.yaml").write_text(spec + "columns: {valence: v_mean}}")
    with pytest.raises(SourceError, match="lacks the column 'v_mean'"):
        take(root)


def test_rows_without_an_image_and_damaged_images_are_rejects(plant: Plant, take: Take, image: Image) -> None:
    rows = rows_of(image, [0, 1, 0, 1])
    rows[1]["image"] = None
    rows[2]["image"]["bytes"] = None
    rows[3]["image"]["bytes"] = b"not an image"
    outcome = take(plant({"train.parquet": parquet(rows, CLASSES)}))
    assert outcome.reasons == {
        "train.parquet#1": "missing_image",
        "train.parquet#2": "missing_image",
        "train.parquet#3": "unreadable",
    }


def test_plain_bytes_and_further_images(plant: Plant, take: Take, image: Image) -> None:
    rows = [{"emotion": "Joyful", "png": image(at), "image": image(5 + at), "id": at} for at in range(2)]
    outcome = take(plant({"a.parquet": parquet(rows), "b.parquet": parquet([{"x": 1}])}))
    row = outcome.rows["a.parquet#1"]
    assert row["image_id"] == hashlib.sha256(image(6)).hexdigest() and row["split"] is None
    assert json.loads(row["extra"]) == {"id": "1"}
    assert outcome.findings == ["unread_images"] and outcome.reasons == {"b.parquet": "junk"}


def test_what_cannot_be_read_is_an_error_with_a_way_out(plant: Plant, take: Take, image: Image) -> None:
    bad = parquet(rows_of(image, [0]), {"label": {"names": {"joy": 0}}})
    with pytest.raises(SourceError, match="names of classes cannot be read"):
        take(plant({"a.parquet": bad}))
    with pytest.raises(SourceError, match="no Parquet table contains images"):
        take(plant({"b.parquet": b"PAR1"}, "none"), "parquet_images")
