"""Concatenated manifests: a row per image, conflicts by policy, groups across sources, splits kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from affectdata.errors import IntegrityError, ManifestError, UsageError
from affectdata.manifest.concat import ConcatResult, concat
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Manifest, load_manifest, write_manifest
from affectdata.manifest.roots import record_root
from affectdata.records import Scale
from affectdata.registry import load_plugin
from affectdata.schema import FOLD
from affectdata.splits.folds import put_folds
from affectdata.store.chunks import STREAM_ROWS
from tests.made import image_id, make_rows, publish_manifest

RATED = {"valence": 25.0, "valence_sd": 10.0, "valence_n": 20, "valence_raw": 3.0}
SCALE = {"valence_min": 1.0, "valence_max": 9.0}


def manifest(folder: Path, name: str, rows: list[dict[str, Any]], **metadata: Any) -> Manifest:
    """Write a manifest of images with keys; emotions are columns."""
    emotions = sorted({key[8:] for row in rows for key in row if key.startswith("emotion_")})
    document = {
        "source": name,
        "title": name.upper(),
        "license": f"terms of {name}",
        "citation": f"{name} et al.",
        "url": "",
        "redistributable": False,
        "evidence": "seen",
        "subtypes": {},
        "groups": [],
        "emotions": emotions,
        "decoders": {"pillow": "1"},
        **metadata,
    }
    table = make_rows([{"source": name, **row} for row in rows], emotions)
    return write_manifest(table, document, folder / f"{name}.parquet")


def by_key(result: ConcatResult) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in result.manifest.table.to_pylist()}


def test_a_row_per_image_with_missing_values_from_the_others(tmp_path: Path) -> None:
    a = manifest(
        tmp_path,
        "a",
        [
            {"key": "x", **RATED, **SCALE, "license": "CC0", "extra": '{"u":"1"}', "content_tags": "gore"},
            {"key": "only a"},
        ],
    )
    b = manifest(
        tmp_path,
        "b",
        [
            {
                "key": "x",
                "path": "second.png",
                "emotion": "awe",
                "emotion_awe": 0.9,
                "agreement": 0.9,
                "license": "CC BY-NC 4.0",
                "extra": '{"v":"2"}',
                "content_tags": "gore,snakes",
                "subtype": "S",
                "artist": "B",
                "valence": 25.00001,
            },
            {"key": "only b"},
        ],
    )
    result = concat([a, b], None, tmp_path)
    assert (result.n_rows, result.n_merged, result.conflicts) == (4, 1, [])
    assert result.manifest.path == tmp_path / "a_b.parquet"
    rows = by_key(result)
    assert rows.keys() == {image_id(key) for key in ("x", "only a", "only b")}
    row = rows[image_id("x")]
    assert (row["source"], row["path"], row["valence_sd"], row["valence"]) == ("a", "x.bmp", 10.0, 25.0)
    assert (row["emotion"], row["emotion_awe"], row["subtype"], row["artist"]) == ("awe", 0.9, "S", "B")
    assert (row["license"], row["content_tags"]) == ("CC0; CC BY-NC 4.0", "gore,snakes")
    assert json.loads(row["extra"]) == {"u": "1", "also": {"b": {"v": "2"}}}
    assert load_manifest(result.manifest.path).digest == result.manifest.digest
    assert result.manifest.table["image_id"].to_pylist() == sorted(rows)


@pytest.fixture
def differing(tmp_path: Path) -> list[Manifest]:
    """Two manifests with different labels of `x`."""
    shares = {"emotion": "awe", "emotion_awe": 0.8, "emotion_fear": 0.2, "agreement": 0.8}
    others = {"emotion": "fear", "emotion_awe": 0.1, "emotion_fear": 0.9, "agreement": 0.9}
    second = {**RATED, "valence": 75.0, "valence_n": 30, "valence_raw": 75.0}
    return [
        manifest(tmp_path, "a", [{"key": "x", **RATED, **SCALE, **shares}]),
        manifest(tmp_path, "b", [{"key": "x", **second, "valence_min": 0.0, "valence_max": 100.0, **others}]),
    ]


def test_a_conflict_is_an_error_that_lists_both_values(differing: list[Manifest], tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="2 conflicts of labels of the same images") as caught:
        concat(differing, None, tmp_path)
    assert "x.bmp: valence 25 in a, 75 in b" in caught.value.what
    assert "x.bmp: emotion emotion awe awe 0.8 fear 0.2 in a" in caught.value.what
    assert "--on-conflict" in caught.value.fix and not (tmp_path / "a_b.parquet").exists()


@pytest.mark.parametrize(
    ("policy", "valence", "raw", "n", "sd", "emotion", "share"),
    [
        ("first", 25.0, 3.0, 20, 10.0, "awe", 0.8),
        ("prefer:a", 25.0, 3.0, 20, 10.0, "awe", 0.8),
        ("prefer:b", 75.0, 75.0, 30, 10.0, "fear", 0.1),
        ("mean", 50.0, 5.0, 50, None, "fear", 0.45),
    ],
)
def test_policies(
    policy: str,
    valence: float,
    raw: float,
    n: int,
    sd: float | None,
    emotion: str,
    share: float,
    differing: list[Manifest],
    tmp_path: Path,
) -> None:
    result = concat(differing, "both", tmp_path, policy)
    (row,) = by_key(result).values()
    assert (row["valence"], row["valence_raw"], row["valence_n"], row["valence_sd"]) == (valence, raw, n, sd)
    assert Scale(row["valence_min"], row["valence_max"]).to_pomp(row["valence_raw"]) == valence
    assert (row["emotion"], row["emotion_awe"]) == (emotion, share)
    assert [(conflict.column, conflict.values.keys()) for conflict in result.conflicts] == [
        ("valence", {"a", "b"}),
        ("emotion", {"a", "b"}),
    ]
    assert result.conflicts[0].values == {"a": 25.0, "b": 75.0} and result.conflicts[0].kept == valence


def test_categories_have_no_mean(tmp_path: Path) -> None:
    emotions = (("a", "awe"), ("b", "joy"))
    both = [manifest(tmp_path, name, [{"key": "x", "emotion": emotion}]) for name, emotion in emotions]
    (row,) = by_key(concat(both, None, tmp_path, "mean")).values()
    assert (row["emotion"], row["agreement"]) == (None, None)


def test_a_source_without_a_label_is_no_conflict(tmp_path: Path) -> None:
    unlabelled = manifest(tmp_path, "b", [{"key": "x", "valence": None}])
    result = concat([unlabelled, manifest(tmp_path, "a", [{"key": "x", **RATED, **SCALE}])], None, tmp_path)
    (row,) = by_key(result).values()
    assert (row["source"], row["valence"], row["valence_max"]) == ("b", 25.0, 9.0)


def test_near_duplicates_across_sources_are_one_group(tmp_path: Path) -> None:
    a = manifest(
        tmp_path,
        "a",
        [
            {"key": "0", "phash": "f0f0f0f0f0f0f0f0", "valence": 10.0, "subject_id": "7"},
            {"key": "1", "group": "2", "theme": "dogs"},
            {"key": "2", "theme": "dogs"},
        ],
    )
    b = manifest(
        tmp_path,
        "b",
        [
            {"key": "3", "phash": "f0f0f0f0f0f0f0f1", "valence": 60.0},
            {"key": "4", "pixel_id": image_id("2")[:32], "group": "5"},
            {"key": "5", "theme": "cats"},
            {"key": "7", "subject_id": "7"},  # not subject 7 of a
            {"key": "6", "theme": "dogs", "subject_id": "8"},
            {"key": "8", "subject_id": "8"},  # the subject of 6, although the manifest has no such group
        ],
    )
    result = concat([a, b], None, tmp_path)
    groups: dict[str, set[str]] = {}
    names = {image_id(str(key)): str(key) for key in range(9)}
    for key, row in by_key(result).items():
        groups.setdefault(row["group_id"], set()).add(names[key])
    assert sorted(map(sorted, groups.values())) == [["0", "3"], ["1", "2", "4", "5"], ["6", "8"], ["7"]]
    assert all(min(map(image_id, members)) == group for group, members in groups.items())
    assert result.n_across == {"same_pixels": 1, "near_duplicate": 1}
    assert [finding.kind for finding in result.findings] == ["far_apart"]
    assert (tmp_path / "a_b.edges.parquet").is_file()


def test_merged_rows_join_their_groups(tmp_path: Path) -> None:
    a = manifest(tmp_path, "a", [{"key": "x", "group": "y"}, {"key": "y"}, {"key": "p"}])
    b = manifest(tmp_path, "b", [{"key": "z"}, {"key": "x", "group": "z"}])
    groups = {key: row["group_id"] for key, row in by_key(concat([a, b], None, tmp_path)).items()}
    assert len({groups[image_id(key)] for key in "xyz"}) == 1 and groups[image_id("p")] == image_id("p")


def test_adding_a_source_changes_no_split(tmp_path: Path) -> None:
    rows = [{"key": str(key), "split": ("train", "val", "test")[key % 3]} for key in range(6)]
    a = manifest(tmp_path, "a", rows, estimated=["age"])
    b = manifest(tmp_path, "b", [{"key": "new"}, {"key": "0"}])
    both = concat([a, b], "all", tmp_path)
    split = {row["image_id"]: row["split"] for row in both.manifest.table.to_pylist()}
    assert (
        split[image_id("4")] == "val" and split[image_id("0")] == "train" and split[image_id("new")] is None
    )
    filled = both.manifest.table.to_pandas().assign(split=lambda rows: rows["split"].fillna("test"))
    table = both.manifest.table.set_column(
        both.manifest.table.column_names.index("split"), "split", [filled["split"].tolist()]
    )
    write_manifest(table, both.manifest.metadata, tmp_path / "all.parquet")
    c = manifest(tmp_path, "c", [{"key": "newest"}])
    for inputs in ([a, b, c], [load_manifest(tmp_path / "all.parquet"), c]):
        later = concat(inputs, "all", tmp_path)
        splits = {row["image_id"]: row["split"] for row in later.manifest.table.to_pylist()}
        assert splits == {**split, image_id("new"): "test", image_id("newest"): None}
    estimated = {part["source"]: part.get("estimated") for part in later.manifest.parts}
    assert estimated == {"a": ["age"], "b": None, "c": None}


def test_one_image_in_two_splits(tmp_path: Path) -> None:
    splits = (("a", "train"), ("b", "test"))
    both = [manifest(tmp_path, name, [{"key": "x", "split": split}]) for name, split in splits]
    with pytest.raises(IntegrityError, match="two values of split: train in a, test in b"):
        concat(both, None, tmp_path, "first")


def test_folds_are_kept_like_splits(tmp_path: Path) -> None:
    both = []
    for name, keys, last in (("a", "xy", 1), ("b", "xz", 2)):
        made = manifest(tmp_path, name, [{"key": key} for key in keys])
        table = put_folds(made.table, pa.array([0, last], FOLD.type))
        both.append(write_manifest(table, made.metadata, made.path))
    result = concat(both, None, tmp_path)
    folds = {row["image_id"]: row["fold"] for row in result.manifest.table.to_pylist()}
    assert folds == {image_id("x"): 0, image_id("y"): 1, image_id("z"): 2}
    assert len(load_manifest(result.manifest.path)) == 3
    plain = manifest(tmp_path, "c", [{"key": "w"}])
    assert concat([plain, both[0]], None, tmp_path).manifest.table["fold"].null_count == 1


def test_near_duplicates_in_two_splits_are_a_finding(tmp_path: Path) -> None:
    a = manifest(tmp_path, "a", [{"key": "x", "split": "train"}])
    b = manifest(tmp_path, "b", [{"key": "y", "split": "test", "pixel_id": image_id("x")[:32]}])
    (finding,) = concat([a, b], None, tmp_path).findings
    assert finding.kind == "split" and "x.bmp, y.bmp" in finding.text


def test_invalid_inputs_are_refused(tmp_path: Path) -> None:
    a, b = (manifest(tmp_path, name, [{"key": name}]) for name in "ab")
    for inputs, options, message in (
        ([a], {}, "only one manifest given"),
        ([a, a], {}, "have the same name"),
        ([a, b], {"on_conflict": "last"}, "unknown policy 'last'"),
        ([a, b], {"on_conflict": "prefer:c"}, "unknown policy 'prefer:c'"),
        ([a, b], {"name": "a"}, "not written by concat"),
        ([a, b], {"name": "a.b"}, "invalid manifest name"),
    ):
        with pytest.raises(UsageError, match=message):
            concat(inputs, **{"name": None, "out": tmp_path, **options})
    record_root(tmp_path, "a", tmp_path / "images")
    record_root(tmp_path / "other", "a", tmp_path / "moved")
    elsewhere = manifest(tmp_path / "other", "c", [{"key": "c", "source": "a"}])
    with pytest.raises(UsageError, match="are in two folders"):
        concat([a, elsewhere], None, tmp_path)


def test_different_decoders_and_subtypes_are_findings(tmp_path: Path) -> None:
    plain = {"sign": None}
    a = manifest(
        tmp_path, "a", [{"key": "a"}], subtypes={"A": {"name": "animals", "upright": False, **plain}}
    )
    b = manifest(
        tmp_path,
        "b",
        [{"key": "b"}],
        subtypes={"A": {"name": "abstract", "upright": True, **plain}},
        decoders={"pillow": "2"},
    )
    result = concat([a, b], None, tmp_path)
    assert [finding.kind for finding in result.findings] == ["subtype", "decoders"]
    assert result.manifest.metadata["subtypes"]["A"] == {"name": "animals", "upright": True, **plain}


def test_two_sources_become_one_release(tmp_path: Path) -> None:
    for name in ("oasis", "emotion6"):
        load_plugin("sources", name).write_sample(tmp_path / name, np.random.default_rng(0))
    roots = (tmp_path / "oasis", tmp_path / "emotion6")
    made = [ingest(root, out=tmp_path / "in", workers=1).manifest for root in roots]
    both = concat(made, "both", tmp_path / "out")
    release = publish_manifest(both.manifest, tmp_path, strata=[])
    assert set(release.table["source"].to_pylist()) == {"oasis", "emotion6"}
    assert [entry["source"] for entry in release.info["manifests"]] == ["oasis", "emotion6"]
    card = (release.path / "README.md").read_text()
    assert "Kurdi" in card and "Peng" in card and "no commercial use" in card


def test_many_rows_are_put_together_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No manifest is read as a whole; every row gets its own values, group and split."""
    n = 2 * STREAM_ROWS + 10
    keys = {"a": range(n), "b": range(n // 2, n + n // 2)}
    for name, numbers in keys.items():
        rows = [{"key": str(k), "source_id": f"{name}{k}", "artist": f"{name} {k}"} for k in numbers]
        for row, k in zip(rows, numbers, strict=True):
            row |= {"split": ("train", "val", "test")[k % 3], "group": str(k - k % 3)} if name == "a" else {}
        manifest(tmp_path, name, sorted(rows, key=lambda row: image_id(row["key"])))
    opened = [load_manifest(tmp_path / f"{name}.parquet") for name in keys]
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "table", property(lambda self: pytest.fail("read as a whole")))
        result = concat(opened, "both", tmp_path / "out")
    assert (result.n_rows, result.n_merged) == (2 * n, n - n // 2)
    rows = result.manifest.table.to_pylist()
    assert [row["image_id"] for row in rows] == sorted(image_id(str(k)) for k in range(n + n // 2))
    for row in rows:
        k = int(row["source_id"][1:])
        assert row["image_id"] == image_id(str(k)) and row["artist"] == f"{row['source']} {k}"
        assert row["source"] == ("a" if k < n else "b")
        assert row["split"] == (("train", "val", "test")[k % 3] if k < n else None)
        together = [image_id(str(each)) for each in range(k - k % 3, min(k - k % 3 + 3, n))]
        assert row["group_id"] == (min(together) if k < n else row["image_id"])
