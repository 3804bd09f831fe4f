"""Rules over the figures of `shortcuts`: can a network recognise a subtype by marks rather than by content?

With fewer than 200 originals, what would fail is undecided. The false alarms and the power of every bound are
in docs/check.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from affectdata.check.blocks import CheckFigures, Shortcuts
from affectdata.check.rule_result import Outcome, RuleResult
from affectdata.check.words import too_few_text
from affectdata.recipe.bounds import Check

NamedResults = Iterator[tuple[str, RuleResult]]
MAX_RATIO = 10.0
MAX_AUC = 0.85  # more, or less than 1 - this, is listed
FAILING_AUC = 0.9
MAX_RISE = 15.0  # of a score of 0–100
MAX_RISE_OF_NOTABLE = 10.0  # where a scalar that the look moves distinguishes the subtype
_MOVED = {
    **dict.fromkeys(("jpeg 30", "jpeg 60"), "block_edges"),
    **dict.fromkeys(("blur", "half size"), "fine_detail"),
    **dict.fromkeys(("frame", "letterbox"), "flat_sides"),
    "colour cast": "dark_cast",
}
_SCALARS = {
    "block_edges": "the edges of JPEG blocks",
    "fine_detail": "fine detail",
    "flat_sides": "uniform sides",
    "dark_cast": "red less blue in the darkest pixels",
    "light_cast": "red less blue in the lightest pixels",
    "colour": "the strength of colours",
}


def pattern(document: CheckFigures, check: Check) -> NamedResults:
    """No subtype (source) has a common pattern that the rest lacks: a watermark, a text, a frame."""
    found = document.shortcuts
    if found is None:
        return
    if found.missing:
        yield "", _not_applicable(found.missing)
        return
    name, worst = max(found.patterns.items(), key=lambda item: item[1].ratio)
    text = (
        f"the mean pattern of {name} differs most from the rest in row {worst.row + 1}, column "
        f"{worst.column + 1} of {worst.n_cells} of the {worst.place}: {worst.ratio:.1f} times what chance "
        f"gives, must be below {MAX_RATIO:g}"
    )
    if not found.from_sources:
        text += " (released images: those of the sources are not available)"
    outcome = Outcome.PASS
    if worst.ratio >= MAX_RATIO:
        outcome = _unless_few(document)
        text += ": look for a watermark, a text or a frame there"
    yield "", RuleResult(outcome, text, worst.ratio, bound=MAX_RATIO)


def scalars(document: CheckFigures, check: Check) -> NamedResults:
    """No trace of JPEG, blur, uniform sides, a cast or grey images distinguishes a subtype: AUC .1 to .9.

    Outside .15 to .85 it is listed. Sources differ in formats and cameras: with several sources, values are
    only listed.
    """
    found = document.shortcuts
    if found is None:
        return
    if found.missing:
        yield "", _not_applicable(found.missing)
        return
    for scalar, by_group in found.scalars.items():
        name, area = max(by_group.items(), key=lambda item: abs(item[1] - 0.5))
        text = f"{name} differs from the rest in {_SCALARS[scalar]}, with an AUC of {area:.2f}"
        fails = is_notable(area, FAILING_AUC) and not any(key.startswith("source ") for key in by_group)
        outcome = Outcome.NOTICE if is_notable(area) else Outcome.PASS
        if fails:
            outcome = _unless_few(document)
            text += ", whatever the image shows: these files were made in another way"
        text += f"; must be within {1 - FAILING_AUC:.2g} to {FAILING_AUC:.2g}"
        yield scalar, RuleResult(outcome, text, area, bound=FAILING_AUC)


def looks(document: CheckFigures, check: Check) -> NamedResults:
    """A look (JPEG, blur, …) raises a subtype's score on other images by at most 15 points of 100.

    At most 10 if a trace of that look distinguishes the subtype from the rest.
    """
    found = document.shortcuts
    if found is None:
        return
    reason = found.missing or found.looks_missing
    if reason:
        yield "", _not_applicable(reason)
        return
    rises = {(look, name): rise for look, by in found.looks.items() for name, rise in by.items()}
    bounds = {key: _max_rise(found, *key) for key in rises}
    look, name = worst = max(rises, key=lambda key: rises[key] - bounds[key])
    rise, bound = rises[worst], bounds[worst]
    text = (
        f"{look} raises the score of {name} on images of other subtypes by {rise:.1f} of 100; must be at "
        f"most {bound:g}"
    )
    outcome = Outcome.PASS
    if rise > bound:
        outcome = _unless_few(document)
        text += f": the network takes this look for {name}"
    yield "", RuleResult(outcome, text, rise, bound=bound)


def _max_rise(found: Shortcuts, look: str, name: str) -> float:
    return MAX_RISE_OF_NOTABLE if is_moved(found, look, name) else MAX_RISE


def is_moved(found: Shortcuts, look: str, name: str) -> bool:
    """Return whether the scalar that a look moves distinguishes this subtype from the rest."""
    return is_notable(found.scalars.get(_MOVED.get(look, ""), {}).get(f"subtype {name}", 0.5))


def is_notable(area: float, bound: float = MAX_AUC) -> bool:
    """Return whether an AUC is far from a half, on either side."""
    return abs(area - 0.5) > bound - 0.5


RULES = {"shortcut.pattern": pattern, "shortcut.scalars": scalars, "shortcut.looks": looks}


def _not_applicable(reason: str) -> RuleResult:
    return RuleResult(Outcome.PASS, f"not applicable: {reason}")


def _unless_few(document: CheckFigures) -> Outcome:
    return Outcome.UNDECIDED if too_few_text(document) else Outcome.FAIL
