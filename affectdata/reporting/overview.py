"""First section: what this is, what needs attention, on which terms, how to cite and rebuild it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from affectdata.records import count_text
from affectdata.release.release import Release
from affectdata.reporting.blocks import Alerts, Block, Numbers, Section, Table, Text
from affectdata.reporting.subject import Subject

_FAR_APART = 15.0  # points of 100 between two images that look the same
_WORTH_ONE = 1.5  # effective number of originals in a cell
_MOST = 8  # alerts of one kind that are listed


def overview(subject: Subject) -> Section:
    """Return the section."""
    blocks: list[Block] = [
        Alerts(
            [
                *subject.missing,
                *_short_bins(subject),
                *_thin_cells(subject),
                *_pairs(subject),
                *_rules(subject),
            ]
        ),
        Numbers(list(_numbers(subject))),
        *_verdict(subject),
        *_terms(subject),
    ]
    return Section("overview", "What this is", blocks)


def _numbers(subject: Subject) -> Iterator[tuple[str, str]]:
    rows, originals = subject.rows, subject.originals
    yield "images", f"{len(originals):,}"
    if subject.release:
        yield "augmented copies", f"{len(rows) - len(originals):,}"
        counts = originals["split"].value_counts()
        yield (
            "train / val / test originals",
            " / ".join(str(counts.get(name, 0)) for name in ("train", "val", "test")),
        )
        balance = subject.release.info["balance"]["imbalance_ratio"]
        yield "largest / smallest bin", f"{balance['before']:.1f} → {balance['after']:.1f}"
    if subject.is_numeric:
        values = originals[subject.target].dropna()
        yield f"{subject.target}, mean (SD)", f"{values.mean():.1f} ({values.std():.1f})"
    else:
        yield "classes", str(originals[subject.target].nunique())
    yield "subtypes", str(originals["subtype"].nunique())
    yield "sources", ", ".join(sorted(originals["source"].unique()))


def _verdict(subject: Subject) -> list[Block]:
    if subject.check is None:
        return []
    return [
        Text("\n".join(subject.check.verdict.summary or subject.check.verdict.sentences[:4]), is_list=True)
    ]


def _short_bins(subject: Subject) -> Iterator[str]:
    bins = subject.release.info["balance"]["bins"] if subject.release else []
    short = [each for each in bins if each["shortfall"]]
    if short:
        listed = ", ".join(f"{each['bin']} ({each['shortfall']:g})" for each in short[:_MOST])
        yield f"Bins that stay short of their target ({len(short)} of {len(bins)}): {listed}."


def _thin_cells(subject: Subject) -> Iterator[str]:
    cells = subject.release.info["balance"]["cells"] if subject.release else []
    thin = [each for each in cells if each["n_after"] > each["n_before"] and each["n_eff"] < _WORTH_ONE]
    if thin:
        listed = ", ".join(each["cell"] for each in thin[:_MOST])
        yield f"Cells that are copies of one original, worth one image ({len(thin)}): {listed}."


def _pairs(subject: Subject) -> Iterator[str]:
    pairs = look_alikes(subject)
    if len(pairs) and subject.is_numeric:
        far = pairs[pairs["difference"] >= _FAR_APART]
        if len(far):
            worst = far.iloc[0]
            n_far = count_text(len(far), "pair")
            yield (
                f"Look-alikes that are rated {_FAR_APART:g} points or more apart ({n_far}), such as "
                f"{worst['path_a']} ({worst['value_a']:.1f}) and {worst['path_b']} ({worst['value_b']:.1f})."
            )


def _rules(subject: Subject) -> Iterator[str]:
    for rule in subject.check.verdict.gate if subject.check else []:
        if rule.outcome != "pass":
            word = {"fail": "failed", "notice": "has a notice"}.get(rule.outcome, "is undecided")
            yield f"The rule {rule.rule} {word}: {rule.text}"


def _terms(subject: Subject) -> Iterator[Block]:
    if isinstance(subject.source, Release):
        rows = [
            (each["title"], each["license"], each["citation"]) for each in subject.source.info["manifests"]
        ]
        folder = subject.source.path
        rebuild = f"affectdata balance --recipe {folder}/recipe.yaml\naffectdata verify {folder}"
        digest = f"release {subject.source.id}"
    else:
        rows = [(each["title"], each["license"], each["citation"]) for each in subject.source.parts]
        rebuild, digest = "affectdata ingest FOLDER", f"manifest digest {subject.source.digest}"
    yield Table("Sources, terms and citations", ("source", "terms", "cite"), rows)
    yield Text(f"To rebuild it:\n{rebuild}\n# {digest}", is_code=True)


def look_alikes(subject: Subject) -> pd.DataFrame:
    """Return the pairs of look-alikes with both targets, the farthest apart first.

    Columns: key_a, key_b, path_a, path_b, value_a, value_b, distance_bits, difference.
    """
    columns = ["key_a", "key_b", "path_a", "path_b", "value_a", "value_b", "distance_bits", "difference"]
    if subject.edges is None or not len(subject.edges):
        return pd.DataFrame(columns=columns)
    wanted = pd.concat([subject.edges["image_id_a"], subject.edges["image_id_b"]])
    rows = subject.originals[subject.originals["image_id"].isin(wanted)].set_index("image_id", drop=False)
    edges = subject.edges[
        subject.edges["image_id_a"].isin(rows.index) & subject.edges["image_id_b"].isin(rows.index)
    ]
    pairs: dict[str, Any] = {"distance_bits": edges["distance_bits"].to_numpy()}
    for side in "ab":
        part = rows.loc[edges[f"image_id_{side}"]]
        pairs |= {
            f"key_{side}": part[subject.key].to_numpy(),
            f"path_{side}": part["path"].to_numpy(),
            f"value_{side}": part[subject.target].to_numpy(),
        }
    frame = pd.DataFrame(pairs)
    frame["difference"] = (frame["value_a"] - frame["value_b"]).abs() if subject.is_numeric else 0.0
    return frame.sort_values("difference", ascending=False, kind="stable").reset_index(drop=True)
