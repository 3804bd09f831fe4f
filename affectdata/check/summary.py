"""The summary of a check: at most five lines for a reader who is new to the figures behind them.

What the model reaches compared with predicting the mean; whether it knows the target or only the subtype;
whether balancing helped; what to do next. Every figure is the one that sentences, tables and rules print.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from affectdata.check.advice import HELPS
from affectdata.check.arms import MEAN, ORIGINALS, RELEASE
from affectdata.check.blocks import CheckFigures, RuleOutcome
from affectdata.check.target_words import summary_line
from affectdata.check.verdict import find_balance, find_knowledge
from affectdata.check.words import (
    change_text,
    class_scores,
    interval_text,
    measure_name,
    n_scored,
    number_text,
    scores,
    too_few_text,
)

NO_WEIGHTS = "none"  # what `settings.weights` is for a network with random weights


def summarize(document: CheckFigures, gate: Sequence[RuleOutcome], advice: Sequence[str]) -> list[str]:
    """Return the summary; `gate` and `advice` are those of the verdict."""
    return [*_reaches(document), *_knows(document), *_balancing(document), *_next(document, gate, advice)]


def _reaches(document: CheckFigures) -> Iterator[str]:
    n, scored, mean = n_scored(document), scores(document, RELEASE), scores(document, MEAN)
    random = " Its network has random weights." if document.settings.weights == NO_WEIGHTS else ""
    if scored and mean:
        yield (
            f"On {n} images it was not trained on, the model reaches R² {interval_text(scored['r2'], 2)}, "
            f"where predicting the mean gives 0; its mean error is {number_text(scored['mae'].mean, 1)} "
            f"points of 100, that of the mean {number_text(mean['mae'].mean, 1)}.{random}"
        )
    elif document.target:
        yield from (f"{line}{random}" for line in summary_line(document))
    elif document.release.target in document.arms[RELEASE].classifier:
        found = class_scores(document, RELEASE, document.release.target)
        yield (
            f"On {n} images it was not trained on, the model reaches a balanced accuracy of "
            f"{interval_text(found.interval['balanced_accuracy'], 2)}, where guessing gives "
            f"{number_text(found.chance['balanced_accuracy'], 2)}.{random}"
        )


def _knows(document: CheckFigures) -> Iterator[str]:
    finding, scored = find_knowledge(document), scores(document, RELEASE)
    if finding and scored:
        yield f"It {finding} (within subtypes, r = {number_text(scored['r_within'].mean, 2)})."


def _balancing(document: CheckFigures) -> Iterator[str]:
    found = find_balance(document)
    if found is None:
        return
    changes = document.comparison[f"{RELEASE} - {ORIGINALS}"]
    shown = [*found.helped[:1], *found.lost[:1]] or list(changes)[:1]
    figures = "; ".join(change_text(measure, changes[measure], document) for measure in shown)
    lost = ", ".join(measure_name(measure, document) for measure in found.lost)
    if too_few_text(document):
        answer = f"there are too few images to decide ({n_scored(document)})"
    elif found.is_on_edge:
        answer = "cannot be decided, as the best setting is on the edge of its grid"
    elif found.helped:
        answer = f"yes, at the cost of {lost}" if lost else "yes"
    else:
        answer = "no, it did harm" if found.lost else "no clear difference"
    yield f"Did balancing help? {answer[0].upper()}{answer[1:]}: {figures} compared with the originals."


def _next(document: CheckFigures, gate: Sequence[RuleOutcome], advice: Sequence[str]) -> Iterator[str]:
    failed = [rule.rule for rule in gate if rule.outcome == "fail"]
    helps = [row for row in (document.advice.rows if document.advice else ()) if row.outcome == HELPS]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        yield f"Next: find out why {failed[0]}{more} failed; the finding is below."
    elif helps:
        yield f"Next: try {helps[0].option}: {helps[0].enable}."
    elif advice:
        yield f"Next: {advice[0]}"
