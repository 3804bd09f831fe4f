"""check.leak and check.shift: leaks are found, and the prediction shift by the look of copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from affectdata.check.blocks import Arm, Bins, ByScoring, CheckFigures, Interval, ReleaseBlock
from affectdata.check.evaluate import Classes, EvaluateSplit, SplitEvaluation
from affectdata.check.gate import RULES
from affectdata.check.image_pool import Originals
from affectdata.check.leak import above_chance, describe_leak
from affectdata.check.prepare import CheckInput, Split
from affectdata.check.scores import Scoring, score_classes, score_head, score_subgroups
from affectdata.check.shift import affect_of_look, copies_and_target, describe_effects, describe_shift
from affectdata.recipe.recipe import Check
from affectdata.train.heads import FrozenHeads
from affectdata.train.rows import Rows

Planted = Callable[..., Rows]


def _scoring(splits: list[Split], results: list[SplitEvaluation]) -> Scoring:
    return Scoring(splits, results, len(splits), [0.0, 50.0, 100.0], np.array([False, True]), 0)


def _renamed(rows: Rows, prefix: str) -> Rows:
    names = np.array([prefix + image_id for image_id in rows.image_id])
    return replace(rows, image_id=names, group=names)


def _evaluate(splits: list[Split]) -> Scoring:
    return _scoring(splits, [EvaluateSplit([], True, FrozenHeads(0))(split) for split in splits])


@pytest.mark.slow
def test_the_nearest_neighbour_scores_on_copies_made_before_the_split(
    planted: Planted, prepared: CheckInput
) -> None:
    train = planted(n=60, dim=60)
    clean = [planted(n=60, dim=60, seed=seed) for seed in (1, 2, 3)]
    leaked = [
        replace(train, features=train.features + 0.01, image_id=test.image_id, group=test.group)
        for test in clean
    ]
    scores = {}
    for name, tests in (("clean", clean), ("leaked", leaked)):
        splits = [
            Split({"release": train, "originals": train}, _renamed(test, f"{name}{number}"))
            for number, test in enumerate(tests)
        ]
        originals = _with_ids(prepared, splits)
        found = describe_leak(_evaluate(splits), originals, None, 0.98)
        scores[name] = found.nearest.mean
        assert (found.features.n_over > 0) == (name == "leaked")
    assert scores["clean"] < 0.5 < 0.95 < scores["leaked"]


def _with_ids(prepared: CheckInput, splits: list[Split]) -> Originals:
    """Return originals with the ids of planted rows."""
    ids = sorted(
        {name for split in splits for rows in (split.test, split.arms["originals"]) for name in rows.image_id}
    )
    table = prepared.originals.table
    table = table.take(pa.array(np.arange(len(ids)) % len(table)))
    column = pa.array([str(name) for name in ids])
    table = table.set_column(table.column_names.index("image_id"), table.schema.field("image_id"), column)
    return replace(prepared.originals, table=table)


@pytest.mark.slow
def test_a_near_duplicate_across_a_split_is_named_in_any_view(prepared: CheckInput) -> None:
    results = [EvaluateSplit([], True, FrozenHeads(0))(split) for split in prepared.crossfit[:5]]
    scoring = Scoring(prepared.crossfit[:5], results, 5, [0.0, 50.0, 100.0], np.array([False, True]), 0)
    assert describe_leak(scoring, prepared.originals, None, 1.0).looks.counts["6"] == 0
    table = prepared.originals.table
    row_of = {image_id: row for row, image_id in enumerate(table["image_id"].to_pylist())}
    split = prepared.crossfit[0]
    scored, trained_on = (row_of[str(rows.image_id[0])] for rows in (split.test, split.arms["originals"]))
    hashes = table["phash"].to_pylist()
    hashes[scored] = table["phash_views"].to_pylist()[trained_on][16:32]  # upside down
    forged = table.set_column(
        table.column_names.index("phash"), table.schema.field("phash"), pa.array(hashes)
    )
    looks = describe_leak(scoring, replace(prepared.originals, table=forged), None, 1.0).looks
    assert looks.least_bits == 0 and looks.counts["6"] >= 1
    first = looks.pairs[0]
    assert (
        table["path"][scored].as_py() in first.scored
        and table["path"][trained_on].as_py() in first.trained_on
    )


def _exchanged(rows: Rows, share: float) -> Rows:
    """Exchange the target of a share of all images at random."""
    rng = np.random.default_rng(1)
    exchanged = np.flatnonzero(rng.random(len(rows)) < share)
    order = np.arange(len(rows))
    order[exchanged] = rng.permutation(exchanged)
    return replace(rows, target=rows.target[order], stratum=rows.stratum[order])


@pytest.mark.slow
@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize(("share", "outcome"), [(0.0, "pass"), (0.7, "fail"), (1.0, "fail")])
def test_exchanged_labels_fail_and_true_ones_pass(
    planted: Planted, prepared: CheckInput, numeric: bool, share: float, outcome: str
) -> None:
    rows = _exchanged(planted(n=240, dim=8), share)
    sides = Classes("side", ["down", "up"], lambda rows: np.array(["down", "up"])[rows.stratum])
    fold = np.arange(240) // 2 % 4  # a group has two images
    splits = [
        Split(
            {"release": rows.take(fold != number), "originals": rows.take(fold != number)},
            rows.take(fold == number),
        )
        for number in range(4)
    ]
    classes = [] if numeric else [sides]
    scoring = _scoring(splits, [EvaluateSplit(classes, numeric, FrozenHeads(0))(split) for split in splits])
    leak = describe_leak(scoring, _with_ids(prepared, splits), None if numeric else sides, 1.0)
    if numeric:
        scored = ByScoring(crossfit=score_head(scoring, "originals", "regressor"), heldout=None)
        arm = Arm.model_construct(classifier={}, regressor=scored)
    else:
        classified = ByScoring(crossfit=score_classes(scoring, "originals", sides), heldout=None)
        arm = Arm.model_construct(classifier={"side": classified})
    document = CheckFigures.model_construct(
        numeric=numeric,
        release=ReleaseBlock(id="", name="", recipe="", target="side"),
        crossfit_missing=None,
        bins=Bins(edges=None, labels=[], tail=[], n=ByScoring(crossfit=[100, 100], heldout=None)),
        arms={"originals": arm, "release": arm},
        leak=leak,
    )
    (rule,) = (rule for rule in RULES if rule.name == "learns.above_shuffled")
    results = dict(rule.results(document, Check()))
    assert {result.outcome.value for result in results.values()} == {outcome}, results


def test_above_chance() -> None:
    true = np.array(["a", "a", "b", "b"])
    assert above_chance(true, true) == 1
    assert above_chance(true, np.array(["a"] * 4)) == 0
    assert np.isnan(above_chance(np.array(["a", "a"]), np.array(["a", "a"])))


@pytest.fixture
def drawn(planted: Planted) -> Callable[[float], Scoring]:
    """Return splits whose probe images are marked by a feature that only the release's copies have."""

    def call(mark: float) -> Scoring:
        splits = []
        for seed in range(4):
            base, test = planted(n=120, dim=8, seed=seed), planted(n=80, dim=8, seed=seed + 10)
            base, test = _without_mark(base), _renamed(_without_mark(test), "t")
            high = base.take(np.flatnonzero(base.target > 60))
            copies = replace(high, features=_mark(high.features, 1.0), copy=np.ones(len(high), int))
            marked = copies if mark else base.take(np.arange(1))
            probe = replace(test, features=_mark(test.features, mark))
            splits.append(
                Split({"release": Rows.concat([base, marked]), "originals": base}, test, {"draw:p": probe})
            )
        return _evaluate(splits)

    return call


def _without_mark(rows: Rows) -> Rows:
    return replace(rows, features=_mark(rows.features, 0.0))


def _mark(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x[:, -1] = value
    return x


@pytest.mark.slow
def test_a_shortcut_shifts_the_prediction_of_untouched_images(drawn: Callable[[float], Scoring]) -> None:
    found = describe_shift(drawn(1.0))["p"]
    assert found.low.low > 1  # images of the low side are predicted higher once they are marked
    honest = describe_shift(drawn(0.0))["p"]
    assert honest.all.to_dict() == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert len(found.per_bin) == 2


@pytest.mark.slow
def test_an_effect_is_a_multiple_of_a_flip_on_the_same_images(planted: Planted) -> None:
    train, test = planted(n=120, dim=6), _renamed(planted(n=80, dim=6, seed=1), "t")
    half = test.take(np.arange(40))
    flip, crop = (replace(rows, features=rows.features.copy()) for rows in (test, half))
    flip.features[:, 0] += 0.1
    crop.features[:, 0] += 0.3
    probes = {"effect:flip": flip, "effect:Crop": crop}
    found = describe_effects(_evaluate([Split({"release": train, "originals": train}, test, probes)]))
    assert set(found) == {"Crop"}
    assert found["Crop"].n == 40
    assert found["Crop"].of_flip.mean == pytest.approx(3, rel=0.2)
    assert found["Crop"].of_flip.low < found["Crop"].of_flip.mean < found["Crop"].of_flip.high
    assert found["Crop"].low > 0 and found["Crop"].high > 0


@pytest.mark.slow
def test_more_images_per_group_do_not_narrow_the_interval_of_an_effect(planted: Planted) -> None:
    train, test = planted(n=120, dim=6), _renamed(planted(n=40, dim=6, seed=1), "t")
    intervals = []
    for twins in (1, 2):  # two frames of one scene, say
        ids = np.array([f"{image_id}/{twin}" for image_id in test.image_id for twin in range(twins)])
        rows = replace(test.take(np.repeat(np.arange(40), twins)), image_id=ids)
        flip, crop = (replace(rows, features=rows.features.copy()) for _ in range(2))
        flip.features[:, 0] += 0.1
        crop.features[:, 1] += 0.3
        probes = {"effect:flip": flip, "effect:Crop": crop}
        found = describe_effects(_evaluate([Split({"release": train, "originals": train}, rows, probes)]))[
            "Crop"
        ]
        assert found.n == 40 * twins
        intervals.append(found.of_flip)
    assert intervals[1] == pytest.approx(intervals[0])


def test_affect_of_luminance_and_saturation() -> None:
    drift = {"by_pipeline": {"dim": {"luminance": {"mean_abs": 10.0}, "saturation": {"mean_abs": 5.0}}}}
    assert affect_of_look(drift) == {"dim": pytest.approx(0.69 * 10 + 0.22 * 5)}
    assert affect_of_look({}) == {}


def test_copies_on_one_side_correlate_with_the_target() -> None:
    target = np.array([10.0, 20.0, 80.0, 90.0])
    assert copies_and_target(target > 50, target) > 0.9
    assert abs(copies_and_target(np.array([True, False, False, True]), target)) < 0.01


@pytest.mark.slow
def test_the_majority_is_counted_over_originals_and_chance_over_classes_that_occur(
    planted: Planted,
) -> None:
    rows = planted(n=60, dim=6)
    often = np.arange(60) % 3 > 0  # two thirds of the images are "up", before the release is balanced
    rows = replace(rows, stratum=often.astype(int))
    train, test = rows.take(np.arange(30)), _renamed(rows.take(np.arange(30, 60)), "t")
    rare = train.take(np.flatnonzero(train.stratum == 0))
    copies = [replace(rare, copy=np.full(len(rare), copy)) for copy in (1, 2)]
    split = Split({"release": Rows.concat([train, *copies]), "originals": train}, test)
    sides = Classes("side", ["down", "never", "up"], lambda rows: np.array(["down", "up"])[rows.stratum])
    scoring = _scoring([split], [EvaluateSplit([sides], False, FrozenHeads(0))(split)])
    found = score_classes(scoring, "release", sides)
    assert found.majority["accuracy"] == pytest.approx(2 / 3)
    assert found.chance == {"accuracy": 0.5, "balanced_accuracy": 0.5}
    assert found.n == [10, 0, 20]


def test_subgroups_that_are_too_small_are_named_with_their_size(planted: Planted) -> None:
    values = np.repeat(["20-29", "80+", ""], [40, 4, 9])
    found = score_subgroups(values, planted(53), "mae", np.ones(53), 0)
    assert list(found.groups) == ["20-29"] and found.too_few == {"80+": 4}
    assert found.groups["20-29"].interval == Interval(mean=1.0, low=1.0, high=1.0)


def test_intervals_of_subgroups_are_those_of_a_binomial_share(planted: Planted) -> None:
    rng = np.random.default_rng(5)
    true = np.array(["a", "b"])[rng.integers(0, 2, 400)]
    right = rng.random(400) < 0.7
    predicted = np.where(right, true, "c")
    values = np.repeat(["x", "y"], [100, 300])
    rows = planted(400)
    rows = replace(rows, group=np.arange(400).astype(str), stratum=np.zeros(400, int))
    found = score_subgroups(values, rows, "accuracy", (predicted == true).astype(float), 0)
    for name, mask in (("x", values == "x"), ("y", values == "y")):
        group, share = found.groups[name], right[mask].mean()
        reach = 1.96 * np.sqrt(share * (1 - share) / mask.sum())
        assert group.accuracy == pytest.approx(share) and group.interval is not None
        assert (group.interval.low, group.interval.high) == pytest.approx(
            (share - reach, share + reach), abs=0.02
        )
