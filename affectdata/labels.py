"""Words: one spelling per emotion, and names for the parts of a scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Spellings that sources use for one and the same category. No mapping between vocabularies.
_SPELLINGS = {
    "angry": "anger",
    "sad": "sadness",
    "content": "contentment",
    "surprised": "surprise",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "excited": "excitement",
    "amused": "amusement",
}


def spell_emotion(word: str) -> str:
    """Return a source's word for an emotion in our spelling: lower case, snake_case, the noun.

    >>> spell_emotion("Sad"), spell_emotion("something else")
    ('sadness', 'something_else')
    """
    plain = "_".join(word.strip().lower().replace("-", " ").replace("/", " ").split())
    return _SPELLINGS.get(plain, plain)


def class_names(n_thresholds: int) -> list[str]:
    """Return names for the classes into which thresholds cut a rating scale, from low to high."""
    known = {1: ["negative", "positive"], 2: ["negative", "neutral", "positive"]}
    return known.get(n_thresholds) or [f"class_{n}" for n in range(n_thresholds + 1)]


def cut_values(values: np.ndarray, thresholds: Sequence[float], labels: Sequence[str]) -> np.ndarray:
    """Return the label of each value; there is one label more than thresholds.

    >>> cut_values(np.array([39.9, 40, 60, 60.1]), [40, 60], ["low", "mid", "high"]).tolist()
    ['low', 'mid', 'mid', 'high']
    """
    codes = sum((values >= each).astype(int) for each in thresholds[:-1]) + (values > thresholds[-1])
    return np.asarray(np.array(labels)[codes])
