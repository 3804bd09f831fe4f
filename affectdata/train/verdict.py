"""The verdict: a check's document in sentences, and the gate that decides the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from affectdata.balance.recipe import Recipe
from affectdata.metrics import MEAN_COLLAPSE

_FEW = 5  # pictures of a bin, below which its figures are luck
_WITHIN = 0.3  # correlation inside subtypes from which a model is said to know the target, …
_WITHIN_LITTLE = 0.1  # … and below which it is said to know nothing of it
_NAMES = {"r2": "R²", "ccc": "CCC", "mae": "MAE", "macro_mae": "macro-MAE"}
_HIGHER_IS_BETTER = ("r2", "ccc")
Document = dict[str, Any]


def judge(document: Document, recipe: Recipe) -> Document:
    """Return `passed`, the rules of the gate with their outcome, and what there is to say in sentences."""
    gate = list(_gate(document, recipe))
    return {
        "passed": all(rule["passed"] for rule in gate),
        "gate": gate,
        "sentences": [
            *_say_scores(document),
            *_say_subtype(document),
            *_say_collapse(document),
            *_say_balance(document, recipe),
            *_say_classes(document),
            *_say_caveats(document),
        ],
    }


def scored_on(document: Document) -> str:
    """Return the scoring that the verdict rests on: cross-fitted where there is that."""
    return "heldout" if document["crossfit_missing"] else "crossfit"


def _scores(document: Document, arm: str, head: str = "regressor") -> Document | None:
    found: Document | None = document["arms"].get(arm, {}).get(head, {}).get(scored_on(document))
    return found


def _number(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None else f"{value:.{digits}f}"


def _gate(document: Document, recipe: Recipe) -> Iterator[Document]:
    yield {"rule": "structure", "passed": True, "text": "originals only in val and test, lineage holds"}
    scores = _scores(document, "release")
    if scores is None:
        yield from _gate_classes(document)
        return
    r2, floor = scores["r2"]["mean"], recipe.check.min_r2
    yield {
        "rule": "min_r2",
        "passed": r2 is not None and r2 >= floor,
        "text": f"R² {_number(r2)}, at least {floor:g} is asked for",
    }
    for name, margin in recipe.check.not_worse.model_dump().items():
        found = document["comparison"]["regressor"][name]
        # Worse for sure: even the upper end of the interval lies below the margin.
        worse = found["high"] is not None and found["high"] < -margin
        yield {"rule": f"not_worse.{name}", "passed": not worse, "text": _difference(name, found)}


def _gate_classes(document: Document) -> Iterator[Document]:
    name = document["release"]["target"]
    found = document["arms"]["release"]["classifier"][name][scored_on(document)]
    score, chance = found["image"]["balanced_accuracy"], found["chance"]["balanced_accuracy"]
    yield {
        "rule": "above_chance",
        "passed": score > chance,
        "text": f"balanced accuracy {score:.3f} on {name}, chance is {chance:.3f}",
    }


def _difference(name: str, found: Document) -> str:
    if None in found.values():
        return f"{_NAMES[name]} cannot be compared on these pictures"
    digits = 3 if name in ("r2", "ccc") else 2
    low, high = (f"{found[end]:+.{digits}f}" for end in ("low", "high"))
    return f"{_NAMES[name]} {found['difference']:+.{digits}f} (95 % interval {low} to {high})"


def _say_scores(document: Document) -> Iterator[str]:
    scores, mean = _scores(document, "release"), _scores(document, "mean")
    if scores is None or mean is None:
        return
    n = sum(document["bins"]["n"][scored_on(document)])
    how = "cross-fitted over all" if scored_on(document) == "crossfit" else "on the held-out"
    yield (
        f"Frozen {document['settings']['backbone']} features with an SVR, {how} {n} originals: "
        f"R² {_number(scores['r2']['mean'])}, CCC {_number(scores['ccc']['mean'])}, "
        f"macro-MAE {_number(scores['macro_mae']['mean'], 2)} "
        f"(predicting the mean: {_number(mean['macro_mae']['mean'], 2)})."
    )


def _say_subtype(document: Document) -> Iterator[str]:
    scores, told = _scores(document, "release"), _scores(document, "subtype_mean")
    if scores is None or told is None:
        return
    target, r2 = document["release"]["target"], scores["r2"]["mean"]
    if len(told["mae_per_subtype"]) < 2:
        yield f"There are no subtypes to tell {target} from."
        return
    within, baseline = scores["r_within"]["mean"], told["r2"]["mean"]
    figures = (
        f"knowing the subtype and nothing else gives R² {_number(baseline)}; "
        f"inside subtypes its r is {_number(within)} (R² {_number(scores['r2_within']['mean'])})"
    )
    if r2 is None or r2 <= 0:
        yield f"The model knows neither {target} nor the subtype: {figures}."
    elif within is not None and within >= _WITHIN:
        yield f"The model knows {target}, not only the subtype: {figures}."
    elif within is not None and within >= _WITHIN_LITTLE:
        yield f"The model mostly knows the subtype, and little of {target} inside one: {figures}."
    else:
        yield f"The model knows only the subtype, not {target}: {figures}."


def _say_collapse(document: Document) -> Iterator[str]:
    for arm in ("release", "originals"):
        for head in ("regressor", "ridge"):
            scores = _scores(document, arm, head)
            if scores and scores["mean_collapse"]:
                yield (
                    f"Mean collapse: the {scores_name(head)} of the {arm} arm says about the same to every "
                    f"picture (its spread is {_number(scores['sd_ratio']['mean'])} of the true one; "
                    f"{MEAN_COLLAPSE} is the least)."
                )


def scores_name(head: str) -> str:
    """Return what a head is called."""
    return "SVR" if head == "regressor" else head


def _say_balance(document: Document, recipe: Recipe) -> Iterator[str]:
    if document["comparison"] is None:
        return
    found = document["comparison"]["regressor"]
    better, worse = _sure(found, gained=True), _sure(found, gained=False)
    if better and worse:
        word = f"traded: better in {better}, worse in {worse} than the unbalanced originals"
    elif better or worse:
        word = f"{'gained' if better else 'lost'} against the unbalanced originals in {better or worse}"
    else:
        word = "neither gained nor lost for sure against the unbalanced originals"
    yield f"The balance {word}: " + "; ".join(_difference(name, found[name]) for name in _NAMES) + "."
    if recipe.balance.undersample:
        yield "The recipe leaves pictures out (undersample): the originals compared are those it kept."


def _sure(found: Document, *, gained: bool) -> str:
    """Name the measures whose interval lies wholly on one side of zero."""
    names = []
    for name, words in _NAMES.items():
        low, high = found[name]["low"], found[name]["high"]
        if low is None or high is None:
            continue
        higher_is_better = name in _HIGHER_IS_BETTER
        if low > 0 if gained == higher_is_better else high < 0:
            names.append(words)
    return ", ".join(names)


def _say_classes(document: Document) -> Iterator[str]:
    for name, scorings in document["arms"]["release"]["classifier"].items():
        found = scorings[scored_on(document)]
        there = [label for label, n in zip(found["labels"], found["n"], strict=True) if n]
        if len(there) < 2:
            yield f"{name}: every picture scored is {there[0]!r}; there is nothing to tell apart."
            continue
        best = found.get("both", found["image"])
        others = [
            f"{words} {found[key]['balanced_accuracy']:.3f}"
            for key, words in (
                ("image", "image alone"),
                ("regressor", "regressor alone"),
                ("chance", "chance"),
            )
            if key in found
        ]
        yield (
            f"Classifier, {len(there)} classes of {name}: balanced accuracy "
            f"{best['balanced_accuracy']:.3f}, accuracy {best['accuracy']:.3f} "
            f"({', '.join(others)}; always the most frequent: accuracy {found['majority']['accuracy']:.3f})."
        )


def _say_caveats(document: Document) -> Iterator[str]:
    edges = sorted(set(_on_edge(document)))
    if edges:
        yield (
            f"The best setting lies on the edge of its grid for {', '.join(edges)}: a better one may lie "
            "outside, and differences between arms may come from that."
        )
    bins = document["bins"]
    counts = bins["n"][scored_on(document)]
    thin = [f"{label} ({n})" for label, n in zip(bins["labels"], counts, strict=True) if n < _FEW]
    if thin:
        yield f"Fewer than {_FEW} scored pictures in {', '.join(thin)}: what is said of those is luck."
    if document["crossfit_missing"]:
        yield (
            f"Only the held-out score: {document['crossfit_missing']}. "
            f"On {sum(counts)} pictures a difference of .05 in R² is luck."
        )


def _on_edge(document: Document) -> Iterator[str]:
    """Yield `arm head` where the choice lies on an edge in more than a quarter of the folds."""
    for arm in ("release", "originals"):
        for head in ("regressor", "ridge"):
            chosen = (_scores(document, arm, head) or {}).get("chosen") or {}
            folds = chosen.get("folds", [chosen])
            on_edge = [each for each in folds if each and each.get("on_edge")]
            if len(on_edge) * 4 > len(folds):
                yield f"{scores_name(head)} of the {arm} arm"
