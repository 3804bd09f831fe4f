"""Splits: groups stay whole, shares are kept, memory holds. The laws are in tests/property."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from affectdata.errors import IntegrityError, ManifestError
from affectdata.splits.assign import assign_splits
from tests.made import image_id, make_rows

THIRDS = {"val": 0.15, "test": 0.15}


def split_of(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["source_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def assign(rows: list[dict[str, str]], fractions: dict[str, float] = THIRDS, seed: int = 7) -> dict[str, str]:
    return split_of(assign_splits(make_rows(rows), [], fractions, seed))


def test_shares_are_exact_where_they_are_whole() -> None:
    counts = Counter(assign([{}] * 1000).values())
    assert counts == {"train": 700, "val": 150, "test": 150}


@pytest.mark.parametrize(
    ("fractions", "expected"),
    [
        ({"val": 0.0, "test": 0.2}, {"train": 80, "test": 20}),
        ({"val": 0.2, "test": 0.0}, {"train": 80, "val": 20}),
        ({"val": 0.0, "test": 0.0}, {"train": 100}),
        ({"val": 0.45, "test": 0.5}, {"train": 5, "val": 45, "test": 50}),
    ],
)
def test_a_share_may_be_zero_or_almost_one(fractions: dict[str, float], expected: dict[str, int]) -> None:
    assert Counter(assign([{}] * 100, fractions).values()) == expected


def test_groups_follow_a_share_of_zero_as_well() -> None:
    rows = [{"key": f"{group}-{index}", "group": f"{group}-0"} for group in range(30) for index in range(3)]
    assert set(assign(rows, {"val": 0.0, "test": 0.2}).values()) == {"train", "test"}


def test_every_level_keeps_its_shares() -> None:
    """20 cells of 30 to 49 rows in 4 bins: no cell is off by more than rounding, no bin either."""
    cells = np.repeat(np.arange(20), np.arange(30, 50))
    bins = cells // 5
    table = assign_splits(make_rows([{}] * len(cells)), [bins, cells], {"val": 0.2, "test": 0.1}, 3)
    side = np.array(table["split"].to_pylist())
    for codes in (np.zeros(len(cells), int), bins, cells):
        for code in np.unique(codes):
            members = side[codes == code]
            for name, share in (("val", 0.2), ("test", 0.1)):
                assert abs((members == name).sum() - share * len(members)) <= 1


def test_rows_alone_in_their_cell_are_divided_too() -> None:
    """The remainder of a cell too small to be divided is carried over to the next one."""
    cells = np.arange(200)
    table = assign_splits(make_rows([{}] * 200), [cells // 20, cells], THIRDS, 0)
    counts = Counter(table["split"].to_pylist())
    assert counts == {"train": 140, "val": 30, "test": 30}


def test_an_existing_split_is_kept_and_its_group_gets_it() -> None:
    rows = [
        {"key": "a", "split": "test"},
        {"key": "b", "group": "a"},
        {"key": "c", "split": "val"},
        {"key": "d"},
    ]
    splits = assign(rows, {"val": 0.0, "test": 0.0})
    assert splits == {"a": "test", "b": "test", "c": "val", "d": "train"}


def test_existing_splits_count_towards_the_shares() -> None:
    rows = [
        {"key": str(index), "split": "test"} if index < 10 else {"key": str(index)} for index in range(100)
    ]
    assert Counter(assign(rows, {"val": 0.0, "test": 0.1}).values()) == {"train": 90, "test": 10}


@pytest.mark.parametrize(("n_declared", "expected"), [(6, 6), (9, 9), (2, 6), (0, 6)])
def test_a_test_set_that_comes_with_a_source_grows_only_if_too_small(n_declared: int, expected: int) -> None:
    """Its rows are in a few of many cells, so the others have no test row."""
    rows = [{"key": str(index), **({"split": "test"} if index < n_declared else {})} for index in range(30)]
    cells = np.arange(30) // 3
    table = assign_splits(make_rows(rows), [cells // 5, cells], {"val": 0.1, "test": 0.2}, 1)
    counts = Counter(table["split"].to_pylist())
    assert counts["test"] == expected
    assert 2 <= counts["val"] <= 3


def test_new_rows_never_move_old_ones() -> None:
    old = assign([{"key": str(index)} for index in range(100)])
    rows = [
        {"key": str(index), **({"split": old[str(index)]} if index < 100 else {})} for index in range(300)
    ]
    new = assign(rows)
    assert {key: new[key] for key in old} == old
    assert Counter(new.values()) == {"train": 210, "val": 45, "test": 45}


def test_another_seed_gives_another_split() -> None:
    rows = [{"key": str(index)} for index in range(100)]
    assert assign(rows, seed=1) != assign(rows, seed=2)


def test_a_group_in_two_splits_is_an_error_that_names_the_pair() -> None:
    rows = [{"key": "a", "split": "train"}, {"key": "b", "group": "a", "split": "test"}]
    with pytest.raises(IntegrityError, match="one group is in two splits") as caught:
        assign(rows)
    assert caught.value.exit_code == 4
    for part in (image_id("a")[:16], image_id("b")[:16], "train", "test"):
        assert part in caught.value.what


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ManifestError, match="unknown split 'dev'") as caught:
        assign([{"key": "a", "split": "dev"}])
    assert "train, val, test" in caught.value.fix


def test_a_group_larger_than_a_split_goes_where_the_error_grows_least() -> None:
    rows = [{"key": str(index), "group": "0"} for index in range(60)] + [
        {"key": str(index)} for index in range(60, 100)
    ]
    splits = assign(rows)
    assert {splits[str(index)] for index in range(60)} == {"train"}
    assert Counter(splits.values()) == {"train": 70, "val": 15, "test": 15}


def test_an_empty_table_stays_empty() -> None:
    table = assign_splits(make_rows([]), [np.empty(0, np.int64)], THIRDS, 0)
    assert table.num_rows == 0


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_groups_and_alone() -> None:
    n = 100_000
    ids = [image_id(str(index)) for index in range(n)]
    groups = [ids[index // 3 * 3] if index < 30_000 else ids[index] for index in range(n)]
    table = pa.table({"image_id": ids, "group_id": groups, "split": pa.nulls(n, pa.string())})
    cells = np.arange(n) * 60 // n
    side = np.array(assign_splits(table, [cells // 6, cells], THIRDS, 0)["split"].to_pylist())
    assert (side.reshape(-1)[:30_000].reshape(-1, 3) == side[:30_000:3, None]).all()
    for name in ("val", "test"):  # groups of three cannot come out even in every cell
        assert abs((side == name).sum() - 15_000) < 10
    single = assign_splits(table.slice(30_000), [cells[30_000:]], THIRDS, 0)["split"].to_pylist()
    assert Counter(single) == {"train": 49_000, "val": 10_500, "test": 10_500}
