r"""The digits of small costs beside large ones.

The simplex keeps its potentials to a rounding of the largest cost. One pair of points :math:`10^8` times farther apart
than the others leaves nothing of them for p = 2: any plan between the others is called optimal. But adding potentials
to the costs changes no plan, and the *reduced costs* of feasible potentials,

.. math:: R_{ij} = C_{ij} - f_i - g_j \ge 0 , \qquad
          \langle P, C \rangle - W = \langle P, R \rangle - W_R \le \langle P, R \rangle ,

are small wherever an optimal plan can be. The right-hand side is a certificate that subtracts nothing. Where it is not
small beside the costs that the plan pays, the problem is solved again with R in place of C, in units of the largest R
that the plan has used, and cut off at that unit: potentials that are feasible for :math:`\min(R, 1)` are so for R as
well. They are added to f and g, and so on. Potentials are sums of two floating-point numbers, and R is computed from
:math:`f_i + g_j` and its rounding error.

References:
    Knuth, 1997. *The Art of Computer Programming*, volume 2, section 4.2.2, theorem B (the error of a sum).
    Gleixner, Steffy & Wolter, 2016. *Iterative refinement for linear programming*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from otkit.empirical._columns import likely_arcs, on_listed_arcs
from otkit.empirical._costs import Costs, column_transform
from otkit.empirical._coupling import Coupling

_ACCURATE = 1e-8
"""How large rounding may be, over a typical cost of the plan, before refinement is needed."""

_GOAL = 1e-9
"""The gap over a typical cost of the plan at which refinement ends."""

_LEFT = 1e-6
"""The gap over the cost of the plan beyond which the plan is not taken for optimal."""

_ROUNDS = 8


@dataclass(frozen=True)
class ReducedCosts:
    """Costs minus two potentials (2, n) and (2, m), each a sum of two numbers, in a unit, and no more than one."""

    costs: Costs
    f: np.ndarray
    g: np.ndarray
    unit: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return self.costs.shape

    @property
    def T(self) -> ReducedCosts:
        """The transpose."""
        return ReducedCosts(self.costs.T, self.g, self.f, self.unit)

    def block(self, low: int, high: int) -> np.ndarray:
        """The rows low to high."""
        return self._reduced(self.costs.block(low, high), self.f[:, low:high, None], self.g)

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Single entries."""
        return self._reduced(self.costs.at(rows, columns), self.f[:, rows], self.g[:, columns])

    def within(self, rows: np.ndarray, columns: np.ndarray) -> ReducedCosts:
        """The costs between some rows and some columns."""
        return ReducedCosts(self.costs.within(rows, columns), self.f[:, rows], self.g[:, columns], self.unit)

    def _reduced(self, C: np.ndarray, f: np.ndarray, g: np.ndarray) -> np.ndarray:
        total = f[0] + g[0]
        second = total - f[0]
        error = (f[0] - (total - second)) + (g[0] - second)
        reduced = ((C - total) - error) - (f[1] + g[1])
        with np.errstate(over="ignore"):
            return np.minimum(reduced / self.unit, 1.0)


def refined(a: np.ndarray, b: np.ndarray, costs: Costs, found: Coupling, max_iter: int) -> Coupling:
    """The coupling, solved again on its reduced costs as often as that improves it.

    Cost: nothing where costs are of one magnitude; otherwise a pass over the costs, and, where this finds the plan
    uncertain, some more passes and short runs of the simplex.

    Args:
        a: Positive weights, with shape (n,), of sum one.
        b: Positive weights, with shape (m,), of sum one.
        costs: The costs, of shape (n, m), not negative and the largest of them about one.
        found: What the simplex found for them.
        max_iter: The most pivots of a run of the simplex.
    """
    n, m = costs.shape
    paid = costs.at(found.rows, found.columns)
    # Whether the median of what is paid is above rounding, by counting, which costs less.
    seen = np.count_nonzero(paid >= np.finfo(float).eps * (n + m) / _ACCURATE)
    if not found.optimal or 2 * seen >= np.count_nonzero(paid):
        return found
    sure = _certified(a, costs, found)
    if sure.gap is not None and sure.gap <= _GOAL * _typical(paid):
        return sure
    f, g = np.stack([found.f, np.zeros(n)]), np.stack([found.g, np.zeros(m)])
    start = np.zeros(n), np.zeros(m)
    best = found
    for _ in range(_ROUNDS):
        g[1] += column_transform(ReducedCosts(costs, f, g), start[0])
        used = np.maximum(ReducedCosts(costs, f, g).at(found.rows, found.columns), 0)
        gap = float(found.mass @ used)
        found = found._replace(f=f.sum(0), g=g.sum(0), gap=gap)
        if best.gap is not None and gap >= 0.5 * best.gap:
            break
        best = found
        if gap <= _GOAL * _typical(costs.at(found.rows, found.columns)):
            break
        reduced = ReducedCosts(costs, f, g, 16 * float(used.max()))
        arcs = np.union1d(likely_arcs(reduced, *start), found.rows * m + found.columns)
        again = on_listed_arcs(a, b, reduced, arcs, *start, max_iter)
        if not again.optimal:
            break
        found = again._replace(n_iter=found.n_iter + again.n_iter)
        f[1] += reduced.unit * again.f
        g[1] += reduced.unit * again.g
    paid = costs.at(best.rows, best.columns)
    return best._replace(certain=(best.gap or 0.0) <= max(_GOAL * _typical(paid), _LEFT * float(best.mass @ paid)))


def _certified(a: np.ndarray, costs: Costs, found: Coupling) -> Coupling:
    """The coupling with feasible potentials, and its gap by the sums of one pass and their rounding."""
    f = found.f - found.f @ a
    g = column_transform(costs, f)
    used = costs.at(found.rows, found.columns) - f[found.rows] - g[found.columns]
    # Of f + g and C - f, where these meet.
    rounding = 2 * np.finfo(float).eps * float(np.abs(f).max() + np.abs(g).max())
    return found._replace(f=f, g=g, gap=float(found.mass @ np.maximum(used, 0)) + rounding)


def _typical(paid: np.ndarray) -> float:
    """The median of the non-zero costs that a plan pays; infinite if all are zero."""
    paid = paid[paid > 0]
    return float(np.median(paid)) if len(paid) else np.inf
