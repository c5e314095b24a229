r"""Two bounds between which the exact cost lies, from any potentials and any plan, however far either has converged.

*Below.* For any f the c-transform :math:`g^c_j = \min_i C_{ij} - f_i` makes a feasible pair for the dual, so that
:math:`\langle f, a \rangle + \langle g^c, b \rangle` is at most the cost. Where (f, g) is far from feasible, as
entropic potentials are, f is taken as the c-transform of g first.

*Above.* Any :math:`P \ge 0` is rounded to a plan with the marginals a and b: rows and then columns that carry too much
are scaled down, and what is missing then, :math:`e = a - P'' 1 \ge 0` and :math:`e' = b - P''^\top 1 \ge 0` of equal
sum, is added as a product,

.. math:: P' = \operatorname{diag}\bigl(\min(a / P 1, 1)\bigr) P, \qquad
          P'' = P' \operatorname{diag}\bigl(\min(b / P'^\top 1, 1)\bigr), \qquad
          \bar P = P'' + e e'^\top / \|e\|_1 .

Its cost is at least the exact one, and at most :math:`2 \max C` times the error of the marginals above that of P. Both
bounds hold up to the rounding of the sums.

References:
    Altschuler, Weed & Rigollet, 2017. *Near-linear time approximation algorithms for optimal transport via Sinkhorn
    iteration*, algorithm 2 and lemma 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from otkit.empirical._costs import Costs, column_transform, over_blocks
from otkit.empirical._coupling import Coupling


def lower_bound(costs: Costs, a: np.ndarray, b: np.ndarray, f: np.ndarray) -> float:
    """The dual value of f and its c-transform, or 0, which is a bound as well, if 0 is more; O(nm).

    Args:
        costs: The costs, of shape (n, m), not negative.
        a: Weights, with shape (n,).
        b: Weights, with shape (m,).
        f: A potential, with shape (n,).
    """
    return max(float(f @ a + column_transform(costs, f) @ b), 0.0)


def upper_bound(costs: Costs, a: np.ndarray, b: np.ndarray, coupling: Coupling) -> tuple[float, float]:
    """The cost of a sparse plan rounded to the marginals, and the L1 error of its marginals, O(nm) where that is not 0.

    Args:
        costs: The costs, of shape (n, m), not negative and the largest of them about one.
        a: Weights, with shape (n,).
        b: Weights, with shape (m,).
        coupling: The plan.
    """
    rows, columns, mass = coupling.rows, coupling.columns, coupling.mass

    def marginals(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.bincount(rows, mass, len(a)), np.bincount(columns, mass, len(b))

    sums = marginals(mass)
    error = float(np.abs(sums[0] - a).sum() + np.abs(sums[1] - b).sum())
    mass = mass * _shrink(a, sums[0])[rows]
    mass = mass * _shrink(b, marginals(mass)[1])[columns]
    missing = tuple(np.maximum(w - s, 0) for w, s in zip((a, b), marginals(mass), strict=True))
    lack = missing[0].sum()
    value = float(mass @ costs.at(rows, columns))
    if lack <= 1e-14 * a.sum():
        return value, error  # rounding of the weights, which the largest of the costs may make larger than the value
    product = over_blocks(costs, lambda low, block: float(missing[0][low : low + len(block)] @ (block @ missing[1])))
    return value + sum(product) / float(lack), error


class Rounded(NamedTuple):
    """What is known of a dense plan: its cost once rounded, and its own L1 error of the marginals, cost and mass."""

    bound: float
    error: float
    cost: float
    mass: float


def upper_bound_of_rows(
    costs: Costs, a: np.ndarray, b: np.ndarray, plan: Callable[[int, np.ndarray], np.ndarray]
) -> Rounded:
    """The same for a dense plan that is given by blocks of rows; two passes, O(nm).

    Args:
        costs: The costs, of shape (n, m).
        a: Weights, with shape (n,).
        b: Weights, with shape (m,).
        plan: A function from the first row of a block and its costs to the plan there.
    """

    def first(low: int, block: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, float]:
        P, weights = plan(low, block), a[low : low + len(block)]
        sums = P.sum(1)
        return float(np.abs(sums - weights).sum()), P.sum(0), _shrink(weights, sums) @ P, float(np.vdot(P, block))

    off, sums, shrunk, cost = (np.asarray(sum(part)) for part in zip(*over_blocks(costs, first), strict=True))
    scale = _shrink(b, shrunk)
    missing = np.maximum(b - scale * shrunk, 0)

    def second(low: int, block: np.ndarray) -> tuple[float, float, float]:
        P, weights = plan(low, block), a[low : low + len(block)]
        P = P * _shrink(weights, P.sum(1))[:, None] * scale
        lack = np.maximum(weights - P.sum(1), 0)
        return float(np.vdot(P, block)), float(lack @ (block @ missing)), float(lack.sum())

    value, product, lack = (float(sum(part)) for part in zip(*over_blocks(costs, second), strict=True))
    # Both lacks are the same up to rounding; dividing by the smaller keeps the bound a bound.
    lack = min(lack, float(missing.sum()))
    error = float(off + np.abs(sums - b).sum())
    return Rounded(value + (product / lack if lack > 0 else 0.0), error, float(cost), float(sums.sum()))


def _shrink(weights: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """min(weights / sums, 1), and 1 where a sum is 0."""
    return np.divide(weights, sums, out=np.ones_like(weights), where=sums > weights)
