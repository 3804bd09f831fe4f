"""How well a selection is matched: means, standard deviations, standardised differences, equivalence tests.

A difference is in units of the standard deviation of all candidates, before and after alike, so that the two
can be compared (Stuart 2010, doi:10.1214/09-STS313). Equivalence is tested by two one-sided t-tests with
Welch's degrees of freedom (TOST; Lakens 2017, doi:10.1177/1948550617697177).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind

from affectdata.selection.candidates import Candidates


def equivalence_p(a: np.ndarray, b: np.ndarray, bound: float) -> float:
    """Return the p of two one-sided Welch tests that the means of a and b differ by less than `bound`."""
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return float(abs(a[0] - b[0]) >= bound)
    lower = ttest_ind(a + bound, b, equal_var=False, alternative="greater").pvalue
    upper = ttest_ind(a - bound, b, equal_var=False, alternative="less").pvalue
    return float(max(lower, upper))


def difference_p(a: np.ndarray, b: np.ndarray) -> float:
    """Return the p of Welch's two-sided t-test."""
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        return float(a[0] == b[0])
    return float(ttest_ind(a, b, equal_var=False).pvalue)


def describe(candidates: Candidates, lists: np.ndarray, columns: list[str]) -> pd.DataFrame:
    """Return mean and SD of every column by cell, of all candidates (list 0) and of each list (from 1)."""
    rows = []
    for column in columns:
        values = candidates.values(column)
        for number in range(int(lists.max()) + 2):
            part = np.ones(len(lists), bool) if number == 0 else lists == number - 1
            for cell, name in enumerate(candidates.cells):
                own = values[part & (candidates.cell == cell)]
                if len(own):
                    deviation = float(own.std(ddof=1)) if len(own) > 1 else np.nan
                    rows.append((column, number, name, len(own), float(own.mean()), deviation))
    return pd.DataFrame(rows, columns=["column", "list", "cell", "n", "mean", "sd"])


def compare(
    candidates: Candidates, lists: np.ndarray, matched: list[str], between: list[str], bound: float
) -> pd.DataFrame:
    """Return a row per pair of cells in a list (0: of all candidates), and per pair of lists in a cell.

    `matched` are the columns that are compared between cells; these and `between` are compared between lists.
    """
    rows = []
    for column in [*matched, *between]:
        values = candidates.values(column) / candidates.scale(column)
        for what, number, a, b, first, second in _pairs(candidates, lists, column in matched):
            left, right = values[first], values[second]
            if min(len(left), len(right)) > 1:
                difference = float(left.mean() - right.mean())
                tests = difference_p(left, right), equivalence_p(left, right, bound)
                rows.append((column, what, number, a, b, difference, *tests))
    names = ["column", "between", "list", "a", "b", "difference", "p_difference", "p_equivalence"]
    return pd.DataFrame(rows, columns=names)


def _pairs(
    candidates: Candidates, lists: np.ndarray, with_cells: bool
) -> Iterator[tuple[str, int, str, str, np.ndarray, np.ndarray]]:
    n_lists, cells = int(lists.max()) + 1, sorted(set(candidates.cell.tolist()))
    names = candidates.cells
    for number in range(n_lists + 1) if with_cells else ():
        part = np.ones(len(lists), bool) if number == 0 else lists == number - 1
        for a, b in combinations(cells, 2):
            inside = [np.flatnonzero(part & (candidates.cell == cell)) for cell in (a, b)]
            yield "cells", number, names[a], names[b], inside[0], inside[1]
    for (first, second), cell in ((pair, cell) for pair in combinations(range(n_lists), 2) for cell in cells):
        inside = [np.flatnonzero((lists == number) & (candidates.cell == cell)) for number in (first, second)]
        what = f"{names[cell]}, list "
        yield "lists", 0, f"{what}{first + 1}", f"{what}{second + 1}", inside[0], inside[1]


_SUMMARY = ["column", "before", "after", "pairs", "equivalent", "p_difference", "between_lists"]


def summarise(comparisons: pd.DataFrame, bound_p: float = 0.05) -> pd.DataFrame:
    """Return per column the largest difference before and after, and how many pairs are equivalent after."""
    rows = []
    for column, part in comparisons.groupby("column", sort=False):
        cells = part["between"] == "cells"
        before, after = part[cells & (part["list"] == 0)], part[cells & (part["list"] > 0)]
        other = part[~cells]
        equivalent = int((after["p_equivalence"] < bound_p).sum())
        differences = (_largest(before), _largest(after), len(after), equivalent, _least(after))
        rows.append((column, *differences, _largest(other)))
    return pd.DataFrame(rows, columns=_SUMMARY)


def _largest(pairs: pd.DataFrame) -> float | None:
    return float(pairs["difference"].abs().max()) if len(pairs) else None


def _least(pairs: pd.DataFrame) -> float | None:
    return float(pairs["p_difference"].min()) if len(pairs) else None
