"""Emotion words: one spelling per emotion, published vocabularies, and maps from emotions to fewer classes.

A map holds what its source says and no more: an emotion that the source does not place is in no class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_MIDDLE = 50.0  # POMP: the midpoint of every scale

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


# Words for classes that are in no vocabulary below.
_MORE_WORDS = ("neutral", "contempt", "afraid", "scared", "calm", "positive", "negative")


def spell_emotion(word: str) -> str:
    """Return a source's word for an emotion in our spelling: lower case, snake_case, the noun.

    >>> spell_emotion("Sad"), spell_emotion("something else")
    ('sadness', 'something_else')
    """
    plain = "_".join(word.strip().lower().replace("-", " ").replace("/", " ").split())
    return _SPELLINGS.get(plain, plain)


def is_emotion(text: str) -> bool:
    """Return whether one of the words in a text is a known emotion.

    >>> is_emotion("0_angry faces"), is_emotion("S01"), is_emotion("male")
    (True, False, False)
    """
    known = {*_SPELLINGS, *_SPELLINGS.values(), *_MORE_WORDS}
    known.update(emotion for vocabulary in VOCABULARIES.values() for emotion in vocabulary.emotions)
    return any(word in known for word in re.findall("[a-z]+", text.lower()))


def dominant_emotion(shares: Mapping[str, float]) -> str | None:
    """Return the emotion that most raters chose; None where none was chosen or the largest shares tie.

    >>> dominant_emotion({"awe": 0.5, "fear": 0.3}), dominant_emotion({"awe": 0.4, "fear": 0.4})
    ('awe', None)
    """
    most = max(shares.values(), default=0)
    largest = [emotion for emotion, share in shares.items() if share == most > 0]
    return largest[0] if len(largest) == 1 else None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The emotions that a theory or a collection knows, and where it says so."""

    emotions: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Classes and the emotions that each takes in, and the source of that."""

    classes: Mapping[str, tuple[str, ...]]
    source: str

    @property
    def class_of(self) -> dict[str, str]:
        """The class of every emotion that has one."""
        return {emotion: name for name, emotions in self.classes.items() for emotion in emotions}


_PLUTCHIK = {  # basic emotion: mild, basic, intense
    "joy": ("serenity", "joy", "ecstasy"),
    "trust": ("acceptance", "trust", "admiration"),
    "fear": ("apprehension", "fear", "terror"),
    "surprise": ("distraction", "surprise", "amazement"),
    "sadness": ("pensiveness", "sadness", "grief"),
    "disgust": ("boredom", "disgust", "loathing"),
    "anger": ("annoyance", "anger", "rage"),
    "anticipation": ("interest", "anticipation", "vigilance"),
}
_PLUTCHIK_2001 = "Plutchik (2001). The nature of emotions. American Scientist, 89(4), 344–350"
_MIKELS_2005 = (
    "Mikels et al. (2005). Emotional category data on images from the International Affective Image "
    "System. Behavior Research Methods, 37(4), 626–630"
)
_WIKIART_2018 = (
    "Mohammad & Kiritchenko (2018). WikiArt Emotions: an annotated dataset of emotions evoked by art. LREC, "
    "and the README of the dataset"
)
_WIKIART_POSITIVE = ("gratitude", "happiness", "humility", "love", "optimism", "trust")
_WIKIART_NEGATIVE = ("anger", "arrogance", "disgust", "fear", "pessimism", "regret", "sadness", "shame")
_WIKIART_MIXED = ("agreeableness", "anticipation", "disagreeableness", "surprise", "shyness", "neutral")
_MIKELS_POSITIVE = ("amusement", "awe", "contentment", "excitement")
_MIKELS_NEGATIVE = ("anger", "disgust", "fear", "sadness")

VOCABULARIES = {
    "mikels8": Vocabulary((*_MIKELS_POSITIVE, *_MIKELS_NEGATIVE), _MIKELS_2005),
    "ekman6": Vocabulary(
        ("anger", "disgust", "fear", "happiness", "sadness", "surprise"),
        "Ekman (1992). An argument for basic emotions. Cognition and Emotion, 6(3–4), 169–200",
    ),
    "plutchik8": Vocabulary(tuple(_PLUTCHIK), _PLUTCHIK_2001),
    "plutchik24": Vocabulary(tuple(word for three in _PLUTCHIK.values() for word in three), _PLUTCHIK_2001),
    "wikiart20": Vocabulary((*_WIKIART_POSITIVE, *_WIKIART_NEGATIVE, *_WIKIART_MIXED), _WIKIART_2018),
}

MAPS = {
    "mood_quadrants": LabelMap(
        {
            "Euphoric": ("anticipation", "happiness", "love", "optimism", "surprise"),
            "Aggressive": ("anger", "arrogance", "disagreeableness", "disgust", "fear"),
            "Melancholy": ("pessimism", "regret", "sadness", "shame", "shyness"),
            "Calm": ("agreeableness", "gratitude", "humility", "trust"),
        },
        "the quadrants of Russell (1980). A circumplex model of affect. Journal of Personality and Social "
        "Psychology, 39(6), 1161–1178; which emotion of WikiArt Emotions is in which is our choice",
    ),
    "polarity": LabelMap(
        {
            "positive": tuple(sorted({*_WIKIART_POSITIVE, *_MIKELS_POSITIVE, "joy", "pride", "relief"})),
            "negative": tuple(sorted({*_WIKIART_NEGATIVE, *_MIKELS_NEGATIVE, "envy", "guilt", "jealousy"})),
            "neutral": ("neutral",),
        },
        f"{_WIKIART_2018}; {_MIKELS_2005}; joy, pride, relief, envy, guilt and jealousy: Lazarus (1991). "
        "Emotion and Adaptation. Oxford University Press",
    ),
    "plutchik8": LabelMap(_PLUTCHIK, _PLUTCHIK_2001),
    "ekman6": LabelMap(
        {
            "anger": ("anger", "annoyance", "disapproval"),
            "disgust": ("disgust",),
            "fear": ("fear", "nervousness"),
            "happiness": (
                *("admiration", "amusement", "approval", "caring", "desire", "excitement", "gratitude"),
                *("happiness", "joy", "love", "optimism", "pride", "relief"),
            ),
            "sadness": ("disappointment", "embarrassment", "grief", "remorse", "sadness"),
            "surprise": ("confusion", "curiosity", "realization", "surprise"),
        },
        "Demszky et al. (2020). GoEmotions: A dataset of fine-grained emotions. ACL, 4040–4054, and the "
        "mapping in its repository; made for texts, and their joy is happiness here",
    ),
}


def mood_quadrant(valence: float, arousal: float) -> str | None:
    """Return the mood quadrant of two POMP scores; None on a midline, which is in no quadrant.

    >>> mood_quadrant(80, 70), mood_quadrant(20, 30), mood_quadrant(50, 90)
    ('Euphoric', 'Melancholy', None)
    """
    if _MIDDLE in (valence, arousal):
        return None
    if arousal > _MIDDLE:
        return "Euphoric" if valence > _MIDDLE else "Aggressive"
    return "Calm" if valence > _MIDDLE else "Melancholy"


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
