"""What a page consists of: sections of blocks, which the template renders in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

MOST_TEXT = 300  # characters of a caption or cell; what is longer is cut, with an ellipsis


@dataclass(frozen=True)
class Text:
    """A paragraph; or its lines as a list, or as they are (`is_code`)."""

    kind: ClassVar[str] = "text"
    text: str
    is_code: bool = False
    is_list: bool = False


@dataclass(frozen=True)
class Numbers:
    """Labelled figures, the most important facts at a glance."""

    kind: ClassVar[str] = "numbers"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Alerts:
    """What needs attention, in sentences."""

    kind: ClassVar[str] = "alerts"
    items: Sequence[str]


@dataclass(frozen=True, eq=False)
class Figure:
    """A chart; `text` says in one sentence what to look for, `data` is what is drawn."""

    kind: ClassVar[str] = "figure"
    name: str  # of the files of --figures and of the CSV
    title: str
    text: str
    chart: Any  # an Altair chart
    data: pd.DataFrame


@dataclass(frozen=True)
class Table:
    """A table; `open` shows it at once rather than on demand."""

    kind: ClassVar[str] = "table"
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    text: str = ""
    is_open: bool = True


@dataclass(frozen=True)
class Card:
    """An image with a caption. `key` is a value of `Subject.key`; `marks` are (label, value 0–100)."""

    key: str
    lines: Sequence[str]
    marks: Sequence[tuple[str, float]] = ()
    map_file: str = ""


@dataclass(frozen=True)
class Images:
    """A group of images; not `is_open`: shown on demand."""

    kind: ClassVar[str] = "images"
    title: str
    text: str
    cards: Sequence[Card]
    is_open: bool = True


Block: TypeAlias = Text | Numbers | Alerts | Figure | Table | Images


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    name: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def shorten(value: Any) -> str:
    """Format a value for a cell or caption: numbers with three significant decimals, long text cut."""
    if value is None or value != value:  # NaN
        return "–"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
