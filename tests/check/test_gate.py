"""check.gate and check.verdict: the three outcomes of each rule, and the sentences about them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, Literal

import click
import pytest

from affectdata.check.blocks import CheckDocument, RuleOutcome
from affectdata.check.check import CheckOutput
from affectdata.check.gate import RULES, evaluate_rules, find_outcome, passes_gate
from affectdata.check.verdict import advise, make_sentences
from affectdata.cli._checked import print_check
from affectdata.cli._output import Settings
from affectdata.recipe.recipe import Check, Recipe


@pytest.fixture
def document(checked: CheckOutput) -> dict[str, Any]:
    """A document of its own for every test to alter."""
    return dict(json.loads(json.dumps(checked.document.to_dict())))


def _read(document: dict[str, Any]) -> CheckDocument:
    return CheckDocument.model_validate(document)


def _results(document: dict[str, Any], **check: Any) -> dict[str, dict[str, Any]]:
    """Return what every rule found, by its name."""
    return {result.rule: result.to_dict() for result in evaluate_rules(_read(document), Check(**check))}


def _set(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        document = document[key]
    document[last] = {**document[last], **value} if isinstance(value, dict) else value


def _outcome(document: dict[str, Any], rule: str, **check: Any) -> str:
    return str(_results(document, **check)[rule]["outcome"])


def _found(outcome: Literal["pass", "fail", "undecided", "notice"]) -> RuleOutcome:
    return RuleOutcome(rule="r", outcome=outcome, text="", figure=None, low=None, high=None, bound=None)


def _over(low: float | None, mean: float | None, high: float | None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high}


def test_a_sound_release_fails_no_rule_and_every_rule_was_run(document: dict[str, Any]) -> None:
    gate = document["verdict"]["gate"]
    assert not [result for result in gate if result["outcome"] == "fail"]
    names = {result["rule"] for result in gate}
    assert all(any(name == rule.name or name.startswith(f"{rule.name}.") for name in names) for rule in RULES)
    # The generated sample has fewer than 200 images.
    assert (document["verdict"]["outcome"], document["verdict"]["passed"]) == ("inconclusive", False)


SCORES = "arms/release/regressor/crossfit"
NOT_WORSE = "comparison/release - originals"


@pytest.mark.parametrize(
    ("rule", "path", "low", "mean", "high", "outcome"),
    [
        ("training.score.r2", f"{SCORES}/r2", 0.1, 0.2, 0.3, "pass"),
        ("training.score.r2", f"{SCORES}/r2", -0.1, 0.2, 0.3, "undecided"),
        ("training.score.r2", f"{SCORES}/r2", -0.3, -0.19, -0.1, "fail"),
        ("training.score.collapse", f"{SCORES}/sd_ratio", 0.01, 0.05, 0.1, "fail"),
        ("training.score.collapse", f"{SCORES}/sd_ratio", 0.2, 0.3, 0.4, "undecided"),
        ("training.not_worse.originals.r2", f"{NOT_WORSE}/r2", -0.015, 0.0, 0.01, "pass"),
        ("training.not_worse.originals.r2", f"{NOT_WORSE}/r2", -0.03, 0.0, 0.01, "undecided"),
        ("training.not_worse.originals.r2", f"{NOT_WORSE}/r2", -0.09, -0.06, -0.03, "fail"),
        ("training.not_worse.even.ccc", "comparison/release - even/ccc", -0.09, -0.06, -0.03, "fail"),
        ("leak.nearest", "leak/nearest", 0.7, 0.8, 0.9, "fail"),
        ("leak.nearest", "leak/nearest", 0.4, 0.55, 0.7, "undecided"),
        ("leak.nearest", "leak/nearest", -0.1, 0.1, 0.3, "pass"),
        ("leak.too_good", "arms/originals/regressor/crossfit/r2", 0.7, 0.8, 0.9, "fail"),
        ("leak.too_good", "arms/originals/regressor/crossfit/r2", 0.6, 0.7, 0.8, "undecided"),
        ("leak.shuffled", "leak/shuffled", 0.2, 0.3, 0.4, "fail"),
        ("shortcut.shift.flip", "shift/flip/low", -12.0, -9.0, -6.0, "fail"),
        ("shortcut.shift.flip", "shift/flip/high", -0.5, 1.0, 2.5, "undecided"),
        ("cascade.not_worse", "cascade/balanced_accuracy", -0.2, -0.1, -0.05, "fail"),
    ],
)
def test_an_outcome_is_sure_only_where_the_whole_interval_is(
    document: dict[str, Any], rule: str, path: str, low: float, mean: float, high: float, outcome: str
) -> None:
    for side in ("all", "low", "high"):
        document["shift"]["flip"][side] = _over(-0.1, 0.0, 0.1)
    document["on_edge"] = []
    _set(document, path, _over(low, mean, high))
    assert _outcome(document, rule) == outcome


def _printed(document: dict[str, Any]) -> str:
    """Return what the command prints of a document, classifiers too."""
    out = io.StringIO()
    with click.Context(click.Command("train-check"), obj=Settings(verbose=1)), redirect_stdout(out):
        print_check(_read(document))
    return out.getvalue()


def _make_categorical(document: dict[str, Any]) -> None:
    """Make the target categorical: the classes of valence."""
    classes = document["arms"]["release"]["classifier"]["valence_class"]
    document["numeric"], document["release"]["target"] = False, "valence_class"
    both, n_train = ("release", "originals"), {"crossfit": 90.0, "heldout": None}
    document["arms"] = {
        arm: {"classifier": {"valence_class": json.loads(json.dumps(classes))}, "n_train": n_train}
        for arm in both
    }
    gain = document["cascade"]["balanced_accuracy"]
    document["comparison"] = {
        pair: {"balanced_accuracy": gain} for pair in document["comparison"] if pair.startswith("release")
    }
    document["cascade"] = None


def _learn(document: dict[str, Any], n: int, low: float, mean: float, high: float) -> dict[str, Any]:
    """Set the score of the originals and the number of images; return the result of the rule."""
    document["bins"]["n"]["crossfit"] = [n - 100, 50, 50]
    if document["numeric"]:
        _set(document, "arms/originals/regressor/crossfit/r2", _over(low, mean, high))
    else:
        path = "arms/originals/classifier/valence_class/crossfit/interval/balanced_accuracy"
        _set(document, path, _over(low, mean, high))
    return _results(document)["learns.above_shuffled"]


@pytest.mark.parametrize(
    ("score", "shuffled", "outcome"),
    [
        ((0.2, 0.3, 0.4), (-0.3, -0.2, -0.1), "pass"),
        ((-0.02, 0.03, 0.08), (-0.3, -0.2, -0.1), "fail"),  # above the shuffled, not above the mean
        ((0.05, 0.2, 0.35), (-0.1, 0.0, 0.1), "fail"),
        ((0.06, 0.10, 0.14), (-0.06, -0.04, -0.02), "fail"),  # half of the ratings exchanged
        ((-0.2, -0.1, -0.02), (-0.3, -0.2, -0.1), "fail"),
        ((None, None, None), (-0.3, -0.2, -0.1), "fail"),
        ((0.2, 0.3, 0.4), (None, -0.1, None), "pass"),
        ((0.2, 0.3, 0.4), (None, None, None), "pass"),
    ],
)
def test_labels_that_do_not_belong_to_the_images_fail(
    document: dict[str, Any], score: Any, shuffled: Any, outcome: str
) -> None:
    document["leak"]["shuffled"] = _over(*shuffled)
    assert _learn(document, 200, *score)["outcome"] == outcome


@pytest.mark.parametrize(
    ("score", "shuffled", "outcome"),
    [
        ((0.5, 0.6, 0.7), (0.25, 0.33, 0.4), "pass"),
        ((0.3, 0.36, 0.42), (0.25, 0.3, 0.31), "fail"),  # chance is 1/3
        ((0.38, 0.45, 0.5), (0.25, 0.33, 0.41), "fail"),
    ],
)
def test_classes_are_compared_with_shuffled_classes_and_chance(
    document: dict[str, Any], score: Any, shuffled: Any, outcome: str
) -> None:
    _make_categorical(document)
    document["leak"]["shuffled"] = _over(*shuffled)
    result = _learn(document, 200, *score)
    assert result["outcome"] == outcome and "balanced accuracy of the originals" in result["text"]


def test_with_few_images_the_sentences_call_the_verdict_inconclusive(
    document: dict[str, Any], recipe_of: Callable[..., Recipe]
) -> None:
    words = "inconclusive: too few images (199 originals scored, at least 200 needed)"
    result = _learn(document, 199, -0.1, 0.0, 0.1)
    assert result["outcome"] == "undecided" and result["text"].startswith(words)
    assert words in _sentences(document, recipe_of())
    few = _read(document)
    assert find_outcome(few, evaluate_rules(few, Check()), Check()) == "inconclusive"
    assert find_outcome(few, [_found("fail")], Check()) == "failed"
    document["verdict"] |= {"outcome": "inconclusive"}
    assert "the check is inconclusive: too few images" in _printed(document)
    _learn(document, 200, 0.2, 0.3, 0.4)
    assert find_outcome(_read(document), [_found("pass")], Check()) == "passed"
    assert "inconclusive" not in _sentences(document, recipe_of())


def _overwrite(node: Any, key: str, value: float) -> None:
    """Replace every number under a key, at any depth."""
    for name, item in node.items() if isinstance(node, dict) else enumerate(node):
        if name == key and isinstance(item, float):
            node[name] = value
        elif isinstance(item, dict | list):
            _overwrite(item, key, value)


@pytest.mark.parametrize("categorical", [False, True])
def test_the_printed_figures_are_means_over_the_splits_and_never_pooled(
    document: dict[str, Any], recipe_of: Callable[..., Recipe], categorical: bool
) -> None:
    if categorical:
        _make_categorical(document)

    def printed() -> str:
        read = _read(document)
        gate = [result.to_dict() for result in evaluate_rules(read, Check())]
        sentences, advice = make_sentences(read, recipe_of()), advise(read, {})
        document["verdict"] |= {"gate": gate, "sentences": sentences, "advice": advice}
        return _printed(document)

    before = printed()
    _overwrite(document, "pooled", 98.765)
    assert printed() == before
    _overwrite(document, "mean", 54.321)
    measure = "balanced accuracy" if categorical else "R²"
    for part in (printed().split("\nrules")[0], document["verdict"]["gate"]):  # sentences, rules
        assert f"{measure} 54.321 (" in str(part)


def test_a_second_stage_trained_on_its_own_labels_fails(document: dict[str, Any]) -> None:
    document["cascade"] |= {"second_stage": 0.98, "on_new": 0.5, "second_stage_excess": 0.48}
    assert _outcome(document, "cascade.out_of_fold") == "fail"
    assert _outcome(document, "cascade.out_of_fold", max_second_stage=0.5) == "pass"


def test_look_alikes_fail_by_hash_and_are_listed_by_features(document: dict[str, Any]) -> None:
    pair = {"scored": "gaped: a.bmp", "trained_on": "gaped: b.bmp", "bits": 4}
    document["leak"]["looks"] |= {"least_bits": 4, "pairs": [pair]}
    document["leak"]["looks"]["counts"]["6"] = 1
    document["leak"]["features"] |= {"n_over": 1, "pairs": [{**pair, "cosine": 0.99}]}
    results = _results(document)
    assert results["leak.looks"]["outcome"] == "fail" and "a.bmp" in results["leak.looks"]["text"]
    features = results["leak.features"]
    assert features["outcome"] == "notice" and "b.bmp" in features["text"]


def test_a_transform_is_measured_in_flips(document: dict[str, Any]) -> None:
    effect = {"n": 9, "mean_abs": 1.0, "of_flip": _over(4.5, 5.0, 5.5), "low": 1.0, "high": -1.0}
    document["effects"] = {"Cutout": effect}
    assert _outcome(document, "transforms.effect.Cutout") == "fail"
    assert _outcome(document, "transforms.effect.Cutout", max_transform=6.0) == "pass"
    document["effects"]["Cutout"]["of_flip"] = _over(None, None, None)
    assert _outcome(document, "transforms.effect.Cutout") == "undecided"


def test_brightness_is_bounded_by_its_effect_on_people_not_on_the_network(document: dict[str, Any]) -> None:
    document["affect_of_look"] = {"bright": 8.0}
    assert _outcome(document, "transforms.affect.bright") == "fail"


def test_what_was_not_run_fails_and_what_does_not_apply_passes(document: dict[str, Any]) -> None:
    document["shift"] = None
    assert _outcome(document, "shortcut.shift") == "fail"
    document["copies"] = 0
    assert _outcome(document, "shortcut.shift") == "pass"


def test_the_text_of_a_rule_ends_with_its_bound(document: dict[str, Any]) -> None:
    texts = {name: result["text"] for name, result in _results(document, min_sd_ratio=0.3).items()}
    assert texts["training.score.collapse"].endswith("must be at least 0.3")
    assert texts["leak.nearest"].endswith("must be at most 0.5")


@pytest.mark.parametrize(
    ("low", "mean", "n", "pooled", "outcome"),
    [
        (-0.019, -0.011, 200, True, "pass"),
        (-0.035, -0.019, 200, True, "pass"),
        (-0.035, -0.021, 200, True, "fail"),
        (-0.035, -0.021, 200, False, "undecided"),  # networks: these intervals are not calibrated
        (-0.035, -0.021, 199, True, "undecided"),
    ],
)
def test_a_calibrated_interval_that_contains_the_tolerance_is_decided_by_the_estimate(
    document: dict[str, Any], low: float, mean: float, n: int, pooled: bool, outcome: str
) -> None:
    document["bins"]["n"]["crossfit"] = [n - 100, 50, 50]
    document["on_edge"], document["pooled_differences"] = [], pooled
    _set(document, f"{NOT_WORSE}/r2", _over(low, mean, 0.02))
    result = _results(document)["training.not_worse.originals.r2"]
    assert result["outcome"] == outcome
    assert ("for the images of this data set" in result["text"]) is pooled


@pytest.mark.parametrize(
    ("rule", "path", "interval", "outcome"),
    [
        ("leak.nearest", "leak/nearest", (0.1, 0.3, 0.55), "pass"),
        ("leak.nearest", "leak/nearest", (0.3, 0.45, 0.6), "fail"),
        ("leak.too_good", "arms/originals/regressor/crossfit/r2", (0.6, 0.64, 0.68), "pass"),
        ("leak.too_good", "arms/originals/regressor/crossfit/r2", (0.6, 0.66, 0.72), "fail"),
    ],
)
def test_an_open_interval_of_a_leak_is_decided_by_the_estimate(
    document: dict[str, Any], rule: str, path: str, interval: tuple[float, float, float], outcome: str
) -> None:
    _set(document, path, _over(*interval))
    document["pooled_differences"] = True
    for n, expected in ((200, outcome), (199, "undecided")):
        document["bins"]["n"]["crossfit"] = [n - 100, 50, 50]
        assert _outcome(document, rule) == expected
    document["bins"]["n"]["crossfit"], document["pooled_differences"] = [100, 50, 50], False
    assert _outcome(document, rule) == "undecided"


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        ("leak.nearest", "leak/nearest", 0.9),
        ("leak.too_good", "arms/originals/regressor/crossfit/r2", 0.9),
        ("leak.shuffled", "leak/shuffled", 0.9),
        ("training.score.r2", f"{SCORES}/r2", -0.9),
        ("training.score.collapse", f"{SCORES}/sd_ratio", 0.01),
    ],
)
def test_no_score_of_a_few_images_fails(document: dict[str, Any], rule: str, path: str, value: float) -> None:
    _set(document, path, _over(value, value, value))
    for counts, outcome in (([1, 1, 0], "undecided"), ([10, 10, 9], "undecided"), ([10, 10, 10], "fail")):
        document["bins"]["n"]["crossfit"] = counts
        assert _outcome(document, rule) == outcome


def test_between_copies_the_tolerance_is_a_quarter_wider(document: dict[str, Any]) -> None:
    document["on_edge"], document["pooled_differences"] = [], True
    document["bins"]["n"]["crossfit"] = [100, 50, 50]
    for mean, outcome in ((-0.024, "pass"), (-0.026, "fail")):
        _set(document, "comparison/release - even/r2", _over(-0.04, mean, 0.02))
        assert _outcome(document, "training.not_worse.even.r2") == outcome


def test_ratings_moved_by_a_row_fail_the_gate(document: dict[str, Any]) -> None:
    (labels,) = document["labels"].values()
    labels |= {"n": 500, "z": 5.0, "margin": -2.0, "r2": _over(0.2, 0.3, 0.4)}
    assert {_outcome(document, f"labels.{name}") for name in ("order", "within", "r2")} == {"pass"}
    labels |= {"margin": 1.1, "best_offset": -1}
    result = _results(document)["labels.order"]
    assert result["outcome"] == "fail" and result["text"].endswith("they are likely +1 rows off")


def test_on_the_edge_of_the_grid_there_is_no_verdict(
    document: dict[str, Any], recipe_of: Callable[..., Recipe]
) -> None:
    document["on_edge"] = ["release"]
    document[NOT_WORSE.split("/")[0]][NOT_WORSE.split("/")[1]]["r2"] = _over(-0.09, -0.06, -0.03)
    assert _outcome(document, "training.not_worse.originals.r2") == "undecided"
    text = _sentences(document, recipe_of())
    assert "No verdict on balancing" in text and "setting of release is on the edge" in text


def _sentences(document: dict[str, Any], recipe: Recipe) -> str:
    return " ".join(make_sentences(_read(document), recipe))


def test_the_sentences_separate_target_and_subtype(
    document: dict[str, Any], recipe_of: Callable[..., Recipe]
) -> None:
    def sentences(r2: float, r_within: float) -> str:
        _set(document, f"{SCORES}/r2/mean", r2)
        _set(document, f"{SCORES}/r_within/mean", r_within)
        return _sentences(document, recipe_of())

    assert "predicts valence, not only the subtype" in sentences(0.6, 0.5)
    assert "mostly predicts the subtype" in sentences(0.5, 0.18)
    assert "predicts only the subtype" in sentences(0.5, 0.02)
    assert "predicts neither" in sentences(-0.19, 0.02)


def test_balancing_helps_only_if_it_beats_every_control(
    document: dict[str, Any], recipe_of: Callable[..., Recipe]
) -> None:
    document["on_edge"], document["pooled_differences"] = [], True
    sure, unsure = _over(0.01, 0.03, 0.05), _over(-0.01, 0.03, 0.05)
    for pair in ("originals", "even", "stretched"):
        for measure in document["comparison"][f"release - {pair}"]:
            document["comparison"][f"release - {pair}"][measure] = unsure
        document["comparison"][f"release - {pair}"]["ccc"] = sure
    assert "Balancing improves CCC, by more than" in _sentences(document, recipe_of())
    document["comparison"]["release - stretched"]["ccc"] = unsure
    assert "Whether balancing helps is undecided" in _sentences(document, recipe_of())
    document["comparison"]["release - originals"]["r2"] = _over(-0.05, -0.03, -0.01)
    assert "Balancing worsens R²" in _sentences(document, recipe_of())


def test_a_tail_of_few_images_is_named(document: dict[str, Any], recipe_of: Callable[..., Recipe]) -> None:
    n = len(document["bins"]["labels"])
    document["bins"]["tail"] = [True] + [False] * (n - 1)
    document["bins"]["n"]["crossfit"] = [6] + [50] * (n - 1)
    words = "Figures of the thin bins together (tail MAE) rest on 6 scored images."
    assert words in _sentences(document, recipe_of())
    document["bins"]["n"]["crossfit"][0] = 20
    assert "tail MAE) rest on" not in _sentences(document, recipe_of())


def test_a_collapse_and_subgroups_are_named(
    document: dict[str, Any], recipe_of: Callable[..., Recipe]
) -> None:
    document["arms"]["release"]["regressor"]["crossfit"]["mean_collapse"] = True
    interval = {"mean": 20.0, "low": 18.0, "high": 22.0}
    groups: dict[str, Any] = {
        "0-12": {"n": 40, "mae": 20.0, "interval": interval},
        "13-19": {"n": 50, "mae": 12.5},
    }
    scored = {"groups": groups, "measure": "mae", "gap": 7.5, "too_few": {"80+": 4}, "estimated": ["utkface"]}
    document["subgroups"] = {"age_group": scored}
    text = _sentences(document, recipe_of())
    assert "Mean collapse: the SVR of the release arm" in text
    assert (
        "MAE ranges from 12.500 (13-19, n = 50) to 20.000 (18.000 to 22.000) (0-12, n = 40): a gap of 7.500"
        in text
    )
    assert "a gap of 7.500 (estimated by a machine in utkface); too few to report: 80+ (n = 4)." in text
    document["subgroups"] = {
        "gender": {"groups": {}, "measure": "mae", "gap": None, "too_few": {"f": 9, "m": 2}}
    }
    few = "By gender, there are no two groups to compare; too few to report: f (n = 9), m (n = 2)."
    assert few in _sentences(document, recipe_of())


def test_alarms_are_for_the_plain_head(document: dict[str, Any]) -> None:
    before = _results(document)
    _set(document, "arms/subtype_aware/regressor/crossfit/r2", _over(0.7, 0.8, 0.9))
    assert _results(document) == before
    _set(document, "arms/originals/regressor/crossfit/r2", _over(0.7, 0.8, 0.9))
    assert _outcome(document, "leak.too_good") == "fail"


def test_advice_is_measured(document: dict[str, Any]) -> None:
    info = {"balance": {"bins": [{"bin": "[70,80)", "n_before": 9, "shortfall": 22}]}}
    row = {
        "option": "oasis: images for the thin bins",
        "arm": "with:oasis",
        "measure": "tail_mae",
        "change": _over(-4.0, -2.5, -1.0),
        "control": "widened",
        "over_control": _over(-3.0, -1.5, -0.5),
        "outcome": "helps",
        "enable": "recipe: balance: {fill_from: [oasis]}",
    }
    undecided = {**row, "option": "weights", "outcome": "undecided"}
    document["advice"] = {"level": 0.95, "quantile": 3.4, "rows": [row, undecided]}
    r2 = document["arms"]["originals"]["regressor"]["crossfit"]["r2"]["mean"]
    document["regrouped"] = {"theme": _over(r2 - 0.2, r2 - 0.15, r2 - 0.1), "artist": _over(r2, r2, r2)}
    text = " ".join(advise(_read(document), info))
    assert "train has few in [70,80) (9)" in text
    assert "oasis: images for the thin bins helps: tail MAE -2.50 (-4.00 to -1.00), over its control" in text
    assert "fill_from: [oasis]" in text and "weights" not in text
    assert "Declare `split: {groups: [theme]}`" in text
    assert "Groups by artist were not declared" in text


@pytest.mark.parametrize(("word", "passes"), [("pass", True), ("fail", False)])
def test_undecided_passes_unless_the_recipe_says_otherwise(word: str, passes: bool) -> None:
    gate = [_found("pass"), _found("undecided")]
    assert passes_gate(gate, Check.model_validate({"undecided": word})) is passes
    assert not passes_gate([*gate, _found("fail")], Check.model_validate({"undecided": word}))
    assert passes_gate([_found("pass"), _found("notice")], Check.model_validate({"undecided": word}))
