"""check.arms: the rows of each arm, tested on plans alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from affectdata.check.arms import has_copies, make_arms, spread_evenly, stretch
from affectdata.plan.planner import plan_rows
from affectdata.schema import PLAN
from tests.made import FLIP, copy_seed, image_id, make_recipe, make_rows, sample_id


def _plan(keys: list[str], copies: list[int]) -> pa.Table:
    rows = [
        {
            "sample_id": sample_id(image_id(key), copy),
            "image_id": image_id(key),
            "split": "train",
            "cell": "all",
            "copy": copy,
            "pipeline": "flip" if copy else "",
            "seed": copy_seed(0, image_id(key), copy),
            "weight": 1.0,
        }
        for key, copy in zip(keys, copies, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


ORIGINALS = _plan(["a", "b", "c"], [0, 0, 0])
RELEASE = _plan(["a", "b", "c", "c", "c"], [0, 0, 0, 1, 2])
IDS = ORIGINALS["image_id"]
SUBTYPES = pa.chunked_array([pa.nulls(3, pa.string())])
CELLS = (np.array([0, 0, 1]), np.array([0, 0, 1]))


def test_duplicates_have_the_weight_of_their_rows_in_the_release() -> None:
    arms = make_arms(RELEASE, ORIGINALS, CELLS)
    assert arms["duplicates"]["weight"].to_pylist() == [1, 1, 3]
    assert arms["duplicates"]["copy"].to_pylist() == [0, 0, 0]


def test_weights_balance_the_cells_and_have_mean_1() -> None:
    weights = make_arms(RELEASE, ORIGINALS, CELLS)["weights"]["weight"].to_pylist()
    assert weights == pytest.approx([0.75, 0.75, 1.5])


def test_without_copies_there_is_nothing_to_duplicate() -> None:
    assert not has_copies(ORIGINALS)
    assert "duplicates" not in make_arms(ORIGINALS, ORIGINALS, CELLS)


@pytest.mark.parametrize("n_rows", [3, 4, 6, 8, 11])
def test_copies_are_spread_as_evenly_as_can_be(n_rows: int) -> None:
    even = spread_evenly(IDS, SUBTYPES, n_rows, make_recipe())
    assert len(even) == n_rows == len(set(even["sample_id"].to_pylist()))
    counts = [even["image_id"].to_pylist().count(image_id(key)) for key in "abc"]
    assert max(counts) - min(counts) <= 1
    assert [bool(name) for name in even["pipeline"].to_pylist()] == [
        copy > 0 for copy in even["copy"].to_pylist()
    ]


def test_a_copy_of_an_arm_is_the_same_image_as_that_of_the_release() -> None:
    even = spread_evenly(IDS, SUBTYPES, 6, make_recipe())
    draws = {row["sample_id"]: (row["pipeline"], row["seed"]) for row in even.to_pylist() if row["copy"]}
    released = {
        row["sample_id"]: (row["pipeline"], row["seed"]) for row in RELEASE.to_pylist() if row["copy"]
    }
    shared = set(draws) & set(released)
    assert shared and all(draws[sample] == released[sample] for sample in shared)


@pytest.mark.parametrize("seed", range(5))
def test_an_extra_copy_goes_to_the_image_to_which_a_plan_would_give_it(seed: int) -> None:
    recipe = make_recipe(seed=seed, strata=[], balance={"level": 4, "max_copies": 8})
    rows = make_rows([{"key": key, "valence": 5.0, "split": "train"} for key in "abc"])
    planned = plan_rows(rows, recipe).table.select(PLAN.names).cast(PLAN)
    even = spread_evenly(rows["image_id"], rows["subtype"], 4, recipe)
    same = ["sample_id", "image_id", "copy", "pipeline", "seed"]
    assert even.select(same).sort_by("sample_id").equals(planned.select(same).sort_by("sample_id"))


def test_copies_go_through_the_pipelines_of_their_subtypes() -> None:
    rows = make_rows([{"key": "a", "subtype": "A"}, {"key": "b", "subtype": "P"}, {"key": "c"}])
    recipe = make_recipe(
        pipelines={"flip": FLIP, "other": FLIP},
        subtypes={"default": {"pipeline": "flip"}, "P": {"pipeline": "other"}},
    )
    even = spread_evenly(rows["image_id"], rows["subtype"], 6, recipe)
    assert even["copy"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert even["pipeline"].to_pylist() == ["", "", "", "flip", "other", "flip"]


def test_a_stretched_arm_has_the_sd_of_the_release_and_its_own_mean() -> None:
    originals, release = np.array([40.0, 50.0, 60.0]), np.array([0.0, 50.0, 100.0])
    assert stretch(originals, release).tolist() == [0, 50, 100]
    assert stretch(np.full(3, 40.0), release).tolist() == [40, 40, 40]
