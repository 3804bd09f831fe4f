"""Improve a selection by exchanging one image at a time, where the integer program stopped early."""

from __future__ import annotations

import numpy as np

from affectdata.selection.program import Problem, cost

_SWEEPS = 100


def improve(problem: Problem, lists: np.ndarray) -> np.ndarray:
    """Return a selection that is at least as good: the best exchange within each cell, until none helps.

    An exchange brings the means of a cell and list nearer to the centre of all, in squares. Deterministic.
    """
    current, best = lists.copy(), lists
    for _ in range(_SWEEPS):
        centres = [_centre(problem, current, number) for number in range(len(problem.moments))]
        exchanges = [
            _exchange(problem, current, centres, number, cell)
            for number in range(problem.n_lists)
            for cell in problem.cells
        ]
        if cost(problem, current) < cost(problem, best):
            best = current.copy()
        if not any(exchanges):
            break
    return best


def _centre(problem: Problem, lists: np.ndarray, number: int) -> float:
    """Return the mean of a moment over all selected images of its cells."""
    moment = problem.moments[number]
    return float(moment.values[(lists >= 0) & np.isin(problem.cell, moment.cells)].mean())


def _exchange(problem: Problem, lists: np.ndarray, centres: list[float], number: int, cell: int) -> bool:
    """Make the best exchange in a cell of a list; return whether there was one."""
    own = [
        (each, centre) for each, centre in zip(problem.moments, centres, strict=True) if cell in each.cells
    ]
    if not own:
        return False
    inside = np.flatnonzero((problem.cell == cell) & (lists == number))
    outside = np.flatnonzero((problem.cell == cell) & (lists < 0))
    values = np.stack([each.values - centre for each, centre in own], 1)
    now = values[inside].mean(0)
    change = (values[outside][None] - values[inside][:, None]) / problem.n
    gain = np.sum(now**2) - np.sum((now + change) ** 2, 2)
    taken = problem.group[lists >= 0]
    # An image that looks like a selected one may only take the place of that one.
    clash = np.isin(problem.group[outside], taken)[None] & (
        problem.group[outside][None] != problem.group[inside][:, None]
    )
    gain[clash] = -np.inf
    if not gain.size or gain.max() <= 1e-12:
        return False
    out, new = np.unravel_index(gain.argmax(), gain.shape)
    lists[inside[out]], lists[outside[new]] = -1, number
    return True
