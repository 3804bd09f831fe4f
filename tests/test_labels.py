"""One spelling per emotion; vocabularies and maps that hang together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.labels import MAPS, VOCABULARIES, dominant_emotion, mood_quadrant, spell_emotion


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("Sad", "sadness"),
        (" sadness ", "sadness"),
        ("ANGRY", "anger"),
        ("something else", "something_else"),
        ("arrogance/humility", "arrogance_humility"),
        ("self-doubt", "self_doubt"),
    ],
)
def test_spelling(word: str, ours: str) -> None:
    assert spell_emotion(word) == ours


@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_spelling_twice_changes_nothing(word: str) -> None:
    assert spell_emotion(spell_emotion(word)) == spell_emotion(word)


@pytest.mark.parametrize(
    ("name", "size"), [("mikels8", 8), ("ekman6", 6), ("plutchik8", 8), ("plutchik24", 24), ("wikiart20", 20)]
)
def test_a_vocabulary_has_its_size_and_our_spelling(name: str, size: int) -> None:
    vocabulary = VOCABULARIES[name]
    assert len(set(vocabulary.emotions)) == len(vocabulary.emotions) == size
    assert [spell_emotion(word) for word in vocabulary.emotions] == list(vocabulary.emotions)
    assert "(" in vocabulary.source  # a year


@pytest.mark.parametrize("name", MAPS)
def test_a_map_puts_an_emotion_in_one_class_at_most_and_says_who_did(name: str) -> None:
    placed = [emotion for emotions in MAPS[name].classes.values() for emotion in emotions]
    assert len(placed) == len(set(placed)) == len(MAPS[name].class_of)
    assert [spell_emotion(word) for word in placed] == placed
    assert "(" in MAPS[name].source


def test_the_quadrants_take_every_emotion_of_wikiart_but_neutral() -> None:
    assert set(MAPS["mood_quadrants"].class_of) == set(VOCABULARIES["wikiart20"].emotions) - {"neutral"}


def test_polarity_says_nothing_of_what_its_sources_leave_open() -> None:
    polarity = MAPS["polarity"].class_of
    left = {
        name: set(VOCABULARIES[name].emotions) - polarity.keys()
        for name in ("mikels8", "ekman6", "wikiart20")
    }
    mixed = {"agreeableness", "anticipation", "disagreeableness", "shyness", "surprise"}
    assert left == {"mikels8": set(), "ekman6": {"surprise"}, "wikiart20": mixed}
    assert (polarity["awe"], polarity["sadness"], polarity["neutral"]) == ("positive", "negative", "neutral")


def test_every_shade_of_plutchik_goes_to_its_basic_emotion() -> None:
    classes = MAPS["plutchik8"].class_of
    assert set(classes) == set(VOCABULARIES["plutchik24"].emotions)
    assert set(classes.values()) == set(VOCABULARIES["plutchik8"].emotions)
    assert (classes["terror"], classes["serenity"], classes["vigilance"]) == ("fear", "joy", "anticipation")


def test_ekmans_six_take_most_of_mikels_eight() -> None:
    classes = MAPS["ekman6"].class_of
    assert set(classes.values()) == set(VOCABULARIES["ekman6"].emotions)
    assert all(classes[each] == each for each in VOCABULARIES["ekman6"].emotions)
    assert set(VOCABULARIES["mikels8"].emotions) - classes.keys() == {"awe", "contentment"}
    assert (classes["joy"], classes["gratitude"], classes["grief"]) == ("happiness", "happiness", "sadness")


@pytest.mark.parametrize(
    ("shares", "emotion"),
    [({"a": 0.2, "b": 0.6}, "b"), ({"a": 0.5, "b": 0.5, "c": 0.1}, None), ({"a": 0.0}, None), ({}, None)],
)
def test_the_dominant_emotion_stands_alone(shares: dict[str, float], emotion: str | None) -> None:
    assert dominant_emotion(shares) == emotion


@pytest.mark.parametrize(
    ("valence", "arousal", "quadrant"),
    [
        (50.1, 50.1, "Euphoric"),
        (49.9, 50.1, "Aggressive"),
        (49.9, 49.9, "Melancholy"),
        (50.1, 49.9, "Calm"),
        (50, 10, None),
        (10, 50, None),
    ],
)
def test_the_midlines_belong_to_no_quadrant(valence: float, arousal: float, quadrant: str | None) -> None:
    assert mood_quadrant(valence, arousal) == quadrant
