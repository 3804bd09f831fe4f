"""The columns that other programs rely on: a change here is a change of the contract."""

from __future__ import annotations

import pyarrow as pa
import pytest

from affectdata.schema import (
    EDGES,
    LEDGER,
    PLAN,
    REJECTS,
    RENDERED,
    SCHEMA_VERSION,
    manifest_schema,
    release_schema,
)

RATING = ["", "_sd", "_n", "_raw", "_min", "_max"]
MANIFEST = [
    *("image_id", "pixel_id", "phash", "phash_views", "source", "source_id", "path", "format", "bytes"),
    *("width_px", "height_px", "decode_warning"),
    *("brightness", "brightness_p05", "brightness_p99", "entropy", "sharpness", "subtype"),
    *(name + suffix for name in ("valence", "arousal", "dominance") for suffix in RATING),
    *("emotion", "agreement", "extra", "subject_id", "artist", "theme", "age", "age_group", "gender"),
    *("ethnicity", "group_id", "split", "license", "attribution", "url", "content_tags"),
]
REQUIRED = {
    *("image_id", "pixel_id", "phash", "phash_views", "source", "source_id", "path", "format", "bytes"),
    *("width_px", "height_px", "extra", "group_id"),
}


def test_the_manifest_has_these_columns_in_this_order() -> None:
    assert SCHEMA_VERSION == 2
    assert manifest_schema().names == MANIFEST
    assert {field.name for field in manifest_schema() if not field.nullable} == REQUIRED


def test_emotions_stand_sorted_behind_the_dominant_one() -> None:
    names = manifest_schema(["joy", "anger"]).names
    at = names.index("emotion")
    assert names[at : at + 4] == ["emotion", "emotion_anger", "emotion_joy", "agreement"]


@pytest.mark.parametrize(
    "each",
    [manifest_schema(["joy"]), REJECTS, EDGES, LEDGER, PLAN, RENDERED, release_schema(manifest_schema())],
)
def test_columns_are_flat_and_unique(each: pa.Schema) -> None:
    assert len(set(each.names)) == len(each.names)
    flat = {pa.string(), pa.float64(), pa.int16(), pa.int32(), pa.int64()}
    assert {field.type for field in each} <= flat


def test_a_release_row_carries_every_column_of_its_source_row() -> None:
    names = set(release_schema(manifest_schema(["joy"])).names)
    assert names == set(manifest_schema(["joy"]).names) | set(PLAN.names) | set(RENDERED.names)
