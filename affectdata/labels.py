"""Emotion words: one spelling per emotion."""

from __future__ import annotations

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
