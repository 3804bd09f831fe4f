"""The verdict: a check's document as sentences, and advice.

The advice names thin bins, the options of the table in `advice` that help, and undeclared groups, which do
not help but make the scores honest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from affectdata.check.advice import HELPS
from affectdata.check.arms import EVEN, MEAN, ORIGINALS, RELEASE, STRETCHED, SUBTYPE_AWARE, SUBTYPE_MEAN
from affectdata.check.blocks import CheckFigures, Interval
from affectdata.check.target_words import score_sentence
from affectdata.check.words import (
    ARM_NAMES,
    NAMES,
    change_text,
    class_scores,
    clear_change,
    interval_text,
    measure_name,
    n_scored,
    number_text,
    scored_on,
    scores,
    skill_name,
    skill_of,
    small_groups_text,
    splits_text,
    too_few_text,
)
from affectdata.recipe.recipe import Recipe

_FEW_IN_TAIL = 20  # images of all thin bins
_FEW = 5  # images in a bin; with fewer, its figures are due to chance
_WITHIN = 0.3  # correlation within subtypes from which a model predicts the target, …
_WITHIN_LITTLE = 0.1  # … and below which it predicts only the subtype
_FEW_REAL = 20  # real images; a bin with fewer is named
_DROP = 0.02  # R² lost when undeclared groups are kept together; from here on they should be declared


def make_sentences(document: CheckFigures, recipe: Recipe) -> list[str]:
    """Return the findings as sentences, the most important first."""
    return [
        *_score_sentences(document),
        *score_sentence(document),
        *_subtype_sentences(document),
        *_subtype_aware_sentences(document),
        *_source_sentences(document),
        *_collapse_sentences(document),
        *_balance_sentences(document, recipe),
        *_class_sentences(document),
        *_subgroup_sentences(document),
        *_caveat_sentences(document),
    ]


def _score_sentences(document: CheckFigures) -> Iterator[str]:
    scored, mean = scores(document, RELEASE), scores(document, MEAN)
    if scored is None or mean is None:
        return
    settings = document.settings
    model = f"Frozen {settings.backbone} features with an SVR"
    if settings.mode != "frozen":
        steps, size_px = settings.steps, settings.size_px
        model = f"{settings.backbone} fine-tuned for {steps} steps at {size_px} px"
    where = splits_text(document)
    ceiling = document.ceiling
    limit = f"; the raters' noise limits R² to {number_text(ceiling)}" if ceiling is not None else ""
    yield (
        f"{model}, over {where} {n_scored(document)} originals: "
        f"R² {interval_text(scored['r2'])}{limit}, CCC {interval_text(scored['ccc'])}, "
        f"macro-MAE {number_text(scored['macro_mae'].mean, 2)} "
        f"(predicting the mean: {number_text(mean['macro_mae'].mean, 2)})."
    )


def _subtype_sentences(document: CheckFigures) -> Iterator[str]:
    scored, baseline = scores(document, RELEASE), scores(document, SUBTYPE_MEAN)
    if scored is None or baseline is None:
        return
    target = document.release.target
    if len(baseline.mae_per_subtype) < 2:
        yield f"There are no two subtypes, so {target} cannot be compared within them."
        return
    figures = (
        f"predicting each subtype's mean gives R² {number_text(baseline['r2'].mean)}; "
        f"within subtypes the model's r is {number_text(scored['r_within'].mean)} "
        f"(R² {number_text(scored['r2_within'].mean)})"
    )
    yield f"The model {find_knowledge(document)}: {figures}."


def find_knowledge(document: CheckFigures) -> str | None:
    """Return whether the release's model predicts the target or only the subtype; None without subtypes."""
    scored, baseline = scores(document, RELEASE), scores(document, SUBTYPE_MEAN)
    if scored is None or baseline is None or len(baseline.mae_per_subtype) < 2:
        return None
    target, r2, within = document.release.target, scored["r2"].mean, scored["r_within"].mean
    if r2 is None or r2 <= 0:
        return f"predicts neither {target} nor the subtype"
    if within is not None and within >= _WITHIN:
        return f"predicts {target}, not only the subtype"
    if within is not None and within >= _WITHIN_LITTLE:
        return f"mostly predicts the subtype, and little of {target} within one"
    return f"predicts only the subtype, not {target}"


def _subtype_aware_sentences(document: CheckFigures) -> Iterator[str]:
    """Say what the subtype-aware head gains, and that it is not finer knowledge of the target."""
    plain, aware = scores(document, ORIGINALS), scores(document, SUBTYPE_AWARE)
    change = document.comparison.get(f"{SUBTYPE_AWARE} - {ORIGINALS}")
    if not plain or not aware or not change:
        return
    before, after, target = plain["r_within"].mean, aware["r_within"].mean, document.release.target
    within = f"r within subtypes is {number_text(after)}, {number_text(before)} with the plain head"
    if before is not None and after is not None and after <= before:
        within = (
            f"r within subtypes falls from {number_text(before)} to {number_text(after)}: it uses the "
            f"subtype better, and knows no more of {target} within one"
        )
    yield (
        f"A subtype-aware head on the originals (arm {SUBTYPE_AWARE}) has R² {interval_text(aware['r2'])}, "
        f"{interval_text(change['r2'], 3, '+')} compared with the plain head; {within}."
    )
    for name, scored in document.transfer.items():
        if scored.subtype_aware:
            yield (
                f"Trained on these originals, the subtype-aware head has R² "
                f"{interval_text(scored.subtype_aware.r2)} on {scored.n} images of {name}, the plain head "
                f"{interval_text(scored.plain.r2)}."
            )


def _source_sentences(document: CheckFigures) -> Iterator[str]:
    scored = scores(document, RELEASE)
    if scored and len(scored.per_source) > 1:
        sources = ", ".join(
            f"{name} R² {number_text(source['r2'])} (n = {source.n})"
            for name, source in scored.per_source.items()
        )
        yield f"Scores are computed within each source and averaged: {sources}."


def _collapse_sentences(document: CheckFigures) -> Iterator[str]:
    least = document.settings.check.min_sd_ratio
    for arm in (RELEASE, ORIGINALS):
        for head in ("regressor", "ridge"):
            scored = scores(document, arm, head)
            if scored and scored.mean_collapse:
                name = document.arms[arm].heads[head].head
                yield (
                    f"Mean collapse: the {'SVR' if name == 'svr' else name} of the {arm} arm predicts "
                    "nearly the same value for every image (SD of predictions / SD of targets is "
                    f"{number_text(scored['sd_ratio'].mean)}; it must be at least {least:g})."
                )


@dataclass(frozen=True)
class BalanceFinding:
    """The measures that balancing improves by more than its controls, and those that it worsens."""

    helped: list[str]
    lost: list[str]
    controls: list[str]  # arms
    is_on_edge: bool  # in too many splits the best setting is on the edge of its grid: no verdict


def find_balance(document: CheckFigures) -> BalanceFinding | None:
    """Balancing helps if the release beats the originals, as many even copies, and stretched originals.

    None if the release trains on the unchanged originals, or they were not trained on.
    """
    compared = document.comparison
    arms = [arm for arm in (ORIGINALS, EVEN, STRETCHED) if f"{RELEASE} - {arm}" in compared]
    if not arms:
        return None
    against = {arm: compared[f"{RELEASE} - {arm}"] for arm in arms}
    changes = against[ORIGINALS]
    if not document.copies and all(change.low == change.high == 0 for change in changes.values()):
        return None
    helped = [
        measure
        for measure in changes
        if all(clear_change(measure, differences[measure]) > 0 for differences in against.values())
    ]
    lost = [measure for measure in changes if clear_change(measure, changes[measure]) < 0]
    return BalanceFinding(helped, lost, arms[1:], bool(document.on_edge))


def _balance_sentences(document: CheckFigures, recipe: Recipe) -> Iterator[str]:
    changes, found = document.comparison.get(f"{RELEASE} - {ORIGINALS}"), find_balance(document)
    if changes is None:
        return
    if found is None:
        yield "The release trains on the unchanged originals: there is nothing to compare them with."
        return
    gains, losses = (
        ", ".join(measure_name(each, document) for each in measures)
        for measures in (found.helped, found.lost)
    )
    controls = " and ".join(ARM_NAMES[arm] for arm in found.controls) or "the originals"
    if found.is_on_edge:
        finding = "No verdict on balancing: in too many splits the best setting is on the edge of its grid"
    elif gains and losses:
        finding = f"Balancing is a trade-off: it improves {gains} and worsens {losses}"
    elif gains:
        finding = f"Balancing improves {gains}, by more than {controls} would"
    elif losses:
        finding = f"Balancing worsens {losses}"
    else:
        finding = (
            "Whether balancing helps is undecided: the differences are within the variation of the splits"
        )
    figures = "; ".join(change_text(measure, change, document) for measure, change in changes.items())
    yield f"{finding}. Compared with {ARM_NAMES[ORIGINALS]}: {figures}."
    if recipe.balance.undersample:
        yield "The recipe drops images (undersample): it is compared with the originals that it kept."


def _class_sentences(document: CheckFigures) -> Iterator[str]:
    for name in document.arms[RELEASE].classifier:
        scored = class_scores(document, RELEASE, name)
        labels = [label for label, n in zip(scored.labels, scored.n, strict=True) if n]
        if len(labels) < 2:
            yield f"{name}: every scored image is {labels[0]!r}; there is nothing to classify."
            continue
        best, inputs = scored.interval, {"image": scored.image, "regressor": scored.regressor}
        baselines = "".join(
            f"{name} alone {number_text(part['balanced_accuracy'])}, "
            for name, part in inputs.items()
            if part
        )
        yield (
            f"Classifier, {len(labels)} classes of {name}: balanced accuracy "
            f"{interval_text(best['balanced_accuracy'])}, accuracy {interval_text(best['accuracy'])} "
            f"({baselines}chance {number_text(scored.chance['balanced_accuracy'])}; "
            f"always the most frequent: accuracy {number_text(scored.majority['accuracy'])})."
        )


def _subgroup_sentences(document: CheckFigures) -> Iterator[str]:
    for column, scored in document.subgroups.items():
        too_few, by = small_groups_text(scored.too_few), column.replace("_", " ")
        if len(scored.groups) < 2:
            if too_few:
                yield f"By {by}, there are no two groups to compare; {too_few}."
            continue
        figures = {name: getattr(group, scored.measure) for name, group in scored.groups.items()}
        low, high = (choose(figures, key=lambda name: figures[name]) for choose in (min, max))
        lowest, highest = (
            f"{_figure_text(figures[name], scored.groups[name].interval)} "
            f"({name}, n = {scored.groups[name].n})"
            for name in (low, high)
        )
        yield (
            f"By {by}, {measure_name(scored.measure)} ranges from {lowest} to {highest}: "
            f"a gap of {number_text(scored.gap)}{_estimated_text(scored.estimated)}"
            f"{f'; {too_few}' if too_few else ''}."
        )


def _figure_text(value: float | None, interval: Interval | None) -> str:
    return number_text(value) if interval is None else interval_text(interval)


def _estimated_text(sources: list[str]) -> str:
    return f" (estimated by a machine in {', '.join(sources)})" if sources else ""


def _caveat_sentences(document: CheckFigures) -> Iterator[str]:
    too_few = too_few_text(document)
    if too_few:
        yield f"Whether a model can learn from this release is {too_few}."
    if document.on_edge:
        yield (
            f"The best setting of {', '.join(document.on_edge)} is on the edge of its grid: a better "
            "one may be outside, and differences between arms may come from that."
        )
    settings, bins = document.settings, document.bins
    if settings.n_images < settings.n_images_of:
        part = f"{settings.n_images} of {settings.n_images_of} originals"
        yield f"The check used {part} (`check.max_pictures`)."
    counts = bins.n.on(scored_on(document)) or []
    thin = [f"{label} ({n})" for label, n in zip(bins.labels, counts, strict=True) if n < _FEW]
    if thin:
        yield f"Fewer than {_FEW} scored images in {', '.join(thin)}: their figures are due to chance."
    in_tail = [n for n, is_thin in zip(counts, bins.tail, strict=False) if is_thin]
    if in_tail and sum(in_tail) < _FEW_IN_TAIL:
        yield f"Figures of the thin bins together (tail MAE) rest on {sum(in_tail)} scored images."
    if document.crossfit_missing:
        yield (
            f"Only the held-out score: {document.crossfit_missing}. "
            f"With {sum(counts)} images, a difference of .05 in {skill_name(document) or NAMES['r2']} may be "
            "due to chance."
        )


def advise(document: CheckFigures, info: Mapping[str, Any]) -> list[str]:
    """Return sentences on what to do next; `info` is release.json."""
    return [
        *_thin_bins(info),
        *_what_helps(document),
        *_not_offered(document),
        *_groups(document),
    ]


def _thin_bins(info: Mapping[str, Any]) -> Iterator[str]:
    bins = info.get("balance", {}).get("bins", [])
    mean = sum(row["n_before"] for row in bins) / max(1, len(bins))
    thin = [row for row in bins if row["n_before"] < _FEW_REAL or row["n_before"] < mean / 2]
    if thin:
        names = ", ".join(f"{row['bin']} ({row['n_before']})" for row in thin[:4])
        yield (
            f"More real images are needed: train has few in {names}. Copies add no information there; "
            "`balance: {fill_from: [NAME]}` takes images of another manifest first."
        )


def _what_helps(document: CheckFigures) -> Iterator[str]:
    for row in document.advice.rows if document.advice else ():
        if row.outcome == HELPS and row.change and row.over_control:
            yield (
                f"Of the options tried, {row.option} helps: {change_text(row.measure, row.change)}, over its "
                f"control {change_text(row.measure, row.over_control)}; {row.enable}."
            )


def _not_offered(document: CheckFigures) -> Iterator[str]:
    for name, reason in document.not_offered.items():
        yield f"{name} could not be tried for the thin bins: {reason}."


def _groups(document: CheckFigures) -> Iterator[str]:
    before, name = skill_of(document, ORIGINALS), skill_name(document)
    for column, regrouped in document.regrouped.items():
        r2 = before.mean if before else None
        if regrouped.mean is None or r2 is None:
            continue
        figures = (
            f"with equal values kept together, the originals score {name} {interval_text(regrouped)}, "
            f"not {number_text(r2)}"
        )
        if r2 - regrouped.mean > _DROP:
            yield f"Declare `split: {{groups: [{column}]}}`: {figures}; the difference is leakage."
        else:
            yield f"Groups by {column} were not declared; {figures}."
