r"""The network simplex on one transport problem: dense where it is small, by column generation where it is large.

An optimal plan uses at most n + m - 1 of the nm arcs, and approximate potentials tell which ones may be among them:
those of small *reduced cost* :math:`C_{ij} - f_i - g_j`. A large problem is solved on a short list of arcs. The
potentials (f, g) of that solution are optimal for the whole if no arc has a negative reduced cost; the arcs that have
one join the list, and the simplex goes on from where it was,

.. math:: \text{solve on } A \;\to\; (f, g) \;\to\; A \cup \{(i, j) : C_{ij} - f_i - g_j < 0\} \;\to\; \dots

The gap to the optimum is known in every round: with the c-transform :math:`g^c_j = \min_i C_{ij} - f_i` the pair
:math:`(f, g^c)` is feasible, and bounds the cost from below by :math:`\langle g - g^c, b \rangle` less than the cost on
A at most. The first potentials come from a quarter of the points, solved by the same means, and two c-transforms.
The arcs of the north-west corner rule are always listed, so that there is a plan.

References:
    Bonneel et al., 2011. *Displacement interpolation using Lagrangian mass transport* (the solver in POT).
    Schmitzer, 2016. *A sparse multiscale algorithm for dense optimal transport* (sparse lists of arcs, coarse to fine).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from ot.lp.emd_wrap import emd_c, emd_c_sparse

from otkit.empirical._costs import Costs, MatrixCosts, column_transform, over_blocks, row_transform

DENSE = 2048**2
"""Up to how many arcs the simplex looks at all of them."""

COARSEST = 700**2
"""At how many arcs coarsening ends."""

NEAREST = 10
"""How many arcs of least reduced cost a row or a column brings to the list at a time."""

EXACT_BYTES = 2**32
"""How much memory the lists of arcs may take."""

BYTES_A_POINT = 8000
"""What they take for each point: up to about 60 arcs of 130 bytes."""

_OPTIMAL = 1


class Coupling(NamedTuple):
    """A plan by its non-zero entries, with the potentials that prove it optimal."""

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    f: np.ndarray
    g: np.ndarray
    optimal: bool
    n_iter: int = 1


def couple(a: np.ndarray, b: np.ndarray, M: np.ndarray | Costs, max_iter: int | None = None) -> Coupling:
    """Solve one transport problem with costs M (n, m), not negative and the largest of them about one.

    The simplex has absolute tolerances: it is given a largest cost of one and masses of sum one or mean one, or small
    problems come out wrong. Points of weight zero are left out; their potentials are c-transforms, what a first grain
    of mass there would cost.

    Args:
        a: Weights, with shape (n,).
        b: Weights, with shape (m,), of the same sum up to rounding.
        M: The costs.
        max_iter: The most pivots of one run of the simplex; by default 1000·(n + m), and 10⁶ at least.
    """
    costs = MatrixCosts(M) if isinstance(M, np.ndarray) else M
    n, m = costs.shape
    max_iter = max_iter or max(1_000_000, 1000 * (n + m))
    rows, columns = a > 0, b > 0
    whole = bool(rows.all() and columns.all())
    inner = costs if whole else costs.within(rows, columns)
    total = a.sum()
    solve = _dense if inner.shape[0] * inner.shape[1] <= DENSE else _by_columns
    found = solve(a[rows] / total, b[columns] / b.sum(), inner, max_iter)
    f, g = found.f, found.g
    if not whole:
        f, g = np.empty(n), np.empty(m)
        f[rows], g[columns] = found.f, found.g
        f[~rows] = row_transform(costs.within(~rows, columns), found.g) if not rows.all() else 0
        g[~columns] = column_transform(costs.within(rows, ~columns), found.f) if not columns.all() else 0
        found = found._replace(rows=np.flatnonzero(rows)[found.rows], columns=np.flatnonzero(columns)[found.columns])
    centre = (f.mean() - g.mean()) / 2
    return found._replace(mass=found.mass * total, f=f - centre, g=g + centre)


def require_memory(n: int, m: int) -> None:
    """Refuse an exact problem of which the lists of arcs would not fit into `EXACT_BYTES`."""
    if (needed := BYTES_A_POINT * (n + m)) > EXACT_BYTES:
        raise MemoryError(
            f"exact transport between n = {n} and m = {m} points may take {BYTES_A_POINT} bytes for each of the "
            f"{n + m}, {needed / 2**30:.3g} GiB, and is held to {EXACT_BYTES / 2**30:.3g} GiB; take sinkhorn_cost or "
            "solve with a reg, sliced_wasserstein, or a subsample of the points"
        )


def _dense(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> Coupling:
    M = np.ascontiguousarray(costs.block(0, costs.shape[0]), dtype=np.float64)
    plan, _, f, g, code = emd_c(a, b, M, max_iter, 1)
    support = np.flatnonzero(plan != 0)  # five times faster than of the numbers themselves
    rows, columns = np.divmod(support, plan.shape[1])
    return Coupling(rows, columns, plan.ravel()[support], f, g, code == _OPTIMAL)


def _by_columns(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> Coupling:
    """Solve a large problem on short lists of arcs, coarse to fine."""
    n, m = costs.shape
    f, g = _coarse_potentials(a, b, costs, max_iter)
    arcs = _arcs(np.arange(n), _least(costs, f, g), m)
    across = _arcs(np.arange(m), _least(costs.T, g, f), n)
    arcs = np.unique(np.concatenate([arcs, across % n * m + across // n, _north_west(a, b)]))
    rows, columns = np.divmod(arcs, m)
    values = costs.at(rows, columns)
    # Rounding in the simplex's potentials, which start at about n + m times the largest cost.
    tol = 1e-16 * (n + m)
    rounds = 0
    while True:
        rounds += 1
        problem = n * a, n * b, rows.astype(np.uint64), columns.astype(np.uint64), values, max_iter
        *found, code = emd_c_sparse(*problem, f, g)
        if code != _OPTIMAL:
            # The tree that POT builds from potentials may cycle where flows are degenerate; its own does not.
            *found, code = emd_c_sparse(*problem)
        sources, targets, mass, _, f, g = found
        shift = f @ a
        f, g = f - shift, g + shift
        found = Coupling(sources.astype(np.int64), targets.astype(np.int64), mass / n, f, g, code == _OPTIMAL, rounds)
        if code != _OPTIMAL:
            return found
        more, feasible = _violated(costs, f, g, tol)
        more = np.setdiff1d(more, arcs)  # what is listed is violated by the simplex's rounding only
        if (g - np.minimum(g, feasible)) @ b <= tol or not len(more):
            return found
        arcs = np.concatenate([arcs, more])
        rows, columns = np.divmod(arcs, m)
        values = np.concatenate([values, costs.at(more // m, more % m)])


def _coarse_potentials(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> tuple[np.ndarray, np.ndarray]:
    """Potentials from the problem of a quarter of the points, drawn without their weights and always the same."""
    rng = np.random.default_rng(0)
    rows, columns = (np.sort(rng.choice(n, max(1, n // 4), replace=False)) for n in costs.shape)
    inner = costs.within(rows, columns)
    solve = _dense if inner.shape[0] * inner.shape[1] <= COARSEST else _by_columns
    f = solve(a[rows] / a[rows].sum(), b[columns] / b[columns].sum(), inner, max_iter).f
    g = column_transform(costs.within(rows, np.arange(len(b))), f)
    return row_transform(costs, g), g


def _least(costs: Costs, f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """In each row the columns of least reduced cost, with shape (n, k)."""
    k = min(NEAREST, costs.shape[1])

    def least(low: int, block: np.ndarray) -> np.ndarray:
        return torch.topk(torch.from_numpy(block - g), k, largest=False, sorted=False).indices.numpy()

    return np.concatenate(over_blocks(costs, least))


def _violated(costs: Costs, f: np.ndarray, g: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Arcs of reduced cost below -tol, the worst few of each row, and the c-transform of f."""
    k = min(NEAREST, costs.shape[1])

    def violated(low: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reduced = block - f[low : low + len(block), None]
        transform = reduced.min(0)
        reduced -= g
        some = np.flatnonzero(reduced.min(1) < -tol)
        worst = torch.topk(torch.from_numpy(reduced[some]), k, largest=False, sorted=False)
        return _arcs(low + some, worst.indices.numpy(), len(g))[worst.values.numpy().ravel() < -tol], transform

    arcs, transforms = zip(*over_blocks(costs, violated), strict=True)
    return np.concatenate(arcs), np.minimum.reduce(transforms)


def _arcs(rows: np.ndarray, columns: np.ndarray, m: int) -> np.ndarray:
    """Arcs as numbers i·m + j, from rows (n,) and the columns (n, k) that each of them meets."""
    return (rows[:, None] * m + columns).ravel()


def _north_west(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The n + m - 1 arcs that fill the marginals from the first points to the last: a feasible tree."""
    ends = np.concatenate([np.cumsum(a)[:-1], np.cumsum(b)[:-1]])
    down = np.argsort(ends, kind="stable") < len(a) - 1
    rows, columns = (np.concatenate([[0], np.cumsum(step)]) for step in (down, ~down))
    return rows * len(b) + columns
