"""Thin bins are filled with real images of other sources first: into train, and none that is known."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from affectdata.errors import RecipeError
from affectdata.images.phash import perceptual_hashes
from affectdata.manifest.ledger import Memory, splits_of
from affectdata.plan.cells import assign_cells
from affectdata.plan.fill import fill_rows
from affectdata.plan.plan import Plan
from affectdata.plan.planner import plan_release, split_rows
from affectdata.reading.sample import draw_image
from affectdata.recipe.recipe import Recipe
from affectdata.store.digest import table_digest
from tests.made import image_id, make_manifest, make_recipe, make_rows

EDGES = {"edges": [0.0, 10.0, 20.0]}
FILL = {"level": "max", "max_copies": 8, "fill_from": ["oasis"]}


def make_fill(**changes: Any) -> Recipe:
    return make_recipe(**{"bins": EDGES, "balance": FILL, **changes})


def rows_of(source: str, values: list[float | None], subtype: str = "A", **more: Any) -> list[dict[str, Any]]:
    """Rows of one source; their keys are source, subtype and number."""
    return [
        {"key": f"{source}-{subtype}-{at}", "source": source, "subtype": subtype, "valence": value, **more}
        for at, value in enumerate(values)
    ]


def own_rows(low: int = 2, high: int = 10) -> list[dict[str, Any]]:
    """Images of the source to balance: `low` below 10, `high` above."""
    return rows_of("gaped", [5.0] * low + [15.0] * high, split="train")


def keys_taken(own: list[dict[str, Any]], others: list[dict[str, Any]], **changes: Any) -> list[str]:
    filled = fill_rows(make_rows(own), make_rows(others), make_fill(**changes))
    return filled.filter(pc.not_equal(filled["source"], "gaped"))["source_id"].to_pylist()


def planned(own: list[dict[str, Any]], others: list[dict[str, Any]], **changes: Any) -> tuple[pa.Table, Plan]:
    manifests = make_manifest(make_rows(own)), make_manifest(make_rows(others), "oasis")
    return plan_release(manifests[:1], manifests[1:], make_fill(**changes))


def looks(rgb: np.ndarray) -> dict[str, str]:
    first, *views = perceptual_hashes(rgb)
    return {"phash": first, "phash_views": "".join(views)}


@pytest.mark.parametrize(
    ("n_others", "n_filled", "n_copies"), [(0, 0, 8), (3, 3, 5), (8, 8, 0), (20, 8, 0)], ids=str
)
def test_a_rare_bin_is_filled_before_copies_are_made(n_others: int, n_filled: int, n_copies: int) -> None:
    others = rows_of("oasis", [5.0] * n_others, "Person")
    rows, plan = planned(own_rows(), others)
    thin, full = plan.bins
    assert (thin.n_before, thin.n_filled, thin.n_after, thin.shortfall) == (2, n_filled, 10, 0)
    assert (full.n_before, full.n_filled, full.n_after) == (10, 0, 10)
    assert pc.sum(pc.greater(plan.table["copy"], 0)).as_py() == n_copies
    assert plan.summary()["bins"][0]["n_filled"] == n_filled
    assert len(rows) == 12 + n_filled
    assert rows["image_id"].to_pylist() == sorted(rows["image_id"].to_pylist())


def test_the_shortfall_under_the_cap_remains_after_filling() -> None:
    balance = {**FILL, "max_copies": 2}
    _, plan = planned(own_rows(1, 10), rows_of("oasis", [5.0] * 2, "Person"), balance=balance)
    thin = plan.bins[0]
    assert (thin.n_before, thin.n_filled, thin.n_after, thin.shortfall) == (1, 2, 6, 4)


def test_the_target_is_that_of_the_own_rows() -> None:
    """Any number of images of another source makes no bin larger than the largest own one."""
    _, plan = planned(own_rows(), rows_of("oasis", [5.0] * 50 + [15.0] * 50, "Person"))
    assert [bin_.target for bin_ in plan.bins] == [10, 10]
    assert [bin_.n_after for bin_ in plan.bins] == [10, 10]
    own = rows_of("gaped", [5.0] + [15.0] * 4 + [25.0] * 10 + [35.0] * 10, split="train")
    _, plan = planned(
        own,
        rows_of("oasis", [5.0] * 50 + [15.0] * 50, "Person"),
        bins={"edges": [0, 10, 20, 30, 40]},
        balance={**FILL, "level": "median"},
    )
    assert [bin_.target for bin_ in plan.bins] == [7] * 4
    assert [bin_.n_after for bin_ in plan.bins] == [7, 7, 10, 10]


def test_the_fill_is_level_over_the_categories_of_the_other_source() -> None:
    others = [
        *rows_of("oasis", [5.0] * 30, "Person"),
        *rows_of("oasis", [5.0] * 3, "Scenery"),
        *rows_of("oasis", [5.0], "Animal"),
    ]
    counts = Counter(key.split("-")[1] for key in keys_taken(own_rows(), others))
    assert counts == {"Animal": 1, "Scenery": 3, "Person": 4}


def test_rows_without_a_category_are_a_category() -> None:
    others = rows_of("oasis", [5.0] * 20, "Person") + [
        {**row, "subtype": None} for row in rows_of("oasis", [5.0] * 20, "none")
    ]
    counts = Counter(key.split("-")[1] for key in keys_taken(own_rows(), others, strata=["source"]))
    assert counts == {"Person": 4, "none": 4}


def test_the_fill_goes_to_train_and_val_and_test_stay_as_they_were() -> None:
    draw = random.Random(0)
    own = rows_of("gaped", [draw.uniform(0, 20) ** 2 / 20 for _ in range(200)])
    for at in range(0, 60, 3):
        own[at + 1]["group"] = own[at]["key"]
    others = rows_of("oasis", [draw.uniform(0, 20) for _ in range(300)], "Person", split="train")
    recipe = make_fill(split={"val": 0.2, "test": 0.2})
    before = split_rows(make_rows(own), recipe)
    after = fill_rows(before, make_rows(others), recipe)
    kept = after.filter(pc.equal(after["source"], "gaped"))
    assert kept.equals(before.sort_by("image_id"))
    taken = after.filter(pc.equal(after["source"], "oasis"))
    assert len(taken) > 20
    assert set(taken["split"].to_pylist()) == {"train"}
    rows, plan = planned(own, others, split={"val": 0.2, "test": 0.2})
    source_of = dict(zip(rows["image_id"].to_pylist(), rows["source"].to_pylist(), strict=True))
    sides = zip(plan.table["image_id"].to_pylist(), plan.table["split"].to_pylist(), strict=True)
    assert {source_of[image] for image, side in sides if side != "train"} == {"gaped"}


@pytest.mark.parametrize("side", ["val", "test"])
def test_held_out_images_and_their_groups_are_not_used_to_fill(side: str) -> None:
    others = rows_of("oasis", [5.0] * 8, "Person")
    others[0] |= {"split": side, "valence": None}  # it could not fill, and still holds its group back
    others[1] |= {"group": others[0]["key"]}
    others[2] |= {"split": "train"}
    others[3] |= {"subject_id": "one"}
    others[4] |= {"pixel_id": "f" * 32}
    gone = [{"key": "gone", "source": "oasis", "subject_id": "one", "split": side}]
    gone += [{"key": "copy", "source": "naps", "pixel_id": "f" * 32, "split": side}]
    gone += [{"key": "trained", "group": others[5]["key"], "split": "train"}]
    memory = Memory(splits_of(make_rows(gone)))
    filled = fill_rows(make_rows(own_rows()), make_rows(others), make_fill(), memory)
    taken = filled.filter(pc.equal(filled["source"], "oasis"))["source_id"].to_pylist()
    assert sorted(taken) == [f"oasis-Person-{at}" for at in (2, 5, 6, 7)]


def test_only_what_train_lacks_is_filled() -> None:
    """Val and test images of a bin count neither for its size nor for the target."""
    own = [
        *rows_of("gaped", [5.0] * 2 + [15.0] * 6, split="train"),
        *rows_of("gaped", [5.0] * 4 + [15.0] * 9, "P", split="test"),
    ]
    assert len(keys_taken(own, rows_of("oasis", [5.0] * 20, "Person"))) == 4


@pytest.mark.parametrize(
    "turned",
    [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a),
        lambda a: np.rot90(a, 3),
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    ],
)
def test_look_alikes_of_own_images_are_not_taken(turned: Any) -> None:
    """In any flip or turn, whatever split the own image is in; nor is what stays together with it."""
    rng = np.random.default_rng(3)
    known, new = draw_image(rng, 40.0), draw_image(rng, 60.0)
    noisy = np.clip(turned(known) + rng.normal(0, 3, turned(known).shape), 0, 255).astype(np.uint8)
    own = own_rows()
    own[0] |= {**looks(known), "split": "test"}
    others = rows_of("oasis", [5.0] * 4, "Person")
    others[0] |= looks(noisy)
    others[1]["group"] = others[0]["key"]
    others[2] |= looks(new)
    assert sorted(keys_taken(own, others)) == ["oasis-Person-2", "oasis-Person-3"]


def test_the_same_pixels_are_not_taken_and_subjects_of_two_sources_are_two() -> None:
    own = own_rows()
    own[0]["subject_id"] = "one"
    own[1]["pixel_id"] = "f" * 32
    others = rows_of("oasis", [5.0] * 4, "Person")
    others[0]["subject_id"] = "one"
    others[1]["pixel_id"] = "f" * 32
    assert sorted(keys_taken(own, others)) == ["oasis-Person-0", "oasis-Person-2", "oasis-Person-3"]


def test_images_in_a_group_with_own_images_are_not_taken() -> None:
    """A painter in the test set is not trained on by way of another collection."""
    own = own_rows()
    own[0] |= {"artist": "Monet", "split": "test"}
    own[1] |= {"artist": "Manet"}
    others = rows_of("oasis", [5.0] * 3, "Painting")
    for row, artist in zip(others, ("Monet", "Monet", "Degas"), strict=True):
        row["artist"] = artist
    split = {"val": 0.0, "test": 0.1, "groups": ["artist"]}
    assert keys_taken(own, others, split=split) == ["oasis-Painting-2"]
    assert len(keys_taken(own, others)) == 3


def test_rows_without_the_target_or_outside_the_bins_are_not_taken() -> None:
    others = rows_of("oasis", [None, -0.0, 20.0, 20.001, 100.0, 9.999], "Person")
    keys = keys_taken(own_rows(2, 10), others)
    assert sorted(keys) == ["oasis-Person-1", "oasis-Person-5"]  # bin [10,20] is full
    keys = keys_taken(own_rows(10, 2), others)
    assert sorted(keys) == ["oasis-Person-2"]


def test_strings_that_no_own_row_has_are_not_taken() -> None:
    own = [{**row, "emotion": "awe" if at < 2 else "fear"} for at, row in enumerate(own_rows())]
    others = rows_of("oasis", [1.0] * 6, "Person")
    for row, emotion in zip(others, ["awe", "awe", "anger", None, "fear", "awe"], strict=True):
        row["emotion"] = emotion
    keys = keys_taken(own, others, target="emotion", bins=None)
    assert sorted(keys) == ["oasis-Person-0", "oasis-Person-1", "oasis-Person-5"]


def test_rows_outside_the_strata_are_not_taken() -> None:
    """Strata that are cut by the own rows' quantiles do not reach as far as another source may."""
    own = [{**row, "arousal": 40.0 + at} for at, row in enumerate(own_rows())]
    others = rows_of("oasis", [5.0] * 5, "Person")
    for row, arousal in zip(others, [39.9, 40.0, 51.0, 51.1, None], strict=True):
        row["arousal"] = arousal
    keys = keys_taken(own, others, strata=[{"arousal": {"quantiles": 3}}])
    assert sorted(keys) == ["oasis-Person-1", "oasis-Person-2"]
    _, plan = planned(own, others, strata=["source", {"arousal": {"quantiles": 3}}])
    assert plan.bins[0].n_filled == 2


def test_edges_at_quantiles_are_those_of_the_own_rows() -> None:
    own = rows_of("gaped", [float(at) for at in range(40, 61)], split="train")
    others = rows_of("oasis", [0.0, 39.0, 61.0, 100.0, *([41.0] * 30)], "Person")
    recipe = make_fill(bins={"quantiles": 4}, balance={**FILL, "level": 8})
    expected = assign_cells(make_rows(own), recipe).edges
    filled = fill_rows(make_rows(own), make_rows(others), recipe)
    assert assign_cells(filled, recipe).edges == expected == [40.0, 45.0, 50.0, 55.0, 60.0]
    assert [value for value in filled["valence"].to_pylist() if not 40 <= value <= 60] == []
    _, plan = planned(own, others, bins={"quantiles": 4}, balance={**FILL, "level": 8})
    assert [bin_.n_before for bin_ in plan.bins] == [5, 5, 5, 6]
    assert [bin_.n_filled for bin_ in plan.bins] == [3, 0, 0, 0]


def test_the_order_of_rows_does_not_matter() -> None:
    draw = random.Random(1)
    own = rows_of("gaped", [draw.uniform(0, 20) for _ in range(60)], split="train") + own_rows()[2:]
    own = list({row["key"]: row for row in own}.values())
    others = [
        *rows_of("oasis", [draw.uniform(0, 10) for _ in range(80)], "Person"),
        *rows_of("oasis", [draw.uniform(0, 10) for _ in range(40)], "Animal"),
    ]
    recipe = make_fill(balance={**FILL, "level": 60})
    straight = fill_rows(make_rows(own), make_rows(others), recipe)
    assert len(straight) > len(own) + 20
    for _ in range(3):
        draw.shuffle(own)
        draw.shuffle(others)
        shuffled = fill_rows(make_rows(own), make_rows(others), recipe)
        assert table_digest(shuffled) == table_digest(straight)
    other = recipe.model_copy(update={"seed": 5})
    assert table_digest(fill_rows(make_rows(own), make_rows(others), other)) != table_digest(straight)


def test_own_groups_are_as_they_were_even_if_the_fill_shares_them() -> None:
    """An image of the other source that could bridge two own groups leaves both alone."""
    own = own_rows()
    own[0] |= {"subject_id": "one", "split": "train"}
    own[1] |= {"pixel_id": "f" * 32, "split": "test"}
    bridge = rows_of("oasis", [5.0], "Person", subject_id="one", pixel_id="f" * 32)
    filled = fill_rows(make_rows(own), make_rows(bridge), make_fill())
    assert filled.equals(make_rows(own).sort_by("image_id"))


def test_two_sources_fill_together_and_one_image_in_both_counts_once() -> None:
    twice = {"key": "shared", "subtype": "Person", "valence": 5.0}
    others = [
        *({**twice, "source": source, "path": f"{source}.jpg"} for source in ("oasis", "naps")),
        *rows_of("oasis", [5.0] * 2, "Person"),
        *rows_of("naps", [5.0] * 2, "Faces"),
    ]
    balance = {**FILL, "fill_from": ["oasis", "naps"]}
    for order in (others, others[::-1]):
        filled = fill_rows(make_rows(own_rows()), make_rows(order), make_fill(balance=balance))
        ids = filled["image_id"].to_pylist()
        assert len(ids) == len(set(ids)) == 12 + 5
        shared = filled.filter(pc.equal(filled["image_id"], image_id("shared")))
        assert shared["source"].to_pylist() == ["naps"]
    manifests = [make_manifest(make_rows(own_rows())), make_manifest(make_rows(others), "both")]
    _, plan = plan_release(manifests[:1], manifests[1:], make_fill(balance=balance))
    assert plan.bins[0].n_filled == 5
    assert len(set(plan.table["sample_id"].to_pylist())) == len(plan.table)


def test_a_source_that_is_balanced_cannot_fill_itself() -> None:
    with pytest.raises(RecipeError, match="gaped is the balanced source and cannot fill itself") as caught:
        keys_taken(own_rows(), rows_of("gaped", [5.0], "P"), balance={**FILL, "fill_from": ["gaped"]})
    assert caught.value.where == "balance.fill_from"
    assert caught.value.exit_code == 3


def test_a_manifest_with_an_unlisted_source_is_refused() -> None:
    others = rows_of("oasis", [5.0], "Person") + rows_of("naps", [5.0], "Faces")
    with pytest.raises(RecipeError, match="the manifests of oasis also contain rows of naps") as caught:
        keys_taken(own_rows(), others)
    assert caught.value.where == "balance.fill_from"


def test_a_target_that_the_other_source_lacks_is_refused() -> None:
    own = make_rows(own_rows()).append_column("label", [["x", "y"] * 6])
    recipe = make_fill(target="label", bins=None, labels={})
    with pytest.raises(RecipeError, match="no column 'label'") as caught:
        fill_rows(own, make_rows(rows_of("oasis", [5.0], "Person")), recipe)
    assert caught.value.where == "balance.fill_from"


def test_classes_are_those_of_the_balanced_source() -> None:
    """The other source needs neither every emotion nor a class of its own size."""
    own = own_rows(2, 12)
    for at, row in enumerate(own):
        row["emotion"] = ("joy", "awe")[at % 2] if at < 4 else ("fear", "anger")[at % 2]
    others = rows_of("oasis", [50.0] * 6, "Person")
    for row, emotion in zip(others, ["joy", "joy", "fear", "boredom", "boredom", "boredom"], strict=True):
        row["emotion"] = emotion
    labels = {"merge": {"up": ["joy", "awe"], "down": ["fear", "anger"]}, "top": 2}
    rows, plan = planned(own, others, target="label", bins=None, labels=labels, strata=["source"])
    counts = {bin_.bin: (bin_.n_before, bin_.n_filled, bin_.n_after) for bin_ in plan.bins}
    assert counts == {"up": (4, 2, 10), "down": (10, 0, 10)}
    assert set(rows["label"].to_pylist()) == {"up", "down"}
