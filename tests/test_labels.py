"""One spelling per emotion."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.labels import spell_emotion


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
