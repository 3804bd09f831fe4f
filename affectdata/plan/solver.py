"""Level one bin over its strata, in whole numbers: max–min fair under a cap on copies.

Water-filling: strata are raised together to a common level; one that cannot follow (its images are copied
`cap` times already) or that is above it (its images are all kept) stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal


def target_count(counts: Sequence[int], level: Literal["max", "median"] | int) -> int:
    """Return the rows that every bin is to have: the largest count, the median of those not 0, a number."""
    some = [count for count in counts if count]
    if isinstance(level, int):
        return level
    if not some:
        return 0
    return max(some) if level == "max" else int(median(some))


def solve_bin(supply: Sequence[int], target: int, cap: int, undersample: bool = False) -> list[int]:
    """Allocate `target` rows of one bin to its strata as evenly as can be.

    `supply` counts the images per stratum; stratum s gets between `supply[s]` (0 with `undersample`) and
    `cap * supply[s]` rows. The sum is `target`, or the nearest that the bounds allow. Among all such
    allocations the sorted one is lexicographically largest; what is left over after the last full level goes
    to the strata in their order, one row each.

    >>> solve_bin([16, 15, 33, 68], 132, cap=8)
    [16, 15, 33, 68]
    >>> solve_bin([18, 20, 1], 132, cap=8)
    [62, 62, 8]
    """
    low = [0] * len(supply) if undersample else list(supply)
    high = [cap * count for count in supply]
    total = min(max(target, sum(low)), sum(high))
    level = _highest_level(low, high, total)
    rows = _filled(low, high, level)
    left = total - sum(rows)
    for stratum in range(len(rows)):
        if left and rows[stratum] == level and rows[stratum] < high[stratum]:
            rows[stratum] += 1
            left -= 1
    return rows


def _filled(low: Sequence[int], high: Sequence[int], level: int) -> list[int]:
    return [min(max(level, least), most) for least, most in zip(low, high, strict=True)]


def _highest_level(low: Sequence[int], high: Sequence[int], total: int) -> int:
    """Find by bisection the highest level at which the strata hold no more than `total`."""
    below, above = 0, max(high, default=0) + 1
    while above - below > 1:
        middle = (below + above) // 2
        if sum(_filled(low, high, middle)) <= total:
            below = middle
        else:
            above = middle
    return below
