"""Third section: where the images lie on valence and arousal, and how far raters agree."""

from __future__ import annotations

import json
from collections.abc import Iterator

import altair as alt
import numpy as np
import pandas as pd
import pyarrow.compute as pc

from affectdata.reporting import charts
from affectdata.reporting.blocks import Block, Figure, Section
from affectdata.reporting.subject import Subject
from affectdata.store.parquet import Rows

_FULL = alt.Scale(domain=[0, 100])
_NORMS = ("Internal norms", "External norms")  # GAPED's second pair of ratings, of the negative images


def ratings(subject: Subject) -> Section:
    """Return the section; it is empty if the images have neither valence nor arousal."""
    return Section("ratings", "Where the images lie", list(_blocks(subject)))


def _blocks(subject: Subject) -> Iterator[Block]:
    rows = subject.originals
    rows = rows[["valence", "arousal", "valence_sd"]].assign(subtype=subject.subtype_names(rows))
    color = "subtype" if subject.has_subtypes else None
    plane = rows.dropna(subset=["valence", "arousal"])
    if len(plane):
        shown = charts.sample(plane[["valence", "arousal", "subtype"]])
        x, y = alt.X("valence:Q", scale=_FULL), alt.Y("arousal:Q", scale=_FULL)
        chart = charts.scatter(shown, x, y, color, charts.cross("valence", "arousal", 50))
        yield Figure("plane", "Valence × arousal", _plane_text(plane), chart, shown)
    spread = rows.dropna(subset=["valence", "valence_sd"])
    if len(spread):
        shown = charts.sample(spread[["valence", "valence_sd", "subtype"]])
        x, y = alt.X("valence:Q", scale=_FULL), alt.Y("valence_sd:Q", title="SD over raters")
        text = "High points are images on which raters disagree: their means are the least certain."
        yield Figure("spread", "Rater SD against mean", text, charts.scatter(shown, x, y, color), shown)
    yield from _norms(subject)


def _plane_text(plane: pd.DataFrame) -> str:
    high, positive = plane["arousal"] >= 50, plane["valence"] >= 50
    shares = [
        float(np.mean(mask))
        for mask in (positive & high, positive & ~high, ~positive & high, ~positive & ~high)
    ]
    names = ("positive and aroused", "positive and calm", "negative and aroused", "negative and calm")
    listed = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    return f"Quadrants: {listed}."


def _norms(subject: Subject) -> Iterator[Block]:
    """Draw GAPED's acceptability by internal and by external norms (columns of its tables, 0–100)."""
    rows: Rows = subject.source.rows
    if "extra" not in rows.column_names or "gaped" not in subject.sheets:
        return
    table = rows.select(["extra", "subtype"])
    columns = table.filter(pc.match_substring(table["extra"], _NORMS[0])).to_pylist()
    found = [(json.loads(row["extra"]), row["subtype"]) for row in columns]
    points = [
        [*(float(extra[name]) for name in _NORMS), subject.subtype_name(subtype)]
        for extra, subtype in found
        if all(name in extra for name in _NORMS)
    ]
    if not points:
        return
    frame = charts.sample(pd.DataFrame(points, columns=["internal", "external", "subtype"]).drop_duplicates())
    x, y = alt.X("internal:Q", scale=_FULL), alt.Y("external:Q", scale=_FULL)
    chart = charts.scatter(frame, x, y, "subtype", charts.diagonal(0, 100, "internal", "external"))
    text = "Acceptability by one's own moral norms (internal) against legal norms (external)."
    yield Figure("norms", "Internal against external norms", text, chart, frame)
