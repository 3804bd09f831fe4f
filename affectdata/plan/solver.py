"""Distribute the rows of one bin over its strata, in integers: max–min fair under a cap on copies.

Water-filling: all strata are raised to a common level; a stratum stops at its cap (every image copied `cap`
times), and one above the level keeps all of its images.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal


def target_count(counts: Sequence[int], level: Literal["max", "median"] | int) -> int:
    """Return the target number of rows per bin: `level`, or the maximum or median of the counts above 0."""
    nonzero = [count for count in counts if count]
    if isinstance(level, int):
        return level
    if not nonzero:
        return 0
    return max(nonzero) if level == "max" else int(median(nonzero))


def solve_bin(supply: Sequence[int], target: int, cap: int, undersample: bool = False) -> list[int]:
    """Allocate `target` rows of one bin to its strata as evenly as possible.

    `supply` counts the images per stratum; stratum s gets between `supply[s]` (0 with `undersample`) and
    `cap * supply[s]` rows. The sum is `target`, or the nearest value within the bounds. Among all such
    allocations, the sorted one is lexicographically largest; rows left after the last full level go to the
    strata in order, one each.

    >>> solve_bin([16, 15, 33, 68], 132, cap=8)
    [16, 15, 33, 68]
    >>> solve_bin([18, 20, 1], 132, cap=8)
    [62, 62, 8]
    """
    low = [0] * len(supply) if undersample else list(supply)
    high = [cap * count for count in supply]
    total = min(max(target, sum(low)), sum(high))
    level = _highest_level(low, high, total)
    rows = _fill_to(level, low, high)
    remaining = total - sum(rows)
    for stratum in range(len(rows)):
        if remaining and rows[stratum] == level and rows[stratum] < high[stratum]:
            rows[stratum] += 1
            remaining -= 1
    return rows


def _fill_to(level: int, low: Sequence[int], high: Sequence[int]) -> list[int]:
    return [min(max(level, lower), upper) for lower, upper in zip(low, high, strict=True)]


def _highest_level(low: Sequence[int], high: Sequence[int], total: int) -> int:
    """Find by bisection the highest level at which the strata sum to at most `total`."""
    below, above = 0, max(high, default=0) + 1
    while above - below > 1:
        middle = (below + above) // 2
        if sum(_fill_to(middle, low, high)) <= total:
            below = middle
        else:
            above = middle
    return below
