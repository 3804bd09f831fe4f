"""Plans: pure decisions on tables. No image is made or opened here."""

from __future__ import annotations

import itertools
import os
import random
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from affectdata.errors import IntegrityError, RecipeError
from affectdata.manifest import query as query_module
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Manifest, load_manifest
from affectdata.plan.plan import Plan
from affectdata.plan.planner import plan_release, plan_rows, split_rows
from affectdata.plan.rows import choose_rows
from affectdata.recipe.recipe import packaged_recipes, parse_recipe, read_recipe
from affectdata.recipe.resolve import check_upright, resolve_strata, upright_subtypes
from affectdata.schema import PLAN
from affectdata.store.digest import table_digest
from tests.made import FLIP, copy_seed, image_id, make_manifest, make_recipe, make_rows

TURN = [{"D4": {"p": 1.0}}]


def make_mixed(n: int = 120, start: int = 0) -> pa.Table:
    """Rows of uneven bins and subtypes, every tenth in a group with the one before."""
    draw = random.Random(start)
    rows = []
    for at in range(start, start + n):
        row: dict[str, Any] = {"key": at, "valence": round(min(99.9, draw.betavariate(2, 3) * 100), 3)}
        row["subtype"] = draw.choices(["A", "P", "Sn"], [5, 3, 1])[0]
        if at % 10 == 9:
            row["group"] = at - 1
        rows.append(row)
    return make_rows(rows)


def planned(table: pa.Table, **recipe: Any) -> Plan:
    made = make_recipe(**{"split": {"val": 0.2, "test": 0.2}, **recipe})
    return plan_release([make_manifest(table)], [], made)[1]


def rows_of(plan: Plan) -> dict[tuple[str, int], tuple[int, str]]:
    columns = (plan.table[name].to_pylist() for name in ("image_id", "copy", "seed", "pipeline"))
    return {(image, copy): (seed, name) for image, copy, seed, name in zip(*columns, strict=True)}


def test_a_plan_is_a_table_of_the_schema_sorted_by_its_key() -> None:
    plan = planned(make_mixed())
    assert plan.table.cast(PLAN).schema == PLAN  # words that repeat are dictionaries
    keys = list(zip(plan.table["image_id"].to_pylist(), plan.table["copy"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert len(set(plan.table["sample_id"].to_pylist())) == len(keys)


def test_the_order_of_a_manifests_rows_does_not_matter() -> None:
    table = make_mixed()
    order = list(range(len(table)))
    random.Random(1).shuffle(order)
    plan, shuffled = planned(table), planned(table.take(order))
    assert table_digest(shuffled.table) == table_digest(plan.table)
    assert shuffled.summary() == plan.summary()


def test_only_train_grows() -> None:
    table = plan_table = planned(make_mixed()).table
    copies = plan_table.filter(pc.greater(plan_table["copy"], 0))
    assert len(copies) > 50
    assert set(copies["split"].to_pylist()) == {"train"}
    originals = table.filter(pc.equal(table["copy"], 0))
    assert len(originals) == 120
    assert set(originals["split"].to_pylist()) == {"train", "val", "test"}
    assert set(originals["pipeline"].to_pylist()) == {""}
    assert set(copies["pipeline"].to_pylist()) == {"flip"}


def test_copies_are_numbered_without_gaps_and_within_the_cap() -> None:
    table = planned(make_mixed(), balance={"max_copies": 3}).table
    numbers: dict[str, list[int]] = {}
    for image, copy in zip(table["image_id"].to_pylist(), table["copy"].to_pylist(), strict=True):
        numbers.setdefault(image, []).append(copy)
    assert all(found == list(range(len(found))) for found in numbers.values())
    assert max(map(len, numbers.values())) == 3


def test_numbers_of_bins_and_cells_are_those_of_the_table() -> None:
    plan = planned(make_mixed())
    train = plan.table.filter(pc.equal(plan.table["split"], "train"))
    cells = Counter(train["cell"].to_pylist())
    assert {cell.cell: cell.n_after for cell in plan.cells} == dict(cells)
    for bin_ in plan.bins:
        inside = [cell for cell in plan.cells if cell.bin == bin_.bin]
        assert sum(cell.n_after for cell in inside) == bin_.n_after
        assert sum(cell.n_before for cell in inside) == bin_.n_before
        assert bin_.shortfall == bin_.target - bin_.n_after
        assert (bin_.n_after == bin_.target) or bin_.n_before * 8 < bin_.target
    assert plan.summary()["imbalance_ratio"]["after"] < plan.summary()["imbalance_ratio"]["before"]


def test_odd_copies_go_to_the_same_images_whatever_the_others_are() -> None:
    rows = [{"key": at, "valence": 5.0, "subtype": "A"} for at in range(3)]
    rows += [{"key": f"p{at}", "valence": 95.0, "subtype": "P"} for at in range(4)]
    table = planned(make_rows(rows), split="none").table
    more = table.filter(pc.equal(table["copy"], 1))["image_id"].to_pylist()
    assert len(more) == 1
    again = planned(make_rows(rows[::-1]), split="none").table
    assert again.filter(pc.equal(again["copy"], 1))["image_id"].to_pylist() == more
    tables = [planned(make_rows(rows), split="none", seed=seed).table for seed in range(1, 12)]
    copied = [table.filter(pc.equal(table["copy"], 1))["image_id"].to_pylist() for table in tables]
    assert len(set(map(tuple, copied))) > 1


def test_adding_rows_changes_no_other_rows_seed() -> None:
    old, new = (rows_of(planned(make_mixed(n))) for n in (120, 121))
    shared = set(old) & set(new)
    assert len(shared) > 150
    assert all(old[key] == new[key] for key in shared)
    assert all(seed == copy_seed(0, *key) for key, (seed, _) in new.items())


def test_a_copy_is_the_same_image_in_every_fold() -> None:
    table = make_mixed()
    recipe = make_recipe()
    plans = []
    for fold in range(3):
        split = pa.array(["test" if at % 3 == fold else "train" for at in range(len(table))])
        at = table.column_names.index("split")
        plans.append(rows_of(plan_rows(table.set_column(at, "split", split), recipe)))
    for first, second in itertools.pairwise(plans):
        shared = set(first) & set(second)
        assert any(copy for _, copy in shared)
        assert all(first[key] == second[key] for key in shared)


def test_groups_stay_together() -> None:
    table = planned(make_mixed(400)).table
    split = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert all(split[image_id(str(at))] == split[image_id(str(at - 1))] for at in range(9, 400, 10))


def test_declared_columns_are_groups() -> None:
    rows = [
        {"key": at, "valence": at % 100 + 0.5, "subtype": "A", "artist": f"a{at // 7}"} for at in range(210)
    ]
    table = planned(make_rows(rows), split={"val": 0.2, "test": 0.2, "groups": ["artist"]}).table
    split = dict(zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    for artist in range(30):
        assert len({split[image_id(str(at))] for at in range(artist * 7, artist * 7 + 7)}) == 1
    with pytest.raises(RecipeError, match="no column 'painter'") as caught:
        planned(make_rows(rows), split={"val": 0.2, "groups": ["painter"]})
    assert caught.value.where == "split.groups"


def test_look_alikes_of_two_manifests_share_a_split() -> None:
    """The same pixels in another container: two files, two manifests, one image."""
    first = make_rows([{"key": at, "valence": at + 0.5, "subtype": "A"} for at in range(60)])
    same = [{"key": f"o{at}", "valence": at + 0.5, "subtype": "A", "source": "oasis"} for at in range(60)]
    second = make_rows([{**row, "pixel_id": image_id(str(at))[:32]} for at, row in enumerate(same)])
    manifests = [make_manifest(first), make_manifest(second, "oasis")]
    recipe = make_recipe(split={"val": 0.3, "test": 0.3})
    rows, _ = plan_release(manifests, [], recipe)
    names = (path.removesuffix(".bmp") for path in rows["path"].to_pylist())
    split = dict(zip(names, rows["split"].to_pylist(), strict=True))
    assert all(split[str(at)] == split[f"o{at}"] for at in range(60))


def test_groups_of_each_manifest_hold_when_there_are_several() -> None:
    rows = [{"key": at, "valence": at % 97 + 0.5, "subtype": "A", "group": at - at % 2} for at in range(80)]
    other = [{**row, "key": f"o{row['key']}", "group": f"o{row['group']}", "source": "oasis"} for row in rows]
    manifests = [make_manifest(make_rows(rows)), make_manifest(make_rows(other), "oasis")]
    found, _ = plan_release(manifests, [], make_recipe(split={"val": 0.3, "test": 0.3}))
    names = (path.removesuffix(".bmp") for path in found["path"].to_pylist())
    split = dict(zip(names, found["split"].to_pylist(), strict=True))
    for at in range(0, 80, 2):
        assert split[str(at)] == split[str(at + 1)]
        assert split[f"o{at}"] == split[f"o{at + 1}"]


def test_a_subject_is_one_within_its_source() -> None:
    rows = [{"key": key, "valence": 10.0 * at, "subject_id": "1"} for at, key in enumerate("ab")]
    gaped = make_manifest(make_rows(rows))
    other = make_manifest(make_rows([{"key": "c", "source": "x", "valence": 30.0, "subject_id": "1"}]), "x")
    recipe = make_recipe(split={"test": 0.3}, strata=[])
    rows = split_rows(choose_rows([gaped, other], recipe), recipe)
    groups = dict(zip(rows["path"].to_pylist(), rows["group_id"].to_pylist(), strict=True))
    assert groups["a.bmp"] == groups["b.bmp"] != groups["c.bmp"]


@pytest.mark.parametrize(
    ("strata", "sources", "resolved"),
    [
        (None, ["a", "b"], ["source"]),
        (["subtype"], ["a", "b"], ["source", "subtype"]),
        ([], ["a", "b"], []),  # set in the recipe
        (["subtype", "source"], ["a", "b"], ["subtype", "source"]),
        (None, ["a", "a"], []),
    ],
)
def test_of_several_sources_source_is_a_stratum(
    strata: list[str] | None, sources: list[str], resolved: list[str]
) -> None:
    tables = [make_rows([{"key": f"{at}", "source": name}]) for at, name in enumerate(sources)]
    whole = make_manifest(pa.concat_tables(tables), "all")
    for manifests in ([whole], [make_manifest(table, f"m{at}") for at, table in enumerate(tables)]):
        recipe = resolve_strata(make_recipe(strata=strata), manifests)
        assert recipe.strata == resolved
        assert resolve_strata(parse_recipe(recipe.document()), manifests).digest == recipe.digest


def test_one_image_in_two_manifests_is_refused() -> None:
    table = make_rows([{"valence": 5.0, "subtype": "A"}])
    with pytest.raises(RecipeError, match="an image is in two of the manifests"):
        choose_rows([make_manifest(table), make_manifest(table, "again")], make_recipe())


def test_a_split_that_straddles_a_group_is_refused() -> None:
    rows = [{"key": "a", "split": "train"}, {"key": "b", "group": "a", "split": "val"}]
    table = make_rows([{"valence": 5.0, "subtype": "A", **row} for row in rows])
    with pytest.raises(IntegrityError, match="one group is in two splits"):
        planned(table)


def test_where_excludes_rows() -> None:
    table = make_mixed()
    chosen = choose_rows([make_manifest(table)], make_recipe(where="subtype <> 'A' AND valence >= 50"))
    assert 0 < len(chosen) < len(table)
    assert "A" not in chosen["subtype"].to_pylist()
    assert min(chosen["valence"].to_pylist()) >= 50
    assert chosen.schema == table.schema


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("valense > 50", "valense"),
        ("valence >", "is not a valid condition over the manifest"),
        ("subtype IN (SELECT * FROM read_csv('/etc/passwd'))", "is not a valid condition over the manifest"),
        ("valence > 100", "no row of gaped is left"),
    ],
)
def test_a_condition_that_does_not_work_is_refused(where: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        choose_rows([make_manifest(make_mixed())], make_recipe(where=where))
    assert caught.value.where == "where"
    assert caught.value.exit_code == 3


def test_a_subtype_that_no_image_has_is_refused() -> None:
    recipe = make_recipe(subtypes={"default": {"pipeline": "flip"}, "Snake": {"pipeline": "flip"}})
    with pytest.raises(RecipeError, match="no image has the subtype 'Snake'") as caught:
        plan_release([make_manifest(make_mixed())], [], recipe)
    assert caught.value.exit_code == 3
    assert caught.value.where == "subtypes"
    assert caught.value.fix.startswith("did you mean 'Sn'? known subtypes: A, H, N, P, Sn, Sp")


def test_a_subtype_excluded_by_the_condition_is_no_error() -> None:
    subtypes = {"default": {"pipeline": "flip"}, "Sn": {"pipeline": "flip"}}
    recipe = make_recipe(subtypes=subtypes, where="subtype <> 'Sn'", balance={"max_copies": 2})
    rows, plan = plan_release([make_manifest(make_mixed())], [], recipe)
    assert "Sn" not in rows["subtype"].to_pylist() and plan.table.num_rows >= rows.num_rows


def test_no_row_left_to_train_on_is_refused() -> None:
    table = make_rows([{"valence": 5.0, "subtype": "A", "split": "test"}] * 1)
    with pytest.raises(RecipeError, match="no row is left for train") as caught:
        planned(table)
    assert caught.value.where == "split"


def test_a_bin_without_images_stays_empty_with_a_shortfall() -> None:
    table = make_rows([{"key": at, "valence": 95.0, "subtype": "A"} for at in range(6)])
    plan = planned(table, split="none")
    assert [bin_.n_after for bin_ in plan.bins] == [0] * 9 + [6]
    assert [bin_.shortfall for bin_ in plan.bins] == [6] * 9 + [0]


@pytest.mark.parametrize(
    ("level", "counts"), [("max", [8, 8, 8]), ("median", [4, 4, 8]), (6, [6, 6, 8]), (100, [16, 32, 64])]
)
def test_levels(level: Any, counts: list[int]) -> None:
    values = [5.0] * 2 + [15.0] * 4 + [25.0] * 8
    table = make_rows([{"key": at, "valence": value, "subtype": "A"} for at, value in enumerate(values)])
    plan = planned(table, split="none", bins={"edges": [0, 10, 20, 30]}, balance={"level": level})
    assert [bin_.n_after for bin_ in plan.bins] == counts


def test_undersampling_drops_images_of_train_only() -> None:
    table = make_mixed(300)
    plan = planned(
        table, balance={"level": 5, "max_copies": 1, "undersample": True}, subtypes={}, pipelines={}
    )
    sides = Counter(plan.table["split"].to_pylist())
    assert all(bin_.n_after <= 5 for bin_ in plan.bins)
    assert sides["val"] + sides["test"] == pytest.approx(120, abs=3)
    assert set(plan.table["copy"].to_pylist()) == {0}


def test_undersampling_below_the_number_of_strata_leaves_some_empty() -> None:
    rows = [{"key": at, "valence": 5.0, "subtype": subtype} for at, subtype in enumerate("APAP")]
    plan = planned(make_rows(rows), split="none", balance={"level": 1, "max_copies": 1, "undersample": True})
    assert [(cell.n_before, cell.n_after, cell.n_eff) for cell in plan.cells] == [(2, 1, 1.0), (2, 0, 0.0)]


def test_upright_images_are_not_turned_upside_down() -> None:
    upright = upright_subtypes([make_manifest(make_mixed())])
    assert upright == {"A": True, "H": True, "N": True, "P": True, "Sn": False, "Sp": False}
    pipelines = {"flip": FLIP, "turn": TURN, "over": [{"VerticalFlip": {"p": 0.5}}]}

    def check(**subtypes: Any) -> None:
        check_upright(make_recipe(pipelines=pipelines, subtypes=subtypes), upright)

    check(default={"pipeline": "flip"}, Sn={"pipeline": "turn"}, Sp={"pipeline": "over"})
    with pytest.raises(RecipeError) as caught:
        check(default={"pipeline": "flip"}, A={"pipeline": "turn"}, P={"pipeline": "over"})
    assert "A: pipeline turn turns it upside down (D4)" in caught.value.what
    assert "P: pipeline over turns it upside down (VerticalFlip)" in caught.value.what
    assert "N:" not in caught.value.what
    assert caught.value.exit_code == 3
    check(default={"pipeline": "flip"}, A={"pipeline": "turn", "upright": False})
    with pytest.raises(RecipeError, match="Sn: pipeline turn turns it upside down"):
        check(default={"pipeline": "flip"}, Sn={"pipeline": "turn", "upright": True})
    with pytest.raises(
        RecipeError, match="N: pipeline over turns it upside down"
    ):  # by default, all that are not named
        check(default={"pipeline": "over"})


def test_a_subtype_without_data_sheet_counts_as_upright() -> None:
    subtypes = {"default": {"pipeline": "flip"}, "Painting": {"pipeline": "turn"}}
    recipe = make_recipe(pipelines={"flip": FLIP, "turn": TURN}, subtypes=subtypes)
    with pytest.raises(RecipeError, match="Painting: pipeline turn"):
        check_upright(recipe, {})


def test_a_million_copies_are_a_plan_not_a_crash() -> None:
    rows = [{"key": at, "valence": 5.0, "subtype": "A"} for at in range(100)]
    plan = planned(make_rows(rows), split="none", balance={"level": 10**9, "max_copies": 1000})
    assert plan.table.num_rows == 100_000
    assert plan.bins[0].shortfall == 10**9 - 100_000


def test_split_none_assigns_train_alone_and_keeps_what_was_held_out() -> None:
    rows = [{"key": 0, "split": "test"}, {"key": 1, "group": 0}, {"key": 2}, {"key": 3, "split": "val"}]
    table = make_rows([{"valence": 5.0, "subtype": "A", **row} for row in rows]).sort_by("path")
    splits = split_rows(table, make_recipe(split="none"))["split"].to_pylist()
    assert splits == ["test", "test", "train", "val"]


@pytest.fixture(scope="module")
def real_gaped(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The real collection, for those who have it; its images are never copied or shown."""
    root = os.environ.get("AFFECTDATA_GAPED")
    if not root or not Path(root).is_dir():
        pytest.skip("set AFFECTDATA_GAPED to the folder of the real GAPED to run this")
    result = ingest(Path(root), source="gaped", out=tmp_path_factory.mktemp("real"))
    return load_manifest(result.manifest.path)


def test_real_gaped_comes_out_level(real_gaped: Manifest) -> None:
    document = read_recipe(packaged_recipes() / "valence_bins.yaml").document()
    recipe = parse_recipe({**document, "split": "none"})
    plan = plan_release([real_gaped], [], recipe)[1]
    assert [bin_.n_before for bin_ in plan.bins] == [39, 95, 84, 132, 110, 123, 26, 13, 37, 71]
    assert [bin_.n_after for bin_ in plan.bins] == [132] * 7 + [104] + [132] * 2
    assert [bin_.shortfall for bin_ in plan.bins] == [0] * 7 + [28] + [0] * 2
    after = {(cell.bin, cell.stratum): cell.n_after for cell in plan.cells}
    assert {stratum: n for (name, stratum), n in after.items() if name == "[0,10)"} == {
        "A": 62,
        "H": 62,
        "Sp": 8,
    }
    assert sorted(n for (name, _), n in after.items() if name == "[30,40)") == [15, 16, 33, 68]


def test_a_condition_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_module, "_QUERY_S", 0.3)
    where = "(SELECT count(*) FROM range(10000000) a, range(10000000) b) > 0"
    with pytest.raises(RecipeError, match=r"too much time or memory: .* 0\.3 s") as caught:
        choose_rows([make_manifest(make_mixed())], make_recipe(where=where))
    assert caught.value.where == "where"


def test_a_condition_that_needs_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(query_module._LIMITS, "memory_limit", "20MB")
    where = "(SELECT count(DISTINCT range) FROM range(30000000)) > 0"
    with pytest.raises(RecipeError, match="too much time or memory"):
        choose_rows([make_manifest(make_mixed())], make_recipe(where=where))


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the address space is limited on Linux")
def test_memory_that_duckdb_does_not_count_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_module, "_MORE_BYTES", 1 << 28)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(RecipeError, match="too much time or memory"):
        choose_rows([make_manifest(make_mixed())], make_recipe(where="length(repeat('a', 500000000)) > 1"))
    assert resource.getrlimit(resource.RLIMIT_AS) == before
