"""What changed between two releases, row by row, and the version step that follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from affectdata.release.diff import ReleaseDiff, diff_releases
from affectdata.release.release import Release, open_release
from tests.made import image_id, publish

Rows = list[dict[str, Any]]
NOTHING = {name: [] for name in ("added", "removed", "moved", "relabelled", "redrawn", "described")} | {
    "cells": {}
}


@pytest.fixture(scope="module")
def release(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return publish(small_gaped, tmp_path_factory.mktemp("made"))


def changed(release: Release, change: Callable[[Rows], Any]) -> Release:
    """The same release with other rows."""
    rows = release.table.to_pylist()
    change(rows)
    return replace(release, rows=pa.Table.from_pylist(rows, schema=release.table.schema))


def diff_of(release: Release, change: Callable[[Rows], Any]) -> tuple[ReleaseDiff, dict[str, Any]]:
    """The difference, and what of it is not empty."""
    found = diff_releases(release, changed(release, change))
    return found, {name: value for name, value in asdict(found).items() if value}


def row_of(rows: Rows, split: str = "train", copy: int = 0) -> dict[str, Any]:
    return next(row for row in rows if row["split"] == split and row["copy"] == copy)


def test_a_release_does_not_differ_from_itself(release: Release) -> None:
    found = diff_releases(release, open_release(release.path))
    assert asdict(found) == NOTHING
    assert found.step == "none"
    assert found.document() == {**NOTHING, "step": "none"}


def test_the_order_of_rows_is_no_difference(release: Release) -> None:
    assert diff_of(release, lambda rows: rows.reverse())[1] == {}


def test_an_image_less_is_major_and_one_more_minor(release: Release) -> None:
    gone = row_of(release.table.to_pylist(), "test")["sample_id"]
    fewer = changed(release, lambda rows: rows.remove(row_of(rows, "test")))
    found = diff_releases(release, fewer)
    assert asdict(found) == {**NOTHING, "removed": [gone]}
    assert found.step == "major"
    found = diff_releases(fewer, release)
    assert asdict(found) == {**NOTHING, "added": [gone]}
    assert found.step == "minor"


def test_a_copy_more_shows_in_its_cell(release: Release) -> None:
    def add(rows: Rows) -> None:
        copy = max(rows, key=lambda row: row["copy"])
        rows.append({**copy, "copy": 9, "sample_id": f"{copy['image_id'][:16]}-9"})

    rows = release.table.to_pylist()
    cell = max(rows, key=lambda row: row["copy"])["cell"]
    n = sum(row["cell"] == cell and row["split"] == "train" for row in rows)
    found, what = diff_of(release, add)
    assert what["cells"] == {cell: (n, n + 1)}
    assert set(what) == {"added", "cells"}
    assert found.step == "minor"


def test_a_move_to_another_split_is_major(release: Release) -> None:
    sample = row_of(release.table.to_pylist(), "val")["sample_id"]
    found, what = diff_of(release, lambda rows: row_of(rows, "val").update(split="test"))
    assert what == {"moved": [sample]}
    assert found.step == "major"


@pytest.mark.parametrize(
    "label",
    [
        {"valence": 1.25},
        {"valence": None},
        {"arousal": 99.0},
        {"dominance": 1.0},
        {"emotion": "awe"},
        {"subtype": "Sp"},
        {"subtype": None},
    ],
    ids=str,
)
def test_another_label_is_major(release: Release, label: dict[str, Any]) -> None:
    def relabel(rows: Rows) -> None:
        row_of(next_to(rows), "train").update(label)

    def next_to(rows: Rows) -> Rows:
        return [row for row in rows if row["subtype"] == "P"]

    sample = row_of(next_to(release.table.to_pylist()), "train")["sample_id"]
    found, what = diff_of(release, relabel)
    assert what == {"relabelled": [sample]}
    assert found.step == "major"


@pytest.mark.parametrize("column", ["emotion_awe", "label"])
def test_labels_that_only_some_releases_have_count(release: Release, column: str) -> None:
    """A share of raters, and the classes that a recipe makes."""
    kind = pa.float64() if column == "emotion_awe" else pa.string()
    one, other = (0.5, 0.6) if column == "emotion_awe" else ("up", "down")

    def with_column(first: Any) -> Release:
        values = pa.array([first] + [one] * (len(release.table) - 1), kind)
        return replace(release, rows=release.table.append_column(column, values))

    first, *_ = ids = release.table["sample_id"].to_pylist()
    found = diff_releases(with_column(one), with_column(other))
    assert asdict(found) == {**NOTHING, "relabelled": [first]}
    assert found.step == "major"
    for pair in ((release, with_column(one)), (with_column(one), release)):
        found = diff_releases(*pair)
        assert asdict(found) == {**NOTHING, "relabelled": sorted(ids)}
    found = diff_releases(release, with_column(None))
    assert len(found.relabelled) == len(ids) - 1
    empty = release.table.append_column(column, pa.nulls(len(ids), kind))
    assert diff_releases(release, replace(release, rows=empty)).step == "none"


def test_another_file_from_the_same_image_is_major(release: Release) -> None:
    sample = row_of(release.table.to_pylist(), copy=1)["sample_id"]
    found, what = diff_of(release, lambda rows: row_of(rows, copy=1).update(file_sha256="0" * 64))
    assert what == {"redrawn": [sample]}
    assert found.step == "major"


@pytest.mark.parametrize(
    "description",
    [
        {"license": "CC BY 4.0"},
        {"extra": '{"note": "new"}'},
        {"path": "new/name.bmp"},
        {"valence_sd": 3.0},
        {"age": 40},
        {"url": "https://example.org"},
        {"source_id": "other"},
    ],
    ids=str,
)
def test_changed_descriptions_of_the_same_data_are_a_patch(
    release: Release, description: dict[str, Any]
) -> None:
    sample = row_of(release.table.to_pylist(), "val")["sample_id"]
    found, what = diff_of(release, lambda rows: row_of(rows, "val").update(description))
    assert what == {"described": [sample]}
    assert found.step == "patch"


def test_relabelled_samples_are_not_listed_as_described(release: Release) -> None:
    def both(rows: Rows) -> None:
        row_of(rows, "val").update(valence=1.25, license="CC BY 4.0")
        row_of(rows, "test").update(license="CC BY 4.0")

    rows = release.table.to_pylist()
    val, test = (row_of(rows, split)["sample_id"] for split in ("val", "test"))
    assert diff_of(release, both)[1] == {"relabelled": [val], "described": [test]}


@pytest.mark.parametrize("change", [{"weight": 2.5}, {"cell": "valence=[0,100]|subtype=x"}], ids=str)
def test_other_weights_and_cells_are_no_silent_change(release: Release, change: dict[str, Any]) -> None:
    sample = row_of(release.table.to_pylist())["sample_id"]
    found, what = diff_of(release, lambda rows: row_of(rows).update(change))
    assert what["described"] == [sample]
    assert found.step == "patch"


def test_the_largest_step_counts(release: Release) -> None:
    def all_of_it(rows: Rows) -> None:
        rows.append({**row_of(rows), "image_id": image_id("new"), "sample_id": "new-0"})
        row_of(rows, "val").update(license="CC BY 4.0")

    assert diff_of(release, all_of_it)[0].step == "minor"

    def and_a_label(rows: Rows) -> None:
        all_of_it(rows)
        row_of(rows, "test").update(valence=0.0)

    found, what = diff_of(release, and_a_label)
    assert set(what) == {"added", "described", "relabelled", "cells"}
    assert found.step == "major"


def test_ids_are_sorted(release: Release) -> None:
    found = diff_of(release, lambda rows: [row.update(valence=0.0) for row in rows[::-1]])[0]
    assert found.relabelled == sorted(found.relabelled)
    assert len(found.relabelled) == len(release.table)


def test_the_document_is_plain_data(release: Release) -> None:
    def change(rows: Rows) -> None:
        rows.remove(row_of(rows, copy=1))

    document = json.loads(json.dumps(diff_of(release, change)[0].document()))
    assert document["step"] == "major"
    ((before, after),) = document["cells"].values()
    assert before == after + 1


def test_another_recipe_of_the_same_images(release: Release, small_gaped: Path, tmp_path: Path) -> None:
    """Another size redraws all; a lower cap takes copies away; the same plan without files is the same."""
    larger = publish(small_gaped, tmp_path, image={"short_side_px": 40})
    found = diff_releases(release, larger)
    assert found.redrawn == sorted(release.table["sample_id"].to_pylist())
    assert (found.added, found.removed, found.cells) == ([], [], {})
    fewer = publish(small_gaped, tmp_path, balance={"max_copies": 1})
    found = diff_releases(release, fewer)
    assert len(found.removed) == release.info["copies"]
    assert (found.added, found.moved, found.relabelled, found.redrawn) == ([], [], [], [])
    assert diff_releases(fewer, release).step == "minor"
    virtual = publish(small_gaped, tmp_path, mode="virtual")
    assert diff_releases(release, virtual).step == "none"
