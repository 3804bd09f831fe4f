"""Sets of names as hashes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from affectdata.store.text_set import Names

texts = st.lists(st.text(max_size=5), max_size=20)


@given(st.lists(texts, max_size=4), texts)
def test_it_has_what_was_put_in(parts: list[list[str]], asked: list[str]) -> None:
    there = {name for part in parts for name in part}
    assert Names(iter(parts)).has(asked).tolist() == [name in there for name in asked]


def test_length_is_that_of_all_parts() -> None:
    assert len(Names([["a", "b"], [], ["c"]])) == 3
    assert len(Names([])) == 0
