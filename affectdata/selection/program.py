"""Select matched sets by integer programming: cardinality matching on moments, solved by HiGHS.

A selection takes exactly n images per cell and list. For every matched column, the means of all cells and
lists should be equal, and so should the means of its squares (then the spreads are equal too). With z the
values in units of the candidates' SD, and t a moment (z or z²/2),

    minimise  Σ_t range_t + 100 · excess_t      subject to  |mean of t in a cell and list - centre_t|
                                                            ≤ (range_t + excess_t) / 2,   range_t ≥ CLOSE

where range_t of a mean is at most `max_difference`. Ranges under CLOSE count as equal: a selection in which
all are that small is optimal, and the search ends. Zubizarreta (2012, doi:10.1080/01621459.2012.703874)
matches groups by such a program.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, LinearConstraint, milp

CLOSE = 0.05  # SD
_EXCESS = 100.0  # cost of a range above the largest one allowed
_NODES = 50  # of the search tree; a bound in seconds would make results depend on the machine
_GAP = 0.01
_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Moment:
    """A value per candidate, the mean of which should be equal in some cells of every list."""

    name: str
    values: np.ndarray
    cells: list[int]
    most: float = np.inf  # largest range allowed


@dataclass(frozen=True, eq=False)
class Problem:
    """`cell` and `group` per candidate; at most one image of a group; `n` images per cell and list."""

    cell: np.ndarray
    group: np.ndarray
    moments: list[Moment]
    n: int
    n_lists: int

    @property
    def cells(self) -> np.ndarray:
        """The cells that occur."""
        return np.unique(self.cell)


def solve(problem: Problem) -> tuple[np.ndarray, bool]:
    """Return the list of every candidate (-1: not selected), and whether the selection is proven optimal.

    Raises:
        ValueError: there is no selection of this size; call `is_feasible` first.
    """
    result = _run(problem, integral=True)
    if result.x is None:
        raise ValueError(f"no selection: {result.message}")
    n_rows = len(problem.cell)
    chosen = result.x[: n_rows * problem.n_lists].reshape(problem.n_lists, n_rows) > 0.5
    return np.where(chosen.any(0), chosen.argmax(0), -1), result.status == 0


def is_feasible(problem: Problem) -> bool:
    """Return whether fractions of images would satisfy all bounds; if not, no images do."""
    merged = Problem(problem.cell, problem.group, problem.moments, problem.n * problem.n_lists, 1)
    result = _run(merged, integral=False)
    return result.x is not None and float(result.x[len(result.x) - len(problem.moments) :].sum()) < _TINY


def cost(problem: Problem, lists: np.ndarray) -> float:
    """Return the value that the program minimises for a selection."""
    return sum(
        max(CLOSE, min(width, each.most)) + _EXCESS * max(0.0, width - each.most)
        for each, width in zip(problem.moments, ranges(problem, lists), strict=True)
    )


def ranges(problem: Problem, lists: np.ndarray) -> list[float]:
    """Return the largest difference between the means of a moment in two of its cells or lists."""
    widths = []
    for each in problem.moments:
        means = [
            each.values[(lists == number) & (problem.cell == cell)].mean()
            for number in range(problem.n_lists)
            for cell in each.cells
        ]
        widths.append(float(max(means) - min(means)))
    return widths


def _run(problem: Problem, *, integral: bool) -> Any:
    n_rows, n_lists, moments = len(problem.cell), problem.n_lists, problem.moments
    n_images, n_more = n_rows * n_lists, 3 * len(moments)  # centre, range and excess of every moment
    own = sp.csr_array((np.ones(n_rows), (np.searchsorted(problem.cells, problem.cell), np.arange(n_rows))))
    blocks = [_wide(sp.block_diag([own] * n_lists), n_more)]
    low = [np.full(blocks[0].shape[0], float(problem.n))]
    high = [low[0]]
    once = _groups(problem)
    blocks.append(_wide(sp.hstack([once] * n_lists), n_more))
    low.append(np.zeros(once.shape[0]))
    high.append(np.ones(once.shape[0]))
    for number, moment in enumerate(moments):
        means = own[np.searchsorted(problem.cells, moment.cells)] * (moment.values / problem.n)[None]
        means = sp.block_diag([means] * n_lists)
        more = np.zeros((means.shape[0], n_more))
        more[:, number] = -1
        for sign in (1.0, -1.0):
            more[:, [len(moments) + number, 2 * len(moments) + number]] = -sign / 2
            blocks.append(sp.hstack([means, sp.csr_array(more)]))
            low.append(np.full(means.shape[0], -np.inf if sign > 0 else 0.0))
            high.append(np.full(means.shape[0], 0.0 if sign > 0 else np.inf))
    n = len(moments)
    lower = np.concatenate([np.zeros(n_images), np.full(n, -np.inf), np.full(n, CLOSE), np.zeros(n)])
    most = np.array([max(CLOSE, each.most) for each in moments])
    upper = np.concatenate([np.ones(n_images), np.full(n, np.inf), most, np.full(n, np.inf)])
    return milp(
        np.concatenate([np.zeros(n_images + n), np.ones(n), np.full(n, _EXCESS)]),
        integrality=np.concatenate([np.full(n_images, int(integral)), np.zeros(n_more)]),
        bounds=Bounds(lower, upper),
        constraints=LinearConstraint(sp.vstack(blocks).tocsc(), np.concatenate(low), np.concatenate(high)),
        options={"node_limit": _NODES, "mip_rel_gap": _GAP},
    )


def _wide(block: Any, n_more: int) -> Any:
    return sp.hstack([block, sp.csr_array((block.shape[0], n_more))])


def _groups(problem: Problem) -> Any:
    """Return a row per group with 1 for its candidates."""
    codes = np.unique(problem.group, return_inverse=True)[1]
    return sp.csr_array((np.ones(len(codes)), (codes, np.arange(len(codes)))))
