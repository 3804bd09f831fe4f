"""Approximate sets of strings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from affectdata.store.text_set import StringHashSet

texts = st.lists(st.text(max_size=5), max_size=20)


@given(st.lists(texts, max_size=4), texts)
def test_it_has_what_was_put_in(parts: list[list[str]], strings: list[str]) -> None:
    members = {name for part in parts for name in part}
    assert StringHashSet(iter(parts)).has(strings).tolist() == [name in members for name in strings]


def test_length_is_that_of_all_parts() -> None:
    assert len(StringHashSet([["a", "b"], [], ["c"]])) == 3
    assert len(StringHashSet([])) == 0
