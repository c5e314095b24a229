r"""The network simplex by column generation, for problems with more arcs than are worth looking at.

An optimal plan uses at most n + m - 1 of the nm arcs, and approximate potentials tell which ones may be among them:
those of small *reduced cost* :math:`C_{ij} - f_i - g_j`. A large problem is solved on a short list of arcs. The
potentials (f, g) of that solution are optimal for the whole if no arc has a negative reduced cost; the arcs that have
one join the list, and the simplex goes on from where it was,

.. math:: \text{solve on } A \;\to\; (f, g) \;\to\; A \cup \{(i, j) : C_{ij} - f_i - g_j < 0\} \;\to\; \dots

The gap to the optimum is known in every round: with the c-transform :math:`f^c_i = \min_j C_{ij} - g_j` the pair
:math:`(f^c, g)` is feasible, and bounds the cost from below by at most :math:`\langle f - f^c, a \rangle` less than the
cost on A. The first potentials come from a part of the points, solved by the same means, and two c-transforms.
The arcs of the north-west corner rule are always listed, so that there is a plan.

References:
    Schmitzer, 2016. *A sparse multiscale algorithm for dense optimal transport* (sparse lists of arcs, coarse to fine).
"""

from __future__ import annotations

import numpy as np
import torch

from otkit.empirical._costs import Costs, over_blocks
from otkit.empirical._coupling import OPTIMAL, Coupling

LISTED = 20
"""How many arcs of least reduced cost a row or a column brings to the first list."""

ADDED = 10
"""How many arcs of negative reduced cost a row brings in each later round."""


def on_listed_arcs(
    a: np.ndarray, b: np.ndarray, costs: Costs, arcs: np.ndarray, f: np.ndarray, g: np.ndarray, max_iter: int
) -> Coupling:
    """Solve on a list of arcs that grows until no other would improve the plan.

    Args:
        a: Positive weights, with shape (n,), of sum one.
        b: Positive weights, with shape (m,), of sum one.
        costs: The costs, of shape (n, m), the largest of them about one.
        arcs: The first list, of numbers i·m + j, on which there is a plan.
        f: A potential from which to start, with shape (n,).
        g: A potential from which to start, with shape (m,).
        max_iter: The most pivots of a run of the simplex.
    """
    from ot.lp.emd_wrap import emd_c_sparse  # here, as `_simplex` does

    n, m = costs.shape
    rows, columns = np.divmod(arcs, m)
    values = costs.at(rows, columns)
    # Rounding in the simplex's potentials, which start at about n + m times the largest cost.
    tol = 1e-16 * (n + m)
    rounds = 0
    while True:
        rounds += 1
        problem = n * a, n * b, rows.astype(np.uint64), columns.astype(np.uint64), values, max_iter
        *found, code = emd_c_sparse(*problem, f, g)
        if code != OPTIMAL:
            # The tree that POT builds from potentials may cycle where flows are degenerate; its own does not.
            *found, code = emd_c_sparse(*problem)
        sources, targets, mass, _, f, g = found
        shift = f @ a
        f, g = f - shift, g + shift
        found = Coupling(sources.astype(np.int64), targets.astype(np.int64), mass / n, f, g, code == OPTIMAL, rounds)
        if code != OPTIMAL:
            return found
        more, excess = _violated(costs, f, g, tol)
        # Arcs already listed are violated by the simplex's rounding only.
        more = np.setdiff1d(more, arcs, assume_unique=True)
        if np.maximum(excess, 0) @ a <= tol or not len(more):
            return found
        arcs = np.concatenate([arcs, more])
        rows, columns = np.divmod(arcs, m)
        values = np.concatenate([values, costs.at(more // m, more % m)])


def likely_arcs(costs: Costs, f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The arcs of least reduced cost in each row and in each column."""
    n, m = costs.shape
    down = _arcs(np.arange(n), _least(costs, g), m)
    across = _arcs(np.arange(m), _least(costs.T, f), n)
    return np.unique(np.concatenate([down, across % n * m + across // n]))


def north_west(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The n + m - 1 arcs that fill the marginals from the first points to the last: a feasible tree."""
    ends = np.concatenate([np.cumsum(a)[:-1], np.cumsum(b)[:-1]])
    down = np.argsort(ends, kind="stable") < len(a) - 1
    rows, columns = (np.concatenate([[0], np.cumsum(step)]) for step in (down, ~down))
    return rows * len(b) + columns


def _least(costs: Costs, g: np.ndarray) -> np.ndarray:
    """The columns of least C - g in each row, with shape (n, k)."""
    k = min(LISTED, costs.shape[1])

    def least(low: int, block: np.ndarray) -> np.ndarray:
        return torch.topk(torch.from_numpy(block - g), k, largest=False, sorted=False).indices.numpy()

    return np.concatenate(over_blocks(costs, least))


def _violated(costs: Costs, f: np.ndarray, g: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Arcs of reduced cost below -tol, the worst few of each row, and the most by which each row is violated."""
    k = min(ADDED, costs.shape[1])

    def violated(low: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        excess = np.add.outer(f[low : low + len(block)], g)
        excess -= block
        most = excess.max(1)
        some = np.flatnonzero(most > tol)
        worst = torch.topk(torch.from_numpy(excess[some]), k, sorted=False)
        return _arcs(low + some, worst.indices.numpy(), len(g))[worst.values.numpy().ravel() > tol], most

    arcs, most = zip(*over_blocks(costs, violated), strict=True)
    return np.concatenate(arcs), np.concatenate(most)


def _arcs(rows: np.ndarray, columns: np.ndarray, m: int) -> np.ndarray:
    """Arcs as numbers i·m + j, from rows (n,) and the columns (n, k) that each of them meets."""
    return (rows[:, None] * m + columns).ravel()
