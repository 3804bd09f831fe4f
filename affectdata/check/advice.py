"""The advice: what would help more than this release does, measured where it can be.

In the order in which it helped on real GAPED: pictures of another source, weights as well as copies, and
groups that nobody declared, which do not help but tell the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from affectdata.check.arms import ORIGINALS, RELEASE, WEIGHTS, WITH
from affectdata.check.words import NAMES, Document, change_text, interval_text, number, scores, surely

_FEW = 20  # real pictures, below which a bin is worth naming
_DROP = 0.02  # R² lost with undeclared groups held together, from which it is worth saying


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
    thin = [each for each in bins if each["n_before"] < _FEW or each["n_before"] < mean / 2]
    if thin:
        named = ", ".join(f"{each['bin']} ({each['n_before']})" for each in thin[:4])
        yield (
            f"What is missing is real pictures: train has few in {named}. Copies add no information there; "
            "`balance: {fill_from: [NAME]}` takes pictures of another manifest first."
        )


def _other_sources(document: Document) -> Iterator[str]:
    n_train = {arm: found["n_train"]["crossfit"] for arm, found in document["arms"].items()}
    for pair, found in document["comparison"].items():
        if not pair.startswith(WITH):
            continue
        arm = pair.removesuffix(f" - {ORIGINALS}")
        verb = "would change nothing for sure"
        if surely("tail_mae", found["tail_mae"]) > 0:
            verb = "would help the thin bins"
        elif surely("r2", found["r2"]) < 0:
            verb = "would do harm"
        yield (
            f"{n_train[arm] - n_train[ORIGINALS]:.0f} pictures of {arm.removeprefix(WITH)} that fall into "
            f"the thin bins {verb}: {change_text('tail_mae', found['tail_mae'])}, "
            f"{change_text('r2', found['r2'])} against the originals alone."
        )
    for name, why in document["not_offered"].items():
        yield f"{name} could not be tried for the thin bins: {why}."


def _weights(document: Document) -> Iterator[str]:
    found = document["comparison"].get(f"{RELEASE} - {WEIGHTS}")
    measure = "macro_mae" if document["numeric"] else "balanced_accuracy"
    if found and document["copies"] and surely(measure, found[measure]) < 1:
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
