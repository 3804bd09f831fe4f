"""A place on valence × arousal for emotion words, from a lexicon of the user's: derived, and no rating.

In: rows, the emotions of each, and a table of words. Out: the same rows with `lexicon_valence` and
`lexicon_arousal`, in POMP units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from affectdata.errors import RecipeError, SourceError
from affectdata.hashing import file_hash
from affectdata.reading.delimited import parse_number
from affectdata.reading.tables import read_table
from affectdata.reading.tree import Tree
from affectdata.recipe.recipe import LEXICON, Lexicon
from affectdata.records import Scale
from affectdata.store.files import read_regular

_WHERE = "labels.lexicon"
_COLUMNS = {"word": ("word", "term"), "valence": ("valence",), "arousal": ("arousal",)}


def add_coordinate(
    table: pa.Table, weights: Sequence[Mapping[str, float]], spec: Lexicon, *, check: bool = True
) -> pa.Table:
    """Append the mean place of each row's emotions; without `check` unknown words count for nothing.

    Raises:
        RecipeError: the lexicon cannot be read, is another file than the recipe says, or lacks a word.
    """
    known = _read_lexicon(spec)
    words = sorted({word for each in weights for word in each})
    missing = [word for word in words if _plain(word) not in known]
    if check and missing:
        raise RecipeError(
            f"{spec.file} lacks {len(missing)} of {len(words)} emotions: {', '.join(missing)}",
            where=_WHERE,
            fix=f"add them to it, or leave them out: `labels: {{drop: [{', '.join(missing)}]}}`",
        )
    places = {word: _place(known[_plain(word)], word, spec) for word in words if word not in missing}
    means = [_mean(each, places) for each in weights]
    for at, name in enumerate(LEXICON):
        table = table.append_column(name, pa.array([mean and mean[at] for mean in means], pa.float64()))
    return table


def _mean(
    weights: Mapping[str, float], places: Mapping[str, tuple[float, float]]
) -> tuple[float, ...] | None:
    there = [word for word in weights if word in places]
    if not there:
        return None
    mean = np.average([places[word] for word in there], axis=0, weights=[weights[word] for word in there])
    return tuple(round(float(each), 6) for each in mean)


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", " ")


def _read_lexicon(spec: Lexicon) -> dict[str, list[tuple[str, str]]]:
    """Return the cells of every word: valence and arousal, as often as it is there."""
    path = Path(spec.file)
    try:
        if file_hash(read_regular(path)) != spec.sha256:
            raise RecipeError(
                f"{spec.file} is not the lexicon that the recipe was written for",
                where=f"{_WHERE}.sha256: {spec.sha256}",
                fix="restore it, or leave sha256 out to take it as it is now",
            )
        header, rows = read_table(Tree(path.parent, (path.name,)), path.name)
    except (OSError, SourceError) as error:
        raise RecipeError(f"cannot read {spec.file}: {error}", where=f"{_WHERE}.file") from error
    titles = [title.lower() for title in header]
    at = [next((titles.index(one) for one in names if one in titles), None) for names in _COLUMNS.values()]
    if None in at:
        raise RecipeError(
            f"{spec.file} needs the columns {', '.join(_COLUMNS)}",
            where=f"{_WHERE}.file: it has {', '.join(header)}",
            fix="name them so in its first row",
        )
    known: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        word, valence, arousal = (row[place] for place in at if place is not None)
        known.setdefault(_plain(word), []).append((valence, arousal))
    return known


def _place(cells: Sequence[tuple[str, str]], word: str, spec: Lexicon) -> tuple[float, float]:
    """Return a word's valence and arousal in POMP units."""
    scale = Scale(*spec.scale)
    try:
        places = {(parse_number(valence), parse_number(arousal)) for valence, arousal in cells}
    except ValueError as error:
        raise RecipeError(f"{spec.file}, {word}: {error}", where=_WHERE) from None
    if len(places) > 1:
        raise RecipeError(f"{spec.file} has {word} {len(places)} times, differently", where=_WHERE)
    (place,) = places
    if not all(each in scale for each in place):
        raise RecipeError(
            f"{spec.file}, {word}: {place[0]:g}, {place[1]:g} is outside {scale.low:g}–{scale.high:g}",
            where=f"{_WHERE}.scale",
            fix="give the lexicon's lowest and highest value",
        )
    return scale.to_pomp(place[0]), scale.to_pomp(place[1])
