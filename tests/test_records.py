"""Scales: raw → POMP → raw, in range, exact to the rounding."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from affectdata.records import Reason, Record, Scale

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(numbers, numbers, st.floats(0, 1))
def test_pomp_and_back(low: float, high: float, share: float) -> None:
    assume(high - low >= 0.001)
    scale = Scale(low, high)
    raw = min(max(low + share * (high - low), low), high)
    pomp = scale.to_pomp(raw)
    assert 0 <= pomp <= 100
    assert pomp == round(pomp, 6)
    assert math.isclose(scale.from_pomp(pomp), raw, abs_tol=(high - low) * 5.1e-9 + 1e-9)


@given(st.integers(-5, 5), st.integers(1, 20))
def test_the_ends_and_the_midpoint(low: int, span: int) -> None:
    scale = Scale(low, low + span)
    assert [scale.to_pomp(raw) for raw in (low, low + span / 2, low + span)] == [0, 50, 100]


@pytest.mark.parametrize(
    ("low", "high", "raw", "pomp"), [(1, 9, 8.2, 90.0), (1, 7, 4, 50.0), (-3, 3, -1, 33.333333)]
)
def test_pomp_is_rounded_to_six_decimals(low: float, high: float, raw: float, pomp: float) -> None:
    assert Scale(low, high).to_pomp(raw) == pomp


def test_agreement_is_the_share_of_the_emotion_unless_it_is_given() -> None:
    shares = {"awe": 0.6, "fear": 0.4}
    said = [Record("a.jpg", "a", emotion=word, emotions=shares).agreement for word in ("awe", "joy", None)]
    assert said == [0.6, None, None]
    assert Record("a.jpg", "a", emotion="awe", emotions=shares, agreement=0.9).agreement == 0.9


def test_a_spread_is_scaled_but_not_shifted() -> None:
    assert Scale(1, 9).spread_to_pomp(2.0) == 25.0
    assert Scale(1, 9).spread_to_pomp(0.0) == 0.0


@pytest.mark.parametrize(("low", "high"), [(1, 1), (9, 1), (math.nan, 9), (1, math.nan)])
def test_a_scale_goes_up(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="from low to high"):
        Scale(low, high)


def test_what_is_on_a_scale() -> None:
    scale = Scale(1, 9)
    assert 1 in scale and 9 in scale
    assert 0.999 not in scale and 9.001 not in scale and math.nan not in scale


def test_reasons_are_written_as_their_values() -> None:
    assert str(Reason.EXACT_DUPLICATE) == "exact_duplicate"
    assert all(str(reason) == reason.name.lower() for reason in Reason)
