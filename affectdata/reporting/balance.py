"""Second section: what was balanced, over bins, subtypes and splits."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from affectdata.records import count_text
from affectdata.reporting import charts
from affectdata.reporting.blocks import MOST_LABEL, Block, Card, Figure, Images, Section, Table, clean
from affectdata.reporting.subject import Subject

_PER_CELL, _MOST_CELLS = 4, 60
_BINS = 10
_MOST_COLUMNS, _MOST_ROWS = 12, 60  # of a heat map
_BIN = re.compile(r"[^=]*=([^|]*)", re.DOTALL)  # of a cell, `TARGET=BIN|…`
_LONG_EDGE = re.compile(r"\d+\.\d{3,}")  # quantiles have six decimals


def balance(subject: Subject) -> Section:
    """Return the section: of a release its plan, of a manifest its distribution."""
    if subject.release is None:
        return Section("balance", "Distribution", list(_of_manifest(subject)))
    return Section(
        "balance", "What was balanced", list(_of_release(subject, subject.release.info["balance"]))
    )


def _of_manifest(subject: Subject) -> Iterator[Block]:
    labels, order = _bin(subject.rows[subject.target], subject.is_numeric)
    frame = _counts(subject, subject.rows.assign(bin=labels))
    yield _bars("distribution", f"Images by {subject.target}", frame, subject, order, "Look for thin bins.")


def _of_release(subject: Subject, info: dict[str, Any]) -> Iterator[Block]:
    order = [bin_label(each["bin"]) for each in info["bins"]]
    train = subject.rows[subject.rows["split"] == "train"]
    train = train.assign(bin=_bins_of(train))
    before, after = _counts(subject, train[train["copy"] == 0]), _counts(subject, train)
    target = subject.target
    text = "Before balancing: the originals of train. Look for bins that only some subtypes fill."
    yield _bars("before", f"Train by {target}, before", before, subject, order, text)
    text = "After balancing: originals and copies. Copies level the counts; they add no new content."
    yield _bars("after", f"Train by {target}, after", after, subject, order, text)
    yield _heat_map(subject, info["cells"], order)
    yield _bin_table(info)
    yield from _cell_images(subject, train)
    yield _copies(train)
    yield _splits(subject.originals, order)


def _bars(
    name: str, title: str, frame: pd.DataFrame, subject: Subject, order: list[str], text: str
) -> Figure:
    color = "subtype" if subject.has_subtypes else None
    chart = charts.stacked_bars(frame, "bin", color, order, subject.target)
    return Figure(name, title, text, chart, frame)


def _counts(subject: Subject, rows: pd.DataFrame) -> pd.DataFrame:
    names = subject.subtype_names(rows)
    frame = pd.DataFrame({"bin": rows["bin"].to_numpy(), "subtype": names.to_numpy()})
    return frame.value_counts(sort=False).rename("n").reset_index()


def _bin(values: pd.Series, is_numeric: bool) -> tuple[pd.Series, list[str]]:
    """Return a label per value and their order: ten bins of 0–100, or the classes by size."""
    if not is_numeric:
        return values.fillna("none"), list(values.fillna("none").value_counts().index)
    edges = np.linspace(0, 100, _BINS + 1)
    labels = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(edges)]
    index = np.clip(np.digitize(values.fillna(0), edges) - 1, 0, _BINS - 1)
    return pd.Series(np.array(labels, object)[index], values.index).where(values.notna(), "none"), labels


def _bins_of(rows: pd.DataFrame) -> pd.Series:
    """Return the bin of each row of a release, which its cell begins with."""
    cells = rows["cell"].dropna().unique()  # far fewer than rows
    found = {cell: bin_label(match[1]) for cell in cells if (match := _BIN.match(cell))}
    return rows["cell"].map(found).rename("bin")


def bin_label(name: str) -> str:
    """Return the name of a bin for a chart; edges between quantiles have one decimal.

    >>> bin_label("[41.419142,51.174125)")
    '[41.4,51.2)'
    """
    return clean(_LONG_EDGE.sub(lambda edge: f"{float(edge[0]):.1f}", name), MOST_LABEL)


def _heat_map(subject: Subject, cells: list[dict[str, Any]], order: list[str]) -> Figure:
    frame = pd.DataFrame(cells)[["bin", "stratum", "n_before", "n_after", "n_eff"]]
    frame["bin"] = frame["bin"].map(bin_label)
    axis = "subtype" if frame["stratum"].isin(subject.originals["subtype"].unique()).all() else "stratum"
    frame[axis] = [bin_label(subject.subtype_name(each)) for each in frame["stratum"]]
    frame["label"] = [
        str(before) if before == after else f"{before}→{after}"
        for before, after in zip(frame["n_before"], frame["n_after"], strict=True)
    ]
    strata = list(dict.fromkeys(frame[axis]))
    text = (
        "Images before → after. Empty cells have no original: no copy can fill them, only other images can."
    )
    if len(strata) <= _MOST_COLUMNS:
        chart = charts.heat_map(frame, axis, "bin", "n_after", "label", (strata, order[::-1]))
    else:  # the labels of many columns would overlap, so strata are rows
        shown = strata[:_MOST_ROWS]
        if len(shown) < len(strata):
            text += f" The first {len(shown)} of {len(strata)} strata; the data have all."
        part = frame[frame[axis].isin(shown)]
        chart = charts.heat_map(part, "bin", axis, "n_after", "label", (order, shown))
    plural = "subtypes" if axis == "subtype" else "strata"
    data = frame.drop(columns=["stratum"] if axis == "subtype" else [])
    return Figure("cells", f"Bins × {plural} of train", text, chart, data)


def _bin_table(info: dict[str, Any]) -> Table:
    names = ("bin", "n_before", "n_filled", "n_after", "shortfall")
    rows = [[each[name] for name in names] for each in info["bins"]]
    header = ("bin", "before", "filled from others", "after", "short of target")
    return Table(
        "Bins", header, rows, "Imbalance: largest / smallest bin and entropy (1 = level) are in release.json."
    )


def _cell_images(subject: Subject, train: pd.DataFrame) -> Iterator[Images]:
    originals = train[train["copy"] == 0]
    for cell, rows in list(originals.groupby("cell", sort=True))[:_MOST_CELLS]:
        shown = charts.sample(rows, _PER_CELL)
        cards = [Card(row[subject.key], [_value_text(row, subject)]) for _, row in shown.iterrows()]
        yield Images(f"{cell} ({count_text(len(rows), 'original')})", "", cards, is_open=False)


def _value_text(row: pd.Series, subject: Subject) -> str:
    value = row[subject.target]
    return f"{subject.target} {value:.1f}" if subject.is_numeric else str(value)


def _copies(train: pd.DataFrame) -> Figure:
    per_image = train.groupby("image_id", sort=False).size() - 1
    frame = per_image.value_counts().sort_index().rename("n").rename_axis("copies").reset_index()
    chart = charts.stacked_bars(frame, "copies", None, list(frame["copies"]))
    text = (
        "How often each original of train was copied. Many copies of few originals mean little new content."
    )
    return Figure("copies", "Copies per original", text, chart, frame)


def _splits(rows: pd.DataFrame, order: list[str]) -> Figure:
    frame = pd.crosstab(_bins_of(rows), rows["split"], normalize="columns").reset_index()
    frame = frame.melt("bin", var_name="split", value_name="share")
    chart = charts.lines(
        frame, alt.X("bin:N", sort=order, axis=alt.Axis(labelAngle=-45)), alt.Y("share:Q"), "split"
    )
    text = "Share of each bin in the originals of a split: the lines should lie close together."
    return Figure("splits", "Splits side by side", text, chart, frame)
