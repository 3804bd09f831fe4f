"""Text from files of others, where a spreadsheet, Markdown or a file system would read more into it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from affectdata.hashing import file_hash

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", *"\uff1d\uff0b\uff0d\uff20")  # also as wide characters
_MARKDOWN = re.compile(
    r"""[\\`*|~]                # code, emphasis, cells of a table, strikethrough
      | <(?=[A-Za-z/!?])        # HTML, links
      | \](?=[(\[:])            # links, footnotes
      | (?<!\w)_ | _(?!\w)      # emphasis; not inside a word
    """,
    re.VERBOSE,
)
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029]|^[.@$~ -]|^__|[. ]$')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows
_MAX_BYTES = 120


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table for people as CSV; text that a spreadsheet would take for a formula is quoted by '."""
    return "".join(f"{','.join(map(_cell, row))}\n" for row in [header, *rows])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if set(text) & set('",\r\n') else text  # `csv` writes a lone \r as it is


def frame_to_csv(frame: pd.DataFrame) -> str:
    """Return a data frame as CSV (`to_csv`), without its index."""
    return to_csv([str(name) for name in frame.columns], frame.itertuples(index=False))


def to_markdown(value: Any) -> str:
    """Return one line of Markdown that shows a value as it is."""
    text = "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(to_markdown(cell) for cell in row) + " |" for row in rows),
    ]


def folder_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """Return a folder name for each of some different names, as close to it as every system allows.

    What a system forbids is percent-encoded. Names that are then equal to another, or to one of `taken`, up
    to case and Unicode form, and names that are too long, end in `~` and digits of a hash of the whole name.
    """
    encoded = [_encode(unicodedata.normalize("NFC", name)) for name in names]
    counts = Counter(_fold(name) for name in [*encoded, *taken])
    return [
        safe if counts[_fold(safe)] == 1 and len(safe.encode()) <= _MAX_BYTES else _with_hash(safe, name)
        for safe, name in zip(encoded, names, strict=True)
    ]


def _encode(name: str) -> str:
    safe = _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name)
    if _DEVICES.fullmatch(safe):
        safe = f"%{ord(safe[0]):02X}{safe[1:]}"
    return safe or "%"


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _with_hash(safe: str, name: str) -> str:
    return f"{safe.encode()[:_MAX_BYTES].decode(errors='ignore').rstrip('. ')}~{file_hash(name.encode())[:8]}"
