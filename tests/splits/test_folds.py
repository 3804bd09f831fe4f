"""Folds for cross-validation: groups whole, strata balanced, independent of the order of rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from affectdata.errors import IntegrityError, ManifestError, RecipeError, UsageError
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import load_manifest, write_manifest
from affectdata.plan.planner import describe_splits, plan_release, split_rows
from affectdata.release.diff import diff_releases
from affectdata.release.lineage import check_lineage
from affectdata.release.release import Release, open_release
from affectdata.release.verify import check_release
from affectdata.schema import FOLD
from affectdata.splits.folds import assign_folds, deal_folds, put_folds
from affectdata.store.digest import table_digest
from tests.made import forge, make_manifest, make_recipe, make_rows, publish, recipe_document

FOLDS = {"folds": 3, "test": 0.2}


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=80),
    st.integers(1, 5),
    st.sampled_from([1, 2, 5, 10]),
    st.integers(0, 9),
)
def test_groups_stay_whole_and_the_order_of_rows_does_not_matter(
    groups: list[int], n_strata: int, k: int, seed: int
) -> None:
    group = np.array([f"g{number}" for number in groups])
    stratum = np.array(groups) % n_strata
    fold = deal_folds(group, [stratum], seed, k)
    assert all(len(set(fold[group == name])) == 1 for name in set(group))
    assert set(fold) == set(range(min(k, len(set(groups)))))
    order = np.random.default_rng(seed).permutation(len(group))
    assert (deal_folds(group[order], [stratum[order]], seed, k) == fold[order]).all()


@pytest.mark.parametrize("k", [2, 3, 5, 7, 10])
def test_groups_of_one_row_are_even_in_every_stratum(k: int) -> None:
    stratum = np.repeat([0, 1, 2], [50, 27, 13])
    fold = deal_folds(np.arange(90).astype(str), [stratum], 1, k)
    for code in range(3):
        counts = np.bincount(fold[stratum == code], minlength=k)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 2


def test_groups_of_different_size_are_balanced() -> None:
    sizes = np.random.default_rng(0).choice([1, 1, 1, 2, 4, 8], 300)
    group = np.repeat(np.arange(300).astype(str), sizes)
    fold = deal_folds(group, [np.zeros(len(group), int)], 0, 5)
    assert np.bincount(fold) == pytest.approx([sizes.sum() / 5] * 5, abs=2)


def test_a_group_larger_than_a_fold_is_not_cut() -> None:
    group = np.array(["big"] * 60 + [f"g{number}" for number in range(40)])
    fold = deal_folds(group, [np.zeros(100, int)], 0, 5)
    assert len(set(fold[:60])) == 1
    assert np.delete(np.bincount(fold, minlength=5), fold[0]).tolist() == [10] * 4


def test_another_seed_deals_other_folds() -> None:
    group, stratum = np.arange(60).astype(str), np.zeros(60, int)
    fold, reseeded = (deal_folds(group, [stratum], seed, 5) for seed in (0, 1))
    assert (fold != reseeded).any() and (fold == deal_folds(group, [stratum], 0, 5)).all()


def test_all_levels_are_even() -> None:
    cell = np.arange(240) % 40  # six rows each, which five folds cannot share evenly
    fold = deal_folds(np.arange(240).astype(str), [cell // 10, cell], 3, 5)
    for level, spread in ((cell // 10, 1), (cell, 1)):
        for code in np.unique(level):
            counts = np.bincount(fold[level == code], minlength=5)
            assert counts.max() - counts.min() <= spread


# --- the column ------------------------------------------------------------------------------------------


def rows_with(n: int = 60, **columns: Callable[[int], Any]) -> pa.Table:
    """Rows of train in ten bins of valence and three subtypes, look-alikes in pairs here and there."""
    base = [
        {
            "key": index,
            "valence": index * 37 % 97 + 0.25,
            "subtype": "APN"[index % 3],
            "group": index - (index % 7 == 1),
        }
        for index in range(n)
    ]
    return make_rows(
        [{**row, **{name: of(index) for name, of in columns.items()}} for index, row in enumerate(base)]
    )


def by_key(table: pa.Table) -> dict[str, int | None]:
    return dict(zip(table["source_id"].to_pylist(), table[FOLD.name].to_pylist(), strict=True))


def test_every_row_of_train_has_a_fold_and_no_other() -> None:
    rows = split_rows(rows_with(), make_recipe(split=FOLDS, bins={"width": 20}))
    fold, split = rows[FOLD.name].to_pylist(), rows["split"].to_pylist()
    assert rows.column_names[rows.column_names.index("split") + 1] == FOLD.name
    assert {number for number, side in zip(fold, split, strict=True) if side == "test"} == {None}
    assert {number for number, side in zip(fold, split, strict=True) if side == "train"} == {0, 1, 2}
    folds_of: dict[str, set[Any]] = {}
    for group, number in zip(rows["group_id"].to_pylist(), fold, strict=True):
        folds_of.setdefault(group, set()).add(number)
    assert all(len(folds) == 1 for folds in folds_of.values())
    counts = np.bincount([number for number in fold if number is not None])
    assert counts.max() - counts.min() <= 2


def test_the_folds_do_not_depend_on_the_order_of_rows() -> None:
    recipe = make_recipe(split=FOLDS, bins={"width": 20})
    rows = rows_with()
    turned = rows.take(pa.array(np.random.default_rng(0).permutation(len(rows))))
    assert by_key(split_rows(rows, recipe)) == by_key(split_rows(turned, recipe))


def test_existing_folds_are_kept_and_new_rows_join_their_group() -> None:
    recipe = make_recipe(split={"folds": 3}, bins={"width": 20})
    before = split_rows(rows_with(), recipe)
    known = by_key(before)
    more = rows_with(90, group=lambda index: index - 60 if 83 <= index < 88 else index - (index % 7 == 1))
    folds = [known.get(key) for key in more["source_id"].to_pylist()]
    after = by_key(
        split_rows(put_folds(more, pa.array(folds, pa.int32())), recipe.model_copy(update={"seed": 5}))
    )
    assert {key: after[key] for key in known} == known
    assert all(after[str(key)] == known[str(key - 60)] for key in range(83, 88))


def test_without_folds_in_the_recipe_there_is_no_column() -> None:
    table = put_folds(rows_with(), pa.nulls(60, pa.int32()))
    for split in ("none", {"test": 0.2}):
        assert FOLD.name not in split_rows(table, make_recipe(split=split)).column_names


@pytest.mark.parametrize(
    ("fold", "n_folds", "error", "words"),
    [
        (lambda index: index % 2, 2, IntegrityError, "one group is in two folds: "),
        (lambda index: 4 if index == 9 else None, 3, ManifestError, "is in fold 4, but split.folds is 3"),
        (lambda index: -1 if index == 9 else None, 3, ManifestError, "is in fold -1"),
        (lambda index: None, 61, ManifestError, "cannot make 61 folds of "),
    ],
)
def test_impossible_folds_are_refused(
    fold: Callable[[int], int | None], n_folds: int, error: type[Exception], words: str
) -> None:
    rows = rows_with(split=lambda index: "train")
    table = put_folds(rows, pa.array([fold(index) for index in range(60)], pa.int32()))
    with pytest.raises(error, match=words):
        assign_folds(table, [], n_folds, 0)


def test_drawn_originals_leave_nothing_to_score_a_fold_on() -> None:
    with pytest.raises(RecipeError, match="no unaugmented images to evaluate a fold on"):
        make_recipe(split=FOLDS, originals="drawn")


def test_the_distances_are_those_of_the_folds_and_images_filled_in_have_none() -> None:
    own = make_manifest(rows_with())
    spare = put_folds(
        rows_with(
            8, key=lambda index: f"o{index}", group=lambda index: f"o{index}", source=lambda index: "oasis"
        ),
        pa.array([1] * 8, pa.int32()),
    )
    recipe = make_recipe(
        split=FOLDS,
        bins={"width": 20},
        strata=[],
        balance={"level": 40, "max_copies": 2, "fill_from": ["oasis"]},
    )
    rows, plan = plan_release([own], [make_manifest(spare, "oasis")], recipe)
    assert rows.filter(pc.equal(rows["source"], "oasis"))[FOLD.name].null_count == 8
    assert plan.table.column_names[-1] == FOLD.name
    splits = describe_splits(rows, recipe)
    assert splits.folds and sum(splits.folds.rows.values()) == splits.rows["train"]
    distances = splits.folds.distance.bin
    assert set(distances) == {"0", "1", "2"} and all(0 < far < 0.2 for far in distances.values())


# --- the release -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release with three folds. Not to be written to."""
    return publish(small_gaped, tmp_path_factory.mktemp("folds"), split=FOLDS, bins={"width": 50}, strata=[])


def test_copies_are_in_the_fold_of_their_original(made: Release) -> None:
    frame = made.table.to_pandas()
    assert (frame["copy"] > 0).any() and not check_release(made)
    assert (frame.groupby("image_id")["fold"].nunique(dropna=False) == 1).all()
    assert frame.loc[frame["split"] == "test", "fold"].isna().all()
    assert "The train split is divided into 3 folds" in (made.path / "README.md").read_text()


def test_a_fold_is_left_out_with_its_copies_and_scored_on_its_originals(made: Release) -> None:
    train = {row["sample_id"]: row for row in made.split("train").to_pylist()}
    scored = []
    for fold in range(3):
        rest, held = made.split("train", fold).to_pylist(), made.split("val", fold).to_pylist()
        assert {row["sample_id"] for row in rest} == {
            key for key, row in train.items() if row["fold"] != fold
        }
        assert {row["copy"] for row in held} == {0}
        assert not {row["group_id"] for row in rest} & {row["group_id"] for row in held}
        scored += [row["image_id"] for row in held]
    assert sorted(scored) == sorted({row["image_id"] for row in train.values()})
    assert len(made.dataset("val", fold=1)) == len(made.split("val", 1))


@pytest.mark.parametrize(("split", "fold"), [("train", 3), ("test", 0), ("train", -1)])
def test_another_fold_is_refused(made: Release, split: str, fold: int) -> None:
    with pytest.raises(UsageError, match="of fold"):
        made.split(split, fold)


Rows = list[dict[str, Any]]


def copy_elsewhere(rows: Rows) -> None:
    row = next(row for row in rows if row["copy"])
    row["fold"] = (row["fold"] + 1) % 3


def group_over_two(rows: Rows) -> None:
    first, second = (next(row for row in rows if row["fold"] == fold) for fold in (0, 1))
    for row in rows:
        if row["image_id"] == first["image_id"]:
            row["group_id"] = second["group_id"]


def fold_in_test(rows: Rows) -> None:
    next(row for row in rows if row["split"] == "test")["fold"] = 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (copy_elsewhere, "copies are in another fold"),
        (group_over_two, "group is in two folds"),
        (fold_in_test, "has a fold outside train"),
    ],
)
def test_forged_folds_are_found(
    made: Release, tmp_path: Path, change: Callable[[Rows], None], words: str
) -> None:
    release = forge(Path(shutil.copytree(made.path, tmp_path / made.name)), change)
    assert any(words in finding.text for finding in check_lineage(release))


def test_an_image_in_another_fold_is_a_move(made: Release, tmp_path: Path) -> None:
    def swap(rows: Rows) -> None:
        for row in rows:
            row["fold"] = None if row["fold"] is None else (row["fold"] + 1) % 3

    other = forge(Path(shutil.copytree(made.path, tmp_path / made.name)), swap)
    diff = diff_releases(made, other)
    assert len(diff.moved) == len(made.split("train")) and diff.step == "major"


# --- ledger ----------------------------------------------------------------------------------------------


def test_split_writes_folds_and_later_runs_keep_them(
    cli: Callable[..., Any], gaped_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = ingest(gaped_copy, out=Path("manifests")).manifest.path

    def write(**changes: Any) -> None:
        document = recipe_document(**{"split": FOLDS, "bins": {"width": 50}, "strata": None, **changes})
        Path("made.yaml").write_text(yaml.safe_dump(document))

    write()
    ran = cli("split", path, "--recipe", "made.yaml")
    assert ran.code == 0 and "fold" in ran.out and "over cells" in ran.out
    written = by_key(load_manifest(path).table)
    assert set(written.values()) == {None, 0, 1, 2}
    digest = table_digest(load_manifest(path).table)
    ingest(gaped_copy, out=Path("manifests"))  # a second ingest
    assert table_digest(load_manifest(path).table) == digest
    write(seed=11)
    first = cli("balance", "--recipe", "made.yaml", "--json").document
    assert by_key(open_release(first["release"]).table) == written
    assert set(first["splits"]["folds"]["rows"]) == {"0", "1", "2"}
    # The folds of a release are kept with --split-from; newly dealt ones would give another release.
    manifest = load_manifest(path)
    table = manifest.table.drop_columns([FOLD.name])
    write_manifest(table, manifest.metadata, path)
    fresh = cli("balance", "--recipe", "made.yaml", "--json").document
    kept = cli("balance", "--recipe", "made.yaml", "--json", "--split-from", first["release"]).document
    assert by_key(open_release(kept["release"]).table) == written
    assert by_key(open_release(fresh["release"]).table) != written
    assert kept["id"] != fresh["id"]
