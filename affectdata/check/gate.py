"""The gate: rules over a check's document.

A figure passes or fails only if its whole interval is on one side of the bound; otherwise the rule is
undecided, unless its interval is calibrated: then the estimate decides. What is only listed is a notice. A
rule that could not be run fails. A rule that does not apply to the release passes, and its text gives the
reason. docs/check.md lists the rules that may be undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

from affectdata.check import label_gate, shortcut_gate
from affectdata.check.arms import EVEN, ORIGINALS, RELEASE
from affectdata.check.blocks import CheckFigures, Interval, RuleOutcome
from affectdata.check.rule_result import Outcome, RuleResult, check_bounds
from affectdata.check.words import (
    ARM_NAMES,
    NAMES,
    NUMBERS,
    SKILL,
    class_scores,
    interval_text,
    n_scored,
    number_text,
    scores,
    skill_name,
    skill_of,
    too_few_text,
)
from affectdata.images.hamming import MAX_BITS
from affectdata.recipe.bounds import Check
from affectdata.records import count_text

_SIDES = {"all": "", "low": " on the negative side", "high": " on the positive side"}
_ROUNDING = 1e-9
# Share of the bound: an open interval fails if its estimate is beyond it. Honest images of GAPED reach .62.
LIKELY_NEAREST = 0.8
_LEAST_SCORED = 30  # images; with fewer no score fails
BETWEEN_COPIES = 1.25  # factor on the tolerance where both arms draw copies of their own
_NOT_NUMERIC = "the target is not numeric"
_NOT_APPLICABLE = {
    "copies": "the release has no copies",
    **dict.fromkeys(("numeric", "has_skill", "has_ratings"), _NOT_NUMERIC),
}
_NOT_ONE_NUMBER = "the target is not one number"

NamedResults = Iterator[tuple[str, RuleResult]]
EvaluateRule = Callable[[CheckFigures, Check], NamedResults]
_SEVERITY = [Outcome.PASS, Outcome.UNDECIDED, Outcome.FAIL]


@dataclass(frozen=True)
class Rule:
    """One rule. `evaluate` yields a result for each thing that it checks (a measure, a pipeline).

    `needs` are keys of the document; if one is false or empty, the rule does not apply and passes. If
    `evaluate` yields nothing, the rule was not run and fails.
    """

    name: str
    what: str
    evaluate: EvaluateRule
    needs: tuple[str, ...] = ()

    def results(self, document: CheckFigures, check: Check) -> list[tuple[str, RuleResult]]:
        """Return the name and the result of each thing that the rule checks."""
        for need in self.needs:
            if not getattr(document, need):
                several = need == "numeric" and document.target
                return [("", _pass(_NOT_ONE_NUMBER if several else _NOT_APPLICABLE[need]))]
        reason = document.crossfit_missing or "there is no figure for it"
        results = list(self.evaluate(document, check))
        return results or [("", RuleResult(Outcome.FAIL, f"not run: {reason}"))]


RULES: list[Rule] = []


def _rule(name: str, *needs: str) -> Callable[[EvaluateRule], EvaluateRule]:
    """Register a rule; the docstring of the function states the condition for a pass."""

    def add(function: EvaluateRule) -> EvaluateRule:
        RULES.append(Rule(name, " ".join((function.__doc__ or "").split()), function, needs))
        return function

    return add


def evaluate_rules(document: CheckFigures, check: Check) -> list[RuleOutcome]:
    """Return the results of all rules, in the order of `RULES`."""
    return [
        RuleOutcome(rule=f"{rule.name}.{name}" if name else rule.name, **asdict(result))
        for rule in RULES
        for name, result in rule.results(document, check)
    ]


def passes_gate(gate: list[RuleOutcome], check: Check) -> bool:
    """Return whether no rule fails, and none is undecided if the recipe has `undecided: fail`."""
    failing = {"fail"} if check.undecided == "pass" else {"fail", "undecided"}
    return not failing & {rule.outcome for rule in gate}


def find_outcome(
    document: CheckFigures, gate: list[RuleOutcome], check: Check
) -> Literal["passed", "failed", "inconclusive"]:
    """Return the outcome of a check: passed, failed, or inconclusive (no rule fails, but few images)."""
    if not passes_gate(gate, check):
        return "failed"
    return "inconclusive" if too_few_text(document) else "passed"


def _pass(text: str) -> RuleResult:
    return RuleResult(Outcome.PASS, text)


@_rule("structure")
def _structure(document: CheckFigures, check: Check) -> NamedResults:
    """Parents, groups, splits, labels, files and folds are as a release guarantees (exact check)."""
    for name, part in document.structure.items():
        text = "; ".join(part.problems[:3]) or part.text
        yield name, RuleResult(Outcome.FAIL if part.problems else Outcome.PASS, text)


for _name, _evaluate in label_gate.RULES.items():
    _rule(_name, "has_ratings")(_evaluate)


@_rule("leak.looks")
def _looks(document: CheckFigures, check: Check) -> NamedResults:
    """No test image is a near duplicate (pHash) of a training image, flipped or rotated."""
    looks = document.leak.looks
    n = looks.counts[str(MAX_BITS)]
    text = f"the most similar pair across a split differs in {looks.least_bits} of 64 pHash bits"
    if n:
        pair = looks.pairs[0]
        text += f": {pair.scored} and {pair.trained_on}; {n} pairs differ in at most {MAX_BITS}"
    yield "", RuleResult(Outcome.FAIL if n else Outcome.PASS, text, looks.least_bits, bound=MAX_BITS)


@_rule("leak.same_image")
def _same_image(document: CheckFigures, check: Check) -> NamedResults:
    """No test image is a cropped, mirrored, framed, slightly rotated or re-encoded training image."""
    found = document.leak.same_images
    if found is None:
        return
    text = f"of {found.n_compared} pairs of similar images across a split, {found.n_same} are the same image"
    if found.pairs:
        pair = found.pairs[0]
        text += (
            f": {pair.scored} and {pair.trained_on}{' (mirrored)' if pair.mirrored else ''}, {pair.inliers} "
            "points fit; `affectdata groups` writes such pairs for `split: {groups: FILE}` of the recipe"
        )
    yield "", RuleResult(Outcome.FAIL if found.n_same else Outcome.PASS, text, found.n_same, bound=0)


@_rule("leak.features")
def _features(document: CheckFigures, check: Check) -> NamedResults:
    """Pairs with a feature cosine above `max_cosine` are listed (never a fail)."""
    features, bound = document.leak.features, check.max_cosine
    text = f"{count_text(features.n_over, 'pair')} across a split with a cosine of features above {bound:g}"
    if features.typical >= bound:
        typical = f"{features.typical:.3f}"
        text = f"not informative: in these features any two images are similar (cosine {typical})"
    if features.pairs:
        pair = features.pairs[0]
        text += f", first {pair.scored} and {pair.trained_on}: compare them by eye"
    outcome = Outcome.NOTICE if features.n_over else Outcome.PASS
    yield "", RuleResult(outcome, text, features.largest, bound=bound)


@_rule("leak.nearest")
def _nearest(document: CheckFigures, check: Check) -> NamedResults:
    """Predicting the label of the most similar training image scores at most `max_nearest`."""
    nearest, bound = document.leak.nearest, check.max_nearest
    measure = skill_name(document) or "balanced accuracy above chance"
    text = f"copying the label of the most similar training image scores {measure} {interval_text(nearest)}"
    leaked = ": test images are in the training set in another form"
    yield "", _decide(document, _at_most(nearest, bound, text, {Outcome.FAIL: leaked}), LIKELY_NEAREST)


@_rule("leak.too_good", "has_skill")
def _too_good(document: CheckFigures, check: Check) -> NamedResults:
    """R² of the originals is at most `max_r2`."""
    if document.target and document.target.kind != NUMBERS:
        yield "", _pass(_NOT_NUMERIC)
        return
    r2 = skill_of(document, ORIGINALS)
    if r2 is None:
        return
    alarm = ", more than a network should reach on ratings: look for a leak"
    text = f"R² of the originals is {interval_text(r2)}"
    text += alarm if r2.mean is not None and r2.mean > check.max_r2 else ""
    yield "", _decide(document, _at_most(r2, check.max_r2, text))


@_rule("leak.shuffled", "has_skill")
def _shuffled(document: CheckFigures, check: Check) -> NamedResults:
    """R² after training on shuffled labels is at most `max_shuffled`."""
    shuffled = document.leak.shuffled
    text = f"after training on shuffled labels, {skill_name(document)} is {interval_text(shuffled)}"
    yield "", _unless_hardly_any(document, _at_most(shuffled, check.max_shuffled, text))


def _at_most(figure: Interval, bound: float, text: str, more: dict[Outcome, str] | None = None) -> RuleResult:
    """Compare a figure with an upper bound; `more` is added to the text, by outcome."""
    result = check_bounds(figure, text, at_most=bound)
    text += (more or {}).get(result.outcome, "")
    return replace(result, text=f"{text}; must be at most {bound:g}")


def _decide(document: CheckFigures, result: RuleResult, share: float = 1.0) -> RuleResult:
    """Decide an open interval over ten splits by its estimate, which fails beyond a share of the bound.

    That interval is calibrated, or too wide; left open, a data set with a fifth of the images twice passed.
    """
    decides = document.pooled_differences and not too_few_text(document)
    figure, bound = result.figure, result.bound
    if not decides or result.outcome is not Outcome.UNDECIDED or figure is None or bound is None:
        return _unless_hardly_any(document, result)
    side, outcome = ("beyond", Outcome.FAIL) if figure > share * bound else ("within", Outcome.PASS)
    of_it = "it" if share == 1 else f"{share:g} of it"
    text = f"{result.text}; the interval contains that, and the estimate is {side} {of_it}"
    return replace(result, outcome=outcome, text=text)


def _unless_hardly_any(document: CheckFigures, result: RuleResult) -> RuleResult:
    """Leave a failure undecided where the score is one of a few images."""
    n = n_scored(document)
    if n >= _LEAST_SCORED or result.outcome is not Outcome.FAIL:
        return result
    text = f"{result.text}; undecided on {n} scored images, fewer than {_LEAST_SCORED}"
    return replace(result, outcome=Outcome.UNDECIDED, text=text)


for _name, _evaluate in shortcut_gate.RULES.items():
    _rule(_name)(_evaluate)


@_rule("shortcut.shift", "copies", "numeric")
def _shift(document: CheckFigures, check: Check) -> NamedResults:
    """A pipeline shifts predictions by at most `max_excess_shift` points relative to the originals' model."""
    bound = check.max_excess_shift
    for name, shift in (document.shift or {}).items():
        intervals = {"all": shift.all, "low": shift.low, "high": shift.high}
        worst, result = max(
            (
                (side, check_bounds(interval, "", -bound, bound))
                for side, interval in intervals.items()
                if interval.mean is not None
            ),
            key=lambda item: (_SEVERITY.index(item[1].outcome), abs(item[1].figure or 0)),
        )
        text = (
            f"applying {name} to an untouched image shifts the prediction by "
            f"{interval_text(intervals[worst], 2, '+')} points{_SIDES[worst]} "
            f"relative to the originals' model; must be within ±{bound:g}"
        )
        yield name, replace(result, text=text)


@_rule("transforms.effect", "copies", "numeric")
def _transforms(document: CheckFigures, check: Check) -> NamedResults:
    """A transform shifts predictions at most `max_transform` times as far as a flip (over groups)."""
    if document.effects == {}:
        yield "", _pass("the only transform is the horizontal flip")
    for name, effect in (document.effects or {}).items():
        ratio = effect.of_flip
        if ratio.mean is None:
            text = f"{name}: a flip does not shift the prediction, so there is nothing to compare with"
            yield name, RuleResult(Outcome.UNDECIDED, text)
            continue
        text = (
            f"{name} shifts the prediction {interval_text(ratio, 2)} times as far as a flip "
            f"(negative side {number_text(effect.low, 1)}, "
            f"positive {number_text(effect.high, 1)} points)"
        )
        yield name, _at_most(ratio, check.max_transform, text)


@_rule("transforms.affect")
def _affect(document: CheckFigures, check: Check) -> NamedResults:
    """Changes in luminance and saturation shift pleasure by at most `max_affect_shift` points."""
    bound = check.max_affect_shift
    if not (document.copies or document.affect_of_look):
        yield "", _pass(_NOT_APPLICABLE["copies"])
    for name, shift in document.affect_of_look.items():
        text = f"luminance and saturation of copies by {name} shift pleasure by {shift:.2f} points"
        yield name, RuleResult(Outcome.PASS if shift <= bound else Outcome.FAIL, text, shift, bound=bound)


@_rule("learns.above_shuffled")
def _above_shuffled(document: CheckFigures, check: Check) -> NamedResults:
    """R²'s interval is above `min_r2_low` (classes: above chance), and above that on shuffled labels."""
    for name, arm in (("", ORIGINALS), ("release", RELEASE)):
        yield name, _one_above_shuffled(document, check, arm)


def _one_above_shuffled(document: CheckFigures, check: Check, arm: str) -> RuleResult:
    """Evaluate one arm by its R², or by its balanced accuracy if the target is not numeric.

    The bound is the upper end of the interval on shuffled labels, but at least what a constant prediction
    scores (chance; for R² 0, plus `min_r2_low`). Two reasons: the model on shuffled labels has the settings
    chosen for the true labels, so its R² may be far below 0; and with half of the ratings exchanged, the
    other half is learnt: GAPED then scores .04 to .11 with lower ends up to .06. Honest subsets of 250 of its
    images had lower ends from .16 on (20 draws). An interval that contains the bound fails. With fewer than
    200 originals an honest data set may end there too, so the rule is undecided and the check inconclusive.
    """
    score, least = _score_and_floor(document, check, arm)
    shuffled, name = document.leak.shuffled, skill_name(document) or NAMES["balanced_accuracy"]
    high = shuffled.mean if shuffled.high is None else shuffled.high
    bound = least if high is None else max(least, high)
    text = (
        f"{name} of the {arm} is {interval_text(score)}, after training on shuffled labels "
        f"{interval_text(shuffled)}; the whole interval must be above {bound:.3f}"
    )
    result = check_bounds(score, text, at_least=bound)
    too_few = too_few_text(document)
    if too_few:
        return replace(result, outcome=Outcome.UNDECIDED, text=f"{too_few}; {text}")
    low = result.figure if result.low is None else result.low
    if low is not None and low > bound + _ROUNDING:  # a constant prediction is exactly on the bound
        return result
    text += ": the labels do not belong to the images, or the network cannot see what they describe"
    return replace(result, outcome=Outcome.FAIL, text=text)


def _score_and_floor(document: CheckFigures, check: Check, arm: str) -> tuple[Interval, float]:
    """Return the score of an arm with its interval, and the value that the interval must exceed."""
    skill = skill_of(document, arm)
    if skill is not None:
        # The floor was measured for one number; on other scales of skill only chance is known.
        is_of_numbers = document.target is None or document.target.kind == NUMBERS
        return skill, check.min_r2_low if is_of_numbers else 0.0
    classifier = class_scores(document, arm, document.release.target)
    return classifier.interval["balanced_accuracy"], classifier.chance["balanced_accuracy"] or 0.0


@_rule("training.score")
def _score(document: CheckFigures, check: Check) -> NamedResults:
    """R² is at least `min_r2`, SD of predictions / targets at least `min_sd_ratio`; classes beat chance."""
    scored = scores(document, RELEASE)
    if document.target:
        skill, text = skill_of(document, RELEASE), skill_name(document)
        least = check.min_r2 if document.target.kind == NUMBERS else 0.0
        if skill:
            text = f"{text} {interval_text(skill)}; must be at least {least:g}"
            yield "skill", _unless_hardly_any(document, check_bounds(skill, text, least))
        return
    if scored is None:
        yield "above_chance", _above_chance(document, check)
        return
    r2, ratio, least = scored["r2"], scored["sd_ratio"], check.min_sd_ratio
    result = check_bounds(r2, f"R² {interval_text(r2)}; must be at least {check.min_r2:g}", check.min_r2)
    yield "r2", _unless_hardly_any(document, result)
    text = f"SD of predictions / SD of targets is {interval_text(ratio)}; must be at least {least:g}"
    if ratio.mean is not None and ratio.mean < least:
        text = f"mean collapse: the model predicts nearly the same value for every image; {text}"
    yield "collapse", _unless_hardly_any(document, check_bounds(ratio, text, least))


def _above_chance(document: CheckFigures, check: Check) -> RuleResult:
    target, (score, chance) = document.release.target, _score_and_floor(document, check, RELEASE)
    text = f"balanced accuracy {interval_text(score)} on {target}, chance is {chance:.3f}"
    return _unless_hardly_any(document, check_bounds(score, text, chance))


@_rule("training.not_worse")
def _not_worse(document: CheckFigures, check: Check) -> NamedResults:
    """At most `not_worse` below the originals, and 1.25 times that below even copies."""
    for baseline, factor in ((ORIGINALS, 1.0), (EVEN, BETWEEN_COPIES)):
        compared = document.comparison.get(f"{RELEASE} - {baseline}")
        if compared is None:
            reason = document.crossfit_missing if document.copies else None
            not_run = RuleResult(Outcome.FAIL, f"not run: {reason}")
            yield baseline, not_run if reason else _pass("the release has no copies to spread evenly")
            continue
        for measure, margin in _tolerances(document, check).items():
            if measure in compared:
                result = _one_not_worse(document, measure, compared[measure], baseline, factor * margin)
                yield f"{baseline}.{measure}", result


def _tolerances(document: CheckFigures, check: Check) -> dict[str, float]:
    """Return the measures that decide, and their tolerances: of several values the skill alone.

    The tolerance of label sets is that of balanced accuracy, applied to 2 AUC - 1: half of it in AUC.
    """
    given: dict[str, float] = check.not_worse.model_dump()
    if document.target is None:
        return given
    if document.target.kind == "polarity":  # its skill is rescaled; the tolerance is not
        return {"balanced_accuracy": given["balanced_accuracy"]}
    return {SKILL: given["r2" if document.target.skill == NAMES["r2"] else "balanced_accuracy"]}


def _one_not_worse(
    document: CheckFigures, measure: str, difference: Interval, baseline: str, margin: float
) -> RuleResult:
    """Compare a difference with its tolerance.

    A pooled interval that contains the tolerance is calibrated, so the estimate decides. Failing every such
    interval would fail more than half of the honest runs on OASIS.
    """
    text = (
        f"{NAMES.get(measure) or skill_name(document)} {interval_text(difference, 3, '+')} compared with "
        f"{ARM_NAMES[baseline]}"
        f"{' for the images of this data set' if document.pooled_differences else ''}; "
        f"must be at most {margin:g} worse"
    )
    result = check_bounds(difference, text, -margin)
    same = difference.low == difference.high == 0  # both arms have the same rows
    if document.on_edge and result.outcome is not Outcome.UNDECIDED and not same:
        text += "; no verdict, because the best setting is on the edge of its grid"
        return replace(result, outcome=Outcome.UNDECIDED, text=text)
    decides = document.pooled_differences and not document.on_edge and not too_few_text(document)
    if decides and difference.mean is not None and result.outcome is Outcome.UNDECIDED:
        is_worse = difference.mean < -margin
        text += f"; the interval contains that, and the estimate is {'beyond' if is_worse else 'within'} it"
        return replace(result, outcome=Outcome.FAIL if is_worse else Outcome.PASS, text=text)
    return result


@_rule("cascade")
def _cascade(document: CheckFigures, check: Check) -> NamedResults:
    """The regressor's output costs at most `not_worse`, and is out of fold (`max_second_stage`)."""
    cascade, margin = document.cascade, check.not_worse.balanced_accuracy
    if cascade is None:
        yield "", _pass("the classifier takes no regressor output")
        return
    gain, excess = cascade["balanced_accuracy"], cascade.second_stage_excess
    text = (
        f"the regressor's output changes the balanced accuracy by {interval_text(gain, 3, '+')}; "
        f"must be at most {margin:g} worse"
    )
    yield "not_worse", check_bounds(gain, text, -margin)
    text = (
        f"the regressor's outputs have R² {number_text(cascade.second_stage)} on the classifier's "
        f"training images, {number_text(cascade.on_new)} on new images"
    )
    figure = Interval(mean=excess, low=None, high=None)
    result = check_bounds(figure, text, at_most=check.max_second_stage)
    leaked = ": the regressor was trained on their labels" if result.outcome is Outcome.FAIL else ""
    yield "out_of_fold", replace(result, text=text + leaked)
