"""Why a request cannot be met: the limiting cell, and the largest possible n."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from affectdata.errors import RecipeError
from affectdata.selection.exchange import improve
from affectdata.selection.program import CLOSE, Problem, cost, is_feasible, ranges, solve

_TRIES = 5
_SLACK = 1e-9


def find_selection(problem: Problem, names: list[str], where: str) -> tuple[np.ndarray, bool]:
    """Return the list of every candidate, and whether the selection is proven optimal.

    Raises:
        RecipeError: the request cannot be met; with the limiting cell and the largest possible n.
    """
    _check_counts(problem, names, where)
    if not is_feasible(problem):
        raise _explain(problem, names, where)
    lists, is_optimal = _search(problem)
    if not _keeps_bounds(problem, lists):
        raise _explain(problem, names, where)
    return lists, is_optimal


def _search(problem: Problem) -> tuple[np.ndarray, bool]:
    lists, is_optimal = solve(problem)
    if is_optimal:
        return lists, True
    lists = improve(problem, lists)
    return lists, cost(problem, lists) <= CLOSE * len(problem.moments) + _SLACK


def _keeps_bounds(problem: Problem, lists: np.ndarray) -> bool:
    widths = ranges(problem, lists)
    return all(
        width <= max(CLOSE, each.most) + _SLACK for each, width in zip(problem.moments, widths, strict=True)
    )


def _check_counts(problem: Problem, names: list[str], where: str) -> None:
    """Check that every cell has images enough, look-alikes counted once.

    Raises:
        RecipeError: one has too few.
    """
    supply = [len(np.unique(problem.group[problem.cell == cell])) for cell in range(len(names))]
    cell = int(np.argmin(supply))
    if supply[cell] < problem.n * problem.n_lists:
        most = supply[cell] // problem.n_lists
        lists = f" in each of {problem.n_lists} lists" if problem.n_lists > 1 else ""
        raise RecipeError(
            f"the cell {names[cell]!r} has {supply[cell]} images (look-alikes counted once), "
            f"too few for {problem.n}{lists}",
            where=where,
            fix=f"n: {most} is the largest possible; or widen its levels" if most > 1 else "widen its levels",
        )


def _explain(problem: Problem, names: list[str], where: str) -> RecipeError:
    """Return the error that names the limiting cell and the largest possible n."""
    cell, effect = _find_binding(problem)
    n = _nearest_n(problem)
    columns = ", ".join(dict.fromkeys(each.name for each in problem.moments if np.isfinite(each.most)))
    return RecipeError(
        f"no {problem.n} images per cell can be matched on {columns} within max_difference; "
        f"the limiting cell is {names[cell]!r} ({effect})",
        where=where,
        fix=(f"n: {n} is possible; or " if n else "")
        + "raise max_difference, match fewer columns, or widen levels",
    )


def _find_binding(problem: Problem) -> tuple[int, str]:
    """Return the cell without which the largest n is possible; of two cells, the smaller one."""
    counts = {int(cell): int(np.sum(problem.cell == cell)) for cell in problem.cells}
    if len(counts) < 3:
        cell = min(counts, key=lambda each: counts[each])
        return cell, f"it has {counts[cell]} candidates"
    without = {cell: _largest_n(_drop(problem, cell)) for cell in counts}
    cell = max(without, key=lambda each: (without[each], -counts[each]))
    return cell, f"without it, n: {without[cell]} could be met"


def _drop(problem: Problem, cell: int) -> Problem:
    keep = problem.cell != cell
    moments = [
        replace(each, values=each.values[keep], cells=[own for own in each.cells if own != cell])
        for each in problem.moments
        if set(each.cells) != {cell}
    ]
    return replace(problem, cell=problem.cell[keep], group=problem.group[keep], moments=moments)


def _largest_n(problem: Problem) -> int:
    """Return the largest n that is possible for fractions of images, by bisection; 0 if none is."""
    counts = [len(np.unique(problem.group[problem.cell == cell])) for cell in problem.cells]
    low, high = 0, min(counts) // problem.n_lists + 1
    while high - low > 1:
        middle = (low + high) // 2
        if is_feasible(replace(problem, n=middle)):
            low = middle
        else:
            high = middle
    return low


def _nearest_n(problem: Problem) -> int:
    """Return the largest number of images per cell for which a selection was found; 0 if none."""
    n = min(_largest_n(problem), problem.n - 1)
    for _ in range(_TRIES):
        if n < 2:
            return 0
        smaller = replace(problem, n=n)
        if _keeps_bounds(smaller, _search(smaller)[0]):
            return n
        n -= max(1, n // 10)
    return 0
