"""The card of a kept model, in Markdown beside its file: training data and terms, scores, limits, use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affectdata.check.arms import PLAIN, RELEASE
from affectdata.check.blocks import CheckDocument, Figure, Interval
from affectdata.check.verdict import find_knowledge
from affectdata.check.words import (
    class_scores,
    interval_text,
    measure_name,
    n_scored,
    scored_on,
    scores,
    small_groups_text,
    target_scores,
)
from affectdata.records import count_text
from affectdata.release.card import sources_and_terms
from affectdata.store.atomic import write_text
from affectdata.store.escape import markdown_table
from affectdata.train.kept import KeptModel, TunedModel

_MEASURES = ("r2", "ccc", "mae", "macro_mae", "tail_mae", "r_within")
_LABEL_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class CardScores:
    """What a card says about scores: how they were measured, a table, and what limits them."""

    text: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    limits: Sequence[str] = field(default=())


def check_scores(document: CheckDocument, head: str) -> CardScores:
    """Return the scores of a check for a model with this head: those of the arm that is trained as it is."""
    arm = RELEASE if head == PLAIN else head
    scored, target = scores(document, arm), document.release.target
    rows: list[tuple[str, ...]] = []
    several = target_scores(document, RELEASE)
    if several:
        rows += [(measure_name(name, document), _text(each)) for name, each in several.measures.items()]
    if scored:
        rows += [(measure_name(name), _text(scored[name])) for name in _MEASURES]
    if target in document.arms[RELEASE].classifier and not document.numeric:
        found = class_scores(document, RELEASE, target)
        rows += [(measure_name(name), _text(found.interval[name])) for name in _LABEL_MEASURES]
    where = "the held-out test split of the release"
    if scored_on(document) == "crossfit":
        models = count_text(document.settings.n_splits, "model")
        where = f"{models} trained alike, on images they were not trained on"
    knows = find_knowledge(document) if arm == RELEASE else None
    limits = [f"The model {knows}."] if knows else []
    for column, groups in document.subgroups.items() if arm == RELEASE else ():
        small = small_groups_text(groups.too_few)
        parts = [small] if small else []
        if groups.gap is not None:
            parts.insert(0, f"the largest gap in {measure_name(groups.measure)} is {groups.gap:.3f}")
        limits += [f"By {column.replace('_', ' ')}: {'; '.join(parts)}."] if parts else []
    failed = [rule.rule for rule in document.verdict.gate if rule.outcome == "fail"]
    if failed:
        limits.append(f"Rules of the check, of the plain head, that failed: {', '.join(failed)}.")
    text = f"Of {where}: {n_scored(document)} untouched originals, with 95 % intervals where there are some."
    return CardScores(text, ("measure", "value"), rows, limits)


def study_scores(study: Mapping[str, Any]) -> CardScores:
    """Return the scores of the best combination of a study."""
    best = study["combinations"][0]
    parts = [part for part in ("train", "val", "test") if part in best["scores"]]
    names = list(best["scores"]["val"])
    rows = [
        (measure_name(name), *(_mean(best["scores"][part].get(name)) for part in parts)) for name in names
    ]
    seeds = count_text(study["n_seeds"], "seed")
    settings = count_text(len(study["combinations"]), "setting")
    text = f"The best of {settings} on {study['best_on']}, mean over {seeds}."
    limits = []
    if len(study["combinations"]) > 1:
        limits = ["The settings were chosen on val, so its scores are optimistic; those on test are not."]
        if not study["winner"]:
            limits.append("Other settings were within the noise.")
    return CardScores(text, ("measure", *parts), rows, limits)


def write_card(
    model: KeptModel,
    path: Path,
    info: dict[str, Any],
    found: CardScores,
    more: Sequence[dict[str, Any]] = (),
) -> Path:
    """Write the card beside the model file `path`, with the ending .md; `info` is release.json.

    `more` are sources that the model was trained on besides those of the release, as manifests state them.
    """
    is_tuned = isinstance(model, TunedModel)
    network = f"{model.name}, fine-tuned" if is_tuned else f"heads on frozen {model.name}"
    predicted = [f"{target}, from 0 to 100" for target in model.targets]
    if model.labels:
        kind = "probabilities of labels" if model.several_labels else "a class"
        kind = "shares of raters" if model.are_shares else kind
        predicted.append(f"{kind}: {', '.join(model.labels)}")
    n_train = model.trained_on.n_train if model.trained_on else info["rows"]["train"]
    lines = [
        f"# {path.stem}",
        "",
        f"Predicts {'; '.join(predicted)}. Network: {network}, on the centre square of an image at "
        f"{model.normalisation.size_px} px.",
        "",
        "## Trained on",
        "",
        f"Release `{info['name']}` (`{info['id'][:16]}`), balanced on {info['target']}: {n_train} rows for "
        f"training, of {info['rows']['train']} in its train split. The weights of the network that training "
        "started from have terms of their own.",
        "",
        *sources_and_terms(info),
        *sources_and_terms({"manifests": more}),
        "## Scores",
        "",
        found.text,
        "",
        *markdown_table(found.header, found.rows),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in found.limits),
        "- It predicts what the raters of these collections would say about images like theirs, not what a",
        "  person in an image feels, nor what one viewer will.",
        "- It was not scored on images of other sources than those above.",
        "",
        "## Use",
        "",
        "```",
        f"affectdata predict {path.name} photo.jpg --html page.html",
        "```",
        "",
        "```python",
        "import affectdata",
        f'affectdata.predict("{path.name}", ["photo.jpg"])',
        "```",
    ]
    card = path.with_suffix(".md")
    write_text(card, "\n".join(lines) + "\n")
    return card


def _text(figure: Interval | Figure) -> str:
    known = Interval(mean=figure.mean, low=figure.low, high=figure.high)
    return interval_text(known)


def _mean(figure: Mapping[str, Any] | None) -> str:
    if not figure or figure["mean"] is None:
        return "–"
    spread = "" if figure["sd"] is None else f" (SD {figure['sd']:.3f})"
    return f"{figure['mean']:.3f}{spread}"
