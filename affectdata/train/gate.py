"""The gate: rules over a check's document, each with three outcomes.

A rule passes or fails only where its whole interval lies on one side of the bound; else it is undecided. A
rule that could not be run is a fail; one that has nothing to judge in this release passes, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from affectdata.balance.recipe import Check
from affectdata.duplicates import MAX_BITS
from affectdata.train.arms import EVEN, ORIGINALS, RELEASE

Document = dict[str, Any]
NAMES = {
    "r2": "R²",
    "ccc": "CCC",
    "mae": "MAE",
    "macro_mae": "macro-MAE",
    "tail_mae": "tail MAE",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}


class Outcome(StrEnum):
    """What a rule says."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judged:
    """A rule's outcome with its figure, 95 % interval and bound, and one sentence."""

    outcome: Outcome
    text: str
    figure: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None = None


@dataclass(frozen=True)
class Rule:
    """One rule. `judge` gives one outcome per thing that it looks at (a measure, a pipeline)."""

    name: str
    what: str
    judge: Callable[[Document, Check], Iterator[tuple[str, Judged]]]


def judge_all(document: Document, check: Check) -> list[dict[str, Any]]:
    """Return the outcomes of all rules as plain data, in the order of `RULES`."""
    return [
        {"rule": f"{rule.name}.{part}" if part else rule.name, **asdict(judged)}
        for rule in RULES
        for part, judged in rule.judge(document, check)
    ]


def passes_gate(gate: list[dict[str, Any]], check: Check) -> bool:
    """Whether no outcome is a fail, nor undecided where the recipe says that this fails too."""
    failing = {"fail"} if check.undecided == "pass" else {"fail", "undecided"}
    return not failing & {each["outcome"] for each in gate}


def scored_on(document: Document) -> str:
    """Return the scoring that the rules look at: cross-fitted where there is that."""
    return "heldout" if document["crossfit_missing"] else "crossfit"


def scores(document: Document, arm: str, head: str = "regressor") -> Document | None:
    """Return the scores of an arm, where it has any."""
    found: Document | None = document["arms"].get(arm, {}).get(head, {}).get(scored_on(document))
    return found


def number(value: float | None, digits: int = 3) -> str:
    """Write a figure, or that it is not defined."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval_text(found: Document, digits: int = 3, sign: str = "") -> str:
    """Write a figure and its interval."""
    if found["low"] is None:
        return "undefined" if found["mean"] is None else f"{found['mean']:{sign}.{digits}f}"
    mean, low, high = (f"{found[key]:{sign}.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _at_least(found: Document, bound: float) -> Outcome:
    """Judge a figure that should not be below a bound."""
    low = found["mean"] if found["low"] is None else found["low"]
    high = found["mean"] if found["high"] is None else found["high"]
    if low is None:
        return Outcome.UNDECIDED
    return Outcome.PASS if low >= bound else Outcome.FAIL if high < bound else Outcome.UNDECIDED


def _at_most(found: Document, bound: float) -> Outcome:
    turned = {key: None if found[key] is None else -found[key] for key in ("mean", "low", "high")}
    return _at_least({"mean": turned["mean"], "low": turned["high"], "high": turned["low"]}, -bound)


def _judged(outcome: Outcome, text: str, found: Document, bound: float) -> Judged:
    if "asked for" not in text:
        text += f"; at most {bound:g} is asked for"
    return Judged(outcome, text, found["mean"], found["low"], found["high"], bound)


def _not_run(document: Document) -> Judged:
    why = document["crossfit_missing"] or "it has no figure"
    return Judged(Outcome.FAIL, f"not run: {why}")


def _nothing(text: str) -> Judged:
    return Judged(Outcome.PASS, text)


Parts = Iterator[tuple[str, Judged]]


def _structure(document: Document, check: Check) -> Parts:
    for name, found in document["structure"].items():
        text = "; ".join(found["problems"][:3]) or found["text"]
        yield name, Judged(Outcome.FAIL if found["problems"] else Outcome.PASS, text)


def _looks(document: Document, check: Check) -> Parts:
    found = document["leak"]["looks"]
    n = found["counts"][str(MAX_BITS)]
    words = f"the most alike pair across a split differs in {found['least_bits']} of 64 pHash bits"
    if n:
        pair = found["pairs"][0]
        words += f": {pair['scored']} and {pair['trained_on']}; {n} within {MAX_BITS}"
    outcome = Outcome.FAIL if n else Outcome.PASS
    yield "", Judged(outcome, words, found["least_bits"], bound=MAX_BITS)


def _features(document: Document, check: Check) -> Parts:
    found = document["leak"]["features"]
    words = f"{found['n_over']} pairs across a split have features with a cosine above {check.max_cosine:g}"
    if found["typical"] >= check.max_cosine:
        words = f"these features find any two pictures alike (cosine {found['typical']:.3f}): nothing to see"
    if found["pairs"]:
        pair = found["pairs"][0]
        words += f", first {pair['scored']} and {pair['trained_on']}: have a look at them"
    outcome = Outcome.UNDECIDED if found["n_over"] else Outcome.PASS
    yield "", Judged(outcome, words, found["largest"], bound=check.max_cosine)


def _nearest(document: Document, check: Check) -> Parts:
    found = document["leak"]["nearest"]
    what = "R²" if document["numeric"] else "balanced accuracy above chance"
    text = f"copying the label of the most similar training picture scores {what} {interval_text(found)}"
    outcome = _at_most(found, check.max_nearest)
    if outcome is Outcome.FAIL:
        text += ": test pictures have been seen in another form"
    yield "", _judged(outcome, text, found, check.max_nearest)


def _too_good(document: Document, check: Check) -> Parts:
    if not document["numeric"]:
        yield "", _nothing("the target is no number")
        return
    found = scores(document, ORIGINALS)
    if found is None:
        yield "", _not_run(document)
        return
    text = f"R² of the originals is {interval_text(found['r2'])}"
    outcome = _at_most(found["r2"], check.max_r2)
    if outcome is not Outcome.PASS:
        text += ", more than a network should reach on ratings: look for a leak"
    yield "", _judged(outcome, text, found["r2"], check.max_r2)


def _shuffled(document: Document, check: Check) -> Parts:
    found = document["leak"]["shuffled"]
    if found is None:
        yield "", _nothing("the target is no number")
        return
    text = f"trained on shuffled labels, R² is {interval_text(found)}"
    yield "", _judged(_at_most(found, check.max_shuffled), text, found, check.max_shuffled)


def _shift(document: Document, check: Check) -> Parts:
    if not document["copies"]:
        yield "", _nothing("the release has no copies")
        return
    if not document["numeric"]:
        yield "", _nothing("the target is no number; see the probe")
        return
    if not document["shift"]:
        yield "", _not_run(document)
        return
    for name, found in document["shift"].items():
        sides = {side: found[side] for side in ("all", "low", "high") if found[side]["mean"] is not None}
        outcomes = {side: _within(each, check.max_excess_shift) for side, each in sides.items()}
        worst = max(sides, key=lambda side: (_SEVERITY[outcomes[side]], abs(sides[side]["mean"])))
        where = {"all": "", "low": " on the negative side", "high": " on the positive side"}[worst]
        text = (
            f"an untouched picture sent through {name} moves the prediction by "
            f"{interval_text(sides[worst], 2, '+')} points{where}, beyond what the originals' model does"
        )
        yield name, _judged(outcomes[worst], text, sides[worst], check.max_excess_shift)


_SEVERITY = {Outcome.PASS: 0, Outcome.UNDECIDED: 1, Outcome.FAIL: 2}


def _within(found: Document, bound: float) -> Outcome:
    """Judge a signed figure that should lie between -bound and bound."""
    if found["low"] is None:
        return _at_most({**found, "mean": abs(found["mean"])}, bound)
    if found["low"] > bound or found["high"] < -bound:
        return Outcome.FAIL
    return Outcome.PASS if -bound <= found["low"] and found["high"] <= bound else Outcome.UNDECIDED


def _transforms(document: Document, check: Check) -> Parts:
    if not document["copies"] or not document["numeric"]:
        yield (
            "",
            _nothing("the release has no copies" if not document["copies"] else "the target is no number"),
        )
        return
    if document["effects"] is None:
        yield "", _not_run(document)
        return
    if not document["effects"]:
        yield "", _nothing("nothing but mirror images")
    for name, found in document["effects"].items():
        ratio = found["of_flip"]
        if ratio["mean"] is None:
            yield name, Judged(Outcome.UNDECIDED, f"{name}: a flip moves nothing, so there is no measure")
            continue
        text = (
            f"{name} moves the prediction by {interval_text(ratio, 2)} times a flip "
            f"(negative side {number(found['low'], 1)}, positive {number(found['high'], 1)} points)"
        )
        yield name, _judged(_at_most(ratio, check.max_transform), text, ratio, check.max_transform)


def _affect(document: Document, check: Check) -> Parts:
    if not document["affect_of_look"]:
        yield "", _not_run(document) if document["copies"] else _nothing("the release has no copies")
    for name, moved in document["affect_of_look"].items():
        text = f"luminance and saturation of {name}'s draws move pleasure by {moved:.2f} points"
        outcome = Outcome.PASS if moved <= check.max_affect_shift else Outcome.FAIL
        yield name, Judged(outcome, text, moved, bound=check.max_affect_shift)


def _score(document: Document, check: Check) -> Parts:
    if not document["numeric"]:
        yield from _above_chance(document)
        return
    found = scores(document, RELEASE)
    if found is None:
        yield "r2", _not_run(document)
        return
    text = f"R² {interval_text(found['r2'])}, at least {check.min_r2:g} is asked for"
    yield "r2", _judged(_at_least(found["r2"], check.min_r2), text, found["r2"], check.min_r2)
    ratio = found["sd_ratio"]
    text = f"the spread of what is predicted is {interval_text(ratio)} of the true one"
    if ratio["mean"] is not None and ratio["mean"] < check.min_sd_ratio:
        text = f"mean collapse: the model says about the same to everything; {text}"
    yield "collapse", _judged(_at_least(ratio, check.min_sd_ratio), text, ratio, check.min_sd_ratio)


def _above_chance(document: Document) -> Parts:
    name = document["release"]["target"]
    found = document["arms"][RELEASE]["classifier"][name][scored_on(document)]
    over = found["interval"]["balanced_accuracy"]
    chance = found["chance"]["balanced_accuracy"]
    text = f"balanced accuracy {interval_text(over)} on {name}, chance is {chance:.3f}"
    yield "above_chance", _judged(_at_least(over, chance), text, over, chance)


def _not_worse(document: Document, check: Check) -> Parts:
    compared = document["comparison"]
    for other in (ORIGINALS, EVEN):
        if f"{RELEASE} - {other}" not in compared:
            missing = document["crossfit_missing"] if document["copies"] and other == EVEN else None
            yield (
                other,
                _not_run(document) if missing else _nothing("the release has no copies to spread evenly"),
            )
            continue
        found = compared[f"{RELEASE} - {other}"]
        for measure, margin in check.not_worse.model_dump().items():
            if measure not in found:
                continue
            outcome = _at_least(found[measure], -margin)
            text = (
                f"{NAMES[measure]} {interval_text(found[measure], 3, '+')} against {ARM_NAMES[other]}, "
                f"at most {margin:g} worse is asked for"
            )
            same = found[measure]["low"] == found[measure]["high"] == 0  # both arms have the same rows
            if document["on_edge"] and outcome is not Outcome.UNDECIDED and not same:
                outcome = Outcome.UNDECIDED
                text += "; no verdict, for the best setting lies on the edge of its grid"
            yield f"{other}.{measure}", _judged(outcome, text, found[measure], -margin)


ARM_NAMES = {
    "release": "the release",
    "originals": "the unbalanced originals",
    "even": "as many copies spread evenly",
    "duplicates": "plain duplicates",
    "weights": "weights instead of copies",
    "stretched": "the originals' predictions stretched",
    "mean": "predicting the mean",
    "subtype_mean": "knowing the subtype alone",
}


def _cascade(document: Document, check: Check) -> Parts:
    found = document["cascade"]
    if found is None:
        yield "", _nothing("there is no regressor's output to add")
        return
    margin = check.not_worse.balanced_accuracy
    gain = found["balanced_accuracy"]
    text = (
        f"the regressor's output changes the balanced accuracy by {interval_text(gain, 3, '+')}, "
        f"at most {margin:g} worse is asked for"
    )
    yield "not_worse", _judged(_at_least(gain, -margin), text, gain, -margin)
    excess = found["second_stage_excess"]
    text = (
        f"the outputs that the classifier was trained on score R² {number(found['second_stage'])}, those on "
        f"new pictures {number(found['on_new'])}"
    )
    outcome = _at_most({"mean": excess, "low": None, "high": None}, check.max_second_stage)
    if outcome is Outcome.FAIL:
        text += ": they have seen their labels"
    yield "out_of_fold", Judged(outcome, text, excess, bound=check.max_second_stage)


RULES = (
    Rule(
        "structure",
        "parents, groups, splits, labels, files and folds are what a release promises (exact)",
        _structure,
    ),
    Rule(
        "leak.looks",
        f"no test picture is within {MAX_BITS} pHash bits of a training one, flipped or turned",
        _looks,
    ),
    Rule(
        "leak.features", "pairs with a feature cosine above `max_cosine` are listed (never a fail)", _features
    ),
    Rule(
        "leak.nearest",
        "the label of the most similar training picture scores at most `max_nearest`",
        _nearest,
    ),
    Rule("leak.too_good", "R² of the originals is at most `max_r2`", _too_good),
    Rule("leak.shuffled", "on shuffled labels R² is at most `max_shuffled`", _shuffled),
    Rule(
        "shortcut.shift",
        "a draw moves the prediction by at most `max_excess_shift` points beyond the originals' model",
        _shift,
    ),
    Rule(
        "transforms.effect",
        "no transform moves the prediction by more than `max_transform` times a flip",
        _transforms,
    ),
    Rule(
        "transforms.affect",
        "draws change luminance and saturation by at most `max_affect_shift` points of pleasure",
        _affect,
    ),
    Rule(
        "training.score",
        "R² is at least `min_r2`, the spread at least `min_sd_ratio`; classes beat chance",
        _score,
    ),
    Rule(
        "training.not_worse",
        "at most `not_worse` behind the originals, and behind as many copies spread evenly",
        _not_worse,
    ),
    Rule(
        "cascade",
        "the regressor's output costs at most `not_worse`, and was out of fold (`max_second_stage`)",
        _cascade,
    ),
)
