"""The five projects' recipes on manifests in their sources' shape: the numbers that each project needed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from affectdata.labels import MAPS, VOCABULARIES
from affectdata.plan.plan import Plan
from affectdata.plan.planner import describe_splits, plan_release, plan_rows
from affectdata.recipe.recipe import Recipe, packaged_recipes, parse_recipe, read_recipe
from affectdata.schema import PLAN, manifest_schema
from tests.made import image_id, make_manifest, make_recipe

MIKELS = {  # images of Flickr & Instagram on which most voters agreed (You et al. 2016)
    "amusement": 4923,
    "anger": 1255,
    "awe": 3133,
    "contentment": 5356,
    "disgust": 1650,
    "excitement": 2918,
    "fear": 1029,
    "sadness": 2902,
}
CAPD = [88, 76, 70, 62, 55, 48, 40, 36, 29, 22]  # 526 images in ten categories


def packaged(name: str) -> Recipe:
    return read_recipe(packaged_recipes() / f"{name}.yaml")


def make_table(source: str, n: int, **columns: Sequence[Any]) -> pa.Table:
    """A manifest's table by columns, each row a group of its own unless `group_id` is given."""
    ids = [image_id(f"{source}-{at}") for at in range(n)]
    emotions = [name.removeprefix("emotion_") for name in columns if name.startswith("emotion_")]
    schema = manifest_schema(emotions)
    fixed: dict[str, Any] = {
        "image_id": ids,
        "pixel_id": [id_[:32] for id_ in ids],
        "phash": [id_[:16] for id_ in ids],
        "phash_views": [id_[:16] * 7 for id_ in ids],
        "source": [source] * n,
        "source_id": [str(at) for at in range(n)],
        "path": [f"{at}.jpg" for at in range(n)],
        "format": ["jpeg"] * n,
        "bytes": [1] * n,
        "width_px": [500] * n,
        "height_px": [400] * n,
        "extra": ["{}"] * n,
        "group_id": ids,
        **columns,
    }
    return pa.table(
        [pa.array(fixed.get(field.name, [None] * n), field.type) for field in schema], schema=schema
    )


def planned(table: pa.Table, recipe: Recipe, other: pa.Table | None = None) -> tuple[pa.Table, Plan]:
    others = [] if other is None else [make_manifest(other, "other")]
    rows, plan = plan_release([make_manifest(table)], others, recipe)
    check_plan(rows, plan, recipe)
    return rows, plan


def check_plan(rows: pa.Table, plan: Plan, recipe: Recipe) -> None:
    """What every plan of every recipe keeps."""
    copies = plan.table.filter(pc.greater(plan.table["copy"], 0))
    assert set(copies["split"].to_pylist()) <= {"train"}
    assert plan.table["copy"].to_numpy().max() < recipe.balance.max_copies
    groups = rows.group_by("group_id").aggregate([("split", "count_distinct")])
    assert set(groups["split_count_distinct"].to_pylist()) == {1}
    for bin_ in plan.bins:
        assert bin_.n_after + bin_.shortfall >= bin_.target or recipe.balance.undersample


def sizes(rows: pa.Table) -> dict[str, int]:
    return dict(Counter(rows["split"].to_pylist()))


def copies_by(rows: pa.Table, plan: Plan, *columns: str) -> Counter[tuple[Any, ...]]:
    """Rows of train by columns of their source rows."""
    train = plan.table.filter(pc.equal(plan.table["split"], "train"))
    source = rows.take(pc.index_in(train["image_id"], rows["image_id"]))
    return Counter(zip(*(source[name].to_pylist() for name in columns), strict=True))


def test_every_packaged_recipe_is_tried_here_or_with_the_golden_plans() -> None:
    here = {"capd_top6", "fi_mikels8", "utkface_fair", "wikiart_quadrants", "oasis_va"}
    here |= {
        "capd_shares",
        "emotion6_shares",
        "fi_sets",
        "undersample",
        "weights_only",
        "valence_bins_oasis",
        "valence_bins",
    }
    assert {path.stem for path in packaged_recipes().glob("*.yaml")} == here


# --- CAP-D: more than half agree, six largest classes, 70/10/20 ---------------------------------------------


def make_capd() -> pa.Table:
    draw = random.Random(0)
    emotions = [f"category_{at}" for at, n in enumerate(CAPD) for _ in range(n)]
    agreement = [0.5 if at % 10 == 0 else draw.uniform(0.2, 1.0) for at in range(len(emotions))]
    return make_table("capd", len(emotions), emotion=emotions, agreement=agreement)


def test_capd_keeps_the_six_largest_classes_that_raters_agree_on() -> None:
    table = make_capd()
    agreed = Counter(
        emotion
        for emotion, share in zip(table["emotion"].to_pylist(), table["agreement"].to_pylist(), strict=True)
        if share > 0.5
    )
    largest = dict(sorted(agreed.items(), key=lambda pair: (-pair[1], pair[0]))[:6])
    rows, plan = planned(table, packaged("capd_top6"))
    assert Counter(rows["label"].to_pylist()) == largest
    assert min(rows["agreement"].to_pylist()) > 0.5
    n = len(rows)
    assert (sizes(rows)["val"], sizes(rows)["test"]) == (round(0.1 * n), round(0.2 * n))
    for label, count in largest.items():  # 70/10/20 in every class
        part = rows.filter(pc.equal(rows["label"], label))
        assert abs(sizes(part)["test"] - 0.2 * count) <= 1
    assert len(plan.bins) == 6
    assert {bin_.n_after for bin_ in plan.bins} == {max(bin_.n_before for bin_ in plan.bins)}
    assert plan.summary()["imbalance_ratio"]["after"] == 1


# --- FI: eight emotions of very different size, 80/10/10, weights ----------------------------------------


def test_fi_is_split_80_10_10_in_every_emotion_and_weighted() -> None:
    counts = {emotion: n // 5 for emotion, n in MIKELS.items()}
    emotions = [emotion for emotion, n in counts.items() for _ in range(n)]
    more = ["joy"] * 40 + [None] * 25  # not of the eight, and without a label
    table = make_table("fi", len(emotions) + 65, emotion=[*emotions, *more])
    rows, plan = planned(table, packaged("fi_mikels8"))
    n = len(emotions)
    assert len(rows) == len(plan.table) == n
    assert abs(sizes(rows)["val"] - 0.1 * n) <= 1
    assert abs(sizes(rows)["test"] - 0.1 * n) <= 1
    for emotion, count in counts.items():
        part = sizes(rows.filter(pc.equal(rows["emotion"], emotion)))
        assert abs(part["val"] - 0.1 * count) <= 1
        assert abs(part["test"] - 0.1 * count) <= 1
    assert set(plan.table["copy"].to_pylist()) == {0}
    weight = {row["cell"]: row["weight"] for row in plan.table.to_pylist() if row["split"] == "train"}
    rarest, most = weight["emotion=fear"], weight["emotion=contentment"]
    assert max(weight.values()) == rarest > 4 * most
    train = {bin_.bin: bin_.n_before for bin_ in plan.bins}
    expected = (1 - 0.9999 ** train["contentment"]) / (1 - 0.9999 ** train["fear"])
    assert rarest / most == pytest.approx(expected)
    assert plan.bins[0].shortfall > 0  # the plan reports what weights cannot balance


# --- UTKFace: 2,000 faces to about 12,600, level over age group, ethnicity and gender --------------------


def make_faces(n: int = 2000) -> pa.Table:
    """Shares as in UTKFace: half are young adults, two fifths White; some people are there twice."""
    draw = random.Random(1)

    def pick(weights: dict[str, float]) -> list[str]:
        return draw.choices(list(weights), list(weights.values()), k=n)

    subjects = [f"person-{draw.randrange(n * 4 // 5)}" for _ in range(n)]
    return make_table(
        "utkface",
        n,
        emotion=pick({"happiness": 0.55, "neutral": 0.35, "sadness": 0.06, "surprise": 0.04}),
        age=pick({2: 0.07, 8: 0.07, 16: 0.06, 30: 0.5, 50: 0.2, 70: 0.1}),
        ethnicity=pick({"White": 0.42, "Black": 0.19, "Indian": 0.17, "Asian": 0.15, "Others": 0.07}),
        gender=pick({"male": 0.52, "female": 0.48}),
        subject_id=subjects,
    )


def test_faces_come_to_12600_level_over_all_three() -> None:
    table = make_faces()
    rows, plan = planned(table, packaged("utkface_fair"))
    assert set(rows["emotion"].to_pylist()) == {"happiness", "neutral"}
    assert [(bin_.bin, bin_.n_after, bin_.shortfall) for bin_ in plan.bins] == [
        ("happiness", 6300, 0),
        ("neutral", 6300, 0),
    ]
    n = len(rows)
    assert abs(sizes(rows)["test"] - 0.2 * n) <= 15
    assert abs(sizes(rows)["val"] - 0.1 * n) <= 15
    before = Counter(
        zip(
            *(
                rows.filter(pc.equal(rows["split"], "train"))[name].to_pylist()
                for name in ("emotion", "age", "ethnicity", "gender")
            ),
            strict=True,
        )
    )
    after = copies_by(rows, plan, "emotion", "age", "ethnicity", "gender")
    assert sum(after.values()) == 12_600
    level = {
        emotion: max(n for cell, n in after.items() if cell[0] == emotion)
        for emotion in ("happiness", "neutral")
    }
    for cell, n_before in before.items():  # level, or at the cap of 20
        assert level[cell[0]] - 1 <= after[cell] <= level[cell[0]] or after[cell] == 20 * n_before
    for column in ("age", "gender"):  # the margins are closer than they were
        was = Counter(rows.filter(pc.equal(rows["split"], "train"))[column].to_pylist())
        now = {key[0]: count for key, count in copies_by(rows, plan, column).items()}
        assert max(now.values()) / min(now.values()) < 0.5 * max(was.values()) / min(was.values()) + 0.6


def test_a_declared_test_set_of_faces_stays_as_it_is() -> None:
    """63 images are fewer than a fifth; without `grow: false` others would join them."""
    table = make_faces()
    first = {row["subject_id"] for row in table.slice(0, 40).to_pylist()}
    declared = ["test" if subject in first else None for subject in table["subject_id"].to_pylist()]
    table = table.set_column(table.column_names.index("split"), "split", pa.array(declared, pa.string()))
    fair = packaged("utkface_fair")
    rows, _ = planned(table, fair)
    before = {row["image_id"] for row in table.to_pylist() if row["split"] == "test"}
    known = {*rows["image_id"].to_pylist()}
    test = {row["image_id"] for row in rows.to_pylist() if row["split"] == "test"}
    assert test == before & known and len(test) < 0.1 * len(rows)
    assert abs(sizes(rows)["val"] - 0.1 * len(rows)) <= 15
    grown, _ = planned(
        table, parse_recipe({**fair.document(), "split": {**fair.document()["split"], "grow": True}})
    )
    assert sizes(grown)["test"] > 2 * len(test)


def test_a_recipe_without_the_key_has_no_trace_of_it() -> None:
    assert "grow" not in packaged("capd_top6").document()["split"]
    assert packaged("utkface_fair").document()["split"]["grow"] is False


def test_no_person_is_in_two_splits() -> None:
    rows, _ = planned(make_faces(), packaged("utkface_fair"))
    people = rows.group_by("subject_id").aggregate([("split", "count_distinct"), ([], "count_all")])
    assert set(people["split_count_distinct"].to_pylist()) == {1}
    assert max(people["count_all"].to_pylist()) > 2


# --- WikiArt: quadrants and their mixtures, seven classes of which one has 11 images -------------------

CLASSES = {
    ("Calm",): 420,
    ("Euphoric",): 510,
    ("Aggressive",): 130,
    ("Calm", "Euphoric"): 240,
    ("Aggressive", "Calm"): 75,
    ("Aggressive", "Euphoric"): 30,
    ("Aggressive", "Calm", "Euphoric"): 11,
}
ARTISTS = 160


def make_wikiart() -> pa.Table:
    """Shares of 20 emotions per painting; two emotions of a quadrant make it no mixture."""
    moods = MAPS["mood_quadrants"].classes
    merge = {**moods, "Calm": moods["Calm"] + moods["Melancholy"]}
    names = VOCABULARIES["wikiart20"].emotions
    draw = random.Random(2)
    found: list[dict[str, float]] = []
    for quadrants, count in CLASSES.items():
        for at in range(count):
            shares = {name: draw.uniform(0, 0.39) for name in names}
            for quadrant in quadrants:
                for word in draw.sample(merge[quadrant], 1 + at % 2):
                    shares[word] = draw.choice([0.4, 0.5, 0.9])
            shares["neutral"] = draw.choice([0.0, 0.6])
            found.append(shares)
    found += [{**dict.fromkeys(names, 0.1), "neutral": 0.8}] * 90  # nothing but neutral
    columns = {f"emotion_{name}": [shares[name] for shares in found] for name in names}
    artists = [f"artist-{int(draw.paretovariate(0.7)) % ARTISTS}" for _ in found]
    return make_table("wikiart_emotions", len(found), artist=artists, **columns)


def test_wikiart_has_seven_classes_and_the_smallest_keeps_its_cap() -> None:
    recipe = packaged("wikiart_quadrants")
    rows, plan = planned(make_wikiart(), recipe)
    assert Counter(rows["label"].to_pylist()) == {"+".join(key): n for key, n in CLASSES.items()}
    assert len(plan.bins) == 7
    small = next(bin_ for bin_ in plan.bins if bin_.bin == "Aggressive+Calm+Euphoric")
    assert 0 < small.n_before <= 11
    assert small.n_after == min(small.target, 8 * small.n_before)
    assert small.shortfall == small.target - small.n_after
    assert small.target == sorted(bin_.n_before for bin_ in plan.bins)[3]
    for bin_ in plan.bins:
        assert bin_.n_after == max(bin_.n_before, min(bin_.target, 8 * bin_.n_before))
    artists = rows.group_by("artist").aggregate([("split", "count_distinct"), ([], "count_all")])
    assert set(artists["split_count_distinct"].to_pylist()) == {1}
    assert max(artists["count_all"].to_pylist()) > 100
    n = len(rows)
    assert sizes(rows)["test"] == pytest.approx(0.2 * n, rel=0.1)
    assert sizes(rows)["val"] == pytest.approx(0.1 * n, rel=0.2)


# --- OASIS: the plane of valence and arousal -------------------------------------------------------------


def make_oasis(n: int = 900) -> pa.Table:
    rng = np.random.default_rng(3)
    themes = np.sort(rng.integers(0, 220, n))
    valence = np.clip(55 + 22 * rng.normal(size=220)[themes] + 6 * rng.normal(size=n), 1, 95)
    arousal = np.clip(45 + 0.3 * np.abs(valence - 50) + 12 * rng.normal(size=n), 5, 90)
    names = ["Person", "Scenery", "Object", "Animal"]
    return make_table(
        "oasis",
        n,
        subtype=rng.choice(names, n, p=[0.39, 0.24, 0.22, 0.15]).tolist(),
        valence=np.round(valence, 6).tolist(),
        arousal=np.round(arousal, 6).tolist(),
        theme=[f"Theme {at}" for at in themes],
    )


def test_oasis_levels_thirds_of_arousal_within_valence() -> None:
    rows, plan = planned(make_oasis(), packaged("oasis_va"))
    assert len(plan.bins) == 8
    assert {cell.stratum for cell in plan.cells} <= {
        cell.stratum for cell in plan.cells if cell.bin[0] == "["
    }
    assert len({cell.stratum for cell in plan.cells}) == 3
    assert {bin_.shortfall for bin_ in plan.bins} == {0}
    assert plan.summary()["imbalance_ratio"]["after"] == 1
    themes = rows.group_by("theme").aggregate([("split", "count_distinct")])
    assert set(themes["split_count_distinct"].to_pylist()) == {1}
    found = describe_splits(rows, packaged("oasis_va"))
    assert found.rows["test"] == pytest.approx(135, abs=8)
    assert found.distance.bin["test"] < 0.08


# --- GAPED: undersampled, weighted, filled from OASIS ----------------------------------------------------

GAPED = [39, 95, 84, 132, 110, 123, 26, 13, 37, 71]  # the real counts per ten points of valence


def make_gaped() -> pa.Table:
    draw = random.Random(4)
    bins = [at for at, n in enumerate(GAPED) for _ in range(n)]
    by_bin = {0: ["A", "H", "Sp"], 1: ["A", "H", "Sp", "Sn"], 8: ["P"], 9: ["P"], 7: ["P"]}
    return make_table(
        "gaped",
        len(bins),
        valence=[round(at * 10 + draw.uniform(0, 9.99), 3) for at in bins],
        subtype=[draw.choice(by_bin.get(at, ["A", "H", "N", "Sn", "Sp"])) for at in bins],
    )


def test_undersampling_cuts_to_the_median_and_copies_nothing() -> None:
    rows, plan = planned(make_gaped(), packaged("undersample"))
    train = sorted(bin_.n_before for bin_ in plan.bins)
    target = int(np.median(train))
    assert {bin_.target for bin_ in plan.bins} == {target}
    assert [bin_.n_after for bin_ in plan.bins] == [min(bin_.n_before, target) for bin_ in plan.bins]
    assert set(plan.table["copy"].to_pylist()) == {0}
    by_split = Counter(plan.table["split"].to_pylist())
    assert (by_split["val"], by_split["test"]) == (sizes(rows)["val"], sizes(rows)["test"])


def test_weights_only_is_a_row_per_image_and_level_by_weight() -> None:
    rows, plan = planned(make_gaped(), packaged("weights_only"))
    assert sorted(plan.table["image_id"].to_pylist()) == sorted(rows["image_id"].to_pylist())
    assert set(plan.table["copy"].to_pylist()) == {0}
    totals: Counter[str] = Counter()
    for row in plan.table.to_pylist():
        if row["split"] == "train":
            totals[row["cell"].split("|")[0]] += row["weight"]
    assert len(totals) == 10 and max(totals.values()) / min(totals.values()) < 1.01  # bins


def test_oasis_fills_the_thin_bins_of_gaped_before_copies_do() -> None:
    gaped, oasis = make_gaped(), make_oasis()
    recipe = packaged("valence_bins_oasis")
    rows, plan = planned(gaped, recipe, oasis)
    alone = planned(gaped, packaged("valence_bins"))[1]
    assert [bin_.n_before for bin_ in plan.bins] == [bin_.n_before for bin_ in alone.bins]
    assert [bin_.target for bin_ in plan.bins] == [bin_.target for bin_ in alone.bins]
    filled = [bin_.n_filled for bin_ in plan.bins]
    supply = np.histogram(oasis["valence"].to_numpy(), np.arange(0, 101, 10))[0]
    lacking = [bin_.target - bin_.n_before for bin_ in plan.bins]
    assert filled == [min(n, lack) for n, lack in zip(supply.tolist(), lacking, strict=True)]
    assert sum(filled) > 200
    new = rows.filter(pc.equal(rows["source"], "oasis"))
    assert set(new["split"].to_pylist()) == {"train"}
    assert len(rows) == sum(GAPED) + sum(filled)
    own = rows.filter(pc.equal(rows["source"], "gaped"))
    assert sizes(own)["test"] == pytest.approx(0.15 * 730, abs=2)
    kinds = Counter(new["subtype"].to_pylist())
    assert min(kinds.values()) > 0.4 * max(kinds.values())  # closer than 15 % to 39 %
    n_copies = pc.sum(pc.greater(plan.table["copy"], 0)).as_py()
    assert n_copies < 0.5 * pc.sum(pc.greater(alone.table["copy"], 0)).as_py()


# --- size ------------------------------------------------------------------------------------------------


def make_large(n: int) -> pa.Table:
    """Rows in 10 bins × 6 subtypes, thinner towards the top; only the columns that a plan needs."""
    rng = np.random.default_rng(0)
    digits = np.frombuffer(rng.bytes(n * 32), np.uint8).reshape(n, 32)
    hexed = [row.tobytes().hex() for row in digits]
    split = np.where(np.arange(n) % 10 < 7, "train", np.where(np.arange(n) % 2, "val", "test"))
    valence = np.round(99.9 * rng.beta(1.2, 2.5, n), 3)
    subtype = np.array(["A", "H", "N", "P", "Sn", "Sp"])[
        rng.choice(6, n, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    ]
    columns = {"image_id": hexed, "split": split, "valence": valence, "subtype": subtype}
    return pa.table({**columns, "source": ["gaped"] * n}).sort_by("image_id")


def test_a_plan_of_200_000_rows_in_60_cells() -> None:
    n = 200_000
    plan = plan_rows(make_large(n), make_recipe(balance={"level": 30_000, "max_copies": 3}))
    assert len(plan.cells) == 60
    assert plan.table.schema.names == PLAN.names
    assert len(plan.table) == 60_000 + sum(bin_.n_after for bin_ in plan.bins)
    assert all(bin_.n_after <= 3 * bin_.n_before or bin_.n_after == bin_.n_before for bin_ in plan.bins)
    assert sum(bin_.n_before for bin_ in plan.bins) == 140_000
    originals = plan.table.filter(pc.equal(plan.table["copy"], 0))
    assert len(originals) == n
