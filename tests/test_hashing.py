"""Hashes of bytes are what `sha256sum` prints; seeds and ranks never change."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.hashing import canonical_json, file_hash, hash_ranks, stable_seed


def test_file_hash_is_what_sha256sum_prints() -> None:
    assert file_hash(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1, "a": [1.5, None, "ü"]}) == '{"a":[1.5,null,"ü"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": math.nan})


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_canonical_json_does_not_see_the_order_of_keys(document: dict[str, str]) -> None:
    turned = dict(reversed(document.items()))
    assert canonical_json(turned) == canonical_json(document)
    assert json.loads(canonical_json(document)) == document


def test_seeds_are_the_same_everywhere() -> None:  # a change here changes every plan
    assert stable_seed(7, "abc", 1) == 3113629561220825652
    assert stable_seed("abc") == 4348137248518544552
    assert hash_ranks(7, ["abc", "abd"]).tolist() == [570894109844072117, 15638987746114975444]


@given(st.lists(st.tuples(st.integers(0, 9), st.text("abc", max_size=3), st.integers(0, 9)), unique=True))
def test_seeds_differ_and_fit_a_signed_integer(parts: list[tuple[int, str, int]]) -> None:
    seeds = [stable_seed(*each) for each in parts]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@given(st.lists(st.text("abcdef", min_size=1, max_size=6), unique=True, max_size=20), st.integers(0, 2**31))
def test_ranks_do_not_depend_on_the_order_of_rows(ids: list[str], seed: int) -> None:
    turned = dict(zip(ids[::-1], hash_ranks(seed, ids[::-1]).tolist(), strict=True))
    assert [turned[each] for each in ids] == hash_ranks(seed, ids).tolist()
