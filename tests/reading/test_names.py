"""reading.names: names in natural order."""

from __future__ import annotations

from affectdata.reading.names import natural_key


def test_numbers_are_sorted_by_their_size() -> None:
    assert sorted(["x10", "X2", "x"], key=natural_key) == ["x", "X2", "x10"]


def test_a_digit_that_is_no_decimal_is_text() -> None:
    assert sorted(["10²5.jpg", "9²5.jpg"], key=natural_key) == ["9²5.jpg", "10²5.jpg"]
