"""check.image_pool: which images are in the check if there are more than its limit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from affectdata.check.image_pool import find_originals
from tests.made import make_recipe, make_rows


def sizes_taken(groups: list[tuple[str, int]], most: int, seed: int = 0, **recipe: Any) -> list[int]:
    """Return the number of images taken from each group (split, size): all or none."""
    rows = [
        {"key": f"{number}.{index}", "group": f"{number}.0", "split": split, "valence": index * 99 / size}
        for number, (split, size) in enumerate(groups)
        for index in range(size)
    ]
    for row in rows:
        row["source"] = "oasis" if row["split"] == "filled" else "gaped"
        row["split"] = "train" if row["split"] == "filled" else row["split"]
    table = make_rows(rows).append_column("copy", pa.array(np.zeros(len(rows), np.int32)))
    made = make_recipe(seed=seed, strata=[], check={"max_pictures": most}, **recipe)
    originals = find_originals(SimpleNamespace(table=table), made)  # type: ignore[arg-type]
    keys = [key.split(".")[0] for key in originals.table["source_id"].to_pylist()]
    taken = [keys.count(str(number)) for number in range(len(groups))]
    assert all(n in (0, size) for n, (_, size) in zip(taken, groups, strict=True))
    return taken


SPLITS = ["train", "val", "test"]


@pytest.mark.parametrize("splits", [SPLITS, ["train", "train", "test"], ["train"] * 3])
def test_groups_larger_than_the_limit_leave_enough_to_train_and_to_score(
    splits: list[str],
) -> None:
    taken = sizes_taken([(split, 200) for split in splits], 150)
    assert taken.count(200) == max(2, len(set(splits)))
    assert {split for split, n in zip(splits, taken, strict=True) if n} == set(splits)


@pytest.mark.parametrize("seed", range(4))
def test_a_group_that_does_not_fit_is_passed_over(seed: int) -> None:
    groups = [("train", 60), *((split, 1) for split in SPLITS for _ in range(20))]
    taken = sizes_taken(groups, 55, seed)
    assert taken[0] in (0, 60)  # 60 only where it is the first of train
    assert taken.count(1) == (55 if not taken[0] else 2)


def test_the_images_are_the_first_by_their_hash_and_a_higher_limit_keeps_them() -> None:
    groups = [(split, 1) for split in SPLITS for _ in range(30)]
    few, more = (np.array(sizes_taken(groups, most)) for most in (30, 60))
    assert (few.sum(), more.sum(), (few & more).sum()) == (30, 60, 30)
    assert sizes_taken(groups, 90) == [1] * 90


def test_a_group_of_filled_in_images_does_not_count_as_training_images() -> None:
    groups = [("filled", 30), ("train", 30), ("test", 30)]
    for seed in range(4):
        assert sizes_taken(groups, 40, seed, balance={"fill_from": ["oasis"]}) == [0, 30, 30]
