"""The verdict: a check's document in sentences.

The advice names what would help more than this release does, measured where it can be, in the order in which
it helped on GAPED: images of another source, weights as well as copies, and undeclared groups, which do not
help but make the scores honest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from affectdata.check.arms import EVEN, MEAN, ORIGINALS, RELEASE, STRETCHED, SUBTYPE_MEAN, WEIGHTS, WITH
from affectdata.check.words import (
    ARM_NAMES,
    NAMES,
    Document,
    change_text,
    clear_change,
    interval_text,
    number,
    scored_on,
    scores,
    small_groups_text,
    too_few_text,
)
from affectdata.recipe.recipe import Recipe

_FEW = 5  # images of a bin, below which its figures are luck
_WITHIN = 0.3  # correlation inside subtypes from which a model is said to know the target, …
_WITHIN_LITTLE = 0.1  # … and below which it is said to know nothing of it
_FEW_REAL = 20  # real images, below which a bin is worth naming
_DROP = 0.02  # R² lost with undeclared groups held together, from which it is worth saying


def make_sentences(document: Document, recipe: Recipe) -> list[str]:
    """Return what there is to say, the most important first."""
    return [
        *_score_sentences(document),
        *_subtype_sentences(document),
        *_source_sentences(document),
        *_collapse_sentences(document),
        *_balance_sentences(document, recipe),
        *_class_sentences(document),
        *_subgroup_sentences(document),
        *_caveat_sentences(document),
    ]


def _score_sentences(document: Document) -> Iterator[str]:
    found, mean = scores(document, RELEASE), scores(document, MEAN)
    if found is None or mean is None:
        return
    said = document["settings"]
    model = f"Frozen {said['backbone']} features with an SVR"
    if said["mode"] != "frozen":
        model = f"{said['backbone']} fine-tuned for {said['steps']} steps at {said['size_px']} px"
    how = f"{said['n_splits']} splits of" if scored_on(document) == "crossfit" else "the held-out"
    ceiling = document["ceiling"]
    noise = f"; the raters' noise leaves room for {number(ceiling)}" if ceiling is not None else ""
    yield (
        f"{model}, over {how} {sum(document['bins']['n'][scored_on(document)])} originals: "
        f"R² {interval_text(found['r2'])}{noise}, CCC {interval_text(found['ccc'])}, "
        f"macro-MAE {number(found['macro_mae']['mean'], 2)} "
        f"(predicting the mean: {number(mean['macro_mae']['mean'], 2)})."
    )


def _subtype_sentences(document: Document) -> Iterator[str]:
    found, baseline = scores(document, RELEASE), scores(document, SUBTYPE_MEAN)
    if found is None or baseline is None:
        return
    target, r2 = document["release"]["target"], found["r2"]["mean"]
    if len(baseline["mae_per_subtype"]) < 2:
        yield f"There are no subtypes to tell {target} from."
        return
    within, known = found["r_within"]["mean"], baseline["r2"]["mean"]
    figures = (
        f"knowing the subtype and nothing else gives R² {number(known)}; "
        f"inside subtypes its r is {number(within)} (R² {number(found['r2_within']['mean'])})"
    )
    if r2 is None or r2 <= 0:
        words = f"knows neither {target} nor the subtype"
    elif within is not None and within >= _WITHIN:
        words = f"knows {target}, not only the subtype"
    elif within is not None and within >= _WITHIN_LITTLE:
        words = f"mostly knows the subtype, and little of {target} inside one"
    else:
        words = f"knows only the subtype, not {target}"
    yield f"The model {words}: {figures}."


def _source_sentences(document: Document) -> Iterator[str]:
    found = scores(document, RELEASE)
    if found and len(found["per_source"]) > 1:
        each = ", ".join(
            f"{name} R² {number(one['r2'])} (n = {one['n']})" for name, one in found["per_source"].items()
        )
        yield f"Scores are taken within each source and averaged: {each}."


def _collapse_sentences(document: Document) -> Iterator[str]:
    least = document["settings"]["check"]["min_sd_ratio"]
    for arm in (RELEASE, ORIGINALS):
        for head in ("regressor", "ridge"):
            found = scores(document, arm, head)
            if found and found["mean_collapse"]:
                name = document["arms"][arm][head]["head"]
                yield (
                    f"Mean collapse: the {'SVR' if name == 'svr' else name} of the {arm} arm says "
                    "about the same to every image (its spread is "
                    f"{number(found['sd_ratio']['mean'])} of the true one; {least:g} is the least)."
                )


def _balance_sentences(document: Document, recipe: Recipe) -> Iterator[str]:
    """Say whether levelling helps: if it beats originals, an equal budget and stretched originals."""
    compared = document["comparison"]
    arms = [arm for arm in (ORIGINALS, EVEN, STRETCHED) if f"{RELEASE} - {arm}" in compared]
    if not arms:
        return
    against = {arm: compared[f"{RELEASE} - {arm}"] for arm in arms}
    first = against[ORIGINALS]
    if not document["copies"] and all(each["low"] == each["high"] == 0 for each in first.values()):
        yield "The release trains on the originals as they are: there is nothing to compare them with."
        return
    helped = [name for name in first if all(clear_change(name, each[name]) > 0 for each in against.values())]
    lost = [name for name in first if clear_change(name, first[name]) < 0]
    gains, losses = (", ".join(NAMES[name] for name in names) for names in (helped, lost))
    others = " and ".join(ARM_NAMES[arm] for arm in arms[1:]) or "the originals"
    if document["on_edge"]:
        word = "No verdict on levelling: the best setting lies on the edge of its grid in too many splits"
    elif helped and lost:
        word = f"Levelling trades: it helps {gains} and costs {losses}"
    elif helped:
        word = f"Levelling helps {gains}, beyond what {others} would do"
    elif lost:
        word = f"Levelling costs {losses}"
    else:
        word = "Whether levelling helps is undecided: what it changes is within the luck of the splits"
    figures = "; ".join(change_text(name, each) for name, each in first.items())
    yield f"{word}. Against {ARM_NAMES[ORIGINALS]}: {figures}."
    if recipe.balance.undersample:
        yield "The recipe leaves images out (undersample): the originals compared are those it kept."


def _class_sentences(document: Document) -> Iterator[str]:
    for name, scorings in document["arms"][RELEASE].get("classifier", {}).items():
        found = scorings[scored_on(document)]
        there = [label for label, n in zip(found["labels"], found["n"], strict=True) if n]
        if len(there) < 2:
            yield f"{name}: every image scored is {there[0]!r}; there is nothing to tell apart."
            continue
        best = found["interval"]
        words = {"image": "image alone", "regressor": "regressor alone", "chance": "chance"}
        others = ", ".join(
            f"{words[key]} {found[key]['balanced_accuracy']:.3f}" for key in words if key in found
        )
        yield (
            f"Classifier, {len(there)} classes of {name}: balanced accuracy "
            f"{interval_text(best['balanced_accuracy'])}, accuracy {interval_text(best['accuracy'])} "
            f"({others}; always the most frequent: accuracy {found['majority']['accuracy']:.3f})."
        )


def _subgroup_sentences(document: Document) -> Iterator[str]:
    for column, found in document["subgroups"].items():
        few, by = small_groups_text(found["too_few"]), column.replace("_", " ")
        if len(found["groups"]) < 2:
            if few:
                yield f"By {by}, there are no two groups to compare; {few}."
            continue
        measure = found["measure"]
        (low, first), *_, (high, last) = sorted(found["groups"].items(), key=lambda item: item[1][measure])
        yield (
            f"By {by}, {NAMES[measure]} goes from {number(first[measure])} "
            f"({low}, n = {first['n']}) to {number(last[measure])} ({high}, n = {last['n']}): "
            f"a gap of {number(found['gap'])}{_estimated_text(found.get('estimated', []))}"
            f"{f'; {few}' if few else ''}."
        )


def _estimated_text(sources: list[str]) -> str:
    return f" (estimated by a machine in {', '.join(sources)})" if sources else ""


def _caveat_sentences(document: Document) -> Iterator[str]:
    few = too_few_text(document)
    if few:
        yield f"Whether a model can learn from this release is {few}."
    if document["on_edge"]:
        yield (
            f"The best setting of {', '.join(document['on_edge'])} lies on the edge of its grid: a better "
            "one may lie outside, and differences between arms may come from that."
        )
    settings, bins = document["settings"], document["bins"]
    if settings["n_pictures"] < settings["n_pictures_of"]:
        part = f"{settings['n_pictures']} of {settings['n_pictures_of']} originals"
        yield f"Checked on {part} (`check.max_pictures`)."
    counts = bins["n"][scored_on(document)]
    thin = [f"{label} ({n})" for label, n in zip(bins["labels"], counts, strict=True) if n < _FEW]
    if thin:
        yield f"Fewer than {_FEW} scored images in {', '.join(thin)}: what is said of those is luck."
    if document["crossfit_missing"]:
        yield (
            f"Only the held-out score: {document['crossfit_missing']}. "
            f"On {sum(counts)} images a difference of .05 in R² is luck."
        )


def advise(document: Document, info: Mapping[str, Any]) -> list[str]:
    """Return sentences on what to do next; `info` is release.json."""
    return [
        *_thin_bins(info),
        *_other_sources(document),
        *_weights(document),
        *_groups(document),
    ]


def _thin_bins(info: Mapping[str, Any]) -> Iterator[str]:
    bins = info.get("balance", {}).get("bins", [])
    mean = sum(each["n_before"] for each in bins) / max(1, len(bins))
    thin = [each for each in bins if each["n_before"] < _FEW_REAL or each["n_before"] < mean / 2]
    if thin:
        named = ", ".join(f"{each['bin']} ({each['n_before']})" for each in thin[:4])
        yield (
            f"What is missing is real images: train has few in {named}. Copies add no information there; "
            "`balance: {fill_from: [NAME]}` takes images of another manifest first."
        )


def _other_sources(document: Document) -> Iterator[str]:
    n_train = {arm: found["n_train"]["crossfit"] for arm, found in document["arms"].items()}
    for pair, found in document["comparison"].items():
        if not pair.startswith(WITH):
            continue
        arm = pair.removesuffix(f" - {ORIGINALS}")
        verb = "would change nothing for sure"
        if clear_change("tail_mae", found["tail_mae"]) > 0:
            verb = "would help the thin bins"
        elif clear_change("r2", found["r2"]) < 0:
            verb = "would do harm"
        yield (
            f"{n_train[arm] - n_train[ORIGINALS]:.0f} images of {arm.removeprefix(WITH)} that fall into "
            f"the thin bins {verb}: {change_text('tail_mae', found['tail_mae'])}, "
            f"{change_text('r2', found['r2'])} against the originals alone."
        )
    for name, why in document["not_offered"].items():
        yield f"{name} could not be tried for the thin bins: {why}."


def _weights(document: Document) -> Iterator[str]:
    found = document["comparison"].get(f"{RELEASE} - {WEIGHTS}")
    measure = "macro_mae" if document["numeric"] else "balanced_accuracy"
    if found and document["copies"] and clear_change(measure, found[measure]) < 1:
        yield (
            f"It is not sure that copies do better than weights ({NAMES[measure]} "
            f"{interval_text(found[measure], 3, '+')}): `weights: {{by: inverse}}` with "
            "`balance: {max_copies: 1}` (recipe weights_only) renders no copy."
        )


def _groups(document: Document) -> Iterator[str]:
    before = scores(document, ORIGINALS)
    for column, found in document["regrouped"].items():
        r2 = before["r2"]["mean"] if before else None
        if found["mean"] is None or r2 is None:
            continue
        lost = r2 - found["mean"]
        told = f"with these together, the originals score R² {interval_text(found)}, not {number(r2)}"
        if lost > _DROP:
            yield f"Declare `split: {{groups: [{column}]}}`: {told}; the rest had been seen before."
        else:
            yield f"Groups by {column} were not declared; {told}."
