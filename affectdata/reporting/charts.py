"""Charts of data frames, all of one size and look; each is readable at 380 pixels."""

from __future__ import annotations

import io
from typing import Any, TypeAlias

import altair as alt
import pandas as pd

WIDTH, HEIGHT = 300, 190  # pixels of the plot without its axes
MOST_POINTS = 5000  # of a scatter plot; above, a sample is drawn
_FEW_POINTS = 100  # fewer are drawn larger
_TEXT = 11
_LEAST_ROW = 14  # pixels of a row of a heat map, so that its labels do not overlap
_SCHEME = [
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#777777",
]  # Tol, colour-blind safe


Chart: TypeAlias = Any  # Altair's `encode` has no type


def configure(chart: Chart) -> Chart:
    """Give a chart the look of the report."""
    return (
        chart.configure(font="sans-serif", background="white")
        .configure_axis(labelFontSize=_TEXT, titleFontSize=_TEXT, titleFontWeight="normal", gridOpacity=0.4)
        .configure_legend(
            labelFontSize=_TEXT, titleFontSize=_TEXT, orient="bottom", columns=3, symbolLimit=18
        )
        .configure_header(labelFontSize=_TEXT, titleFontSize=_TEXT)
        .configure_view(strokeOpacity=0)
        .configure_range(category=_SCHEME)
    )


def stacked_bars(
    data: pd.DataFrame, x: str, color: str | None, order: list[Any], title: str | None = None
) -> Chart:
    """Return bars of `n` over the ordered values of `x` (`title`: of its axis), stacked by `color`."""
    encoded: dict[str, Any] = {
        "x": alt.X(f"{x}:N", sort=order, title=title or x, axis=alt.Axis(labelAngle=-45)),
        "y": alt.Y("n:Q", title="images"),
    }
    if color:
        encoded["color"] = alt.Color(f"{color}:N", title=color)
    return alt.Chart(data, width=WIDTH, height=HEIGHT).mark_bar().encode(**encoded)


def heat_map(
    data: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    label: str,
    orders: tuple[list[Any], list[Any]],
    *,
    is_change: bool = False,
) -> Chart:
    """Return a cell per pair of `x` and `y`, coloured by `value` and labelled by the column `label`.

    Changes are red below 0 and blue above.
    """
    columns, rows = orders
    height = max(HEIGHT // 2, min(22 * len(rows), 440), _LEAST_ROW * len(rows))
    base: Chart = alt.Chart(data, width=WIDTH, height=height).encode(
        x=alt.X(f"{x}:N", sort=columns, axis=alt.Axis(labelAngle=-45, grid=False)),
        y=alt.Y(f"{y}:N", sort=rows, axis=alt.Axis(grid=False)),
    )
    most = float(data[value].abs().max()) if len(data) else 0.0
    ink = alt.condition(f"abs(datum['{value}']) > {most * 0.6}", alt.value("white"), alt.value("black"))
    scale = alt.Scale(scheme="redblue", domain=[-most, most]) if is_change else alt.Scale(scheme="blues")
    cells = base.mark_rect().encode(color=alt.Color(f"{value}:Q", scale=scale, legend=None))
    labels = base.mark_text(fontSize=_TEXT - 1).encode(text=f"{label}:N", color=ink)
    return cells + labels


def scatter(data: pd.DataFrame, x: alt.X, y: alt.Y, color: str | None = None, lines: Chart = None) -> Chart:
    """Return a point per row, over `lines` (reference lines) if given."""
    encoded: dict[str, Any] = {"x": x, "y": y}
    if color:
        encoded["color"] = alt.Color(f"{color}:N", title=color)
    points: Chart = (
        alt.Chart(data, width=WIDTH, height=WIDTH)
        .mark_circle(size=14 if len(data) > _FEW_POINTS else 50, opacity=0.55)
        .encode(**encoded)
    )
    return points if lines is None else lines + points


def diagonal(low: float, high: float, x: str, y: str) -> Chart:
    """Return the line on which both axes are equal."""
    ends = pd.DataFrame({x: [low, high], y: [low, high]})
    return alt.Chart(ends).mark_line(color="#999999", strokeDash=[4, 3]).encode(x=f"{x}:Q", y=f"{y}:Q")


def cross(x: str, y: str, at: float) -> Chart:
    """Return a vertical and a horizontal reference line at the same value of both axes."""
    rule = alt.Chart(pd.DataFrame({x: [at], y: [at]})).mark_rule(color="#999999")
    return rule.encode(x=f"{x}:Q") + rule.encode(y=f"{y}:Q")


def intervals(data: pd.DataFrame, label: str, reference: float | None) -> Chart:
    """Return `mean` with `low` and `high` per row of `label`, beside a reference line."""
    height = max(24, 20 * data[label].nunique())
    base: Chart = alt.Chart(data, width=WIDTH - 60, height=height).encode(
        y=alt.Y(f"{label}:N", sort=None, title=None, axis=alt.Axis(labelLimit=200))
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=None), x2="high:Q")
    layers = bars + base.mark_point(filled=True, size=60, opacity=1, color=_SCHEME[1]).encode(x="mean:Q")
    if reference is None:
        return layers
    zero = alt.Chart(pd.DataFrame({"low": [reference]})).mark_rule(color="#999999", strokeDash=[4, 3])
    return zero.encode(x="low:Q") + layers


def lines(data: pd.DataFrame, x: alt.X, y: alt.Y, color: str) -> Chart:
    """Return a line with points per value of `color`."""
    return (
        alt.Chart(data, width=WIDTH, height=HEIGHT)
        .mark_line(point={"size": 25}, strokeWidth=1.5)
        .encode(x=x, y=y, color=alt.Color(f"{color}:N", title=None))
    )


def sample(data: pd.DataFrame, n: int = MOST_POINTS) -> pd.DataFrame:
    """Return at most `n` rows, the same ones in every run."""
    return data if len(data) <= n else data.sample(n, random_state=0)


def to_svg(chart: Chart) -> bytes:
    """Render a chart as SVG."""
    out = io.StringIO()
    configure(chart).save(out, format="svg")
    return out.getvalue().encode()


def to_pdf(chart: Chart) -> bytes:
    """Render a chart as PDF."""
    out = io.BytesIO()
    configure(chart).save(out, format="pdf")
    return out.getvalue()
