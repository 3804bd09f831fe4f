"""What a page consists of: sections of blocks, which the template renders in order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

# Control and surrogate characters, and those that change the direction of text.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
MOST_LABEL = 40  # characters of a class or subtype in a chart; longer ones crash or fill it
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
    """Format a value for a cell or caption: numbers with three decimals, text by `clean`."""
    if value is None or value != value:  # NaN
        return "–"
    return clean(f"{value:.3f}" if isinstance(value, float) else str(value))


def clean(text: str, most: int = MOST_TEXT) -> str:
    """Return text without characters that control the output or its direction, cut to `most` characters.

    >>> clean("a" + chr(27) + "[31m" + "b" * 9, 8)
    'a�[31mbb…'
    """
    printable = without_controls(text)
    return printable if len(printable) <= most else f"{printable[:most]}…"


def without_controls(text: str) -> str:
    """Return text with a replacement character for each one that controls the output or its direction."""
    return _CONTROLS.sub("\ufffd", text)
