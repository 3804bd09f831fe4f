"""Rules over the figures of `label_rules`: do the ratings belong to the images?

Each rule yields a result per source. With fewer than 500 images of a source, what would fail is undecided
where a model is fitted to its ratings: honest subsets of 250 images fail in up to half of the draws.
The false alarms and the power of every bound are in docs/check.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from affectdata.check.blocks import CheckFigures, Interval, LabelFigures
from affectdata.check.rule_result import Outcome, RuleResult, check_bounds
from affectdata.check.words import interval_text, number_text
from affectdata.recipe.bounds import Check

NamedResults = Iterator[tuple[str, RuleResult]]
LEAST_IMAGES = 500
MAX_MARGIN = 1.0  # standard deviations of r within subtypes when ratings are permuted there
MIN_Z = 2.0  # the same unit
MAX_WRONG_SIDE = 0.1  # share of a subtype's images
MAX_DISTANCE = 0.04  # between two cumulative distributions
BELOW_EXPECTED = 0.1  # R²


def order(document: CheckFigures, check: Check) -> NamedResults:
    """Ratings shifted by up to five rows within a folder fit the images no better than the unshifted ones."""
    for source, labels in _sources(document):
        margin, offset = labels.margin, labels.best_offset
        text = (
            f"r within subtypes is {number_text(labels.r_within)}; with the ratings moved by {offset:+d} "
            f"rows it is {number_text(margin, 1)} standard deviations higher, must be at most {MAX_MARGIN:g}"
        )
        result = check_bounds(_exact(margin), text, at_most=MAX_MARGIN)
        wrong = f": compare the rows of the table with the images; they are likely {-offset:+d} rows off"
        yield source, _explain(result, wrong, labels)


def within(document: CheckFigures, check: Check) -> NamedResults:
    """The r within subtypes is clearly above that of ratings permuted within them (classes: see learns)."""
    for source, labels in _sources(document):
        if labels.outputs > 1:
            yield source, RuleResult(Outcome.PASS, "label sets and shares may follow from the subtype")
            continue
        text = (
            f"r within subtypes is {number_text(labels.r_within)}, {number_text(labels.z, 1)} standard "
            f"deviations above that of ratings permuted within them; must be at least {MIN_Z:g}"
        )
        result = check_bounds(_exact(labels.z), text, at_least=MIN_Z)
        wrong = ": within a subtype the ratings do not belong to the images, or the network cannot see it"
        yield source, _explain(result, wrong, labels)


def r2(document: CheckFigures, check: Check) -> NamedResults:
    """The interval of the kernel ridge's R² is above 0, and above the expected R² minus .1 where known."""
    for source, labels in _sources(document):
        figure, expected = labels.r2, labels.expected_r2
        text = f"a kernel ridge on the originals scores R² {interval_text(figure)}"
        result = check_bounds(figure, f"{text}; the whole interval must be above 0", at_least=0.0)
        if result.outcome is Outcome.UNDECIDED:
            result = replace(result, outcome=Outcome.FAIL)
        yield source, _explain(result, ": the ratings do not belong to the images", labels)
        if expected is not None:
            least = expected - BELOW_EXPECTED
            text += f"; these images and this network score {expected:.3f}, must be at least {least:.3f}"
            result = check_bounds(_exact(figure.mean), text, at_least=least)
            name = f"{source}.expected" if source else "expected"
            yield name, _explain(result, ": part of the ratings do not belong to the images", labels)


def side(document: CheckFigures, check: Check) -> NamedResults:
    """At most a tenth of the images of a clearly positive or negative subtype lies on the wrong side."""
    for source, labels in _sources(document):
        for subtype, share in labels.wrong_side.items():
            text = f"{share:.0%} of {subtype} lie on a side of the scale without published ratings"
            result = check_bounds(_exact(share), f"{text}; must be at most 10 %", at_most=MAX_WRONG_SIDE)
            yield _join(source, subtype), result
        if not labels.wrong_side:
            yield source, RuleResult(Outcome.PASS, "no subtype is known to lie on one side of the scale")


def published(document: CheckFigures, check: Check) -> NamedResults:
    """The ratings of a subtype are distributed as published (largest distance .04, plus missing images)."""
    for source, labels in _sources(document):
        for subtype, part in labels.published.items():
            bound = MAX_DISTANCE + part.missing
            text = (
                f"the ratings of {part.n} images of {subtype} differ from the published distribution by "
                f"{part.distance:.3f}; must be at most {bound:.3f}"
            )
            yield _join(source, subtype), check_bounds(_exact(part.distance), text, at_most=bound)
        if not labels.published:
            yield source, RuleResult(Outcome.PASS, "the data sheet has no distribution to compare with")


def anchor(document: CheckFigures, check: Check) -> NamedResults:
    """A model of another source agrees in sign: the interval of its r does not lie below 0."""
    for source, labels in _sources(document):
        for other, figure in labels.anchor.items():
            text = f"predictions of a model of {other} ({figure.n} images) have r {interval_text(figure)}"
            text += "; must be above 0"
            result = check_bounds(figure, text, at_least=0.0)
            wrong = ": the scale is reversed in one of the two"
            yield _join(source, other), _explain(result, wrong, labels)
        if not labels.anchor:
            none = "images of other sources are compared for a numeric target of the recipe only"
            text = none if document.target else "no images of another source are available"
            yield source, RuleResult(Outcome.PASS, text)


def suspicious(document: CheckFigures, check: Check) -> NamedResults:
    """Ratings unusual for both subtype and look are listed (never a fail)."""
    for source, labels in _sources(document):
        listed = labels.suspicious
        text = f"ratings unusual for their subtype and their look: {len(listed)}"
        if listed:
            first = listed[0]
            text += f", first {first.path} (rating {first.rating:.1f}): compare them with the source"
        yield source, RuleResult(Outcome.NOTICE if listed else Outcome.PASS, text, len(listed))


RULES = {
    "labels.order": order,
    "labels.within": within,
    "labels.r2": r2,
    "labels.side": side,
    "labels.published": published,
    "labels.anchor": anchor,
    "labels.suspicious": suspicious,
}


def _sources(document: CheckFigures) -> Iterator[tuple[str, LabelFigures]]:
    """Yield name and figures of each source and its further values; a single source is not named."""
    several = len({name.partition(".")[0] for name in document.labels}) > 1
    for name, labels in document.labels.items():
        yield name if several else name.partition(".")[2], labels


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _exact(value: float | None) -> Interval:
    return Interval(mean=value, low=None, high=None)


def _explain(result: RuleResult, wrong: str, labels: LabelFigures) -> RuleResult:
    """Add what a failure means; with few images it is undecided, and an undefined figure too."""
    if result.outcome is not Outcome.FAIL:
        return result
    if labels.n < LEAST_IMAGES:
        return replace(result, outcome=Outcome.UNDECIDED, text=f"{result.text} (only {labels.n} images)")
    return replace(result, text=result.text + wrong)
