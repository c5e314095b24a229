r"""The network simplex on one transport problem: all arcs where it is small, short lists of them where that is faster.

References:
    Bonneel et al., 2011. *Displacement interpolation using Lagrangian mass transport* (the solver in POT).
"""

from __future__ import annotations

import numpy as np

from otkit.empirical._columns import likely_arcs, north_west, on_listed_arcs
from otkit.empirical._costs import Costs, MatrixCosts, column_transform, row_transform
from otkit.empirical._coupling import OPTIMAL, Coupling
from otkit.empirical._refined import refined

DENSE = 2048**2
"""Beyond how many arcs the simplex never looks at all of them."""

COARSEST = 700**2
"""Up to how many arcs it always looks at all of them, and coarsening ends."""

EXACT_BYTES = 2**32
"""How much memory the lists of arcs may take."""

BYTES_A_POINT = 8000
"""The bytes that they take for each point: up to about 60 arcs of 130 bytes."""


def couple(
    a: np.ndarray, b: np.ndarray, M: np.ndarray | Costs, max_iter: int | None = None, *, keep_plan: bool = False
) -> Coupling:
    """Solve one transport problem with costs M (n, m), not negative and the largest of them about one.

    The simplex has absolute tolerances: it is given a largest cost of at least about one and masses of sum one or mean
    one, or small problems come out wrong. Points of weight zero are left out; their potentials are c-transforms, what a
    first grain of mass there would cost.

    Args:
        a: Weights, with shape (n,).
        b: Weights, with shape (m,), of the same sum up to rounding.
        M: The costs.
        max_iter: The most pivots of one run of the simplex; by default 1000·(n + m), and 10⁶ at least.
        keep_plan: Whether to hand on the plan as a matrix, if there is one.
    """
    costs = MatrixCosts(M) if isinstance(M, np.ndarray) else M
    n, m = costs.shape
    max_iter = max_iter or max(1_000_000, 1000 * (n + m))
    rows, columns = a > 0, b > 0
    whole = np.count_nonzero(rows) == n and np.count_nonzero(columns) == m
    inner = costs if whole else costs.within(rows, columns)
    total = a.sum()
    a, b = a[rows] / total, b[columns] / b.sum()
    arcs = inner.shape[0] * inner.shape[1]
    lists = arcs > DENSE or (arcs > COARSEST and _few_arcs_matter(a, b, inner, max_iter))
    solve = _coarse_to_fine if lists else _on_all_arcs
    found = refined(a, b, inner, solve(a, b, inner, max_iter), max_iter)
    f, g = found.f, found.g
    # Not centred by points of weight zero, which may be so far that their potentials leave no digit of the others.
    centre = (f.sum() / len(f) - g.sum() / len(g)) / 2
    if not whole:
        f, g = np.empty(n), np.empty(m)
        f[rows], g[columns] = found.f, found.g
        f[~rows] = row_transform(costs.within(~rows, columns), found.g) if not rows.all() else 0
        # Beside all rows, even of weight zero, or the potentials of two such points could exceed the cost between them.
        g[~columns] = column_transform(costs.within(np.ones(n, dtype=bool), ~columns), f) if not columns.all() else 0
        found = found._replace(rows=np.flatnonzero(rows)[found.rows], columns=np.flatnonzero(columns)[found.columns])
    gap, mass = None if found.gap is None else found.gap * total, found.mass * total
    dense = found.dense if keep_plan and whole else None
    if dense is not None:
        dense[found.rows, found.columns] = mass
    return found._replace(mass=mass, f=f - centre, g=g + centre, gap=gap, dense=dense)


def require_memory(n: int, m: int) -> None:
    """Refuse an exact problem whose lists of arcs would not fit into `EXACT_BYTES`."""
    if (needed := BYTES_A_POINT * (n + m)) > EXACT_BYTES:
        raise MemoryError(
            f"exact transport between n = {n} and m = {m} points may take {BYTES_A_POINT} bytes for each of the "
            f"{n + m}, {needed / 2**30:.3g} GiB, and is held to {EXACT_BYTES / 2**30:.3g} GiB; take sinkhorn_cost or "
            "solve with a reg, sliced_wasserstein, or a subsample of the points"
        )


def _on_all_arcs(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> Coupling:
    # Here, as all of POT comes with it, and takes longer to import than all else but torch.
    from ot.lp.emd_wrap import emd_c

    M, unit = (costs.M, costs.unit) if isinstance(costs, MatrixCosts) else (costs.block(0, costs.shape[0]), 1.0)
    plan, _, f, g, code = emd_c(a, b, np.ascontiguousarray(M, dtype=np.float64), max_iter, 1)
    support = np.flatnonzero(plan != 0)  # five times faster than on the numbers themselves
    rows, columns = np.divmod(support, plan.shape[1])
    return Coupling(rows, columns, plan.ravel()[support], f / unit, g / unit, code == OPTIMAL, dense=plan)


def _few_arcs_matter(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> bool:
    """Whether short lists of arcs are soon complete, judged on one in sixteen points.

    Most of a point's reduced costs are then far from zero, as in many dimensions. In few dimensions, or between
    clusters, many arcs are nearly as good as the best, and looking at all is faster up to about `DENSE`.
    """
    if min(costs.shape) < 16**2:
        return False
    (rows, a_), (columns, b_) = (_drawn(weights, 16) for weights in (a, b))
    inner = costs.within(rows, columns)
    C = inner.block(0, len(rows))
    # What is left by the minima alone, which cost less than the simplex, is no closer to zero.
    reduced = C - C.min(1)[:, None]
    if not _far_from_zero(reduced - reduced.min(0)):
        return False
    found = _on_all_arcs(a_, b_, inner, max_iter)
    return _far_from_zero(C - found.f[:, None] - found.g)


def _far_from_zero(reduced: np.ndarray) -> bool:
    tenth, half = reduced.shape[1] // 10, reduced.shape[1] // 2
    small, middle = np.median(np.partition(reduced, (tenth, half))[:, [tenth, half]], axis=0)
    return bool(small > 0.2 * middle)


def _coarse_to_fine(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> Coupling:
    """Solve a large problem on short lists of arcs, with potentials from a part of the points."""
    f, g = _coarse_potentials(a, b, costs, max_iter)
    arcs = np.union1d(likely_arcs(costs, f, g), north_west(a, b))
    return on_listed_arcs(a, b, costs, arcs, f, g, max_iter)


def _coarse_potentials(a: np.ndarray, b: np.ndarray, costs: Costs, max_iter: int) -> tuple[np.ndarray, np.ndarray]:
    """Potentials from the problem of a quarter of the points."""
    (rows, a_), (columns, b_) = (_drawn(weights, 4) for weights in (a, b))
    inner = costs.within(rows, columns)
    solve = _on_all_arcs if inner.shape[0] * inner.shape[1] <= COARSEST else _coarse_to_fine
    f = solve(a_, b_, inner, max_iter).f
    g = column_transform(costs.within(rows, np.arange(len(b))), f)
    return row_transform(costs, g), g


def _drawn(weights: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray]:
    """One in so many points, always the same ones, and the weights that they have then.

    The mass is cut into as many equal parts, and one point is drawn from each; those of large weight come once.
    """
    count = max(1, len(weights) // each)
    drawn = (np.arange(count) + np.random.default_rng(0).random(count)) / count
    chosen = np.searchsorted(np.cumsum(weights)[:-1], drawn, side="right")
    chosen = chosen[np.diff(chosen, prepend=-1) > 0]
    mass = np.maximum(weights[chosen], 1 / count)
    return chosen, mass / mass.sum()
