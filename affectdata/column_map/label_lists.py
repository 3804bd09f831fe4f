"""Read several labels in one cell: a list as Python or JSON writes it, with or without weights, or separated.

['Fear', 'Doubt/Confusion']     ["fear", "joy"]     [fear, joy]     fear|joy with `separator: "|"`
{"fear": 0.7, "joy": 0.3}       [["fear", 0.7], …]  [{"label": "fear", "weight": 0.7}, …]
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_LONGEST = 1 << 14  # characters of a list that is parsed
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_NAMES = ("label", "emotion", "name", "category", "class")
_WEIGHTS = ("weight", "share", "score", "confidence", "probability", "count", "votes", "value")


def split_labels(cell: str, separator: str | None = None) -> list[tuple[str, str | None]] | None:
    """Return the labels of a cell and their weights (None: it has none); None for a cell with a plain word.

    Raises:
        ValueError: it begins like a list but is not one.
    """
    if separator is not None and separator in cell:
        return [(word.strip(), None) for word in cell.split(separator) if word.strip()]
    if not cell or _BRACKETS.get(cell[0]) != cell[-1]:
        return None
    content = _parse(cell)
    if isinstance(content, dict) and content.keys() == {"choices"}:  # several, as Label Studio writes them
        content = content["choices"]
    if isinstance(content, dict):
        return [(str(label), str(weight)) for label, weight in content.items()]
    return [_label(item, cell) for item in content]


def _parse(cell: str) -> Any:
    """Parse a list or mapping; words without quotes are split at commas."""
    if len(cell) > _LONGEST:
        raise ValueError(f"a list of more than {_LONGEST} characters")
    for parse, text in (
        (json.loads, cell),
        (ast.literal_eval, re.sub(r"""(['"])\s+(?=['"])""", r"\1, ", cell)),
    ):
        try:
            content = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(content, set):
            return sorted(content, key=str)
        return content if isinstance(content, list | tuple | dict) else [content]
    if re.search(r"[\[\]{}():'\"]", cell[1:-1]):
        raise ValueError(f"{cell!r} is not a list of labels")
    return [word.strip() for word in cell[1:-1].split(",") if word.strip()]


def _label(item: Any, cell: str) -> tuple[str, str | None]:
    if isinstance(item, str):
        return item, None
    if isinstance(item, dict):
        lower = {str(name).lower(): value for name, value in item.items()}
        names = [lower[name] for name in _NAMES if name in lower]
        weights = [lower[name] for name in _WEIGHTS if name in lower]
        if len(names) == 1 and isinstance(names[0], str) and len(weights) < 2:
            return names[0], str(weights[0]) if weights else None
    elif isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str):
        return item[0], str(item[1])
    raise ValueError(f"{cell!r} is not a list of labels")
