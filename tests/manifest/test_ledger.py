"""A split is never forgotten: by image, pixels, look, group, subject, declared column; test before train."""

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
    Kin,
    Memory,
    forget_splits,
    inherit_splits,
    ledger_path,
    merge_splits,
    read_ledger,
    recall,
    splits_of,
    write_ledger,
)
from affectdata.manifest.manifest import load_manifest, write_manifest
from affectdata.schema import DIGITS, LEDGER
from affectdata.store.parquet import write_table
from tests.made import image_id, make_manifest, make_rows


def remembered(*rows: dict[str, Any], declared: frozenset[str] = frozenset()) -> Memory:
    """Splits of images that were rows once; each row has a key and a split."""
    folds = pa.array([row.pop("fold", None) for row in rows], pa.int32())
    table = make_rows(rows)
    return Memory(merge_splits([splits_of(table.append_column("fold", folds))]), declared)


def split_of(rows: list[dict[str, Any]], memory: Memory, **options: Any) -> list[str | None]:
    found: list[str | None] = inherit_splits(make_rows(rows), memory, **options)["split"].to_pylist()
    return found


def looks(rgb: np.ndarray) -> dict[str, str]:
    first, *views = perceptual_hashes(rgb)
    return {"phash": first, "phash_views": "".join(views)}


PEOPLE = {"source": "people", "subject_id": "7"}


@pytest.mark.parametrize(
    ("new", "old", "columns", "found"),
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
        ),  # the group was called by the one that returns
        (PEOPLE, PEOPLE, (), "test"),
        (PEOPLE, {**PEOPLE, "source": "others"}, (), None),
        ({"theme": "Dog"}, {"theme": "Dog"}, (), None),
        ({"theme": "Dog"}, {"theme": "Dog"}, ("declared",), "test"),
        ({"theme": "Dog", "source": "b"}, {"theme": "Dog"}, ("declared",), None),
        ({"theme": "Dog", "source": "b"}, {"theme": "Dog"}, ("theme",), "test"),
    ],
)
def test_what_gives_an_image_its_split(
    new: dict[str, Any], old: dict[str, Any], columns: tuple[str, ...], found: str | None
) -> None:
    declared = frozenset({"theme"} if columns == ("declared",) else ())
    memory = remembered({"key": "old", **old, "split": "test"}, declared=declared)
    asked = [name for name in columns if name != "declared"]
    assert split_of([{"key": "new", **new}], memory, columns=asked) == [found]


@pytest.mark.parametrize("turn", [lambda rgb: rgb, lambda rgb: rgb[:, ::-1], np.rot90])
def test_a_look_alike_is_known_in_any_of_its_views(turn: Any, image: np.ndarray) -> None:
    memory = remembered({"key": "old", **looks(image), "split": "val"})
    turned = np.ascontiguousarray(turn(image))
    assert split_of([{"key": "new", **looks(turned)}, {"key": "other"}], memory) == ["val", None]


@pytest.mark.parametrize("given", list(itertools.permutations(("train", "val", "test"), 2)))
def test_of_several_splits_the_stricter_is_taken(given: tuple[str, str]) -> None:
    expected = max(given, key=("train", "val", "test").index)
    mates = [{"key": f"old {at}", "group": "g", "split": split} for at, split in enumerate(given)]
    assert split_of([{"key": "new", "group": "g"}], remembered(*mates)) == [expected]
    same = [{"key": "x", "split": split} for split in given]
    assert merge_splits([splits_of(make_rows([row])) for row in same])["split"].to_pylist() == [expected]


def test_an_image_is_inherited_from_through_others_and_from_rows_too() -> None:
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


def test_a_row_keeps_its_split_unless_the_remembered_one_is_to_replace_it() -> None:
    memory = remembered({"key": "x", "split": "test"}, {"key": "y", "split": "test"})
    rows = [{"key": "x", "split": "train"}, {"key": "z", "group": "x"}]
    assert split_of(rows, memory) == ["train", "test"]  # what joins it gets the stricter of the two
    assert split_of(rows, memory, replace=True) == ["test", "test"]


def test_a_fold_comes_along_with_train_and_never_with_test() -> None:
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


def test_a_train_row_that_hangs_together_with_a_retired_test_image_is_torn() -> None:
    memory = remembered({"key": "old", "group": "g", "split": "test"}, {"key": "far", "split": "test"})
    rows = make_rows([{"key": "x", "group": "g", "split": "train"}, {"key": "y", "split": "train"}])
    torn, pair = Kin(rows, memory).find_torn()
    assert torn.tolist() == [True, False]
    assert pair == f"{image_id('x')[:16]} in train, {image_id('old')[:16]} in test"
    assert Kin(rows.slice(1), memory).find_torn()[1] == ""


def test_only_what_a_manifest_does_not_say_is_recalled(tmp_path: Path) -> None:
    rows = [{"key": key, "split": "test"} for key in ("here", "emptied", "gone")]
    made = make_manifest(make_rows([rows[0], {"key": "emptied"}]), groups=["theme"])
    path = tmp_path / "gaped.parquet"
    write_manifest(made.table, made.metadata, path)
    assert len(recall([load_manifest(path)]).rows) == 0
    write_ledger([splits_of(make_rows(rows))], path)
    memory = recall([load_manifest(path)])
    assert set(memory.rows["image_id"].to_pylist()) == {image_id("emptied"), image_id("gone")}
    assert memory.declared == {"theme"}
    earlier = splits_of(make_rows([{"key": "released", "split": "val"}, {"key": "gone", "split": "train"}]))
    both = recall([load_manifest(path)], earlier).rows
    assert dict(zip(both["image_id"].to_pylist(), both["split"].to_pylist(), strict=True)) == {
        image_id("emptied"): "test",
        image_id("gone"): "test",
        image_id("released"): "val",
    }


def test_a_ledger_has_a_row_per_image_in_order_and_there_is_none_without_a_split(tmp_path: Path) -> None:
    path = tmp_path / "gaped.parquet"
    write_ledger([splits_of(make_rows([{"key": "x"}]))], path)
    assert not ledger_path(path).exists() and read_ledger(path).equals(LEDGER.empty_table())
    rows = [{"key": str(at), "split": "train"} for at in range(9)]
    write_ledger([splits_of(make_rows(rows)), splits_of(make_rows(rows[:5]))], path)
    ids = read_ledger(path)["image_id"].to_pylist()
    assert ids == sorted(map(image_id, map(str, range(9))))


def test_a_ledger_that_cannot_be_read_is_an_error_until_it_is_forgotten(tmp_path: Path) -> None:
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
    with pytest.raises(ManifestError, match=f"values that no ledger has in {column}"):
        read_ledger(tmp_path / "a.parquet")
