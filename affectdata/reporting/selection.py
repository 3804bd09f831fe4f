"""A page about a stimulus set: how well it is matched, before and after."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from affectdata.reporting import charts
from affectdata.reporting.blocks import Block, Figure, Numbers, Section, Table, Text
from affectdata.reporting.page import render
from affectdata.selection.selection import Selection


def selection_page(selection: Selection) -> str:
    """Return the page as HTML; it contains no images."""
    request = selection.request
    sections = [
        Section("selection", "What was selected", list(_overview(selection))),
        Section("matching", "How well it is matched", list(_matching(selection))),
    ]
    return render(request.name, f"Stimulus set, seed {request.seed}", sections, {})


def _overview(selection: Selection) -> Iterator[Block]:
    request = selection.request
    yield Numbers(
        [
            ("images", str(len(selection.images))),
            ("lists", str(request.lists)),
            ("images per cell and list", str(request.n)),
            ("proven optimal", "yes" if selection.is_optimal else "no"),
        ]
    )
    yield Table("Candidates per cell", ("cell", "candidates"), list(selection.candidates.items()))
    yield Table(
        "Rows that are not candidates", ("reason", "rows"), list(selection.left_out.items()), is_open=False
    )
    yield Text(request.model_dump_json(indent=2, exclude_defaults=True), is_code=True)


def _matching(selection: Selection) -> Iterator[Block]:
    summary, bound = selection.summary, selection.request.equivalence
    matched = summary.dropna(subset=["before", "after"])
    if len(matched):
        drawn = pd.DataFrame(
            {
                "column": matched["column"],
                "mean": matched["after"],
                "low": matched["after"],
                "high": matched["before"],
            }
        )
        text = (
            "Largest difference of two cells, SD of the candidates: before (end of the line), after (point)."
        )
        yield Figure(
            "differences", "Standardised differences", text, charts.intervals(drawn, "column", 0.0), drawn
        )
    tested = f"Equivalent: two one-sided Welch tests within ±{bound:g} SD, p < .05, uncorrected."
    yield Table("Matched columns", list(summary.columns), summary.to_numpy().tolist(), tested)
    means = selection.means
    text = "List 0: all candidates."
    yield Table("Means and SDs", list(means.columns), means.to_numpy().tolist(), text)
    pairs = selection.comparisons
    yield Table(
        "Comparisons", list(pairs.columns), pairs.to_numpy().tolist(), "List 0: all candidates.", False
    )
