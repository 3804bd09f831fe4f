"""Map emotions to classes: the column `label`, as specified by a recipe's `labels`.

In: a manifest's rows with `emotion`, `agreement` and shares per emotion. Out: the same rows with `label`, a
class or a set of classes joined by "+", null if none applies; with a lexicon, coordinates too.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from affectdata.errors import RecipeError
from affectdata.labels import MAPS, mood_quadrant
from affectdata.plan.lexicon import add_coordinates
from affectdata.recipe.recipe import BY_RATINGS, LABEL, Labels

_SHARE = "emotion_"
_JOIN = "+"


def add_labels(table: pa.Table, spec: Labels, *, check: bool = True) -> pa.Table:
    """Append the column `label`; without `check`, unknown emotions and a table without labels are allowed.

    Raises:
        RecipeError: the recipe uses an emotion that the table lacks, or no row gets a label.
    """
    if check:
        _check_known(_vocabulary(table, spec), spec)
    classes = _apply_map(_emotions(table, spec), spec)
    to_class = {word: name for name, words in spec.merge.items() for word in words}
    labels = [
        _JOIN.join(sorted({to_class.get(word, word) for word in words} - set(spec.drop))) for words in classes
    ]
    kept = _frequent_labels(labels, spec)
    if check and not kept:
        raise RecipeError(
            "no row has a label",
            where="labels",
            fix="relax min_count, at_least, agreement_over or drop",
        )
    column = pa.array([label if label in kept else None for label in labels], pa.string())
    table = table.append_column(LABEL, column)
    if spec.lexicon is None:
        return table
    weights = _weights(table, counted_emotions(table, spec), spec)
    return add_coordinates(table, weights, spec.lexicon, check=check)


def counted_emotions(table: pa.Table, spec: Labels) -> list[set[str]]:
    """Return the emotions of each row whose class is not dropped."""
    dropped = {word for name in spec.drop for word in spec.merge.get(name, [name])}
    return [words - dropped for words in _emotions(table, spec)]


def _weights(table: pa.Table, emotions: list[set[str]], spec: Labels) -> list[dict[str, float]]:
    """Return per row the weight of each emotion: its share of raters with `at_least`, else 1."""
    if spec.at_least is None:
        return [dict.fromkeys(words, 1.0) for words in emotions]
    shares = {word: table[_SHARE + word].to_pylist() for word in set().union(*emotions)}
    return [{word: shares[word][row] for word in sorted(words)} for row, words in enumerate(emotions)]


def _emotions(table: pa.Table, spec: Labels) -> list[set[str]]:
    if spec.map == BY_RATINGS:
        return _quadrants(table)
    return _frequent_emotions(table, spec.at_least) if spec.at_least is not None else _dominant(table, spec)


def _quadrants(table: pa.Table) -> list[set[str]]:
    ratings = zip(table["valence"].to_pylist(), table["arousal"].to_pylist(), strict=True)
    quadrants = (None if None in pair else mood_quadrant(*pair) for pair in ratings)
    return [{quadrant} if quadrant else set() for quadrant in quadrants]


def _apply_map(emotions: list[set[str]], spec: Labels) -> list[set[str]]:
    """Replace emotions by the classes of the map; drop emotions that it lacks."""
    if spec.map not in MAPS:
        return emotions
    class_of = MAPS[spec.map].class_of
    return [{class_of[word] for word in words & class_of.keys()} for words in emotions]


def _dominant(table: pa.Table, spec: Labels) -> list[set[str]]:
    """Return each row's dominant emotion, if enough of its raters agree."""
    rows = zip(table["emotion"].to_pylist(), table["agreement"].to_pylist(), strict=True)
    return [{emotion} if emotion and _has_agreement(share, spec) else set() for emotion, share in rows]


def _has_agreement(share: float | None, spec: Labels) -> bool:
    return spec.agreement_over is None or (share is not None and share > spec.agreement_over)


def _frequent_emotions(table: pa.Table, at_least: float) -> list[set[str]]:
    """Return the emotions of each row that at least this share of raters chose."""
    columns = [name for name in table.column_names if name.startswith(_SHARE)]
    emotions: list[set[str]] = [set() for _ in range(table.num_rows)]
    for name in columns:
        for row, share in enumerate(table[name].to_pylist()):
            if share is not None and share >= at_least:
                emotions[row].add(name.removeprefix(_SHARE))
    return emotions


def _vocabulary(table: pa.Table, spec: Labels) -> set[str]:
    """Return the emotions that occur in the table or have a column of shares; with a map, its classes."""
    if spec.map is not None:
        return set(MAPS["mood_quadrants" if spec.map == BY_RATINGS else spec.map].classes)
    if spec.at_least is not None:
        return {name.removeprefix(_SHARE) for name in table.column_names if name.startswith(_SHARE)}
    return set(table["emotion"].unique().drop_null().to_pylist())


def _check_known(known: set[str], spec: Labels) -> None:
    merged = {word for words in spec.merge.values() for word in words}
    for key, unknown in (("merge", merged - known), ("drop", set(spec.drop) - known - set(spec.merge))):
        if unknown:
            raise RecipeError(
                f"no row has the emotion {', '.join(sorted(unknown))}",
                where=f"labels.{key}",
                fix=f"known: {', '.join(sorted(known))}",
            )


def _frequent_labels(labels: list[str], spec: Labels) -> set[str]:
    """Return the labels to keep: the `top` most frequent with at least `min_count` rows; ties by name."""

    counts = Counter(label for label in labels if label)
    ordered = sorted(counts, key=lambda label: (-counts[label], label))
    return {label for label in ordered[: spec.top] if counts[label] >= (spec.min_count or 1)}
