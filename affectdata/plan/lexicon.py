"""Derive valence and arousal of rows from their emotion words, by the user's lexicon; these are not ratings.

In: rows, the emotions of each row, and a table of words. Out: the same rows with `lexicon_valence` and
`lexicon_arousal`, in POMP units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from affectdata.errors import RecipeError
from affectdata.plan.user_table import read_user_table
from affectdata.reading.delimited import parse_number
from affectdata.recipe.recipe import LEXICON, Lexicon
from affectdata.records import Scale

_WHERE = "labels.lexicon"
_COLUMNS = {"word": ("word", "term"), "valence": ("valence",), "arousal": ("arousal",)}


def add_coordinates(
    table: pa.Table, weights: Sequence[Mapping[str, float]], spec: Lexicon, *, check: bool = True
) -> pa.Table:
    """Append the mean coordinates of each row's emotions; without `check`, unknown words are ignored.

    Raises:
        RecipeError: the lexicon cannot be read, has another hash than in the recipe, or lacks a word.
    """
    entries = _read_lexicon(spec)
    words = sorted({word for row in weights for word in row})
    missing = [word for word in words if _normalize(word) not in entries]
    if check and missing:
        raise RecipeError(
            f"{spec.file} lacks {len(missing)} of {len(words)} emotions: {', '.join(missing)}",
            where=_WHERE,
            fix=f"add them to the file, or exclude them: `labels: {{drop: [{', '.join(missing)}]}}`",
        )
    coordinates = {
        word: _parse_coordinates(entries[_normalize(word)], word, spec)
        for word in words
        if word not in missing
    }
    means = [_mean(row, coordinates) for row in weights]
    for index, name in enumerate(LEXICON):
        table = table.append_column(name, pa.array([mean and mean[index] for mean in means], pa.float64()))
    return table


def _mean(
    weights: Mapping[str, float], coordinates: Mapping[str, tuple[float, float]]
) -> tuple[float, ...] | None:
    """Return the weighted mean of the known words, or None if there is none."""
    words = [word for word in weights if word in coordinates]
    if not words:
        return None
    mean = np.average(
        [coordinates[word] for word in words], axis=0, weights=[weights[word] for word in words]
    )
    return tuple(round(float(value), 6) for value in mean)


def _normalize(word: str) -> str:
    return word.strip().lower().replace("_", " ")


def _read_lexicon(spec: Lexicon) -> dict[str, list[tuple[str, str]]]:
    """Return the (valence, arousal) cells of every row of a word, as text."""
    header, rows = read_user_table(spec, _WHERE)
    titles = [title.lower() for title in header]
    indexes = [
        next((titles.index(name) for name in names if name in titles), None) for names in _COLUMNS.values()
    ]
    if None in indexes:
        raise RecipeError(
            f"{spec.file} needs the columns {', '.join(_COLUMNS)}",
            where=f"{_WHERE}.file: it has {', '.join(header)}",
            fix="rename the columns in the first row",
        )
    entries: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        word, valence, arousal = (row[index] for index in indexes if index is not None)
        entries.setdefault(_normalize(word), []).append((valence, arousal))
    return entries


def _parse_coordinates(cells: Sequence[tuple[str, str]], word: str, spec: Lexicon) -> tuple[float, float]:
    """Return a word's valence and arousal in POMP units."""
    scale = Scale(*spec.scale)
    try:
        pairs = {(parse_number(valence), parse_number(arousal)) for valence, arousal in cells}
    except ValueError as error:
        raise RecipeError(f"{spec.file}, {word}: {error}", where=_WHERE) from None
    if len(pairs) > 1:
        raise RecipeError(f"{spec.file} has {len(pairs)} different values for {word}", where=_WHERE)
    ((valence, arousal),) = pairs
    if valence not in scale or arousal not in scale:
        raise RecipeError(
            f"{spec.file}, {word}: {valence:g}, {arousal:g} is outside {scale.low:g}–{scale.high:g}",
            where=f"{_WHERE}.scale",
            fix="set scale to the lowest and highest possible value of the lexicon",
        )
    return scale.to_pomp(valence), scale.to_pomp(arousal)
