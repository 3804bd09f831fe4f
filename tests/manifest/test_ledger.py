"""Splits are inherited by image, pixels, near-duplicate, group, subject and declared column."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from affectdata.errors import AffectdataError, ManifestError
from affectdata.images.phash import perceptual_hashes
from affectdata.manifest.ledger import (
    Memory,
    RelatedImages,
    forget_splits,
    inherit_splits,
    ledger_path,
    merge_splits,
    read_ledger,
    read_memory,
    splits_of,
    write_ledger,
)
from affectdata.manifest.manifest import load_manifest, write_manifest
from affectdata.schema import DIGITS, LEDGER
from affectdata.store.parquet import write_table
from tests.made import image_id, make_manifest, make_rows


def remembered(*rows: dict[str, Any], declared: frozenset[str] = frozenset()) -> Memory:
    """Return the splits of images that are no longer rows; a row has a key and a split."""
    folds = pa.array([row.pop("fold", None) for row in rows], pa.int32())
    table = make_rows(rows)
    return Memory(merge_splits([splits_of(table.append_column("fold", folds))]), declared)


def split_of(rows: list[dict[str, Any]], memory: Memory, **options: Any) -> list[str | None]:
    splits: list[str | None] = inherit_splits(make_rows(rows), memory, **options)["split"].to_pylist()
    return splits


def hashes_of(rgb: np.ndarray) -> dict[str, str]:
    upright, *turned = perceptual_hashes(rgb)
    return {"phash": upright, "phash_views": "".join(turned)}


PEOPLE = {"source": "people", "subject_id": "7"}


@pytest.mark.parametrize(
    ("new", "old", "columns", "split"),
    [
        ({"key": "x"}, {"key": "x"}, (), "test"),
        ({"key": "x"}, {"key": "y"}, (), None),
        ({"pixel_id": "f" * 32}, {"pixel_id": "f" * 32}, (), "test"),
        ({"key": "x", "group": "g"}, {"key": "y", "group": "g"}, (), "test"),
        (
            {"key": "g"},
            {"key": "y", "group": "g"},
            (),
            "test",
        ),  # the group was named after the image that returns
        (PEOPLE, PEOPLE, (), "test"),
        (PEOPLE, {**PEOPLE, "source": "others"}, (), None),
        ({"theme": "Dog"}, {"theme": "Dog"}, (), None),
        ({"theme": "Dog"}, {"theme": "Dog"}, ("declared",), "test"),
        ({"theme": "Dog", "source": "b"}, {"theme": "Dog"}, ("declared",), None),
        ({"theme": "Dog", "source": "b"}, {"theme": "Dog"}, ("theme",), "test"),
    ],
)
def test_what_gives_an_image_its_split(
    new: dict[str, Any], old: dict[str, Any], columns: tuple[str, ...], split: str | None
) -> None:
    declared = frozenset({"theme"} if columns == ("declared",) else ())
    memory = remembered({"key": "old", **old, "split": "test"}, declared=declared)
    across = [name for name in columns if name != "declared"]
    assert split_of([{"key": "new", **new}], memory, columns=across) == [split]


@pytest.mark.parametrize("turn", [lambda rgb: rgb, lambda rgb: rgb[:, ::-1], np.rot90])
def test_a_near_duplicate_inherits_in_any_of_its_views(turn: Any, image: np.ndarray) -> None:
    memory = remembered({"key": "old", **hashes_of(image), "split": "val"})
    turned = np.ascontiguousarray(turn(image))
    assert split_of([{"key": "new", **hashes_of(turned)}, {"key": "other"}], memory) == ["val", None]


@pytest.mark.parametrize("given", list(itertools.permutations(("train", "val", "test"), 2)))
def test_of_several_splits_the_strictest_is_used(given: tuple[str, str]) -> None:
    expected = max(given, key=("train", "val", "test").index)
    mates = [{"key": f"old {index}", "group": "g", "split": split} for index, split in enumerate(given)]
    assert split_of([{"key": "new", "group": "g"}], remembered(*mates)) == [expected]
    same = [{"key": "x", "split": split} for split in given]
    assert merge_splits([splits_of(make_rows([row])) for row in same])["split"].to_pylist() == [expected]


def test_splits_are_inherited_through_other_images_and_from_rows() -> None:
    rows = [
        {"key": "a", "group": "g", "pixel_id": "f" * 32},
        {"key": "b", "pixel_id": "f" * 32},
        {"key": "c", "group": "h"},
        {"key": "d", "group": "h", "split": "val"},
        {"key": "e"},
    ]
    memory = remembered({"key": "old", "group": "g", "split": "test"})
    assert split_of(rows, memory) == ["test", "test", "val", "val", None]
    assert split_of(rows[::-1], memory) == [None, "val", "val", "test", "test"]


def test_a_row_keeps_its_split_unless_replace_is_set() -> None:
    memory = remembered({"key": "x", "split": "test"}, {"key": "y", "split": "test"})
    rows = [{"key": "x", "split": "train"}, {"key": "z", "group": "x"}]
    assert split_of(rows, memory) == ["train", "test"]  # what joins it gets the stricter of the two
    assert split_of(rows, memory, replace=True) == ["test", "test"]


def test_a_fold_is_inherited_with_train_and_never_with_test() -> None:
    memory = remembered(
        {"key": "a", "split": "train", "fold": 3},
        {"key": "b", "group": "g", "split": "train", "fold": 2},
        {"key": "c", "group": "h", "split": "train", "fold": 1},
        {"key": "d", "group": "h", "split": "test"},
    )
    rows = [{"key": "a"}, {"key": "new", "group": "g"}, {"key": "newer", "group": "h"}, {"key": "e"}]
    table = inherit_splits(make_rows(rows), memory)
    assert table["split"].to_pylist() == ["train", "train", "test", None]
    assert table["fold"].to_pylist() == [3, 2, None, None]
    assert (
        "fold" not in inherit_splits(make_rows(rows), remembered({"key": "a", "split": "val"})).column_names
    )


def test_a_train_row_in_a_component_with_a_retired_test_image_is_a_conflict() -> None:
    memory = remembered({"key": "old", "group": "g", "split": "test"}, {"key": "far", "split": "test"})
    rows = make_rows([{"key": "x", "group": "g", "split": "train"}, {"key": "y", "split": "train"}])
    in_conflict, pair = RelatedImages(rows, memory).find_conflicts()
    assert in_conflict.tolist() == [True, False]
    assert pair == f"{image_id('x')[:16]} in train, {image_id('old')[:16]} in test"
    assert RelatedImages(rows.slice(1), memory).find_conflicts()[1] == ""


def test_the_memory_has_only_splits_that_are_not_in_the_manifest(tmp_path: Path) -> None:
    rows = [{"key": key, "split": "test"} for key in ("kept", "cleared", "gone")]
    made = make_manifest(make_rows([rows[0], {"key": "cleared"}]), groups=["theme"])
    path = tmp_path / "gaped.parquet"
    write_manifest(made.table, made.metadata, path)
    assert len(read_memory([load_manifest(path)]).rows) == 0
    write_ledger([splits_of(make_rows(rows))], path)
    memory = read_memory([load_manifest(path)])
    assert set(memory.rows["image_id"].to_pylist()) == {image_id("cleared"), image_id("gone")}
    assert memory.declared == {"theme"}
    earlier = splits_of(make_rows([{"key": "released", "split": "val"}, {"key": "gone", "split": "train"}]))
    both = read_memory([load_manifest(path)], earlier).rows
    assert dict(zip(both["image_id"].to_pylist(), both["split"].to_pylist(), strict=True)) == {
        image_id("cleared"): "test",
        image_id("gone"): "test",
        image_id("released"): "val",
    }


def test_a_ledger_has_a_sorted_row_per_image_and_is_not_written_without_a_split(tmp_path: Path) -> None:
    path = tmp_path / "gaped.parquet"
    write_ledger([splits_of(make_rows([{"key": "x"}]))], path)
    assert not ledger_path(path).exists() and read_ledger(path).equals(LEDGER.empty_table())
    rows = [{"key": str(number), "split": "train"} for number in range(9)]
    write_ledger([splits_of(make_rows(rows)), splits_of(make_rows(rows[:5]))], path)
    ids = read_ledger(path)["image_id"].to_pylist()
    assert ids == sorted(map(image_id, map(str, range(9))))


def test_an_unreadable_ledger_is_an_error_until_it_is_discarded(tmp_path: Path) -> None:
    path = tmp_path / "gaped.parquet"
    ledger_path(path).write_bytes(b"no ledger")
    with pytest.raises(ManifestError, match="cannot read") as caught:
        read_ledger(path)
    assert "--forget" in caught.value.fix
    assert forget_splits(path) == (0, None)
    assert len(read_ledger(path)) == 0
    with pytest.raises(AffectdataError):
        forget_splits(path)


def test_a_ledger_that_is_a_link_to_nowhere_is_not_taken_for_none(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ledger_path(path).symlink_to("nowhere")
    with pytest.raises(ManifestError, match="does not exist") as caught:
        read_ledger(path)
    assert "--forget" in caught.value.fix
    forget_splits(path)
    assert len(read_ledger(path)) == 0


@pytest.mark.parametrize("column", [*DIGITS, "split"])
def test_a_ledger_with_values_that_none_has_is_refused_though_its_digest_is_right(
    tmp_path: Path, column: str
) -> None:
    table = remembered({"key": "x", "split": "test"}).rows
    at = table.column_names.index(column)
    table = table.set_column(at, table.schema.field(at), pa.array(["other"]))
    write_table(table, ledger_path(tmp_path / "a.parquet"), "ledger")
    with pytest.raises(ManifestError, match=f"invalid values in {column}"):
        read_ledger(tmp_path / "a.parquet")
