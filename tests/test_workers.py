"""`map_ordered`: order, a bounded window, exceptions at their place, one worker as many."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.workers import default_workers, map_ordered


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4))
def test_results_come_in_the_order_of_the_batches(waits: list[int], workers: int) -> None:
    def work(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 20_000)
        return item[0]

    assert list(map_ordered(work, list(enumerate(waits)), workers)) == list(range(len(waits)))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_window_is_bounded(workers: int) -> None:
    taken = 0

    def batches() -> Iterator[int]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    results = map_ordered(lambda number: number, batches(), workers)
    for n_out in range(1, 20):
        next(results)
        assert taken - n_out < max(1, 2 * workers)
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_exception_is_raised_at_the_place_of_its_batch(workers: int) -> None:
    def work(number: int) -> int:
        if number == 5:
            raise ValueError("batch 5")
        return number

    out: list[int] = []
    with pytest.raises(ValueError, match="batch 5"):
        out.extend(map_ordered(work, range(100), workers))
    got = []
    results = map_ordered(work, range(100), workers)
    with pytest.raises(ValueError, match="batch 5"):
        for number in results:
            got.append(number)
    assert got == [0, 1, 2, 3, 4]


def test_batches_after_an_exception_are_dropped_and_no_thread_stays() -> None:
    before = threading.active_count()
    seen: list[int] = []

    def work(number: int) -> int:
        seen.append(number)
        if number == 0:
            raise ValueError("first")
        return number

    with pytest.raises(ValueError, match="first"):
        list(map_ordered(work, range(1000), 2))
    assert len(seen) <= 4
    assert threading.active_count() == before


def test_an_exception_of_the_batches_themselves_is_passed_on() -> None:
    def batches() -> Iterator[int]:
        yield 1
        raise OSError("listing broke")

    with pytest.raises(OSError, match="listing broke"):
        list(map_ordered(lambda number: number, batches(), 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_no_batches_no_results(workers: int) -> None:
    assert list(map_ordered(lambda number: number, [], workers)) == []


def test_there_is_at_least_one_worker() -> None:
    assert default_workers() >= 1
